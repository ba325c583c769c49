// RUN: %llm-opt %s --split-input-file --verify-diagnostics

// expected-error @+1 {{expected block_size to be between 0 and 2147483647, got -1}}
func.func private @block_size(!llm.paged_kv_cache {llm.config = #llm.kv_cache_config<block_size = -1>})

// -----

// expected-error @+1 {{expected block_size of 'llm.config' to be a multiple of 32 where K is stored as i4, got 48}}
func.func private @half_a_group(!llm.paged_kv_cache<1x1x64xf32, storage = #llm.kv_storage<k = i4>> {llm.config = #llm.kv_cache_config<block_size = 48>})

// -----

// expected-error @+1 {{expected max_seq_len to be between 0 and 2147483647, got 2147483648}}
func.func private @max_seq_len(!llm.paged_kv_cache {llm.config = #llm.kv_cache_config<max_seq_len = 2147483648>})

// -----

// expected-error @+1 {{expected max_sequences to be between 0 and 2147483647, got -4}}
func.func private @max_sequences(!llm.paged_kv_cache {llm.config = #llm.kv_cache_config<max_sequences = -4>})

// -----

// expected-error @+2 {{expected attribute value}}
// expected-error @+1 {{failed to parse LLM_WeightAttr parameter 'names'}}
func.func private @no_names(tensor<4xf32> {llm.weight = #llm.weight<[]>})

// -----

// expected-error @+1 {{expected axis to be 0 or 1, got 2}}
func.func private @axis(tensor<4xf32> {llm.weight = #llm.weight<["w"], axis = 2>})

// -----

// expected-error @+1 {{expected panel_rows to be positive, got -1}}
func.func private @panel_rows(tensor<4xf32> {llm.weight = #llm.weight<["w"], panel_rows = -1>})

// -----

// expected-error @+1 {{expected a weight to be a static tensor, got 'tensor<?xf32>'}}
func.func private @dynamic_weight(tensor<?xf32> {llm.weight = #llm.weight<["w"]>})

// -----

// expected-error @+1 {{expected a weight of rank 1 or 2, or panels of rank 3, got 'tensor<f32>'}}
func.func private @scalar_weight(tensor<f32> {llm.weight = #llm.weight<["w"]>})

// -----

// expected-error @+1 {{expected a weight of rank 1 or 2, or panels of rank 3, got 'tensor<2x2x32xf32>'}}
func.func private @panels_without_rows(tensor<2x2x32xf32> {llm.weight = #llm.weight<["w"]>})

// -----

// expected-error @+1 {{expected a weight of rank 1 or 2, or panels of rank 3, got 'tensor<64x2xf32>'}}
func.func private @rows_without_panels(tensor<64x2xf32> {llm.weight = #llm.weight<["w"], panel_rows = 64>})

// -----

// expected-error @+1 {{expected 3 panels of 32 rows for 65 rows, got 'tensor<2x8x32xf32>'}}
func.func private @missing_panel(tensor<2x8x32xf32> {llm.weight = #llm.weight<["w"], panel_rows = 65>})

// -----

// Tiles are of bf16.
// expected-error @+1 {{expected 2 panels of 32 rows for 40 rows, got 'tensor<2x2x1024xf32>'}}
func.func private @tiles_of_f32(tensor<2x2x1024xf32> {llm.weight = #llm.weight<["w"], panel_rows = 40>})

// -----

// expected-error @+1 {{expected 2 panels of 32 rows for 40 rows, got 'tensor<2x2x640xi8>'}}
func.func private @blocks_of_another_format(tensor<2x2x640xi8> {llm.weight = #llm.weight<["w"], panel_rows = 40, format = q8_0>})

// -----

// expected-error @+1 {{expected 2 panels of 32 rows for 40 rows, got 'tensor<2x2x32xi8>'}}
func.func private @panels_of_i8(tensor<2x2x32xi8> {llm.weight = #llm.weight<["w"], panel_rows = 40>})

// -----

// expected-error @+1 {{expected a weight of format q4_1 to be a matrix of f32 with a multiple of 32 columns, got 'tensor<40x64xbf16>'}}
func.func private @quantized_bf16(tensor<40x64xbf16> {llm.weight = #llm.weight<["w"], format = q4_1>})

// -----

// expected-error @+1 {{expected a weight of format q4_0 to be a matrix of f32 with a multiple of 32 columns, got 'tensor<40x70xf32>'}}
func.func private @parts_of_blocks(tensor<40x70xf32> {llm.weight = #llm.weight<["w"], format = q4_0>})

// -----

// expected-error @+1 {{expected 'llm.weight' to be a #llm.weight, got "w"}}
func.func private @weight_kind(tensor<4xf32> {llm.weight = "w"})

// -----

// expected-error @+1 {{expected 'llm.name' to be a string, got 1 : i64}}
func.func private @name_kind(tensor<4xf32> {llm.name = 1})

// -----

// expected-error @+1 {{expected 'llm.dims' to be an array of strings, got "T"}}
func.func private @dims_kind(tensor<?xf32> {llm.dims = "T"})

// -----

// expected-error @+1 {{expected 'llm.dims' to be an array of strings, got [1]}}
func.func private @dims_element_kind(tensor<?xf32> {llm.dims = [1]})

// -----

// expected-error @+1 {{expected 'llm.below' to be an integer or a dimension's name, got unit}}
func.func private @below_kind(tensor<?xi32> {llm.below})

// -----

// expected-error @+1 {{expected 'llm.config' to be a #llm.kv_cache_config, got 16 : i64}}
func.func private @config_kind(!llm.paged_kv_cache {llm.config = 16})

// -----

// expected-error @+1 {{expected 'llm.borrowed' to be a unit attribute, got true}}
func.func private @borrowed_kind(!llm.paged_kv_cache {llm.borrowed = true})

// -----

// expected-error @+1 {{unknown argument attribute 'llm.moved'}}
func.func private @unknown_of_argument(!llm.paged_kv_cache {llm.moved})

// -----

// expected-error @+1 {{expected 'llm.name' to be a string, got 1 : i64}}
func.func private @result_name_kind() -> (tensor<4xf32> {llm.name = 1})

// -----

// expected-error @+1 {{expected 'llm.dims' to be an array of strings, got 3 : i64}}
func.func private @result_dims_kind() -> (tensor<?xf32> {llm.dims = 3})

// -----

// expected-error @+1 {{unknown result attribute 'llm.other'}}
func.func private @unknown_of_result() -> (!llm.paged_kv_cache {llm.other})

// -----

// expected-error @+1 {{expected 'llm.fresh' to be a unit attribute, got 1 : i64}}
func.func private @fresh_kind() -> (!llm.paged_kv_cache {llm.fresh = 1})

// -----

// expected-error @+1 {{result 0 is 'llm.fresh' and 'llm.tied'}}
func.func private @fresh_and_tied(!llm.paged_kv_cache) -> (!llm.paged_kv_cache {llm.fresh, llm.tied = 0})

// -----

// expected-error @+1 {{expected 'llm.tied' to be an argument number, got "c"}}
func.func private @tied_kind(!llm.paged_kv_cache) -> (!llm.paged_kv_cache {llm.tied = "c"})

// -----

// expected-error @+1 {{expected 'llm.tied' to be below 1, got 1}}
func.func private @tied_to_nothing(!llm.paged_kv_cache) -> (!llm.paged_kv_cache {llm.tied = 1})

// -----

// expected-error @+1 {{expected argument 0 to have the type of result 0, '!llm.paged_kv_cache<1x1x64xf16>', got '!llm.paged_kv_cache'}}
func.func private @tied_to_another_type(!llm.paged_kv_cache) -> (!llm.paged_kv_cache<1x1x64xf16> {llm.tied = 0})
