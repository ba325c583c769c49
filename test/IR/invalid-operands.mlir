// RUN: %llm-opt %s --split-input-file --verify-diagnostics

// What the definitions of the ops ask of operands, results and attributes, in
// the generic form: the other one cannot say some of this.

//===----------------------------------------------------------------------===//
// Types
//===----------------------------------------------------------------------===//

func.func @cache(%c: index, %ids: tensor<?xi32>) {
  // expected-error @+1 {{operand #0 must be KV cache value or handle, but got 'index'}}
  %lengths = "llm.seq_lens"(%c, %ids) : (index, tensor<?xi32>) -> tensor<?xi32>
  return
}

// -----

func.func @ids(%c: !llm.paged_kv_cache, %ids: tensor<?xi64>) {
  // expected-error @+1 {{operand #1 must be 1D tensor of 32-bit signless integer values, but got 'tensor<?xi64>'}}
  %lengths = "llm.seq_lens"(%c, %ids) : (!llm.paged_kv_cache, tensor<?xi64>) -> tensor<?xi32>
  return
}

// -----

func.func @block_table(%c: !llm.paged_kv_cache, %ids: tensor<?xi32>) {
  // expected-error @+1 {{result #0 must be 2D tensor of 32-bit signless integer values, but got 'tensor<?xi32>'}}
  %table = "llm.block_table"(%c, %ids) : (!llm.paged_kv_cache, tensor<?xi32>) -> tensor<?xi32>
  return
}

// -----

func.func @statistics(%c: !llm.paged_kv_cache) {
  // expected-error @+1 {{result #0 must be statically shaped tensor of 64-bit signless integer values, but got 'tensor<?xi64>'}}
  %stats = "llm.kv_stats"(%c) : (!llm.paged_kv_cache) -> tensor<?xi64>
  return
}

// -----

func.func @tiles(%x: tensor<?x64xf32>, %w: tensor<2x2x1024xf16>) {
  // expected-error @+1 {{operand #1 must be 3D tensor of 32-bit float or bfloat16 type or 8-bit signless integer values, but got 'tensor<2x2x1024xf16>'}}
  %y = "llm.linear"(%x, %w) {activations = bf16} : (tensor<?x64xf32>, tensor<2x2x1024xf16>) -> tensor<?x40xf32>
  return
}

// -----

func.func @activations(%x: tensor<?x64xf32>, %w: tensor<2x2x1024xbf16>) {
  // expected-error @+1 {{attribute 'activations' failed to satisfy constraint: any type attribute}}
  %y = "llm.linear"(%x, %w) {activations = 1 : i32} : (tensor<?x64xf32>, tensor<2x2x1024xbf16>) -> tensor<?x40xf32>
  return
}

// -----

func.func @format(%x: tensor<?x64xf32>, %w: tensor<2x2x640xi8>) {
  // expected-error @+1 {{attribute 'format' failed to satisfy constraint: Format of quantized weights}}
  %y = "llm.linear"(%x, %w) {activations = i8, format = 5 : i32} : (tensor<?x64xf32>, tensor<2x2x640xi8>) -> tensor<?x40xf32>
  return
}

// -----

func.func @step(%step: index) {
  // expected-error @+1 {{operand #0 must be KV step, but got 'index'}}
  %positions = "llm.positions"(%step) : (index) -> tensor<?xi32>
  return
}

// -----

func.func @layer(%step: !llm.kv_step, %layer: i32) {
  // expected-error @+1 {{operand #1 must be index, but got 'i32'}}
  %at = "llm.at_layer"(%step, %layer) : (!llm.kv_step, i32) -> !llm.kv_step
  return
}

// -----

func.func @key(%c: !llm.paged_kv_cache, %kv: tensor<*xf32>, %ids: tensor<?xi32>) {
  // expected-error @+1 {{operand #1 must be ranked tensor of 32-bit float or 16-bit float or bfloat16 type values, but got 'tensor<*xf32>'}}
  %next = "llm.append_kv"(%c, %kv, %kv, %ids) : (!llm.paged_kv_cache, tensor<*xf32>, tensor<*xf32>, tensor<?xi32>) -> !llm.paged_kv_cache
  return
}

// -----

func.func @lse(%q: tensor<?x4x64xf32>, %c: !llm.paged_kv_cache, %lens: tensor<?xi32>) {
  // expected-error @+1 {{result #1 must be ranked tensor of 32-bit float values, but got 'tensor<?x4xf16>'}}
  %o, %lse = "llm.paged_attention"(%q, %c, %lens) {extra_names = [], scale = 1.0 : f32} : (tensor<?x4x64xf32>, !llm.paged_kv_cache, tensor<?xi32>) -> (tensor<?x4x64xf32>, tensor<?x4xf16>)
  return
}

// -----

