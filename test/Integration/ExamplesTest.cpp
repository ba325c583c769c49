//===- ExamplesTest.cpp - The three examples, run -------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Three ops in generic form over the bare cache type, as the project was asked
// for them: the text between the functions' first and last lines is verbatim.
//
//===----------------------------------------------------------------------===//

#include "CompiledProgram.h"

using namespace llm::testing;

static const char examples[] = R"mlir(
func.func @append(%kv_cache: !llm.paged_kv_cache,
                  %key: tensor<1x1x16x64xf16>,
                  %value: tensor<1x1x16x64xf16>) -> !llm.paged_kv_cache {
%new_kv = "llm.append_kv"(%kv_cache, %key, %value) {
  block_size = 16 : i32,
  max_seq_len = 4096 : i32
} : (!llm.paged_kv_cache, tensor<1x1x16x64xf16>, tensor<1x1x16x64xf16>) -> !llm.paged_kv_cache
  return %new_kv : !llm.paged_kv_cache
}

func.func @lookup(%kv_cache: !llm.paged_kv_cache,
                  %block_indices: tensor<1x16xi32>)
    -> (tensor<1x16x16x64xf16>, tensor<1x16x16x64xf16>) {
%keys, %values = "llm.lookup_kv"(%kv_cache, %block_indices) {
  num_heads = 16 : i32,
  head_dim = 64 : i32
} : (!llm.paged_kv_cache, tensor<1x16xi32>) -> (tensor<1x16x16x64xf16>, tensor<1x16x16x64xf16>)
  return %keys, %values : tensor<1x16x16x64xf16>, tensor<1x16x16x64xf16>
}

func.func @attend(%query: tensor<1x1x16x64xf16>,
                  %kv_cache: !llm.paged_kv_cache,
                  %block_indices: tensor<1x16xi32>) -> tensor<1x1x16x64xf16> {
%output = "llm.paged_attention"(%query, %kv_cache, %block_indices) {
  num_heads = 16 : i32,
  head_dim = 64 : i32,
  scale = 0.125 : f32
} : (tensor<1x1x16x64xf16>, !llm.paged_kv_cache, tensor<1x16xi32>) -> tensor<1x1x16x64xf16>
  return %output : tensor<1x1x16x64xf16>
}

func.func @table(%kv_cache: !llm.paged_kv_cache) -> tensor<1x16xi32> {
  %ids = arith.constant dense<0> : tensor<1xi32>
  %table = llm.block_table %kv_cache, %ids
      : !llm.paged_kv_cache, tensor<1xi32> -> tensor<1x16xi32>
  return %table : tensor<1x16xi32>
}
)mlir";

namespace {

class ExamplesTest : public ::testing::Test {
protected:
  static llm_kv_config config() {
    llm_kv_config config = configOf(1, 16, 8, 1, 4096, LLM_F16);
    config.kv_heads = 16;
    config.head_dim = 64;
    return config;
  }

  /// K and V of a token: a pseudorandom f16 in [-1, 1).
  static Tensor rowOf(int64_t token, int64_t component) {
    Tensor row(LLM_F16, {1, 1, 16, 64});
    for (int64_t i = 0; i < row.count; ++i)
      row.set(i, valueOf(token, 0, component, i / 64, i % 64) / 128);
    return row;
  }

  void append(llm_kv_cache *cache, int64_t tokens) {
    for (int64_t token = 0; token < tokens; ++token)
      ASSERT_TRUE(
          program.runs("append", {cache}, {rowOf(token, 0), rowOf(token, 1)}));
  }

  CompiledProgram program{examples};
};

} // namespace

TEST_F(ExamplesTest, AppendedTokensComeBackBitForBit) {
  HostCache cache(program, config());
  append(cache, 13);
  Tensor table(LLM_I32, {1, 16}), keys(LLM_F16, {1, 16, 16, 64}), values = keys;
  ASSERT_TRUE(program.runs("table", {cache}, {}, {table}));
  ASSERT_TRUE(program.runs("lookup", {cache}, {table}, {keys, values}));
  for (int64_t token = 0; token < 16; ++token) {
    Tensor k = rowOf(token, 0), v = rowOf(token, 1);
    for (int64_t i = 0; i < k.count; ++i) {
      EXPECT_EQ(keys.get(token * k.count + i), token < 13 ? k.get(i) : 0);
      EXPECT_EQ(values.get(token * k.count + i), token < 13 ? v.get(i) : 0);
    }
  }
}

