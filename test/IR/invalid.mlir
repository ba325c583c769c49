// RUN: %llm-opt %s --split-input-file --verify-diagnostics

//===----------------------------------------------------------------------===//
// Creation and types
//===----------------------------------------------------------------------===//

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @create_dynamic(%blocks: index) {
  // expected-error @+1 {{expected a fully static cache type, got '!llm.paged_kv_cache<1x1x64xf16>'}}
  %c = llm.create_kv_cache blocks(%blocks) : !kv
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16, block_size = 16, max_seq_len = 512, max_sequences = 4>
func.func @create_paged_without_blocks() {
  // expected-error @+1 {{expected a number of blocks with strategy paged}}
  %c = llm.create_kv_cache : !kv
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16, block_size = 16, max_seq_len = 512, max_sequences = 4>
func.func @create_static_with_blocks(%blocks: index) {
  // expected-error @+1 {{expected no number of blocks with strategy static}}
  %c = llm.create_kv_cache blocks(%blocks) {strategy = #llm.kv_strategy<static>} : !kv
  return
}

// -----

func.func @cast_to_a_handle(%c: !llm.paged_kv_cache) {
  // expected-error @+1 {{cannot cast between a value and a handle, '!llm.paged_kv_cache' to '!llm.kv_handle'}}
  %h = llm.cast_kv %c : !llm.paged_kv_cache -> !llm.kv_handle
  return
}

// -----

func.func @cast_to_other_layers(%c: !llm.paged_kv_cache<2x1x64xf16>) {
  // expected-error @+1 {{no cache has both types, '!llm.paged_kv_cache<2x1x64xf16>' and '!llm.paged_kv_cache<3x1x64xf16>'}}
  %other = llm.cast_kv %c : !llm.paged_kv_cache<2x1x64xf16> -> !llm.paged_kv_cache<3x1x64xf16>
  return
}

// -----

func.func @cast_to_other_elements(%c: !llm.paged_kv_cache<?x1x64xf16>) {
  // expected-error @+1 {{no cache has both types}}
  %other = llm.cast_kv %c : !llm.paged_kv_cache<?x1x64xf16> -> !llm.paged_kv_cache<?x1x64xf32>
  return
}

// -----

func.func @cast_to_a_window(%c: !llm.paged_kv_cache<2x1x64xf16>) {
  // expected-error @+1 {{no cache has both types}}
  %other = llm.cast_kv %c : !llm.paged_kv_cache<2x1x64xf16> -> !llm.paged_kv_cache<2x1x64xf16, window = 8>
  return
}

// -----

func.func @cast_to_sinks(%c: !llm.paged_kv_cache<2x1x64xf16, window = 8>) {
  // expected-error @+1 {{no cache has both types}}
  %other = llm.cast_kv %c : !llm.paged_kv_cache<2x1x64xf16, window = 8> -> !llm.paged_kv_cache<2x1x64xf16, window = 8, sinks = 2>
  return
}

// -----

//===----------------------------------------------------------------------===//
// Values and handles
//===----------------------------------------------------------------------===//

!handle = !llm.kv_handle<1x1x64xf16>
func.func @handle_with_a_result(%h: !handle, %ids: tensor<4xi32>) {
  // expected-error @+1 {{expected no cache result in handle form}}
  %next = llm.release_kv %h, %ids : !handle, tensor<4xi32> -> !handle
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @value_without_a_result(%c: !kv, %ids: tensor<4xi32>) {
  // expected-error @+1 {{expected the next version as a result}}
  llm.release_kv %c, %ids : !kv, tensor<4xi32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @result_of_another_type(%c: !kv, %ids: tensor<4xi32>) {
  // expected-error @+1 {{expected the next version to have type '!llm.paged_kv_cache<1x1x64xf16>', got '!llm.paged_kv_cache'}}
  %next = llm.release_kv %c, %ids : !kv, tensor<4xi32> -> !llm.paged_kv_cache
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @begin_step_without_a_result(%c: !kv, %ids: tensor<4xi32>, %cu: tensor<5xi32>) {
  // expected-error @+1 {{expected the next version as a result}}
  %step = llm.begin_step %c, %ids, %cu : !kv, tensor<4xi32>, tensor<5xi32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @append_without_a_result(%c: !kv, %kv: tensor<4x1x1x64xf32>) {
  // expected-error @+1 {{expected the next version as a result}}
  llm.append_kv %c, %kv, %kv : !kv, tensor<4x1x1x64xf32>, tensor<4x1x1x64xf32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @fork_without_a_result(%c: !kv, %ids: tensor<4xi32>) {
  // expected-error @+1 {{expected the next version as a result}}
  llm.fork_kv %c, %ids, %ids, %ids : !kv, tensor<4xi32>, tensor<4xi32>, tensor<4xi32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @trim_without_a_result(%c: !kv, %ids: tensor<4xi32>) {
  // expected-error @+1 {{expected the next version as a result}}
  llm.trim_kv %c, %ids, %ids : !kv, tensor<4xi32>, tensor<4xi32>
  return
}

// -----

//===----------------------------------------------------------------------===//
// Steps and sequences
//===----------------------------------------------------------------------===//

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @begin_step_lengths(%c: !kv, %ids: tensor<4xi32>, %cu: tensor<4xi32>) {
  // expected-error @+1 {{expected cu_seqlens to have 5 elements for 4 sequence ids, got 4}}
  %next, %step = llm.begin_step %c, %ids, %cu : !kv, tensor<4xi32>, tensor<4xi32> -> !kv
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @begin_step_most_ids(%c: !kv, %ids: tensor<9223372036854775807xi32>, %cu: tensor<4xi32>) {
  // expected-error @+1 {{expected cu_seqlens to have 9223372036854775808 elements for 9223372036854775807 sequence ids, got 4}}
  %next, %step = llm.begin_step %c, %ids, %cu : !kv, tensor<9223372036854775807xi32>, tensor<4xi32> -> !kv
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @fork_children(%c: !kv, %a: tensor<4xi32>, %b: tensor<3xi32>) {
  // expected-error @+1 {{expected children to have 4 elements for 4 parents, got 3}}
  %next = llm.fork_kv %c, %a, %b, %a : !kv, tensor<4xi32>, tensor<3xi32>, tensor<4xi32> -> !kv
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @fork_lengths(%c: !kv, %a: tensor<4xi32>, %b: tensor<3xi32>) {
  // expected-error @+1 {{expected lengths to have 4 elements for 4 parents, got 3}}
  %next = llm.fork_kv %c, %a, %a, %b : !kv, tensor<4xi32>, tensor<4xi32>, tensor<3xi32> -> !kv
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @trim_lengths(%c: !kv, %a: tensor<4xi32>, %b: tensor<3xi32>) {
  // expected-error @+1 {{expected lengths to have 4 elements for 4 sequence ids, got 3}}
  %next = llm.trim_kv %c, %a, %b : !kv, tensor<4xi32>, tensor<3xi32> -> !kv
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @number_of_lengths(%c: !kv, %ids: tensor<4xi32>) {
  // expected-error @+1 {{expected the result to have 4 elements for 4 sequence ids, got 3}}
  %lengths = llm.seq_lens %c, %ids : !kv, tensor<4xi32> -> tensor<3xi32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @number_of_tables(%c: !kv, %ids: tensor<4xi32>) {
  // expected-error @+1 {{expected the result to have 4 elements for 4 sequence ids, got 3}}
  %table = llm.block_table %c, %ids : !kv, tensor<4xi32> -> tensor<3x8xi32>
  return
}

// -----

func.func @number_of_statistics(%c: !llm.paged_kv_cache) {
  // expected-error @+1 {{expected 12 statistics, got 'tensor<11xi64>'}}
  %stats = llm.kv_stats %c : !llm.paged_kv_cache -> tensor<11xi64>
  return
}

// -----

//===----------------------------------------------------------------------===//
// Append
//===----------------------------------------------------------------------===//

!kv = !llm.paged_kv_cache<2x1x64xf16>
func.func private @append_padded_at_a_step(%c: !kv, %kv: tensor<4x1x1x64xf32>, %at: !llm.kv_step) {
  // expected-error @+1 {{expected key to have rank 3 with a step, got 4}}
  %next = llm.append_kv %c, %kv, %kv at %at : !kv, tensor<4x1x1x64xf32>, tensor<4x1x1x64xf32> -> !kv
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @append_ragged_without_a_step(%c: !kv, %kv: tensor<4x1x64xf32>) {
  // expected-error @+1 {{expected key to have rank 4 without a step, got 3}}
  %next = llm.append_kv %c, %kv, %kv : !kv, tensor<4x1x64xf32>, tensor<4x1x64xf32> -> !kv
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @append_two_types(%c: !kv, %k: tensor<4x1x1x64xf32>, %v: tensor<4x1x1x64xf16>) {
  // expected-error @+1 {{expected key and value to have one type, got 'tensor<4x1x1x64xf32>' and 'tensor<4x1x1x64xf16>'}}
  %next = llm.append_kv %c, %k, %v : !kv, tensor<4x1x1x64xf32>, tensor<4x1x1x64xf16> -> !kv
  return
}

// -----

!kv = !llm.paged_kv_cache<2x1x64xf16>
func.func @append_to_which_layer(%c: !kv, %kv: tensor<4x1x1x64xf32>) {
  // expected-error @+1 {{needs a step: without one the cache must have 1 layer, its type has 2}}
  %next = llm.append_kv %c, %kv, %kv : !kv, tensor<4x1x1x64xf32>, tensor<4x1x1x64xf32> -> !kv
  return
}

// -----

!kv = !llm.paged_kv_cache<1x2x64xf16>
func.func @append_heads(%c: !kv, %kv: tensor<4x1x3x64xf32>) {
  // expected-error @+1 {{expected KV heads to match the cache type's 2, got 3}}
  %next = llm.append_kv %c, %kv, %kv : !kv, tensor<4x1x3x64xf32>, tensor<4x1x3x64xf32> -> !kv
  return
}

// -----

!kv = !llm.paged_kv_cache<1x2x64xf16>
func.func @append_head_dim(%c: !kv, %kv: tensor<4x1x2x32xf32>) {
  // expected-error @+1 {{expected head_dim to match the cache type's 64, got 32}}
  %next = llm.append_kv %c, %kv, %kv : !kv, tensor<4x1x2x32xf32>, tensor<4x1x2x32xf32> -> !kv
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16, block_size = 16>
func.func @append_block_size(%c: !kv, %kv: tensor<4x1x1x64xf32>) {
  // expected-error @+1 {{expected block_size to match the cache type's 16, got 32}}
  %next = llm.append_kv %c, %kv, %kv {block_size = 32 : i32} : !kv, tensor<4x1x1x64xf32>, tensor<4x1x1x64xf32> -> !kv
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16, max_seq_len = 512>
func.func @append_max_seq_len(%c: !kv, %kv: tensor<4x1x1x64xf32>) {
  // expected-error @+1 {{expected max_seq_len to match the cache type's 512, got 4096}}
  %next = llm.append_kv %c, %kv, %kv {max_seq_len = 4096 : i32} : !kv, tensor<4x1x1x64xf32>, tensor<4x1x1x64xf32> -> !kv
  return
}

// -----

//===----------------------------------------------------------------------===//
// Optional operands
//===----------------------------------------------------------------------===//

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func private @two_extras_without_names(%q: tensor<4x3x64xf32>, %c: !kv, %at: !llm.kv_step, %table: tensor<4x8xi32>) {
  // expected-error @+1 {{expected extra_names for 2 optional operands}}
  %o = "llm.paged_attention"(%q, %c, %at, %table) : (tensor<4x3x64xf32>, !kv, !llm.kv_step, tensor<4x8xi32>) -> tensor<4x3x64xf32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func private @too_many_names(%q: tensor<4x3x64xf32>, %c: !kv, %at: !llm.kv_step) {
  // expected-error @+1 {{expected 1 extra_names, got 2}}
  %o = "llm.paged_attention"(%q, %c, %at) {extra_names = [#llm.extra<step>, #llm.extra<block_indices>]} : (tensor<4x3x64xf32>, !kv, !llm.kv_step) -> tensor<4x3x64xf32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func private @one_name_twice(%c: !kv, %at: !llm.kv_step) {
  // expected-error @+1 {{optional operand 'step' given twice}}
  %k, %v = "llm.lookup_kv"(%c, %at, %at) {extra_names = [#llm.extra<step>, #llm.extra<step>]} : (!kv, !llm.kv_step, !llm.kv_step) -> (tensor<4x8x1x64xf16>, tensor<4x8x1x64xf16>)
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @wrong_step(%c: !kv, %table: tensor<4x8xi32>) {
  // expected-error @+1 {{expected optional operand 'step' to be a KV step, got 'tensor<4x8xi32>'}}
  %k, %v = "llm.lookup_kv"(%c, %table) {extra_names = [#llm.extra<step>]} : (!kv, tensor<4x8xi32>) -> (tensor<4x8x1x64xf16>, tensor<4x8x1x64xf16>)
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @wrong_blocks(%c: !kv, %table: tensor<4xi32>) {
  // expected-error @+1 {{expected optional operand 'block_indices' to be a rank 2 tensor of i32, got 'tensor<4xi32>'}}
  %k, %v = llm.lookup_kv %c blocks(%table : tensor<4xi32>) : !kv -> tensor<4x8x1x64xf16>, tensor<4x8x1x64xf16>
  return
}

// -----

// A single tensor without a name is a table.

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @nameless_alibi(%q: tensor<4x1x3x64xf32>, %c: !kv, %slopes: tensor<3xf32>) {
  // expected-error @+1 {{expected optional operand 'block_indices' to be a rank 2 tensor of i32, got 'tensor<3xf32>'}}
  %o = "llm.paged_attention"(%q, %c, %slopes) : (tensor<4x1x3x64xf32>, !kv, tensor<3xf32>) -> tensor<4x1x3x64xf32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @wrong_alibi(%q: tensor<4x1x3x64xf32>, %c: !kv, %slopes: tensor<3xf16>) {
  // expected-error @+1 {{expected optional operand 'alibi' to be a rank 1 tensor of f32, got 'tensor<3xf16>'}}
  %o = llm.paged_attention %q, %c alibi(%slopes : tensor<3xf16>) : tensor<4x1x3x64xf32>, !kv -> tensor<4x1x3x64xf32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @wrong_head_sink(%q: tensor<4x1x3x64xf32>, %c: !kv, %logits: tensor<3x1xf32>) {
  // expected-error @+1 {{expected optional operand 'head_sink' to be a rank 1 tensor of f32, got 'tensor<3x1xf32>'}}
  %o = llm.paged_attention %q, %c head_sink(%logits : tensor<3x1xf32>) : tensor<4x1x3x64xf32>, !kv -> tensor<4x1x3x64xf32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16, window = 8, sinks = 2>
func.func @wrong_sink_query(%q: tensor<4x1x3x64xf32>, %c: !kv, %nearer: memref<4x1x3x64xf32>) {
  // expected-error @+1 {{expected optional operand 'sink_query' to be a ranked tensor, got 'memref<4x1x3x64xf32>'}}
  %o = llm.paged_attention %q, %c sink_query(%nearer : memref<4x1x3x64xf32>) : tensor<4x1x3x64xf32>, !kv -> tensor<4x1x3x64xf32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @alibi_of_other_heads(%q: tensor<4x1x3x64xf32>, %c: !kv, %slopes: tensor<4xf32>) {
  // expected-error @+1 {{expected optional operand 'alibi' to have 3 elements, one for each query head, got 4}}
  %o = llm.paged_attention %q, %c alibi(%slopes : tensor<4xf32>) : tensor<4x1x3x64xf32>, !kv -> tensor<4x1x3x64xf32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @head_sink_of_other_heads(%q: tensor<4x1x3x64xf32>, %c: !kv, %logits: tensor<1xf32>) {
  // expected-error @+1 {{expected optional operand 'head_sink' to have 3 elements, one for each query head, got 1}}
  %o = llm.paged_attention %q, %c head_sink(%logits : tensor<1xf32>) : tensor<4x1x3x64xf32>, !kv -> tensor<4x1x3x64xf32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16, window = 8, sinks = 2>
func.func @sink_query_of_another_shape(%q: tensor<4x1x3x64xf32>, %c: !kv, %nearer: tensor<4x1x3x32xf32>) {
  // expected-error @+1 {{expected optional operand 'sink_query' to have the query's type 'tensor<4x1x3x64xf32>', got 'tensor<4x1x3x32xf32>'}}
  %o = llm.paged_attention %q, %c sink_query(%nearer : tensor<4x1x3x32xf32>) : tensor<4x1x3x64xf32>, !kv -> tensor<4x1x3x64xf32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16, window = 8>
func.func @sink_query_without_sinks(%q: tensor<4x1x3x64xf32>, %c: !kv) {
  // expected-error @+1 {{expected a cache type with sinks for optional operand 'sink_query', got '!llm.paged_kv_cache<1x1x64xf16, window = 8>'}}
  %o = llm.paged_attention %q, %c sink_query(%q : tensor<4x1x3x64xf32>) : tensor<4x1x3x64xf32>, !kv -> tensor<4x1x3x64xf32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @lookup_with_alibi(%c: !kv, %slopes: tensor<3xf32>) {
  // expected-error @+1 {{takes no optional operand 'alibi'}}
  %k, %v = llm.lookup_kv %c alibi(%slopes : tensor<3xf32>) : !kv -> tensor<4x8x1x64xf16>, tensor<4x8x1x64xf16>
  return
}

// -----

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @attend_ragged_without_a_step(%q: tensor<4x3x64xf32>, %c: !kv) {
  // expected-error @+1 {{expected query to have rank 4 without a step, got 3}}
  %o = llm.paged_attention %q, %c : tensor<4x3x64xf32>, !kv -> tensor<4x3x64xf32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @attend_result(%q: tensor<4x1x3x64xf32>, %c: !kv) {
  // expected-error @+1 {{expected the result to have the query's type 'tensor<4x1x3x64xf32>', got 'tensor<4x1x3x64xf16>'}}
  %o = llm.paged_attention %q, %c : tensor<4x1x3x64xf32>, !kv -> tensor<4x1x3x64xf16>
  return
}

// -----

!kv = !llm.paged_kv_cache<2x1x64xf16>
func.func @attend_at_which_layer(%q: tensor<4x1x3x64xf32>, %c: !kv) {
  // expected-error @+1 {{needs a step: without one the cache must have 1 layer, its type has 2}}
  %o = llm.paged_attention %q, %c : tensor<4x1x3x64xf32>, !kv -> tensor<4x1x3x64xf32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @attend_num_heads(%q: tensor<4x1x3x64xf32>, %c: !kv) {
  // expected-error @+1 {{expected num_heads to match the query's 3, got 4}}
  %o = llm.paged_attention %q, %c {num_heads = 4 : i32} : tensor<4x1x3x64xf32>, !kv -> tensor<4x1x3x64xf32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x2x64xf16>
func.func @attend_groups(%q: tensor<4x1x3x64xf32>, %c: !kv) {
  // expected-error @+1 {{expected the query heads to be a multiple of the cache type's 2 KV heads, got 3}}
  %o = llm.paged_attention %q, %c : tensor<4x1x3x64xf32>, !kv -> tensor<4x1x3x64xf32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @attend_query_dim(%q: tensor<4x1x3x32xf32>, %c: !kv) {
  // expected-error @+1 {{expected head_dim to match the cache type's 64, got 32}}
  %o = llm.paged_attention %q, %c : tensor<4x1x3x32xf32>, !kv -> tensor<4x1x3x32xf32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @attend_head_dim(%q: tensor<4x1x3x64xf32>, %c: !kv) {
  // expected-error @+1 {{expected head_dim to match the cache type's 64, got 128}}
  %o = llm.paged_attention %q, %c {head_dim = 128 : i32} : tensor<4x1x3x64xf32>, !kv -> tensor<4x1x3x64xf32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @attend_lse(%q: tensor<4x1x3x64xf32>, %c: !kv) {
  // expected-error @+1 {{expected lse to have type 'tensor<4x1x3xf32>', got 'tensor<4x3xf32>'}}
  %o, %lse = llm.paged_attention %q, %c : tensor<4x1x3x64xf32>, !kv -> tensor<4x1x3x64xf32>, tensor<4x3xf32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @attend_softcap(%q: tensor<4x1x3x64xf32>, %c: !kv) {
  // expected-error @+1 {{expected softcap to be positive and finite, got 0}}
  %o = llm.paged_attention %q, %c {softcap = 0.0 : f32} : tensor<4x1x3x64xf32>, !kv -> tensor<4x1x3x64xf32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @attend_infinite_softcap(%q: tensor<4x1x3x64xf32>, %c: !kv) {
  // expected-error @+1 {{expected softcap to be positive and finite, got INF}}
  %o = llm.paged_attention %q, %c {softcap = 0x7F800000 : f32} : tensor<4x1x3x64xf32>, !kv -> tensor<4x1x3x64xf32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @attend_no_scale(%q: tensor<4x1x3x64xf32>, %c: !kv) {
  // expected-error @+1 {{expected a finite scale, got nan}}
  %o = llm.paged_attention %q, %c {scale = 0x7FC00000 : f32} : tensor<4x1x3x64xf32>, !kv -> tensor<4x1x3x64xf32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @attend_empty_window(%q: tensor<4x1x3x64xf32>, %c: !kv) {
  // expected-error @+1 {{expected window to be at least 1, got 0}}
  %o = llm.paged_attention %q, %c {window = 0 : i32} : tensor<4x1x3x64xf32>, !kv -> tensor<4x1x3x64xf32>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16, window = 128>
func.func @attend_wider_window(%q: tensor<4x1x3x64xf32>, %c: !kv) {
  // expected-error @+1 {{window may only narrow the cache type's 128, got 256}}
  %o = llm.paged_attention %q, %c {window = 256 : i32} : tensor<4x1x3x64xf32>, !kv -> tensor<4x1x3x64xf32>
  return
}

// -----

//===----------------------------------------------------------------------===//
// Lookup
//===----------------------------------------------------------------------===//

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @lookup_rank(%c: !kv) {
  // expected-error @+1 {{expected the result to have rank 4 without a step, got 3}}
  %k, %v = llm.lookup_kv %c : !kv -> tensor<4x8x64xf16>, tensor<4x8x64xf16>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @lookup_two_types(%c: !kv) {
  // expected-error @+1 {{expected K and V to have one type, got 'tensor<4x8x1x64xf16>' and 'tensor<4x9x1x64xf16>'}}
  %k, %v = llm.lookup_kv %c : !kv -> tensor<4x8x1x64xf16>, tensor<4x9x1x64xf16>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @lookup_bound(%c: !kv) {
  // expected-error @+1 {{expected the result's bound, heads and head_dim to be static, got 'tensor<4x?x1x64xf16>'}}
  %k, %v = llm.lookup_kv %c : !kv -> tensor<4x?x1x64xf16>, tensor<4x?x1x64xf16>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @lookup_elements(%c: !kv) {
  // expected-error @+1 {{expected the cache's element type 'f16', got 'f32'}}
  %k, %v = llm.lookup_kv %c : !kv -> tensor<4x8x1x64xf32>, tensor<4x8x1x64xf32>
  return
}

// -----

!kv = !llm.paged_kv_cache<2x1x64xf16>
func.func @lookup_at_which_layer(%c: !kv) {
  // expected-error @+1 {{needs a step: without one the cache must have 1 layer, its type has 2}}
  %k, %v = llm.lookup_kv %c : !kv -> tensor<4x8x1x64xf16>, tensor<4x8x1x64xf16>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @lookup_how_many_rows(%c: !kv) {
  // expected-error @+1 {{expected a static number of rows without a step or block indices}}
  %k, %v = llm.lookup_kv %c : !kv -> tensor<?x8x1x64xf16>, tensor<?x8x1x64xf16>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @lookup_heads(%c: !kv) {
  // expected-error @+1 {{expected KV heads to match the cache type's 1, got 2}}
  %k, %v = llm.lookup_kv %c : !kv -> tensor<4x8x2x64xf16>, tensor<4x8x2x64xf16>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @lookup_result_dim(%c: !kv) {
  // expected-error @+1 {{expected head_dim to match the cache type's 64, got 32}}
  %k, %v = llm.lookup_kv %c : !kv -> tensor<4x8x1x32xf16>, tensor<4x8x1x32xf16>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @lookup_num_heads(%c: !kv) {
  // expected-error @+1 {{expected num_heads to match the cache type's 1, got 2}}
  %k, %v = llm.lookup_kv %c {num_heads = 2 : i32} : !kv -> tensor<4x8x1x64xf16>, tensor<4x8x1x64xf16>
  return
}

// -----

!kv = !llm.paged_kv_cache<1x1x64xf16>
func.func @lookup_head_dim(%c: !kv) {
  // expected-error @+1 {{expected head_dim to match the cache type's 64, got 32}}
  %k, %v = llm.lookup_kv %c {head_dim = 32 : i32} : !kv -> tensor<4x8x1x64xf16>, tensor<4x8x1x64xf16>
  return
}

// -----

//===----------------------------------------------------------------------===//
// Rotary position embedding
//===----------------------------------------------------------------------===//

func.func @rope_odd(%x: tensor<4x3x5xf32>, %table: tensor<4x4xf32>) {
  // expected-error @+1 {{expected a static, even head_dim, got 'tensor<4x3x5xf32>'}}
  %y = llm.rope %x, %table {pairing = #llm.rope_pairing<half>} : tensor<4x3x5xf32>, tensor<4x4xf32>
  return
}

// -----

func.func @rope_empty(%x: tensor<4x3x0xf32>, %table: tensor<4x4xf32>) {
  // expected-error @+1 {{expected a static, even head_dim, got 'tensor<4x3x0xf32>'}}
  %y = llm.rope %x, %table {pairing = #llm.rope_pairing<half>} : tensor<4x3x0xf32>, tensor<4x4xf32>
  return
}

// -----

func.func @rope_dynamic(%x: tensor<4x3x?xf32>, %table: tensor<4x4xf32>) {
  // expected-error @+1 {{expected a static, even head_dim, got 'tensor<4x3x?xf32>'}}
  %y = llm.rope %x, %table {pairing = #llm.rope_pairing<half>} : tensor<4x3x?xf32>, tensor<4x4xf32>
  return
}

// -----

func.func @rope_lanes(%x: tensor<4x3x8xf32>, %table: tensor<4x4xf32>) {
  // expected-error @+1 {{expected a rope table with rows of 8 elements, got 'tensor<4x4xf32>'}}
  %y = llm.rope %x, %table {pairing = #llm.rope_pairing<half>} : tensor<4x3x8xf32>, tensor<4x4xf32>
  return
}

// -----

func.func @rope_rows(%x: tensor<4x3x8xf32>, %table: tensor<5x8xf32>) {
  // expected-error @+1 {{expected the rope table to have 4 elements for 4 tokens, got 5}}
  %y = llm.rope %x, %table {pairing = #llm.rope_pairing<half>} : tensor<4x3x8xf32>, tensor<5x8xf32>
  return
}

// -----

func.func @rope_table_odd(%positions: tensor<4xi32>) {
  // expected-error @+1 {{expected a static, even head_dim, got 'tensor<4x5xf32>'}}
  %t = llm.rope_table %positions {inv_freq = array<f32: 1.0, 0.01>} : tensor<4xi32> -> tensor<4x5xf32>
  return
}

// -----

func.func @rope_frequencies(%positions: tensor<4xi32>) {
  // expected-error @+1 {{expected 4 inverse frequencies for head_dim 8, got 2}}
  %t = llm.rope_table %positions {inv_freq = array<f32: 1.0, 0.01>} : tensor<4xi32> -> tensor<4x8xf32>
  return
}

// -----

func.func @rope_positions(%positions: tensor<5xi32>) {
  // expected-error @+1 {{expected positions to have 4 elements for 4 tokens, got 5}}
  %t = llm.rope_table %positions {inv_freq = array<f32: 1.0, 0.01>} : tensor<5xi32> -> tensor<4x4xf32>
  return
}

// -----

func.func @append_without_pairing(%c: !llm.paged_kv_cache<2x1x4xf16>, %at: !llm.kv_step, %k: tensor<?x1x4xf32>, %table: tensor<?x4xf32>) {
  // expected-error @+1 {{expected optional operand 'rope_table' and a pairing together}}
  %c1 = llm.append_kv %c, %k, %k at %at rope_table(%table : tensor<?x4xf32>)  : !llm.paged_kv_cache<2x1x4xf16>, tensor<?x1x4xf32>, tensor<?x1x4xf32> -> !llm.paged_kv_cache<2x1x4xf16>
  return
}

// -----

func.func @append_without_table(%c: !llm.paged_kv_cache<2x1x4xf16>, %at: !llm.kv_step, %k: tensor<?x1x4xf32>) {
  // expected-error @+1 {{expected optional operand 'rope_table' and a pairing together}}
  %c1 = llm.append_kv %c, %k, %k at %at  {pairing = #llm.rope_pairing<half>} : !llm.paged_kv_cache<2x1x4xf16>, tensor<?x1x4xf32>, tensor<?x1x4xf32> -> !llm.paged_kv_cache<2x1x4xf16>
  return
}

// -----

func.func @append_rotated_f16(%c: !llm.paged_kv_cache<2x1x4xf16>, %at: !llm.kv_step, %k: tensor<?x1x4xf16>, %table: tensor<?x4xf32>) {
  // expected-error @+1 {{expected a key of f32 for optional operand 'rope_table', got 'tensor<?x1x4xf16>'}}
  %c1 = llm.append_kv %c, %k, %k at %at rope_table(%table : tensor<?x4xf32>) {pairing = #llm.rope_pairing<half>} : !llm.paged_kv_cache<2x1x4xf16>, tensor<?x1x4xf16>, tensor<?x1x4xf16> -> !llm.paged_kv_cache<2x1x4xf16>
  return
}

// -----

func.func @append_rotated_lanes(%c: !llm.paged_kv_cache<2x1x4xf16>, %at: !llm.kv_step, %k: tensor<?x1x4xf32>, %table: tensor<?x6xf32>) {
  // expected-error @+1 {{expected a rope table with rows of 4 elements, got 'tensor<?x6xf32>'}}
  %c1 = llm.append_kv %c, %k, %k at %at rope_table(%table : tensor<?x6xf32>) {pairing = #llm.rope_pairing<half>} : !llm.paged_kv_cache<2x1x4xf16>, tensor<?x1x4xf32>, tensor<?x1x4xf32> -> !llm.paged_kv_cache<2x1x4xf16>
  return
}

// -----

func.func @append_rotated_type(%c: !llm.paged_kv_cache<2x1x4xf16>, %at: !llm.kv_step, %k: tensor<?x1x4xf32>, %table: tensor<?x4xf16>) {
  // expected-error @+1 {{expected optional operand 'rope_table' to be a rank 2 tensor of f32, got 'tensor<?x4xf16>'}}
  %c1 = llm.append_kv %c, %k, %k at %at rope_table(%table : tensor<?x4xf16>) {pairing = #llm.rope_pairing<half>} : !llm.paged_kv_cache<2x1x4xf16>, tensor<?x1x4xf32>, tensor<?x1x4xf32> -> !llm.paged_kv_cache<2x1x4xf16>
  return
}

// -----

func.func @append_blocks(%c: !llm.paged_kv_cache<2x1x4xf16>, %at: !llm.kv_step, %k: tensor<?x1x4xf32>, %blocks: tensor<?x?xi32>) {
  // expected-error @+1 {{takes no optional operand 'block_indices'}}
  %c1 = llm.append_kv %c, %k, %k at %at blocks(%blocks : tensor<?x?xi32>)  : !llm.paged_kv_cache<2x1x4xf16>, tensor<?x1x4xf32>, tensor<?x1x4xf32> -> !llm.paged_kv_cache<2x1x4xf16>
  return
}

// -----

func.func @append_rotated_batch(%c: !llm.paged_kv_cache<1x1x4xf16>, %k: tensor<2x1x1x4xf32>, %table: tensor<?x4xf32>) {
  // expected-error @+1 {{needs a step for optional operand 'rope_table'}}
  %c1 = llm.append_kv %c, %k, %k rope_table(%table : tensor<?x4xf32>) {pairing = #llm.rope_pairing<half>} : !llm.paged_kv_cache<1x1x4xf16>, tensor<2x1x1x4xf32>, tensor<2x1x1x4xf32> -> !llm.paged_kv_cache<1x1x4xf16>
  return
}

// -----

func.func @attention_rotated(%q: tensor<?x1x4xf32>, %c: !llm.paged_kv_cache<2x1x4xf16>, %at: !llm.kv_step, %table: tensor<?x4xf32>) {
  // expected-error @+1 {{takes no optional operand 'rope_table'}}
  %o = llm.paged_attention %q, %c at %at rope_table(%table : tensor<?x4xf32>) : tensor<?x1x4xf32>, !llm.paged_kv_cache<2x1x4xf16> -> tensor<?x1x4xf32>
  return
}

// -----

//===----------------------------------------------------------------------===//
// Arguments of the exported call
//===----------------------------------------------------------------------===//

func.func @buffer_of_a_cache() {
  // expected-error @+1 {{expected argument kind cache to be a handle, got 'memref<4xf32>'}}
  %c = llm.call_argument cache 0 : memref<4xf32>
  return
}

// -----

func.func @handle_of_an_input() {
  // expected-error @+1 {{expected argument kind input to be a buffer, got '!llm.kv_handle'}}
  %c = llm.call_argument input 0 : !llm.kv_handle
  return
}

// -----

//===----------------------------------------------------------------------===//
// Linear layers
//===----------------------------------------------------------------------===//

func.func @activations(%x: tensor<?x64xf32>, %w: tensor<2x2x1024xbf16>) {
  // expected-error @+1 {{expected activations of f32 or bf16, or of i8 beside a weight with a format, got 'f16'}}
  %y = llm.linear %x, %w as f16 : tensor<?x64xf32>, tensor<2x2x1024xbf16> -> tensor<?x40xf32>
  return
}

// -----

func.func @depth(%x: tensor<?x65xf32>, %w: tensor<2x2x1024xbf16>) {
  // expected-error @+1 {{expected K of tiles and blocks to be a multiple of 32, got x of type 'tensor<?x65xf32>'}}
  %y = llm.linear %x, %w as bf16 : tensor<?x65xf32>, tensor<2x2x1024xbf16> -> tensor<?x40xf32>
  return
}

// -----

func.func @dynamic_columns(%x: tensor<?x64xf32>, %w: tensor<2x2x1024xbf16>) {
  // expected-error @+1 {{expected a static [N, K] matrix, got x of type 'tensor<?x64xf32>' and a result of type 'tensor<?x?xf32>'}}
  %y = llm.linear %x, %w as bf16 : tensor<?x64xf32>, tensor<2x2x1024xbf16> -> tensor<?x?xf32>
  return
}

// -----

func.func @tiles(%x: tensor<?x64xf32>, %w: tensor<2x2x1024xbf16>) {
  // expected-error @+1 {{expected a weight of type 'tensor<3x2x1024xbf16>', got 'tensor<2x2x1024xbf16>'}}
  %y = llm.linear %x, %w as bf16 : tensor<?x64xf32>, tensor<2x2x1024xbf16> -> tensor<?x65xf32>
  return
}

// -----

func.func @panels(%x: tensor<?x65xf32>, %w: tensor<2x64x32xf32>) {
  // expected-error @+1 {{expected a weight of type 'tensor<2x65x32xf32>', got 'tensor<2x64x32xf32>'}}
  %y = llm.linear %x, %w as f32 : tensor<?x65xf32>, tensor<2x64x32xf32> -> tensor<?x40xf32>
  return
}

// -----

func.func @blocks(%x: tensor<?x64xf32>, %w: tensor<2x2x640xi8>) {
  // expected-error @+1 {{expected a weight of type 'tensor<2x2x576xi8>', got 'tensor<2x2x640xi8>'}}
  %y = llm.linear %x, %w of q4_0 as i8 : tensor<?x64xf32>, tensor<2x2x640xi8> -> tensor<?x40xf32>
  return
}

// -----

func.func @rounded_beside_panels(%x: tensor<?x64xf32>, %w: tensor<2x64x32xf32>) {
  // expected-error @+1 {{expected activations of f32 beside panels, got 'bf16'}}
  %y = llm.linear %x, %w as bf16 : tensor<?x64xf32>, tensor<2x64x32xf32> -> tensor<?x40xf32>
  return
}

// -----

func.func @integers_beside_tiles(%x: tensor<?x64xf32>, %w: tensor<2x2x1024xbf16>) {
  // expected-error @+1 {{expected activations of f32 or bf16, or of i8 beside a weight with a format, got 'i8'}}
  %y = llm.linear %x, %w as i8 : tensor<?x64xf32>, tensor<2x2x1024xbf16> -> tensor<?x40xf32>
  return
}

// -----

func.func @rows(%x: tensor<3x64xf32>, %w: tensor<2x2x1024xbf16>) {
  // expected-error @+1 {{expected as many rows in x and the result, got 'tensor<3x64xf32>' and 'tensor<4x40xf32>'}}
  %y = llm.linear %x, %w as bf16 : tensor<3x64xf32>, tensor<2x2x1024xbf16> -> tensor<4x40xf32>
  return
}
