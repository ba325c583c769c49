// RUN: %llm-opt %s --allow-unregistered-dialect --convert-llm-to-linalg | FileCheck %s

// An op of which nothing is known hides no call of the specification.

!kv = !llm.paged_kv_cache<1x1x4xf32, block_size = 4, max_seq_len = 16, max_sequences = 2>

// CHECK-LABEL: func @beside_an_unregistered_op
// CHECK: "other.op"() ({
// CHECK: call @llm_spec.seq_lens
// CHECK: func.func private @llm_spec.seq_lens
func.func @beside_an_unregistered_op(%c: !kv, %ids: tensor<?xi32>) -> tensor<?xi32> {
  "other.op"() ({
    "other.end"() : () -> ()
  }) : () -> ()
  %lengths = llm.seq_lens %c, %ids : !kv, tensor<?xi32> -> tensor<?xi32>
  return %lengths : tensor<?xi32>
}
