//===- WeightsTest.cpp - Dequantization and packing ---------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The reference places the weights of FileTensor.h by index arithmetic.
//
//===----------------------------------------------------------------------===//

#include "Weights.h"

#include "FileFormats.h"
#include "FileTensor.h"
#include "Parallel.h"
#include "cpu/Blocks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

using namespace llm;

namespace {

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
void check(const std::vector<FileTensor> &tensors, int32_t axis,
           llm_dtype dtype, llm_layout layout) {
  std::vector<llm_weight_source> sources;
  int64_t rows = 0, cols = 0;
  int32_t rank = tensors[0].source.rank;
  bool beside = rank == 1 || axis == 1;
  for (const FileTensor &tensor : tensors) {
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
  EXPECT_STREQ(llm_file_format_name(LLM_FILE_Q5_0), "q5_0");
  EXPECT_STREQ(llm_file_format_name(LLM_FILE_Q5_1), "q5_1");
  EXPECT_STREQ(llm_file_format_name(LLM_FILE_Q4_K), "q4_K");
  EXPECT_STREQ(llm_file_format_name(LLM_FILE_Q5_K), "q5_K");
  EXPECT_STREQ(llm_file_format_name(LLM_FILE_Q6_K), "q6_K");
  EXPECT_EQ(llm_file_format_name(11), nullptr);
  EXPECT_EQ(llm_file_format_name(-1), nullptr);
}

TEST(Weights, RowBytes) {
  EXPECT_EQ(llm_file_row_bytes(LLM_FILE_F32, 3), 12);
  EXPECT_EQ(llm_file_row_bytes(LLM_FILE_BF16, 3), 6);
  EXPECT_EQ(llm_file_row_bytes(LLM_FILE_Q8_0, 64), 68);
  EXPECT_EQ(llm_file_row_bytes(LLM_FILE_Q4_0, 64), 36);
  EXPECT_EQ(llm_file_row_bytes(LLM_FILE_Q4_1, 64), 40);
  EXPECT_EQ(llm_file_row_bytes(LLM_FILE_Q4_1, 33), -1);
  EXPECT_EQ(llm_file_row_bytes(LLM_FILE_Q5_0, 64), 44);
  EXPECT_EQ(llm_file_row_bytes(LLM_FILE_Q5_1, 64), 48);
  EXPECT_EQ(llm_file_row_bytes(LLM_FILE_Q4_K, 512), 288);
  EXPECT_EQ(llm_file_row_bytes(LLM_FILE_Q5_K, 512), 352);
  EXPECT_EQ(llm_file_row_bytes(LLM_FILE_Q6_K, 512), 420);
  EXPECT_EQ(llm_file_row_bytes(LLM_FILE_Q6_K, 288), -1);
  EXPECT_EQ(llm_file_row_bytes(LLM_FILE_F32, -1), -1);
  EXPECT_EQ(llm_file_row_bytes(LLM_FILE_F32, INT64_MAX), -1);
  EXPECT_EQ(llm_file_row_bytes(77, 32), -1);
}

TEST(Weights, DequantizesEveryFormat) {
  for (llm_file_format format : fileFormats) {
    FileTensor tensor(format, 1, 1, 768);
    std::vector<float> result(768);
    dequantize(format, tensor.source.data, 768, result.data());
    for (int64_t i = 0; i < 768; ++i)
      ASSERT_EQ(result[i], static_cast<float>(tensor.at(0, i)))
          << llm_file_format_name(format) << " " << i;
  }
}

TEST(Weights, PacksEveryFormatTypeAndLayout) {
  for (llm_file_format format : fileFormats)
    for (llm_dtype dtype : {LLM_F32, LLM_BF16})
      for (llm_layout layout : {LLM_LAYOUT_PLAIN, LLM_LAYOUT_PANEL32})
        for (int64_t rows : {1, 31, 32, 70})
          for (int64_t cols : {32, 256, 512, 576}) {
            if (llm_file_row_bytes(format, cols) < 0)
              continue;
            SCOPED_TRACE(llm_file_format_name(format));
            check({FileTensor(format, 2, rows, cols)}, 0, dtype, layout);
          }
}

TEST(Weights, PacksTiles) {
  for (llm_file_format format : fileFormats)
    for (int64_t rows : {1, 31, 32, 70})
      for (int64_t cols : {32, 256, 512, 576}) {
        if (llm_file_row_bytes(format, cols) < 0)
          continue;
        SCOPED_TRACE(llm_file_format_name(format));
        check({FileTensor(format, 2, rows, cols)}, 0, LLM_BF16,
              LLM_LAYOUT_TILES32);
      }
}

TEST(Weights, TilesCrossTensors) {
  check({FileTensor(LLM_FILE_F32, 2, 37, 7, 1),
         FileTensor(LLM_FILE_Q4_0, 2, 37, 288, 2),
         FileTensor(LLM_FILE_F16, 2, 37, 25, 3)},
        1, LLM_BF16, LLM_LAYOUT_TILES32);
}

/// The weight at (row, col) of blocks, by where its numbers lie.
double weightInBlocks(llm_file_format format, const uint8_t *packed,
                      int64_t cols, int64_t row, int64_t col) {
  const bool nibbles = format != LLM_FILE_Q8_0;
  const int64_t lines = format == LLM_FILE_Q4_1 ? 128 : 64;
  const int64_t bytes = lines + (nibbles ? 512 : 1024);
  const uint8_t *block = packed + (row / 32 * (cols / 32) + col / 32) * bytes;
  const int64_t k = nibbles ? col % 16 : col % 32;
  const uint8_t byte = block[lines + row % 32 / 16 * (nibbles ? 256 : 512) +
                             k / 4 * 64 + row % 16 * 4 + k % 4];
  const double scale = halfAt(block + row % 32 * 2);
  if (!nibbles)
    return scale * (byte - 128);
  const int number = col % 32 < 16 ? byte & 15 : byte >> 4;
  return format == LLM_FILE_Q4_0
             ? scale * (number - 8)
             : scale * number + halfAt(block + 64 + row % 32 * 2);
}

/// Packs two tensors as blocks, one on top of the other or beside it, and
/// compares every weight, padding included.
void checkBlocks(llm_file_format format, int32_t axis, const FileTensor &first,
                 const FileTensor &second) {
  const int64_t *a = first.source.sizes, *b = second.source.sizes;
  const llm_weight_source sources[] = {first.source, second.source};
  llm_weight_desc desc = {};
  desc.num_names = 2;
  desc.axis = axis;
  desc.dtype = LLM_I8;
  desc.layout = LLM_LAYOUT_BLOCKS32;
  desc.format = format;
  desc.rank = 2;
  desc.sizes[0] = axis ? a[0] : a[0] + b[0];
  desc.sizes[1] = axis ? a[1] + b[1] : a[1];
  const int64_t rows = desc.sizes[0], cols = desc.sizes[1];
  const int64_t padded = (rows + 31) / 32 * 32;
  ASSERT_EQ(packedBytes(desc),
            padded / 32 * (cols / 32) * cpu::bytesOfBlock(format));
  ASSERT_EQ(packedBytes(desc), padded * llm_file_row_bytes(format, cols));
  std::vector<uint8_t> packed(packedBytes(desc) + 8, 0xcd);
  EXPECT_EQ(packWeight(desc, sources, packed.data()), 0);
  for (int64_t row = 0; row < padded; ++row)
    for (int64_t col = 0; col < cols; ++col) {
      const bool inFirst = axis ? col < a[1] : row < a[0];
      const double expected = row >= rows ? 0
                              : inFirst   ? first.at(row, col)
                                          : second.at(axis ? row : row - a[0],
                                                      axis ? col - a[1] : col);
      ASSERT_EQ(weightInBlocks(format, packed.data(), cols, row, col), expected)
          << llm_file_format_name(format) << " " << row << ", " << col;
    }
  for (size_t i = packedBytes(desc); i < packed.size(); ++i)
    ASSERT_EQ(packed[i], 0xcd) << "wrote behind the weight";
}

void checkBlocks(llm_file_format format, int32_t axis, const int64_t (&a)[2],
                 const int64_t (&b)[2]) {
  checkBlocks(format, axis, FileTensor(format, 2, a[0], a[1], 1),
              FileTensor(format, 2, b[0], b[1], 2));
}

/// Of formats that the blocks hold without a loss; FileBlocksTest has the
/// others.
TEST(Weights, BlocksHoldSeveralFormats) {
  for (int64_t cols : {32, 288, 512}) {
    checkBlocks(LLM_FILE_Q8_0, 0, FileTensor(LLM_FILE_Q5_0, 2, 40, cols, 1),
                FileTensor(LLM_FILE_Q8_0, 2, 30, cols, 2));
    checkBlocks(LLM_FILE_Q4_1, 0, FileTensor(LLM_FILE_Q4_1, 2, 3, cols, 1),
                FileTensor(LLM_FILE_Q4_0, 2, 50, cols, 2));
    checkBlocks(LLM_FILE_Q8_0, 1, FileTensor(LLM_FILE_Q4_0, 2, 37, cols, 1),
                FileTensor(LLM_FILE_Q5_0, 2, 37, 64, 2));
  }
}

/// Rows of 32, 33 .. of a tensor of the largest blocks go where they should.
TEST(Weights, BlocksOf256AreConvertedByRows) {
  const FileTensor tensor(LLM_FILE_Q4_K, 2, 70, 512);
  llm_weight_desc desc = {};
  desc.num_names = 1;
  desc.dtype = LLM_I8;
  desc.layout = LLM_LAYOUT_BLOCKS32;
  desc.format = LLM_FILE_Q4_1;
  desc.rank = 2;
  desc.sizes[0] = 70, desc.sizes[1] = 512;
  std::vector<uint8_t> packed(packedBytes(desc));
  EXPECT_EQ(packWeight(desc, &tensor.source, packed.data()), 0);
  for (int64_t row = 0; row < 70; ++row)
    for (int64_t col = 0; col < 512; ++col) {
      const uint8_t *block =
          tensor.bytes.data() + 1 + (row * 2 + col / 256) * 144;
      const auto [scale, minimum] = scaleAndMinimum(block, col % 256 / 32);
      ASSERT_NEAR(weightInBlocks(desc.format, packed.data(), 512, row, col),
                  tensor.at(row, col),
                  (15 * std::abs(scale) + std::abs(minimum)) / 2048)
          << row << ", " << col;
    }
}

TEST(Weights, BlocksKeepEveryWeight) {
  for (llm_file_format format : {LLM_FILE_Q8_0, LLM_FILE_Q4_0, LLM_FILE_Q4_1}) {
    checkBlocks(format, 0, {1, 32}, {30, 32});
    checkBlocks(format, 0, {40, 96}, {24, 96});
    checkBlocks(format, 0, {50, 576}, {21, 576});
    checkBlocks(format, 1, {37, 64}, {37, 288});
  }
}

TEST(Weights, ConcatenatesRowsOfSeveralFormats) {
  for (llm_layout layout :
       {LLM_LAYOUT_PLAIN, LLM_LAYOUT_PANEL32, LLM_LAYOUT_TILES32})
    check({FileTensor(LLM_FILE_Q4_1, 2, 50, 288, 1),
           FileTensor(LLM_FILE_F32, 2, 3, 288, 2),
           FileTensor(LLM_FILE_Q8_0, 2, 40, 288, 3),
           FileTensor(LLM_FILE_BF16, 2, 1, 288, 4)},
          0, LLM_BF16, layout);
}

TEST(Weights, ConcatenatesColumnsOfSeveralFormats) {
  for (llm_layout layout : {LLM_LAYOUT_PLAIN, LLM_LAYOUT_PANEL32})
    check({FileTensor(LLM_FILE_F32, 2, 37, 7, 1),
           FileTensor(LLM_FILE_Q4_0, 2, 37, 288, 2),
           FileTensor(LLM_FILE_F16, 2, 37, 5, 3)},
          1, LLM_F32, layout);
}

TEST(Weights, ConcatenatesVectors) {
  for (llm_dtype dtype : {LLM_F32, LLM_BF16})
    check({FileTensor(LLM_FILE_F32, 1, 1, 300, 1),
           FileTensor(LLM_FILE_F16, 1, 1, 5, 2)},
          0, dtype, LLM_LAYOUT_PLAIN);
}

TEST(Weights, AnyNumberOfThreads) {
  for (int32_t threads : {1, 2, 5}) {
    setNumThreads(threads);
    checkBlocks(LLM_FILE_Q4_0, 0, {500, 64}, {3, 64});
    check({FileTensor(LLM_FILE_Q8_0, 2, 500, 64)}, 0, LLM_BF16,
          LLM_LAYOUT_PANEL32);
  }
  setNumThreads(0);
}

} // namespace
