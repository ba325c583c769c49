//===- ErrorsTest.cpp - Failures of compiled code reach the host ----------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Each failure names the op, its place in the text and the numbers, and leaves
// the cache as it was.
//
//===----------------------------------------------------------------------===//

#include "CompiledProgram.h"

#include <optional>

using namespace llm::testing;

static const char text[] = R"mlir(
!kv = !llm.paged_kv_cache<?x2x4xf32>
!any = !llm.paged_kv_cache
!ids = tensor<?xi32>
!rows = tensor<?x2x4xf32>
!batch = tensor<1x?x2x4xf32>

func.func @step(%c: !kv, %ids: !ids, %cu: !ids, %k: !rows, %v: !rows) -> !kv {
  %zero = arith.constant 0 : index
  %c0, %step = llm.begin_step %c, %ids, %cu : !kv, !ids, !ids -> !kv // begin
  %at = llm.at_layer %step[%zero]
  %c1 = llm.append_kv %c0, %k, %v at %at : !kv, !rows, !rows -> !kv
  return %c1 : !kv
}

func.func @two_layers(%c: !kv, %first: tensor<1xi32>, %second: tensor<1xi32>,
                      %ids: !ids, %cu: !ids, %k: !rows, %v: !rows) -> !kv {
  %zero = arith.constant 0 : index
  %f = tensor.extract %first[%zero] : tensor<1xi32>
  %s = tensor.extract %second[%zero] : tensor<1xi32>
  %fi = arith.index_cast %f : i32 to index
  %si = arith.index_cast %s : i32 to index
  %c0, %step = llm.begin_step %c, %ids, %cu : !kv, !ids, !ids -> !kv
  %at = llm.at_layer %step[%fi] // first layer
  %c1 = llm.append_kv %c0, %k, %v at %at : !kv, !rows, !rows -> !kv
  %at2 = llm.at_layer %step[%si] // second layer
  %c2 = llm.append_kv %c1, %k, %v at %at2 : !kv, !rows, !rows -> !kv // second append
  return %c2 : !kv
}

func.func @three_heads(%c: !any, %k: tensor<1x2x3x4xf32>) -> !any {
  %c1 = llm.append_kv %c, %k, %k // three heads
      : !any, tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32> -> !any
  return %c1 : !any
}

func.func private @append_at(%c: !kv, %step: !llm.kv_step, %k: !rows,
                             %v: !rows) -> !kv {
  %zero = arith.constant 0 : index
  %at = llm.at_layer %step[%zero]
  %c1 = llm.append_kv %c, %k, %v at %at : !kv, !rows, !rows -> !kv // callee
  return %c1 : !kv
}

func.func @foreign_step(%a: !kv, %b: !kv, %ids: !ids, %cu: !ids, %k: !rows,
                        %v: !rows) -> (!kv, !kv) {
  %a1, %step = llm.begin_step %a, %ids, %cu : !kv, !ids, !ids -> !kv
  %a2 = func.call @append_at(%a1, %step, %k, %v)
      : (!kv, !llm.kv_step, !rows, !rows) -> !kv
  %b1 = func.call @append_at(%b, %step, %k, %v)
      : (!kv, !llm.kv_step, !rows, !rows) -> !kv
  return %a2, %b1 : !kv, !kv
}

func.func @stale_step(%c: !kv, %ids: !ids, %cu: !ids, %k: !rows, %v: !rows)
    -> !kv {
  %c1, %old = llm.begin_step %c, %ids, %cu : !kv, !ids, !ids -> !kv
  %c2 = func.call @append_at(%c1, %old, %k, %v)
      : (!kv, !llm.kv_step, !rows, !rows) -> !kv
  %c3, %new = llm.begin_step %c2, %ids, %cu : !kv, !ids, !ids -> !kv
  %c4 = func.call @append_at(%c3, %old, %k, %v)
      : (!kv, !llm.kv_step, !rows, !rows) -> !kv
  return %c4 : !kv
}

func.func @lengths(%c: !kv, %ids: !ids) -> !ids {
  %lengths = llm.seq_lens %c, %ids : !kv, !ids -> !ids
  return %lengths : !ids
}

