// RUN: %llm-opt %s --llm-plan-workspace --split-input-file --verify-diagnostics | FileCheck %s

// CHECK-LABEL: @body
// CHECK-SAME: %[[CALL:.*]]: !llvm.ptr, %[[ROWS:.*]]: index
func.func @body(%call: !llvm.ptr, %n: index) {
  // CHECK: call @llm_rt_workspace_mark(%[[CALL]]
  // CHECK: %[[ROW:.*]] = arith.constant 16 : index
  // CHECK-NEXT: %[[SIZE:.*]] = arith.muli %[[ROW]], %[[ROWS]] : index
  // CHECK-NEXT: %[[BYTES:.*]] = arith.index_cast %[[SIZE]] : index to i64
  // CHECK: call @llm_rt_workspace(%[[CALL]], %{{.*}}, %[[BYTES]], %[[SLOT:.*]]) {llm.op = "workspace"}
  // CHECK: llvm.load %[[SLOT]]
  // CHECK-NOT: memref.alloc
  // CHECK: linalg.copy
  // CHECK: call @llm_rt_workspace_release(%[[CALL]]
  // CHECK-NEXT: return
  %a = memref.alloc(%n) : memref<?x4xf32>
  %b = memref.alloc(%n) : memref<?x4xf32>
  memref.copy %a, %b : memref<?x4xf32> to memref<?x4xf32>
  memref.dealloc %a : memref<?x4xf32>
  return
}

// A function that returns a buffer leaves its release to the caller.

// CHECK-LABEL: @returns
func.func @returns(%call: !llvm.ptr) -> memref<4xf32> {
  // CHECK-NOT: llm_rt_workspace_mark
  // CHECK: call @llm_rt_workspace(
  // CHECK-NOT: llm_rt_workspace_release
  %a = memref.alloc() : memref<4xf32>
  return %a : memref<4xf32>
}

// An iteration gives back what it took.

// CHECK-LABEL: @loop
func.func @loop(%call: !llvm.ptr, %n: index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  // CHECK: scf.for
  // CHECK-NEXT: arith.constant -1
  // CHECK-NEXT: call @llm_rt_workspace_mark(
  // CHECK: call @llm_rt_workspace(
  // CHECK: call @llm_rt_workspace_release({{.*}}
  // CHECK-NEXT: }
  scf.for %i = %c0 to %n step %c1 {
    %a = memref.alloc() : memref<4xf32>
  }
  return
}

// -----

func.func @parallel(%call: !llvm.ptr, %n: index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  scf.parallel (%i) = (%c0) to (%n) step (%c1) {
    // expected-error @+1 {{allocates inside a parallel region, where a failure cannot be returned}}
    %a = memref.alloc() : memref<4xf32>
  }
  return
}

// -----

func.func @no_call() {
  // expected-error @+1 {{allocates in a function without the call's context; run --convert-llm-to-runtime first}}
  %a = memref.alloc() : memref<4xf32>
  return
}

// -----

func.func @layout(%call: !llvm.ptr) {
  // expected-error @+1 {{expected an identity layout}}
  %a = memref.alloc() : memref<4xf32, strided<[2]>>
  return
}
