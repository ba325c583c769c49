// RUN: %llm-opt %s --llm-to-spec | %mlir-runner -e main | FileCheck %s

// The three examples of the project's brief, as they stand there, run on a cache
// whose type they do not know.

!kv = !llm.paged_kv_cache<1x16x64xf16, block_size = 16, max_seq_len = 4096, max_sequences = 1>

func.func private @printMemrefF32(tensor<*xf32>) attributes {llvm.emit_c_interface}

func.func private @append(%kv_cache: !llm.paged_kv_cache, %key: tensor<1x1x16x64xf16>, %value: tensor<1x1x16x64xf16>) -> !llm.paged_kv_cache {
%new_kv = "llm.append_kv"(%kv_cache, %key, %value) {
  block_size = 16 : i32,
  max_seq_len = 4096 : i32
} : (!llm.paged_kv_cache, tensor<1x1x16x64xf16>, tensor<1x1x16x64xf16>) -> !llm.paged_kv_cache
  return %new_kv : !llm.paged_kv_cache
}

func.func private @lookup(%kv_cache: !llm.paged_kv_cache, %block_indices: tensor<1x16xi32>) -> (tensor<1x16x16x64xf16>, tensor<1x16x16x64xf16>) {
%keys, %values = "llm.lookup_kv"(%kv_cache, %block_indices) {
  num_heads = 16 : i32,
  head_dim = 64 : i32
} : (!llm.paged_kv_cache, tensor<1x16xi32>) -> (tensor<1x16x16x64xf16>, tensor<1x16x16x64xf16>)
  return %keys, %values : tensor<1x16x16x64xf16>, tensor<1x16x16x64xf16>
}

func.func private @attend(%query: tensor<1x1x16x64xf16>, %kv_cache: !llm.paged_kv_cache, %block_indices: tensor<1x16xi32>) -> tensor<1x1x16x64xf16> {
%output = "llm.paged_attention"(%query, %kv_cache, %block_indices) {
  num_heads = 16 : i32,
  head_dim = 64 : i32,
  scale = 0.125 : f32
} : (tensor<1x1x16x64xf16>, !llm.paged_kv_cache, tensor<1x16xi32>) -> tensor<1x1x16x64xf16>
  return %output : tensor<1x1x16x64xf16>
}

func.func private @print(%x: f16) {
  %wide = arith.extf %x : f16 to f32
  %tensor = tensor.from_elements %wide : tensor<1xf32>
  %any = tensor.cast %tensor : tensor<1xf32> to tensor<*xf32>
  call @printMemrefF32(%any) : (tensor<*xf32>) -> ()
  return
}

func.func @main() {
  %i0 = arith.constant 0 : index
  %i1 = arith.constant 1 : index
  %i2 = arith.constant 2 : index
  %last = arith.constant 15 : index
  %blocks = arith.constant 256 : index
  %zero = arith.constant dense<0.0> : tensor<1x1x16x64xf16>
  %one = arith.constant dense<1.0> : tensor<1x1x16x64xf16>
  %four = arith.constant dense<4.0> : tensor<1x1x16x64xf16>
  %ids = arith.constant dense<0> : tensor<1xi32>
  %typed = llm.create_kv_cache blocks(%blocks) : !kv
  %bare = llm.cast_kv %typed : !kv -> !llm.paged_kv_cache
  %c0 = call @append(%bare, %zero, %one) : (!llm.paged_kv_cache, tensor<1x1x16x64xf16>, tensor<1x1x16x64xf16>) -> !llm.paged_kv_cache
  %c1 = call @append(%c0, %zero, %four) : (!llm.paged_kv_cache, tensor<1x1x16x64xf16>, tensor<1x1x16x64xf16>) -> !llm.paged_kv_cache
  %table = llm.block_table %c1, %ids : !llm.paged_kv_cache, tensor<1xi32> -> tensor<1x16xi32>

  // CHECK: [1]
  // CHECK: [4]
  // CHECK: [0]
  %k, %v = call @lookup(%c1, %table) : (!llm.paged_kv_cache, tensor<1x16xi32>) -> (tensor<1x16x16x64xf16>, tensor<1x16x16x64xf16>)
  %v0 = tensor.extract %v[%i0, %i0, %last, %i2] : tensor<1x16x16x64xf16>
  %v1 = tensor.extract %v[%i0, %i1, %i0, %i1] : tensor<1x16x16x64xf16>
  %v2 = tensor.extract %v[%i0, %i2, %i0, %i0] : tensor<1x16x16x64xf16>
  call @print(%v0) : (f16) -> ()
  call @print(%v1) : (f16) -> ()
  call @print(%v2) : (f16) -> ()

  // Keys of 0: the mean of both values.
  // CHECK: [2.5]
  %o = call @attend(%one, %c1, %table) : (tensor<1x1x16x64xf16>, !llm.paged_kv_cache, tensor<1x16xi32>) -> tensor<1x1x16x64xf16>
  %o0 = tensor.extract %o[%i0, %i0, %last, %i1] : tensor<1x1x16x64xf16>
  call @print(%o0) : (f16) -> ()
  return
}
