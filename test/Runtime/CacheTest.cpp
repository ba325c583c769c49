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

namespace {

const llm_attention_params causal = {NAN, 0, 0, 1};

/// Everything that an operation which fails must leave alone.
struct Digest {
  std::vector<std::vector<int32_t>> blocks;
  std::vector<int32_t> lengths;
  int64_t free, live;

  explicit Digest(const PagedKVCache &cache) {
    for (int32_t id = 0; id < cache.config().max_sequences; ++id) {
      blocks.emplace_back(cache.blocks(id).begin(), cache.blocks(id).end());
      lengths.push_back(cache.length(id));
    }
    free = cache.stats().free_blocks;
    live = cache.stats().live_blocks;
  }
  bool operator==(const Digest &) const = default;
};

Status fork(PagedKVCache &cache, int32_t parent, int32_t child, int64_t n) {
  return cache.fork({&parent, 1}, {&child, 1}, {&n, 1});
}
Status trim(PagedKVCache &cache, int32_t id, int64_t n) {
  return cache.trim({&id, 1}, {&n, 1});
}
Status release(PagedKVCache &cache, int32_t id) {
  return cache.release({&id, 1});
}

} // namespace

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
  fails([](auto &c) { c.k_storage = 3; }, LLM_KV_STORAGE_I8, 3);
  fails([](auto &c) { c.v_storage = -1; }, LLM_KV_STORAGE_DTYPE, -1);
  fails([](auto &c) { c.v_storage = 3; }, LLM_KV_STORAGE_I8, 3);
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
  const Digest before(*cache);
  KVStep step;
  const Batch batch = {
      {2, 4, 1, 0}, {range(20, 1), range(30, 5), range(40, 5), range(50, 1)}};
  // Three free: none for 2, two for 4, and 1 needs two.
  expectError(begin(*cache, batch, step), LLM_OUT_OF_BLOCKS, 2, 1, 1);
  EXPECT_EQ(Digest(*cache), before);
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

//===----------------------------------------------------------------------===//
// Sharing
//===----------------------------------------------------------------------===//

// peers: llmir/fork, shark-ai#2276
TEST(CacheSharing, ForkThenAppendLeavesTheSiblingAlone) {
  auto cache = make(configOf(2, 4, 16));
  EXPECT_OK(appendAll(*cache, {{0}, {range(0, 6)}}));
  EXPECT_OK(fork(*cache, 0, 1, 5));
  EXPECT_EQ(cache->stats().copied_bytes, 0);
  EXPECT_OK(appendAll(*cache, {{1}, {{100}}}));
  EXPECT_TRUE(holds(*cache, 0, range(0, 6)));
  EXPECT_TRUE(holds(*cache, 1, {0, 1, 2, 3, 4, 100}));
  // One row of K and V at two layers: 2 heads of 4 floats each.
  EXPECT_EQ(cache->stats().cow_blocks, 1);
  EXPECT_EQ(cache->stats().copied_bytes, 2 * 2 * 1 * 2 * 4 * 4);
  EXPECT_OK(appendAll(*cache, {{0}, {{200}}}));
  EXPECT_EQ(cache->stats().cow_blocks, 1) << "the last holder writes in place";
  EXPECT_TRUE(holds(*cache, 1, {0, 1, 2, 3, 4, 100}));
}

TEST(CacheSharing, ForkIsChecked) {
  auto cache = make(configOf(2, 4, 16, 4));
  EXPECT_OK(appendAll(*cache, {{0, 2}, {range(0, 6), range(9, 1)}}));
  expectError(fork(*cache, 0, 2, 3), LLM_WRONG_STATE, 0, 1, 2);
  expectError(fork(*cache, 0, 1, 7), LLM_INVALID_ARGUMENT, 6, 7, 0);
  expectError(fork(*cache, 0, 1, -1), LLM_INVALID_ARGUMENT, 6, -1, 0);
  expectError(fork(*cache, 4, 1, 0), LLM_INVALID_ARGUMENT, 4, 4, 4);
  expectError(fork(*cache, 0, 4, 0), LLM_INVALID_ARGUMENT, 4, 4, 4);
  const std::vector<int32_t> parents = {0, 0}, same = {1, 1}, chain = {1, 3};
  expectError(cache->fork(parents, same, std::vector<int64_t>{1, 2}),
              LLM_INVALID_ARGUMENT, 1, 2, 1);
  // Forks of one call are simultaneous: 1 is still empty.
  expectError(cache->fork(std::vector<int32_t>{0, 1}, chain,
                          std::vector<int64_t>{2, 2}),
              LLM_INVALID_ARGUMENT, 0, 2, 1);
  EXPECT_EQ(cache->length(1), 0);
}

