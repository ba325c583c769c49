//===- LoopsTest.cpp - Caches in loops with a condition or no order -------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "CompiledProgram.h"

using namespace llm::testing;

static const char text[] = R"mlir(
!kv = !llm.paged_kv_cache<1x2x4xf32>
!own = !llm.paged_kv_cache<1x2x4xf32, block_size = 4, max_seq_len = 64,
                           max_sequences = 1>
!row = tensor<1x1x2x4xf32>
!rows = tensor<?x1x2x4xf32>
!one = tensor<1xi32>

func.func private @length(%c: !kv) -> i32 {
  %zero = arith.constant 0 : index
  %ids = arith.constant dense<0> : !one
  %lengths = llm.seq_lens %c, %ids : !kv, !one -> !one
  %length = tensor.extract %lengths[%zero] : !one
  return %length : i32
}

// The exit depends on the cache.
func.func @fill(%c: !kv, %end: !one, %k: !row, %v: !row) -> !kv {
  %zero = arith.constant 0 : index
  %wanted = tensor.extract %end[%zero] : !one
  %r = scf.while (%before = %c) : (!kv) -> !kv {
    %length = func.call @length(%before) : (!kv) -> i32
    %more = arith.cmpi slt, %length, %wanted : i32
    scf.condition(%more) %before : !kv
  } do {
  ^bb0(%now: !kv):
    %next = llm.append_kv %now, %k, %v : !kv, !row, !row -> !kv
    scf.yield %next : !kv
  }
  return %r : !kv
}

// The loop drafts on a version of its own; the outer one stays.
func.func @draft(%c: !kv, %end: !one, %k: !row, %v: !row)
    -> (!kv, tensor<1x8x2x4xf32>) {
  %zero = arith.constant 0 : index
  %wanted = tensor.extract %end[%zero] : !one
  %drafted = scf.while (%before = %c) : (!kv) -> !kv {
    %next = llm.append_kv %before, %k, %v : !kv, !row, !row -> !kv
    %length = func.call @length(%next) : (!kv) -> i32
    %more = arith.cmpi slt, %length, %wanted : i32
    scf.condition(%more) %next : !kv
  } do {
  ^bb0(%now: !kv):
    scf.yield %now : !kv
  }
  %seen, %values = llm.lookup_kv %drafted
      : !kv -> tensor<1x8x2x4xf32>, tensor<1x8x2x4xf32>
  return %c, %seen : !kv, tensor<1x8x2x4xf32>
}

// Each turn marks the tensor that it takes; the one of outside stays.
func.func @mark(%end: !one, %numbers: tensor<2xi32>) -> tensor<2xi32> {
  %zero = arith.constant 0 : index
  %by = arith.constant 1 : index
  %minus = arith.constant -1 : i32
  %last = tensor.extract %end[%zero] : !one
  %turns = arith.index_cast %last : i32 to index
  %some = tensor.splat %last : tensor<2xi32>
  %none = tensor.splat %minus : tensor<2xi32>
  %i, %sum = scf.while (%now = %zero, %seen = %none, %t = %some)
      : (index, tensor<2xi32>, tensor<2xi32>) -> (index, tensor<2xi32>) {
    %first = tensor.extract %t[%zero] : tensor<2xi32>
    %noted = tensor.insert %first into %seen[%zero] : tensor<2xi32>
    %marked = tensor.insert %minus into %t[%zero] : tensor<2xi32>
    %second = tensor.extract %marked[%zero] : tensor<2xi32>
    %both = tensor.insert %second into %noted[%by] : tensor<2xi32>
    %more = arith.cmpi slt, %now, %turns : index
    scf.condition(%more) %now, %both : index, tensor<2xi32>
  } do {
  ^bb0(%now: index, %both: tensor<2xi32>):
    %next = arith.addi %now, %by : index
    scf.yield %next, %both, %numbers : index, tensor<2xi32>, tensor<2xi32>
  }
  return %sum : tensor<2xi32>
}

