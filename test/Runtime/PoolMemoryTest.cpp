//===- PoolMemoryTest.cpp - What a pool takes of the machine --------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A pool is address space: memory comes with tokens, in pages of 4 KB, or of
// 2 MB where layers are large and the system has such pages.
//
//===----------------------------------------------------------------------===//

#include "KVPool.h"
#include "Testing.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

using namespace llm;
using namespace llm::testing;

namespace {

constexpr int64_t kMB = int64_t(1) << 20;

/// A pool whose layers have `layerMB` MB each.
std::unique_ptr<PagedKVCache> makePool(int32_t layers, int64_t layerMB,
                                       int32_t blockSize = 16) {
  llm_kv_config config = configOf(layers, blockSize, 0, 8, 1024, LLM_F16);
  config.kv_heads = 8;
  config.head_dim = 128;
  config.poison = 0;
  config.num_blocks = layerMB * 256 / blockSize - 1; // and the guard
  return make(config);
}

int64_t blockBytes(PagedKVCache &cache) {
  return cache.pool()->tokenBytes() * cache.config().block_size;
}

/// Bytes of the pool that are memory, all layers.
int64_t residentBytes(PagedKVCache &cache) {
  const llm_kv_config &c = cache.config();
  const int64_t page = sysconf(_SC_PAGESIZE);
  std::vector<unsigned char> pages(blockBytes(cache) * (c.num_blocks + 1) *
                                   c.layers / page);
  EXPECT_EQ(
      mincore(cache.pool()->pages(0).k.data, pages.size() * page, pages.data()),
      0);
  return page * std::count_if(pages.begin(), pages.end(),
                              [](unsigned char in) { return in & 1; });
}

/// Has the system been asked for large pages at this address?
bool asksForLargePages(const void *address) {
  std::ifstream in("/proc/self/smaps");
  bool found = false;
  for (std::string line; std::getline(in, line);) {
    uintptr_t begin = 0, end = 0;
    char dash = 0;
    if (std::istringstream range(line);
        range >> std::hex >> begin >> dash >> end && dash == '-')
      found = begin <= uintptr_t(address) && uintptr_t(address) < end;
    else if (found && line.rfind("VmFlags:", 0) == 0)
      return line.find(" hg") != std::string::npos;
  }
  return false;
}

} // namespace

TEST(PoolMemory, FewTokensTakeLittleOfALargePool) {
  auto cache = makePool(4, 1024);
  ASSERT_TRUE(cache);
  EXPECT_OK(appendAll(*cache, {{0, 1}, {range(0, 5), range(5, 20)}}));
  EXPECT_GE(residentBytes(*cache), 4 * 3 * blockBytes(*cache) / 2);
  EXPECT_LE(residentBytes(*cache), 4 * 2 * 2 * kMB);
}

TEST(PoolMemory, SmallLayersTakeSmallPages) {
  auto cache = makePool(32, 2);
  ASSERT_TRUE(cache);
  EXPECT_OK(appendAll(*cache, {{0}, {range(0, 5)}}));
  EXPECT_LE(residentBytes(*cache), 32 * 2 * blockBytes(*cache));
}

TEST(PoolMemory, LargeLayersAskForLargePages) {
  if (!std::ifstream("/sys/kernel/mm/transparent_hugepage/enabled"))
    GTEST_SKIP() << "this system has no large pages";
  auto large = makePool(2, 4), small = makePool(2, 3);
  auto sparse = makePool(2, 64, 512); // heads of a token are 128 KB apart
  ASSERT_TRUE(large && small && sparse);
  EXPECT_TRUE(asksForLargePages(large->pool()->pages(1).k.data));
  EXPECT_FALSE(asksForLargePages(small->pool()->pages(1).k.data));
  EXPECT_FALSE(asksForLargePages(sparse->pool()->pages(1).k.data));
}
