//===- ConcurrencyTest.cpp - One writer, many probes ----------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The contract of CAPI.h, for TSan: all threads of a test start at one barrier.
//
//===----------------------------------------------------------------------===//

#include "Program.h"

#include "HostCache.h"

#include <atomic>
#include <thread>

using namespace llm;
using namespace llm::testing;

namespace {

constexpr int rounds = 300;

/// Runs all bodies at once, each on a thread of its own.
void together(const std::vector<std::function<void()>> &bodies) {
  std::atomic<size_t> waiting = bodies.size();
  std::vector<std::thread> threads;
  for (const auto &body : bodies)
    threads.emplace_back([&] {
      for (--waiting; waiting > 0;)
        continue;
      body();
    });
  for (std::thread &thread : threads)
    thread.join();
}

class Concurrency : public ::testing::Test {
protected:
  /// All five probes; their codes are OK, or that of meeting a writer.
  void probe(llm_kv_cache *cache, bool mayMeet = true) {
    llm_kv_stats stats = {};
    llm_kv_work work = {};
    llm_kv_config config = {};
    int64_t length = 0;
    int32_t id = 0;
    for (llm_code code : {llm_kv_get_stats(cache, &stats, nullptr),
                          llm_kv_get_work(cache, &work, nullptr),
                          llm_kv_get_config(cache, &config, nullptr),
                          llm_kv_length(cache, 0, &length, nullptr),
                          llm_kv_acquire_sequence(cache, &id, nullptr)}) {
      EXPECT_TRUE(code == LLM_OK || (mayMeet && code == LLM_BUSY)) << code;
      met += code == LLM_BUSY;
    }
    EXPECT_EQ(stats.live_blocks + stats.free_blocks + stats.pending_blocks,
              stats.total_blocks);
  }

  /// A whole step of the host. The first code that is not OK.
  llm_code step(llm_kv_cache *cache, int32_t id) {
    const int32_t cu[] = {0, 2};
    const Tensor k = rowsOf(p.config, {1, 2}, 0, 0);
    llm_kv_step *step = nullptr;
    llm_code code = llm_kv_begin(cache, &id, cu, 1, &step, nullptr);
    if (code)
      return code;
    code = llm_kv_append(step, 0, &k, &k, nullptr);
    if (!code)
      code = llm_kv_commit(step, nullptr);
    if (code)
      llm_kv_abort(step);
    return code;
  }

  llm_code invoke(llm_kv_cache *cache) {
    const Tensor tokens(std::vector<int32_t>{5, 6});
    const Tensor logits(LLM_F32, {2, 3});
    return llm_model_invoke(p.model, nullptr, &cache, 1, &tokens, 1, &logits, 1,
                            nullptr);
  }

  Program p{configOf(1, 4, 64, 4, 64)};
  std::atomic<int> met = 0; ///< probes that met a writer
};

} // namespace

TEST_F(Concurrency, ProbesNeverMeetEachOther) {
  ASSERT_EQ(step(p.cache, 0), LLM_OK);
  const auto look = [&] {
    for (int i = 0; i < rounds; ++i)
      probe(p.cache, /*mayMeet=*/false);
  };
  together({look, look, look, look});
}

TEST_F(Concurrency, WriterNeverMeetsProbes) {
  std::atomic<bool> done = false;
  const auto write = [&] {
    const int32_t parent = 0, child = 1, both[] = {0, 1};
    const int64_t one = 1;
    for (int i = 0; i < rounds; ++i) {
      EXPECT_EQ(step(p.cache, 0), LLM_OK);
      EXPECT_EQ(llm_kv_fork(p.cache, parent, &child, 1, 2, nullptr), LLM_OK);
      llm_kv_cache *copy = nullptr;
      EXPECT_EQ(llm_kv_snapshot(p.cache, &copy, nullptr), LLM_OK);
      EXPECT_EQ(step(p.cache, 1), LLM_OK);
      EXPECT_EQ(llm_kv_trim(p.cache, &child, &one, 1, nullptr), LLM_OK);
      EXPECT_EQ(llm_kv_release(p.cache, both, 2, nullptr), LLM_OK);
      EXPECT_EQ(llm_kv_check(p.cache, nullptr), LLM_OK);
      llm_kv_destroy(copy);
    }
    done = true;
  };
  const auto look = [&] {
    do
      probe(p.cache);
    while (!done);
  };
  together({write, look, look});
}

