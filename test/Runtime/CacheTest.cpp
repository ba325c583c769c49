//===- CacheTest.cpp - What a cache promises, one fact per test -----------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Testing.h"

using namespace llm;
using namespace llm::testing;

//===----------------------------------------------------------------------===//
// Configuration
//===----------------------------------------------------------------------===//

TEST(CacheConfig, EveryFieldIsChecked) {
  const auto fails = [](auto change, int64_t expected, int64_t actual) {
    llm_kv_config config = configOf(1, 16, 4);
    change(config);
    std::unique_ptr<PagedKVCache> cache;
    expectError(PagedKVCache::create(config, cache), LLM_INVALID_ARGUMENT,
                expected, actual);
    EXPECT_EQ(cache, nullptr);
  };
  fails([](auto &c) { c.struct_size = 8; }, sizeof(llm_kv_config), 8);
  fails([](auto &c) { c.layers = 0; }, 1, 0);
  fails([](auto &c) { c.layers = 65535; }, 65534, 65535);
  fails([](auto &c) { c.kv_heads = 0; }, 1, 0);
  fails([](auto &c) { c.head_dim = -3; }, 1, -3);
  fails([](auto &c) { c.head_dim = 8193; }, 8192, 8193);
  fails([](auto &c) { c.block_size = 0; }, 1, 0);
  fails([](auto &c) { c.max_sequences = 0; }, 1, 0);
  fails([](auto &c) { c.max_seq_len = 0; }, 1, 0);
  fails([](auto &c) { c.window = -1; }, 0, -1);
  fails([](auto &c) { c.window = 8, c.sinks = -1; }, 0, -1);
  fails([](auto &c) { c.sinks = 4; }, 0, 4);
  fails([](auto &c) { c.num_blocks = -1; }, 0, -1);
  fails([](auto &c) { c.dtype = LLM_I32; }, LLM_BF16, LLM_I32);
  fails([](auto &c) { c.k_storage = -1; }, LLM_KV_STORAGE_DTYPE, -1);
  fails([](auto &c) { c.k_storage = 4; }, LLM_KV_STORAGE_I4, 4);
  fails([](auto &c) { c.v_storage = -1; }, LLM_KV_STORAGE_DTYPE, -1);
  fails([](auto &c) { c.v_storage = 4; }, LLM_KV_STORAGE_I4, 4);
  fails([](auto &c) { c.dtype = LLM_I8; }, LLM_BF16, LLM_I8);
  fails([](auto &c) { c.strategy = 2; }, LLM_KV_STATIC, 2);
  fails([](auto &c) { c.strategy = LLM_KV_STATIC; }, 0, 4);
}

TEST(CacheConfig, SizesThatOverflowAreRefused) {
  llm_kv_config config = configOf(65534, INT32_MAX, INT32_MAX - 1);
  config.max_seq_len = INT32_MAX;
  std::unique_ptr<PagedKVCache> cache;
  EXPECT_EQ(PagedKVCache::create(config, cache).code(), LLM_INVALID_ARGUMENT);
}

TEST(CacheConfig, StaticHasRoomForEverySequence) {
  llm_kv_config config = configOf(1, 16, 0, 3, 33);
  config.strategy = LLM_KV_STATIC;
  EXPECT_EQ(make(config)->config().num_blocks, 3 * 3);
  config.strategy = LLM_KV_PAGED;
  EXPECT_EQ(make(config)->stats().total_blocks, 3 * 3);
}

//===----------------------------------------------------------------------===//
// Beginning a step
//===----------------------------------------------------------------------===//

TEST(CacheStep, BatchIsValidated) {
  auto cache = make(configOf(1, 4, 8, 3));
  const auto fails = [&](std::vector<int32_t> ids, std::vector<int32_t> cu,
                         int64_t expected, int64_t actual, int32_t sequence) {
    KVStep step;
    expectError(cache->beginStep(ids, cu, step), LLM_INVALID_ARGUMENT, expected,
                actual, sequence);
    EXPECT_EQ(step.id, 0u);
  };
  fails({0, 3}, {0, 1, 2}, 3, 3, 3);
  fails({-1}, {0, 1}, 3, -1, -1);
  fails({1, 1}, {0, 1, 2}, 1, 2, 1);
  fails({0}, {0}, 2, 1, -1);
  fails({0}, {1, 2}, 0, 1, -1);
  fails({0, 1}, {0, 2, 1}, 2, 1, 1);
  EXPECT_EQ(cache->stats().live_blocks, 0);
}