func.func @symbols(%tokens: !ids {llm.name = "tokens", llm.dims = ["T"],
                                  llm.below = 100 : i64},
                   %cu: !ids {llm.name = "cu_seqlens", llm.dims = ["B+1"]},
                   %rows: !ids {llm.name = "rows", llm.dims = ["B"],
                                llm.below = "T"})
    -> (!ids {llm.name = "copy", llm.dims = ["T"]}) {
  return %tokens : !ids
}

func.func @two_caches(%a: !kv, %b: !kv) -> (!kv, !kv) {
  return %a, %b : !kv, !kv
}

func.func @asserted(%c: !kv, %n: tensor<1xi32>, %k: !batch) -> !kv {
  %zero = arith.constant 0 : index
  %three = arith.constant 3 : i32
  %number = tensor.extract %n[%zero] : tensor<1xi32>
  %c1 = llm.append_kv %c, %k, %k : !kv, !batch, !batch -> !kv
  %small = arith.cmpi slt, %number, %three : i32
  cf.assert %small, "expected n below 3" // the assertion
  return %c1 : !kv
}

func.func @append_twice(%c: !kv, %k: !batch, %k2: !batch) -> !kv {
  %c1 = llm.append_kv %c, %k, %k : !kv, !batch, !batch -> !kv
  %c2 = llm.append_kv %c1, %k2, %k2 : !kv, !batch, !batch -> !kv // too much
  return %c2 : !kv
}

func.func @append_in_loop(%c: !kv, %k: !batch) -> !kv {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %many = arith.constant 100 : index
  %r = scf.for %i = %zero to %many step %one iter_args(%ci = %c) -> !kv {
    %next = llm.append_kv %ci, %k, %k : !kv, !batch, !batch -> !kv // in the loop
    scf.yield %next : !kv
  }
  return %r : !kv
}

func.func @named(%c: !kv, %k: !batch) -> !kv {
  %c1 = llm.append_kv %c, %k, %k : !kv, !batch, !batch -> !kv loc("layer.attn")
  return %c1 : !kv
}
)mlir";

namespace {

class ErrorsTest : public ::testing::Test {
protected:
  /// 4 blocks of 4 tokens.
  ErrorsTest() : cache(program, config) { cache.append(0, kept); }

  static Tensor numbers(std::vector<int32_t> values) { return Tensor(values); }

  Tensor rows(int64_t tokens, int64_t component = 0) const {
    return rowsOf(config, range(0, tokens), 0, component);
  }

  /// [1, S, 2, 4]
  static Tensor batch(int64_t tokens) {
    Tensor batch(LLM_F32, {1, tokens, 2, 4});
    std::fill_n(batch.as<float>(), batch.count, 1.0f);
    return batch;
  }

  /// Invokes, expects this failure, and finds the cache as it was.
  void fails(llm_code code, const char *entry,
             std::vector<llm_kv_cache *> caches, std::vector<llm_tensor> inputs,
             std::vector<llm_tensor> outputs = {}) {
    const llm_kv_stats before = cache.stats();
    EXPECT_EQ(program.invoke(entry, std::move(caches), std::move(inputs),
                             std::move(outputs)),
              code)
        << program.error.message;
    EXPECT_TRUE(cache.holds(0, kept));
    for (int32_t id : {1, 2, 3})
      EXPECT_EQ(cache.length(id), 0);
    EXPECT_EQ(cache.stats().free_blocks, before.free_blocks);
    EXPECT_EQ(cache.stats().pending_blocks, 0);
    EXPECT_EQ(cache.stats().versions, 1);
    EXPECT_EQ(llm_kv_check(cache, nullptr), LLM_OK);
  }

  void expectNumbers(int64_t expected, int64_t actual) const {
    EXPECT_EQ(program.error.expected, expected) << program.error.message;
    EXPECT_EQ(program.error.actual, actual) << program.error.message;
  }

  /// The error is at the line of the text that holds `marker`.
  void expectPlace(const char *op, const char *marker) const {
    EXPECT_STREQ(program.error.op, op);
    EXPECT_STREQ(program.error.file, "test.mlir");
    EXPECT_EQ(program.error.line, program.lineOf(marker));
    EXPECT_GT(program.error.column, 0);
  }

