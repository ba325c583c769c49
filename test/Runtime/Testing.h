//===- Testing.h - Tensors and caches for tests --------------- -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A token of a test is a number; what K and V hold for it is a function of that
// number, the layer, the head and the dimension. The values are integers in
// [-128, 128), which every dtype holds exactly: expectations are bit for bit.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_TEST_RUNTIME_TESTING_H
#define LLM_TEST_RUNTIME_TESTING_H

#include "llm/Runtime/PagedKVCache.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

namespace llm::testing {

inline int64_t bytesOf(llm_dtype dtype) {
  return dtype == LLM_I64 ? 8 : dtype == LLM_F16 || dtype == LLM_BF16 ? 2 : 4;
}

/// An owned contiguous tensor.
struct Tensor : llm_tensor {
  Tensor(llm_dtype type, std::vector<int64_t> shape) : llm_tensor{} {
    dtype = type;
    rank = static_cast<int32_t>(shape.size());
    int64_t stride = 1;
    for (int32_t i = rank - 1; i >= 0; --i) {
      sizes[i] = shape[i];
      strides[i] = stride;
      stride *= shape[i];
    }
    count = stride;
    bytes.resize(stride * bytesOf(type) + 1);
    data = bytes.data();
  }
  Tensor(const std::vector<int32_t> &values)
      : Tensor(LLM_I32, {static_cast<int64_t>(values.size())}) {
    std::memcpy(data, values.data(), values.size() * sizeof(int32_t));
  }
  Tensor(const Tensor &other)
      : llm_tensor(other), bytes(other.bytes), count(other.count) {
    data = bytes.data();
  }
  Tensor &operator=(const Tensor &other) {
    llm_tensor::operator=(other);
    bytes = other.bytes;
    count = other.count;
    data = bytes.data();
    return *this;
  }

  template <typename T>
  T *as() {
    return static_cast<T *>(data);
  }

  void set(int64_t i, float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    if (dtype == LLM_F32)
      as<float>()[i] = value;
    else if (dtype == LLM_F16)
      as<_Float16>()[i] = static_cast<_Float16>(value);
    else
      as<uint16_t>()[i] = static_cast<uint16_t>(bits >> 16);
  }
  float get(int64_t i) {
    if (dtype == LLM_F32)
      return as<float>()[i];
    if (dtype == LLM_F16)
      return static_cast<float>(as<_Float16>()[i]);
    const uint32_t bits = uint32_t(as<uint16_t>()[i]) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof(bits));
    return value;
  }

  std::vector<char> bytes;
  int64_t count;
};

/// What component `c` (0: K, 1: V) holds for a token.
inline float valueOf(int64_t token, int64_t layer, int64_t c, int64_t head,
                     int64_t dim) {
  uint64_t h = token * 0x9e3779b97f4a7c15u + layer * 0xc2b2ae3d27d4eb4fu +
               c * 0x165667b19e3779f9u + head * 0x27d4eb2f165667c5u + dim;
  h ^= h >> 29;
  h *= 0xbf58476d1ce4e5b9;
  return static_cast<float>(static_cast<int>(h >> 56) - 128);
}

inline llm_kv_config configOf(int32_t layers, int32_t blockSize,
                              int64_t numBlocks, int32_t sequences = 8,
                              int64_t maxSeqLen = 1024,
                              llm_dtype dtype = LLM_F32) {
  llm_kv_config config = {};
  config.struct_size = sizeof(config);
  config.layers = layers;
  config.kv_heads = 2;
  config.head_dim = 4;
  config.dtype = dtype;
  config.block_size = blockSize;
  config.max_sequences = sequences;
  config.max_seq_len = maxSeqLen;
  config.num_blocks = numBlocks;
  config.poison = 1;
  return config;
}

/// K or V of tokens at one layer: [T, Hkv, D].
inline Tensor rowsOf(const llm_kv_config &config,
                     const std::vector<int64_t> &tokens, int64_t layer,
                     int64_t component, llm_dtype dtype = LLM_F32) {
  Tensor rows(dtype, {static_cast<int64_t>(tokens.size()), config.kv_heads,
                      config.head_dim});
  int64_t i = 0;
  for (int64_t token : tokens)
    for (int32_t head = 0; head < config.kv_heads; ++head)
      for (int32_t dim = 0; dim < config.head_dim; ++dim)
        rows.set(i++, valueOf(token, layer, component, head, dim));
  return rows;
}

/// The tokens that sequences gain in a step.
struct Batch {
  std::vector<int32_t> ids;
  std::vector<std::vector<int64_t>> tokens;

  std::vector<int32_t> cuSeqlens() const {
    std::vector<int32_t> cu = {0};
    for (const auto &row : tokens)
      cu.push_back(cu.back() + static_cast<int32_t>(row.size()));
    return cu;
  }
  std::vector<int64_t> flat() const {
    std::vector<int64_t> all;
    for (const auto &row : tokens)
      all.insert(all.end(), row.begin(), row.end());
    return all;
  }
};

inline Status begin(PagedKVCache &cache, const Batch &batch, KVStep &step) {
  return cache.beginStep(batch.ids, batch.cuSeqlens(), step);
}

