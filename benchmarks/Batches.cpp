//===- Batches.cpp - Calls of attention to be timed -----------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Batches.h"

#include "KVPool.h"
#include "cpu/Kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <list>
#include <numeric>
#include <random>

using namespace llm;

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

namespace {

/// Memory that lives as long as the program: cases use it one after another.
class Arena {
public:
  char *take(int64_t bytes) {
    if (bytes > size)
      memory = allocate(size = bytes);
    return memory.get();
  }

private:
  Memory memory;
  int64_t size = 0;
};

/// Normally distributed numbers in f32: a few, again and again.
const std::vector<float> &randomNumbers() {
  static const std::vector<float> numbers = [] {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> result(1000003);
    std::generate(result.begin(), result.end(), [&] { return normal(random); });
    return result;
  }();
  return numbers;
}

char *fillWithNumbers(char *memory, int64_t bytes, llm_dtype type) {
  const std::vector<float> &numbers = randomNumbers();
  std::vector<char> typed(numbers.size() * elementBytes(type));
  cpu::kernels().convert(typed.data(), type, numbers.data(), LLM_F32,
                         numbers.size());
  for (int64_t at = 0; at < bytes; at += typed.size())
    std::memcpy(memory + at, typed.data(),
                std::min<int64_t>(typed.size(), bytes - at));
  return memory;
}

[[noreturn]] void stop(const Status &status) {
  std::fprintf(stderr, "bench-attention: %s\n", status.message());
  std::exit(1);
}

} // namespace

//===----------------------------------------------------------------------===//
// Pools
//===----------------------------------------------------------------------===//

/// KVPools of one layer, full of random tokens. Block 0 is the guard.
class llm::Pool {
public:
  /// What makes one pool differ from another.
  struct Shape {
    llm_dtype dtype;
    llm_kv_storage k, v;
    int32_t kvHeads, headDim, blockSize;
    int64_t batchBlocks; ///< of a pool of one batch; 0: all are in one pool
    bool operator==(const Shape &) const = default;
  };

  explicit Pool(const Shape &shape) : shape(shape) {
    blocks = std::max<int64_t>(shape.batchBlocks, 1);
    add(); // tells how large a block is
    int64_t all = coldBytes() / pages(0).k.blockStride + 1;
    if (!shape.batchBlocks) {
      pools.clear();
      blocks = all;
    }
    while (int64_t(pools.size()) * blocks < all)
      add();
    for (size_t i = 0; i < pools.size(); ++i)
      fill(pages(i));
  }

  int64_t count() const { return pools.size(); }
  int64_t numBlocks() const { return blocks; }
  const KVPages &pages(int64_t i) const { return views[i]; }
  bool has(const Shape &other) const { return shape == other; }

  /// These groups of pool i are exact now, and no others.
  void setExact(int64_t i, std::vector<ExactGroup> groups) {
    for (const ExactGroup &group : exact)
      pools[exactPool]->endExact(0, group.block, group.group);
    for (const ExactGroup &group : groups)
      pools[i]->bringBack(0, group.block, group.group);
    exact = std::move(groups);
    exactPool = i;
  }

private:
  void add() {
    llm_kv_config config = {};
    config.struct_size = sizeof(config);
    config.layers = config.max_sequences = 1;
    config.kv_heads = shape.kvHeads;
    config.head_dim = shape.headDim;
    config.dtype = shape.dtype;
    config.k_storage = shape.k;
    config.v_storage = shape.v;
    config.block_size = shape.blockSize;
    config.max_seq_len = config.num_blocks = blocks;
    std::shared_ptr<KVPool> pool;
    Status status = KVPool::create(config, std::make_shared<Faults>(), pool);
    if (!status.ok())
      stop(status);
    views.resize(pools.size());
    views.push_back(pool->pages(0));
    pools.push_back(std::move(pool));
  }

