//===- SpecificationErrorsTest.cpp - Both meanings fail alike -------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Each program violates one precondition: an assertion of the specification
// fails, and the product returns the code that its text begins with.
//
//===----------------------------------------------------------------------===//

#include "CompiledProgram.h"
#include "SpecifiedProgram.h"

#include <fstream>
#include <regex>
#include <set>

using namespace llm::testing;

static const char text[] = R"mlir(
!kv = !llm.paged_kv_cache<2x1x1xf32, block_size = 2, max_seq_len = 6, max_sequences = 4>
!flat = !llm.paged_kv_cache<1x1x1xf32, block_size = 2, max_seq_len = 6, max_sequences = 4>
!sinks = !llm.paged_kv_cache<1x1x1xf32, block_size = 2, max_seq_len = 6, max_sequences = 4, window = 2, sinks = 1>
!any = !llm.paged_kv_cache
!step = !llm.kv_step
!ids = tensor<?xi32>
!rows = tensor<?x1x1xf32>

//===--- What the programs are made of ------------------------------------===//

func.func private @begin(%c: !any, %ids: !ids, %cu: !ids) -> (!any, !step) {
  %c0, %step = llm.begin_step %c, %ids, %cu : !any, !ids, !ids -> !any
  return %c0, %step : !any, !step
}

func.func private @append(%c: !any, %step: !step, %layer: index, %tokens: index)
    -> !any {
  %x = arith.constant 1.0 : f32
  %k = tensor.splat %x[%tokens] : !rows
  %at = llm.at_layer %step[%layer]
  %c1 = llm.append_kv %c, %k, %k at %at : !any, !rows, !rows -> !any
  return %c1 : !any
}

func.func private @append_batch(%c: !any, %sequences: index, %tokens: index)
    -> !any {
  %x = arith.constant 1.0 : f32
  %k = tensor.splat %x[%sequences, %tokens] : tensor<?x?x1x1xf32>
  %c1 = llm.append_kv %c, %k, %k
      : !any, tensor<?x?x1x1xf32>, tensor<?x?x1x1xf32> -> !any
  return %c1 : !any
}

func.func private @attend(%c: !any, %step: !step, %tokens: index,
                          %heads: index, %dim: index) -> !ids {
  %x = arith.constant 1.0 : f32
  %q = tensor.splat %x[%tokens, %heads, %dim] : tensor<?x?x?xf32>
  %o = llm.paged_attention %q, %c at %step : tensor<?x?x?xf32>, !any -> tensor<?x?x?xf32>
  %r = func.call @bits(%o) : (tensor<?x?x?xf32>) -> !ids
  return %r : !ids
}

// With these many slopes, logits and queries for sinks.
func.func private @modified(%c: !any, %step: !step, %slopes: index,
                            %logits: index, %nearer: index) -> !ids {
  %one = arith.constant 1 : index
  %two = arith.constant 2 : index
  %x = arith.constant 1.0 : f32
  %q = tensor.splat %x[%two, %one, %one] : tensor<?x?x?xf32>
  %alibi = tensor.splat %x[%slopes] : tensor<?xf32>
  %sink = tensor.splat %x[%logits] : tensor<?xf32>
  %other = tensor.splat %x[%nearer, %one, %one] : tensor<?x?x?xf32>
  %o = llm.paged_attention %q, %c at %step alibi(%alibi : tensor<?xf32>) head_sink(%sink : tensor<?xf32>) sink_query(%other : tensor<?x?x?xf32>) : tensor<?x?x?xf32>, !any -> tensor<?x?x?xf32>
  %r = func.call @bits(%o) : (tensor<?x?x?xf32>) -> !ids
  return %r : !ids
}

func.func private @nearer(%c: !any, %step: !step) -> !ids {
  %one = arith.constant 1 : index
  %two = arith.constant 2 : index
  %x = arith.constant 1.0 : f32
  %q = tensor.splat %x[%two, %one, %one] : tensor<?x?x?xf32>
  %o = llm.paged_attention %q, %c at %step sink_query(%q : tensor<?x?x?xf32>) : tensor<?x?x?xf32>, !any -> tensor<?x?x?xf32>
  %r = func.call @bits(%o) : (tensor<?x?x?xf32>) -> !ids
  return %r : !ids
}

// A cache with sinks in which a step of 1 token for each of two sequences runs.
func.func private @sinks() -> (!any, !step) {
  %blocks = arith.constant 32 : index
  %made = llm.create_kv_cache blocks(%blocks) : !sinks
  %any = llm.cast_kv %made : !sinks -> !any
  %c0, %step = func.call @start(%any, %i1) : (!any, i32) -> (!any, !step)
  %c1 = func.call @append(%c0, %step, %l0, %l2) : (!any, !step, index, index) -> !any
  %at = llm.at_layer %step[%l0]
  return %c1, %at : !any, !step
}

