//===- WeightsTest.cpp - Dequantization and packing ---------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The reference computes one weight at a time, in double, from the block
// definitions of ggml, and places it by index arithmetic.
//
//===----------------------------------------------------------------------===//

#include "Weights.h"

#include "Parallel.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

using namespace llm;

namespace {

//===----------------------------------------------------------------------===//
// The reference
//===----------------------------------------------------------------------===//

double halfAt(const uint8_t *bytes) {
  int bits = bytes[0] | bytes[1] << 8;
  int exponent = bits >> 10 & 31, fraction = bits & 1023;
  double value = exponent ? std::ldexp(1024 + fraction, exponent - 25)
                          : std::ldexp(fraction, -24);
  return bits >> 15 ? -value : value;
}

double brainAt(const uint8_t *bytes) {
  uint32_t bits = uint32_t(bytes[0] | bytes[1] << 8) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

double floatAt(const uint8_t *bytes) {
  float value;
  std::memcpy(&value, bytes, 4);
  return value;
}

int nibble(const uint8_t *quants, int64_t i) {
  return i < 16 ? quants[i] & 15 : quants[i - 16] >> 4;
}

double weightAt(llm_file_format format, const uint8_t *row, int64_t col) {
  int64_t block = col / 32, i = col % 32;
  switch (format) {
  case LLM_FILE_F32:
    return floatAt(row + col * 4);
  case LLM_FILE_F16:
    return halfAt(row + col * 2);
  case LLM_FILE_BF16:
    return brainAt(row + col * 2);
  case LLM_FILE_Q8_0:
    row += block * 34;
    return halfAt(row) * static_cast<int8_t>(row[2 + i]);
  case LLM_FILE_Q4_0:
    row += block * 18;
    return halfAt(row) * (nibble(row + 2, i) - 8);
  default:
    row += block * 20;
    return halfAt(row) * nibble(row + 4, i) + halfAt(row + 2);
  }
}

/// Nearest bf16, the even one of two, of a finite number.
uint16_t toBrain(float x) {
  int exponent;
  std::frexp(x, &exponent);
  double ulp = std::ldexp(1.0, exponent - 8);
  float nearest = static_cast<float>(std::nearbyint(x / ulp) * ulp);
  uint32_t bits;
  std::memcpy(&bits, &nearest, 4);
  return static_cast<uint16_t>(bits >> 16);
}

//===----------------------------------------------------------------------===//
// Tensors
//===----------------------------------------------------------------------===//

constexpr llm_file_format formats[] = {LLM_FILE_F32,  LLM_FILE_F16,
                                       LLM_FILE_BF16, LLM_FILE_Q8_0,
                                       LLM_FILE_Q4_0, LLM_FILE_Q4_1};

/// A tensor of random finite weights at an odd address.
struct Tensor {
  std::vector<uint8_t> bytes;
  llm_weight_source source;

  Tensor(llm_file_format format, int32_t rank, int64_t rows, int64_t cols,
         unsigned seed = 1) {
    int64_t rowBytes = llm_file_row_bytes(format, cols);
    std::mt19937 random(seed);
    bytes.resize(1 + rows * rowBytes);
    for (uint8_t &byte : bytes)
      byte = static_cast<uint8_t>(random());
    int64_t unit = llm_file_row_bytes(format, cols % 32 ? 1 : 32);
    for (size_t at = 1; at < bytes.size(); at += unit)
      tame(format, cols % 32 ? 1 : 32, &bytes[at]);
    source = {bytes.data() + 1, format, rank, {rows, cols}};
    if (rank == 1)
      source.sizes[0] = cols;
  }

  /// Clears an exponent bit of every floating-point number of `n` weights.
  static void tame(llm_file_format format, int64_t n, uint8_t *unit) {
    if (format == LLM_FILE_F32)
      for (int64_t i = 0; i < n; ++i)
        unit[4 * i + 3] = (unit[4 * i + 3] & 0x81) | 0x3e;
    else if (format == LLM_FILE_F16 || format == LLM_FILE_BF16)
      for (int64_t i = 0; i < n; ++i)
        unit[2 * i + 1] &= 0xbf;
    else
      unit[1] &= 0xbf, unit[3] &= format == LLM_FILE_Q4_1 ? 0xbf : 0xff;
  }

  double at(int64_t row, int64_t col) const {
    int64_t cols = source.rank == 1 ? source.sizes[0] : source.sizes[1];
    return weightAt(
        source.format,
        bytes.data() + 1 + row * llm_file_row_bytes(source.format, cols), col);
  }
};

/// Where the weight at (row, col) lies.
int64_t indexIn(llm_layout layout, int64_t cols, int64_t row, int64_t col) {
  if (layout == LLM_LAYOUT_PLAIN)
    return row * cols + col;
  if (layout == LLM_LAYOUT_PANEL32)
    return (row / 32 * cols + col) * 32 + row % 32;
  int64_t tile = (row / 32 * (cols / 32) + col / 32) * 2 + row % 32 / 16;
  return tile * 512 + col % 32 / 2 * 32 + row % 16 * 2 + col % 2;
}

/// Packs `tensors` and compares every number, padding included.
void check(const std::vector<Tensor> &tensors, int32_t axis, llm_dtype dtype,
           llm_layout layout) {
  std::vector<llm_weight_source> sources;
  int64_t rows = 0, cols = 0;
  int32_t rank = tensors[0].source.rank;
  bool beside = rank == 1 || axis == 1;
  for (const Tensor &tensor : tensors) {
    sources.push_back(tensor.source);
    int64_t height = rank == 1 ? 1 : tensor.source.sizes[0];
    int64_t width = tensor.source.sizes[rank - 1];
    rows = beside ? height : rows + height;
    cols = beside ? cols + width : width;
  }
  llm_weight_desc desc = {};
  desc.num_names = static_cast<int32_t>(tensors.size());
  desc.axis = axis;
  desc.dtype = dtype;
  desc.layout = layout;
  desc.rank = rank;
  desc.sizes[0] = rank == 1 ? cols : rows;
  desc.sizes[1] = cols;

  int64_t padded = layout == LLM_LAYOUT_PLAIN ? rows : (rows + 31) / 32 * 32;
  int64_t bytes = dtype == LLM_F32 ? 4 : 2;
  ASSERT_EQ(packedBytes(desc), padded * cols * bytes);
  std::vector<uint8_t> packed(padded * cols * bytes + 8, 0xcd);
  packWeight(desc, sources.data(), packed.data());

  for (int64_t row = 0; row < padded; ++row)
    for (int64_t col = 0; col < cols; ++col) {
      size_t source = 0;
      int64_t r = row, c = col;
      while (beside ? c >= tensors[source].source.sizes[rank - 1]
                    : row < rows && r >= tensors[source].source.sizes[0]) {
        (beside ? c : r) -= tensors[source].source.sizes[beside ? rank - 1 : 0];
        ++source;
      }
      float expected =
          row < rows ? static_cast<float>(tensors[source].at(r, c)) : 0;
      int64_t at = indexIn(layout, cols, row, col);
      if (dtype == LLM_F32)
        ASSERT_EQ(floatAt(&packed[at * 4]), expected) << row << ", " << col;
      else
        ASSERT_EQ(packed[at * 2] | packed[at * 2 + 1] << 8, toBrain(expected))
            << row << ", " << col << ": " << expected;
    }
  for (size_t i = padded * cols * bytes; i < packed.size(); ++i)
    ASSERT_EQ(packed[i], 0xcd) << "wrote behind the weight";
}

//===----------------------------------------------------------------------===//
// Tests
//===----------------------------------------------------------------------===//

TEST(Weights, FormatNames) {
  EXPECT_STREQ(llm_file_format_name(LLM_FILE_F32), "f32");
  EXPECT_STREQ(llm_file_format_name(LLM_FILE_F16), "f16");
  EXPECT_STREQ(llm_file_format_name(LLM_FILE_BF16), "bf16");
  EXPECT_STREQ(llm_file_format_name(LLM_FILE_Q8_0), "q8_0");
  EXPECT_STREQ(llm_file_format_name(LLM_FILE_Q4_0), "q4_0");
  EXPECT_STREQ(llm_file_format_name(LLM_FILE_Q4_1), "q4_1");
  EXPECT_EQ(llm_file_format_name(6), nullptr);
  EXPECT_EQ(llm_file_format_name(-1), nullptr);
}

TEST(Weights, RowBytes) {
  EXPECT_EQ(llm_file_row_bytes(LLM_FILE_F32, 3), 12);
  EXPECT_EQ(llm_file_row_bytes(LLM_FILE_BF16, 3), 6);
  EXPECT_EQ(llm_file_row_bytes(LLM_FILE_Q8_0, 64), 68);
  EXPECT_EQ(llm_file_row_bytes(LLM_FILE_Q4_0, 64), 36);
  EXPECT_EQ(llm_file_row_bytes(LLM_FILE_Q4_1, 64), 40);
  EXPECT_EQ(llm_file_row_bytes(LLM_FILE_Q4_1, 33), -1);
  EXPECT_EQ(llm_file_row_bytes(LLM_FILE_F32, -1), -1);
  EXPECT_EQ(llm_file_row_bytes(LLM_FILE_F32, INT64_MAX), -1);
  EXPECT_EQ(llm_file_row_bytes(77, 32), -1);
}

TEST(Weights, DequantizesEveryFormat) {
  for (llm_file_format format : formats) {
    Tensor tensor(format, 1, 1, 320);
    std::vector<float> result(320);
    dequantize(format, tensor.source.data, 320, result.data());
    for (int64_t i = 0; i < 320; ++i)
      ASSERT_EQ(result[i], static_cast<float>(tensor.at(0, i)))
          << llm_file_format_name(format) << " " << i;
  }
}

TEST(Weights, PacksEveryFormatTypeAndLayout) {
  for (llm_file_format format : formats)
    for (llm_dtype dtype : {LLM_F32, LLM_BF16})
      for (llm_layout layout : {LLM_LAYOUT_PLAIN, LLM_LAYOUT_PANEL32})
        for (int64_t rows : {1, 31, 32, 70})
          for (int64_t cols : {32, 256, 576}) {
            SCOPED_TRACE(llm_file_format_name(format));
            check({Tensor(format, 2, rows, cols)}, 0, dtype, layout);
          }
}

TEST(Weights, PacksTiles) {
  for (llm_file_format format : formats)
    for (int64_t rows : {1, 31, 32, 70})
      for (int64_t cols : {32, 256, 576}) {
        SCOPED_TRACE(llm_file_format_name(format));
        check({Tensor(format, 2, rows, cols)}, 0, LLM_BF16, LLM_LAYOUT_TILES32);
      }
}

TEST(Weights, TilesCrossTensors) {
  check({Tensor(LLM_FILE_F32, 2, 37, 7, 1),
         Tensor(LLM_FILE_Q4_0, 2, 37, 288, 2),
         Tensor(LLM_FILE_F16, 2, 37, 25, 3)},
        1, LLM_BF16, LLM_LAYOUT_TILES32);
}

TEST(Weights, ConcatenatesRowsOfSeveralFormats) {
  for (llm_layout layout :
       {LLM_LAYOUT_PLAIN, LLM_LAYOUT_PANEL32, LLM_LAYOUT_TILES32})
    check({Tensor(LLM_FILE_Q4_1, 2, 50, 288, 1),
           Tensor(LLM_FILE_F32, 2, 3, 288, 2),
           Tensor(LLM_FILE_Q8_0, 2, 40, 288, 3),
           Tensor(LLM_FILE_BF16, 2, 1, 288, 4)},
          0, LLM_BF16, layout);
}

TEST(Weights, ConcatenatesColumnsOfSeveralFormats) {
  for (llm_layout layout : {LLM_LAYOUT_PLAIN, LLM_LAYOUT_PANEL32})
    check({Tensor(LLM_FILE_F32, 2, 37, 7, 1),
           Tensor(LLM_FILE_Q4_0, 2, 37, 288, 2),
           Tensor(LLM_FILE_F16, 2, 37, 5, 3)},
          1, LLM_F32, layout);
}

TEST(Weights, ConcatenatesVectors) {
  for (llm_dtype dtype : {LLM_F32, LLM_BF16})
    check(
        {Tensor(LLM_FILE_F32, 1, 1, 300, 1), Tensor(LLM_FILE_F16, 1, 1, 5, 2)},
        0, dtype, LLM_LAYOUT_PLAIN);
}

TEST(Weights, AnyNumberOfThreads) {
  for (int32_t threads : {1, 2, 5}) {
    setNumThreads(threads);
    check({Tensor(LLM_FILE_Q8_0, 2, 500, 64)}, 0, LLM_BF16, LLM_LAYOUT_PANEL32);
  }
  setNumThreads(0);
}

} // namespace
