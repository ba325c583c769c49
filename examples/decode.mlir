// One layer of a decode step over a ragged batch. Two versions of the cache are
// in play: %before, which a caller may still want, and %after.
//
//   llm-opt examples/decode.mlir --llm-materialize-cache
//   llm-opt examples/decode.mlir --llm-to-cpu

!kv = !llm.paged_kv_cache<1x2x64xf16, block_size = 16, max_seq_len = 4096>

func.func @decode(%before: !kv, %seq_ids: tensor<?xi32>, %cu_seqlens: tensor<?xi32>,
                  %q: tensor<?x6x64xf32>, %k: tensor<?x2x64xf32>, %v: tensor<?x2x64xf32>)
    -> (tensor<?x6x64xf32>, !kv) {
  %layer = arith.constant 0 : index
  %begun, %step = llm.begin_step %before, %seq_ids, %cu_seqlens
      : !kv, tensor<?xi32>, tensor<?xi32> -> !kv
  %at = llm.at_layer %step[%layer]
  %after = llm.append_kv %begun, %k, %v at %at
      : !kv, tensor<?x2x64xf32>, tensor<?x2x64xf32> -> !kv
  %o = llm.paged_attention %q, %after at %at : tensor<?x6x64xf32>, !kv -> tensor<?x6x64xf32>
  return %o, %after : tensor<?x6x64xf32>, !kv
}
