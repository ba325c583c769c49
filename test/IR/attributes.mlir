// RUN: %llm-opt %s --verify-roundtrip | FileCheck %s

!kv = !llm.paged_kv_cache<2x1x64xf16>

// CHECK-LABEL: func private @strategies
// CHECK-SAME: paged = #llm.kv_strategy<paged>
// CHECK-SAME: static = #llm.kv_strategy<static>
func.func private @strategies() attributes {paged = #llm.kv_strategy<paged>, static = #llm.kv_strategy<static>}

// CHECK-LABEL: func private @pairings
// CHECK-SAME: adjacent = #llm.rope_pairing<adjacent>
// CHECK-SAME: half = #llm.rope_pairing<half>
func.func private @pairings() attributes {adjacent = #llm.rope_pairing<adjacent>, half = #llm.rope_pairing<half>}

// CHECK-LABEL: func private @extras
// CHECK-SAME: extras = [#llm.extra<step>, #llm.extra<block_indices>, #llm.extra<alibi>, #llm.extra<head_sink>, #llm.extra<sink_query>, #llm.extra<rope_table>]
func.func private @extras() attributes {extras = [#llm.extra<step>, #llm.extra<block_indices>, #llm.extra<alibi>, #llm.extra<head_sink>, #llm.extra<sink_query>, #llm.extra<rope_table>]}

// Only what is given is printed.

// CHECK-LABEL: func private @config
// CHECK-SAME: {llm.config = #llm.kv_cache_config<block_size = 16, max_seq_len = 8192>}
// CHECK-SAME: {llm.config = #llm.kv_cache_config<max_sequences = 4, strategy = static>}
func.func private @config(
    !kv {llm.config = #llm.kv_cache_config<block_size = 16, max_seq_len = 8192>},
    !kv {llm.config = #llm.kv_cache_config<max_sequences = 4, strategy = static>})

// CHECK-LABEL: func private @default_config
// CHECK-SAME: #llm.kv_cache_config
func.func private @default_config(!kv {llm.config = #llm.kv_cache_config<strategy = paged>})

// CHECK-LABEL: func private @weights
// CHECK-SAME: tensor<64xf32> {llm.weight = #llm.weight<["norm.weight"]>}
// CHECK-SAME: tensor<96x64xbf16> {llm.weight = #llm.weight<["q", "k", "v"]>}
// CHECK-SAME: tensor<64x96xf32> {llm.weight = #llm.weight<["a", "b"], axis = 1>}
// CHECK-SAME: tensor<3x64x32xf32> {llm.weight = #llm.weight<["w"], panel_rows = 70>}
// CHECK-SAME: tensor<96x64xf32> {llm.weight = #llm.weight<["q"], format = q8_0>}
// CHECK-SAME: tensor<3x2x576xi8> {llm.weight = #llm.weight<["q"], panel_rows = 70, format = q4_0>}
func.func private @weights(
    tensor<64xf32> {llm.weight = #llm.weight<["norm.weight"]>},
    tensor<96x64xbf16> {llm.weight = #llm.weight<["q", "k", "v"], axis = 0>},
    tensor<64x96xf32> {llm.weight = #llm.weight<["a", "b"], axis = 1>},
    tensor<3x64x32xf32> {llm.weight = #llm.weight<["w"], panel_rows = 70>},
    tensor<96x64xf32> {llm.weight = #llm.weight<["q"], axis = 0, format = q8_0>},
    tensor<3x2x576xi8> {llm.weight = #llm.weight<["q"], panel_rows = 70, format = q4_0>})

// CHECK-LABEL: func private @arguments
// CHECK-SAME: !llm.paged_kv_cache<2x1x64xf16> {llm.borrowed, llm.name = "cache"}
// CHECK-SAME: tensor<?xi32> {llm.below = 512 : i64, llm.dims = ["T"], llm.name = "tokens"}
// CHECK-SAME: tensor<?xi32> {llm.below = "T"}
func.func private @arguments(
    !kv {llm.borrowed, llm.name = "cache"},
    tensor<?xi32> {llm.below = 512, llm.dims = ["T"], llm.name = "tokens"},
    tensor<?xi32> {llm.below = "T"})

// CHECK-LABEL: func private @results
// CHECK-SAME: -> (tensor<?x8xf32> {llm.dims = ["B", "V"], llm.name = "logits"}, !llm.paged_kv_cache<2x1x64xf16> {llm.tied = 1 : i64})
func.func private @results(!kv, !kv)
    -> (tensor<?x8xf32> {llm.dims = ["B", "V"], llm.name = "logits"}, !kv {llm.tied = 1})

// CHECK-LABEL: func private @on_definitions
// CHECK-SAME: llm.name = "cache"
// CHECK-SAME: llm.tied = 0
func.func private @on_definitions(%c: !kv {llm.name = "cache"}) -> (!kv {llm.tied = 0}) {
  return %c : !kv
}