func.func private @attend_batch(%c: !any, %sequences: index, %tokens: index)
    -> !ids {
  %zero = arith.constant 0 : index
  %x = arith.constant 1.0 : f32
  %q = tensor.splat %x[%sequences, %tokens] : tensor<?x?x1x1xf32>
  %o = llm.paged_attention %q, %c : tensor<?x?x1x1xf32>, !any -> tensor<?x?x1x1xf32>
  %flat = tensor.collapse_shape %o [[0, 1], [2], [3]] : tensor<?x?x1x1xf32> into tensor<?x1x1xf32>
  %dynamic = tensor.cast %flat : tensor<?x1x1xf32> to tensor<?x?x?xf32>
  %r = func.call @bits(%dynamic) : (tensor<?x?x?xf32>) -> !ids
  return %r : !ids
}

// Something of the tensor, so that it is needed.
func.func private @bits(%x: tensor<?x?x?xf32>) -> !ids {
  %zero = arith.constant 0 : index
  %element = tensor.extract %x[%zero, %zero, %zero] : tensor<?x?x?xf32>
  %bits = arith.bitcast %element : f32 to i32
  %one = tensor.from_elements %bits : tensor<1xi32>
  %r = tensor.cast %one : tensor<1xi32> to !ids
  return %r : !ids
}

func.func private @lookup(%c: !any, %table: tensor<?x?xi32>) -> !ids {
  %k, %v = llm.lookup_kv %c blocks(%table : tensor<?x?xi32>) : !any -> tensor<2x4x1x1xf32>, tensor<2x4x1x1xf32>
  %flat = tensor.collapse_shape %k [[0, 1], [2], [3]] : tensor<2x4x1x1xf32> into tensor<8x1x1xf32>
  %dynamic = tensor.cast %flat : tensor<8x1x1xf32> to tensor<?x?x?xf32>
  %r = func.call @bits(%dynamic) : (tensor<?x?x?xf32>) -> !ids
  return %r : !ids
}

func.func private @lengths(%c: !any) -> !ids {
  %ids = arith.constant dense<[0, 1, 2, 3]> : tensor<4xi32>
  %dynamic = tensor.cast %ids : tensor<4xi32> to !ids
  %lengths = llm.seq_lens %c, %dynamic : !any, !ids -> !ids
  return %lengths : !ids
}

func.func private @pair(%a: i32, %b: i32) -> !ids {
  %two = tensor.from_elements %a, %b : tensor<2xi32>
  %ids = tensor.cast %two : tensor<2xi32> to !ids
  return %ids : !ids
}

func.func private @single(%a: i32) -> !ids {
  %one = tensor.from_elements %a : tensor<1xi32>
  %ids = tensor.cast %one : tensor<1xi32> to !ids
  return %ids : !ids
}

func.func private @empty() -> !any {
  %blocks = arith.constant 32 : index
  %c = llm.create_kv_cache blocks(%blocks) : !kv
  %any = llm.cast_kv %c : !kv -> !any
  return %any : !any
}

// Two sequences of 3 tokens; `start` begins a step with tokens for each.
func.func private @two() -> !any {
  %c = func.call @empty() : () -> !any
  %c0, %step = func.call @start(%c, %i3) : (!any, i32) -> (!any, !step)
  %c1 = func.call @append(%c0, %step, %l0, %n6) : (!any, !step, index, index) -> !any
  %c2 = func.call @append(%c1, %step, %l1, %n6) : (!any, !step, index, index) -> !any
  return %c2 : !any
}

func.func private @start(%c: !any, %tokens: i32) -> (!any, !step) {
  %ids = func.call @pair(%i0, %i1) : (i32, i32) -> !ids
  %both = arith.addi %tokens, %tokens : i32
  %bounds = tensor.from_elements %i0, %tokens, %both : tensor<3xi32>
  %cu = tensor.cast %bounds : tensor<3xi32> to !ids
  %c0, %step = func.call @begin(%c, %ids, %cu) : (!any, !ids, !ids) -> (!any, !step)
  return %c0, %step : !any, !step
}

// The same of one layer.
func.func private @flat() -> !any {
  %blocks = arith.constant 32 : index
  %c = llm.create_kv_cache blocks(%blocks) : !flat
  %any = llm.cast_kv %c : !flat -> !any
  %c1 = func.call @append_batch(%any, %l2, %n3) : (!any, index, index) -> !any
  return %c1 : !any
}
)mlir";

