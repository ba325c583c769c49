//===- CallTest.cpp - Compiled code, by hand, against the runtime ---------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "HostCache.h"
#include "Model.h"
#include "Program.h"

#include <thread>

using namespace llm;
using namespace llm::testing;

namespace {

class CallTest : public ::testing::Test {
protected:
  PagedKVCache &host() { return *p.cache->host->version; }

  void expectError(llm_code code, int64_t expected, int64_t actual,
                   int32_t site) {
    EXPECT_EQ(p.error.code, code) << p.error.message;
    EXPECT_EQ(p.error.expected, expected) << p.error.message;
    EXPECT_EQ(p.error.actual, actual) << p.error.message;
    EXPECT_EQ(p.error.site, site) << p.error.message;
  }

  /// The body fails as said, and the cache holds what it held.
  void fails(Program::Body body, llm_code code, int64_t expected,
             int64_t actual, int32_t site = 1) {
    EXPECT_EQ(p.invoke(std::move(body)), code);
    expectError(code, expected, actual, site);
    EXPECT_OK(host().checkInvariants());
    EXPECT_EQ(host().stats().versions, 1);
    EXPECT_TRUE(holds(host(), 0, kept));
  }

  void keep(const std::vector<int64_t> &tokens) {
    kept = tokens;
    EXPECT_OK(appendAll(host(), {{0}, {tokens}}));
  }

  Program p;
  std::vector<int64_t> kept;
};

} // namespace

//===----------------------------------------------------------------------===//
// Models and invocations
//===----------------------------------------------------------------------===//

TEST_F(CallTest, ForeignAbiIsRefused) {
  p.program.abi_version = LLM_ABI_VERSION + 1;
  EXPECT_EQ(p.create(), LLM_ABI_MISMATCH);
  expectError(LLM_ABI_MISMATCH, LLM_ABI_VERSION, LLM_ABI_VERSION + 1, -1);
  p.program.abi_version = LLM_ABI_VERSION;
  p.program.struct_size = 8;
  EXPECT_EQ(p.create(), LLM_ABI_MISMATCH);
  EXPECT_EQ(p.model, nullptr);
}

TEST_F(CallTest, CodeForAnotherCPUIsRefused) {
  p.program.cpu = "z80";
  p.program.cpu_features = "avx1024,ldir";
  EXPECT_EQ(p.create(), LLM_UNSUPPORTED);
  EXPECT_STREQ(p.error.message,
               "expected a CPU that runs code for z80, got one "
               "without avx1024, ldir");
  p.program.cpu = nullptr;
  p.program.cpu_features = "ldir";
  EXPECT_EQ(p.create(), LLM_UNSUPPORTED);
  EXPECT_STREQ(p.error.message,
               "expected a CPU that runs code for another one, "
               "got one without ldir");
  p.program.cpu_features = "";
  EXPECT_EQ(p.create(), LLM_OK);
}

#if defined(__x86_64__)
TEST_F(CallTest, CodeForThisCPURuns) {
  __builtin_cpu_init();
  p.program.cpu_features = "sse3,avx512f";
  EXPECT_EQ(p.create(),
            __builtin_cpu_supports("avx512f") ? LLM_OK : LLM_UNSUPPORTED);
}
#endif

TEST_F(CallTest, EntriesAreFoundByName) {
  ASSERT_EQ(p.create(), LLM_OK);
  EXPECT_EQ(llm_model_invoke(p.model, "other", nullptr, 0, nullptr, 0, nullptr,
                             0, &p.error),
            LLM_NOT_FOUND);
  EXPECT_STREQ(p.error.message, "no entry of 1 is named other");
  p.program.num_entries = 0;
  EXPECT_EQ(llm_model_invoke(p.model, nullptr, nullptr, 0, nullptr, 0, nullptr,
                             0, &p.error),
            LLM_NOT_FOUND);
}

