//===- GroupedCacheTest.cpp - Caches that hold groups of i4 ---------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A model holds what each sequence reads as, number by number, and quantizes a
// group of K when an append completes it: as #llm.kv_storage defines, with no
// blocks, copies or exact rows beside them. Whatever is cut, forked, copied and
// undone, the cache reads the same bits.
//
//===----------------------------------------------------------------------===//

#include "Faults.h"
#include "GroupOracle.h"
#include "KVPool.h"
#include "Testing.h"

#include <map>
#include <random>
#include <sys/mman.h>
#include <unistd.h>

using namespace llm;
using namespace llm::testing;

namespace {

llm_kv_config configFor(int32_t headDim, int32_t blockSize = 64,
                        int64_t numBlocks = 64) {
  llm_kv_config config = configOf(2, blockSize, numBlocks, 6, 1024);
  config.head_dim = headDim;
  config.k_storage = config.v_storage = LLM_KV_STORAGE_I4;
  return config;
}

/// Numbers of a token that are no integers, with an outlier channel.
Tensor rowsFor(const llm_kv_config &c, const std::vector<int64_t> &tokens,
               int64_t layer, int64_t component) {
  Tensor rows = rowsOf(c, tokens, layer, component);
  for (int64_t i = 0; i < rows.count; ++i)
    rows.set(i, rows.get(i) * 0.37f + (i % c.head_dim == 1 ? 1000 : 0));
  return rows;
}

//===----------------------------------------------------------------------===//
// The model
//===----------------------------------------------------------------------===//

/// K and V of a sequence at one layer: [token][head * channel].
struct Held {
  std::vector<std::vector<float>> k, v;
};

class Model {
public:
  explicit Model(const llm_kv_config &config) : c(config) {}

  void append(int32_t id, const std::vector<int64_t> &tokens) {
    for (int32_t layer = 0; layer < c.layers; ++layer) {
      Held &held = at(id, layer);
      const size_t start = held.k.size();
      add(held.k, rowsFor(c, tokens, layer, 0));
      add(held.v, rowsFor(c, tokens, layer, 1));
      for (size_t t = start; t < held.v.size(); ++t)
        quantizeToken(held.v[t]);
      for (size_t g = 1; 32 * (g + 1) <= held.k.size(); ++g)
        if (32 * (g + 1) > start)
          quantizeGroup(held.k, 32 * g);
    }
  }
  void cut(int32_t id, int64_t length) {
    for (int32_t layer = 0; layer < c.layers; ++layer) {
      at(id, layer).k.resize(length);
      at(id, layer).v.resize(length);
    }
  }
  void fork(int32_t parent, int32_t child, int64_t length) {
    for (int32_t layer = 0; layer < c.layers; ++layer)
      at(child, layer) = at(parent, layer);
    cut(child, length);
  }
  int64_t length(int32_t id) { return int64_t(at(id, 0).k.size()); }

  void expect(PagedKVCache &cache, int32_t id) {
    const int64_t n = length(id);
    ASSERT_EQ(cache.length(id), n);
    for (int32_t layer = 0; layer < c.layers && n; ++layer) {
      Tensor k(LLM_F32, {1, n, c.kv_heads, c.head_dim}), v = k;
      ASSERT_OK(cache.lookup({&id, 1}, layer, k, v));
      for (int64_t t = 0; t < n; ++t) {
        const int64_t row = c.kv_heads * c.head_dim;
        const auto *kRow = k.as<float>() + t * row,
                   *vRow = v.as<float>() + t * row;
        ASSERT_EQ(std::vector<float>(kRow, kRow + row), at(id, layer).k[t])
            << "K of token " << t << " of sequence " << id;
        ASSERT_EQ(std::vector<float>(vRow, vRow + row), at(id, layer).v[t])
            << "V of token " << t << " of sequence " << id;
      }
    }
  }
  void expectAll(PagedKVCache &cache) {
    for (int32_t id = 0; id < c.max_sequences; ++id)
      expect(cache, id);
    EXPECT_OK(cache.checkInvariants());
  }

private:
  Held &at(int32_t id, int32_t layer) { return sequences[{id, layer}]; }

