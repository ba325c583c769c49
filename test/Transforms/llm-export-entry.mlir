// RUN: %llm-opt %s --llm-export-entry --split-input-file --verify-diagnostics | FileCheck %s

// CHECK: module attributes {llm.groups = {{\[\[}}"cache", !llm.paged_kv_cache<2x1x4xf32>, #llm.kv_cache_config<max_seq_len = 64>]],
// CHECK-SAME: llm.weights = {{\[\[}}#llm.weight<["w"]>, tensor<4xf32>]]
// CHECK-LABEL: func @entry() attributes {llm.entry = {caches = array<i32: 0>, fresh = 0 : i32, inputs = [
// CHECK-SAME: adds = array<i32: 0>, below = 9 : i64, below_symbol = -1 : i32, name = "tokens", symbols = array<i32: 0>
// CHECK-SAME: adds = array<i32: 1>, below = -1 : i64, below_symbol = 0 : i32, name = "cu", symbols = array<i32: 1>
// CHECK-SAME: symbols = 2 : i32
func.func @entry(%tokens: tensor<?xi32> {llm.name = "tokens", llm.dims = ["T"], llm.below = 9 : i64},
                 %cu: tensor<?xi32> {llm.name = "cu", llm.dims = ["B+1"], llm.below = "T"},
                 %c: !llm.kv_handle<2x1x4xf32> {llm.name = "cache", llm.config = #llm.kv_cache_config<max_seq_len = 64>},
                 %w: tensor<4xf32> {llm.weight = #llm.weight<["w"]>}) -> (tensor<?xi32>, tensor<4xf32>) {
  // CHECK: %[[TOKENS:.*]] = llm.call_argument input 0 : memref<?xi32, strided<[?], offset: ?>>
  // CHECK: %[[T:.*]] = bufferization.to_tensor %[[TOKENS]] restrict
  // CHECK: llm.call_argument input 1
  // CHECK: %[[CACHE:.*]] = llm.call_argument cache 0 : !llm.kv_handle<2x1x4xf32>
  // CHECK: %[[W:.*]] = llm.call_argument weight 0 : memref<4xf32>
  // CHECK: llm.release_kv %[[CACHE]], %[[T]]
  llm.release_kv %c, %tokens : !llm.kv_handle<2x1x4xf32>, tensor<?xi32>
  // A dynamic size is checked against the host's buffer.
  // CHECK: %[[OUT:.*]] = llm.call_argument output 0
  // CHECK: llm.check_size %{{.*}}, %{{.*}}, "dimension 0 of output 'result0'"
  // CHECK: bufferization.materialize_in_destination %[[T]] in restrict writable %[[OUT]]
  // CHECK: llm.call_argument output 1
  // CHECK-NOT: llm.check_size
  // CHECK: return{{$}}
  return %tokens, %w : tensor<?xi32>, tensor<4xf32>
}

// -----

// CHECK-LABEL: func @fresh_cache() attributes {llm.entry = {caches = array<i32: 0, 0>, fresh = 1 : i32,
func.func @fresh_cache(%c: !llm.kv_handle<2x1x4xf32> {llm.name = "c"},
                       %new: !llm.kv_handle<2x1x4xf32> {llm.name = "c", llm.fresh}) {
  return
}

// -----

// expected-error @+1 {{expected fresh caches to be the last, got argument 1 behind one}}
func.func @fresh_cache_first(%new: !llm.kv_handle<2x1x4xf32> {llm.fresh}, %c: !llm.kv_handle<2x1x4xf32>) {
  return
}

// -----

// expected-error @+1 {{argument 0 of an entry must be a tensor, a weight or a cache, got 'index'}}
func.func @scalar(%i: index) {
  return
}

// -----

// expected-error @+1 {{result 0 of an entry must be a tensor, got 'index'}}
func.func @scalar_result() -> index {
  %c0 = arith.constant 0 : index
  return %c0 : index
}

// -----

// expected-error @+1 {{expected 2 'llm.dims' for 'arg0', got 1}}
func.func @dims(%x: tensor<?x4xf32> {llm.dims = ["T"]}) {
  return
}

// -----

// expected-error @+1 {{dimension 5 of 'arg0' differs from its type}}
func.func @number(%x: tensor<4xf32> {llm.dims = ["5"]}) {
  return
}

// -----

// expected-error @+1 {{dimension T of 'arg0' names a static dimension}}
func.func @static(%x: tensor<4xf32> {llm.dims = ["T"]}) {
  return
}

// -----

// expected-error @+1 {{dimension +1 of 'arg0' is neither a name, a name + number, nor a number}}
func.func @nameless(%x: tensor<?xf32> {llm.dims = ["+1"]}) {
  return
}

// -----

// expected-error @+1 {{'llm.below' of 'arg0' names the unknown dimension 'T'}}
func.func @bound(%x: tensor<?xi32> {llm.below = "T"}) {
  return
}

// -----

// expected-error @+1 {{'arg0' cannot cross the exported call: expected up to 6 dimensions of f32, f16, bf16, i32 or i64, got 'tensor<4xf64>'}}
func.func @element(%x: tensor<4xf64>) {
  return
}

// -----

// expected-error @+1 {{argument 0: expected a weight of f32 or bf16, or in blocks, got 'tensor<4xf16>'}}
func.func @weight(%x: tensor<4xf16> {llm.weight = #llm.weight<["w"]>}) {
  return
}

// -----

func.func @callee() {
  return
}
func.func private @caller() {
  // expected-error @+1 {{refers to the entry @callee; an entry is called by the host alone}}
  call @callee() : () -> ()
  return
}

// -----

// expected-error @+1 {{an entry needs structured control flow; run --lift-cf-to-scf first}}
func.func @blocks() {
  cf.br ^next
^next:
  return
}
