// RUN: %llm-opt %s --llm-materialize-cache --verify-diagnostics | FileCheck %s
// RUN: %llm-opt %s --llm-materialize-cache --llm-materialize-cache 2>/dev/null | FileCheck %s
// RUN: %llm-opt %s --llm-materialize-cache=stop-after=schedule 2>/dev/null | FileCheck %s --check-prefix=SCHEDULE
// RUN: %llm-opt %s --llm-materialize-cache=stop-after=snapshot 2>/dev/null | FileCheck %s --check-prefix=SNAPSHOT
// RUN: %llm-opt %s --llm-materialize-cache=stop-after=drop 2>/dev/null | FileCheck %s --check-prefix=DROP
// RUN: %llm-opt %s --llm-materialize-cache=stop-after=drop --llm-materialize-cache 2>/dev/null | FileCheck %s
// RUN: not %llm-opt %s --llm-materialize-cache=stop-after=lunch 2>&1 | FileCheck %s --check-prefix=STOP

// STOP: expected stop-after to be normalise, schedule, snapshot or drop, got 'lunch'

!kv = !llm.paged_kv_cache<1x1x64xf16>
!static = !llm.paged_kv_cache<1x1x64xf16, block_size = 16, max_seq_len = 512, max_sequences = 4>
!t = tensor<4x1x1x64xf32>
!ids = tensor<4xi32>
!cu = tensor<5xi32>
!ragged = tensor<?x1x64xf32>

//===----------------------------------------------------------------------===//
// In place
//===----------------------------------------------------------------------===//

// CHECK-LABEL: func @straight_line
// CHECK-SAME: (%[[CACHE:.*]]: !llm.kv_handle<1x1x64xf16>, %[[T:.*]]: tensor<4x1x1x64xf32>) -> tensor<4x1x1x64xf32>
// CHECK-NEXT: {{^ *}}llm.append_kv %[[CACHE]], %[[T]], %[[T]] : !llm.kv_handle<1x1x64xf16>, tensor<4x1x1x64xf32>, tensor<4x1x1x64xf32>{{$}}
// CHECK-NEXT: %[[OUT:.*]] = llm.paged_attention %[[T]], %[[CACHE]]
// CHECK-NEXT: return %[[OUT]]
func.func @straight_line(%c: !kv, %t: !t) -> (!kv, !t) {
  %next = llm.append_kv %c, %t, %t : !kv, !t, !t -> !kv
  %o = llm.paged_attention %t, %next : !t, !kv -> !t
  return %next, %o : !kv, !t
}

// Attributes, steps and other results stay.

// CHECK-LABEL: func @step
// CHECK-SAME: (%[[CACHE:.*]]: !llm.kv_handle
// CHECK: %[[STEP:.*]] = llm.begin_step %[[CACHE]]
// CHECK-NEXT: %[[AT:.*]] = llm.at_layer %[[STEP]]
// CHECK-NEXT: llm.append_kv %[[CACHE]], %{{.*}}, %{{.*}} at %[[AT]] {note = "kept"}
// CHECK-NEXT: %[[OUT:.*]] = llm.paged_attention %{{.*}}, %[[CACHE]] at %[[AT]]
// CHECK-NEXT: return %[[OUT]]
func.func @step(%c: !kv, %ids: !ids, %cu: !cu, %t: !ragged) -> (!kv, !ragged) {
  %c0 = arith.constant 0 : index
  %begun, %step = llm.begin_step %c, %ids, %cu : !kv, !ids, !cu -> !kv
  %at = llm.at_layer %step[%c0]
  %next = llm.append_kv %begun, %t, %t at %at {note = "kept"} : !kv, !ragged, !ragged -> !kv
  %o = llm.paged_attention %t, %next at %at : !ragged, !kv -> !ragged
  return %next, %o : !kv, !ragged
}

// CHECK-LABEL: func @casts
// CHECK-SAME: (%[[CACHE:.*]]: !llm.kv_handle,
// CHECK: %[[KNOWN:.*]] = llm.cast_kv %[[CACHE]] : !llm.kv_handle -> !llm.kv_handle<1x1x64xf16>
// CHECK: llm.append_kv %[[KNOWN]]
// CHECK: %[[BARE:.*]] = llm.cast_kv %[[KNOWN]] : !llm.kv_handle<1x1x64xf16> -> !llm.kv_handle
// CHECK: llm.replace_kv %[[CACHE]], %[[BARE]]
// CHECK-NEXT: return
func.func @casts(%c: !llm.paged_kv_cache, %t: !t) -> !llm.paged_kv_cache {
  %known = llm.cast_kv %c : !llm.paged_kv_cache -> !kv
  %next = llm.append_kv %known, %t, %t : !kv, !t, !t -> !kv
  %bare = llm.cast_kv %next : !kv -> !llm.paged_kv_cache
  return %bare : !llm.paged_kv_cache
}