namespace {

/// A program, its code, and how the specification puts it.
struct Violation {
  const char *name;
  llm_code code;
  const char *specified;
  /// Uses %two, of 3 and 3 tokens at 2 layers, or %flat, of 1; defines %r.
  const char *body;
};

const Violation violations[] = {
    {"sequence_out_of_range", LLM_INVALID_ARGUMENT,
     "expected a sequence id below max_sequences", R"(
  %ids = call @pair(%i0, %i4) : (i32, i32) -> !ids
  %r = llm.seq_lens %two, %ids : !any, !ids -> !ids)"},
    {"sequence_is_negative", LLM_INVALID_ARGUMENT,
     "expected a sequence id below max_sequences", R"(
  %ids = call @pair(%i0, %minus) : (i32, i32) -> !ids
  %c = llm.release_kv %two, %ids : !any, !ids -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"rows_out_of_range", LLM_INVALID_ARGUMENT,
     "expected a sequence id below max_sequences", R"(
  %c = call @append_batch(%flat, %n6, %l1) : (!any, index, index) -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"sequence_twice", LLM_INVALID_ARGUMENT, "expected a sequence once", R"(
  %ids = call @pair(%i0, %i0) : (i32, i32) -> !ids
  %lens = call @pair(%i1, %i1) : (i32, i32) -> !ids
  %c = llm.trim_kv %two, %ids, %lens : !any, !ids, !ids -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"children_twice", LLM_INVALID_ARGUMENT, "expected a sequence once", R"(
  %ids = call @pair(%i0, %i1) : (i32, i32) -> !ids
  %to = call @pair(%i2, %i2) : (i32, i32) -> !ids
  %c = llm.fork_kv %two, %ids, %to, %ids : !any, !ids, !ids, !ids -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"fewer_lengths", LLM_INVALID_ARGUMENT,
     "expected a dimension of another size", R"(
  %ids = call @pair(%i0, %i1) : (i32, i32) -> !ids
  %lens = call @single(%i1) : (i32) -> !ids
  %c = llm.trim_kv %two, %ids, %lens : !any, !ids, !ids -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"fewer_children", LLM_INVALID_ARGUMENT,
     "expected a dimension of another size", R"(
  %ids = call @pair(%i0, %i1) : (i32, i32) -> !ids
  %to = call @single(%i2) : (i32) -> !ids
  %c = llm.fork_kv %two, %ids, %to, %ids : !any, !ids, !ids, !ids -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"fewer_bounds", LLM_INVALID_ARGUMENT,
     "expected a dimension of another size", R"(
  %ids = call @pair(%i0, %i1) : (i32, i32) -> !ids
  %c, %step = call @begin(%two, %ids, %ids) : (!any, !ids, !ids) -> (!any, !step)
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"fewer_tokens", LLM_INVALID_ARGUMENT,
     "expected a dimension of another size", R"(
  %c0, %step = call @start(%two, %i1) : (!any, i32) -> (!any, !step)
  %c = call @append(%c0, %step, %l0, %l1) : (!any, !step, index, index) -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"queries_of_another_size", LLM_INVALID_ARGUMENT,
     "expected a dimension of another size", R"(
  %c0, %step = call @start(%two, %i1) : (!any, i32) -> (!any, !step)
  %at = llm.at_layer %step[%l0]
  %r = call @attend(%c0, %at, %l1, %l1, %l1) : (!any, !step, index, index, index) -> !ids)"},
    {"queries_of_another_dim", LLM_INVALID_ARGUMENT,
     "expected a dimension of another size", R"(
  %c0, %step = call @start(%two, %i1) : (!any, i32) -> (!any, !step)
  %at = llm.at_layer %step[%l0]
  %r = call @attend(%c0, %at, %l2, %l1, %l2) : (!any, !step, index, index, index) -> !ids)"},
    {"no_query_heads", LLM_INVALID_ARGUMENT,
     "expected a multiple of the KV heads", R"(
  %c0, %step = call @start(%two, %i1) : (!any, i32) -> (!any, !step)
  %at = llm.at_layer %step[%l0]
  %r = call @attend(%c0, %at, %l2, %l0, %l1) : (!any, !step, index, index, index) -> !ids)"},
    {"alibi_of_other_heads", LLM_INVALID_ARGUMENT,
     "expected a dimension of another size", R"(
  %c, %at = call @sinks() : () -> (!any, !step)
  %r = call @modified(%c, %at, %l2, %l1, %l2) : (!any, !step, index, index, index) -> !ids)"},
    {"head_sink_of_other_heads", LLM_INVALID_ARGUMENT,
     "expected a dimension of another size", R"(
  %c, %at = call @sinks() : () -> (!any, !step)
  %r = call @modified(%c, %at, %l1, %l0, %l2) : (!any, !step, index, index, index) -> !ids)"},
    {"sink_query_of_other_tokens", LLM_INVALID_ARGUMENT,
     "expected a dimension of another size", R"(
  %c, %at = call @sinks() : () -> (!any, !step)
  %r = call @modified(%c, %at, %l1, %l1, %l1) : (!any, !step, index, index, index) -> !ids)"},
    {"sink_query_without_sinks", LLM_INVALID_ARGUMENT,
     "expected a cache with sinks for sink_query", R"(
  %c0, %step = call @start(%two, %i1) : (!any, i32) -> (!any, !step)
  %at = llm.at_layer %step[%l0]
  %r = call @nearer(%c0, %at) : (!any, !step) -> !ids)"},
    {"positions_of_another_size", LLM_INVALID_ARGUMENT,
     "expected a dimension of another size", R"(
  %c0, %step = call @start(%two, %i1) : (!any, i32) -> (!any, !step)
  %three = llm.positions %step : tensor<3xi32>
  %r = tensor.cast %three : tensor<3xi32> to !ids)"},
    {"table_of_fewer_rows", LLM_INVALID_ARGUMENT,
     "expected a dimension of another size", R"(
  %ids = call @single(%i0) : (i32) -> !ids
  %table = llm.block_table %flat, %ids : !any, !ids -> tensor<?x?xi32>
  %r = call @lookup(%flat, %table) : (!any, tensor<?x?xi32>) -> !ids)"},
    {"trim_to_more", LLM_INVALID_ARGUMENT,
     "expected at most the tokens of the sequence", R"(
  %ids = call @pair(%i0, %i1) : (i32, i32) -> !ids
  %lens = call @pair(%i1, %i4) : (i32, i32) -> !ids
  %c = llm.trim_kv %two, %ids, %lens : !any, !ids, !ids -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"trim_to_less_than_nothing", LLM_INVALID_ARGUMENT,
     "expected at most the tokens of the sequence", R"(
  %ids = call @pair(%i0, %i1) : (i32, i32) -> !ids
  %lens = call @pair(%i1, %minus) : (i32, i32) -> !ids
  %c = llm.trim_kv %two, %ids, %lens : !any, !ids, !ids -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"fork_onto_tokens", LLM_WRONG_STATE, "expected the child to be empty", R"(
  %from = call @single(%i0) : (i32) -> !ids
  %to = call @single(%i1) : (i32) -> !ids
  %c = llm.fork_kv %two, %from, %to, %to : !any, !ids, !ids, !ids -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"fork_onto_promised_tokens", LLM_WRONG_STATE,
     "expected the child to be empty", R"(
  %ids = call @single(%i3) : (i32) -> !ids
  %cu = call @pair(%i0, %i2) : (i32, i32) -> !ids
  %from = call @single(%i0) : (i32) -> !ids
  %c0, %step = call @begin(%two, %ids, %cu) : (!any, !ids, !ids) -> (!any, !step)
  %c = llm.fork_kv %c0, %from, %ids, %from : !any, !ids, !ids, !ids -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"fork_more", LLM_INVALID_ARGUMENT,
     "expected at most the tokens of the parent", R"(
  %from = call @single(%i0) : (i32) -> !ids
  %to = call @single(%i2) : (i32) -> !ids
  %length = call @single(%i4) : (i32) -> !ids
  %c = llm.fork_kv %two, %from, %to, %length : !any, !ids, !ids, !ids -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"fork_from_nowhere", LLM_INVALID_ARGUMENT,
     "expected a parent below max_sequences", R"(
  %from = call @single(%i4) : (i32) -> !ids
  %to = call @single(%i2) : (i32) -> !ids
  %c = llm.fork_kv %two, %from, %to, %to : !any, !ids, !ids, !ids -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"fork_inside_a_step", LLM_WRONG_STATE,
     "expected the parent's tokens at every layer", R"(
  %from = call @single(%i0) : (i32) -> !ids
  %to = call @single(%i2) : (i32) -> !ids
  %length = call @single(%i4) : (i32) -> !ids
  %c0, %step = call @start(%two, %i1) : (!any, i32) -> (!any, !step)
  %c1 = call @append(%c0, %step, %l0, %l2) : (!any, !step, index, index) -> !any
  %c = llm.fork_kv %c1, %from, %to, %length : !any, !ids, !ids, !ids -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"step_without_a_layer", LLM_WRONG_STATE,
     "expected the step's tokens at every layer at its end", R"(
  %c0, %step = call @start(%two, %i1) : (!any, i32) -> (!any, !step)
  %c1 = call @append(%c0, %step, %l0, %l2) : (!any, !step, index, index) -> !any
  %c2, %next = call @start(%c1, %i1) : (!any, i32) -> (!any, !step)
  %r = call @lengths(%c2) : (!any) -> !ids)"},
    {"cut_step_without_a_layer", LLM_WRONG_STATE,
     "expected the step's tokens at every layer at its end", R"(
  %ids = call @single(%i0) : (i32) -> !ids
  %length = call @single(%i4) : (i32) -> !ids
  %c0, %step = call @start(%two, %i2) : (!any, i32) -> (!any, !step)
  %c1 = call @append(%c0, %step, %l0, %n4) : (!any, !step, index, index) -> !any
  %c2 = llm.trim_kv %c1, %ids, %length : !any, !ids, !ids -> !any
  %ids1 = call @single(%i1) : (i32) -> !ids
  %c3 = llm.release_kv %c2, %ids1 : !any, !ids -> !any
  %c4, %next = call @start(%c3, %i1) : (!any, i32) -> (!any, !step)
  %r = call @lengths(%c4) : (!any) -> !ids)"},
    {"bounds_not_from_0", LLM_INVALID_ARGUMENT,
     "expected cu_seqlens to start with 0", R"(
  %ids = call @single(%i0) : (i32) -> !ids
  %cu = call @pair(%i1, %i2) : (i32, i32) -> !ids
  %c, %step = call @begin(%two, %ids, %cu) : (!any, !ids, !ids) -> (!any, !step)
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"bounds_decrease", LLM_INVALID_ARGUMENT,
     "expected cu_seqlens not to decrease", R"(
  %ids = call @single(%i0) : (i32) -> !ids
  %cu = call @pair(%i0, %minus) : (i32, i32) -> !ids
  %c, %step = call @begin(%two, %ids, %cu) : (!any, !ids, !ids) -> (!any, !step)
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"more_than_max_seq_len", LLM_NEVER_FITS,
     "expected at most max_seq_len tokens", R"(
  %c, %step = call @start(%two, %i4) : (!any, i32) -> (!any, !step)
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"layer_of_no_step", LLM_INVALID_ARGUMENT,
     "expected a layer of the step's cache", R"(
  %c0, %step = call @start(%two, %i1) : (!any, i32) -> (!any, !step)
  %c = call @append(%c0, %step, %l2, %l2) : (!any, !step, index, index) -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"no_layer", LLM_INVALID_ARGUMENT, "expected a layer with the step", R"(
  %c0, %step = call @start(%two, %i1) : (!any, i32) -> (!any, !step)
  %r = call @attend(%c0, %step, %l2, %l1, %l1) : (!any, !step, index, index, index) -> !ids)"},
    {"layer_of_another_cache", LLM_INVALID_ARGUMENT,
     "expected a layer of the cache", R"(
  %c0, %step = call @start(%two, %i1) : (!any, i32) -> (!any, !step)
  %c = call @append(%flat, %step, %l1, %l2) : (!any, !step, index, index) -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"step_of_another_cache", LLM_WRONG_STATE,
     "expected the running step of this version", R"(
  %other = call @two() : () -> !any
  %c0, %step = call @start(%two, %i1) : (!any, i32) -> (!any, !step)
  %o0, %others = call @start(%other, %i1) : (!any, i32) -> (!any, !step)
  %c = call @append(%o0, %step, %l0, %l2) : (!any, !step, index, index) -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"step_of_before", LLM_WRONG_STATE,
     "expected the running step of this version", R"(
  %c0, %step = call @start(%two, %i0) : (!any, i32) -> (!any, !step)
  %c1, %next = call @start(%c0, %i0) : (!any, i32) -> (!any, !step)
  %c = call @append(%c1, %step, %l0, %l0) : (!any, !step, index, index) -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"attention_of_a_step_of_before", LLM_WRONG_STATE,
     "expected the running step of this version", R"(
  %c0, %step = call @start(%two, %i0) : (!any, i32) -> (!any, !step)
  %c1, %next = call @start(%c0, %i0) : (!any, i32) -> (!any, !step)
  %at = llm.at_layer %step[%l0]
  %r = call @attend(%c1, %at, %l0, %l1, %l1) : (!any, !step, index, index, index) -> !ids)"},
    {"append_of_two_layers", LLM_INVALID_ARGUMENT,
     "expected a cache of 1 layer without a step", R"(
  %c = call @append_batch(%two, %l1, %l1) : (!any, index, index) -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"attention_of_two_layers", LLM_INVALID_ARGUMENT,
     "expected a cache of 1 layer without a step", R"(
  %r = call @attend_batch(%two, %l1, %l1) : (!any, index, index) -> !ids)"},
    {"append_to_a_cut_sequence", LLM_WRONG_STATE,
     "expected a sequence unchanged inside the step", R"(
  %ids = call @single(%i0) : (i32) -> !ids
  %c0, %step = call @start(%two, %i1) : (!any, i32) -> (!any, !step)
  %c1 = llm.trim_kv %c0, %ids, %ids : !any, !ids, !ids -> !any
  %c = call @append(%c1, %step, %l0, %l2) : (!any, !step, index, index) -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"append_to_a_child", LLM_WRONG_STATE,
     "expected a sequence unchanged inside the step", R"(
  %ids = call @single(%i3) : (i32) -> !ids
  %from = call @single(%i0) : (i32) -> !ids
  %cu = call @pair(%i0, %i0) : (i32, i32) -> !ids
  %c0, %step = call @begin(%two, %ids, %cu) : (!any, !ids, !ids) -> (!any, !step)
  %c1 = llm.fork_kv %c0, %from, %ids, %from : !any, !ids, !ids, !ids -> !any
  %c = call @append(%c1, %step, %l0, %l0) : (!any, !step, index, index) -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"append_twice", LLM_WRONG_STATE, "expected 1 append at a layer in a step",
     R"(
  %c0, %step = call @start(%two, %i1) : (!any, i32) -> (!any, !step)
  %c1 = call @append(%c0, %step, %l0, %l2) : (!any, !step, index, index) -> !any
  %c = call @append(%c1, %step, %l0, %l2) : (!any, !step, index, index) -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"append_nothing_twice", LLM_WRONG_STATE,
     "expected 1 append at a layer in a step", R"(
  %c0, %step = call @start(%two, %i0) : (!any, i32) -> (!any, !step)
  %c1 = call @append(%c0, %step, %l0, %l0) : (!any, !step, index, index) -> !any
  %c = call @append(%c1, %step, %l0, %l0) : (!any, !step, index, index) -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"late_layer", LLM_WRONG_STATE, "expected a layer to hold what others hold",
     R"(
  %c = call @empty() : () -> !any
  %c0, %first = call @start(%c, %i1) : (!any, i32) -> (!any, !step)
  %c1 = call @append(%c0, %first, %l0, %l2) : (!any, !step, index, index) -> !any
  %c2, %second = call @start(%c1, %i1) : (!any, i32) -> (!any, !step)
  %c3 = call @append(%c2, %second, %l0, %l2) : (!any, !step, index, index) -> !any
  %c4 = call @append(%c3, %second, %l1, %l2) : (!any, !step, index, index) -> !any
  %r = call @lengths(%c4) : (!any) -> !ids)"},
    {"small_table", LLM_INVALID_ARGUMENT,
     "expected a table that holds every block", R"(
  %ids = call @pair(%i0, %i1) : (i32, i32) -> !ids
  %table = llm.block_table %two, %ids : !any, !ids -> tensor<2x1xi32>
  %flattened = tensor.collapse_shape %table [[0, 1]] : tensor<2x1xi32> into tensor<2xi32>
  %r = tensor.cast %flattened : tensor<2xi32> to !ids)"},
    {"short_row", LLM_INVALID_ARGUMENT,
     "expected a row of block_indices that reaches what is read", R"(
  %ids = call @pair(%i0, %i1) : (i32, i32) -> !ids
  %table = llm.block_table %flat, %ids : !any, !ids -> tensor<?x?xi32>
  %short = tensor.extract_slice %table[0, 0] [2, 1] [1, 1] : tensor<?x?xi32> to tensor<2x1xi32>
  %dynamic = tensor.cast %short : tensor<2x1xi32> to tensor<?x?xi32>
  %r = call @lookup(%flat, %dynamic) : (!any, tensor<?x?xi32>) -> !ids)"},
    {"block_out_of_range", LLM_INVALID_ARGUMENT,
     "expected a block of this version", R"(
  %block = arith.constant 1000 : i32
  %table = tensor.splat %block[%l2, %l2] : tensor<?x?xi32>
  %r = call @lookup(%flat, %table) : (!any, tensor<?x?xi32>) -> !ids)"},
    {"no_block", LLM_INVALID_ARGUMENT, "expected a block of this version", R"(
  %table = tensor.splat %minus[%l2, %l2] : tensor<?x?xi32>
  %r = call @lookup(%flat, %table) : (!any, tensor<?x?xi32>) -> !ids)"},
    {"dead_block", LLM_INVALID_ARGUMENT,
     "expected a live block of this version", R"(
  %ids = call @pair(%i0, %i1) : (i32, i32) -> !ids
  %longer = call @append_batch(%flat, %l2, %l2) : (!any, index, index) -> !any
  %table = llm.block_table %longer, %ids : !any, !ids -> tensor<?x?xi32>
  %two_of_three = tensor.extract_slice %table[0, 0] [2, 2] [1, 2] : tensor<?x?xi32> to tensor<2x2xi32>
  %dynamic = tensor.cast %two_of_three : tensor<2x2xi32> to tensor<?x?xi32>
  %r = call @lookup(%flat, %dynamic) : (!any, tensor<?x?xi32>) -> !ids)"},
    {"partial_block_before_a_full_one", LLM_INVALID_ARGUMENT,
     "expected a block with the tokens that are read", R"(
  %ids = call @pair(%i0, %i1) : (i32, i32) -> !ids
  %table = llm.block_table %flat, %ids : !any, !ids -> tensor<?x?xi32>
  %last = tensor.extract_slice %table[0, 1] [2, 1] [1, 1] : tensor<?x?xi32> to tensor<2x1xi32>
  %twice = tensor.concat dim(1) %last, %last : (tensor<2x1xi32>, tensor<2x1xi32>) -> tensor<2x2xi32>
  %dynamic = tensor.cast %twice : tensor<2x2xi32> to tensor<?x?xi32>
  %r = call @lookup(%flat, %dynamic) : (!any, tensor<?x?xi32>) -> !ids)"},
    {"more_queries_than_tokens", LLM_INVALID_ARGUMENT,
     "expected at most as many queries as tokens", R"(
  %r = call @attend_batch(%flat, %l1, %n4) : (!any, index, index) -> !ids)"},
    {"cast_to_more_layers", LLM_INVALID_ARGUMENT,
     "expected layers of the cache to be 3", R"(
  %cast = llm.cast_kv %two : !any -> !llm.paged_kv_cache<3x?x?xf32>
  %c = llm.cast_kv %cast : !llm.paged_kv_cache<3x?x?xf32> -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"cast_to_more_heads", LLM_INVALID_ARGUMENT,
     "expected kv_heads of the cache to be 2", R"(
  %cast = llm.cast_kv %two : !any -> !llm.paged_kv_cache<?x2x?xf32>
  %c = llm.cast_kv %cast : !llm.paged_kv_cache<?x2x?xf32> -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"cast_to_larger_heads", LLM_INVALID_ARGUMENT,
     "expected head_dim of the cache to be 4", R"(
  %cast = llm.cast_kv %two : !any -> !llm.paged_kv_cache<?x?x4xf32>
  %c = llm.cast_kv %cast : !llm.paged_kv_cache<?x?x4xf32> -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"cast_to_larger_blocks", LLM_INVALID_ARGUMENT,
     "expected block_size of the cache to be 16", R"(
  %cast = llm.cast_kv %two : !any -> !llm.paged_kv_cache<?x?x?xf32, block_size = 16>
  %c = llm.cast_kv %cast : !llm.paged_kv_cache<?x?x?xf32, block_size = 16> -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"cast_to_more_sequences", LLM_INVALID_ARGUMENT,
     "expected max_sequences of the cache to be 5", R"(
  %cast = llm.cast_kv %two : !any -> !llm.paged_kv_cache<?x?x?xf32, max_sequences = 5>
  %c = llm.cast_kv %cast : !llm.paged_kv_cache<?x?x?xf32, max_sequences = 5> -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"cast_to_longer_sequences", LLM_INVALID_ARGUMENT,
     "expected max_seq_len of the cache to be 8", R"(
  %cast = llm.cast_kv %two : !any -> !llm.paged_kv_cache<?x?x?xf32, max_seq_len = 8>
  %c = llm.cast_kv %cast : !llm.paged_kv_cache<?x?x?xf32, max_seq_len = 8> -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"cast_to_a_window", LLM_INVALID_ARGUMENT,
     "expected window of the cache to be 2", R"(
  %cast = llm.cast_kv %two : !any -> !llm.paged_kv_cache<?x?x?xf32, window = 2>
  %c = llm.cast_kv %cast : !llm.paged_kv_cache<?x?x?xf32, window = 2> -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"cast_without_sinks", LLM_INVALID_ARGUMENT,
     "expected sinks of the cache to be 0", R"(
  %c, %step = call @sinks() : () -> (!any, !step)
  %cast = llm.cast_kv %c : !any -> !llm.paged_kv_cache<?x?x?xf32, window = 2>
  %back = llm.cast_kv %cast : !llm.paged_kv_cache<?x?x?xf32, window = 2> -> !any
  %r = call @lengths(%back) : (!any) -> !ids)"},
    {"cast_to_f16", LLM_INVALID_ARGUMENT,
     "expected the element type of the cache to be f16", R"(
  %cast = llm.cast_kv %two : !any -> !llm.paged_kv_cache<?x?x?xf16>
  %c = llm.cast_kv %cast : !llm.paged_kv_cache<?x?x?xf16> -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
    {"lookup_of_f16", LLM_INVALID_ARGUMENT,
     "expected the element type of the cache to be f16", R"(
  %k, %v = llm.lookup_kv %flat : !any -> tensor<1x1x1x1xf16>, tensor<1x1x1x1xf16>
  %zero = tensor.extract %k[%l0, %l0, %l0, %l0] : tensor<1x1x1x1xf16>
  %short = arith.bitcast %zero : f16 to i16
  %bits = arith.extui %short : i16 to i32
  %r = call @single(%bits) : (i32) -> !ids)"},
    {"attribute_of_append", LLM_INVALID_ARGUMENT,
     "expected block_size of the cache to be 16", R"(
  %x = arith.constant 1.0 : f32
  %k = tensor.splat %x : tensor<1x1x1x1xf32>
  %c = llm.append_kv %flat, %k, %k {block_size = 16 : i32}
      : !any, tensor<1x1x1x1xf32>, tensor<1x1x1x1xf32> -> !any
  %r = call @lengths(%c) : (!any) -> !ids)"},
};

/// Numbers that every function of the text may use.
const char numbers[] = R"(
  %i0 = arith.constant 0 : i32
  %i1 = arith.constant 1 : i32
  %i2 = arith.constant 2 : i32
  %i3 = arith.constant 3 : i32
  %i4 = arith.constant 4 : i32
  %minus = arith.constant -1 : i32
  %l0 = arith.constant 0 : index
  %l1 = arith.constant 1 : index
  %l2 = arith.constant 2 : index
  %n3 = arith.constant 3 : index
  %n4 = arith.constant 4 : index
  %n6 = arith.constant 6 : index)";

std::string makeText() {
  std::string all = text;
  for (const char *maker :
       {"@two() -> !any {", "@flat() -> !any {", "@sinks() -> (!any, !step) {",
        "@start(%c: !any, %tokens: i32) -> (!any, !step) {"})
    all.insert(all.find(std::string("private ") + maker) + 8 +
                   std::strlen(maker),
               numbers);
  for (const Violation &v : violations)
    all += std::string("func.func @") + v.name +
           "() -> !ids attributes {llvm.emit_c_interface} {" + numbers +
           "\n  %two = call @two() : () -> !any"
           "\n  %flat = call @flat() : () -> !any" +
           v.body + "\n  return %r : !ids\n}\n";
  return all;
}

} // namespace

