//===- FaultTest.cpp - The k-th allocation fails, for every k -------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// This file replaces operator new of the test program. A call of compiled code
// that steps, forks, trims, releases, takes a snapshot and makes it the host's
// cache is repeated with the k-th allocation failing until none fails: each
// time the error is LLM_OUT_OF_MEMORY, and the cache is as it was.
//
//===----------------------------------------------------------------------===//

#include "HostCache.h"
#include "Program.h"

#include <cstdlib>
#include <new>

static thread_local int64_t allocationsLeft = -1; ///< -1: no limit

static void *allocate(std::size_t bytes, std::size_t alignment) {
  if (allocationsLeft == 0)
    throw std::bad_alloc();
  if (allocationsLeft > 0)
    --allocationsLeft;
  const std::size_t size = (bytes + alignment - 1) / alignment * alignment;
  if (void *memory = std::aligned_alloc(alignment, size ? size : alignment))
    return memory;
  throw std::bad_alloc();
}

void *operator new(std::size_t bytes) { return allocate(bytes, 16); }
void *operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void *memory) noexcept { std::free(memory); }
void operator delete(void *memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void *memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete(void *memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}

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
  return llm_rt_append_kv(call, 1, kv, step, &rows, &rows);
}

llm_code everything(llm_call *call, const Operands &o) {
  const uint64_t host = call->kv[0];
  uint64_t copy = 0;
  llm_code code = step(call, host, o.first, o.firstRows);
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

std::vector<std::vector<int32_t>> tables(const PagedKVCache &cache) {
  std::vector<std::vector<int32_t>> all;
  for (int32_t id = 0; id < cache.config().max_sequences; ++id)
    all.emplace_back(cache.blocks(id).begin(), cache.blocks(id).end());
  return all;
}

} // namespace

TEST(Faults, EveryAllocationOfACallMayFail) {
  const Operands operands;
  Program p(configOf(1, 4, 32, 4, 64));
  PagedKVCache &first = *p.cache->host->version;
  EXPECT_OK(appendAll(first, {{0, 1}, {range(0, 6), range(20, 5)}}));
  ASSERT_EQ(p.create(), LLM_OK);
  const auto before = tables(first);
  int64_t limit = 0;
  for (;; ++limit) {
    const llm_code code = p.invoke([&](llm_call *call) {
      allocationsLeft = limit;
      const llm_code result = everything(call, operands);
      allocationsLeft = -1;
      return result;
    });
    EXPECT_OK(p.cache->host->version->checkInvariants());
    if (code == LLM_OK)
      break;
    ASSERT_EQ(code, LLM_OUT_OF_MEMORY) << p.error.message;
    PagedKVCache &now = *p.cache->host->version;
    ASSERT_EQ(tables(now), before) << "after allocation " << limit;
    ASSERT_EQ(now.stats().versions, 1);
    ASSERT_EQ(now.stats().live_blocks, 4);
    ASSERT_TRUE(holds(now, 0, range(0, 6)));
    ASSERT_TRUE(holds(now, 1, range(20, 5)));
  }
  EXPECT_GT(limit, 10);
  PagedKVCache &after = *p.cache->host->version;
  EXPECT_EQ(after.length(0), 4);
  EXPECT_EQ(after.length(1), 0);
  EXPECT_EQ(after.length(2), 4);
}

TEST(Faults, WarmDecodingAllocatesNothing) {
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
