//===- CacheReadsTest.cpp - Attention and lookup by a cache ---------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Testing.h"

using namespace llm;
using namespace llm::testing;

/// One optional tensor alone.
static llm_extras with(const llm_tensor *llm_extras::*name,
                       const llm_tensor &tensor) {
  llm_extras extras = {};
  extras.*name = &tensor;
  return extras;
}

TEST(CacheReads, AttentionIsChecked) {
  auto cache = make(configOf(1, 4, 8)); // 2 heads of 4
  const Batch batch = {{0}, {range(0, 3)}};
  KVStep step;
  ASSERT_OK(begin(*cache, batch, step));
  EXPECT_OK(appendLayer(*cache, step, batch, 0));
  const auto fails = [&](const Tensor &q, const Tensor &out, int64_t expected,
                         int64_t actual, const Tensor *lse = nullptr,
                         llm_attention_params params = causal) {
    expectError(cache->attention(step, 0, q, params, out, lse),
                LLM_INVALID_ARGUMENT, expected, actual, -1, 0);
  };
  const Tensor q(LLM_F32, {3, 4, 4}), lse(LLM_F32, {3, 2});
  fails(Tensor(LLM_F32, {2, 4, 4}), q, 3, 2);
  fails(Tensor(LLM_F32, {3, 3, 4}), q, 2, 3);
  fails(Tensor(LLM_F32, {3, 4, 8}), q, 4, 8);
  fails(q, Tensor(LLM_F32, {3, 2, 4}), 4, 2);
  fails(q, Tensor(LLM_F16, {3, 4, 4}), LLM_F32, LLM_F16);
  fails(q, q, 4, 2, &lse);
  fails(q, q, 0, -1, nullptr, {NAN, 0, -1, 1});
  fails(q, q, 0, 0, nullptr, {NAN, -1, 0, 1});
  const auto refuses = [&](const llm_extras &extras, int64_t expected,
                           int64_t actual) {
    expectError(cache->attention(step, 0, q, causal, q, nullptr, extras),
                LLM_INVALID_ARGUMENT, expected, actual, -1, 0);
  };
  const Tensor three(LLM_F32, {3}), ints(LLM_I32, {4});
  refuses(with(&llm_extras::alibi, three), 4, 3);
  refuses(with(&llm_extras::alibi, ints), LLM_F32, LLM_I32);
  refuses(with(&llm_extras::head_sink, three), 4, 3);
  refuses(with(&llm_extras::head_sink, ints), LLM_F32, LLM_I32);
  refuses(with(&llm_extras::sink_query, q), 1, 0);
  KVStep stale = step;
  ++stale.id;
  Tensor out = q;
  EXPECT_EQ(cache->attention(stale, 0, q, causal, out, nullptr).code(),
            LLM_WRONG_STATE);
  EXPECT_OK(cache->attention(step, 0, q, causal, out, nullptr));
}

TEST(CacheReads, AQueryForSinksIsLikeTheQuery) {
  llm_kv_config config = configOf(1, 4, 8);
  config.window = 2;
  config.sinks = 1;
  auto cache = make(config);
  const Batch batch = {{0}, {range(0, 3)}};
  KVStep step;
  ASSERT_OK(begin(*cache, batch, step));
  EXPECT_OK(appendLayer(*cache, step, batch, 0));
  const Tensor q(LLM_F32, {3, 4, 4});
  const auto refuses = [&](const llm_tensor &nearer, int64_t expected,
                           int64_t actual) {
    expectError(cache->attention(step, 0, q, causal, q, nullptr,
                                 with(&llm_extras::sink_query, nearer)),
                LLM_INVALID_ARGUMENT, expected, actual, -1, 0);
  };
  refuses(Tensor(LLM_F32, {2, 4, 4}), 3, 2);
  refuses(Tensor(LLM_F32, {3, 2, 4}), 4, 2);
  refuses(Tensor(LLM_F32, {3, 4, 8}), 4, 8);
  refuses(Tensor(LLM_F16, {3, 4, 4}), LLM_F32, LLM_F16);
  llm_tensor strided = q;
  strided.strides[2] = 2;
  refuses(strided, 1, 2);
}

TEST(CacheReads, ARowWithoutKeysIsZero) {
  auto cache = make(configOf(2, 4, 8));
  const Batch batch = {{0}, {range(0, 2)}};
  KVStep step;
  ASSERT_OK(begin(*cache, batch, step));
  EXPECT_OK(appendLayer(*cache, step, batch, 0));
  Tensor q(LLM_F32, {2, 2, 4}), out = q, lse(LLM_F32, {2, 2});
  std::fill_n(q.as<float>(), 16, 1.0f);
  std::fill_n(out.as<float>(), 16, 7.0f);
  EXPECT_OK(cache->attention(step, 1, q, causal, out, &lse));
  for (int i = 0; i < 16; ++i)
    EXPECT_EQ(out.get(i), 0.0f);
  for (int i = 0; i < 4; ++i)
    EXPECT_EQ(lse.get(i), -INFINITY);
}