  void add(std::vector<std::vector<float>> &held, Tensor rows) const {
    const int64_t row = c.kv_heads * c.head_dim;
    for (const float *x = rows.as<float>(), *end = x + rows.count; x < end;
         x += row)
      held.emplace_back(x, x + row);
  }
  void quantizeToken(std::vector<float> &row) const {
    for (int32_t head = 0; head < c.kv_heads; ++head)
      for (int32_t first = 0; first < c.head_dim; first += 32) {
        const auto begin = row.begin() + head * c.head_dim + first;
        const auto end = begin + std::min(32, c.head_dim - first);
        const GroupOracle oracle({begin, end});
        std::transform(begin, end, begin,
                       [&](float x) { return oracle.read(x); });
      }
  }
  void quantizeGroup(std::vector<std::vector<float>> &k, size_t first) const {
    for (int32_t i = 0; i < c.kv_heads * c.head_dim; ++i) {
      std::vector<float> group;
      for (size_t t = first; t < first + 32; ++t)
        group.push_back(k[t][i]);
      const GroupOracle oracle(group);
      for (size_t t = first; t < first + 32; ++t)
        k[t][i] = oracle.read(k[t][i]);
    }
  }

  llm_kv_config c;
  std::map<std::pair<int32_t, int32_t>, Held> sequences;
};

//===----------------------------------------------------------------------===//
// A cache and its model
//===----------------------------------------------------------------------===//

Status append(PagedKVCache &cache, int32_t id,
              const std::vector<int64_t> &tokens) {
  const Batch batch = {{id}, {tokens}};
  KVStep step;
  LLM_TRY(begin(cache, batch, step));
  for (int32_t layer = 0; layer < cache.config().layers; ++layer)
    LLM_TRY(cache.append(step, layer, rowsFor(cache.config(), tokens, layer, 0),
                         rowsFor(cache.config(), tokens, layer, 1)));
  return cache.endStep();
}

struct Pair {
  std::unique_ptr<PagedKVCache> cache;
  Model model;
  int64_t next = 0;

  explicit Pair(const llm_kv_config &config)
      : cache(make(config)), model(config) {}

  void append(int32_t id, int64_t n) {
    const std::vector<int64_t> tokens = range(next, n);
    next += n;
    ASSERT_OK(::append(*cache, id, tokens));
    model.append(id, tokens);
  }
  void trim(int32_t id, int64_t length) {
    ASSERT_OK(cache->trim({&id, 1}, {&length, 1}));
    model.cut(id, length);
  }
  void release(int32_t id) {
    ASSERT_OK(cache->release({&id, 1}));
    model.cut(id, 0);
  }
  void fork(int32_t parent, int32_t child, int64_t length) {
    ASSERT_OK(cache->fork({&parent, 1}, {&child, 1}, {&length, 1}));
    model.fork(parent, child, length);
  }
  void expect() { model.expectAll(*cache); }
};

/// Pages of memory that the exact groups of a pool take.
int64_t exactPages(const PagedKVCache &cache) {
  const llm_kv_config &c = cache.config();
  const int64_t page = sysconf(_SC_PAGESIZE);
  int64_t pages = 0;
  for (int32_t layer = 0; layer < c.layers; ++layer) {
    const ExactGroups exact = cache.pool()->pages(layer).k.exact;
    const int64_t groups = (c.num_blocks + 1) * exact.blockGroups;
    std::vector<unsigned char> there(groups * exact.groupStride / page);
    EXPECT_EQ(mincore(exact.rows, groups * exact.groupStride, there.data()), 0);
    for (unsigned char one : there)
      pages += one & 1;
  }
  return pages;
}

} // namespace

//===----------------------------------------------------------------------===//
// Reads
//===----------------------------------------------------------------------===//

