//===- RopeTest.cpp - Keys that rotate on their way into the cache --------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Levels.h"
#include "Program.h"

using namespace llm;
using namespace llm::testing;

namespace {

/// f32 operations that no compiler fuses.
float times(float a, float b) { return static_cast<float>(double(a) * b); }
float plus(float a, float b) { return static_cast<float>(double(a) + b); }

/// Numbers in [-1, 1] with all bits in use.
Tensor numbers(std::vector<int64_t> shape, int64_t seed) {
  Tensor tensor(LLM_F32, std::move(shape));
  for (int64_t i = 0; i < tensor.count; ++i)
    tensor.set(i, std::sin(static_cast<float>(seed + i)));
  return tensor;
}

/// What the definition in LLMOps.td makes of x [T, H, D].
Tensor rotated(Tensor x, Tensor table, llm_rope_pairing pairing) {
  Tensor y = x;
  const int64_t heads = x.sizes[1], lanes = x.sizes[2], half = lanes / 2;
  for (int64_t row = 0; row < x.sizes[0] * heads; ++row)
    for (int64_t i = 0; i < half; ++i) {
      const bool adjacent = pairing == LLM_ROPE_ADJACENT;
      const int64_t first = row * lanes + (adjacent ? 2 * i : i);
      const int64_t second = first + (adjacent ? 1 : half);
      const float a = x.get(first), b = x.get(second);
      const float cosine = table.get(row / heads * lanes + i);
      const float sine = table.get(row / heads * lanes + half + i);
      y.set(first, plus(times(a, cosine), -times(b, sine)));
      y.set(second, plus(times(a, sine), times(b, cosine)));
    }
  return y;
}

llm_extras extrasOf(const Tensor &table, llm_rope_pairing pairing) {
  llm_extras extras = {};
  extras.struct_size = sizeof(extras);
  extras.rope_pairing = pairing;
  extras.rope_table = &table;
  return extras;
}

/// A step of three tokens, two sequences, at one layer.
class RopeTest : public LevelTest {
protected:
  void create(int32_t headDim, llm_dtype dtype = LLM_F32) {
    llm_kv_config config = configOf(1, 2, 8, 2, 16, dtype);
    config.head_dim = headDim;
    cache = make(config);
    ASSERT_OK(begin(*cache, {{0, 1}, {{1}, {2, 3}}}, step));
  }
  /// The bits of K and V.
  std::vector<char> content() {
    const llm_kv_config &c = cache->config();
    Tensor k(c.dtype, {2, 3, c.kv_heads, c.head_dim}), v = k;
    const std::vector<int32_t> ids = {0, 1};
    EXPECT_OK(cache->lookup(ids, 0, k, v));
    k.bytes.insert(k.bytes.end(), v.bytes.begin(), v.bytes.end());
    return k.bytes;
  }

  std::unique_ptr<PagedKVCache> cache;
  KVStep step;
};

} // namespace

TEST_P(RopeTest, StoresWhatARotatedKeyStores) {
  for (llm_dtype dtype : {LLM_F32, LLM_F16, LLM_BF16})
    for (int32_t headDim : {2, 6, 32, 36, 64, 80})
      for (llm_rope_pairing pairing : {LLM_ROPE_HALF, LLM_ROPE_ADJACENT}) {
        const Tensor k = numbers({3, 2, headDim}, 5);
        const Tensor v = numbers({3, 2, headDim}, 500);
        const Tensor table = numbers({3, headDim}, 1000);
        create(headDim, dtype);
        ASSERT_OK(cache->append(step, 0, rotated(k, table, pairing), v));
        const std::vector<char> expected = content();
        create(headDim, dtype);
        ASSERT_OK(cache->append(step, 0, k, v, extrasOf(table, pairing)));
        EXPECT_EQ(content(), expected)
            << "head_dim " << headDim << ", pairing " << pairing;
      }
}

TEST_P(RopeTest, ReadsStridedTensors) {
  create(8);
  const Tensor k = numbers({3, 2, 8}, 5), table = numbers({3, 8}, 1000);
  ASSERT_OK(cache->append(step, 0, rotated(k, table, LLM_ROPE_HALF), k));
  const std::vector<char> expected = content();
  create(8);
  Tensor wide(LLM_F32, {3, 2, 20}), rows(LLM_F32, {3, 20});
  for (int64_t row = 0; row < 6; ++row)
    std::memcpy(wide.as<float>() + row * 20, k.bytes.data() + row * 32, 32);
  for (int64_t row = 0; row < 3; ++row)
    std::memcpy(rows.as<float>() + row * 20, table.bytes.data() + row * 32, 32);
  wide.sizes[2] = rows.sizes[1] = 8;
  ASSERT_OK(cache->append(step, 0, wide, k, extrasOf(rows, LLM_ROPE_HALF)));
  EXPECT_EQ(content(), expected);
}

LLM_AT_EVERY_LEVEL(RopeTest);

//===----------------------------------------------------------------------===//
// Errors
//===----------------------------------------------------------------------===//

namespace {

Status append(int32_t headDim, const Tensor &k, const llm_extras &extras) {
  llm_kv_config config = configOf(1, 2, 8, 2, 16);
  config.head_dim = headDim;
  auto cache = make(config);
  KVStep step;
  EXPECT_OK(begin(*cache, {{0}, {{1, 2, 3}}}, step));
  const Status status = cache->append(step, 0, k, k, extras);
  EXPECT_EQ(cache->length(0), status.ok() ? 3 : 0);
  EXPECT_OK(cache->checkInvariants());
  return status;
}

} // namespace

TEST(RopeErrors, WhatCannotRotateIsRefused) {
  const auto fails = [](const Status &status, int64_t expected,
                        int64_t actual) {
    expectError(status, LLM_INVALID_ARGUMENT, expected, actual, -1, 0);
  };
  const Tensor k = numbers({3, 2, 4}, 0), table = numbers({3, 4}, 0);
  const llm_extras extras = extrasOf(table, LLM_ROPE_HALF);
  EXPECT_OK(append(4, k, extras));
  fails(append(5, numbers({3, 2, 5}, 0), extras), 6, 5);
  fails(append(4, k, extrasOf(table, 2)), 1, 2);
  fails(append(4, k, extrasOf(table, -1)), 1, -1);
  fails(append(4, Tensor(LLM_F16, {3, 2, 4}), extras), LLM_F32, LLM_F16);
  fails(append(4, k, extrasOf(numbers({2, 4}, 0), LLM_ROPE_HALF)), 3, 2);
  fails(append(4, k, extrasOf(numbers({3, 6}, 0), LLM_ROPE_HALF)), 4, 6);
  Tensor turned = table;
  turned.strides[0] = 1;
  turned.strides[1] = 3;
  fails(append(4, k, extrasOf(turned, LLM_ROPE_HALF)), 1, 3);
}

TEST(RopeErrors, ATableNeedsAStep) {
  Program p(configOf(1, 4, 8));
  const Tensor batch(LLM_F32, {1, 3, 2, 4}), table = numbers({3, 4}, 0);
  const llm_extras extras = extrasOf(table, LLM_ROPE_HALF);
  EXPECT_EQ(p.invoke([&](llm_call *call) {
    return llm_rt_append_kv(call, 1, call->kv[0], 0, &batch, &batch, &extras);
  }),
            LLM_INVALID_ARGUMENT);
  EXPECT_EQ(p.error.expected, 1);
  EXPECT_EQ(p.error.actual, 0);
}