TEST_F(CallTest, ArgumentsAreChecked) {
  ASSERT_EQ(p.invoke([](llm_call *) { return LLM_OK; }), LLM_OK);
  const Tensor tokens(std::vector<int32_t>{5, 99}), good(LLM_F32, {2, 3});
  const auto invoke = [&](const Tensor &in, const Tensor &out, int64_t expected,
                          int64_t actual, int32_t inputs = 1,
                          int32_t outputs = 1, int32_t caches = 1) {
    p.error = LLM_ERROR_INIT;
    EXPECT_EQ(llm_model_invoke(p.model, "main", &p.cache, caches, &in, inputs,
                               &out, outputs, &p.error),
              expected == actual ? LLM_OK : LLM_INVALID_ARGUMENT);
    expectError(expected == actual ? LLM_OK : LLM_INVALID_ARGUMENT, expected,
                actual, -1);
  };
  invoke(tokens, good, 0, 0);
  invoke(tokens, good, 1, 0, 0);
  invoke(tokens, good, 1, 0, 1, 0);
  invoke(tokens, good, 1, 0, 1, 1, 0);
  invoke(good, good, 1, 2);
  invoke(Tensor(LLM_I64, {2}), good, LLM_I32, LLM_I64);
  invoke(tokens, Tensor(LLM_F32, {3, 3}), 2, 3);
  invoke(tokens, Tensor(LLM_F32, {2, 4}), 3, 4);
}

TEST_F(CallTest, ElementsAreInRange) {
  ASSERT_EQ(p.invoke([](llm_call *) { return LLM_OK; }), LLM_OK);
  const Tensor out(LLM_F32, {2, 3});
  for (int32_t bad : {-1, 100, INT32_MIN}) {
    const Tensor in(std::vector<int32_t>{5, bad});
    EXPECT_EQ(llm_model_invoke(p.model, "main", &p.cache, 1, &in, 1, &out, 1,
                               &p.error),
              LLM_INVALID_ARGUMENT);
    expectError(LLM_INVALID_ARGUMENT, 100, bad, -1);
  }
  p.input.below_symbol = 0; // the number of tokens: 2
  const Tensor in(std::vector<int32_t>{1, 2});
  EXPECT_EQ(
      llm_model_invoke(p.model, "main", &p.cache, 1, &in, 1, &out, 1, &p.error),
      LLM_INVALID_ARGUMENT);
  expectError(LLM_INVALID_ARGUMENT, 2, 2, -1);
}

TEST_F(CallTest, CachesMustBeOfTheirGroupsType) {
  const auto fails = [&](int64_t expected, int64_t actual) {
    EXPECT_EQ(p.invoke([](llm_call *) { return LLM_OK; }),
              LLM_INVALID_ARGUMENT);
    expectError(LLM_INVALID_ARGUMENT, expected, actual, -1);
    p.group = {};
    p.group.dtype = -1;
  };
  p.group.block_size = 32;
  fails(32, 4);
  p.group.layers = 2;
  fails(2, 1);
  p.group.kv_heads = 3;
  fails(3, 2);
  p.group.head_dim = 8;
  fails(8, 4);
  p.group.max_sequences = 5;
  fails(5, 4);
  p.group.max_seq_len = 65;
  fails(65, 64);
  p.group.window = 9;
  fails(9, 0);
  p.group.dtype = LLM_F16;
  fails(LLM_F16, LLM_F32);
}

TEST_F(CallTest, CachesMustBeOfTheirGroupsElementType) {
  for (llm_dtype held : {LLM_F32, LLM_F16, LLM_BF16}) {
    Program program(configOf(1, 4, 16, 4, 64, held));
    for (llm_dtype expected : {LLM_F32, LLM_F16, LLM_BF16}) {
      program.group.dtype = expected;
      EXPECT_EQ(program.invoke([](llm_call *) { return LLM_OK; }),
                held == expected ? LLM_OK : LLM_INVALID_ARGUMENT);
    }
  }
}

