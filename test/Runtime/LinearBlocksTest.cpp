//===- LinearBlocksTest.cpp - Products with quantized weights -------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Every row against a sum of doubles over the numbers that are multiplied:
// integers times their scale and the weights as they are, or x as bf16 or as it
// is and the weights as bf16.
//
//===----------------------------------------------------------------------===//

#include "Linear.h"

#include "FileTensor.h"
#include "Levels.h"
#include "Parallel.h"
#include "Weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

using namespace llm;

namespace {

constexpr llm_file_format blockFormats[] = {LLM_FILE_Q8_0, LLM_FILE_Q4_0,
                                            LLM_FILE_Q4_1};

float toBrain(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
  std::memcpy(&x, &bits, 4);
  return x;
}

/// out has two numbers behind each row, which no one may write.
struct Product {
  llm_file_format format;
  llm_dtype activations;
  int64_t rows, k, columns;
  FileTensor w;
  std::vector<float> x, out;

  Product(llm_file_format format, llm_dtype activations, int64_t rows,
          int64_t k, int64_t columns)
      : format(format), activations(activations), rows(rows), k(k),
        columns(columns), w(format, 2, columns, k), x(rows * (k + 3)),
        out(rows * (columns + 2), -7) {
    std::mt19937 random(static_cast<unsigned>(rows * 31 + k * 7 + columns));
    std::normal_distribution<float> normal;
    for (float &number : x)
      number = normal(random);
  }

  std::vector<char> pack() const {
    llm_weight_desc desc = {};
    desc.num_names = 1;
    desc.dtype = LLM_I8;
    desc.layout = LLM_LAYOUT_BLOCKS32;
    desc.format = format;
    desc.rank = 2;
    desc.sizes[0] = columns;
    desc.sizes[1] = k;
    std::vector<char> packed(packedBytes(desc));
    packWeight(desc, &w.source, packed.data());
    return packed;
  }

  void compute() {
    std::vector<char> packed = pack();
    llm_tensor from = {x.data(), LLM_F32, 2, {rows, k}, {k + 3, 1}};
    llm_tensor to = {out.data(), LLM_F32, 2, {rows, columns}, {columns + 2, 1}};
    llm_tensor weight = {packed.data(), LLM_I8, 3, {}, {}};
    std::vector<float> scratch;
    linear({from, weight, to, format, activations}, scratch);
  }

  bool areIntegers() const {
    return activations == LLM_I8 && rows <= cpu::kernels().integerRows;
  }

  /// A row as it is multiplied.
  std::vector<double> factors(int64_t row) const {
    const float *from = &x[row * (k + 3)];
    std::vector<double> result(from, from + k);
    if (activations != LLM_F32 && !areIntegers())
      std::transform(from, from + k, result.begin(), toBrain);
    for (int64_t block = 0; areIntegers() && block < k; block += 32) {
      float largest = 0;
      for (int64_t i = block; i < block + 32; ++i)
        largest = std::max(largest, std::abs(from[i]));
      const float inverse = 127 / largest, scale = largest / 127;
      for (int64_t i = block; i < block + 32; ++i)
        result[i] = std::nearbyint(from[i] * inverse) * double(scale);
    }
    return result;
  }

  double weight(int64_t column, int64_t i) const {
    const double exact = w.at(column, i);
    return areIntegers() ? exact : toBrain(static_cast<float>(exact));
  }

