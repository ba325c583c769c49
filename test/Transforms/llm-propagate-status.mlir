// RUN: %llm-opt %s --llm-propagate-status --split-input-file --verify-diagnostics | FileCheck %s

func.func private @llm_rt_drop_kv(!llvm.ptr, i32, i64) -> i32

// CHECK-LABEL: func private @callee
// CHECK-SAME: -> (i32, index)
func.func private @callee(%call: !llvm.ptr, %kv: i64) -> index {
  %site = arith.constant -1 : i32
  %c7 = arith.constant 7 : index
  // CHECK: %[[CODE:.*]] = call @llm_rt_drop_kv
  // CHECK: %[[OK:.*]] = arith.cmpi eq, %[[CODE]]
  // CHECK: cf.cond_br %[[OK]], ^[[NEXT:.*]], ^[[EXIT:.*]](%[[CODE]] : i32)
  // CHECK: ^[[NEXT]]:
  // CHECK: return %c0_i32{{.*}}, %c7
  // CHECK: ^[[EXIT]](%[[FAILED:.*]]: i32):
  // CHECK: return %[[FAILED]]
  %code = call @llm_rt_drop_kv(%call, %site, %kv) {llm.op = "llm.drop_kv"} : (!llvm.ptr, i32, i64) -> i32
  return %c7 : index
}

// A function that reaches a runtime call through another.

// CHECK-LABEL: func @caller
// CHECK-SAME: -> i32
func.func @caller(%call: !llvm.ptr, %kv: i64) {
  // CHECK: %[[RESULTS:.*]]:2 = call @callee
  // CHECK: cf.cond_br %{{.*}}, ^{{.*}}, ^{{.*}}(%[[RESULTS]]#0 : i32)
  %i = call @callee(%call, %kv) : (!llvm.ptr, i64) -> index
  return
}

// CHECK-LABEL: func private @cannot_fail
// CHECK-SAME: () {
func.func private @cannot_fail() {
  return
}

// CHECK-LABEL: func @asserts
// CHECK: cf.cond_br %{{.*}}, ^[[FINE:.*]], ^[[FAIL:.*]]
// CHECK: ^[[FAIL]]:
// CHECK: call @llm_rt_fail({{.*}}) {llm.op = "cf.assert"}
func.func @asserts(%call: !llvm.ptr, %ok: i1) {
  cf.assert %ok, "a reason"
  return
}

// -----

func.func private @llm_rt_drop_kv(!llvm.ptr, i32, i64) -> i32

func.func @region(%call: !llvm.ptr, %kv: i64, %n: index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  scf.parallel (%i) = (%c0) to (%n) step (%c1) {
    %site = arith.constant -1 : i32
    // expected-error @+1 {{can fail inside 'scf.parallel', which has no early exit}}
    %code = func.call @llm_rt_drop_kv(%call, %site, %kv) {llm.op = "llm.drop_kv"} : (!llvm.ptr, i32, i64) -> i32
  }
  return
}

// -----

func.func @no_call(%ok: i1) {
  // expected-error @+1 {{has no call to fail here}}
  cf.assert %ok, "a reason"
  return
}