// peers: vllm#39734, llama.cpp#9201
TEST(CacheStep, TooLongNeverFits) {
  auto cache = make(configOf(1, 4, 8, 2, 10));
  EXPECT_OK(appendAll(*cache, {{0}, {range(0, 9)}}));
  KVStep step;
  expectError(begin(*cache, {{1, 0}, {range(0, 1), range(0, 2)}}, step),
              LLM_NEVER_FITS, 10, 11, 0);
  EXPECT_OK(appendAll(*cache, {{0}, {range(9, 1)}}));
  EXPECT_TRUE(holds(*cache, 0, range(0, 10)));
  auto small = make(configOf(1, 4, 2, 2, 100));
  expectError(begin(*small, {{1}, {range(0, 9)}}, step), LLM_NEVER_FITS, 3, 2,
              1);
}

TEST(CacheStep, OutOfBlocksNamesTheFirstThatDoesNotFitAndChangesNothing) {
  auto cache = make(configOf(2, 4, 5));
  EXPECT_OK(appendAll(*cache, {{2, 4}, {range(0, 3), range(10, 4)}}));
  const Tables before(*cache);
  KVStep step;
  const Batch batch = {
      {2, 4, 1, 0}, {range(20, 1), range(30, 5), range(40, 5), range(50, 1)}};
  // Three free: none for 2, two for 4, and 1 needs two.
  expectError(begin(*cache, batch, step), LLM_OUT_OF_BLOCKS, 2, 1, 1);
  EXPECT_EQ(Tables(*cache), before);
  EXPECT_OK(cache->checkInvariants());
  EXPECT_TRUE(holds(*cache, 2, range(0, 3)));
  EXPECT_TRUE(holds(*cache, 4, range(10, 4)));
  const std::vector<int32_t> ids = {2, 4, 1};
  expectError(cache->checkRoom(ids, std::vector<int64_t>{1, 5, 5}),
              LLM_OUT_OF_BLOCKS, 2, 1, 1);
  EXPECT_OK(cache->checkRoom(ids, std::vector<int64_t>{1, 5, 4}));
  expectError(cache->checkRoom(ids, std::vector<int64_t>{1, 5, INT64_MAX}),
              LLM_NEVER_FITS, 1024, INT64_MAX, 1);
}

TEST(CacheStep, RefusedOneLeavesTheRunningOne) {
  auto cache = make(configOf(1, 4, 3));
  const Batch first = {{0}, {range(0, 8)}};
  KVStep running, refused;
  EXPECT_OK(begin(*cache, first, running));
  // Neither takes what the running one holds before it fits as a whole.
  const Batch tooLong = {{0, 1}, {range(8, 1), range(20, 9)}};
  expectError(begin(*cache, tooLong, refused), LLM_OUT_OF_BLOCKS, 3, 2, 1);
  EXPECT_OK(appendLayer(*cache, running, first, 0));
  expectError(begin(*cache, tooLong, refused), LLM_OUT_OF_BLOCKS, 3, 0, 1);
  const Tensor k = rowsOf(cache->config(), range(0, 8), 0, 0);
  expectError(cache->append(running, 0, k, k), LLM_WRONG_STATE, 1, 2, -1, 0);
  EXPECT_OK(cache->endStep());
  EXPECT_TRUE(holds(*cache, 0, range(0, 8)));
}

TEST(CacheStep, TakesWhatTheRunningOneDidNotUse) {
  auto cache = make(configOf(1, 4, 3));
  KVStep step;
  EXPECT_OK(begin(*cache, {{0, 1}, {range(0, 4), range(4, 8)}}, step));
  EXPECT_EQ(cache->stats().free_blocks, 0);
  const int32_t id = 2;
  const int64_t all = 12;
  EXPECT_OK(cache->checkRoom({&id, 1}, {&all, 1}));
  EXPECT_OK(appendAll(*cache, {{2}, {range(0, 12)}}));
  EXPECT_TRUE(holds(*cache, 2, range(0, 12)));
}

TEST(CacheStep, RowsThatShareATailNeedOneCopyLess) {
  auto cache = make(configOf(1, 4, 3));
  EXPECT_OK(appendAll(*cache, {{0}, {range(0, 2)}}));
  EXPECT_OK(fork(*cache, 0, 1, 2));
  EXPECT_OK(fork(*cache, 0, 2, 1));
  EXPECT_OK(appendAll(*cache, {{2, 1, 0}, {{7}, {8}, {9}}}));
  EXPECT_EQ(cache->stats().cow_blocks, 2);
  EXPECT_EQ(cache->stats().free_blocks, 0);
  EXPECT_TRUE(holds(*cache, 0, {0, 1, 9}));
  EXPECT_TRUE(holds(*cache, 1, {0, 1, 8}));
  EXPECT_TRUE(holds(*cache, 2, {0, 7}));
}

