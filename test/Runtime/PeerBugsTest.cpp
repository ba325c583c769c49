//===- PeerBugsTest.cpp - What went wrong in other caches -----------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The bugs of test/peers.txt that no other test pins. Each test cites the
// reports of its bug.
//
//===----------------------------------------------------------------------===//

#include "KVPool.h"
#include "Testing.h"

#include <algorithm>

using namespace llm;
using namespace llm::testing;

namespace {

/// The mean of V over tokens: attention of q = 0.
float meanOf(const std::vector<int64_t> &tokens, int64_t layer) {
  double sum = 0;
  for (int64_t token : tokens)
    sum += valueOf(token, layer, 1, 0, 0);
  return static_cast<float>(sum / double(tokens.size()));
}

/// Element 0 of the output of the last query of a step of one sequence.
float attendLast(PagedKVCache &cache, const KVStep &step, int32_t layer) {
  const llm_kv_config &c = cache.config();
  Tensor q(LLM_F32, {step.numTokens(), c.kv_heads, c.head_dim}), out = q;
  EXPECT_OK(cache.attention(step, layer, q, causal, out, nullptr));
  return out.get(int64_t(step.numTokens() - 1) * c.kv_heads * c.head_dim);
}

} // namespace

// peers: shark-ai#826
TEST(PeerBugs, RowsWithoutTokensLeaveTheGuardPageAlone) {
  auto cache = make(configOf(2, 4, 12));
  EXPECT_OK(appendAll(*cache, {{0, 1, 2}, {{}, range(0, 5), {}}}));
  EXPECT_OK(fork(*cache, 1, 3, 3));
  EXPECT_OK(appendAll(*cache, {{3, 0, 1}, {{7}, {}, range(8, 4)}}));
  for (int32_t layer : {0, 1}) {
    const KVPages pages = cache->pool()->pages(layer);
    const auto *guard = reinterpret_cast<const uint16_t *>(pages.k.data);
    EXPECT_TRUE(std::all_of(guard, guard + pages.k.blockStride / 2,
                            [](uint16_t bits) { return bits == 0x7fff; }));
  }
}

// peers: llmir/freeing-shifts-ids
TEST(PeerBugs, ReleaseLeavesTheOtherSequencesTheirNumbers) {
  auto cache = make(configOf(2, 4, 16, 4));
  EXPECT_OK(appendAll(
      *cache,
      {{0, 1, 2, 3}, {range(0, 3), range(10, 5), range(20, 4), range(30, 9)}}));
  const std::vector<int32_t> released = {2, 0};
  EXPECT_OK(cache->release(released));
  EXPECT_TRUE(holds(*cache, 0, {}));
  EXPECT_TRUE(holds(*cache, 1, range(10, 5)));
  EXPECT_TRUE(holds(*cache, 2, {}));
  EXPECT_TRUE(holds(*cache, 3, range(30, 9)));
  EXPECT_OK(appendAll(*cache, {{3, 0}, {{39}, {40}}}));
  EXPECT_TRUE(holds(*cache, 0, {40}));
  EXPECT_TRUE(holds(*cache, 1, range(10, 5)));
  EXPECT_TRUE(holds(*cache, 3, range(30, 10)));
}

// A layer has the room of its step before it has the tokens; what it may read
// are the tokens.
// peers: hip-ep#753
TEST(PeerBugs, RoomIsNotLength) {
  auto cache = make(configOf(2, 4, 16));
  EXPECT_OK(appendAll(*cache, {{0}, {range(0, 3)}}));
  const Batch batch = {{0}, {range(3, 7)}};
  KVStep step;
  ASSERT_OK(begin(*cache, batch, step));
  EXPECT_EQ(cache->stats().live_blocks, 3);
  EXPECT_EQ(cache->length(0), 3);
  EXPECT_EQ(cache->blocks(0).size(), 1u);
  EXPECT_TRUE(holds(*cache, 0, range(0, 3)));
  EXPECT_OK(appendLayer(*cache, step, batch, 0));
  EXPECT_NEAR(attendLast(*cache, step, 0), meanOf(range(0, 10), 0), 1e-4);
  EXPECT_NEAR(attendLast(*cache, step, 1), meanOf(range(0, 3), 1), 1e-4);
}

// A pool of 6 GB of address space, of which the tokens' rows are touched.
// peers: flashinfer#3130, vllm#47671
TEST(PeerBugs, OffsetsOfACacheBeyondTwoAndFourGigabytes) {
  constexpr int32_t kSequences = 44;
  llm_kv_config config = configOf(2, 1024, 48, kSequences, 4096);
  config.kv_heads = 8;
  config.head_dim = 1024;
  config.poison = 0;
  auto cache = make(config);
  for (int32_t id = 0; id < kSequences - 1; ++id)
    ASSERT_OK(appendAll(*cache, {{id}, {{id}}}));
  constexpr int32_t kLast = kSequences - 2, kChild = kSequences - 1;
  const KVPages pages = cache->pool()->pages(1);
  ASSERT_GT(cache->blocks(kLast)[0] * pages.k.blockStride, int64_t(1) << 31);
  EXPECT_OK(fork(*cache, kLast, kChild, 1));
  const Batch batch = {{kChild}, {{100}}};
  KVStep step;
  ASSERT_OK(begin(*cache, batch, step));
  for (int32_t layer : {0, 1})
    EXPECT_OK(appendLayer(*cache, step, batch, layer));
  EXPECT_NEAR(attendLast(*cache, step, 1), meanOf({kLast, 100}, 1), 1e-4);
  EXPECT_OK(cache->endStep());
  EXPECT_TRUE(holds(*cache, 0, {0}));
  EXPECT_TRUE(holds(*cache, kLast, {kLast}));
  EXPECT_TRUE(holds(*cache, kChild, {kLast, 100}));
}

// peers: mlc-llm#2615, mlc-llm#2374, tvm#17928
TEST(PeerBugs, ForkAndTrimKeepTheWindowInPlace) {
  llm_kv_config config = configOf(1, 4, 16);
  config.window = 3;
  auto cache = make(config);
  EXPECT_OK(appendAll(*cache, {{0}, {range(0, 10)}}));
  EXPECT_OK(fork(*cache, 0, 1, 10));
  EXPECT_OK(fork(*cache, 0, 2, 5));
  const int32_t parent = 0;
  const int64_t kept = 6;
  EXPECT_OK(cache->trim({&parent, 1}, {&kept, 1}));
  const std::vector<std::vector<int64_t>> seen = {
      {4, 5, 100}, {8, 9, 101}, {3, 4, 102}};
  for (int32_t id : {0, 1, 2}) {
    const Batch batch = {{id}, {{100 + id}}};
    KVStep step;
    ASSERT_OK(begin(*cache, batch, step));
    EXPECT_OK(appendLayer(*cache, step, batch, 0));
    EXPECT_NEAR(attendLast(*cache, step, 0), meanOf(seen[id], 0), 1e-4);
    EXPECT_OK(cache->endStep());
  }
}