func.func @rope(%x: tensor<?x4xf32>, %table: tensor<?x4xf32>) {
  // expected-error @+1 {{operand #0 must be 3D tensor of 32-bit float values, but got 'tensor<?x4xf32>'}}
  %y = "llm.rope"(%x, %table) {pairing = #llm.rope_pairing<half>} : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  return
}

// -----

func.func @rope_of_a_list(%x: tensor<?x4x2xf32>, %table: tensor<?xf32>) {
  // expected-error @+1 {{operand #1 must be 2D tensor of 32-bit float values, but got 'tensor<?xf32>'}}
  %y = "llm.rope"(%x, %table) {pairing = #llm.rope_pairing<half>} : (tensor<?x4x2xf32>, tensor<?xf32>) -> tensor<?x4x2xf32>
  return
}

// -----

func.func @replace(%host: !llm.paged_kv_cache, %version: !llm.kv_handle) {
  // expected-error @+1 {{operand #0 must be A cache with identity, after materialization, but got '!llm.paged_kv_cache'}}
  "llm.replace_kv"(%host, %version) : (!llm.paged_kv_cache, !llm.kv_handle) -> ()
  return
}

// -----

func.func @argument() {
  // expected-error @+1 {{result #0 must be memref of any type values or A cache with identity, after materialization, but got 'index'}}
  %argument = "llm.call_argument"() {kind = #llm<argument_kind input>, index = 0 : i32} : () -> index
  return
}

// -----

//===----------------------------------------------------------------------===//
// Attributes
//===----------------------------------------------------------------------===//

func.func @strategy() {
  // expected-error @+1 {{attribute 'strategy' failed to satisfy constraint: How a cache gets its blocks}}
  %c = "llm.create_kv_cache"() {strategy = 1 : i32} : () -> !llm.paged_kv_cache
  return
}

// -----

func.func @block_size(%c: !llm.paged_kv_cache, %kv: tensor<?x1x64xf32>, %ids: tensor<?xi32>) {
  // expected-error @+1 {{attribute 'block_size' failed to satisfy constraint: 32-bit signless integer attribute}}
  %next = "llm.append_kv"(%c, %kv, %kv, %ids) {block_size = 16 : i64} : (!llm.paged_kv_cache, tensor<?x1x64xf32>, tensor<?x1x64xf32>, tensor<?xi32>) -> !llm.paged_kv_cache
  return
}

// -----

func.func @scale(%q: tensor<?x4x64xf32>, %c: !llm.paged_kv_cache, %lens: tensor<?xi32>) {
  // expected-error @+1 {{attribute 'scale' failed to satisfy constraint: 32-bit float attribute}}
  %o = "llm.paged_attention"(%q, %c, %lens) {extra_names = [], scale = 1.0 : f64} : (tensor<?x4x64xf32>, !llm.paged_kv_cache, tensor<?xi32>) -> tensor<?x4x64xf32>
  return
}

// -----

func.func @causal(%q: tensor<?x4x64xf32>, %c: !llm.paged_kv_cache, %lens: tensor<?xi32>) {
  // expected-error @+1 {{attribute 'causal' failed to satisfy constraint: bool attribute}}
  %o = "llm.paged_attention"(%q, %c, %lens) {extra_names = [], scale = 1.0 : f32, causal = 1 : i32} : (tensor<?x4x64xf32>, !llm.paged_kv_cache, tensor<?xi32>) -> tensor<?x4x64xf32>
  return
}

// -----

func.func @extra_names(%q: tensor<?x4x64xf32>, %c: !llm.paged_kv_cache, %lens: tensor<?xi32>) {
  // expected-error @+1 {{attribute 'extra_names' failed to satisfy constraint: names of the optional operands}}
  %o = "llm.paged_attention"(%q, %c, %lens) {extra_names = [1], scale = 1.0 : f32} : (tensor<?x4x64xf32>, !llm.paged_kv_cache, tensor<?xi32>) -> tensor<?x4x64xf32>
  return
}

// -----

func.func @inv_freq(%positions: tensor<?xi32>) {
  // expected-error @+1 {{attribute 'inv_freq' failed to satisfy constraint: f32 dense array attribute}}
  %t = "llm.rope_table"(%positions) {inv_freq = array<i32: 1>} : (tensor<?xi32>) -> tensor<?x2xf32>
  return
}

// -----

func.func @pairing(%x: tensor<?x4x2xf32>, %table: tensor<?x2xf32>) {
  // expected-error @+1 {{attribute 'pairing' failed to satisfy constraint: Which lanes rotate together}}
  %y = "llm.rope"(%x, %table) {pairing = 0 : i32} : (tensor<?x4x2xf32>, tensor<?x2xf32>) -> tensor<?x4x2xf32>
  return
}

// -----

func.func @kind() {
  // expected-error @+1 {{attribute 'kind' failed to satisfy constraint: Kind of a call's argument}}
  %argument = "llm.call_argument"() {kind = 0 : i32, index = 0 : i32} : () -> memref<4xf32>
  return
}

// -----

func.func @what(%size: index) {
  // expected-error @+1 {{attribute 'what' failed to satisfy constraint: string attribute}}
  "llm.check_size"(%size, %size) {what = 1 : i32} : (index, index) -> ()
  return
}