TEST(GroupedCacheTest, EveryCutOfAnAppendReadsTheSame) {
  for (int32_t dim : {1, 5, 31, 32, 33, 64, 80, 300})
    for (int64_t step : {1, 7, 31, 32, 33, 100, 200}) {
      SCOPED_TRACE(dim);
      Pair p(configFor(dim));
      while (p.next < 200)
        p.append(0, std::min<int64_t>(step, 200 - p.next));
      p.expect();
    }
}

TEST(GroupedCacheTest, TheFirstGroupAndTheNewestAreExact) {
  Pair p(configFor(8, 32));
  p.append(0, 32);
  p.append(0, 70);
  const llm_kv_config &c = p.cache->config();
  const int32_t id = 0;
  Tensor k(LLM_F32, {1, 102, 2, 8}), v = k;
  ASSERT_OK(p.cache->lookup({&id, 1}, 1, k, v));
  Tensor given = rowsFor(c, range(0, 102), 1, 0);
  for (int64_t t = 0; t < 102; ++t) {
    int64_t same = 0;
    for (int64_t i = 0; i < 16; ++i)
      same += k.get(t * 16 + i) == given.get(t * 16 + i);
    EXPECT_EQ(same == 16, t < 32 || t >= 96) << t;
  }
}

TEST(GroupedCacheTest, NumbersThatAreNotFiniteSpoilTheirGroupAlone) {
  llm_kv_config c = configFor(40, 32);
  c.layers = 1;
  auto cache = make(c);
  Tensor k = rowsFor(c, range(0, 64), 0, 0), v = rowsFor(c, range(0, 64), 0, 1);
  k.set((40 * 2 + 1) * 40 + 7, NAN); // token 40, head 1, channel 7
  k.set((5 * 2 + 0) * 40 + 3, INFINITY);
  v.set((50 * 2 + 0) * 40 + 33, -INFINITY);
  KVStep step;
  ASSERT_OK(begin(*cache, {{0}, {range(0, 64)}}, step));
  ASSERT_OK(cache->append(step, 0, k, v));
  ASSERT_OK(cache->endStep());
  Tensor kRead(LLM_F32, {1, 64, 2, 40}), vRead = kRead;
  const int32_t id = 0;
  ASSERT_OK(cache->lookup({&id, 1}, 0, kRead, vRead));
  for (int64_t t = 0; t < 64; ++t)
    for (int64_t head : {0, 1})
      for (int64_t d = 0; d < 40; ++d) {
        const int64_t i = (t * 2 + head) * 40 + d;
        EXPECT_EQ(std::isnan(kRead.get(i)), t >= 32 && head == 1 && d == 7);
        EXPECT_EQ(std::isinf(kRead.get(i)), t == 5 && head == 0 && d == 3);
        EXPECT_EQ(std::isnan(vRead.get(i)), t == 50 && head == 0 && d >= 32);
      }
}

/// By a quarter turn: (a, b) to (-b, a).
TEST(GroupedCacheTest, KRotatesBeforeItIsQuantized) {
  for (int32_t dim : {8, 300}) {
    llm_kv_config c = configFor(dim, 32);
    c.layers = 1;
    auto turned = make(c), given = make(c);
    for (auto [first, n] : {std::pair{0, 40}, {40, 1}, {41, 60}}) {
      const std::vector<int64_t> tokens = range(first, n);
      Tensor k = rowsFor(c, tokens, 0, 0), v = k, rotated = k;
      for (int64_t row = 0; row < n * 2; ++row)
        for (int32_t d = 0; d < dim / 2; ++d) {
          rotated.set(row * dim + d, -k.get(row * dim + dim / 2 + d));
          rotated.set(row * dim + dim / 2 + d, k.get(row * dim + d));
        }
      Tensor table(LLM_F32, {n, dim});
      for (int64_t i = 0; i < table.count; ++i)
        table.set(i, i % dim < dim / 2 ? 0 : 1);
      llm_extras extras = {};
      extras.rope_table = &table;
      KVStep step;
      ASSERT_OK(begin(*turned, {{0}, {tokens}}, step));
      ASSERT_OK(turned->append(step, 0, k, v, extras));
      ASSERT_OK(turned->endStep());
      ASSERT_OK(begin(*given, {{0}, {tokens}}, step));
      ASSERT_OK(given->append(step, 0, rotated, v));
      ASSERT_OK(given->endStep());
    }
    const int32_t id = 0;
    Tensor a(LLM_F32, {1, 101, 2, dim}), b = a, v = a;
    ASSERT_OK(turned->lookup({&id, 1}, 0, a, v));
    ASSERT_OK(given->lookup({&id, 1}, 0, b, v));
    for (int64_t i = 0; i < a.count; ++i)
      ASSERT_EQ(a.get(i), b.get(i)) << i;
  }
}

