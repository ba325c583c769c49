// RUN: %llm-opt %s --convert-llm-to-linalg --split-input-file --verify-diagnostics

func.func @handle(%c: !llm.kv_handle, %ids: tensor<?xi32>) -> tensor<?xi32> {
  // expected-error @+1 {{works on a handle; the specification is over cache values, before --llm-materialize-cache}}
  %lengths = llm.seq_lens %c, %ids : !llm.kv_handle, tensor<?xi32> -> tensor<?xi32>
  return %lengths : tensor<?xi32>
}

// -----

func.func @exported_call(%size: index) {
  // expected-error @+1 {{belongs to the exported call, of which the specification knows nothing}}
  llm.check_size %size, %size, "rows"
  return
}

// -----

func.func @statistics(%c: !llm.paged_kv_cache<1x1x4xf32, block_size = 4, max_seq_len = 16, max_sequences = 2>) -> tensor<12xi64> {
  // expected-error @+1 {{has no specification: it reads what happened to the pool, not the value}}
  %stats = llm.kv_stats %c : !llm.paged_kv_cache<1x1x4xf32, block_size = 4, max_seq_len = 16, max_sequences = 2> -> tensor<12xi64>
  return %stats : tensor<12xi64>
}

// -----

func.func @rope(%x: tensor<?x1x2xf32>, %positions: tensor<?xi32>) -> tensor<?x1x2xf32> {
  // expected-error @+1 {{must be decomposed first; run --llm-decompose-rope}}
  %y = llm.rope %x, %positions {inv_freq = array<f32: 1.0>, pairing = #llm.rope_pairing<half>} : tensor<?x1x2xf32>, tensor<?xi32>
  return %y : tensor<?x1x2xf32>
}

// -----

// expected-error @+1 {{has a name that begins with 'llm_spec.', as only the specification's may}}
func.func private @llm_spec.name()