TEST_F(ExamplesTest, AttentionIsASoftmaxOverAllBlocks) {
  HostCache cache(program, config());
  const int64_t tokens = 37; // two blocks and a part
  append(cache, tokens);
  Tensor table(LLM_I32, {1, 16}), output(LLM_F16, {1, 1, 16, 64});
  ASSERT_TRUE(program.runs("table", {cache}, {}, {table}));
  EXPECT_NE(table.as<int32_t>()[2], -1);
  EXPECT_EQ(table.as<int32_t>()[3], -1);
  Tensor query = rowOf(1000, 0);
  ASSERT_TRUE(program.runs("attend", {cache}, {query, table}, {output}));
  for (int64_t head = 0; head < 16; ++head) {
    const auto headOf = [&](Tensor &row) {
      std::vector<double> lanes;
      for (int64_t d = 0; d < 64; ++d)
        lanes.push_back(row.get(head * 64 + d));
      return lanes;
    };
    std::vector<std::vector<double>> keys, values;
    for (int64_t token = 0; token < tokens; ++token) {
      Tensor k = rowOf(token, 0), v = rowOf(token, 1);
      keys.push_back(headOf(k));
      values.push_back(headOf(v));
    }
    const AttentionRow expected =
        attendInDouble({0.125}, headOf(query), tokens - 1, keys, values);
    for (int64_t d = 0; d < 64; ++d) // half a unit of f16 below 1, and a bit
      EXPECT_NEAR(output.get(head * 64 + d), expected.output[d], 3e-4);
  }
}

TEST_F(ExamplesTest, PermutedTablePermutesTheResult) {
  HostCache cache(program, config());
  append(cache, 32);
  Tensor table(LLM_I32, {1, 16}), keys(LLM_F16, {1, 16, 16, 64}), values = keys;
  ASSERT_TRUE(program.runs("table", {cache}, {}, {table}));
  std::swap(table.as<int32_t>()[0], table.as<int32_t>()[1]);
  ASSERT_TRUE(program.runs("lookup", {cache}, {table}, {keys, values}));
  Tensor first = rowOf(16, 0);
  for (int64_t i = 0; i < first.count; ++i)
    EXPECT_EQ(keys.get(i), first.get(i));
}

TEST_F(ExamplesTest, ForeignBlockIsNotRead) {
  HostCache cache(program, config());
  append(cache, 3);
  Tensor table(LLM_I32, {1, 16}), keys(LLM_F16, {1, 16, 16, 64}), values = keys;
  std::fill_n(table.as<int32_t>(), 16, 7);
  EXPECT_EQ(program.invoke("lookup", {cache}, {table}, {keys, values}),
            LLM_INVALID_ARGUMENT);
  EXPECT_STREQ(program.error.op, "llm.lookup_kv");
  EXPECT_EQ(program.error.expected, 8);
  EXPECT_EQ(program.error.actual, 7);
}

TEST_F(ExamplesTest, BlockSizeOfTheOpIsCheckedAgainstTheCache) {
  llm_kv_config other = config();
  other.block_size = 8;
  HostCache cache(program, other);
  EXPECT_EQ(program.invoke("append", {cache}, {rowOf(0, 0), rowOf(0, 1)}),
            LLM_INVALID_ARGUMENT);
  EXPECT_EQ(program.error.expected, 16);
  EXPECT_EQ(program.error.actual, 8);
  EXPECT_STREQ(program.error.op, "llm.append_kv");
  EXPECT_STREQ(program.error.file, "test.mlir");
  EXPECT_EQ(program.error.line, program.lineOf("%new_kv = "));
  EXPECT_EQ(cache.length(0), 0);
}
