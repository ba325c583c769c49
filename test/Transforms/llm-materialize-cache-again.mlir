// RUN: %llm-opt %s --llm-materialize-cache | FileCheck %s

// Handles are left as they are: their reads see what was written before them,
// and their steps were checked over values.

!handle = !llm.kv_handle<1x1x64xf16>
!t = tensor<?x1x64xf32>
!ids = tensor<4xi32>
!cu = tensor<5xi32>

// CHECK-LABEL: func @handles
// CHECK: llm.begin_step
// CHECK: llm.append_kv
// CHECK-NEXT: llm.paged_attention
// CHECK-NEXT: llm.release_kv
// CHECK-NEXT: llm.seq_lens
// CHECK-NEXT: return
func.func @handles(%h: !handle, %ids: !ids, %cu: !cu, %t: !t) -> (!t, !ids) {
  %c0 = arith.constant 0 : index
  %step = llm.begin_step %h, %ids, %cu : !handle, !ids, !cu
  %at = llm.at_layer %step[%c0]
  llm.append_kv %h, %t, %t at %at : !handle, !t, !t
  %o = llm.paged_attention %t, %h at %at : !t, !handle -> !t
  llm.release_kv %h, %ids : !handle, !ids
  %lengths = llm.seq_lens %h, %ids : !handle, !ids -> !ids
  return %o, %lengths : !t, !ids
}