TEST(GroupedCacheTest, BytesAreThoseOfCodesAndParams) {
  for (int32_t dim : {1, 32, 33, 64}) {
    const int64_t codes = (dim + 31) / 32 * 16;
    auto cache = make(configFor(dim, 96));
    const int64_t k = 3 * (32 * codes + 4 * dim);
    const int64_t v = 96 * (codes + (dim + 31) / 32 * 4);
    EXPECT_EQ(cache->stats().block_bytes, 2 * 2 * (k + v));
  }
}

//===----------------------------------------------------------------------===//
// Cuts, copies and ends
//===----------------------------------------------------------------------===//

TEST(GroupedCacheTest, AGroupThatIsCutIsQuantizedAgain) {
  Pair p(configFor(33));
  p.append(0, 130);
  for (int64_t length : {129, 128, 100, 96, 70, 40, 33, 20}) {
    p.trim(0, length);
    p.expect();
    p.append(0, 3);
    p.expect();
    p.append(0, 70);
    p.expect();
  }
}

TEST(GroupedCacheTest, ForksGoTheirOwnWays) {
  for (int32_t block : {32, 64, 128}) {
    Pair p(configFor(5, block));
    p.append(0, 120);
    p.fork(0, 1, 120); // into an exact group
    p.fork(0, 2, 70);  // into a quantized one
    p.fork(0, 3, 20);
    for (int64_t n : {4, 4, 30})
      for (int32_t id : {1, 0, 2, 3}) {
        p.append(id, n);
        p.expect();
      }
  }
}

TEST(GroupedCacheTest, CopyOnWriteCopiesWholeGroups) {
  Pair p(configFor(8, 64));
  p.append(0, 120);
  p.fork(0, 1, 120);
  p.append(1, 1);
  const KVPages pages = p.cache->pool()->pages(0);
  // A quantized group, 24 exact rows, and V of 56 tokens: layers, heads.
  EXPECT_EQ(
      p.cache->stats().copied_bytes,
      2 * 2 *
          (pages.k.groupStride + 24 * 8 * 4 + 56 * (pages.v.tokenStride + 4)));
  p.expect();
}

TEST(GroupedCacheTest, ASnapshotKeepsWhatItHas) {
  Pair p(configFor(8, 64));
  p.append(0, 50);
  auto snapshot = p.cache->snapshot();
  Model before = p.model;
  p.append(0, 60);
  p.expect();
  before.expectAll(*snapshot);
  ASSERT_OK(append(*snapshot, 0, range(900, 20)));
  before.append(0, range(900, 20));
  before.expectAll(*snapshot);
  p.expect();
}

TEST(GroupedCacheTest, AbortMakesGroupsExactAgain) {
  for (int64_t n : {20, 14, 100}) {
    Pair p(configFor(8, 128));
    p.append(0, 50); // group 1 has 18 rows
    const Model before = p.model;
    p.cache->beginTransaction();
    p.append(0, n);
    p.expect();
    p.cache->abortTransaction();
    p.model = before;
    p.expect();
    p.append(0, 60);
    p.expect();
  }
}

/// A group that a transaction has quantized is written again after a cut.
TEST(GroupedCacheTest, AbortForgetsCutsOfWhatItQuantized) {
  for (int64_t length : {60, 64, 80, 52, 30}) {
    Pair p(configFor(8, 128));
    p.append(0, 50);
    const Model before = p.model;
    p.cache->beginTransaction();
    p.append(0, 40);
    p.trim(0, length);
    p.append(0, 5);
    p.append(0, 40);
    p.expect();
    p.cache->abortTransaction();
    p.model = before;
    p.expect();
    p.append(0, 20);
    p.expect();
  }
}