  /// Appends tokens to a few blocks, of which the others become copies.
  void fill(const KVPages &pages) {
    int64_t made = std::min<int64_t>(blocks, 1 + 512 / shape.blockSize);
    int64_t row = int64_t(shape.kvHeads) * shape.headDim;
    std::vector<int64_t> slots(made * shape.blockSize);
    std::iota(slots.begin(), slots.end(), shape.blockSize);
    std::vector<float> numbers(slots.size() * row);
    fillWithNumbers(reinterpret_cast<char *>(numbers.data()),
                    numbers.size() * sizeof(float), LLM_F32);
    llm_tensor tokens = {numbers.data(),
                         LLM_F32,
                         3,
                         {int64_t(slots.size()), shape.kvHeads, shape.headDim},
                         {row, shape.headDim, 1}};
    writeKV(pages, slots.data(), tokens, tokens);
    if (shape.k == LLM_KV_STORAGE_I4)
      quantizeGroups(pages, slots, tokens);
    for (int64_t i = made + 1; i <= blocks; ++i)
      std::memcpy(pages.k.at(i, 0, 0), pages.k.at(i - made, 0, 0),
                  pages.k.blockStride); // V lies behind K
  }

  static void quantizeGroups(const KVPages &pages,
                             const std::vector<int64_t> &slots,
                             const llm_tensor &k) {
    std::vector<GroupWrite> groups;
    for (size_t i = 0; i < slots.size(); i += kGroupSize) {
      GroupWrite write = {};
      write.block = static_cast<int32_t>(slots[i] / pages.blockSize);
      write.group =
          static_cast<int32_t>(slots[i] % pages.blockSize / kGroupSize);
      write.count = kGroupSize;
      write.token = static_cast<int32_t>(i);
      write.completes = true;
      groups.push_back(write);
    }
    writeGroups(pages, groups.data(), groups.size(), k);
  }

  const Shape shape;
  int64_t blocks; ///< of each pool
  std::vector<std::shared_ptr<KVPool>> pools;
  std::vector<KVPages> views;
  std::vector<ExactGroup> exact; ///< in pool `exactPool`
  int64_t exactPool = 0;
};

/// A pool is filled once for all cases of its shape that follow each other.
static std::shared_ptr<Pool> poolOf(const Pool::Shape &shape) {
  static std::list<std::shared_ptr<Pool>> pools; // the latest first
  auto found = std::find_if(pools.begin(), pools.end(),
                            [&](const auto &pool) { return pool->has(shape); });
  if (found != pools.end()) {
    pools.splice(pools.begin(), pools, found);
    return pools.front();
  }
  if (pools.size() == 2) // as many as a pair of cases needs
    pools.pop_back();
  return pools.emplace_front(std::make_shared<Pool>(shape));
}

//===----------------------------------------------------------------------===//
// Batches
//===----------------------------------------------------------------------===//

Batches::Batches(const Case &what) : what(what) {
  cuSeqlens.push_back(0);
  for (const Sequence &sequence : what.sequences) {
    cuSeqlens.push_back(cuSeqlens.back() + sequence.queries);
    firstPosition.push_back(sequence.past);
    lengths.push_back(sequence.length());
    int32_t needed = (sequence.length() - 1) / what.blockSize + 1;
    width = std::max<int64_t>(width, needed);
    blocks += needed;
  }
  pool = poolOf({what.format.dtype, what.format.k, what.format.v, what.heads.kv,
                 what.heads.dim, what.blockSize, what.smallPools ? blocks : 0});
  if (pool->numBlocks() < blocks)
    stop(Status::error(LLM_OUT_OF_BLOCKS, blocks, pool->numBlocks(),
                       "a batch needs %d blocks, the pool has %lld", blocks,
                       static_cast<long long>(pool->numBlocks())));
  batches = pool->count() * (pool->numBlocks() / blocks);
  order.resize(pool->numBlocks());
  std::iota(order.begin(), order.end(), 1);
  if (what.order == Order::Random)
    std::shuffle(order.begin(), order.end(), std::mt19937(1));

  static Arena inputArena, outputArena;
  bool appends = what.work == Work::Append;
  llm_dtype type = appends ? LLM_F32 : what.format.queries;
  int64_t bytes = tokens() * (appends ? what.heads.kv : what.heads.queries) *
                  what.heads.dim * elementBytes(type);
  // Appended tokens are cold too, K and V; queries come from the layer before.
  int64_t inputBytes = appends ? 2 * batches * bytes : bytes;
  inputs = fillWithNumbers(inputArena.take(inputBytes), inputBytes, type);
  output = outputArena.take(bytes);
  writeExactGroups();
  next();
}

