//===- WorkTest.cpp - What calls of kernels cost --------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Program.h"

using namespace llm;
using namespace llm::testing;

namespace {

/// Caches of 2 KV heads of 4, at one layer, with a step that a test opens.
class WorkTest : public ::testing::Test {
protected:
  static constexpr int64_t keyElements = 2 * 2 * 4; ///< K and V of a token

  void TearDown() override {
    llm_kv_abort(step);
    llm_kv_destroy(cache);
    llm_context_destroy(context);
  }

  void create(llm_dtype dtype, int32_t window = 0, int32_t sinks = 0) {
    config = configOf(1, 4, 16, 4, 64, dtype);
    config.window = window;
    config.sinks = sinks;
    ASSERT_EQ(llm_context_create(1, &context, nullptr), LLM_OK);
    ASSERT_EQ(llm_kv_create(context, &config, &cache, nullptr), LLM_OK);
  }
  /// Opens a step and appends its tokens.
  void append(const Batch &batch) {
    const Tensor k = rowsOf(config, batch.flat(), 0, 0);
    const auto cu = batch.cuSeqlens();
    ASSERT_EQ(llm_kv_begin(cache, batch.ids.data(), cu.data(),
                           int32_t(batch.ids.size()), &step, nullptr),
              LLM_OK);
    ASSERT_EQ(llm_kv_append(step, 0, &k, &k, nullptr), LLM_OK);
  }
  void commit() {
    ASSERT_EQ(llm_kv_commit(step, nullptr), LLM_OK);
    step = nullptr;
  }
  /// Attention of `tokens` queries of 6 heads.
  void attend(int64_t tokens, llm_attention_params params = {NAN, 0, 0, 1}) {
    const Tensor q(LLM_F32, {tokens, 6, 4}), out = q;
    ASSERT_EQ(
        llm_kv_attention(step, 0, &q, &params, nullptr, &out, nullptr, nullptr),
        LLM_OK);
  }
  llm_kv_work work() {
    llm_kv_work work = {};
    EXPECT_EQ(llm_kv_get_work(cache, &work, nullptr), LLM_OK);
    return work;
  }
  /// What attention has read and computed since the last look.
  void expectAttention(int64_t keys, int64_t pairs, int64_t elementSize) {
    const llm_kv_work now = work();
    EXPECT_EQ(now.attention_bytes - seen.attention_bytes,
              keys * keyElements * elementSize);
    EXPECT_EQ(now.attention_flops - seen.attention_flops, pairs * 6 * 4 * 4);
    seen = now;
  }

  llm_context *context = nullptr;
  llm_kv_config config;
  llm_kv_cache *cache = nullptr;
  llm_kv_step *step = nullptr;
  llm_kv_work seen = {};
};

} // namespace

TEST_F(WorkTest, NothingBeforeTheFirstCall) {
  create(LLM_F32);
  const llm_kv_work nothing = work();
  EXPECT_EQ(nothing.append_ns, 0);
  EXPECT_EQ(nothing.append_bytes, 0);
  EXPECT_EQ(nothing.attention_ns, 0);
  EXPECT_EQ(nothing.attention_bytes, 0);
  EXPECT_EQ(nothing.attention_flops, 0);
}

TEST_F(WorkTest, AppendCountsWhatItWrites) {
  create(LLM_F16);
  append({{0, 2}, {range(0, 5), range(9, 2)}});
  EXPECT_EQ(work().append_bytes, 7 * keyElements * 2);
  EXPECT_GT(work().append_ns, 0);
  EXPECT_EQ(work().attention_ns, 0);
  commit();
  append({{0}, {range(5, 1)}});
  EXPECT_EQ(work().append_bytes, 8 * keyElements * 2);
}

TEST_F(WorkTest, TimesGrowWithEachCall) {
  create(LLM_F32);
  append({{0}, {range(0, 20)}});
  const int64_t appended = work().append_ns;
  attend(20);
  const int64_t once = work().attention_ns;
  EXPECT_GT(once, 0);
  attend(20);
  EXPECT_GT(work().attention_ns, once);
  EXPECT_EQ(work().append_ns, appended);
}

TEST_F(WorkTest, AttentionCountsAKeyOnceForARow) {
  create(LLM_F16);
  append({{0, 1, 3}, {range(0, 5), {}, range(9, 2)}});
  attend(7);
  expectAttention(5 + 2, (1 + 2 + 3 + 4 + 5) + (1 + 2), 2);
  attend(7, {NAN, 0, 0, 0});
  expectAttention(5 + 2, 5 * 5 + 2 * 2, 2);
  commit();
  append({{3, 0}, {range(11, 1), range(5, 2)}});
  attend(3);
  expectAttention(3 + 7, 3 + (6 + 7), 2);
}

TEST_F(WorkTest, AttentionCountsWhatTheWindowLeaves) {
  create(LLM_F32, /*window=*/4);
  append({{0}, {range(0, 9)}});
  attend(9);
  expectAttention(9, 1 + 2 + 3 + 6 * 4, 4);
  attend(9, {NAN, 0, 2, 1});
  expectAttention(9, 1 + 8 * 2, 4);
  commit();
  append({{0}, {range(9, 2)}});
  attend(2);
  expectAttention(5, 2 * 4, 4);
}

TEST_F(WorkTest, AttentionCountsSinksBesideTheWindow) {
  create(LLM_F32, /*window=*/4, /*sinks=*/2);
  append({{0}, {range(0, 9)}});
  attend(9);
  expectAttention(9, 1 + 2 + 3 + 4 + 5 + 4 * 6, 4);
  commit();
  append({{0}, {range(9, 2)}});
  attend(2);
  expectAttention(2 + 5, 2 * 6, 4);
}

TEST_F(WorkTest, WhatIsUndoneWasDone) {
  create(LLM_F32);
  append({{0}, {range(0, 3)}});
  llm_kv_abort(step);
  step = nullptr;
  EXPECT_EQ(work().append_bytes, 3 * keyElements * 4);
}