  void check() const {
    for (int64_t row = 0; row < rows; ++row) {
      const std::vector<double> numbers = factors(row);
      double error = 0, squares = 0; // which do not cancel
      for (int64_t column = 0; column < columns; ++column) {
        double sum = 0;
        for (int64_t i = 0; i < k; ++i) {
          const double term = numbers[i] * weight(column, i);
          sum += term;
          squares += term * term;
        }
        const double difference = out[row * (columns + 2) + column] - sum;
        error += difference * difference;
      }
      ASSERT_LE(std::sqrt(error / squares), 1e-6)
          << llm_file_format_name(format) << ", activations " << activations
          << ", row " << row << " of " << rows << ", k " << k << ", columns "
          << columns;
      for (int64_t i = 0; i < 2; ++i)
        ASSERT_EQ(out[row * (columns + 2) + columns + i], -7)
            << "wrote behind row " << row;
    }
  }
};

class LinearBlocks : public LevelTest {};
LLM_AT_EVERY_LEVEL(LinearBlocks);

TEST_P(LinearBlocks, EveryRowAgainstDoubles) {
  for (llm_file_format format : blockFormats)
    for (llm_dtype activations : {LLM_I8, LLM_BF16, LLM_F32})
      for (int64_t rows : {1, 2, 3, 5, 7, 8, 9, 16, 32, 33, 40})
        for (auto [k, columns] : {std::pair<int64_t, int64_t>{32, 1},
                                  {64, 16},
                                  {96, 40},
                                  {576, 96},
                                  {160, 63}}) {
          Product product(format, activations, rows, k, columns);
          product.compute();
          product.check();
        }
}

TEST_P(LinearBlocks, NoRowsWriteNothing) {
  for (llm_dtype activations : {LLM_I8, LLM_BF16}) {
    Product product(LLM_FILE_Q4_1, activations, 0, 64, 40);
    product.out.assign(42, -7);
    product.compute();
    for (float number : product.out)
      EXPECT_EQ(number, -7);
  }
}

/// Blocks of x have scales of their own, and one of zeros has one as well.
TEST_P(LinearBlocks, BlocksOfXDoNotMeet) {
  for (llm_file_format format : blockFormats) {
    Product product(format, LLM_I8, 3, 128, 40);
    for (int64_t row = 0; row < 3; ++row)
      for (int64_t i = 0; i < 128; ++i)
        product.x[row * 131 + i] *= i / 32 == 0   ? 1e6f
                                    : i / 32 == 1 ? 1
                                                  : 1e-6f;
    product.compute();
    product.check();
    Product zeros = product;
    for (int64_t i = 0; i < 32; ++i)
      product.x[i] = 1e-38f, zeros.x[i] = 0;
    product.compute();
    zeros.compute();
    EXPECT_EQ(product.out, zeros.out) << llm_file_format_name(format);
    for (float number : zeros.out)
      EXPECT_TRUE(std::isfinite(number));
  }
}

/// Rows about those that are worth a byte for each weight, and blocks in
/// several parts, some of another length.
TEST_P(LinearBlocks, ManyRowsOfIntegersAgainstDoubles) {
  for (llm_file_format format : blockFormats)
    for (int64_t rows : {11, 12, 13, 14, 15, 21, 31})
      for (auto [k, columns] :
           {std::pair<int64_t, int64_t>{768, 20}, {800, 33}, {1600, 48}}) {
        Product product(format, LLM_I8, rows, k, columns);
        product.compute();
        product.check();
      }
}

/// A row's bits are its own: those of any rows beside it, and of any number of
/// threads. What is not integers has bits of its own among calls of few rows.
TEST_P(LinearBlocks, RowsDoNotMeet) {
  constexpr int64_t kMany = 33, kDepth = 800, kColumns = 200;
  for (llm_file_format format : blockFormats)
    for (llm_dtype activations : {LLM_I8, LLM_BF16, LLM_F32})
      for (int64_t rows : {7, 150, 600}) {
        Product all(format, activations, rows, kDepth, kColumns);
        setNumThreads(3);
        all.compute();
        setNumThreads(1);
        Product some = all;
        const int64_t kept = rows == 7 || all.areIntegers() ? 2 : kMany;
        const int64_t first = rows - kept;
        some.rows = kept;
        some.x.erase(some.x.begin(), some.x.begin() + first * (kDepth + 3));
        some.out.assign(kept * (kColumns + 2), -7);
        some.compute();
        setNumThreads(0);
        EXPECT_EQ(std::memcmp(some.out.data(), &all.out[first * (kColumns + 2)],
                              some.out.size() * sizeof(float)),
                  0)
            << llm_file_format_name(format) << ", activations " << activations
            << ", " << rows << " rows";
      }
}

TEST_P(LinearBlocks, WhatIsNotFiniteStaysInItsRow) {
  for (llm_file_format format : blockFormats)
    for (int64_t rows : {3, 40}) {
      Product product(format, LLM_I8, rows, 64, 48);
      Product finite = product;
      finite.compute();
      product.x[1 * 67 + 5] = std::numeric_limits<float>::infinity();
      product.x[2 * 67 + 6] = std::numeric_limits<float>::quiet_NaN();
      product.compute();
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t column = 0; column < 48; ++column) {
          const float number = product.out[row * 50 + column];
          if (row == 1 || row == 2)
            EXPECT_FALSE(std::isfinite(number));
          else
            EXPECT_EQ(number, finite.out[row * 50 + column]);
        }
    }
}

} // namespace
