//===- FileBlocksTest.cpp - Weights in the blocks of a format -------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "FileBlocks.h"

#include "FileTensor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

using namespace llm;

namespace {

constexpr int64_t kWeights = 64 * 256;

struct Converted {
  explicit Converted(llm_file_format blocks)
      : format(blocks), bytes(llm_file_row_bytes(blocks, kWeights) + 8, 0xcd) {}

  double at(int64_t i) const { return weightAt(format, bytes.data(), i); }
  /// Of the block that weight i is in.
  double scaleAt(int64_t i) const {
    return halfAt(&bytes[i / 32 * llm_file_row_bytes(format, 32)]);
  }

  llm_file_format format;
  std::vector<uint8_t> bytes;
};

Converted convert(const FileTensor &from, llm_file_format blocks) {
  Converted result(blocks);
  EXPECT_TRUE(canHold(blocks, from.source.format));
  EXPECT_EQ(convertBlocks(from.source.format, from.source.data, kWeights,
                          blocks, result.bytes.data()),
            0);
  for (size_t i = result.bytes.size() - 8; i < result.bytes.size(); ++i)
    EXPECT_EQ(result.bytes[i], 0xcd) << "wrote behind the blocks";
  return result;
}

/// Weights of a size that those of models have.
FileTensor makeTensor(llm_file_format format) {
  FileTensor tensor(format, 1, 1, kWeights);
  const int64_t n = isOf256(format) ? 256 : 32;
  const int64_t bytes = llm_file_row_bytes(format, n);
  for (size_t at = 1; at < tensor.bytes.size(); at += bytes) {
    uint8_t *scale = &tensor.bytes[at + (format == LLM_FILE_Q6_K ? 208 : 0)];
    scale[1] = (scale[1] & 0x83) | 0x0c; // 2^-12 to 2^-11
    if (FileTensor::hasMinimum(format))
      scale[3] = (scale[3] & 0x83) | 0x18; // 2^-9 to 2^-8
  }
  return tensor;
}

double relativeError(const FileTensor &wanted, const Converted &got) {
  double error = 0, whole = 0;
  for (int64_t i = 0; i < kWeights; ++i) {
    const double weight = wanted.at(0, i);
    error += std::pow(got.at(i) - weight, 2);
    whole += std::pow(weight, 2);
  }
  return std::sqrt(error / whole);
}

TEST(FileBlocks, HoldTheSameWeights) {
  const std::pair<llm_file_format, llm_file_format> pairs[] = {
      {LLM_FILE_Q8_0, LLM_FILE_Q8_0}, {LLM_FILE_Q4_0, LLM_FILE_Q4_0},
      {LLM_FILE_Q4_1, LLM_FILE_Q4_1}, {LLM_FILE_Q4_0, LLM_FILE_Q4_1},
      {LLM_FILE_Q4_0, LLM_FILE_Q8_0}, {LLM_FILE_Q5_0, LLM_FILE_Q8_0}};
  for (auto [format, blocks] : pairs) {
    const FileTensor tensor(format, 1, 1, kWeights);
    const Converted converted = convert(tensor, blocks);
    for (int64_t i = 0; i < kWeights; ++i)
      ASSERT_EQ(converted.at(i), tensor.at(0, i))
          << llm_file_format_name(format) << ' ' << i;
  }
}

/// Scale and minimum move by half of the last of eleven bits; where f16 is
/// subnormal they are multiples of its smallest number, and stay.
TEST(FileBlocks, Q4KAsQ41RoundsScalesAndMinimums) {
  const FileTensor tensor = makeTensor(LLM_FILE_Q4_K);
  const Converted converted = convert(tensor, LLM_FILE_Q4_1);
  EXPECT_LT(relativeError(tensor, converted), 3e-4);
  for (int64_t i = 0; i < kWeights; ++i) {
    const uint8_t *block = tensor.bytes.data() + 1 + i / 256 * 144;
    const auto [scale, minimum] = scaleAndMinimum(block, i % 256 / 32);
    const double most = 15 * std::abs(scale) + std::abs(minimum);
    ASSERT_NEAR(converted.at(i), tensor.at(0, i), most / 2048) << i;
  }
}

TEST(FileBlocks, SubnormalScalesOfQ4KStay) {
  FileTensor tensor(LLM_FILE_Q4_K, 1, 1, kWeights);
  for (size_t at = 1; at < tensor.bytes.size(); at += 144)
    tensor.bytes[at] &= 15, tensor.bytes[at + 1] = 0,
                                              tensor.bytes[at + 2] &= 15,
                                              tensor.bytes[at + 3] = 0x80;
  const Converted converted = convert(tensor, LLM_FILE_Q4_1);
  for (int64_t i = 0; i < kWeights; ++i)
    ASSERT_EQ(converted.at(i), tensor.at(0, i)) << i;
}

/// A weight moves by half a step of 1 / 127 of the largest at most, all
/// together by 0.4% of their size where they are spread evenly, and by less
/// than 1%: an eighth of what rounding to 5 bits has cost before.
TEST(FileBlocks, OthersAsQ80MoveByHalfAStep) {
  const std::pair<llm_file_format, double> bounds[] = {{LLM_FILE_Q4_1, 0.006},
                                                       {LLM_FILE_Q5_1, 0.006},
                                                       {LLM_FILE_Q4_K, 0.006},
                                                       {LLM_FILE_Q5_K, 0.006},
                                                       {LLM_FILE_Q6_K, 0.008}};
  for (auto [format, bound] : bounds) {
    const FileTensor tensor = makeTensor(format);
    const Converted converted = convert(tensor, LLM_FILE_Q8_0);
    EXPECT_LT(relativeError(tensor, converted), bound)
        << llm_file_format_name(format);
    for (int64_t i = 0; i < kWeights; ++i) {
      double largest = 0;
      for (int64_t j = i / 32 * 32; j < i / 32 * 32 + 32; ++j)
        largest = std::max(largest, std::abs(tensor.at(0, j)));
      const double lastBit = std::max(largest / 127 / 1024, std::exp2(-24));
      ASSERT_NEAR(converted.scaleAt(i), largest / 127, lastBit / 2);
      // The largest is 127 steps, give or take what the scale was rounded by.
      const double most = converted.scaleAt(i) * 0.5 + largest / 2000;
      ASSERT_NEAR(converted.at(i), tensor.at(0, i), most)
          << llm_file_format_name(format) << ' ' << i;
    }
  }
}

/// The nearest f16 to 1 / 127 of the largest may be so small that it needs more
/// than 127 steps: then the next one it is.
TEST(FileBlocks, SmallestScalesReachTheLargestWeight) {
  FileTensor tensor(LLM_FILE_Q6_K, 1, 1, kWeights);
  for (size_t at = 1; at < tensor.bytes.size(); at += 210) {
    tensor.bytes[at + 208] = 1 + at / 210 % 3, tensor.bytes[at + 209] = 0;
    for (size_t scale = at + 192; scale < at + 208; ++scale)
      tensor.bytes[scale] &= 0x87; // up to 7, or down to -121
  }
  const Converted converted = convert(tensor, LLM_FILE_Q8_0);
  for (int64_t i = 0; i < kWeights; ++i)
    ASSERT_NEAR(converted.at(i), tensor.at(0, i), converted.scaleAt(i) / 2)
        << i;
}

TEST(FileBlocks, ZerosStay) {
  FileTensor tensor(LLM_FILE_Q6_K, 1, 1, kWeights);
  for (size_t at = 1; at < tensor.bytes.size(); at += 210)
    tensor.bytes[at + 208] = tensor.bytes[at + 209] = 0;
  const Converted converted = convert(tensor, LLM_FILE_Q8_0);
  for (int64_t i = 0; i < kWeights; ++i)
    ASSERT_EQ(converted.at(i), 0) << i;
}

/// NaN and infinity are no numbers beyond f16: their blocks are of NaN.
TEST(FileBlocks, WhatIsNotFiniteIsNaN) {
  for (uint8_t high : {0x7c, 0x7e}) {
    FileTensor tensor(LLM_FILE_Q6_K, 1, 1, kWeights);
    tensor.bytes[1 + 208] = 0, tensor.bytes[1 + 209] = high;
    const Converted converted = convert(tensor, LLM_FILE_Q8_0);
    for (int64_t block = 0; block < 8; ++block) {
      const uint8_t *scale = &converted.bytes[block * 34];
      EXPECT_EQ(scale[1] & 0x7c, 0x7c);
      EXPECT_NE((scale[1] & 3) | scale[0], 0) << "an infinity";
    }
  }
}

/// f16 of 4096 and of 65504 as the d of each format.
TEST(FileBlocks, NumbersBeyondF16AreTold) {
  const auto convertOne = [](llm_file_format format, size_t at, uint8_t low,
                             uint8_t high, llm_file_format blocks) {
    std::vector<uint8_t> block(llm_file_row_bytes(format, 256), 0x3f);
    block[at] = low, block[at + 1] = high;
    if (FileTensor::hasMinimum(format))
      block[at + 2] = block[at + 3] = 0;
    std::vector<uint8_t> result(llm_file_row_bytes(blocks, 256));
    return convertBlocks(format, block.data(), 256, blocks, result.data());
  };
  EXPECT_EQ(convertOne(LLM_FILE_Q4_K, 0, 0x00, 0x6c, LLM_FILE_Q4_1),
            4096 * 63.0f);
  // Nibbles of 15 and 3: at most 15 x 63 x 4096 = 127 x 30480.
  EXPECT_EQ(convertOne(LLM_FILE_Q4_K, 0, 0x00, 0x6c, LLM_FILE_Q8_0), 0);
  EXPECT_EQ(convertOne(LLM_FILE_Q4_K, 0, 0xff, 0x7b, LLM_FILE_Q8_0),
            15 * (63 * 65504.0f) / 127);
  EXPECT_EQ(convertOne(LLM_FILE_Q4_0, 0, 0xff, 0x7b, LLM_FILE_Q4_1),
            8 * 65504.0f);
}

} // namespace