  const llm_kv_config config = configOf(1, 4, 4, 4, 64);
  const std::vector<int64_t> kept = {100, 101, 102};
  CompiledProgram program{text};
  HostCache cache;
};

} // namespace

//===----------------------------------------------------------------------===//
// Blocks
//===----------------------------------------------------------------------===//

TEST_F(ErrorsTest, StepThatDoesNotFitNamesTheSequence) {
  // Sequence 0 keeps its block; of 3 free ones, 1 takes 1 and 3 needs 3.
  const Tensor ids = numbers({0, 1, 3}), cu = numbers({0, 1, 5, 14});
  const Tensor k = rows(14), v = rows(14, 1);
  fails(LLM_OUT_OF_BLOCKS, "step", {cache}, {ids, cu, k, v});
  expectPlace("llm.begin_step", "// begin");
  expectNumbers(3, 2);
  EXPECT_EQ(program.error.sequence, 3);
  EXPECT_STREQ(program.error.message, "sequence 3 needs 3 more blocks, 2 are "
                                      "free");
}

TEST_F(ErrorsTest, StepFitsAfterARelease) {
  cache.append(2, {9});
  const Tensor ids = numbers({1, 3}), cu = numbers({0, 4, 12});
  const Tensor k = rows(12), v = rows(12, 1);
  EXPECT_EQ(program.invoke("step", {cache}, {ids, cu, k, v}),
            LLM_OUT_OF_BLOCKS);
  expectNumbers(2, 1);
  EXPECT_EQ(program.error.sequence, 3);
  EXPECT_EQ(cache.stats().free_blocks, 2);
  cache.release(2);
  EXPECT_TRUE(program.runs("step", {cache}, {ids, cu, k, v}));
  EXPECT_TRUE(cache.holds(0, kept));
  EXPECT_TRUE(cache.holds(1, range(0, 4)));
  EXPECT_TRUE(cache.holds(3, range(4, 8)));
}

// peers: vllm#39734, llama.cpp#9201
TEST_F(ErrorsTest, SequenceThatNeverFitsIsToldApart) {
  fails(LLM_NEVER_FITS, "step", {cache},
        {numbers({1}), numbers({0, 17}), rows(17), rows(17, 1)});
  expectPlace("llm.begin_step", "// begin");
  expectNumbers(5, 4);
}

// peers: hip-ep#650
TEST_F(ErrorsTest, SecondOfTwoAppendsFailsWithoutATrace) {
  fails(LLM_NEVER_FITS, "append_twice", {cache}, {batch(5), batch(9)});
  expectPlace("llm.append_kv", "// too much");
  expectNumbers(5, 4);
}

TEST_F(ErrorsTest, FailureInALoopUndoesAllTurns) {
  fails(LLM_NEVER_FITS, "append_in_loop", {cache}, {batch(2)});
  expectPlace("llm.append_kv", "// in the loop");
  expectNumbers(5, 4);
}

//===----------------------------------------------------------------------===//
// Layers and steps
//===----------------------------------------------------------------------===//

TEST_F(ErrorsTest, LayerIsOutOfRangeAtRunTime) {
  for (int32_t layer : {1, 7, -1}) {
    fails(LLM_INVALID_ARGUMENT, "two_layers", {cache},
          {numbers({layer}), numbers({0}), numbers({1}), numbers({0, 2}),
           rows(2), rows(2, 1)});
    expectPlace("llm.at_layer", "// first layer");
    expectNumbers(1, layer);
    EXPECT_EQ(program.error.layer, layer);
  }
}

TEST_F(ErrorsTest, SecondAppendAtALayerIsRefused) {
  fails(LLM_WRONG_STATE, "two_layers", {cache},
        {numbers({0}), numbers({0}), numbers({1}), numbers({0, 2}), rows(2),
         rows(2, 1)});
  expectPlace("llm.append_kv", "// second append");
  expectNumbers(1, 2);
  EXPECT_EQ(program.error.layer, 0);
}

TEST_F(ErrorsTest, StepOfAnotherCacheIsRefused) {
  HostCache other(program, config);
  fails(LLM_WRONG_STATE, "foreign_step", {cache, other},
        {numbers({1}), numbers({0, 2}), rows(2), rows(2, 1)});
  expectPlace("llm.append_kv", "// callee");
  EXPECT_NE(program.error.expected, program.error.actual);
  EXPECT_EQ(other.length(1), 0);
}