TEST(SpecificationErrorsTest, BothMeaningsFailAlike) {
  const std::string text = makeText();
  CompiledProgram product(text.c_str());
  SpecifiedProgram specification(text.c_str());
  const Tensor out(LLM_I32, {4});
  for (const Violation &v : violations) {
    EXPECT_EQ(product.invoke(v.name, {}, {}, {out}), v.code)
        << v.name << ": " << product.error.message;
    EXPECT_STRNE(product.error.op, "llm.check_size") << v.name;
    EXPECT_EQ(specification.run(v.name),
              std::string(llm_code_name(v.code)) + ": " + v.specified)
        << v.name;
  }
}

TEST(SpecificationErrorsTest, EveryPreconditionIsViolated) {
  std::set<std::string> violated;
  for (const Violation &v : violations)
    violated.insert(std::string(llm_code_name(v.code)) + ": " + v.specified);
  const std::regex assertion("cf\\.assert %\\w+, \"([^\"]*)\"");
  int found = 0;
  for (const char *part : {"Specification", "SpecificationReads"}) {
    std::ifstream file(std::string(LLM_SPECIFICATION_DIR "/") + part + ".mlir");
    for (std::string line; std::getline(file, line);) {
      std::smatch match;
      if (!std::regex_search(line, match, assertion))
        continue;
      ++found;
      EXPECT_TRUE(violated.count(match[1])) << match[1];
    }
  }
  EXPECT_GT(found, 20);
}