TEST(CacheStep, RowsWithoutTokensAreAllowed) {
  auto cache = make(configOf(1, 4, 3));
  EXPECT_OK(appendAll(*cache, {{0, 1, 2}, {{}, range(0, 5), {}}}));
  EXPECT_OK(appendAll(*cache, {{}, {}}));
  EXPECT_EQ(cache->length(0), 0);
  EXPECT_TRUE(holds(*cache, 1, range(0, 5)));
}

//===----------------------------------------------------------------------===//
// Appending
//===----------------------------------------------------------------------===//

// peers: llmir/long-chunk
TEST(CacheAppend, ChunkLongerThanABlock) {
  auto cache = make(configOf(3, 4, 8));
  EXPECT_OK(appendAll(*cache, {{1}, {range(0, 3)}}));
  EXPECT_OK(appendAll(*cache, {{1, 0}, {range(3, 10), range(50, 9)}}));
  EXPECT_TRUE(holds(*cache, 1, range(0, 13)));
  EXPECT_TRUE(holds(*cache, 0, range(50, 9)));
}

TEST(CacheAppend, TwiceAtALayerIsWrong) {
  auto cache = make(configOf(2, 4, 4));
  const Batch batch = {{0}, {range(0, 2)}};
  KVStep step;
  ASSERT_OK(begin(*cache, batch, step));
  EXPECT_OK(appendLayer(*cache, step, batch, 1));
  expectError(appendLayer(*cache, step, batch, 1), LLM_WRONG_STATE, 1, 2, -1,
              1);
}

TEST(CacheAppend, LayerOutOfRange) {
  auto cache = make(configOf(2, 4, 4));
  const Batch batch = {{0}, {range(0, 2)}};
  KVStep step;
  ASSERT_OK(begin(*cache, batch, step));
  expectError(appendLayer(*cache, step, batch, 2), LLM_INVALID_ARGUMENT, 2, 2,
              -1, 2);
  expectError(appendLayer(*cache, step, batch, -1), LLM_INVALID_ARGUMENT, 2, -1,
              -1, -1);
}

TEST(CacheAppend, StaleAndForeignStepsAreWrong) {
  auto cache = make(configOf(1, 4, 8)), other = make(configOf(1, 4, 8));
  const Batch batch = {{0}, {range(0, 2)}};
  KVStep old, step, none;
  expectError(appendLayer(*cache, none, batch, 0), LLM_WRONG_STATE, 0, 0, -1,
              0);
  ASSERT_OK(begin(*cache, batch, old));
  const auto oldId = static_cast<int64_t>(old.id);
  expectError(appendLayer(*other, old, batch, 0), LLM_WRONG_STATE, 0, oldId, -1,
              0);
  EXPECT_OK(appendLayer(*cache, old, batch, 0));
  ASSERT_OK(begin(*cache, batch, step));
  expectError(appendLayer(*cache, old, batch, 0), LLM_WRONG_STATE, oldId + 1,
              oldId, -1, 0);
}

TEST(CacheAppend, ShapesAreChecked) {
  auto cache = make(configOf(1, 4, 4)); // 2 heads of 4
  KVStep step;
  ASSERT_OK(begin(*cache, {{0}, {range(0, 3)}}, step));
  const auto fails = [&](const Tensor &k, const Tensor &v, int64_t expected,
                         int64_t actual) {
    expectError(cache->append(step, 0, k, v), LLM_INVALID_ARGUMENT, expected,
                actual, -1, 0);
  };
  const Tensor good(LLM_F32, {3, 2, 4});
  fails(Tensor(LLM_F32, {2, 2, 4}), good, 3, 2);
  fails(good, Tensor(LLM_F32, {3, 1, 4}), 2, 1);
  fails(good, Tensor(LLM_F32, {3, 2, 8}), 4, 8);
  fails(Tensor(LLM_F32, {3, 8}), good, 3, 2);
  fails(Tensor(LLM_I32, {3, 2, 4}), good, LLM_F32, LLM_I32);
  Tensor strided(LLM_F32, {3, 2, 8});
  strided.sizes[2] = 4;
  strided.strides[2] = 2;
  fails(strided, good, 1, 2);
  Tensor null = good;
  null.data = nullptr;
  fails(null, good, 1, 0);
}