TEST(CacheSharing, ForkInsideAStepNeedsEveryLayer) {
  auto cache = make(configOf(2, 4, 16));
  EXPECT_OK(appendAll(*cache, {{0}, {range(0, 3)}}));
  const Batch batch = {{0}, {range(3, 2)}};
  KVStep step;
  ASSERT_OK(begin(*cache, batch, step));
  EXPECT_OK(appendLayer(*cache, step, batch, 0));
  expectError(fork(*cache, 0, 1, 4), LLM_WRONG_STATE, 4, 3, 0, 1);
  EXPECT_OK(fork(*cache, 0, 2, 3));
  EXPECT_OK(appendLayer(*cache, step, batch, 1));
  EXPECT_OK(fork(*cache, 0, 1, 4));
  EXPECT_OK(cache->endStep());
  EXPECT_TRUE(holds(*cache, 0, range(0, 5)));
  EXPECT_TRUE(holds(*cache, 1, range(0, 4)));
  EXPECT_TRUE(holds(*cache, 2, range(0, 3)));
}

TEST(CacheSharing, CutSequenceLeavesTheStep) {
  auto cache = make(configOf(2, 4, 16));
  const Batch batch = {{0}, {range(0, 5)}};
  KVStep step;
  ASSERT_OK(begin(*cache, batch, step));
  EXPECT_OK(appendLayer(*cache, step, batch, 0));
  EXPECT_OK(trim(*cache, 0, 2));
  expectError(appendLayer(*cache, step, batch, 1), LLM_WRONG_STATE, 0, 2, 0, 1);
}

TEST(CacheSharing, TrimIsChecked) {
  auto cache = make(configOf(1, 4, 16, 2));
  EXPECT_OK(appendAll(*cache, {{0}, {range(0, 6)}}));
  expectError(trim(*cache, 0, 7), LLM_INVALID_ARGUMENT, 6, 7, 0);
  expectError(trim(*cache, 0, -1), LLM_INVALID_ARGUMENT, 6, -1, 0);
  expectError(trim(*cache, 2, 0), LLM_INVALID_ARGUMENT, 2, 2, 2);
  expectError(release(*cache, 2), LLM_INVALID_ARGUMENT, 2, 2, 2);
  EXPECT_OK(release(*cache, 1));
  EXPECT_TRUE(holds(*cache, 0, range(0, 6)));
}

TEST(CacheSharing, SnapshotKeepsThePastAtEveryLayerOfAStep) {
  for (int32_t taken = 0; taken <= 3; ++taken) {
    auto cache = make(configOf(3, 4, 16));
    EXPECT_OK(appendAll(*cache, {{0}, {range(0, 6)}}));
    const Batch batch = {{0}, {range(6, 3)}};
    KVStep step;
    ASSERT_OK(begin(*cache, batch, step));
    for (int32_t layer = 0; layer < taken; ++layer)
      EXPECT_OK(appendLayer(*cache, step, batch, layer));
    auto past = cache->snapshot();
    for (int32_t layer = taken; layer < 3; ++layer)
      EXPECT_OK(appendLayer(*cache, step, batch, layer));
    EXPECT_OK(cache->endStep());
    EXPECT_OK(appendAll(*cache, {{0}, {range(50, 4)}}));
    for (int32_t layer = 0; layer < 3; ++layer)
      EXPECT_TRUE(holds(*past, 0, range(0, layer < taken ? 9 : 6), layer));
    EXPECT_OK(past->checkInvariants());
  }
}

