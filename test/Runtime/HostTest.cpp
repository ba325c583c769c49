//===- HostTest.cpp - The C ABI as a host uses it -------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "HostCache.h"
#include "Program.h"

#include <cstddef>

using namespace llm;
using namespace llm::testing;

namespace {

class HostTest : public ::testing::Test {
protected:
  void SetUp() override {
    ASSERT_EQ(llm_context_create(1, &context, nullptr), LLM_OK);
    config = configOf(2, 4, 16, 4, 64);
    ASSERT_EQ(llm_kv_create(context, &config, &cache, nullptr), LLM_OK);
  }
  void TearDown() override {
    llm_kv_destroy(cache);
    llm_context_destroy(context);
  }

  PagedKVCache &version() { return *cache->host->version; }

  llm_kv_step *begin(const Batch &batch) {
    llm_kv_step *step = nullptr;
    const auto cu = batch.cuSeqlens();
    EXPECT_EQ(llm_kv_begin(cache, batch.ids.data(), cu.data(),
                           int32_t(batch.ids.size()), &step, &error),
              LLM_OK)
        << error.message;
    return step;
  }
  llm_code append(llm_kv_step *step, const Batch &batch, int32_t layer) {
    const Tensor k = rowsOf(config, batch.flat(), layer, 0);
    const Tensor v = rowsOf(config, batch.flat(), layer, 1);
    return llm_kv_append(step, layer, &k, &v, &error);
  }
  void store(const Batch &batch) {
    llm_kv_step *step = begin(batch);
    EXPECT_EQ(append(step, batch, 0), LLM_OK);
    EXPECT_EQ(append(step, batch, 1), LLM_OK);
    EXPECT_EQ(llm_kv_commit(step, &error), LLM_OK);
  }
  void expectError(llm_code code, int64_t expected, int64_t actual) {
    EXPECT_EQ(error.code, code) << error.message;
    EXPECT_EQ(error.expected, expected) << error.message;
    EXPECT_EQ(error.actual, actual) << error.message;
    EXPECT_EQ(error.site, -1);
    EXPECT_EQ(error.op, nullptr);
    error = LLM_ERROR_INIT;
  }

  llm_context *context = nullptr;
  llm_kv_config config;
  llm_kv_cache *cache = nullptr;
  llm_error error = LLM_ERROR_INIT;
};

} // namespace

TEST_F(HostTest, EveryCodeHasAName) {
  for (llm_code code = LLM_OK; code <= LLM_CANCELLED; ++code)
    EXPECT_STRNE(llm_code_name(code), "unknown code");
  EXPECT_STREQ(llm_code_name(LLM_OUT_OF_BLOCKS), "out of blocks");
  EXPECT_STREQ(llm_code_name(-1), "unknown code");
  EXPECT_STREQ(llm_code_name(LLM_CANCELLED + 1), "unknown code");
  EXPECT_EQ(llm_abi_version(), LLM_ABI_VERSION);
  EXPECT_NE(llm_cpu_target(), nullptr);
}

TEST_F(HostTest, ConfigHasDefaultsAndFollowsTheProgram) {
  llm_kv_config c;
  ASSERT_EQ(llm_kv_config_init(nullptr, 0, &c, nullptr), LLM_OK);
  EXPECT_EQ(c.struct_size, sizeof(c));
  EXPECT_EQ(c.block_size, 16);
  EXPECT_EQ(c.max_sequences, 1);
  EXPECT_EQ(c.dtype, LLM_F16);
  EXPECT_EQ(c.strategy, LLM_KV_PAGED);
  llm_kv_group_desc group = {};
  group.layers = 3;
  group.dtype = -1;
  group.v_storage = LLM_KV_STORAGE_I8;
  group.max_seq_len = 100;
  group.default_max_seq_len = 50;
  group.default_block_size = 32;
  group.strategy = LLM_KV_STATIC;
  llm_program program = {};
  program.groups = &group;
  program.num_groups = 1;
  ASSERT_EQ(llm_kv_config_init(&program, 0, &c, nullptr), LLM_OK);
  EXPECT_EQ(c.layers, 3);
  EXPECT_EQ(c.dtype, LLM_F16);
  EXPECT_EQ(c.k_storage, LLM_KV_STORAGE_DTYPE);
  EXPECT_EQ(c.v_storage, LLM_KV_STORAGE_I8);
  EXPECT_EQ(c.max_seq_len, 100);
  EXPECT_EQ(c.block_size, 32);
  EXPECT_EQ(c.strategy, LLM_KV_STATIC);
  // K of i4 is in groups of 32 tokens, and so is a block.
  group.default_block_size = 0;
  group.k_storage = LLM_KV_STORAGE_I4;
  ASSERT_EQ(llm_kv_config_init(&program, 0, &c, nullptr), LLM_OK);
  EXPECT_EQ(c.block_size, 32);
  EXPECT_EQ(c.k_storage, LLM_KV_STORAGE_I4);
  EXPECT_EQ(llm_kv_config_init(&program, 1, &c, &error), LLM_INVALID_ARGUMENT);
  expectError(LLM_INVALID_ARGUMENT, 1, 1);
}

