//===- CacheSharingTest.cpp - Forks, snapshots and transactions -----------===//
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
  const Tables before(*cache);
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
  EXPECT_EQ(Tables(*cache), before);
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
