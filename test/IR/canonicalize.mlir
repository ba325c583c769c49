// RUN: %llm-opt %s --allow-unregistered-dialect --canonicalize --split-input-file | FileCheck %s --check-prefixes=CHECK,FOLD
// RUN: %llm-opt %s --allow-unregistered-dialect --cse --split-input-file | FileCheck %s --check-prefixes=CHECK,CSE
// RUN: %llm-opt %s --allow-unregistered-dialect --loop-invariant-code-motion --split-input-file | FileCheck %s --check-prefixes=CHECK,LICM

!kv = !llm.paged_kv_cache<1x1x64xf16>
!handle = !llm.kv_handle<1x1x64xf16>

// CHECK-LABEL: func @cast_of_same_type
// FOLD-SAME: (%[[CACHE:.*]]:
// FOLD-NEXT: return %[[CACHE]]
func.func @cast_of_same_type(%c: !kv) -> !kv {
  %same = llm.cast_kv %c : !kv -> !kv
  return %same : !kv
}

// CHECK-LABEL: func @cast_of_other_type
// CHECK: llm.cast_kv
func.func @cast_of_other_type(%c: !llm.paged_kv_cache) -> !kv {
  %known = llm.cast_kv %c : !llm.paged_kv_cache -> !kv
  return %known : !kv
}

// Only the last layer counts.

// CHECK-LABEL: func private @layer_of_layer
// FOLD-SAME: (%[[STEP:.*]]: !llm.kv_step, %{{.*}}: index, %[[LAYER:.*]]: index)
// FOLD-NEXT: %[[AT:.*]] = llm.at_layer %[[STEP]][%[[LAYER]]]
// FOLD-NEXT: return %[[AT]]
func.func private @layer_of_layer(%step: !llm.kv_step, %first: index, %second: index) -> !llm.kv_step {
  %a = llm.at_layer %step[%first]
  %b = llm.at_layer %a[%second]
  return %b : !llm.kv_step
}

// CHECK-LABEL: func private @replace_by_itself
// FOLD-NEXT: return
func.func private @replace_by_itself(%h: !handle) {
  llm.replace_kv %h, %h : <1x1x64xf16>, <1x1x64xf16>
  return
}

// CHECK-LABEL: func private @replace_by_another
// CHECK: llm.replace_kv
func.func private @replace_by_another(%h: !handle, %version: !handle) {
  llm.replace_kv %h, %version : <1x1x64xf16>, <1x1x64xf16>
  return
}

// -----

// A value op that nobody uses goes, with its error; over handles it stays
// where it writes.

!static = !llm.paged_kv_cache<1x1x64xf16, block_size = 16, max_seq_len = 512, max_sequences = 4>
!kv = !llm.paged_kv_cache<1x1x64xf16>
!handle = !llm.kv_handle<1x1x64xf16>

// CHECK-LABEL: func @unused_values
// FOLD-NEXT: return
// CSE-NOT: llm.release_kv
func.func @unused_values(%c: !kv, %ids: tensor<4xi32>, %cu: tensor<5xi32>, %kv: tensor<4x1x1x64xf32>, %blocks: index) {
  %created = llm.create_kv_cache blocks(%blocks) : !static
  %next, %step = llm.begin_step %c, %ids, %cu : !kv, tensor<4xi32>, tensor<5xi32> -> !kv
  %positions = llm.positions %step : tensor<4xi32>
  %appended = llm.append_kv %c, %kv, %kv : !kv, tensor<4x1x1x64xf32>, tensor<4x1x1x64xf32> -> !kv
  %o = llm.paged_attention %kv, %appended : tensor<4x1x1x64xf32>, !kv -> tensor<4x1x1x64xf32>
  %snapshot = llm.snapshot_kv %c : !kv
  %released = llm.release_kv %snapshot, %ids : !kv, tensor<4xi32> -> !kv
  %stats = llm.kv_stats %c : !kv -> tensor<12xi64>
  return
}

// CHECK-LABEL: func @unused_handles
// CHECK: llm.append_kv
// CHECK: llm.release_kv
// FOLD-NOT: llm.seq_lens
// CSE-NOT: llm.seq_lens
// CHECK: return
func.func @unused_handles(%h: !handle, %ids: tensor<4xi32>, %kv: tensor<4x1x1x64xf32>) {
  llm.append_kv %h, %kv, %kv : !handle, tensor<4x1x1x64xf32>, tensor<4x1x1x64xf32>
  llm.release_kv %h, %ids : !handle, tensor<4xi32>
  %lengths = llm.seq_lens %h, %ids : !handle, tensor<4xi32> -> tensor<4xi32>
  return
}

// -----

// Equal ops on one version are one op.

!static = !llm.paged_kv_cache<1x1x64xf16, block_size = 16, max_seq_len = 512, max_sequences = 4>
!kv = !llm.paged_kv_cache<1x1x64xf16>
!handle = !llm.kv_handle<1x1x64xf16>

func.func private @take(!static, !static)

// CHECK-LABEL: func @equal_reads
// CSE: %[[LENGTHS:.*]] = llm.seq_lens
// CSE-NEXT: return %[[LENGTHS]], %[[LENGTHS]]
func.func @equal_reads(%c: !kv, %ids: tensor<4xi32>) -> (tensor<4xi32>, tensor<4xi32>) {
  %a = llm.seq_lens %c, %ids : !kv, tensor<4xi32> -> tensor<4xi32>
  %b = llm.seq_lens %c, %ids : !kv, tensor<4xi32> -> tensor<4xi32>
  return %a, %b : tensor<4xi32>, tensor<4xi32>
}

