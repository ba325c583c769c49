// RUN: %llm-opt %s --llm-fuse-rope | FileCheck %s

!kv = !llm.paged_kv_cache<2x1x4xf16>
!rows = tensor<?x1x4xf32>
!table = tensor<?x4xf32>

// A key that only the append reads.

// CHECK-LABEL: func @key
// CHECK-SAME: %[[C:[a-z0-9]+]]: {{.*}}, %[[STEP:[a-z0-9]+]]: {{.*}}, %[[K:[a-z0-9]+]]: {{.*}}, %[[V:[a-z0-9]+]]: {{.*}}, %[[TABLE:[a-z0-9]+]]:
// CHECK-NEXT: llm.append_kv %[[C]], %[[K]], %[[V]] at %[[STEP]] rope_table(%[[TABLE]] : tensor<?x4xf32>) {max_seq_len = 8 : i32, pairing = #llm.rope_pairing<adjacent>}
// CHECK-NEXT: return
func.func @key(%c: !kv, %at: !llm.kv_step, %k: !rows, %v: !rows, %table: !table) -> !kv {
  %y = llm.rope %k, %table {pairing = #llm.rope_pairing<adjacent>} : !rows, !table
  %c1 = llm.append_kv %c, %y, %v at %at {max_seq_len = 8 : i32} : !kv, !rows, !rows -> !kv
  return %c1 : !kv
}

// A key that somebody else reads, and a value.

// CHECK-LABEL: func @others
// CHECK: %[[Y:.*]] = llm.rope
// CHECK: %[[C1:.*]] = llm.append_kv %{{.*}}, %[[Y]], %[[Y]] at %{{.*}} :
// CHECK: %[[Z:.*]] = llm.rope
// CHECK: llm.append_kv %[[C1]], %{{.*}}, %[[Z]] at %{{.*}} :
func.func @others(%c: !kv, %at: !llm.kv_step, %at1: !llm.kv_step, %k: !rows, %table: !table) -> !kv {
  %y = llm.rope %k, %table {pairing = #llm.rope_pairing<half>} : !rows, !table
  %c1 = llm.append_kv %c, %y, %y at %at : !kv, !rows, !rows -> !kv
  %z = llm.rope %k, %table {pairing = #llm.rope_pairing<half>} : !rows, !table
  %c2 = llm.append_kv %c1, %k, %z at %at1 : !kv, !rows, !rows -> !kv
  return %c2 : !kv
}

// Twice rotated: once on the way.

// CHECK-LABEL: func @twice
// CHECK: %[[Y:.*]] = llm.rope %{{.*}} {pairing = #llm.rope_pairing<half>}
// CHECK: llm.append_kv %{{.*}}, %[[Y]], %{{.*}} at %{{.*}} rope_table({{.*}}) {pairing = #llm.rope_pairing<adjacent>}
func.func @twice(%c: !kv, %at: !llm.kv_step, %k: !rows, %v: !rows, %table: !table) -> !kv {
  %y = llm.rope %k, %table {pairing = #llm.rope_pairing<half>} : !rows, !table
  %z = llm.rope %y, %table {pairing = #llm.rope_pairing<adjacent>} : !rows, !table
  %c1 = llm.append_kv %c, %z, %v at %at : !kv, !rows, !rows -> !kv
  return %c1 : !kv
}

// The append may run more often than the rotation.

// CHECK-LABEL: func @loop
// CHECK: llm.rope
// CHECK: scf.for
// CHECK: llm.append_kv {{.*}} at %{{[a-z0-9]+}} :
func.func @loop(%c: !kv, %step: !llm.kv_step, %k: !rows, %v: !rows, %table: !table) -> !kv {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %y = llm.rope %k, %table {pairing = #llm.rope_pairing<half>} : !rows, !table
  %r = scf.for %i = %c0 to %c2 step %c1 iter_args(%ci = %c) -> (!kv) {
    %at = llm.at_layer %step[%i]
    %next = llm.append_kv %ci, %y, %v at %at : !kv, !rows, !rows -> !kv
    scf.yield %next : !kv
  }
  return %r : !kv
}
