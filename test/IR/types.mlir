// RUN: %llm-opt %s --verify-roundtrip | FileCheck %s

// CHECK-LABEL: func private @bare
// CHECK-SAME: !llm.paged_kv_cache)
func.func private @bare(!llm.paged_kv_cache)

// CHECK-LABEL: func private @model_only
// CHECK-SAME: !llm.paged_kv_cache<4x2x64xf32>)
func.func private @model_only(!llm.paged_kv_cache<4x2x64xf32>)

// CHECK-LABEL: func private @element_types
// CHECK-SAME: !llm.paged_kv_cache<1x1x8xf32>, !llm.paged_kv_cache<1x1x8xf16>, !llm.paged_kv_cache<1x1x8xbf16>)
func.func private @element_types(!llm.paged_kv_cache<1x1x8xf32>, !llm.paged_kv_cache<1x1x8xf16>, !llm.paged_kv_cache<1x1x8xbf16>)

// CHECK-LABEL: func private @dynamic_dimensions
// CHECK-SAME: !llm.paged_kv_cache<?x8x128xbf16>, !llm.paged_kv_cache<?x?x?xf16>)
func.func private @dynamic_dimensions(!llm.paged_kv_cache<?x8x128xbf16>, !llm.paged_kv_cache<?x?x?xf16>)

// CHECK-LABEL: func private @all_parameters
// CHECK-SAME: !llm.paged_kv_cache<32x8x128xf16, block_size = 16, max_seq_len = 8192, max_sequences = 64, window = 4096, sinks = 4>)
func.func private @all_parameters(!llm.paged_kv_cache<32x8x128xf16, block_size = 16, max_seq_len = 8192, max_sequences = 64, window = 4096, sinks = 4>)

// Parameters are printed in one order.

// CHECK-LABEL: func private @parameters_in_any_order
// CHECK-SAME: !llm.paged_kv_cache<2x1x64xf16, block_size = 16, max_sequences = 4, window = 8, sinks = 2>)
func.func private @parameters_in_any_order(!llm.paged_kv_cache<2x1x64xf16, sinks = 2, window = 8, max_sequences = 4, block_size = 16>)

// CHECK-LABEL: func private @largest_parameter
// CHECK-SAME: max_seq_len = 2147483647>)
func.func private @largest_parameter(!llm.paged_kv_cache<2x1x64xf16, max_seq_len = 2147483647>)

// What is held in the element type is not printed, nor is the only scale.

// CHECK-LABEL: func private @storage
// CHECK-SAME: !llm.paged_kv_cache<2x1x64xf16, storage = #llm.kv_storage<k = i8, v = f8E4M3FN>>
// CHECK-SAME: !llm.paged_kv_cache<2x1x64xf16, window = 8, storage = #llm.kv_storage<v = i8>>
// CHECK-SAME: !llm.kv_handle<2x1x64xf32, storage = #llm.kv_storage<k = f8E4M3FN>>
// CHECK-SAME: !llm.paged_kv_cache<2x1x64xf32, block_size = 64, storage = #llm.kv_storage<k = i4, v = i4>>
// CHECK-SAME: !llm.paged_kv_cache<2x1x64xf32, storage = #llm.kv_storage<k = i4>>
// CHECK-SAME: !llm.paged_kv_cache<2x1x64xf32, block_size = 16, storage = #llm.kv_storage<v = i4>>
func.func private @storage(
    !llm.paged_kv_cache<2x1x64xf16, storage = #llm.kv_storage<k = i8, v = f8E4M3FN, scale = token_head>>,
    !llm.paged_kv_cache<2x1x64xf16, storage = #llm.kv_storage<v = i8>, window = 8>,
    !llm.kv_handle<2x1x64xf32, storage = #llm.kv_storage<k = f8E4M3FN>>,
    !llm.paged_kv_cache<2x1x64xf32, block_size = 64, storage = #llm.kv_storage<k = i4, v = i4>>,
    !llm.paged_kv_cache<2x1x64xf32, storage = #llm.kv_storage<k = i4>>,
    !llm.paged_kv_cache<2x1x64xf32, block_size = 16, storage = #llm.kv_storage<v = i4>>)

// CHECK-LABEL: func private @handles
// CHECK-SAME: !llm.kv_handle, !llm.kv_handle<32x8x128xf16, block_size = 16>)
func.func private @handles(!llm.kv_handle, !llm.kv_handle<32x8x128xf16, block_size = 16>)

// CHECK-LABEL: func private @step
// CHECK-SAME: !llm.kv_step) -> !llm.kv_step
func.func private @step(!llm.kv_step) -> !llm.kv_step
