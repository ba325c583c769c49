// RUN: %llm-opt %s --split-input-file --verify-diagnostics

// expected-error @+1 {{expected layers x kv_heads x head_dim x element type, got 0 dimensions}}
func.func private @no_dimensions(!llm.paged_kv_cache<f32>)

// -----

// expected-error @+1 {{expected layers x kv_heads x head_dim x element type, got 2 dimensions}}
func.func private @two_dimensions(!llm.paged_kv_cache<4x64xf32>)

// -----

// expected-error @+1 {{expected layers x kv_heads x head_dim x element type, got 4 dimensions}}
func.func private @four_dimensions(!llm.paged_kv_cache<1x1x4x64xf32>)

// -----

// expected-error @+1 {{expected layers to be between 1 and 2147483647, got 0}}
func.func private @no_layers(!llm.paged_kv_cache<0x1x64xf32>)

// -----

// expected-error @+1 {{expected kv_heads to be between 1 and 2147483647, got 0}}
func.func private @no_heads(!llm.paged_kv_cache<1x0x64xf32>)

// -----

// expected-error @+1 {{expected head_dim to be between 1 and 2147483647, got 2147483648}}
func.func private @large_head_dim(!llm.paged_kv_cache<1x1x2147483648xf32>)

// -----

// expected-error @+1 {{expected block_size to be between 1 and 2147483647, got 2147483648}}
func.func private @large_block(!llm.paged_kv_cache<1x1x64xf32, block_size = 2147483648>)

// -----

// expected-error @+1 {{expected max_seq_len to be between 1 and 2147483647, got 3000000000}}
func.func private @large_sequence(!llm.paged_kv_cache<1x1x64xf32, max_seq_len = 3000000000>)

// -----

// expected-error @+1 {{expected max_sequences to be between 1 and 2147483647, got 3000000000}}
func.func private @many_sequences(!llm.paged_kv_cache<1x1x64xf32, max_sequences = 3000000000>)

// -----

// expected-error @+1 {{expected window to be between 1 and 2147483647, got 3000000000}}
func.func private @large_window(!llm.paged_kv_cache<1x1x64xf32, window = 3000000000>)

// -----

// expected-error @+1 {{expected sinks to be between 1 and 2147483647, got 3000000000}}
func.func private @many_sinks(!llm.paged_kv_cache<1x1x64xf32, window = 8, sinks = 3000000000>)

// -----

// expected-error @+1 {{expected a window beside sinks = 4}}
func.func private @sinks_without_a_window(!llm.paged_kv_cache<1x1x64xf32, sinks = 4>)

// -----

// expected-error @+1 {{expected element type f32, f16 or bf16, got 'i8'}}
func.func private @integers(!llm.paged_kv_cache<1x1x64xi8>)

// -----

// expected-error @+1 {{unknown parameter 'blocks', expected block_size, max_seq_len, max_sequences, window, sinks or storage}}
func.func private @unknown_parameter(!llm.paged_kv_cache<1x1x64xf32, blocks = 16>)

// -----

// expected-error @+1 {{parameter 'window' given twice}}
func.func private @twice(!llm.paged_kv_cache<1x1x64xf32, window = 16, window = 16>)

// -----

// expected-error @+1 {{expected block_size to be at least 1, got 0}}
func.func private @empty_block(!llm.paged_kv_cache<1x1x64xf32, block_size = 0>)

// -----

// expected-error @+1 {{expected window to be at least 1, got -1}}
func.func private @negative_window(!llm.paged_kv_cache<1x1x64xf32, window = -1>)

// -----

// expected-error @+1 {{expected a format of k, of v or of both}}
func.func private @no_format(!llm.paged_kv_cache<1x1x64xf32, storage = #llm.kv_storage<scale = token_head>>)

// -----

// expected-error @+1 {{expected the format of k to be i8, f8E4M3FN or i4, got 'i2'}}
func.func private @k_format(!llm.paged_kv_cache<1x1x64xf32, storage = #llm.kv_storage<k = i2, v = i8>>)

// -----

// expected-error @+1 {{expected the format of v to be i8, f8E4M3FN or i4, got 'f16'}}
func.func private @v_format(!llm.paged_kv_cache<1x1x64xf32, storage = #llm.kv_storage<v = f16>>)

// -----

// expected-error @+1 {{expected block_size to be a multiple of 32 where K is stored as i4, got 16}}
func.func private @half_a_group(!llm.paged_kv_cache<1x1x64xf32, block_size = 16, storage = #llm.kv_storage<k = i4, v = i8>>)

// -----

// expected-error @+1 {{parameter 'storage' given twice}}
func.func private @storage_twice(!llm.paged_kv_cache<1x1x64xf32, storage = #llm.kv_storage<v = i8>, storage = #llm.kv_storage<v = i8>>)

// -----

// expected-error @+1 {{invalid kind of attribute specified}}
func.func private @no_storage(!llm.paged_kv_cache<1x1x64xf32, storage = 8>)

// -----

// A handle says the same.

// expected-error @+1 {{expected element type f32, f16 or bf16, got 'f64'}}
func.func private @handle(!llm.kv_handle<1x1x64xf64>)