TEST(CacheSharing, CopyInsideAStepMayRunOutOfBlocks) {
  auto cache = make(configOf(2, 4, 2));
  const Batch batch = {{0}, {range(0, 5)}};
  KVStep step;
  ASSERT_OK(begin(*cache, batch, step));
  EXPECT_OK(appendLayer(*cache, step, batch, 0));
  auto past = cache->snapshot();
  expectError(appendLayer(*cache, step, batch, 1), LLM_OUT_OF_BLOCKS, 2, 0);
  past.reset();
  EXPECT_OK(appendLayer(*cache, step, batch, 1));
  EXPECT_TRUE(holds(*cache, 0, range(0, 5)));
}

TEST(CacheSharing, VersionsDieInAnyOrder) {
  auto cache = make(configOf(1, 4, 4));
  EXPECT_OK(appendAll(*cache, {{0}, {range(0, 6)}}));
  auto past = cache->snapshot();
  EXPECT_EQ(past->stats().versions, 2);
  cache.reset();
  EXPECT_TRUE(holds(*past, 0, range(0, 6)));
  EXPECT_EQ(past->stats().live_blocks, 2);
  EXPECT_EQ(past->stats().versions, 1);
  EXPECT_OK(past->checkInvariants());
}

//===----------------------------------------------------------------------===//
// Transactions
//===----------------------------------------------------------------------===//

TEST(CacheTransaction, AbortRestoresTablesAndContent) {
  auto cache = make(configOf(2, 4, 16));
  EXPECT_OK(appendAll(*cache,
                      {{0, 1, 2}, {range(0, 10), range(20, 3), range(40, 7)}}));
  EXPECT_OK(fork(*cache, 0, 3, 9));
  const Digest before(*cache);
  const int64_t tokens = cache->stats().appended_tokens;
  cache->beginTransaction();
  EXPECT_OK(appendAll(*cache, {{0, 3}, {range(60, 5), range(70, 1)}}));
  EXPECT_OK(trim(*cache, 0, 6));
  EXPECT_OK(appendAll(*cache, {{0}, {range(80, 3)}}));
  EXPECT_OK(release(*cache, 1));
  EXPECT_OK(fork(*cache, 2, 1, 5));
  EXPECT_OK(release(*cache, 2));
  EXPECT_OK(fork(*cache, 1, 4, 2));
  EXPECT_GT(cache->stats().pending_blocks, 0);
  EXPECT_OK(cache->checkInvariants());
  cache->abortTransaction();
  EXPECT_EQ(Digest(*cache), before);
  EXPECT_EQ(cache->stats().pending_blocks, 0);
  EXPECT_EQ(cache->stats().appended_tokens, tokens);
  EXPECT_OK(cache->checkInvariants());
  EXPECT_TRUE(holds(*cache, 0, range(0, 10)));
  EXPECT_TRUE(holds(*cache, 1, range(20, 3)));
  EXPECT_TRUE(holds(*cache, 2, range(40, 7)));
  EXPECT_TRUE(holds(*cache, 3, range(0, 9)));
}

TEST(CacheTransaction, AbortForgetsAFirstAppend) {
  auto cache = make(configOf(2, 4, 16));
  cache->beginTransaction();
  EXPECT_OK(appendAll(*cache, {{0}, {range(0, 2)}}));
  cache->abortTransaction();
  const Batch batch = {{0}, {range(0, 2)}};
  KVStep step;
  ASSERT_OK(begin(*cache, batch, step));
  EXPECT_OK(appendLayer(*cache, step, batch, 0));
  EXPECT_OK(cache->endStep()) << "layer 1 was never appended to";
}

TEST(CacheTransaction, BlocksOfBeforeAreFreeAtCommitOnly) {
  auto cache = make(configOf(1, 4, 4));
  EXPECT_OK(appendAll(*cache, {{0}, {range(0, 8)}}));
  cache->beginTransaction();
  EXPECT_OK(release(*cache, 0));
  EXPECT_EQ(cache->stats().pending_blocks, 2);
  EXPECT_EQ(cache->stats().free_blocks, 2);
  EXPECT_OK(appendAll(*cache, {{1}, {range(20, 8)}}));
  EXPECT_OK(release(*cache, 1));
  EXPECT_EQ(cache->stats().free_blocks, 2) << "taken inside, free at once";
  cache->commitTransaction();
  EXPECT_EQ(cache->stats().free_blocks, 4);
  EXPECT_EQ(cache->stats().pending_blocks, 0);
}

