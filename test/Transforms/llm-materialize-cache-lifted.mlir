// Branches between blocks first become structured; poison that this leaves
// behind costs nothing.

// RUN: %llm-opt %s --lift-cf-to-scf --canonicalize --llm-materialize-cache=strict | FileCheck %s
// RUN: %llm-opt %s --lift-cf-to-scf --llm-materialize-cache 2>/dev/null | FileCheck %s --check-prefix=RAW

!kv = !llm.paged_kv_cache<1x1x64xf16>
!t = tensor<4x1x1x64xf32>

// CHECK-LABEL: func @branch
// CHECK-SAME: (%[[C:[^:]*]]:
// CHECK-NEXT: scf.if
// CHECK-NEXT: llm.release_kv %[[C]]
// CHECK-NOT: llm.snapshot_kv
// CHECK: return
func.func @branch(%c: !kv, %ids: tensor<4xi32>, %p: i1) -> !kv {
  cf.cond_br %p, ^yes, ^no(%c : !kv)
^yes:
  %released = llm.release_kv %c, %ids : !kv, tensor<4xi32> -> !kv
  cf.br ^no(%released : !kv)
^no(%r: !kv):
  return %r : !kv
}

func.func private @more(!kv {llm.borrowed}) -> i1

// CHECK-LABEL: func @loop
// CHECK-SAME: (%[[C:[^:]*]]:
// CHECK-NEXT: %[[R:.*]] = scf.while (%[[NOW:.*]] = %[[C]])
// CHECK-NEXT: %[[GO:.*]] = func.call @more(%[[NOW]])
// CHECK-NEXT: scf.condition(%[[GO]]) %[[NOW]]
// CHECK: ^bb0(%[[NOW:[^:]*]]:
// CHECK-NEXT: llm.append_kv %[[NOW]]
// CHECK-NEXT: scf.yield %[[NOW]]
// CHECK: llm.replace_kv %[[C]], %[[R]]

// Lifting alone hands the version to the loop and to what follows it.

// RAW-LABEL: func @loop
// RAW-COUNT-1: llm.snapshot_kv
// RAW-NOT: llm.snapshot_kv
// RAW: llm.replace_kv
func.func @loop(%c: !kv, %t: !t) -> !kv {
  cf.br ^head(%c : !kv)
^head(%now: !kv):
  %go = func.call @more(%now) : (!kv) -> i1
  cf.cond_br %go, ^body, ^end
^body:
  %next = llm.append_kv %now, %t, %t : !kv, !t, !t -> !kv
  cf.br ^head(%next : !kv)
^end:
  return %now : !kv
}


// Poison may become any value, a null version may not: what one branch drops,
// nobody drops again.

// RUN: %llm-opt %s --lift-cf-to-scf --llm-materialize-cache --canonicalize 2>/dev/null | FileCheck %s --check-prefix=NULL

// NULL-LABEL: func private @drops_once
// NULL-SAME: (%[[C:[^:]*]]:
// NULL: %[[R:.*]] = scf.if
// NULL: llm.drop_kv %[[C]]
// NULL-NEXT: %[[NONE:.*]] = llm.null_kv
// NULL-NEXT: scf.yield %[[NONE]]
// NULL-NEXT: else
// NULL-NEXT: scf.yield %[[C]]
// NULL: llm.drop_kv %[[R]]
// NULL-NEXT: return
func.func private @drops_once(%c: !kv, %ids: tensor<4xi32>, %p: i1) {
  %r = scf.if %p -> !kv {
    %released = llm.release_kv %c, %ids : !kv, tensor<4xi32> -> !kv
    %none = ub.poison : !kv
    scf.yield %none : !kv
  } else {
    scf.yield %c : !kv
  }
  return
}