TEST_F(Concurrency, SecondWriterIsBusyAndChangesNothing) {
  llm_kv_cache *copy = nullptr;
  ASSERT_EQ(llm_kv_snapshot(p.cache, &copy, nullptr), LLM_OK);
  std::atomic<int64_t> committed = 0;
  const auto write = [&](llm_kv_cache *cache, int32_t id) {
    return [&, cache, id] {
      for (int i = 0; i < rounds; ++i) {
        const llm_code code = step(cache, id);
        EXPECT_TRUE(code == LLM_OK || code == LLM_BUSY) << code;
        committed += code == LLM_OK ? 2 : 0;
        const int64_t none = 0;
        if (i % 16 == 0)
          while (llm_kv_trim(cache, &id, &none, 1, nullptr) == LLM_BUSY)
            std::this_thread::yield();
      }
    };
  };
  together({write(p.cache, 0), write(p.cache, 1), write(copy, 0)});
  llm_kv_stats stats;
  EXPECT_EQ(llm_kv_get_stats(p.cache, &stats, nullptr), LLM_OK);
  EXPECT_EQ(stats.appended_tokens, committed);
  EXPECT_EQ(llm_kv_check(p.cache, nullptr), LLM_OK);
  llm_kv_destroy(copy);
}

TEST_F(Concurrency, CachesOfOneModelRunInParallel) {
  ASSERT_EQ(p.invoke([&](llm_call *call) {
    void *data;
    llm_code code = llm_rt_workspace(call, 1, 5000, &data);
    if (!code)
      code = stepInCall(call, call->kv[0], {{0}, {{7}}}, p.config);
    return code;
  }),
            LLM_OK);
  std::vector<std::function<void()>> bodies;
  for (int thread = 0; thread < 4; ++thread)
    bodies.push_back([&] {
      llm_kv_cache *cache = p.makeCache();
      for (int i = 0; i < 60; ++i)
        EXPECT_EQ(invoke(cache), LLM_OK);
      EXPECT_TRUE(holds(*cache->host->version, 0, std::vector<int64_t>(60, 7)));
      llm_kv_destroy(cache);
    });
  together(bodies);
}

// The entry gives the object another version, even another pool, while others
// ask what it is.
TEST_F(Concurrency, VersionIsReplacedUnderProbes) {
  ASSERT_EQ(p.invoke([&](llm_call *call) {
    llm_kv_group_desc type = {};
    type.layers = 1;
    type.kv_heads = 2;
    type.head_dim = type.block_size = 4;
    type.dtype = LLM_F32;
    uint64_t kv = 0;
    const llm_code code = llm_rt_create_kv_cache(call, 1, &type, 8, &kv);
    return code ? code : llm_rt_replace_kv(call, 1, call->kv[0], kv);
  }),
            LLM_OK);
  // Neither side ends before the other has had its rounds beside it. Relaxed:
  // what is counted must not order what TSan looks at.
  std::atomic<int> replaced = 0, probed = 0;
  const auto write = [&] {
    do {
      EXPECT_EQ(invoke(p.cache), LLM_OK);
      replaced.fetch_add(1, std::memory_order_relaxed);
    } while (replaced.load(std::memory_order_relaxed) < rounds ||
             probed.load(std::memory_order_relaxed) < rounds);
  };
  const auto look = [&] {
    do {
      probe(p.cache);
      probed.fetch_add(1, std::memory_order_relaxed);
    } while (replaced.load(std::memory_order_relaxed) < rounds ||
             probed.load(std::memory_order_relaxed) < rounds);
  };
  together({write, look, look});
  EXPECT_EQ(llm_kv_check(p.cache, nullptr), LLM_OK);
}

TEST_F(Concurrency, CancelFromAnotherThread) {
  std::atomic<bool> running = false;
  std::atomic<llm_code> code = LLM_OK;
  ASSERT_EQ(p.create(), LLM_OK);
  together({[&] {
              code = p.invoke([&](llm_call *call) {
                running = true;
                void *data;
                llm_code result = LLM_OK;
                while (!result) {
                  int64_t mark;
                  llm_rt_workspace_mark(call, 1, &mark);
                  result = llm_rt_workspace(call, 1, 64, &data);
                  if (!result)
                    result = llm_rt_workspace_release(call, 1, mark);
                }
                return result;
              });
            },
            [&] {
              while (!running)
                std::this_thread::yield();
              EXPECT_EQ(llm_kv_cancel(p.cache, 1, nullptr), LLM_OK);
            }});
  EXPECT_EQ(code, LLM_CANCELLED);
}

// Snapshots end on any thread, while their pool is in use.
TEST_F(Concurrency, SnapshotsEndWhileTheirPoolIsInUse) {
  std::vector<llm_kv_cache *> copies(60);
  ASSERT_EQ(step(p.cache, 0), LLM_OK);
  for (llm_kv_cache *&copy : copies)
    ASSERT_EQ(llm_kv_snapshot(p.cache, &copy, nullptr), LLM_OK);
  together({[&] {
              for (llm_kv_cache *copy : copies)
                llm_kv_destroy(copy);
            },
            [&] {
              const int32_t id = 0;
              for (int i = 0; i < 60; ++i) {
                step(p.cache, 0);
                llm_kv_release(p.cache, &id, 1, nullptr);
              }
            }});
  llm_kv_stats stats;
  EXPECT_EQ(llm_kv_get_stats(p.cache, &stats, nullptr), LLM_OK);
  EXPECT_EQ(stats.versions, 1);
  EXPECT_EQ(llm_kv_check(p.cache, nullptr), LLM_OK);
}