TEST_F(HostTest, BytesAreThoseOfThePool) {
  int64_t bytes = 0;
  ASSERT_EQ(llm_kv_bytes(&config, &bytes, nullptr), LLM_OK);
  // (16 + guard) blocks, 2 layers, K and V, 2 heads, 4 tokens, 4 floats.
  EXPECT_EQ(bytes, 17 * 2 * 2 * 2 * 4 * 4 * 4);
  llm_kv_stats stats;
  ASSERT_EQ(llm_kv_get_stats(cache, &stats, nullptr), LLM_OK);
  EXPECT_EQ(stats.block_bytes * 17, bytes);
  config.block_size = 0;
  EXPECT_EQ(llm_kv_bytes(&config, &bytes, &error), LLM_INVALID_ARGUMENT);
}

TEST_F(HostTest, HugePoolIsAddressSpaceOnly) {
  config.num_blocks = 1 << 22;
  config.head_dim = 128;
  config.poison = 0;
  llm_kv_cache *huge = nullptr;
  ASSERT_EQ(llm_kv_create(context, &config, &huge, &error), LLM_OK)
      << error.message;
  llm_kv_destroy(huge);
  config.num_blocks = INT32_MAX - 1;
  config.head_dim = 8192;
  config.layers = 60;
  EXPECT_EQ(llm_kv_create(context, &config, &huge, &error), LLM_OUT_OF_MEMORY);
}

TEST_F(HostTest, NullIsInvalidNotACrash) {
  EXPECT_EQ(llm_kv_create(nullptr, &config, &cache, &error),
            LLM_INVALID_ARGUMENT);
  EXPECT_EQ(llm_kv_check(nullptr, nullptr), LLM_INVALID_ARGUMENT);
  EXPECT_EQ(llm_kv_append(nullptr, 0, nullptr, nullptr, &error),
            LLM_INVALID_ARGUMENT);
  EXPECT_EQ(llm_kv_commit(nullptr, &error), LLM_INVALID_ARGUMENT);
  EXPECT_EQ(llm_kv_get_work(cache, nullptr, &error), LLM_INVALID_ARGUMENT);
  EXPECT_EQ(llm_kv_release(cache, nullptr, 1, &error), LLM_INVALID_ARGUMENT);
  EXPECT_EQ(llm_kv_release(cache, nullptr, -1, &error), LLM_INVALID_ARGUMENT);
  EXPECT_EQ(llm_kv_release(cache, nullptr, 0, &error), LLM_OK);
  llm_kv_abort(nullptr);
  llm_kv_destroy(nullptr);
  llm_model_destroy(nullptr);
  llm_context_destroy(nullptr);
}

TEST_F(HostTest, AnOlderErrorIsFilledAsFarAsItGoes) {
  llm_error old;
  std::memset(&old, 0x5a, sizeof(old));
  old.struct_size = offsetof(llm_error, message);
  int64_t length;
  EXPECT_EQ(llm_kv_length(cache, 4, &length, &old), LLM_INVALID_ARGUMENT);
  EXPECT_EQ(old.code, LLM_INVALID_ARGUMENT);
  EXPECT_EQ(old.sequence, 4);
  EXPECT_EQ(old.message[0], 0x5a);
}

