//===- BlockAllocatorTest.cpp - The allocator against a set of numbers ----===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Runtime/BlockAllocator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

using namespace llm;

TEST(BlockAllocator, NeverHandsOutTheGuard) {
  BlockAllocator blocks(3);
  std::vector<int32_t> taken(3);
  ASSERT_TRUE(blocks.allocate(taken).ok());
  EXPECT_EQ(std::set<int32_t>(taken.begin(), taken.end()),
            (std::set<int32_t>{1, 2, 3}));
  EXPECT_FALSE(blocks.isLive(0));
  EXPECT_FALSE(blocks.isLive(-1));
  EXPECT_FALSE(blocks.isLive(4));
}

TEST(BlockAllocator, TellsNeverFromNotNow) {
  BlockAllocator blocks(4);
  std::vector<int32_t> two(2), three(3), five(5);
  ASSERT_TRUE(blocks.allocate(two).ok());
  Status status = blocks.allocate(three);
  EXPECT_EQ(status.code(), LLM_OUT_OF_BLOCKS);
  EXPECT_EQ(status.expected(), 3);
  EXPECT_EQ(status.actual(), 2);
  EXPECT_STREQ(status.message(), "needs 3 blocks, 2 are free");
  status = blocks.allocate(five);
  EXPECT_EQ(status.code(), LLM_NEVER_FITS);
  EXPECT_EQ(status.expected(), 5);
  EXPECT_EQ(status.actual(), 4);
  EXPECT_EQ(blocks.numFree(), 2);
  EXPECT_TRUE(blocks.checkInvariants().ok());
}

TEST(BlockAllocator, PinnedBlockIsPendingUntilUnpinned) {
  BlockAllocator blocks(1);
  int32_t block;
  ASSERT_TRUE(blocks.allocate({&block, 1}).ok());
  EXPECT_TRUE(blocks.isExclusive(block));
  blocks.pin(block);
  EXPECT_FALSE(blocks.isExclusive(block));
  EXPECT_FALSE(blocks.release(block));
  EXPECT_EQ(blocks.numPending(), 1);
  EXPECT_EQ(blocks.numLive(), 0);
  EXPECT_EQ(blocks.numFree(), 0);
  EXPECT_TRUE(blocks.checkInvariants().ok());
  EXPECT_TRUE(blocks.unpin(block));
  EXPECT_EQ(blocks.numFree(), 1);
}

TEST(BlockAllocator, PendingBlockCanComeBack) {
  BlockAllocator blocks(1);
  int32_t block;
  ASSERT_TRUE(blocks.allocate({&block, 1}).ok());
  blocks.pin(block);
  blocks.release(block);
  blocks.retain(block);
  EXPECT_FALSE(blocks.unpin(block));
  EXPECT_TRUE(blocks.isExclusive(block));
  EXPECT_EQ(blocks.numPending(), 0);
  EXPECT_TRUE(blocks.checkInvariants().ok());
}

namespace {

/// References and pins of every block that has any.
struct Model {
  struct Counts {
    int references = 0, pins = 0;
  };
  std::map<int32_t, Counts> blocks;

  int64_t live() const {
    return std::count_if(blocks.begin(), blocks.end(),
                         [](const auto &b) { return b.second.references > 0; });
  }
  int64_t pending() const { return int64_t(blocks.size()) - live(); }
  void settle(int32_t block) {
    if (!blocks[block].references && !blocks[block].pins)
      blocks.erase(block);
  }
};

} // namespace

// peers: sglang#11970, sglang#35270, vllm#46283
TEST(BlockAllocator, AgreesWithASetUnderRandomUse) {
  constexpr int32_t total = 37;
  std::mt19937 random(1);
  BlockAllocator blocks(total);
  Model model;
  int64_t peak = 0;
  for (int i = 0; i < 50000; ++i) {
    auto any = model.blocks.begin();
    if (any != model.blocks.end())
      std::advance(any, random() % model.blocks.size());
    const bool none = any == model.blocks.end();
    switch (random() % 5) {
    case 0: {
      std::vector<int32_t> taken(random() % 6);
      const Status status = blocks.allocate(taken);
      const bool fits = model.blocks.size() + taken.size() <= total;
      ASSERT_EQ(status.ok(), fits);
      for (int32_t block : taken)
        if (fits) {
          ASSERT_TRUE(block >= 1 && block <= total);
          ASSERT_TRUE(model.blocks.emplace(block, Model::Counts{1, 0}).second);
        }
      break;
    }
    case 1:
      if (!none && any->second.references < 3) {
        blocks.retain(any->first);
        ++any->second.references;
      }
      break;
    case 2:
      if (!none && any->second.references) {
        --any->second.references;
        const bool freed = !any->second.references && !any->second.pins;
        ASSERT_EQ(blocks.release(any->first), freed);
        model.settle(int32_t(any->first));
      }
      break;
    case 3:
      if (!none && any->second.references) {
        blocks.pin(any->first);
        ++any->second.pins;
      }
      break;
    case 4:
      if (!none && any->second.pins) {
        --any->second.pins;
        const bool freed = !any->second.references && !any->second.pins;
        ASSERT_EQ(blocks.unpin(any->first), freed);
        model.settle(int32_t(any->first));
      }
      break;
    }
    peak = std::max(peak, model.live());
    ASSERT_EQ(blocks.numLive(), model.live());
    ASSERT_EQ(blocks.numPending(), model.pending());
    ASSERT_EQ(blocks.numFree(), total - int64_t(model.blocks.size()));
    ASSERT_TRUE(blocks.checkInvariants().ok());
  }
  EXPECT_GT(peak, total / 2);
}