// CHECK-LABEL: func @equal_appends
// CSE: %[[NEXT:.*]] = llm.append_kv
// CSE-NEXT: return %[[NEXT]], %[[NEXT]]
func.func @equal_appends(%c: !kv, %kv: tensor<4x1x1x64xf32>) -> (!kv, !kv) {
  %a = llm.append_kv %c, %kv, %kv : !kv, tensor<4x1x1x64xf32>, tensor<4x1x1x64xf32> -> !kv
  %b = llm.append_kv %c, %kv, %kv : !kv, tensor<4x1x1x64xf32>, tensor<4x1x1x64xf32> -> !kv
  return %a, %b : !kv, !kv
}

// CHECK-LABEL: func @reads_of_two_versions
// CHECK: %[[BEFORE:.*]] = llm.seq_lens
// CHECK: %[[AFTER:.*]] = llm.seq_lens
// CHECK: return %{{.*}}, %[[BEFORE]], %[[AFTER]]
func.func @reads_of_two_versions(%c: !kv, %ids: tensor<4xi32>) -> (!kv, tensor<4xi32>, tensor<4xi32>) {
  %a = llm.seq_lens %c, %ids : !kv, tensor<4xi32> -> tensor<4xi32>
  %next = llm.release_kv %c, %ids : !kv, tensor<4xi32> -> !kv
  %b = llm.seq_lens %next, %ids : !kv, tensor<4xi32> -> tensor<4xi32>
  return %next, %a, %b : !kv, tensor<4xi32>, tensor<4xi32>
}

// CHECK-LABEL: func @two_creates
// CHECK: %[[A:.*]] = llm.create_kv_cache
// CHECK: %[[B:.*]] = llm.create_kv_cache
// CHECK: call @take(%[[A]], %[[B]])
func.func @two_creates(%blocks: index) {
  %a = llm.create_kv_cache blocks(%blocks) : !static
  %b = llm.create_kv_cache blocks(%blocks) : !static
  call @take(%a, %b) : (!static, !static) -> ()
  return
}

// Over handles a write comes between.

// CHECK-LABEL: func @reads_of_a_handle
// CHECK: %[[BEFORE:.*]] = llm.seq_lens
// CSE-NOT: llm.seq_lens
// CHECK: llm.release_kv
// CHECK: %[[AFTER:.*]] = llm.seq_lens
// CSE: return %[[BEFORE]], %[[BEFORE]], %[[AFTER]]
func.func @reads_of_a_handle(%h: !handle, %ids: tensor<4xi32>) -> (tensor<4xi32>, tensor<4xi32>, tensor<4xi32>) {
  %a = llm.seq_lens %h, %ids : !handle, tensor<4xi32> -> tensor<4xi32>
  %b = llm.seq_lens %h, %ids : !handle, tensor<4xi32> -> tensor<4xi32>
  llm.release_kv %h, %ids : !handle, tensor<4xi32>
  %c = llm.seq_lens %h, %ids : !handle, tensor<4xi32> -> tensor<4xi32>
  return %a, %b, %c : tensor<4xi32>, tensor<4xi32>, tensor<4xi32>
}

// -----

// Every op can fail: nothing runs where the source did not run it.
// peers: tt-mlir#5902, tt-mlir#4107, tt-mlir#7238

!kv = !llm.paged_kv_cache<1x1x64xf16>

func.func private @take(!kv, tensor<4x1x1x64xf32>, !kv, tensor<4xi32>, !llm.kv_step)

// CHECK-LABEL: func @invariant_ops
// LICM-NOT: llm.append_kv
// LICM-NOT: llm.begin_step
// LICM: scf.for
// CHECK-DAG: llm.append_kv
// CHECK-DAG: llm.paged_attention
// CHECK-DAG: llm.begin_step
// CHECK-DAG: llm.positions
// CHECK-DAG: llm.at_layer
// CHECK: func.call @take
// CHECK: }
func.func @invariant_ops(%c: !kv, %ids: tensor<4xi32>, %cu: tensor<5xi32>, %kv: tensor<4x1x1x64xf32>, %n: index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  scf.for %i = %c0 to %n step %c1 {
    %appended = llm.append_kv %c, %kv, %kv : !kv, tensor<4x1x1x64xf32>, tensor<4x1x1x64xf32> -> !kv
    %o = llm.paged_attention %kv, %c : tensor<4x1x1x64xf32>, !kv -> tensor<4x1x1x64xf32>
    %next, %step = llm.begin_step %c, %ids, %cu : !kv, tensor<4xi32>, tensor<5xi32> -> !kv
    %positions = llm.positions %step : tensor<4xi32>
    %at = llm.at_layer %step[%c0]
    func.call @take(%appended, %o, %next, %positions, %at) : (!kv, tensor<4x1x1x64xf32>, !kv, tensor<4xi32>, !llm.kv_step) -> ()
  }
  return
}

// -----

// In a graph region, as a module's, folding comes to an end.

// CHECK-LABEL: module @cycles
// FOLD-DAG: %[[SELF:.*]] = llm.at_layer %[[SELF]][
// FOLD-DAG: %[[CAST:.*]] = llm.cast_kv %[[CAST]]
// FOLD-DAG: "take"(%[[SELF]], %[[CAST]])
module @cycles {
  %c0 = arith.constant 0 : index
  %self = llm.at_layer %self[%c0]
  %a = llm.at_layer %b[%c0]
  %b = llm.at_layer %a[%c0]
  %tail = llm.at_layer %b[%c0]
  %cast = llm.cast_kv %cast : !llm.paged_kv_cache -> !llm.paged_kv_cache
  "take"(%self, %cast) : (!llm.kv_step, !llm.paged_kv_cache) -> ()
  "take"(%tail) : (!llm.kv_step) -> ()
}
