//===- GroupsTest.cpp - Groups of i4 at every level -----------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Codes, params and what is read of them, bit for bit against GroupOracle.h. A
// test quantizes 32 rows of numbers, as groups of their columns or of their
// rows.
//
//===----------------------------------------------------------------------===//

#include "GroupOracle.h"
#include "Levels.h"
#include "llm/Runtime/Attention.h"

#include <limits>
#include <random>

using namespace llm;
using namespace llm::testing;

namespace {

constexpr float kTiny = std::numeric_limits<float>::denorm_min();
constexpr float kHuge = std::numeric_limits<float>::max();

/// 32 numbers each; what they are is the same for a column and for a row.
std::vector<std::vector<float>> allGroups() {
  std::vector<std::vector<float>> groups;
  const auto add = [&](std::vector<float> some) {
    const size_t n = some.size();
    for (size_t i = 0; some.size() < 32; ++i)
      some.push_back(some[i % n]);
    groups.push_back(some);
  };
  add({0});
  add({-0.0f});
  add({-0.0f, 0});
  add({1.001f});
  add({-1.001f});
  add({1, NAN});
  add({NAN});
  add({-NAN, 2});
  add({INFINITY, 1});
  add({-INFINITY, 1});
  add({INFINITY, -INFINITY});
  add({kHuge, -kHuge});
  add({-kHuge});
  add({kHuge});
  add({-1e38f, 2.4e38f});
  add({-0x1.fep126f, 0x1.fep127f}); // 15 steps are infinite
  add({kTiny, 0});
  add({-kTiny, 3 * kTiny, 100 * kTiny});
  add({1e-39f, -1e-39f, 3e-39f});
  add({0x1p-126f, 0x1p-127f, -0x1p-133f});
  for (int i = 0; i < 64; ++i) // halfway between codes and beside it
    for (float scale : {1.0f, 0x1p-130f, 0x1p100f})
      add({0, 15 * scale, i * scale / 4, std::nextafter(i * scale / 4, 0.0f),
           std::nextafter(i * scale / 4, INFINITY)});
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (int i = 0; i < 400; ++i) {
    std::vector<float> group(32);
    const float scale = std::exp2(static_cast<float>(random() % 250) - 125);
    const float shift = random() % 3 ? 0 : 100 * normal(random);
    for (float &x : group)
      x = (normal(random) + shift) * scale;
    groups.push_back(group);
  }
  return groups;
}

/// One NaN is as good as another one.
::testing::AssertionResult sameBits(float a, float b) {
  if ((std::isnan(a) && std::isnan(b)) ||
      std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b))
    return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << a << " and " << b;
}

int codeAt(const std::vector<uint8_t> &codes, int64_t channel) {
  const uint8_t byte = codes[channel / 32 * 16 + channel % 16];
  return channel % 32 < 16 ? byte & 15 : byte >> 4;
}

class GroupsTest : public LevelTest {
protected:
  static void expectGroup(const std::vector<float> &group, uint32_t params,
                          const std::vector<int> &codes,
                          const std::vector<float> &reads) {
    const GroupOracle oracle(group);
    ASSERT_TRUE(sameBits(ofBF16(params & 0xffff), oracle.minimum));
    ASSERT_TRUE(sameBits(ofBF16(params >> 16), oracle.step));
    for (size_t i = 0; i < group.size(); ++i) {
      ASSERT_EQ(codes[i], oracle.code(group[i])) << group[i];
      ASSERT_TRUE(sameBits(reads[i], oracle.read(group[i]))) << group[i];
    }
  }
};

TEST_P(GroupsTest, ChannelsOfAToken) {
  for (const std::vector<float> &all : allGroups())
    for (llm_dtype type : {LLM_F32, LLM_F16, LLM_BF16})
      for (int64_t n : {1, 5, 16, 17, 31, 32}) {
        SCOPED_TRACE(n);
        std::vector<float> from(all.begin(), all.begin() + n), group(n);
        std::vector<char> given(4 * n);
        cpu::kernels().convert(given.data(), type, from.data(), LLM_F32, n);
        cpu::kernels().convert(group.data(), LLM_F32, given.data(), type, n);
        std::vector<uint8_t> codes(17, 0xab);
        uint32_t params[2] = {0, 0xabcdef};
        cpu::kernels().quantizeChannels(codes.data(), params, given.data(),
                                        type, n);
        EXPECT_EQ(codes[16], 0xab);
        EXPECT_EQ(params[1], 0xabcdefu);
        std::vector<float> reads(n + 1, 77);
        cpu::kernels().readChannels(reads.data(), codes.data(), params, n);
        EXPECT_EQ(reads[n], 77);
        std::vector<int> numbers;
        for (int64_t i = 0; i < n; ++i)
          numbers.push_back(codeAt(codes, i));
        expectGroup(group, params[0], numbers, reads);
        for (int64_t i = n; i < 32; ++i)
          EXPECT_EQ(codeAt(codes, i), 0);
      }
}

TEST_P(GroupsTest, TokensOfAChannel) {
  const std::vector<std::vector<float>> groups = allGroups();
  for (int64_t n : {1, 3, 16, 17, 31, 32, 33, 80, 500}) {
    SCOPED_TRACE(n);
    const int64_t stride = n + 3, codeStride = codeBytes(n) + 8;
    std::vector<float> rows(32 * stride, NAN);
    for (int64_t row = 0; row < 32; ++row)
      for (int64_t channel = 0; channel < n; ++channel)
        rows[row * stride + channel] = groups[channel % groups.size()][row];
    std::vector<uint8_t> codes(32 * codeStride, 0xab);
    std::vector<uint32_t> params(n + 1, 0xabcdef);
    cpu::kernels().quantizeTokens(codes.data(), codeStride, params.data(),
                                  rows.data(), stride, n);
    EXPECT_EQ(params[n], 0xabcdefu);
    std::vector<std::vector<uint8_t>> codesOf;
    std::vector<std::vector<float>> reads;
    for (int64_t row = 0; row < 32; ++row) {
      const uint8_t *first = &codes[row * codeStride];
      codesOf.emplace_back(first, first + codeStride);
      EXPECT_EQ(codesOf[row][codeBytes(n)], 0xab);
      reads.emplace_back(n + 1, 77);
      cpu::kernels().readTokens(reads[row].data(), first, params.data(), n);
      EXPECT_EQ(reads[row][n], 77);
    }
    for (int64_t channel = 0; channel < n; ++channel) {
      std::vector<int> numbers;
      std::vector<float> read;
      for (int64_t row = 0; row < 32; ++row) {
        numbers.push_back(codeAt(codesOf[row], channel));
        read.push_back(reads[row][channel]);
      }
      SCOPED_TRACE(channel);
      expectGroup(groups[channel % groups.size()], params[channel], numbers,
                  read);
    }
  }
}

LLM_AT_EVERY_LEVEL(GroupsTest);

} // namespace