TEST_F(CallTest, AWindowSaysHowManySinksThereAre) {
  llm_kv_config config = configOf(1, 4, 16);
  config.window = 9;
  config.sinks = 2;
  Program program(config);
  const auto invoke = [&] {
    program.error = LLM_ERROR_INIT;
    return program.invoke([](llm_call *) { return LLM_OK; });
  };
  EXPECT_EQ(invoke(), LLM_OK);
  program.group.window = 9;
  EXPECT_EQ(invoke(), LLM_INVALID_ARGUMENT);
  EXPECT_EQ(program.error.expected, 0);
  EXPECT_EQ(program.error.actual, 2);
  program.group.sinks = 2;
  EXPECT_EQ(invoke(), LLM_OK);
}

TEST_F(CallTest, TheSameCacheTwiceIsInvalid) {
  p.entry.num_kv = 2;
  ASSERT_EQ(p.create(), LLM_OK);
  const Tensor tokens(std::vector<int32_t>{5}), logits(LLM_F32, {1, 3});
  llm_kv_cache *caches[] = {p.cache, p.cache};
  EXPECT_EQ(llm_model_invoke(p.model, nullptr, caches, 2, &tokens, 1, &logits,
                             1, &p.error),
            LLM_INVALID_ARGUMENT);
  // Two objects on one pool are two caches.
  llm_kv_cache *copy;
  ASSERT_EQ(llm_kv_snapshot(p.cache, &copy, nullptr), LLM_OK);
  caches[1] = copy;
  EXPECT_EQ(p.invoke([](llm_call *) { return LLM_OK; }), LLM_INVALID_ARGUMENT);
  EXPECT_EQ(llm_model_invoke(p.model, nullptr, caches, 2, &tokens, 1, &logits,
                             1, &p.error),
            LLM_OK);
  llm_kv_destroy(copy);
}

TEST_F(CallTest, AnEntryMakesTheCachesItPromises) {
  p.entry.num_kv = 2;
  p.entry.num_fresh = 1;
  const auto invoke = [&](Program::Body body, llm_kv_cache *&made) {
    llm_kv_cache *caches[] = {p.cache, made};
    const llm_code code = p.invoke(std::move(body), caches, 2);
    made = caches[1];
    return code;
  };
  llm_kv_cache *made = nullptr;
  EXPECT_EQ(invoke([](llm_call *) { return LLM_OK; }, made), LLM_WRONG_STATE);
  EXPECT_STREQ(p.error.message,
               "expected entry main to make cache 1, got none");
  EXPECT_EQ(made, nullptr);
  // Of two versions, the last one stays.
  EXPECT_EQ(invoke(
                [](llm_call *call) -> llm_code {
                  uint64_t copy;
                  for (int i = 0; i < 2; ++i) {
                    if (llm_code code =
                            llm_rt_snapshot_kv(call, 0, call->kv[0], &copy))
                      return code;
                    if (llm_code code =
                            llm_rt_replace_kv(call, 0, call->kv[1], copy))
                      return code;
                  }
                  return LLM_OK;
                },
                made),
            LLM_OK);
  ASSERT_NE(made, nullptr);
  llm_kv_stats stats;
  EXPECT_EQ(llm_kv_get_stats(made, &stats, nullptr), LLM_OK);
  EXPECT_EQ(stats.versions, 2);
  llm_kv_destroy(made);
}

TEST_F(CallTest, ACacheThatAnEntryMakesComesAsNull) {
  p.entry.num_kv = 2;
  p.entry.num_fresh = 1;
  llm_kv_cache *caches[] = {p.cache, p.cache};
  EXPECT_EQ(p.invoke([](llm_call *) { return LLM_OK; }, caches, 2),
            LLM_INVALID_ARGUMENT);
  expectError(LLM_INVALID_ARGUMENT, 0, 1, -1);
}

