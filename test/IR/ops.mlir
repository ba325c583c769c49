// RUN: %llm-opt %s --verify-roundtrip | FileCheck %s

// Every op over values, and over handles where consuming ops have no cache
// result.

!kv = !llm.paged_kv_cache<2x1x64xf16>
!one = !llm.paged_kv_cache<1x1x64xf16>
!windowed = !llm.paged_kv_cache<2x1x64xf16, window = 512, sinks = 4>
!handle = !llm.kv_handle<2x1x64xf16>
!static = !llm.paged_kv_cache<2x1x64xf16, block_size = 16, max_seq_len = 512, max_sequences = 4>
!static_handle = !llm.kv_handle<2x1x64xf16, block_size = 16, max_seq_len = 512, max_sequences = 4>

//===----------------------------------------------------------------------===//
// Creation and types
//===----------------------------------------------------------------------===//

// CHECK-LABEL: func @create_paged
// CHECK: llm.create_kv_cache blocks(%{{.*}}) : !llm.paged_kv_cache<
func.func @create_paged(%blocks: index) {
  %c = llm.create_kv_cache blocks(%blocks) : !static
  return
}

// CHECK-LABEL: func @create_static
// CHECK: llm.create_kv_cache {strategy = #llm.kv_strategy<static>} : !llm.paged_kv_cache<
func.func @create_static() {
  %c = llm.create_kv_cache {strategy = #llm.kv_strategy<static>} : !static
  return
}

// CHECK-LABEL: func @create_handle
// CHECK: llm.create_kv_cache blocks(%{{.*}}) : !llm.kv_handle<
func.func @create_handle(%blocks: index) {
  %h = llm.create_kv_cache blocks(%blocks) : !static_handle
  return
}

// CHECK-LABEL: func @cast
// CHECK: llm.cast_kv %{{.*}} : !llm.paged_kv_cache -> !llm.paged_kv_cache<2x1x64xf16>
func.func @cast(%c: !llm.paged_kv_cache) -> !kv {
  %known = llm.cast_kv %c : !llm.paged_kv_cache -> !kv
  return %known : !kv
}

// CHECK-LABEL: func private @cast_handle
// CHECK: llm.cast_kv %{{.*}} : !llm.kv_handle -> !llm.kv_handle<2x1x64xf16>
func.func private @cast_handle(%h: !llm.kv_handle) -> !handle {
  %known = llm.cast_kv %h : !llm.kv_handle -> !handle
  return %known : !handle
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

// CHECK-LABEL: func @begin_step
// CHECK: %[[NEXT:.*]], %[[STEP:.*]] = llm.begin_step %{{.*}}, %{{.*}}, %{{.*}} : !llm.paged_kv_cache<2x1x64xf16>, tensor<2xi32>, tensor<3xi32> -> !llm.paged_kv_cache<2x1x64xf16>
// CHECK: llm.positions %[[STEP]] : tensor<?xi32>
// CHECK: llm.at_layer %[[STEP]][%{{.*}}]
func.func @begin_step(%c: !kv, %ids: tensor<2xi32>, %cu: tensor<3xi32>, %layer: index) -> (!kv, tensor<?xi32>) {
  %next, %step = llm.begin_step %c, %ids, %cu : !kv, tensor<2xi32>, tensor<3xi32> -> !kv
  %positions = llm.positions %step : tensor<?xi32>
  %at = llm.at_layer %step[%layer]
  return %next, %positions : !kv, tensor<?xi32>
}

// CHECK-LABEL: func @begin_step_handle
// CHECK: %{{.*}} = llm.begin_step %{{.*}}, %{{.*}}, %{{.*}} : !llm.kv_handle<2x1x64xf16>, tensor<?xi32>, tensor<?xi32>{{$}}
func.func @begin_step_handle(%h: !handle, %ids: tensor<?xi32>, %cu: tensor<?xi32>) {
  %step = llm.begin_step %h, %ids, %cu : !handle, tensor<?xi32>, tensor<?xi32>
  return
}

//===----------------------------------------------------------------------===//
// Append and read
//===----------------------------------------------------------------------===//

// CHECK-LABEL: func private @append_at_a_step
// CHECK: llm.append_kv %{{.*}}, %{{.*}}, %{{.*}} at %{{.*}} : !llm.paged_kv_cache<2x1x64xf16>, tensor<?x1x64xf32>, tensor<?x1x64xf32> -> !llm.paged_kv_cache<2x1x64xf16>
func.func private @append_at_a_step(%c: !kv, %kv: tensor<?x1x64xf32>, %at: !llm.kv_step) -> !kv {
  %next = llm.append_kv %c, %kv, %kv at %at : !kv, tensor<?x1x64xf32>, tensor<?x1x64xf32> -> !kv
  return %next : !kv
}

// CHECK-LABEL: func @append_without_a_step
// CHECK: llm.append_kv %{{.*}}, %{{.*}}, %{{.*}} {block_size = 16 : i32, max_seq_len = 512 : i32} : !llm.paged_kv_cache<1x1x64xf16>, tensor<4x1x1x64xbf16>, tensor<4x1x1x64xbf16> -> !llm.paged_kv_cache<1x1x64xf16>
func.func @append_without_a_step(%c: !one, %kv: tensor<4x1x1x64xbf16>) -> !one {
  %next = llm.append_kv %c, %kv, %kv {block_size = 16 : i32, max_seq_len = 512 : i32} : !one, tensor<4x1x1x64xbf16>, tensor<4x1x1x64xbf16> -> !one
  return %next : !one
}

// CHECK-LABEL: func private @append_handle
// CHECK: {{^ *}}llm.append_kv %{{.*}}, %{{.*}}, %{{.*}} at %{{.*}} : !llm.kv_handle<2x1x64xf16>, tensor<?x1x64xf32>, tensor<?x1x64xf32>{{$}}
func.func private @append_handle(%h: !handle, %kv: tensor<?x1x64xf32>, %at: !llm.kv_step) {
  llm.append_kv %h, %kv, %kv at %at : !handle, tensor<?x1x64xf32>, tensor<?x1x64xf32>
  return
}

// CHECK-LABEL: func private @attend_at_a_step
// CHECK: llm.paged_attention %{{.*}}, %{{.*}} at %{{.*}} {scale = 1.250000e-01 : f32} : tensor<?x3x64xf32>, !llm.paged_kv_cache<2x1x64xf16> -> tensor<?x3x64xf32>
func.func private @attend_at_a_step(%q: tensor<?x3x64xf32>, %c: !kv, %at: !llm.kv_step) -> tensor<?x3x64xf32> {
  %o = llm.paged_attention %q, %c at %at {scale = 0.125 : f32} : tensor<?x3x64xf32>, !kv -> tensor<?x3x64xf32>
  return %o : tensor<?x3x64xf32>
}

// CHECK-LABEL: func @attend_without_extras
// CHECK: llm.paged_attention %{{.*}}, %{{.*}} : tensor<4x1x3x64xf32>, !llm.paged_kv_cache<1x1x64xf16> -> tensor<4x1x3x64xf32>
func.func @attend_without_extras(%q: tensor<4x1x3x64xf32>, %c: !one) -> tensor<4x1x3x64xf32> {
  %o = llm.paged_attention %q, %c : tensor<4x1x3x64xf32>, !one -> tensor<4x1x3x64xf32>
  return %o : tensor<4x1x3x64xf32>
}

// CHECK-LABEL: func @attend_over_blocks
// CHECK: llm.paged_attention %{{.*}}, %{{.*}} blocks(%{{.*}} : tensor<4x8xi32>) {causal = false, softcap = 5.000000e+01 : f32, window = 7 : i32} : tensor<4x1x3x64xf32>
func.func @attend_over_blocks(%q: tensor<4x1x3x64xf32>, %c: !one, %table: tensor<4x8xi32>) -> tensor<4x1x3x64xf32> {
  %o = llm.paged_attention %q, %c blocks(%table : tensor<4x8xi32>) {causal = false, softcap = 50.0 : f32, window = 7 : i32} : tensor<4x1x3x64xf32>, !one -> tensor<4x1x3x64xf32>
  return %o : tensor<4x1x3x64xf32>
}

// CHECK-LABEL: func private @attend_with_both_and_lse
// CHECK: %{{.*}}, %{{.*}} = llm.paged_attention %{{.*}}, %{{.*}} at %{{.*}} blocks(%{{.*}} : tensor<?x?xi32>) : tensor<?x3x64xf32>, !llm.paged_kv_cache<2x1x64xf16> -> tensor<?x3x64xf32>, tensor<?x3xf32>
func.func private @attend_with_both_and_lse(%q: tensor<?x3x64xf32>, %c: !kv, %at: !llm.kv_step, %table: tensor<?x?xi32>) -> (tensor<?x3x64xf32>, tensor<?x3xf32>) {
  %o, %lse = llm.paged_attention %q, %c at %at blocks(%table : tensor<?x?xi32>) : tensor<?x3x64xf32>, !kv -> tensor<?x3x64xf32>, tensor<?x3xf32>
  return %o, %lse : tensor<?x3x64xf32>, tensor<?x3xf32>
}

// CHECK-LABEL: func @attend_with_alibi
// CHECK: llm.paged_attention %{{.*}}, %{{.*}} alibi(%{{.*}} : tensor<3xf32>) : tensor<4x1x3x64xf32>
func.func @attend_with_alibi(%q: tensor<4x1x3x64xf32>, %c: !one, %slopes: tensor<3xf32>) -> tensor<4x1x3x64xf32> {
  %o = llm.paged_attention %q, %c alibi(%slopes : tensor<3xf32>) : tensor<4x1x3x64xf32>, !one -> tensor<4x1x3x64xf32>
  return %o : tensor<4x1x3x64xf32>
}

// CHECK-LABEL: func private @attend_with_every_modifier
// CHECK: llm.paged_attention %{{.*}}, %{{.*}} at %{{.*}} alibi(%{{.*}} : tensor<3xf32>) head_sink(%{{.*}} : tensor<?xf32>) sink_query(%{{.*}} : tensor<?x3x64xf32>) {softcap = 3.000000e+01 : f32}
func.func private @attend_with_every_modifier(%q: tensor<?x3x64xf32>, %c: !windowed, %at: !llm.kv_step, %slopes: tensor<3xf32>, %logits: tensor<?xf32>, %nearer: tensor<?x3x64xf32>) -> tensor<?x3x64xf32> {
  %o = llm.paged_attention %q, %c at %at alibi(%slopes : tensor<3xf32>) head_sink(%logits : tensor<?xf32>) sink_query(%nearer : tensor<?x3x64xf32>) {softcap = 30.0 : f32} : tensor<?x3x64xf32>, !windowed -> tensor<?x3x64xf32>
  return %o : tensor<?x3x64xf32>
}

// CHECK-LABEL: func private @attend_handle
// CHECK: llm.paged_attention %{{.*}}, %{{.*}} at %{{.*}} : tensor<?x3x64xf32>, !llm.kv_handle<2x1x64xf16> -> tensor<?x3x64xf32>
func.func private @attend_handle(%q: tensor<?x3x64xf32>, %h: !handle, %at: !llm.kv_step) -> tensor<?x3x64xf32> {
  %o = llm.paged_attention %q, %h at %at : tensor<?x3x64xf32>, !handle -> tensor<?x3x64xf32>
  return %o : tensor<?x3x64xf32>
}

// CHECK-LABEL: func private @lookup_at_a_step
// CHECK: %{{.*}}, %{{.*}} = llm.lookup_kv %{{.*}} at %{{.*}} : !llm.paged_kv_cache<2x1x64xf16> -> tensor<?x32x1x64xf16>, tensor<?x32x1x64xf16>
func.func private @lookup_at_a_step(%c: !kv, %at: !llm.kv_step) -> (tensor<?x32x1x64xf16>, tensor<?x32x1x64xf16>) {
  %k, %v = llm.lookup_kv %c at %at : !kv -> tensor<?x32x1x64xf16>, tensor<?x32x1x64xf16>
  return %k, %v : tensor<?x32x1x64xf16>, tensor<?x32x1x64xf16>
}

// CHECK-LABEL: func @lookup_over_blocks
// CHECK: llm.lookup_kv %{{.*}} blocks(%{{.*}} : tensor<?x2xi32>) {head_dim = 64 : i32, num_heads = 1 : i32} : !llm.paged_kv_cache<1x1x64xf16>
func.func @lookup_over_blocks(%c: !one, %table: tensor<?x2xi32>) -> tensor<?x32x1x64xf16> {
  %k, %v = llm.lookup_kv %c blocks(%table : tensor<?x2xi32>) {head_dim = 64 : i32, num_heads = 1 : i32} : !one -> tensor<?x32x1x64xf16>, tensor<?x32x1x64xf16>
  return %k : tensor<?x32x1x64xf16>
}

// CHECK-LABEL: func @lookup_handle
// CHECK: llm.lookup_kv %{{.*}} : !llm.kv_handle<1x1x64xf16> -> tensor<4x32x1x64xf16>, tensor<4x32x1x64xf16>
func.func @lookup_handle(%h: !llm.kv_handle<1x1x64xf16>) {
  %k, %v = llm.lookup_kv %h : !llm.kv_handle<1x1x64xf16> -> tensor<4x32x1x64xf16>, tensor<4x32x1x64xf16>
  return
}

//===----------------------------------------------------------------------===//
// Sequences
//===----------------------------------------------------------------------===//

// CHECK-LABEL: func @fork_trim_release
// CHECK: llm.fork_kv %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} : !llm.paged_kv_cache<2x1x64xf16>, tensor<?xi32>, tensor<?xi32>, tensor<?xi32> -> !llm.paged_kv_cache<2x1x64xf16>
// CHECK: llm.trim_kv %{{.*}}, %{{.*}}, %{{.*}} : !llm.paged_kv_cache<2x1x64xf16>, tensor<?xi32>, tensor<?xi32> -> !llm.paged_kv_cache<2x1x64xf16>
// CHECK: llm.release_kv %{{.*}}, %{{.*}} : !llm.paged_kv_cache<2x1x64xf16>, tensor<?xi32> -> !llm.paged_kv_cache<2x1x64xf16>
func.func @fork_trim_release(%c: !kv, %a: tensor<?xi32>, %b: tensor<?xi32>, %n: tensor<?xi32>) -> !kv {
  %forked = llm.fork_kv %c, %a, %b, %n : !kv, tensor<?xi32>, tensor<?xi32>, tensor<?xi32> -> !kv
  %trimmed = llm.trim_kv %forked, %a, %n : !kv, tensor<?xi32>, tensor<?xi32> -> !kv
  %released = llm.release_kv %trimmed, %b : !kv, tensor<?xi32> -> !kv
  return %released : !kv
}

// CHECK-LABEL: func @fork_trim_release_handle
// CHECK: {{^ *}}llm.fork_kv %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} : !llm.kv_handle<2x1x64xf16>, tensor<?xi32>, tensor<?xi32>, tensor<?xi32>{{$}}
// CHECK: {{^ *}}llm.trim_kv %{{.*}}, %{{.*}}, %{{.*}} : !llm.kv_handle<2x1x64xf16>, tensor<?xi32>, tensor<?xi32>{{$}}
// CHECK: {{^ *}}llm.release_kv %{{.*}}, %{{.*}} : !llm.kv_handle<2x1x64xf16>, tensor<?xi32>{{$}}
func.func @fork_trim_release_handle(%h: !handle, %a: tensor<?xi32>, %b: tensor<?xi32>, %n: tensor<?xi32>) {
  llm.fork_kv %h, %a, %b, %n : !handle, tensor<?xi32>, tensor<?xi32>, tensor<?xi32>
  llm.trim_kv %h, %a, %n : !handle, tensor<?xi32>, tensor<?xi32>
  llm.release_kv %h, %b : !handle, tensor<?xi32>
  return
}

// CHECK-LABEL: func private @snapshot
// CHECK: llm.snapshot_kv %{{.*}} : !llm.paged_kv_cache<2x1x64xf16>
// CHECK: llm.snapshot_kv %{{.*}} : !llm.kv_handle<2x1x64xf16>
func.func private @snapshot(%c: !kv, %h: !handle) -> (!kv, !handle) {
  %version = llm.snapshot_kv %c : !kv
  %handle = llm.snapshot_kv %h : !handle
  return %version, %handle : !kv, !handle
}

//===----------------------------------------------------------------------===//
// Queries
//===----------------------------------------------------------------------===//

// CHECK-LABEL: func @queries
// CHECK: llm.seq_lens %{{.*}}, %{{.*}} : !llm.paged_kv_cache<2x1x64xf16>, tensor<?xi32> -> tensor<?xi32>
// CHECK: llm.block_table %{{.*}}, %{{.*}} : !llm.paged_kv_cache<2x1x64xf16>, tensor<?xi32> -> tensor<?x?xi32>
// CHECK: llm.kv_stats %{{.*}} : !llm.paged_kv_cache<2x1x64xf16> -> tensor<12xi64>
func.func @queries(%c: !kv, %ids: tensor<?xi32>) -> (tensor<?xi32>, tensor<?x?xi32>, tensor<12xi64>) {
  %lengths = llm.seq_lens %c, %ids : !kv, tensor<?xi32> -> tensor<?xi32>
  %table = llm.block_table %c, %ids : !kv, tensor<?xi32> -> tensor<?x?xi32>
  %stats = llm.kv_stats %c : !kv -> tensor<12xi64>
  return %lengths, %table, %stats : tensor<?xi32>, tensor<?x?xi32>, tensor<12xi64>
}

// CHECK-LABEL: func @queries_handle
// CHECK: llm.seq_lens %{{.*}}, %{{.*}} : !llm.kv_handle<2x1x64xf16>, tensor<4xi32> -> tensor<4xi32>
// CHECK: llm.block_table %{{.*}}, %{{.*}} : !llm.kv_handle<2x1x64xf16>, tensor<4xi32> -> tensor<4x8xi32>
// CHECK: llm.kv_stats %{{.*}} : !llm.kv_handle<2x1x64xf16> -> tensor<12xi64>
func.func @queries_handle(%h: !handle, %ids: tensor<4xi32>) {
  %lengths = llm.seq_lens %h, %ids : !handle, tensor<4xi32> -> tensor<4xi32>
  %table = llm.block_table %h, %ids : !handle, tensor<4xi32> -> tensor<4x8xi32>
  %stats = llm.kv_stats %h : !handle -> tensor<12xi64>
  return
}

// CHECK-LABEL: func @rope_table
// CHECK: llm.rope_table %{{.*}} {inv_freq = array<f32: 1.000000e+00, 0.00999999977>} : tensor<?xi32> -> tensor<?x4xf32>
func.func @rope_table(%positions: tensor<?xi32>) -> tensor<?x4xf32> {
  %t = llm.rope_table %positions {inv_freq = array<f32: 1.0, 0.01>} : tensor<?xi32> -> tensor<?x4xf32>
  return %t : tensor<?x4xf32>
}

// CHECK-LABEL: func @rope
// CHECK: llm.rope %{{.*}}, %{{.*}} {pairing = #llm.rope_pairing<adjacent>} : tensor<?x3x4xf32>, tensor<?x4xf32>
func.func @rope(%x: tensor<?x3x4xf32>, %table: tensor<?x4xf32>) -> tensor<?x3x4xf32> {
  %y = llm.rope %x, %table {pairing = #llm.rope_pairing<adjacent>} : tensor<?x3x4xf32>, tensor<?x4xf32>
  return %y : tensor<?x3x4xf32>
}

// CHECK-LABEL: func @append_rotated
// CHECK: llm.append_kv %{{.*}}, %{{.*}}, %{{.*}} at %{{.*}} rope_table(%{{.*}} : tensor<?x64xf32>) {pairing = #llm.rope_pairing<half>} : !llm.paged_kv_cache<2x1x64xf16>, tensor<?x1x64xf32>, tensor<?x1x64xf32> -> !llm.paged_kv_cache<2x1x64xf16>
func.func @append_rotated(%c: !kv, %at: !llm.kv_step, %k: tensor<?x1x64xf32>, %table: tensor<?x64xf32>) -> !kv {
  %c1 = llm.append_kv %c, %k, %k at %at rope_table(%table : tensor<?x64xf32>) {pairing = #llm.rope_pairing<half>} : !kv, tensor<?x1x64xf32>, tensor<?x1x64xf32> -> !kv
  return %c1 : !kv
}

//===----------------------------------------------------------------------===//
// Ends, arguments and checks
//===----------------------------------------------------------------------===//

// CHECK-LABEL: func private @ends
// CHECK: llm.drop_kv %{{.*}} : !llm.paged_kv_cache<2x1x64xf16>
// CHECK: llm.replace_kv %{{.*}}, %{{.*}} : <2x1x64xf16>, <2x1x64xf16>
// CHECK: llm.drop_kv %{{.*}} : !llm.kv_handle<2x1x64xf16>
func.func private @ends(%c: !kv, %host: !handle, %version: !handle) {
  llm.drop_kv %c : !kv
  llm.replace_kv %host, %version : <2x1x64xf16>, <2x1x64xf16>
  llm.drop_kv %host : !handle
  return
}

// CHECK-LABEL: func private @none
// CHECK: llm.null_kv : !llm.kv_handle<2x1x64xf16>
func.func private @none() -> !handle {
  %none = llm.null_kv : !handle
  return %none : !handle
}

// CHECK-LABEL: func @call_arguments
// CHECK: llm.call_argument input 0 : memref<?xi32, strided<[?], offset: ?>>
// CHECK: llm.call_argument output 1 : memref<?x8xf32>
// CHECK: llm.call_argument weight 2 : memref<4x4xbf16>
// CHECK: llm.call_argument cache 3 : !llm.kv_handle<2x1x64xf16>
func.func @call_arguments() {
  %tokens = llm.call_argument input 0 : memref<?xi32, strided<[?], offset: ?>>
  %logits = llm.call_argument output 1 : memref<?x8xf32>
  %weight = llm.call_argument weight 2 : memref<4x4xbf16>
  %cache = llm.call_argument cache 3 : !handle
  return
}

// CHECK-LABEL: func @linear_of_panels
// CHECK: llm.linear %{{.*}}, %{{.*}} as f32 : tensor<?x70xf32>, tensor<2x70x32xf32> -> tensor<?x40xf32>
func.func @linear_of_panels(%x: tensor<?x70xf32>, %w: tensor<2x70x32xf32>) -> tensor<?x40xf32> {
  %y = llm.linear %x, %w as f32 : tensor<?x70xf32>, tensor<2x70x32xf32> -> tensor<?x40xf32>
  return %y : tensor<?x40xf32>
}

// CHECK-LABEL: func @linear
// CHECK: llm.linear %{{.*}}, %{{.*}} as bf16 : tensor<?x64xf32>, tensor<2x2x1024xbf16> -> tensor<?x40xf32>
func.func @linear(%x: tensor<?x64xf32>, %w: tensor<2x2x1024xbf16>) -> tensor<?x40xf32> {
  %y = llm.linear %x, %w as bf16 : tensor<?x64xf32>, tensor<2x2x1024xbf16> -> tensor<?x40xf32>
  return %y : tensor<?x40xf32>
}

// CHECK-LABEL: func @linear_of_blocks
// CHECK: llm.linear %{{.*}}, %{{.*}} of q8_0 as i8 : tensor<?x64xf32>, tensor<2x2x1088xi8> -> tensor<?x40xf32>
// CHECK: llm.linear %{{.*}}, %{{.*}} of q8_0 as f32
func.func @linear_of_blocks(%x: tensor<?x64xf32>, %w: tensor<2x2x1088xi8>) -> (tensor<?x40xf32>, tensor<?x40xf32>) {
  %y = llm.linear %x, %w of q8_0 as i8 : tensor<?x64xf32>, tensor<2x2x1088xi8> -> tensor<?x40xf32>
  %z = llm.linear %x, %w of q8_0 as f32 : tensor<?x64xf32>, tensor<2x2x1088xi8> -> tensor<?x40xf32>
  return %y, %z : tensor<?x40xf32>, tensor<?x40xf32>
}

// CHECK-LABEL: func @check_size
// CHECK: llm.check_size %{{.*}}, %{{.*}}, "output 0, dimension 1"
func.func @check_size(%given: index, %computed: index) {
  llm.check_size %given, %computed, "output 0, dimension 1"
  return
}