TEST_F(HostTest, AcquireFindsTheLowestEmptySequence) {
  store({{0, 2}, {{1}, {2}}});
  int32_t id = -1;
  EXPECT_EQ(llm_kv_acquire_sequence(cache, &id, &error), LLM_OK);
  EXPECT_EQ(id, 1);
  store({{1, 3}, {{1}, {2}}});
  EXPECT_EQ(llm_kv_acquire_sequence(cache, &id, &error), LLM_WRONG_STATE);
  expectError(LLM_WRONG_STATE, 1, 0);
  EXPECT_EQ(id, 1) << "written only on success";
}

TEST_F(HostTest, OneCopyOfASequenceForAllItsChildren) {
  store({{3}, {range(0, 6)}});
  const int32_t children[] = {0, 2};
  EXPECT_EQ(llm_kv_fork(cache, 3, children, 2, 5, &error), LLM_OK);
  EXPECT_TRUE(holds(version(), 0, range(0, 5)));
  EXPECT_TRUE(holds(version(), 2, range(0, 5)));
  const int64_t lengths[] = {1, 0};
  EXPECT_EQ(llm_kv_trim(cache, children, lengths, 2, &error), LLM_OK);
  EXPECT_TRUE(holds(version(), 0, {0}));
  EXPECT_TRUE(holds(version(), 3, range(0, 6)));
  const int32_t bad[] = {3, 4};
  EXPECT_EQ(llm_kv_release(cache, bad, 2, &error), LLM_INVALID_ARGUMENT);
  EXPECT_TRUE(holds(version(), 3, range(0, 6))) << "a failing call is no call";
}

TEST_F(HostTest, CommitOfAnIncompleteStepLetsItGoOn) {
  store({{0}, {range(0, 3)}});
  const Batch batch = {{0}, {{9}}};
  llm_kv_step *step = begin(batch);
  EXPECT_EQ(append(step, batch, 0), LLM_OK);
  EXPECT_EQ(llm_kv_commit(step, &error), LLM_WRONG_STATE);
  EXPECT_EQ(error.layer, 1);
  expectError(LLM_WRONG_STATE, 4, 3);
  EXPECT_EQ(append(step, batch, 1), LLM_OK);
  EXPECT_EQ(llm_kv_commit(step, &error), LLM_OK);
  EXPECT_TRUE(holds(version(), 0, {0, 1, 2, 9}));
}

TEST_F(HostTest, AbortedStepNeverWas) {
  store({{0}, {range(0, 3)}});
  const Batch batch = {{0, 1}, {range(9, 9), {50}}};
  llm_kv_step *step = begin(batch);
  EXPECT_EQ(append(step, batch, 0), LLM_OK);
  llm_kv_abort(step);
  EXPECT_TRUE(holds(version(), 0, range(0, 3)));
  EXPECT_EQ(version().length(1), 0);
  EXPECT_EQ(version().stats().live_blocks, 1);
  EXPECT_EQ(llm_kv_check(cache, &error), LLM_OK);
}

TEST_F(HostTest, FailedBeginLeavesNothingBehind) {
  store({{0}, {range(0, 3)}});
  const int32_t ids[] = {0, 1}, cu[] = {0, 1, 63};
  llm_kv_step *step = nullptr;
  EXPECT_EQ(llm_kv_begin(cache, ids, cu, 2, &step, &error), LLM_OUT_OF_BLOCKS);
  expectError(LLM_OUT_OF_BLOCKS, 16, 15);
  EXPECT_EQ(step, nullptr);
  store({{0}, {{3}}});
  EXPECT_TRUE(holds(version(), 0, range(0, 4)));
}

