// RUN: %llm-opt %s -split-input-file -verify-diagnostics -allow-unregistered-dialect --convert-llm-to-linalg

func.func @stats(%c: !llm.paged_kv_cache) -> tensor<12xi64> {
  // expected-error @below {{has no specification: it reads what happened to the pool, not the value}}
  %stats = llm.kv_stats %c : !llm.paged_kv_cache -> tensor<12xi64>
  return %stats : tensor<12xi64>
}

// -----

func.func private @handle(%h: !llm.kv_handle<2x1x64xf16>, %ids: tensor<?xi32>) -> tensor<?xi32> {
  // expected-error @below {{works on a handle; the specification is over cache values, before --llm-materialize-cache}}
  %lengths = llm.seq_lens %h, %ids : !llm.kv_handle<2x1x64xf16>, tensor<?xi32> -> tensor<?xi32>
  return %lengths : tensor<?xi32>
}

// -----

func.func @argument() {
  // expected-error @below {{belongs to the exported call, of which the specification knows nothing}}
  %tokens = llm.call_argument input 0 : memref<?xi32, strided<[?], offset: ?>>
  return
}

// -----

func.func @size(%given: index, %computed: index) {
  // expected-error @below {{belongs to the exported call, of which the specification knows nothing}}
  llm.check_size %given, %computed, "output 0, dimension 1"
  return
}

// -----

func.func @linear(%x: tensor<?x64xf32>, %w: tensor<2x2x1024xbf16>) -> tensor<?x40xf32> {
  // expected-error @below {{is a packed product, which the specification has as linalg, before --llm-pack-weights}}
  %y = llm.linear %x, %w as bf16 : tensor<?x64xf32>, tensor<2x2x1024xbf16> -> tensor<?x40xf32>
  return %y : tensor<?x40xf32>
}

// -----

func.func @rotate(%x: tensor<?x3x4xf32>, %table: tensor<?x4xf32>) -> tensor<?x3x4xf32> {
  // expected-error @below {{must be decomposed first; run --llm-decompose-rope}}
  %y = llm.rope %x, %table {pairing = #llm.rope_pairing<half>}
      : tensor<?x3x4xf32>, tensor<?x4xf32>
  return %y : tensor<?x3x4xf32>
}

// -----

// expected-error @below {{has a name that begins with 'llm_spec.', as only the specification's may}}
func.func private @llm_spec.seq_lens() {
  return
}

// -----

// An op that upstream does not know to convert is named.

func.func private @unknown(%c: !llm.paged_kv_cache) {
  // expected-error @below {{failed to legalize operation 'test.unknown'}}
  "test.unknown"(%c) : (!llm.paged_kv_cache) -> ()
  return
}