inline Status appendLayer(PagedKVCache &cache, const KVStep &step,
                          const Batch &batch, int32_t layer,
                          llm_dtype dtype = LLM_F32) {
  const auto tokens = batch.flat();
  return cache.append(step, layer,
                      rowsOf(cache.config(), tokens, layer, 0, dtype),
                      rowsOf(cache.config(), tokens, layer, 1, dtype));
}

/// A whole step: begun, appended at every layer, ended.
inline Status appendAll(PagedKVCache &cache, const Batch &batch) {
  KVStep step;
  LLM_TRY(begin(cache, batch, step));
  for (int32_t layer = 0; layer < cache.config().layers; ++layer)
    LLM_TRY(appendLayer(cache, step, batch, layer));
  return cache.endStep();
}

inline Status fork(PagedKVCache &cache, int32_t parent, int32_t child,
                   int64_t n) {
  return cache.fork({&parent, 1}, {&child, 1}, {&n, 1});
}
inline Status trim(PagedKVCache &cache, int32_t id, int64_t n) {
  return cache.trim({&id, 1}, {&n, 1});
}
inline Status release(PagedKVCache &cache, int32_t id) {
  return cache.release({&id, 1});
}

constexpr llm_attention_params causal = {NAN, 0, 0, 1};

/// Does the layer hold exactly these tokens of a sequence, then zeros?
inline ::testing::AssertionResult holds(PagedKVCache &cache, int32_t id,
                                        const std::vector<int64_t> &tokens,
                                        int32_t layer) {
  const llm_kv_config &c = cache.config();
  const int64_t bound = static_cast<int64_t>(tokens.size()) + 2;
  Tensor k(c.dtype, {1, bound, c.kv_heads, c.head_dim}), v = k;
  const Status status = cache.lookup({&id, 1}, layer, k, v);
  if (!status.ok())
    return ::testing::AssertionFailure() << status.message();
  int64_t i = 0;
  for (int64_t t = 0; t < bound; ++t)
    for (int32_t head = 0; head < c.kv_heads; ++head)
      for (int32_t dim = 0; dim < c.head_dim; ++dim, ++i)
        for (int64_t component : {0, 1}) {
          const bool real = t < bound - 2;
          const float expected =
              real ? valueOf(tokens[t], layer, component, head, dim) : 0;
          const float actual = component ? v.get(i) : k.get(i);
          if (!(expected == actual))
            return ::testing::AssertionFailure()
                   << "sequence " << id << " layer " << layer << " token " << t
                   << (component ? " V" : " K") << ": expected " << expected
                   << ", got " << actual;
        }
  return ::testing::AssertionSuccess();
}

inline ::testing::AssertionResult holds(PagedKVCache &cache, int32_t id,
                                        const std::vector<int64_t> &tokens) {
  if (cache.length(id) != static_cast<int64_t>(tokens.size()))
    return ::testing::AssertionFailure()
           << "sequence " << id << ": expected " << tokens.size()
           << " tokens, got " << cache.length(id);
  for (int32_t layer = 0; layer < cache.config().layers; ++layer)
    if (auto result = holds(cache, id, tokens, layer); !result)
      return result;
  return ::testing::AssertionSuccess();
}

/// Everything but content that an operation which fails must leave alone.
struct Tables {
  std::vector<std::vector<int32_t>> blocks;
  std::vector<int32_t> lengths;
  int64_t free, live;

  explicit Tables(const PagedKVCache &cache) {
    for (int32_t id = 0; id < cache.config().max_sequences; ++id) {
      blocks.emplace_back(cache.blocks(id).begin(), cache.blocks(id).end());
      lengths.push_back(cache.length(id));
    }
    free = cache.stats().free_blocks;
    live = cache.stats().live_blocks;
  }
  bool operator==(const Tables &) const = default;
};

/// n consecutive tokens.
inline std::vector<int64_t> range(int64_t first, int64_t n) {
  std::vector<int64_t> tokens(n);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

inline std::unique_ptr<PagedKVCache> make(const llm_kv_config &config) {
  std::unique_ptr<PagedKVCache> cache;
  const Status status = PagedKVCache::create(config, cache);
  EXPECT_TRUE(status.ok()) << status.message();
  return cache;
}

#define EXPECT_OK(expression)                                                  \
  if (::llm::Status got = (expression); !got.ok())                             \
  ADD_FAILURE() << got.message()
#define ASSERT_OK(expression)                                                  \
  if (::llm::Status got = (expression); !got.ok())                             \
  FAIL() << got.message()

/// The code and both numbers of a failure, with the layer and sequence.
inline void expectError(const Status &status, llm_code code, int64_t expected,
                        int64_t actual, int32_t sequence = -1,
                        int32_t layer = -1) {
  EXPECT_EQ(status.code(), code) << status.message();
  EXPECT_EQ(status.expected(), expected) << status.message();
  EXPECT_EQ(status.actual(), actual) << status.message();
  EXPECT_EQ(status.sequence(), sequence) << status.message();
  EXPECT_EQ(status.layer(), layer) << status.message();
}

} // namespace llm::testing

#endif // LLM_TEST_RUNTIME_TESTING_H