TEST_F(ErrorsTest, StepEndsWithTheNextOne) {
  fails(LLM_WRONG_STATE, "stale_step", {cache},
        {numbers({1}), numbers({0, 2}), rows(2), rows(2, 1)});
  expectPlace("llm.append_kv", "// callee");
  EXPECT_EQ(program.error.expected, program.error.actual + 1);
}

//===----------------------------------------------------------------------===//
// Tensors
//===----------------------------------------------------------------------===//

TEST_F(ErrorsTest, HeadsOfAnUnknownCacheAreChecked) {
  const Tensor k(LLM_F32, {1, 2, 3, 4});
  fails(LLM_INVALID_ARGUMENT, "three_heads", {cache}, {k});
  EXPECT_STREQ(program.error.op, "llm.append_kv");
  EXPECT_EQ(program.error.line, program.lineOf("// three heads"));
  expectNumbers(2, 3);
}

TEST_F(ErrorsTest, OutputOfTheWrongSizeIsRefused) {
  const Tensor out(LLM_I32, {3});
  fails(LLM_INVALID_ARGUMENT, "lengths", {cache}, {numbers({0, 1})}, {out});
  EXPECT_STREQ(program.error.op, "llm.check_size");
  expectNumbers(2, 3);
  EXPECT_STREQ(program.error.message,
               "expected dimension 0 of output 'result0' to be 2, got 3");
}

TEST_F(ErrorsTest, SymbolsAndBoundsAreChecked) {
  const Tensor tokens = numbers({5, 99, 0}), cu = numbers({0, 1, 3});
  const Tensor ends = numbers({0, 2}), copy(LLM_I32, {3});
  EXPECT_TRUE(program.runs("symbols", {}, {tokens, cu, ends}, {copy}));
  EXPECT_EQ(std::memcmp(copy.data, tokens.data, 12), 0);

  fails(LLM_INVALID_ARGUMENT, "symbols", {}, {numbers({5, 100, 0}), cu, ends},
        {copy});
  expectNumbers(100, 100);
  EXPECT_STREQ(program.error.message,
               "expected elements of tokens in [0, 100), got 100");
  fails(LLM_INVALID_ARGUMENT, "symbols", {}, {tokens, cu, numbers({0, 3})},
        {copy});
  expectNumbers(3, 3); // below the number of tokens
  fails(LLM_INVALID_ARGUMENT, "symbols", {}, {tokens, cu, numbers({0})},
        {copy});
  expectNumbers(2, 1); // B is 2
  fails(LLM_INVALID_ARGUMENT, "symbols", {}, {tokens, cu, ends},
        {Tensor(LLM_I32, {4})});
  expectNumbers(3, 4);
  fails(LLM_INVALID_ARGUMENT, "symbols", {}, {tokens, cu, ends},
        {Tensor(LLM_F32, {3})});
  expectNumbers(LLM_I32, LLM_F32);
}

TEST_F(ErrorsTest, SameCacheTwiceIsRefused) {
  fails(LLM_INVALID_ARGUMENT, "two_caches", {cache, cache}, {});
  expectNumbers(1, 0);
}

//===----------------------------------------------------------------------===//
// Places
//===----------------------------------------------------------------------===//

TEST_F(ErrorsTest, AssertionFailsTheCall) {
  fails(LLM_WRONG_STATE, "asserted", {cache}, {numbers({3}), batch(1)});
  expectPlace("cf.assert", "// the assertion");
  EXPECT_STREQ(program.error.message, "expected n below 3");
  EXPECT_TRUE(program.runs("asserted", {cache}, {numbers({2}), batch(1)}));
  EXPECT_EQ(cache.length(0), 4);
}

TEST_F(ErrorsTest, NamedLocationIsTheFile) {
  fails(LLM_NEVER_FITS, "named", {cache}, {batch(60)});
  EXPECT_STREQ(program.error.op, "llm.append_kv");
  EXPECT_STREQ(program.error.file, "layer.attn");
  EXPECT_EQ(program.error.line, 0);
}