// The log pins the parent's tail once that is copied: then the child may not
// write behind its tokens either.
TEST(CacheTransaction, ForkedTailIsCopiedOnceIfTheChildComesFirst) {
  const std::pair<std::vector<int32_t>, int64_t> orders[] = {{{1, 0}, 1},
                                                             {{0, 1}, 2}};
  for (const auto &[ids, copies] : orders) {
    auto cache = make(configOf(1, 4, 8));
    ASSERT_OK(appendAll(*cache, {{0}, {range(0, 6)}}));
    cache->beginTransaction();
    ASSERT_OK(fork(*cache, 0, 1, 6));
    ASSERT_OK(appendAll(*cache, {ids, {range(6, 1), range(6, 1)}}));
    cache->commitTransaction();
    EXPECT_EQ(cache->stats().cow_blocks, copies);
    EXPECT_TRUE(holds(*cache, 0, range(0, 7)));
    EXPECT_TRUE(holds(*cache, 1, range(0, 7)));
  }
}

TEST(CacheTransaction, DecodingCopiesNothingAtAnyPoolSize) {
  for (int64_t scale : {1, 64}) {
    llm_kv_config config = configOf(2, 16, 40 * scale, 4);
    config.poison = 0;
    auto cache = make(config);
    EXPECT_OK(appendAll(*cache, {{0, 1}, {range(0, 20), range(100, 33)}}));
    for (int64_t i = 0; i < 100; ++i) {
      cache->beginTransaction();
      ASSERT_OK(appendAll(*cache, {{1, 0}, {{500 + i}, {1000 + i}}}));
      cache->commitTransaction();
    }
    EXPECT_EQ(cache->stats().copied_bytes, 0);
    EXPECT_EQ(cache->stats().cow_blocks, 0);
    EXPECT_EQ(cache->stats().table_copies, 0);
    EXPECT_EQ(cache->stats().appended_tokens, 20 + 33 + 200);
    EXPECT_EQ(cache->stats().peak_live_blocks, 8 + 9);
  }
}

//===----------------------------------------------------------------------===//
// Reads
//===----------------------------------------------------------------------===//

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

TEST(CacheReads, TheNarrowerWindowHolds) {
  llm_kv_config config = configOf(1, 4, 8);
  config.window = 3;
  for (const auto &[asked, visible] : {std::pair(0, 3), {2, 2}, {5, 3}}) {
    auto cache = make(config);
    const Batch batch = {{0}, {range(0, 7)}};
    KVStep step;
    ASSERT_OK(begin(*cache, batch, step));
    EXPECT_OK(appendLayer(*cache, step, batch, 0));
    Tensor q(LLM_F32, {7, 2, 4}), out = q;
    EXPECT_OK(cache->attention(step, 0, q, {NAN, 0, asked, 1}, out, nullptr));
    double mean = 0;
    for (int64_t token : range(7 - visible, visible))
      mean += valueOf(token, 0, 1, 0, 0);
    EXPECT_NEAR(out.get(6 * 8), mean / visible, 1e-4);
  }
}

TEST(CacheReads, SinksStayVisibleBesideANarrowerWindow) {
  llm_kv_config config = configOf(1, 4, 8);
  config.window = 3;
  config.sinks = 2;
  for (const auto &[asked, visible] : {std::pair(0, 3), {1, 1}, {5, 3}}) {
    auto cache = make(config);
    const Batch batch = {{0}, {range(0, 7)}};
    KVStep step;
    ASSERT_OK(begin(*cache, batch, step));
    EXPECT_OK(appendLayer(*cache, step, batch, 0));
    Tensor q(LLM_F32, {7, 2, 4}), out = q;
    EXPECT_OK(cache->attention(step, 0, q, {NAN, 0, asked, 1}, out, nullptr));
    double sum = valueOf(0, 0, 1, 0, 0) + valueOf(1, 0, 1, 0, 0);
    for (int64_t token : range(7 - visible, visible))
      sum += valueOf(token, 0, 1, 0, 0);
    EXPECT_NEAR(out.get(6 * 8), sum / (2 + visible), 1e-4);
  }
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