TEST_F(CallTest, BatchesHaveFewerTokensThanAnI32Counts) {
  fails(
      [&](llm_call *call) {
        Tensor k(LLM_F32, {2, 0, 2, 4});
        k.sizes[1] = INT32_MAX;
        return llm_rt_append_kv(call, 1, call->kv[0], 0, &k, &k, nullptr);
      },
      LLM_INVALID_ARGUMENT, INT32_MAX, 2);
}

TEST_F(CallTest, TensorsAreNotNull) {
  fails(
      [&](llm_call *call) {
        return llm_rt_append_kv(call, 1, call->kv[0], 0, nullptr, nullptr,
                                nullptr);
      },
      LLM_INVALID_ARGUMENT, 4, 0);
}

TEST_F(CallTest, ReservingTakesNoNegativeNumber) {
  const int32_t id = 3;
  const int64_t tokens = -1;
  EXPECT_EQ(llm_kv_reserve_check(p.cache, &id, &tokens, 1, &p.error),
            LLM_INVALID_ARGUMENT);
  expectError(LLM_INVALID_ARGUMENT, 0, -1, -1);
  EXPECT_EQ(p.error.sequence, 3);
}

TEST_F(CallTest, ASecondCallGetsBusy) {
  EXPECT_EQ(p.invoke([&](llm_call *) {
    llm_kv_stats stats;
    llm_code code = LLM_OK;
    std::thread([&] {
      code = llm_kv_get_stats(p.cache, &stats, nullptr);
    }).join();
    EXPECT_EQ(code, LLM_BUSY);
    return LLM_OK;
  }),
            LLM_OK);
}

//===----------------------------------------------------------------------===//
// Transactions
//===----------------------------------------------------------------------===//

TEST_F(CallTest, OkCommits) {
  keep(range(0, 3));
  EXPECT_EQ(p.invoke([&](llm_call *call) {
    EXPECT_EQ(static_cast<const int32_t *>(call->inputs[0].data)[1], 6);
    return stepInCall(call, call->kv[0], {{0}, {range(3, 2)}}, p.config);
  }),
            LLM_OK);
  EXPECT_TRUE(holds(host(), 0, range(0, 5)));
}

TEST_F(CallTest, ErrorsNameTheSourceAndLeaveTheCacheAsItWas) {
  keep(range(0, 3));
  fails(
      [&](llm_call *call) {
        EXPECT_EQ(stepInCall(call, call->kv[0], {{0, 1}, {{9}, {8}}}, p.config),
                  LLM_OK);
        return stepInCall(call, call->kv[0], {{2}, {range(0, 62)}}, p.config);
      },
      LLM_OUT_OF_BLOCKS, 16, 14, 0);
  EXPECT_STREQ(p.error.op, "llm.begin_step");
  EXPECT_STREQ(p.error.file, "m.mlir");
  EXPECT_EQ(p.error.line, 7);
  EXPECT_EQ(p.error.column, 3);
  EXPECT_EQ(p.error.sequence, 2);
  EXPECT_STREQ(p.error.message, "sequence 2 needs 16 more blocks, 14 are free");
}

TEST_F(CallTest, IncompleteStepFailsAtTheEnd) {
  keep(range(0, 3));
  fails(
      [&](llm_call *call) {
        const BatchTensors batch({{0}, {{9}}});
        uint64_t step;
        return llm_rt_begin_step(call, 0, call->kv[0], &batch.ids,
                                 &batch.cuSeqlens, &step);
      },
      LLM_WRONG_STATE, 4, 3, -1);
  EXPECT_EQ(p.error.layer, 0);
}

TEST_F(CallTest, LeftoverVersionsAreDroppedAndCounted) {
  keep(range(0, 3));
  EXPECT_EQ(p.invoke([](llm_call *call) {
    uint64_t copy, other;
    llm_rt_snapshot_kv(call, 1, call->kv[0], &copy);
    llm_rt_snapshot_kv(call, 1, copy, &other);
    return llm_rt_drop_kv(call, 1, other);
  }),
            LLM_OK);
  EXPECT_EQ(p.model->leakedVersions, 1);
  EXPECT_EQ(host().stats().versions, 1);
}

