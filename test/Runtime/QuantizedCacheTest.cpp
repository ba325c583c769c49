//===- QuantizedCacheTest.cpp - Caches whose pages hold scales ------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Scales share the fate of their rows: what is read of a sequence is what a
// cache that only ever held this sequence reads, whatever was forked, copied,
// trimmed or undone. Every head of a token has another scale.
//
//===----------------------------------------------------------------------===//

#include "Digest.h"
#include "KVPool.h"
#include "Testing.h"

#include <cmath>

using namespace llm;
using namespace llm::testing;

namespace {

struct Storages {
  const char *name;
  llm_kv_storage k, v;
  llm_dtype dtype;
};

constexpr llm_kv_storage kOwn = LLM_KV_STORAGE_DTYPE, kI8 = LLM_KV_STORAGE_I8,
                         kF8 = LLM_KV_STORAGE_F8E4M3FN;

llm_kv_config configFor(const Storages &s, int32_t blockSize = 3) {
  llm_kv_config config = configOf(2, blockSize, 24, 6, 64, s.dtype);
  config.head_dim = 5;
  config.k_storage = s.k;
  config.v_storage = s.v;
  return config;
}

/// Rows whose scales differ: token t at head h is about 2^(t % 8 + h).
Tensor unevenRows(const llm_kv_config &c, const std::vector<int64_t> &tokens,
                  int64_t layer, int64_t component) {
  Tensor rows = rowsOf(c, tokens, layer, component);
  const int64_t row = c.head_dim;
  for (int64_t i = 0; i < int64_t(tokens.size()) * c.kv_heads * row; ++i) {
    const int64_t token = tokens[i / row / c.kv_heads];
    const int64_t head = i / row % c.kv_heads;
    rows.set(i, std::ldexp(rows.get(i), static_cast<int>(token % 8 + head)));
  }
  return rows;
}

Status append(PagedKVCache &cache, int32_t id,
              const std::vector<int64_t> &tokens) {
  const Batch batch = {{id}, {tokens}};
  KVStep step;
  LLM_TRY(begin(cache, batch, step));
  for (int32_t layer = 0; layer < cache.config().layers; ++layer)
    LLM_TRY(cache.append(step, layer,
                         unevenRows(cache.config(), tokens, layer, 0),
                         unevenRows(cache.config(), tokens, layer, 1)));
  return cache.endStep();
}

/// What a lookup of a sequence finds at all layers.
std::vector<char> read(PagedKVCache &cache, int32_t id) {
  const llm_kv_config &c = cache.config();
  std::vector<char> all;
  for (int32_t layer = 0; layer < c.layers; ++layer) {
    Tensor k(c.dtype, {1, cache.length(id), c.kv_heads, c.head_dim}), v = k;
    EXPECT_OK(cache.lookup({&id, 1}, layer, k, v));
    all.insert(all.end(), k.bytes.begin(), k.bytes.end());
    all.insert(all.end(), v.bytes.begin(), v.bytes.end());
  }
  return all;
}

class QuantizedCacheTest : public ::testing::TestWithParam<Storages> {
protected:
  /// Does a sequence hold these tokens as a cache of its own would?
  void expectHolds(PagedKVCache &cache, int32_t id,
                   const std::vector<int64_t> &tokens) {
    auto alone = make(configFor(GetParam(), 64));
    ASSERT_OK(append(*alone, 0, tokens));
    EXPECT_EQ(cache.length(id), int32_t(tokens.size()));
    EXPECT_EQ(read(cache, id), read(*alone, 0)) << "sequence " << id;
    EXPECT_OK(cache.checkInvariants());
  }
};

std::vector<int64_t> joined(std::vector<int64_t> a,
                            const std::vector<int64_t> &b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

} // namespace

TEST_P(QuantizedCacheTest, ReadsAreNearWhatWasAppended) {
  auto cache = make(configFor(GetParam()));
  const std::vector<int64_t> tokens = range(0, 17);
  ASSERT_OK(append(*cache, 0, tokens));
  const llm_kv_config &c = cache->config();
  const int32_t id = 0;
  for (int32_t layer : {0, 1}) {
    Tensor k(c.dtype, {1, 17, c.kv_heads, c.head_dim}), v = k;
    ASSERT_OK(cache->lookup({&id, 1}, layer, k, v));
    Tensor given[] = {unevenRows(c, tokens, layer, 0),
                      unevenRows(c, tokens, layer, 1)};
    for (int64_t i = 0; i < 17 * c.kv_heads * c.head_dim; ++i)
      for (int component : {0, 1}) {
        // The largest of a row is 128 * 2^(token % 8 + head) or less.
        const int64_t token = i / c.head_dim / c.kv_heads;
        const int64_t head = i / c.head_dim % c.kv_heads;
        const double largest =
            std::ldexp(128, static_cast<int>(token % 8 + head));
        EXPECT_NEAR((component ? v : k).get(i), given[component].get(i),
                    largest / 28);
      }
  }
}

TEST_P(QuantizedCacheTest, BytesAreThoseOfNumbersAndScales) {
  const Storages s = GetParam();
  const auto bytesOf = [&](llm_kv_storage storage, int64_t tokens) {
    const int64_t numbers =
        tokens * 5 * elementBytes(storedType(s.dtype, storage));
    return (numbers + 3) / 4 * 4 + (storage ? 4 * tokens : 0);
  };
  for (int32_t blockSize : {1, 3, 16}) {
    auto cache = make(configFor(s, blockSize));
    EXPECT_EQ(cache->stats().block_bytes,
              2 * 2 * (bytesOf(s.k, blockSize) + bytesOf(s.v, blockSize)));
  }
}

TEST_P(QuantizedCacheTest, CopyOnWriteTakesTheScalesAlong) {
  auto cache = make(configFor(GetParam()));
  ASSERT_OK(append(*cache, 0, range(0, 8))); // blocks of 3, 3 and 2
  const int32_t parents[] = {0, 0}, children[] = {1, 2};
  const int64_t lengths[] = {8, 7};
  ASSERT_OK(cache->fork(parents, children, lengths));
  ASSERT_OK(append(*cache, 1, range(30, 5)));
  ASSERT_OK(append(*cache, 2, range(40, 2)));
  ASSERT_OK(append(*cache, 0, range(50, 1)));
  EXPECT_EQ(cache->stats().cow_blocks, 2); // 2's, then 0 is alone with its own
  const KVPages pages = cache->pool()->pages(0);
  const auto rowBytes = [](const KVPlane &plane) {
    return plane.tokenStride + (plane.scales ? 4 : 0);
  };
  EXPECT_EQ(cache->stats().copied_bytes,
            (2 + 1) * 2 * 2 * (rowBytes(pages.k) + rowBytes(pages.v)));
  expectHolds(*cache, 0, joined(range(0, 8), range(50, 1)));
  expectHolds(*cache, 1, joined(range(0, 8), range(30, 5)));
  expectHolds(*cache, 2, joined(range(0, 7), range(40, 2)));
}

TEST_P(QuantizedCacheTest, TrimmedSequencesGoOn) {
  auto cache = make(configFor(GetParam()));
  ASSERT_OK(append(*cache, 0, range(0, 11)));
  const int32_t id = 0;
  const int64_t length = 4;
  ASSERT_OK(cache->trim({&id, 1}, {&length, 1}));
  expectHolds(*cache, 0, range(0, 4));
  ASSERT_OK(append(*cache, 0, range(60, 6)));
  expectHolds(*cache, 0, joined(range(0, 4), range(60, 6)));
}

TEST_P(QuantizedCacheTest, AbortBringsScalesBack) {
  auto cache = make(configFor(GetParam()));
  ASSERT_OK(append(*cache, 0, range(0, 8)));
  const uint64_t before = Digest::of(*cache);
  cache->beginTransaction();
  const int32_t id = 0;
  const int64_t length = 2;
  ASSERT_OK(cache->trim({&id, 1}, {&length, 1}));
  ASSERT_OK(append(*cache, 0, range(70, 9)));
  cache->abortTransaction();
  EXPECT_EQ(Digest::of(*cache), before);
  expectHolds(*cache, 0, range(0, 8));
}

/// A free block is NaN in what kernels read of it: in its numbers or scales.
TEST_P(QuantizedCacheTest, FreeBlocksArePoisoned) {
  auto cache = make(configFor(GetParam()));
  ASSERT_OK(append(*cache, 0, range(0, 3)));
  const int32_t block = cache->blocks(0)[0], id = 0;
  const auto readBlock = [&](const KVPlane &plane, int64_t head,
                             int64_t token) {
    std::vector<float> row(5);
    readRow(plane, block, head, token, 5, row.data(), LLM_F32);
    return row;
  };
  ASSERT_OK(cache->release({&id, 1}));
  for (int32_t layer : {0, 1}) {
    const KVPages pages = cache->pool()->pages(layer);
    for (const KVPlane &plane : {pages.k, pages.v})
      for (int64_t head : {0, 1})
        for (int64_t token : {0, 1, 2})
          for (float x : readBlock(plane, head, token))
            EXPECT_TRUE(std::isnan(x));
  }
}

TEST_P(QuantizedCacheTest, RowsThatAreNotFiniteReadAsNaNAlone) {
  auto cache = make(configFor(GetParam()));
  const llm_kv_config &c = cache->config();
  const Batch batch = {{0}, {range(0, 4)}};
  KVStep step;
  ASSERT_OK(begin(*cache, batch, step));
  for (int32_t layer : {0, 1}) {
    Tensor k = unevenRows(c, batch.flat(), layer, 0), v = k;
    k.set((1 * 2 + 1) * 5 + 2, NAN); // token 1, head 1
    v.set((2 * 2 + 0) * 5 + 4, -INFINITY);
    ASSERT_OK(cache->append(step, layer, k, v));
  }
  ASSERT_OK(cache->endStep());
  Tensor k(c.dtype, {1, 4, 2, 5}), v = k;
  const int32_t id = 0;
  ASSERT_OK(cache->lookup({&id, 1}, 1, k, v));
  for (int64_t i = 0; i < 4 * 2 * 5; ++i) {
    const int64_t row = i / 5;
    EXPECT_EQ(std::isnan(k.get(i)), c.k_storage ? row == 3 : i == 17) << i;
    EXPECT_EQ(std::isnan(v.get(i)), c.v_storage && row == 4) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Storages, QuantizedCacheTest,
    ::testing::Values(Storages{"I8", kI8, kI8, LLM_F32},
                      Storages{"F8", kF8, kF8, LLM_BF16},
                      Storages{"I8F8", kI8, kF8, LLM_F16},
                      Storages{"F16I8", kOwn, kI8, LLM_F16},
                      Storages{"F8F32", kF8, kOwn, LLM_F32}),
    [](const auto &info) { return info.param.name; });