/// A block that is taken again has nothing of its life before.
TEST(GroupedCacheTest, FreeBlocksHaveNoExactGroups) {
  Pair p(configFor(8, 32, 4));
  for (int turn = 0; turn < 5; ++turn) {
    p.append(0, 100);
    p.release(0);
    EXPECT_OK(p.cache->checkInvariants());
    EXPECT_EQ(exactPages(*p.cache), 0);
    p.append(1, 128);
    p.expect();
    p.release(1);
  }
}

TEST(GroupedCacheTest, ALongDecodeTakesTwoExactGroups) {
  llm_kv_config config = configFor(64, 64, 16);
  config.poison = 0;
  Pair p(config);
  const int64_t group =
      p.cache->pool()->pages(0).k.exact.groupStride / sysconf(_SC_PAGESIZE);
  p.append(0, 300);
  while (p.next < 700) {
    p.append(0, 1);
    ASSERT_LE(exactPages(*p.cache), 2 * 2 * group); // layers, groups
  }
  p.expect();
}

//===----------------------------------------------------------------------===//
// Random lives
//===----------------------------------------------------------------------===//

TEST(GroupedCacheTest, RandomLives) {
  for (unsigned seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto draw = [&](int64_t n) { return int64_t(random() % n); };
    Pair p(configFor(1 + static_cast<int32_t>(draw(40)),
                     32 * (1 + static_cast<int32_t>(draw(4))), 200));
    for (int turn = 0; turn < 60; ++turn) {
      const bool aborts = draw(4) == 0;
      const Model before = p.model;
      if (aborts)
        p.cache->beginTransaction();
      for (int64_t left = 1 + (aborts ? draw(4) : 0); left > 0; --left) {
        const auto id = static_cast<int32_t>(draw(6));
        const auto other = static_cast<int32_t>(draw(6));
        const int64_t length = p.model.length(id);
        if (draw(3) && length < 400)
          p.append(id, 1 + draw(draw(2) ? 8 : 90));
        else if (draw(2))
          p.trim(id, draw(length + 1));
        else if (p.model.length(other) == 0)
          p.fork(id, other, draw(length + 1));
        else if (draw(2))
          p.release(id);
        p.expect();
        if (HasFatalFailure())
          return;
      }
      if (aborts && draw(3)) {
        p.cache->abortTransaction();
        p.model = before;
      } else if (aborts) {
        p.cache->commitTransaction();
      }
      p.expect();
      if (HasFatalFailure())
        return;
    }
  }
}

TEST(GroupedCacheTest, BlocksHoldWholeGroups) {
  std::unique_ptr<PagedKVCache> cache;
  llm_kv_config config = configFor(8, 48);
  expectError(PagedKVCache::create(config, cache), LLM_INVALID_ARGUMENT, 32,
              48);
  config.k_storage = LLM_KV_STORAGE_DTYPE; // V alone has no groups of tokens
  EXPECT_OK(PagedKVCache::create(config, cache));
}

TEST(GroupedCacheTest, ExactGroupsNeedMemory) {
  auto faults = std::make_shared<Faults>();
  faults->arm(Resource::Memory, 1); // the pool gets its own
  std::unique_ptr<PagedKVCache> cache;
  const llm_kv_config config = configFor(64, 64, 3);
  expectError(PagedKVCache::create(config, cache, faults), LLM_OUT_OF_MEMORY,
              2 * 4 * 2 * int64_t(2 * 32 * 64 * 4), 0);
  EXPECT_EQ(cache, nullptr);
}

TEST(GroupedCacheTest, AnExactGroupOfAFreeBlockIsFound) {
  Pair p(configFor(8, 64));
  p.append(0, 40);
  p.expect();
  p.cache->pool()->makeExact(1, 5, 1);
  expectError(p.cache->checkInvariants(), LLM_INTERNAL, 0, 1, -1, 1);
}