// peers: shark-ai#2235, tt-mlir#8479
TEST(CacheReads, QueriesSeeTheirOwnSequenceFromTheirOwnPosition) {
  // With q = 0 all visible keys weigh the same: out is the mean of V.
  auto cache = make(configOf(2, 4, 16));
  EXPECT_OK(appendAll(*cache, {{3, 1}, {range(0, 6), range(30, 1)}}));
  const Batch batch = {{1, 3}, {range(31, 2), range(6, 3)}};
  KVStep step;
  ASSERT_OK(begin(*cache, batch, step));
  EXPECT_EQ(step.starts, (std::vector<int32_t>{1, 6}));
  EXPECT_OK(appendLayer(*cache, step, batch, 1));
  Tensor q(LLM_F32, {5, 2, 4}), out = q;
  EXPECT_OK(cache->attention(step, 1, q, causal, out, nullptr));
  const std::vector<std::vector<int64_t>> seen = {
      range(30, 2), range(30, 3), range(0, 7), range(0, 8), range(0, 9)};
  for (int64_t t = 0; t < 5; ++t)
    for (int64_t i = 0; i < 8; ++i) {
      double mean = 0;
      for (int64_t token : seen[t])
        mean += valueOf(token, 1, 1, i / 4, i % 4);
      EXPECT_NEAR(out.get(t * 8 + i), mean / double(seen[t].size()), 1e-4);
    }
}

/// The mean of V of the sinks and of the last `visible` of 7 tokens is what
/// the last query sees of a window, and of a narrower one that it asks for.
static void expectVisible(const llm_kv_config &config, int32_t asked,
                          int32_t visible) {
  auto cache = make(config);
  const Batch batch = {{0}, {range(0, 7)}};
  KVStep step;
  ASSERT_OK(begin(*cache, batch, step));
  EXPECT_OK(appendLayer(*cache, step, batch, 0));
  Tensor q(LLM_F32, {7, 2, 4}), out = q;
  EXPECT_OK(cache->attention(step, 0, q, {NAN, 0, asked, 1}, out, nullptr));
  double sum = 0;
  for (int64_t token : range(0, config.sinks))
    sum += valueOf(token, 0, 1, 0, 0);
  for (int64_t token : range(7 - visible, visible))
    sum += valueOf(token, 0, 1, 0, 0);
  EXPECT_NEAR(out.get(6 * 8), sum / (config.sinks + visible), 1e-4);
}

TEST(CacheReads, TheNarrowerWindowHolds) {
  llm_kv_config config = configOf(1, 4, 8);
  config.window = 3;
  for (const auto &[asked, visible] : {std::pair(0, 3), {2, 2}, {5, 3}})
    expectVisible(config, asked, visible);
}

TEST(CacheReads, SinksStayVisibleBesideANarrowerWindow) {
  llm_kv_config config = configOf(1, 4, 8);
  config.window = 3;
  config.sinks = 2;
  for (const auto &[asked, visible] : {std::pair(0, 3), {1, 1}, {5, 3}})
    expectVisible(config, asked, visible);
}

TEST(CacheReads, PermutedTablePermutesTheResult) {
  auto cache = make(configOf(1, 4, 8));
  EXPECT_OK(appendAll(*cache, {{0}, {range(0, 8)}}));
  const auto blocks = cache->blocks(0);
  Tensor table(LLM_I32, {1, 3}), k(LLM_F32, {1, 8, 2, 4}), v = k;
  table.as<int32_t>()[0] = blocks[1];
  table.as<int32_t>()[1] = blocks[0];
  table.as<int32_t>()[2] = -1;
  const int32_t id = 0;
  EXPECT_OK(cache->lookup({&id, 1}, 0, k, v, &table));
  for (int64_t i = 0; i < 64; ++i) {
    const int64_t token = (i / 8 + 4) % 8;
    EXPECT_EQ(k.get(i), valueOf(token, 0, 0, i / 4 % 2, i % 4));
    EXPECT_EQ(v.get(i), valueOf(token, 0, 1, i / 4 % 2, i % 4));
  }
}