const KVPages &Batches::pages() const {
  return pool->pages(at % pool->count());
}

void Batches::next() {
  at = (at + 1) % batches;
  fillTable();
  pool->setExact(at % pool->count(), exactGroups());
  if (what.work == Work::Append)
    fillSlots();
}

/// Once around: the rows stay while others are exact.
void Batches::writeExactGroups() {
  for (int64_t i = 0; i < batches; ++i) {
    next();
    for (const ExactGroup &group : exactGroups())
      reopenGroup(pages(), group.block, group.group, group.rows);
  }
}

std::vector<ExactGroup> Batches::exactGroups() const {
  std::vector<ExactGroup> groups;
  if (what.format.k != LLM_KV_STORAGE_I4)
    return groups;
  constexpr int32_t size = kGroupSize;
  for (size_t i = 0; i < lengths.size(); ++i) {
    const int32_t *entries = &table[i * width];
    groups.push_back({entries[0], 0, std::min(lengths[i], size)});
    int32_t last = lengths[i] / size * size; // its first position
    if (last && last < lengths[i])
      groups.push_back({entries[last / what.blockSize],
                        last % what.blockSize / size, lengths[i] - last});
  }
  return groups;
}

void Batches::fillTable() {
  const int32_t *block = &order[at / pool->count() * blocks];
  table.resize(lengths.size() * width);
  for (size_t i = 0; i < lengths.size(); ++i) {
    int32_t needed = (lengths[i] - 1) / what.blockSize + 1;
    std::copy_n(block, needed, &table[i * width]);
    block += needed;
  }
}

void Batches::fillSlots() {
  slots.clear();
  for (size_t i = 0; i < lengths.size(); ++i)
    for (int32_t t = firstPosition[i]; t < lengths[i]; ++t)
      slots.push_back(int64_t(table[i * width + t / what.blockSize]) *
                          what.blockSize +
                      t % what.blockSize);
}

llm_tensor Batches::tensor(char *data, int32_t heads, llm_dtype type) const {
  return {data,
          type,
          3,
          {tokens(), heads, what.heads.dim},
          {int64_t(heads) * what.heads.dim, what.heads.dim, 1}};
}

void Batches::call() {
  if (what.work == Work::Append) {
    int64_t bytes = tokens() * what.heads.kv * what.heads.dim * sizeof(float);
    char *k = inputs + 2 * at * bytes;
    return writeKV(pages(), slots.data(), tensor(k, what.heads.kv, LLM_F32),
                   tensor(k + bytes, what.heads.kv, LLM_F32));
  }
  BatchView batch = {static_cast<int32_t>(lengths.size()),
                     cuSeqlens.data(),
                     firstPosition.data(),
                     lengths.data(),
                     table.data(),
                     width};
  AttentionParams params = {};
  params.scale = 1 / std::sqrt(float(what.heads.dim));
  params.causal = true;
  llm_dtype type = what.format.queries;
  pagedAttention(pages(), batch, params,
                 tensor(inputs, what.heads.queries, type),
                 tensor(output, what.heads.queries, type), nullptr, &plan);
}

double Batches::bytes() const {
  double token = double(pages().k.blockStride) / what.blockSize;
  if (what.work == Work::Append)
    return tokens() *
           (token + 2.0 * what.heads.kv * what.heads.dim * sizeof(float));
  double bytes = std::accumulate(lengths.begin(), lengths.end(), 0.0) * token;
  // In place of codes and params: rows of f32.
  double more = what.heads.dim * sizeof(float) -
                double(pages().k.groupStride) / kGroupSize;
  for (const ExactGroup &group : exactGroups())
    bytes += group.rows * what.heads.kv * more;
  return bytes;
}

double Batches::operations() const {
  double pairs = 0;
  for (const Sequence &sequence : what.sequences)
    pairs += double(sequence.queries) * sequence.past +
             double(sequence.queries) * (sequence.queries + 1) / 2;
  return what.work == Work::Append
             ? 0
             : 4 * pairs * what.heads.dim * what.heads.queries;
}
