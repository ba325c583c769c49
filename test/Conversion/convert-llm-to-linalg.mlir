// RUN: %mlir-opt %specification/Specification.mlir -o /dev/null
// RUN: %mlir-opt %specification/SpecificationReads.mlir -o /dev/null
// RUN: %llm-opt %s -split-input-file --convert-llm-to-linalg | FileCheck %s

// Every op becomes a call of the function that is named like it in the
// specification, which comes along with what it calls.

!kv = !llm.paged_kv_cache<2x1x4xf16, block_size = 4, max_seq_len = 8, max_sequences = 3>

// CHECK-LABEL: func @create
// CHECK-SAME: -> (tensor<?x?x?x?x?xf32>, tensor<?x?x?x?x?xf32>, tensor<?x?xi32>, tensor<?xi32>, tensor<?x?x?xi32>, tensor<?xi64>, tensor<?xi64>, i64, i32, i32, i32, i32, i32, i32)
// CHECK: %[[MADE:.*]]:7 = call @llm_spec.create_kv_cache
// CHECK: return %[[MADE]]#0, %[[MADE]]#1, %[[MADE]]#2, %[[MADE]]#3, %[[MADE]]#4, %[[MADE]]#5, %[[MADE]]#6
// CHECK-NOT: func private @llm_spec.append_kv
// CHECK-DAG: func.func private @llm_spec.create_kv_cache
// CHECK-DAG: func.func private @llm_spec.no_content
func.func @create(%blocks: index) -> !kv {
  %c = llm.create_kv_cache blocks(%blocks) : !kv
  return %c : !kv
}

// -----

// CHECK-LABEL: func @bare
// CHECK-SAME: (%[[K:.*]]: tensor<?x?x?x?x?xf32>, %{{.*}}: tensor<?x?x?x?x?xf32>, %[[CUR:.*]]: tensor<?x?xi32>, %{{.*}}: tensor<?xi32>, %{{.*}}: tensor<?x?x?xi32>, %{{.*}}: tensor<?xi64>, %{{.*}}: tensor<?xi64>, %{{.*}}: i64, %{{.*}}: i32, %{{.*}}: i32, %{{.*}}: i32, %{{.*}}: i32, %{{.*}}: i32, %{{.*}}: i32, %[[IDS:.*]]: tensor<?xi32>)
// CHECK: %[[LENGTHS:.*]] = call @llm_spec.seq_lens(%[[CUR]], %[[IDS]])
// CHECK: return %[[LENGTHS]]
func.func @bare(%c: !llm.paged_kv_cache {llm.name = "cache"}, %ids: tensor<?xi32>) -> tensor<?xi32> {
  %n = llm.seq_lens %c, %ids : !llm.paged_kv_cache, tensor<?xi32> -> tensor<?xi32>
  return %n : tensor<?xi32>
}

// -----

// Formats are numbers: 0 stands for the element type, 1 for f8E4M3FN, 2 for i8.

!quantized = !llm.paged_kv_cache<1x1x4xf32, block_size = 4, max_seq_len = 8, max_sequences = 1, storage = #llm.kv_storage<k = i8, v = f8E4M3FN>>

// CHECK-LABEL: func @quantized
// CHECK-DAG: %[[F32:.*]] = arith.constant 0 : i32
// CHECK-DAG: %[[I8:.*]] = arith.constant 2 : i32
// CHECK-DAG: %[[F8:.*]] = arith.constant 1 : i32
// CHECK: call @llm_spec.append_kv({{.*}}, %[[F32]], %[[I8]], %[[F8]], {{.*}})
func.func @quantized(%k: tensor<1x2x1x4xf32>, %blocks: index) {
  %c = llm.create_kv_cache blocks(%blocks)
      : !quantized
  %d = llm.append_kv %c, %k, %k
      : !quantized, tensor<1x2x1x4xf32>, tensor<1x2x1x4xf32> -> !quantized
  llm.drop_kv %d : !quantized
  return
}

// -----

// What a type adds to a bare one is checked.

// CHECK-LABEL: func @cast
// CHECK: cf.assert %{{.*}}, "invalid argument: expected the storage of K of the cache to be its element type"
// CHECK: cf.assert %{{.*}}, "invalid argument: expected the storage of V of the cache to be i8"
func.func @cast(%c: !llm.paged_kv_cache) -> !llm.paged_kv_cache<?x?x?xf16, storage = #llm.kv_storage<v = i8>> {
  %d = llm.cast_kv %c : !llm.paged_kv_cache -> !llm.paged_kv_cache<?x?x?xf16, storage = #llm.kv_storage<v = i8>>
  return %d : !llm.paged_kv_cache<?x?x?xf16, storage = #llm.kv_storage<v = i8>>
}

// -----

// CHECK-LABEL: func @cast_to_groups
// CHECK: cf.assert %{{.*}}, "invalid argument: expected the storage of K of the cache to be i4"
func.func @cast_to_groups(%c: !llm.paged_kv_cache) -> !llm.paged_kv_cache<?x?x?xf16, storage = #llm.kv_storage<k = i4>> {
  %d = llm.cast_kv %c : !llm.paged_kv_cache -> !llm.paged_kv_cache<?x?x?xf16, storage = #llm.kv_storage<k = i4>>
  return %d : !llm.paged_kv_cache<?x?x?xf16, storage = #llm.kv_storage<k = i4>>
}

// -----

// Attributes of arguments and results are for the exported call; a drop is gone.

// CHECK-LABEL: func @attributes
// CHECK-NOT: llm.
// CHECK: return
func.func @attributes(%tokens: tensor<?xi32> {llm.name = "tokens"},
                      %c: !llm.paged_kv_cache<2x1x4xf16>)
    -> (tensor<?xi32> {llm.dims = ["T"]}) {
  llm.drop_kv %c : !llm.paged_kv_cache<2x1x4xf16>
  return %tokens : tensor<?xi32>
}

// -----

// Dead blocks are gone: nothing says what their arguments become.

// CHECK-LABEL: func @dead
// CHECK-NOT: llm.
// CHECK: return
func.func @dead(%c: !llm.paged_kv_cache) {
  return
^dead(%d: !llm.paged_kv_cache):
  cf.br ^dead(%d : !llm.paged_kv_cache)
}

// A key that rotates on the way is rotated first.

// CHECK-LABEL: func @rotated
// CHECK-SAME: %[[K:[a-z0-9]+]]: tensor<?x1x4xf32>, %[[TABLE:[a-z0-9]+]]: tensor<?x4xf32>)
// CHECK: %[[ADJACENT:.*]] = arith.constant true
// CHECK: %[[ANGLES:.*]] = tensor.cast %[[TABLE]]
// CHECK: %[[ROTATED:.*]] = call @llm_spec.rotate(%{{.*}}, %[[ANGLES]], %[[ADJACENT]])
// CHECK: call @llm_spec.append_kv({{.*}}, %[[ROTATED]], %{{[a-z0-9_]+}})
func.func @rotated(%c: !llm.paged_kv_cache<2x1x4xf16>, %at: !llm.kv_step, %k: tensor<?x1x4xf32>, %table: tensor<?x4xf32>) -> !llm.paged_kv_cache<2x1x4xf16> {
  %c1 = llm.append_kv %c, %k, %k at %at rope_table(%table : tensor<?x4xf32>) {pairing = #llm.rope_pairing<adjacent>} : !llm.paged_kv_cache<2x1x4xf16>, tensor<?x1x4xf32>, tensor<?x1x4xf32> -> !llm.paged_kv_cache<2x1x4xf16>
  return %c1 : !llm.paged_kv_cache<2x1x4xf16>
}
