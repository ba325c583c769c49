// RUN: %llm-opt %s --verify-roundtrip | FileCheck %s
// RUN: %llm-opt %s --mlir-print-op-generic --verify-roundtrip | FileCheck %s --check-prefix=GENERIC
// RUN: %llm-opt %s --llm-materialize-cache | FileCheck %s --check-prefix=HANDLE

// The three examples of the project's brief, as they stand there.

// CHECK-LABEL: func @append
// CHECK: llm.append_kv %{{.*}}, %{{.*}}, %{{.*}} {block_size = 16 : i32, max_seq_len = 4096 : i32} : !llm.paged_kv_cache, tensor<1x1x16x64xf16>, tensor<1x1x16x64xf16> -> !llm.paged_kv_cache
// GENERIC: "llm.append_kv"(%{{.*}}, %{{.*}}, %{{.*}}) <{block_size = 16 : i32, max_seq_len = 4096 : i32}> : (!llm.paged_kv_cache, tensor<1x1x16x64xf16>, tensor<1x1x16x64xf16>) -> !llm.paged_kv_cache
// HANDLE: llm.append_kv {{.*}} : !llm.kv_handle, tensor<1x1x16x64xf16>, tensor<1x1x16x64xf16>{{$}}
func.func @append(%kv_cache: !llm.paged_kv_cache, %key: tensor<1x1x16x64xf16>, %value: tensor<1x1x16x64xf16>) -> !llm.paged_kv_cache {
%new_kv = "llm.append_kv"(%kv_cache, %key, %value) {
  block_size = 16 : i32,
  max_seq_len = 4096 : i32
} : (!llm.paged_kv_cache, tensor<1x1x16x64xf16>, tensor<1x1x16x64xf16>) -> !llm.paged_kv_cache
  return %new_kv : !llm.paged_kv_cache
}

// CHECK-LABEL: func @lookup
// CHECK: llm.lookup_kv %{{.*}} blocks(%{{.*}} : tensor<1x16xi32>) {head_dim = 64 : i32, num_heads = 16 : i32} : !llm.paged_kv_cache -> tensor<1x16x16x64xf16>, tensor<1x16x16x64xf16>
// GENERIC: "llm.lookup_kv"(%{{.*}}, %{{.*}}) <{head_dim = 64 : i32, num_heads = 16 : i32}>
// HANDLE: llm.lookup_kv {{.*}} : !llm.kv_handle -> tensor<1x16x16x64xf16>, tensor<1x16x16x64xf16>
func.func @lookup(%kv_cache: !llm.paged_kv_cache, %block_indices: tensor<1x16xi32>) -> (tensor<1x16x16x64xf16>, tensor<1x16x16x64xf16>) {
%keys, %values = "llm.lookup_kv"(%kv_cache, %block_indices) {
  num_heads = 16 : i32,
  head_dim = 64 : i32
} : (!llm.paged_kv_cache, tensor<1x16xi32>) -> (tensor<1x16x16x64xf16>, tensor<1x16x16x64xf16>)
  return %keys, %values : tensor<1x16x16x64xf16>, tensor<1x16x16x64xf16>
}

// CHECK-LABEL: func @attend
// CHECK: llm.paged_attention %{{.*}}, %{{.*}} blocks(%{{.*}} : tensor<1x16xi32>) {head_dim = 64 : i32, num_heads = 16 : i32, scale = 1.250000e-01 : f32} : tensor<1x1x16x64xf16>, !llm.paged_kv_cache -> tensor<1x1x16x64xf16>
// GENERIC: "llm.paged_attention"(%{{.*}}, %{{.*}}, %{{.*}}) <{causal = true, head_dim = 64 : i32, num_heads = 16 : i32, scale = 1.250000e-01 : f32}>
// HANDLE: llm.paged_attention {{.*}} : tensor<1x1x16x64xf16>, !llm.kv_handle -> tensor<1x1x16x64xf16>
func.func @attend(%query: tensor<1x1x16x64xf16>, %kv_cache: !llm.paged_kv_cache, %block_indices: tensor<1x16xi32>) -> tensor<1x1x16x64xf16> {
%output = "llm.paged_attention"(%query, %kv_cache, %block_indices) {
  num_heads = 16 : i32,
  head_dim = 64 : i32,
  scale = 0.125 : f32
} : (tensor<1x1x16x64xf16>, !llm.paged_kv_cache, tensor<1x16xi32>) -> tensor<1x1x16x64xf16>
  return %output : tensor<1x1x16x64xf16>
}