//===----------------------------------------------------------------------===//
// Scheduled reads
//===----------------------------------------------------------------------===//

// A read of the old version runs before it ends.

// CHECK-LABEL: func @late_reads
// SCHEDULE-LABEL: func @late_reads
// CHECK: %[[TABLE:.*]] = llm.block_table %[[CACHE:.*]], %{{.*}}
// CHECK-NEXT: %[[K:.*]], %{{.*}} = llm.lookup_kv %[[CACHE]] blocks(%[[TABLE]] : tensor<4x8xi32>)
// CHECK-NEXT: llm.release_kv %[[CACHE]]
// CHECK-NEXT: return %[[K]]
// SCHEDULE: llm.block_table
// SCHEDULE-NEXT: llm.lookup_kv
// SCHEDULE-NEXT: llm.release_kv {{.*}} -> !llm.paged_kv_cache<1x1x64xf16>
func.func @late_reads(%c: !kv, %ids: !ids) -> (!kv, tensor<4x8x1x64xf16>) {
  %next = llm.release_kv %c, %ids : !kv, !ids -> !kv
  %table = llm.block_table %c, %ids : !kv, !ids -> tensor<4x8xi32>
  %k, %v = llm.lookup_kv %c blocks(%table : tensor<4x8xi32>) : !kv -> tensor<4x8x1x64xf16>, tensor<4x8x1x64xf16>
  return %next, %k : !kv, tensor<4x8x1x64xf16>
}

// What the read needs comes along.

// CHECK-LABEL: func @late_read_with_a_computed_operand
// CHECK-SAME: (%[[CACHE:[^:]*]]:
// CHECK: tensor.extract_slice
// CHECK-NEXT: tensor.cast
// CHECK-NEXT: llm.seq_lens %[[CACHE]]
// CHECK-NEXT: llm.release_kv %[[CACHE]]
// CHECK-NEXT: return
func.func @late_read_with_a_computed_operand(%c: !kv, %ids: !ids) -> (!kv, tensor<?xi32>) {
  %next = llm.release_kv %c, %ids : !kv, !ids -> !kv
  %two = tensor.extract_slice %ids[0] [2] [1] : !ids to tensor<2xi32>
  %some = tensor.cast %two : tensor<2xi32> to tensor<?xi32>
  %lengths = llm.seq_lens %c, %some : !kv, tensor<?xi32> -> tensor<?xi32>
  return %next, %lengths : !kv, tensor<?xi32>
}

// CHECK-LABEL: func @read_after_a_branch
// CHECK: llm.seq_lens
// CHECK-NEXT: scf.if
// CHECK-NOT: llm.snapshot_kv
// CHECK: return
func.func @read_after_a_branch(%c: !kv, %ids: !ids, %p: i1) -> (!kv, !ids) {
  %next = scf.if %p -> !kv {
    %released = llm.release_kv %c, %ids : !kv, !ids -> !kv
    scf.yield %released : !kv
  } else {
    scf.yield %c : !kv
  }
  %lengths = llm.seq_lens %c, %ids : !kv, !ids -> !ids
  return %next, %lengths : !kv, !ids
}

// CHECK-LABEL: func @read_after_a_loop
// CHECK: llm.seq_lens
// CHECK-NEXT: scf.for
// CHECK-NOT: llm.snapshot_kv
// CHECK: return
func.func @read_after_a_loop(%c: !kv, %t: !t, %ids: !ids, %n: index) -> (!kv, !ids) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %next = scf.for %i = %c0 to %n step %c1 iter_args(%v = %c) -> !kv {
    %appended = llm.append_kv %v, %t, %t : !kv, !t, !t -> !kv
    scf.yield %appended : !kv
  }
  %lengths = llm.seq_lens %c, %ids : !kv, !ids -> !ids
  return %next, %lengths : !kv, !ids
}

//===----------------------------------------------------------------------===//
// Snapshots
//===----------------------------------------------------------------------===//

// The query comes from the new version, so the old one must last.

// CHECK-LABEL: func @read_that_must_follow
// CHECK-SAME: (%[[OLD:.*]]: !llm.kv_handle<1x1x64xf16>, %[[T:.*]]: tensor
// CHECK-NEXT: %[[NEW:.*]] = llm.snapshot_kv %[[OLD]]
// CHECK-NEXT: llm.append_kv %[[NEW]]
// CHECK-NEXT: %[[Q:.*]] = llm.paged_attention %[[T]], %[[NEW]]
// CHECK-NEXT: %[[OUT:.*]] = llm.paged_attention %[[Q]], %[[OLD]]
// CHECK-NEXT: llm.drop_kv %[[OLD]]
// CHECK-NEXT: llm.replace_kv %[[OLD]], %[[NEW]]
// CHECK-NEXT: return %[[OUT]]
func.func @read_that_must_follow(%c: !kv, %t: !t) -> (!kv, !t) {
  // expected-remark @+1 {{takes a snapshot of its cache, which is still needed}}
  %next = llm.append_kv %c, %t, %t : !kv, !t, !t -> !kv
  %q = llm.paged_attention %t, %next : !t, !kv -> !t
  // expected-note @+1 {{the version is needed here}}
  %o = llm.paged_attention %q, %c : !t, !kv -> !t
  return %next, %o : !kv, !t
}