TEST_F(CallTest, ReplacedHostIsAnotherVersionOrItself) {
  keep(range(0, 3));
  const auto replace = [&](llm_call *call, bool fail) {
    uint64_t copy;
    EXPECT_EQ(llm_rt_snapshot_kv(call, 1, call->kv[0], &copy), LLM_OK);
    EXPECT_EQ(stepInCall(call, call->kv[0], {{0}, {{50}}}, p.config), LLM_OK);
    EXPECT_EQ(stepInCall(call, copy, {{0}, {{60}}}, p.config), LLM_OK);
    EXPECT_EQ(llm_rt_replace_kv(call, 1, call->kv[0], call->kv[0]), LLM_OK);
    EXPECT_EQ(llm_rt_replace_kv(call, 1, call->kv[0], copy), LLM_OK);
    EXPECT_EQ(stepInCall(call, call->kv[0], {{0}, {{61}}}, p.config), LLM_OK);
    return fail ? llm_rt_fail(call, 1, LLM_UNSUPPORTED, "no", 1, 2) : LLM_OK;
  };
  fails([&](llm_call *call) { return replace(call, true); }, LLM_UNSUPPORTED, 1,
        2);
  EXPECT_EQ(p.invoke([&](llm_call *call) { return replace(call, false); }),
            LLM_OK);
  EXPECT_TRUE(holds(host(), 0, {0, 1, 2, 60, 61}));
  EXPECT_EQ(host().stats().versions, 1);
  EXPECT_EQ(p.model->leakedVersions, 0);
  EXPECT_OK(host().checkInvariants());
}

TEST_F(CallTest, OnlyAVersionOfTheCallReplacesAHosts) {
  p.entry.num_kv = 2;
  ASSERT_EQ(p.create(), LLM_OK);
  llm_kv_cache *other = p.makeCache();
  llm_kv_cache *caches[] = {p.cache, other};
  EXPECT_EQ(p.invoke(
                [](llm_call *call) {
                  return llm_rt_replace_kv(call, 1, call->kv[0], call->kv[1]);
                },
                caches, 2),
            LLM_WRONG_STATE);
  EXPECT_STREQ(p.error.message, "expected a version of the call, got the "
                                "handle of a host's cache");
  llm_kv_destroy(other);
}

TEST_F(CallTest, CreatedCacheMayReplaceTheHosts) {
  keep(range(0, 3));
  EXPECT_EQ(p.invoke([&](llm_call *call) {
    llm_kv_group_desc type = p.group;
    type.layers = 1;
    type.kv_heads = 2;
    type.head_dim = 4;
    type.dtype = LLM_F32;
    uint64_t kv;
    EXPECT_EQ(llm_rt_create_kv_cache(call, 1, &type, 7, &kv), LLM_OK);
    EXPECT_EQ(stepInCall(call, kv, {{0}, {{4}}}, p.config), LLM_OK);
    return llm_rt_replace_kv(call, 1, call->kv[0], kv);
  }),
            LLM_OK);
  kept = {4};
  EXPECT_TRUE(holds(host(), 0, kept));
  EXPECT_EQ(host().stats().total_blocks, 7);
  // A version of another type than the argument's cannot.
  p.group.max_sequences = 1;
  fails(
      [&](llm_call *call) {
        llm_kv_group_desc type = p.group;
        type.layers = 3;
        type.kv_heads = type.head_dim = type.max_sequences = 2;
        uint64_t kv;
        EXPECT_EQ(llm_rt_create_kv_cache(call, 1, &type, 7, &kv), LLM_OK);
        return llm_rt_replace_kv(call, 1, call->kv[0], kv);
      },
      LLM_INVALID_ARGUMENT, 1, 2, 1);
}