TEST(CacheAppend, LayerThatStartsLateIsWrong) {
  auto cache = make(configOf(2, 4, 8));
  const Batch batch = {{0}, {range(0, 5)}}, next = {{1}, {range(9, 1)}};
  KVStep step;
  ASSERT_OK(begin(*cache, batch, step));
  EXPECT_OK(appendLayer(*cache, step, batch, 1));
  ASSERT_OK(begin(*cache, next, step));
  EXPECT_OK(appendLayer(*cache, step, next, 1));
  expectError(appendLayer(*cache, step, next, 0), LLM_WRONG_STATE, 5, 0, 0, 0);
}

//===----------------------------------------------------------------------===//
// Ending a step
//===----------------------------------------------------------------------===//

TEST(CacheStepEnd, NamesTheLayerThatWasLeftOut) {
  auto cache = make(configOf(3, 4, 8));
  EXPECT_OK(appendAll(*cache, {{0}, {range(0, 5)}}));
  const Batch batch = {{1, 0}, {range(10, 1), range(20, 2)}};
  KVStep step;
  ASSERT_OK(begin(*cache, batch, step));
  expectError(cache->endStep(), LLM_WRONG_STATE, 1, 0, 1, 0);
  EXPECT_OK(appendLayer(*cache, step, batch, 0));
  EXPECT_OK(appendLayer(*cache, step, batch, 2));
  expectError(cache->endStep(), LLM_WRONG_STATE, 1, 0, 1, 1);
  KVStep next;
  expectError(begin(*cache, batch, next), LLM_WRONG_STATE, 1, 0, 1, 1);
  EXPECT_OK(appendLayer(*cache, step, batch, 1));
  EXPECT_OK(cache->endStep());
  EXPECT_TRUE(holds(*cache, 0, {0, 1, 2, 3, 4, 20, 21}));
}

TEST(CacheStepEnd, EveryLayerCounts) {
  for (int32_t missing : {0, 1, 2}) {
    auto cache = make(configOf(3, 4, 8));
    EXPECT_OK(appendAll(*cache, {{0}, {range(0, 5)}}));
    const Batch batch = {{0}, {range(5, 2)}};
    KVStep step;
    ASSERT_OK(begin(*cache, batch, step));
    for (int32_t layer : {0, 1, 2})
      if (layer != missing)
        EXPECT_OK(appendLayer(*cache, step, batch, layer));
    expectError(cache->endStep(), LLM_WRONG_STATE, 7, 5, 0, missing);
  }
}

TEST(CacheStepEnd, LayersThatWereNeverAppendedDoNotCount) {
  auto cache = make(configOf(2, 4, 8));
  const Batch batch = {{0}, {range(0, 5)}};
  KVStep step;
  ASSERT_OK(begin(*cache, batch, step));
  EXPECT_OK(appendLayer(*cache, step, batch, 0));
  EXPECT_OK(cache->endStep());
  EXPECT_EQ(cache->length(0), 5);
  EXPECT_TRUE(holds(*cache, 0, range(0, 5), 0));
  EXPECT_TRUE(holds(*cache, 0, {}, 1));
}

TEST(CacheStepEnd, StepWithoutAppendGivesItsBlocksBack) {
  auto cache = make(configOf(2, 4, 8));
  KVStep step;
  ASSERT_OK(begin(*cache, {{0}, {range(0, 9)}}, step));
  EXPECT_EQ(cache->stats().live_blocks, 3);
  EXPECT_OK(cache->endStep());
  EXPECT_EQ(cache->length(0), 0);
  EXPECT_EQ(cache->stats().live_blocks, 0);
  EXPECT_OK(cache->checkInvariants());
}

TEST(CacheStepEnd, LengthGrowsWithTheFirstLayer) {
  auto cache = make(configOf(2, 4, 8));
  const Batch batch = {{0}, {range(0, 5)}};
  KVStep step;
  ASSERT_OK(begin(*cache, batch, step));
  EXPECT_EQ(cache->length(0), 0);
  EXPECT_OK(appendLayer(*cache, step, batch, 1));
  EXPECT_EQ(cache->length(0), 5);
  EXPECT_TRUE(holds(*cache, 0, {}, 0));
  EXPECT_TRUE(holds(*cache, 0, range(0, 5), 1));
}