TEST_F(HostTest, AnOpenStepKeepsOthersOut) {
  store({{0}, {range(0, 3)}});
  llm_kv_cache *other = nullptr;
  ASSERT_EQ(llm_kv_snapshot(cache, &other, &error), LLM_OK);
  const Batch batch = {{0}, {{9}}};
  llm_kv_step *step = begin(batch), *second = nullptr;
  const int32_t id = 0, cu[] = {0, 1};
  for (llm_kv_cache *any : {cache, other}) {
    EXPECT_EQ(llm_kv_release(any, &id, 1, &error), LLM_BUSY);
    expectError(LLM_BUSY, 0, 1);
    EXPECT_EQ(llm_kv_begin(any, &id, cu, 1, &second, &error), LLM_BUSY);
  }
  int64_t length;
  EXPECT_EQ(llm_kv_length(cache, 0, &length, &error), LLM_OK);
  EXPECT_EQ(length, 3);
  llm_kv_abort(step);
  EXPECT_EQ(llm_kv_release(cache, &id, 1, &error), LLM_OK);
  EXPECT_TRUE(holds(*other->host->version, 0, range(0, 3)));
  llm_kv_destroy(other);
}

TEST_F(HostTest, StepOutlivesItsCache) {
  const Batch batch = {{0}, {{9}}};
  llm_kv_step *step = begin(batch);
  llm_kv_destroy(cache);
  cache = nullptr;
  EXPECT_EQ(append(step, batch, 0), LLM_OK);
  EXPECT_EQ(llm_kv_commit(step, &error), LLM_OK);
}

TEST_F(HostTest, LookupOfTheHost) {
  store({{1, 0}, {range(0, 3), range(20, 5)}});
  const int32_t ids[] = {0, 1};
  Tensor k(LLM_F32, {2, 4, 2, 4}), v = k;
  EXPECT_EQ(llm_kv_lookup(cache, 1, ids, 2, &k, &v, &error), LLM_OK);
  EXPECT_EQ(k.get(3 * 8), valueOf(23, 1, 0, 0, 0));
  EXPECT_EQ(v.get((4 + 2) * 8 + 5), valueOf(2, 1, 1, 1, 1));
  EXPECT_EQ(v.get((4 + 3) * 8 + 5), 0);
  EXPECT_EQ(llm_kv_lookup(cache, 2, ids, 2, &k, &v, &error),
            LLM_INVALID_ARGUMENT);
  const Tensor half(LLM_F16, {2, 4, 2, 4});
  EXPECT_EQ(llm_kv_lookup(cache, 1, ids, 2, &half, &v, &error),
            LLM_INVALID_ARGUMENT);
}

TEST_F(HostTest, BrokenInvariantPoisonsTheCache) {
  store({{0}, {range(0, 3)}});
  KVPool &pool = *version().pool();
  pool.retain(version().blocks(0)[0]);
  EXPECT_EQ(llm_kv_check(cache, &error), LLM_INTERNAL);
  expectError(LLM_INTERNAL, 1, 2);
  int64_t length;
  EXPECT_EQ(llm_kv_length(cache, 0, &length, &error), LLM_INTERNAL);
  EXPECT_STREQ(error.message, "references to block 1: expected 1, got 2");
}

TEST_F(HostTest, StatisticsCountWhatHappened) {
  store({{0}, {range(0, 6)}});
  const int32_t child = 1;
  EXPECT_EQ(llm_kv_fork(cache, 0, &child, 1, 6, &error), LLM_OK);
  store({{1}, {{9}}});
  llm_kv_cache *copy = nullptr;
  EXPECT_EQ(llm_kv_snapshot(cache, &copy, &error), LLM_OK);
  store({{0}, {{10}}});
  llm_kv_stats s;
  EXPECT_EQ(llm_kv_get_stats(cache, &s, &error), LLM_OK);
  EXPECT_EQ(s.total_blocks, 16);
  EXPECT_EQ(s.live_blocks, 4);
  EXPECT_EQ(s.free_blocks, 12);
  EXPECT_EQ(s.pending_blocks, 0);
  EXPECT_EQ(s.versions, 2);
  EXPECT_EQ(s.snapshots, 1);
  EXPECT_EQ(s.cow_blocks, 2);
  EXPECT_EQ(s.copied_bytes, 2 * (2 * 2 * 2 * 2 * 4 * 4));
  EXPECT_EQ(s.table_copies, 1);
  EXPECT_EQ(s.appended_tokens, 8);
  llm_kv_destroy(copy);
}