TEST(CacheReads, AttentionFollowsABlockThatWasCopiedInsideTheStep) {
  auto cache = make(configOf(2, 4, 16));
  const Batch batch = {{0}, {range(0, 3)}};
  KVStep step;
  ASSERT_OK(begin(*cache, batch, step));
  EXPECT_OK(appendLayer(*cache, step, batch, 0));
  Tensor q(LLM_F32, {3, 2, 4}), out = q;
  EXPECT_OK(cache->attention(step, 0, q, causal, out, nullptr));
  auto past = cache->snapshot();
  EXPECT_OK(appendLayer(*cache, step, batch, 1));
  EXPECT_OK(cache->attention(step, 1, q, causal, out, nullptr));
  double mean = 0;
  for (int64_t token : range(0, 3))
    mean += valueOf(token, 1, 1, 0, 0) / 3;
  EXPECT_NEAR(out.get(2 * 8), mean, 1e-4);
}

TEST(CacheReads, TableMayNameABlockTakenSinceTheLastLook) {
  auto cache = make(configOf(1, 4, 8));
  const int32_t id = 0;
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_OK(appendAll(*cache, {{0}, {range(4 * i, 4)}}));
    Tensor table(LLM_I32, {1, i + 1}), k(LLM_F32, {1, 12, 2, 4}), v = k;
    std::reverse_copy(cache->blocks(0).begin(), cache->blocks(0).end(),
                      table.as<int32_t>());
    EXPECT_OK(cache->lookup({&id, 1}, 0, k, v, &table));
    EXPECT_EQ(k.get(0), valueOf(4 * i, 0, 0, 0, 0));
    EXPECT_EQ(k.get(4 * i * 8), valueOf(0, 0, 0, 0, 0));
  }
}

TEST(CacheReads, TableMustNameBlocksThatHoldWhatIsRead) {
  llm_kv_config config = configOf(2, 4, 8);
  config.poison = 1;
  auto cache = make(config);
  ASSERT_OK(appendAll(*cache, {{0, 1}, {range(0, 6), range(10, 3)}}));
  const int32_t id = 0, full = cache->blocks(0)[0],
                partial = cache->blocks(0)[1], other = cache->blocks(1)[0];
  Tensor k(LLM_F32, {1, 8, 2, 4}), v = k;
  const auto look = [&](int32_t first, int32_t second, int32_t layer = 0) {
    Tensor table(LLM_I32, {1, 2});
    table.as<int32_t>()[0] = first, table.as<int32_t>()[1] = second;
    return cache->lookup({&id, 1}, layer, k, v, &table);
  };
  expectError(look(partial, full), LLM_INVALID_ARGUMENT, 4, 2, 0);
  expectError(look(other, partial), LLM_INVALID_ARGUMENT, 4, 3, 0);
  EXPECT_OK(look(full, full));
  EXPECT_OK(look(full, other));
  EXPECT_EQ(k.get(5 * 8), valueOf(11, 0, 0, 0, 0));
  // A layer that was not appended in the running step holds less.
  const Batch more = {{0, 1}, {range(6, 2), range(13, 1)}};
  KVStep step;
  ASSERT_OK(begin(*cache, more, step));
  ASSERT_OK(appendLayer(*cache, step, more, 0));
  EXPECT_OK(look(other, partial, 0));
  expectError(look(other, partial, 1), LLM_INVALID_ARGUMENT, 4, 3, 0);
}

TEST(CacheReads, TableMustBeLongEnoughAndLiveInThisVersion) {
  auto cache = make(configOf(1, 4, 8));
  EXPECT_OK(appendAll(*cache, {{0}, {range(0, 8)}}));
  auto past = cache->snapshot();
  EXPECT_OK(appendAll(*cache, {{0}, {range(8, 1)}}));
  const int32_t foreign = cache->blocks(0)[2], own = cache->blocks(0)[0];
  const int32_t id = 0;
  const auto look = [&](std::vector<int32_t> row) {
    Tensor table(LLM_I32, {1, static_cast<int64_t>(row.size())});
    std::copy(row.begin(), row.end(), table.as<int32_t>());
    Tensor k(LLM_F32, {1, 8, 2, 4}), v = k;
    return past->lookup({&id, 1}, 0, k, v, &table);
  };
  EXPECT_OK(look({own, own}));
  expectError(look({own}), LLM_INVALID_ARGUMENT, 2, 1, 0);
  expectError(look({own, foreign}), LLM_INVALID_ARGUMENT, 8, foreign, 0);
  for (int32_t block : {0, -1, 9, INT32_MAX, INT32_MIN})
    expectError(look({own, block}), LLM_INVALID_ARGUMENT, 8, block, 0);
}