// A cache for each row: row i of the result is what row i alone attends to.
func.func @alone(%q: !rows, %k: !rows, %v: !rows) -> !rows {
  %zero = arith.constant 0 : index
  %n = tensor.dim %q, %zero : !rows
  %blocks = arith.constant 1 : index
  %empty = tensor.empty(%n) : !rows
  %r = scf.forall (%i) in (%n) shared_outs(%out = %empty) -> !rows {
    %qi = tensor.extract_slice %q[%i, 0, 0, 0] [1, 1, 2, 4] [1, 1, 1, 1]
        : !rows to !row
    %ki = tensor.extract_slice %k[%i, 0, 0, 0] [1, 1, 2, 4] [1, 1, 1, 1]
        : !rows to !row
    %vi = tensor.extract_slice %v[%i, 0, 0, 0] [1, 1, 2, 4] [1, 1, 1, 1]
        : !rows to !row
    %c = llm.create_kv_cache blocks(%blocks) : !own
    %c1 = llm.append_kv %c, %ki, %vi : !own, !row, !row -> !own
    %o = llm.paged_attention %qi, %c1 : !row, !own -> !row
    scf.forall.in_parallel {
      tensor.parallel_insert_slice %o into %out[%i, 0, 0, 0] [1, 1, 2, 4]
          [1, 1, 1, 1] : !row into !rows
    }
  }
  return %r : !rows
}
)mlir";

namespace {

class LoopsTest : public ::testing::Test {
protected:
  LoopsTest() : cache(program, configOf(1, 4, 16, 1, 64)) {
    cache.append(0, {100, 101});
  }

  /// [T, 1, Hkv, D].
  static Tensor rows(const std::vector<int64_t> &tokens, int64_t component) {
    Tensor flat = rowsOf(configOf(1, 4, 16), tokens, 0, component);
    Tensor rows(LLM_F32, {static_cast<int64_t>(tokens.size()), 1, 2, 4});
    std::memcpy(rows.data, flat.data, rows.count * sizeof(float));
    return rows;
  }
  static Tensor number(int32_t value) { return Tensor(std::vector{value}); }

  CompiledProgram program{text};
  HostCache cache;
};

} // namespace

TEST_F(LoopsTest, ConditionReadsTheCacheThatTheBodyExtends) {
  ASSERT_TRUE(
      program.runs("fill", {cache}, {number(6), rows({7}, 0), rows({7}, 1)}));
  EXPECT_TRUE(cache.holds(0, {100, 101, 7, 7, 7, 7}));
  ASSERT_TRUE(
      program.runs("fill", {cache}, {number(6), rows({8}, 0), rows({8}, 1)}));
  EXPECT_TRUE(cache.holds(0, {100, 101, 7, 7, 7, 7}));
  EXPECT_EQ(cache.stats().snapshots, 0);
}

TEST_F(LoopsTest, LoopMayLeaveTheOuterVersionAlone) {
  Tensor seen(LLM_F32, {1, 8, 2, 4});
  ASSERT_TRUE(program.runs("draft", {cache},
                           {number(5), rows({7}, 0), rows({7}, 1)}, {seen}));
  EXPECT_TRUE(holdsTokens(seen, 8, {100, 101, 7, 7, 7}, cache.config, 0, 0));
  EXPECT_TRUE(cache.holds(0, {100, 101}));
  EXPECT_EQ(cache.stats().snapshots, 1);
}

TEST_F(LoopsTest, TurnsOfAWhileLoopShareNoTensor) {
  Tensor seen(LLM_I32, {2}), numbers(std::vector{5, 6});
  ASSERT_TRUE(program.runs("mark", {}, {number(3), numbers}, {seen}));
  const auto *values = static_cast<const int32_t *>(seen.data);
  EXPECT_EQ(values[0], 5); // as outside, in each turn
  EXPECT_EQ(values[1], -1);
  EXPECT_EQ(*static_cast<const int32_t *>(numbers.data), 5);
}

TEST_F(LoopsTest, EachIterationHasACacheOfItsOwn) {
  const std::vector<int64_t> tokens = range(0, 5);
  Tensor q = rows(tokens, 2), k = rows(tokens, 0), v = rows(tokens, 1), out = q;
  ASSERT_TRUE(program.runs("alone", {}, {q, k, v}, {out}));
  for (int64_t i = 0; i < out.count; ++i)
    EXPECT_EQ(out.get(i), v.get(i)); // one key: all of the weight
}
