//===- FaultTest.cpp - The k-th allocation fails, for every k -------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A call of compiled code that steps, forks, trims, releases, takes a snapshot
// and makes it the host's cache is repeated with the k-th allocation of one
// kind failing until none fails: each time the error says so, and the cache is
// as it was.
//
//===----------------------------------------------------------------------===//

#include "Digest.h"
#include "FailingNew.h"
#include "Program.h"

using namespace llm;
using namespace llm::testing;

namespace {

/// What the calls are given, made before allocations fail.
struct Operands {
  BatchTensors first{{{0, 1}, {range(50, 9), range(60, 3)}}};
  BatchTensors second{{{2, 0}, {range(70, 1), range(80, 2)}}};
  Tensor firstRows = rowsOf(configOf(1, 4, 1), range(50, 12), 0, 0);
  Tensor secondRows = rowsOf(configOf(1, 4, 1), range(70, 3), 0, 0);
  Tensor zero{std::vector<int32_t>{0}}, two{std::vector<int32_t>{2}};
  Tensor three{std::vector<int32_t>{3}}, one{std::vector<int32_t>{1}};
};

llm_code step(llm_call *call, uint64_t kv, const BatchTensors &batch,
              const Tensor &rows) {
  uint64_t step;
  if (llm_code code =
          llm_rt_begin_step(call, 0, kv, &batch.ids, &batch.cuSeqlens, &step))
    return code;
  return llm_rt_append_kv(call, 1, kv, step, &rows, &rows, nullptr);
}

llm_code everything(llm_call *call, const Operands &o) {
  const uint64_t host = call->kv[0];
  uint64_t copy = 0;
  void *data;
  llm_code code = step(call, host, o.first, o.firstRows);
  for (int i = 0; !code && i < 3; ++i)
    code = llm_rt_workspace(call, 0, 1000 << 4 * i, &data);
  if (!code)
    code = llm_rt_fork_kv(call, 1, host, &o.zero, &o.two, &o.three);
  if (!code)
    code = llm_rt_trim_kv(call, 1, host, &o.zero, &o.two);
  if (!code)
    code = llm_rt_snapshot_kv(call, 1, host, &copy);
  if (!code)
    code = step(call, host, o.second, o.secondRows);
  if (!code)
    code = llm_rt_release_kv(call, 1, copy, &o.one);
  if (!code)
    code = step(call, copy, o.second, o.secondRows);
  if (!code)
    code = llm_rt_replace_kv(call, 1, host, copy);
  return code;
}

/// Each kind of allocation, and the code of its failure.
struct Kind {
  const char *name;
  llm_code code;
  void (*arm)(Program &p, int64_t before); ///< -1: none fails
  int64_t least;                           ///< that many of it in the call
};

template <Resource resource>
void armSeam(Program &p, int64_t before) {
  p.context->faults->arm(resource, before);
}

class FaultTest : public ::testing::TestWithParam<Kind> {};

} // namespace

TEST_P(FaultTest, EveryAllocationOfACallMayFail) {
  const Operands operands;
  Program p(configOf(1, 4, 32, 4, 64));
  EXPECT_OK(appendAll(*p.cache->host->version,
                      {{0, 1}, {range(0, 6), range(20, 5)}}));
  ASSERT_EQ(p.create(), LLM_OK);
  const uint64_t before = Digest::of(p.cache);
  int64_t failures = 0;
  for (;; ++failures) {
    const llm_code code = p.invoke([&](llm_call *call) {
      GetParam().arm(p, failures);
      const llm_code result = everything(call, operands);
      GetParam().arm(p, -1);
      return result;
    });
    EXPECT_OK(p.cache->host->version->checkInvariants());
    if (code == LLM_OK)
      break;
    ASSERT_EQ(code, GetParam().code) << p.error.message;
    EXPECT_NE(p.error.op, nullptr);
    EXPECT_NE(p.error.expected, p.error.actual);
    ASSERT_EQ(Digest::of(p.cache), before) << "after allocation " << failures;
    ASSERT_EQ(p.cache->host->version->stats().versions, 1);
    ASSERT_EQ(p.cache->host->version->stats().live_blocks, 4);
  }
  EXPECT_GE(failures, GetParam().least);
  PagedKVCache &after = *p.cache->host->version;
  EXPECT_EQ(after.length(0), 4);
  EXPECT_EQ(after.length(1), 0);
  EXPECT_EQ(after.length(2), 4);
}

INSTANTIATE_TEST_SUITE_P(
    , FaultTest,
    ::testing::Values(
        Kind{"Host", LLM_OUT_OF_MEMORY,
             [](Program &, int64_t k) { allocationsLeft = k; }, 10},
        Kind{"Blocks", LLM_OUT_OF_BLOCKS, armSeam<Resource::Blocks>, 3},
        Kind{"Workspace", LLM_OUT_OF_MEMORY, armSeam<Resource::Workspace>, 3}),
    [](const auto &info) { return info.param.name; });