// The last consumer works in place.

// CHECK-LABEL: func @two_consumers
// SNAPSHOT-LABEL: func @two_consumers
// DROP-LABEL: func @two_consumers
// CHECK-SAME: (%[[CACHE:.*]]: !llm.kv_handle
// CHECK-NEXT: %[[BRANCH:.*]] = llm.snapshot_kv %[[CACHE]]
// CHECK-NEXT: llm.trim_kv %[[BRANCH]]
// CHECK-NEXT: llm.release_kv %[[CACHE]]
// CHECK-NEXT: %[[LENGTHS:.*]] = llm.seq_lens %[[BRANCH]]
// CHECK-NEXT: llm.drop_kv %[[BRANCH]]
// CHECK-NEXT: return %[[LENGTHS]]
// SNAPSHOT: %[[BRANCH:.*]] = llm.snapshot_kv %{{.*}} : !llm.paged_kv_cache<1x1x64xf16>
// SNAPSHOT: llm.trim_kv %[[BRANCH]]
// SNAPSHOT-NOT: llm.drop_kv
// SNAPSHOT: return
// DROP: %[[TRIMMED:.*]] = llm.trim_kv
// DROP: llm.drop_kv %[[TRIMMED]] : !llm.paged_kv_cache<1x1x64xf16>
// DROP-NEXT: return
func.func @two_consumers(%c: !kv, %ids: !ids) -> (!kv, !ids) {
  // expected-remark @+1 {{takes a snapshot of its cache, which is still needed}}
  %a = llm.trim_kv %c, %ids, %ids : !kv, !ids, !ids -> !kv
  // expected-note @+1 {{the version is needed here}}
  %b = llm.release_kv %c, %ids : !kv, !ids -> !kv
  %lengths = llm.seq_lens %a, %ids : !kv, !ids -> !ids
  return %b, %lengths : !kv, !ids
}

// A snapshot that the program asks for is the only one.

// CHECK-LABEL: func @asked_for
// CHECK: llm.snapshot_kv
// CHECK-NOT: llm.snapshot_kv
// CHECK: return
func.func @asked_for(%c: !kv, %ids: !ids) -> (!kv, !ids) {
  %copy = llm.snapshot_kv %c : !kv
  %a = llm.trim_kv %copy, %ids, %ids : !kv, !ids, !ids -> !kv
  %b = llm.release_kv %c, %ids : !kv, !ids -> !kv
  %lengths = llm.seq_lens %a, %ids : !kv, !ids -> !ids
  return %b, %lengths : !kv, !ids
}

//===----------------------------------------------------------------------===//
// Drops
//===----------------------------------------------------------------------===//

// CHECK-LABEL: func @own_cache
// CHECK: %[[CACHE:.*]] = llm.create_kv_cache
// CHECK-NEXT: llm.append_kv %[[CACHE]]
// CHECK-NEXT: %[[OUT:.*]] = llm.paged_attention %{{.*}}, %[[CACHE]]
// CHECK-NEXT: llm.drop_kv %[[CACHE]]
// CHECK-NEXT: return %[[OUT]]
func.func @own_cache(%blocks: index, %t: !t) -> !t {
  %c = llm.create_kv_cache blocks(%blocks) : !static
  %next = llm.append_kv %c, %t, %t : !static, !t, !t -> !static
  %o = llm.paged_attention %t, %next : !t, !static -> !t
  return %o : !t
}

// CHECK-LABEL: func @unused_cache
// CHECK: %[[CACHE:.*]] = llm.create_kv_cache
// CHECK-NEXT: llm.drop_kv %[[CACHE]]
// CHECK-NEXT: return
func.func @unused_cache(%blocks: index) {
  %c = llm.create_kv_cache blocks(%blocks) : !static
  return
}

// CHECK-LABEL: func private @unused_parameter
// CHECK-SAME: {llm.borrowed}
// CHECK-NEXT: return
func.func private @unused_parameter(%c: !kv) {
  return
}

// CHECK-LABEL: func private @poison
// CHECK: llm.null_kv : !llm.kv_handle<1x1x64xf16>
func.func private @poison() -> !kv {
  %none = ub.poison : !kv
  return %none : !kv
}
