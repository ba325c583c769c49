//===- CancelTest.cpp - A host changes its mind ---------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Digest.h"
#include "Program.h"

using namespace llm;
using namespace llm::testing;

namespace {

class CancelTest : public ::testing::Test {
protected:
  CancelTest() {
    EXPECT_OK(appendAll(*p.cache->host->version, {{0}, {range(0, 6)}}));
    before = Digest::of(p.cache);
  }
  void cancel(bool on) {
    EXPECT_EQ(llm_kv_cancel(p.cache, on, &p.error), LLM_OK);
  }

  Program p;
  uint64_t before;
};

} // namespace

TEST_F(CancelTest, CallStopsAtItsNextFunction) {
  const Tensor ids(std::vector<int32_t>{0});
  const std::vector<std::function<llm_code(llm_call *)>> functions = {
      [&](llm_call *call) {
        return stepInCall(call, call->kv[0], {{1}, {{7}}}, p.config);
      },
      [&](llm_call *call) {
        return llm_rt_release_kv(call, 1, call->kv[0], &ids);
      },
      [&](llm_call *call) {
        uint64_t copy;
        return llm_rt_snapshot_kv(call, 1, call->kv[0], &copy);
      },
      [&](llm_call *call) {
        Tensor out(LLM_I32, {1});
        return llm_rt_seq_lens(call, 1, call->kv[0], &ids, &out);
      },
      [&](llm_call *call) {
        void *data;
        return llm_rt_workspace(call, 1, 10, &data);
      }};
  for (const auto &function : functions) {
    cancel(false);
    EXPECT_EQ(p.invoke([&](llm_call *call) {
      EXPECT_EQ(stepInCall(call, call->kv[0], {{0, 2}, {{6}, {8}}}, p.config),
                LLM_OK);
      cancel(true);
      return function(call);
    }),
              LLM_CANCELLED);
    EXPECT_STREQ(p.error.message, "cancelled by the host");
    EXPECT_NE(p.error.op, nullptr);
    EXPECT_EQ(Digest::of(p.cache), before);
    EXPECT_EQ(llm_kv_check(p.cache, &p.error), LLM_OK) << p.error.message;
  }
  EXPECT_EQ(p.invoke([](llm_call *) { return LLM_OK; }), LLM_CANCELLED)
      << "before it starts";
  cancel(false);
  EXPECT_EQ(p.invoke([](llm_call *) { return LLM_OK; }), LLM_OK);
}

TEST_F(CancelTest, EveryCacheOfACallCancelsIt) {
  llm_kv_cache *other = p.makeCache(), *caches[] = {p.cache, other};
  p.entry.num_kv = 2;
  ASSERT_EQ(p.create(), LLM_OK);
  const Tensor tokens(std::vector<int32_t>{5}), logits(LLM_F32, {1, 3});
  EXPECT_EQ(llm_kv_cancel(other, 1, &p.error), LLM_OK);
  EXPECT_EQ(llm_model_invoke(p.model, nullptr, caches, 2, &tokens, 1, &logits,
                             1, &p.error),
            LLM_CANCELLED);
  llm_kv_destroy(other);
}

TEST_F(CancelTest, StepCanOnlyBeAborted) {
  const int32_t id = 0, cu[] = {0, 1};
  const Tensor rows = rowsOf(p.config, {6}, 0, 0);
  llm_kv_step *step = nullptr;
  ASSERT_EQ(llm_kv_begin(p.cache, &id, cu, 1, &step, &p.error), LLM_OK);
  EXPECT_EQ(llm_kv_append(step, 0, &rows, &rows, &p.error), LLM_OK);
  cancel(true);
  EXPECT_EQ(llm_kv_attention(step, 0, &rows, nullptr, nullptr, &rows, nullptr,
                             &p.error),
            LLM_CANCELLED);
  EXPECT_EQ(llm_kv_commit(step, &p.error), LLM_CANCELLED);
  llm_kv_abort(step);
  EXPECT_EQ(Digest::of(p.cache), before);
  EXPECT_EQ(llm_kv_begin(p.cache, &id, cu, 1, &step, &p.error), LLM_CANCELLED);
}

TEST_F(CancelTest, ChangesAreRefusedAndProbesAreNot) {
  cancel(true);
  const int32_t id = 0, child = 1;
  const int64_t one = 1;
  EXPECT_EQ(llm_kv_fork(p.cache, id, &child, 1, 1, &p.error), LLM_CANCELLED);
  EXPECT_EQ(llm_kv_trim(p.cache, &id, &one, 1, &p.error), LLM_CANCELLED);
  EXPECT_EQ(llm_kv_release(p.cache, &id, 1, &p.error), LLM_CANCELLED);
  EXPECT_EQ(Digest::of(p.cache), before);
  int64_t length = 0;
  EXPECT_EQ(llm_kv_length(p.cache, 0, &length, &p.error), LLM_OK);
  EXPECT_EQ(length, 6);
  EXPECT_EQ(llm_kv_reserve_check(p.cache, &id, &one, 1, &p.error), LLM_OK);
  EXPECT_EQ(llm_kv_cancel(nullptr, 1, &p.error), LLM_INVALID_ARGUMENT);
}