TEST(FaultsOfCreation, PoolsAndWeightsMayNotFit) {
  Program p;
  llm_kv_cache *cache = nullptr;
  p.context->faults->arm(Resource::Memory, 0);
  EXPECT_EQ(llm_kv_create(p.context, &p.config, &cache, &p.error),
            LLM_OUT_OF_MEMORY);
  EXPECT_EQ(p.error.expected, 17 * 2 * 2 * 4 * 4 * 4);
  EXPECT_STREQ(p.error.message, "cannot reserve 4352 bytes for 16 blocks");
  EXPECT_EQ(cache, nullptr);

  EXPECT_EQ(p.invoke([&](llm_call *call) {
    llm_kv_group_desc type = p.group;
    type.layers = type.kv_heads = type.head_dim = 1;
    uint64_t kv;
    p.context->faults->arm(Resource::Memory, 0);
    return llm_rt_create_kv_cache(call, 1, &type, 7, &kv);
  }),
            LLM_OUT_OF_MEMORY);
  EXPECT_STREQ(p.error.file, "layer.attn");

  const char *name = "w";
  const float values[2] = {1, 2};
  const llm_weight_desc weight = {&name, 1, 0,     LLM_F32, LLM_LAYOUT_PLAIN,
                                  1,     0, {2, 0}};
  const llm_weight_source source = {values, LLM_FILE_F32, 1, {2, 0}};
  p.program.weights = &weight;
  p.program.num_weights = 1;
  llm_model *model = nullptr;
  ASSERT_EQ(llm_model_create(p.context, &p.program, &model, &p.error), LLM_OK);
  EXPECT_EQ(llm_model_bind_weight(model, "w", &source, &p.error), LLM_OK);
  p.context->faults->arm(Resource::Memory, 0);
  EXPECT_EQ(llm_model_finish(model, &p.error), LLM_OUT_OF_MEMORY);
  EXPECT_STREQ(p.error.message, "no memory for the 64 bytes of w");
  EXPECT_EQ(llm_model_finish(model, &p.error), LLM_OK);
  llm_model_destroy(model);
}

TEST(FaultsOfCopies, StridedBatchesNeedWorkspace) {
  Program p;
  EXPECT_EQ(p.invoke([&](llm_call *call) {
    Tensor rows(LLM_F32, {2, 4, 2, 4});
    rows.sizes[1] = 2;
    p.context->faults->arm(Resource::Workspace, 0);
    return llm_rt_append_kv(call, 1, call->kv[0], 0, &rows, &rows, nullptr);
  }),
            LLM_OUT_OF_MEMORY);
  EXPECT_STREQ(p.error.message,
               "no memory for a dense copy of a strided batch");
}

TEST(FaultsOfDevices, FailedKernelPoisonsTheCache) {
  for (int64_t kernel : {0, 1, 2}) {
    Program p(configOf(2, 4, 32, 4, 64));
    EXPECT_OK(appendAll(*p.cache->host->version, {{0}, {range(0, 6)}}));
    const uint64_t before = Digest::of(p.cache);
    const auto attend = [&](llm_call *call) {
      const BatchTensors batch({{0}, {{9}}});
      const Tensor rows = rowsOf(p.config, {9}, 0, 0);
      uint64_t step, at;
      p.context->faults->arm(Resource::Kernel, kernel);
      llm_rt_begin_step(call, 0, call->kv[0], &batch.ids, &batch.cuSeqlens,
                        &step);
      llm_code code = LLM_OK;
      for (int64_t layer = 0; !code && layer < 2; ++layer) {
        llm_rt_at_layer(call, 0, step, layer, &at);
        code =
            llm_rt_append_kv(call, 1, call->kv[0], at, &rows, &rows, nullptr);
        if (!code && layer == 0)
          code = llm_rt_paged_attention(call, 0, call->kv[0], at, &rows, &rows,
                                        nullptr, nullptr, nullptr);
      }
      return code;
    };
    EXPECT_EQ(p.invoke(attend), LLM_DEVICE);
    EXPECT_STREQ(p.error.op, kernel == 1 ? "llm.begin_step" : "llm.append_kv");
    EXPECT_EQ(p.error.layer, kernel / 2);
    EXPECT_STREQ(p.error.message,
                 kernel == 1 ? "kernel attention failed on its device: what "
                               "the cache holds is lost"
                             : "kernel write failed on its device: what the "
                               "cache holds is lost");
    EXPECT_EQ(Digest::of(p.cache), before);

    // From now on nothing but statistics and the end.
    EXPECT_EQ(p.invoke(attend), LLM_DEVICE);
    int64_t length = -1;
    EXPECT_EQ(llm_kv_length(p.cache, 0, &length, &p.error), LLM_DEVICE);
    EXPECT_EQ(llm_kv_check(p.cache, &p.error), LLM_DEVICE);
    llm_kv_cache *copy = nullptr;
    EXPECT_EQ(llm_kv_snapshot(p.cache, &copy, &p.error), LLM_DEVICE);
    llm_kv_stats stats;
    EXPECT_EQ(llm_kv_get_stats(p.cache, &stats, &p.error), LLM_OK);
    EXPECT_EQ(stats.live_blocks, 2);
    llm_kv_cache *other = p.makeCache();
    EXPECT_EQ(llm_kv_length(other, 0, &length, &p.error), LLM_OK);
    llm_kv_destroy(other);
  }
}

TEST(FaultsOfDecoding, WarmDecodingAllocatesNothing) {
  Program p(configOf(1, 16, 32, 4, 64));
  const BatchTensors batch({{0, 1}, {{1}, {2}}});
  const Tensor rows = rowsOf(p.config, {1, 2}, 0, 0);
  for (int i = 0; i < 40; ++i) {
    const llm_code code = p.invoke([&](llm_call *call) {
      // Tables double: room for 16 blocks comes with the first token.
      allocationsLeft = i < 2 ? -1 : 0;
      const llm_code result = step(call, call->kv[0], batch, rows);
      allocationsLeft = -1;
      return result;
    });
    ASSERT_EQ(code, LLM_OK) << i << ": " << p.error.message;
  }
}
