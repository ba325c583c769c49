// One layer of attention that examples/embed.c calls: keys, values and queries
// of a ragged batch come from the host, and the cache is its object.
//
//   llm-compile examples/embed.mlir -o embed.o
//
// writes embed.h beside the object. `llm.name` names what the header's function
// takes; sizes with one `llm.dims` are checked against each other.

!kv = !llm.paged_kv_cache<1x2x4xf32>

module @embed {
  func.func @attend(
      %cache: !kv {llm.name = "cache"},
      %seq_ids: tensor<?xi32> {llm.name = "seq_ids", llm.dims = ["B"]},
      %cu_seqlens: tensor<?xi32> {llm.name = "cu_seqlens", llm.dims = ["B+1"]},
      %q: tensor<?x2x4xf32> {llm.name = "q", llm.dims = ["T", "2", "4"]},
      %k: tensor<?x2x4xf32> {llm.name = "k", llm.dims = ["T", "2", "4"]},
      %v: tensor<?x2x4xf32> {llm.name = "v", llm.dims = ["T", "2", "4"]})
      -> (tensor<?x2x4xf32> {llm.name = "out", llm.dims = ["T", "2", "4"]}, !kv) {
    %layer = arith.constant 0 : index
    %begun, %step = llm.begin_step %cache, %seq_ids, %cu_seqlens
        : !kv, tensor<?xi32>, tensor<?xi32> -> !kv
    %at = llm.at_layer %step[%layer]
    %after = llm.append_kv %begun, %k, %v at %at
        : !kv, tensor<?x2x4xf32>, tensor<?x2x4xf32> -> !kv
    %out = llm.paged_attention %q, %after at %at : tensor<?x2x4xf32>, !kv -> tensor<?x2x4xf32>
    return %out, %after : tensor<?x2x4xf32>, !kv
  }
}
