//===- LinearTest.cpp - Products with weights at every CPU level ----------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Every row against a sum of doubles over the numbers that are multiplied: the
// weights as bf16 or f32, and x as bf16 or as it is.
//
//===----------------------------------------------------------------------===//

#include "Linear.h"

#include "Levels.h"
#include "Parallel.h"
#include "Weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

using namespace llm;

namespace {

float toBrain(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
  std::memcpy(&x, &bits, 4);
  return x;
}

/// How weights lie.
struct Weights {
  llm_dtype dtype;
  llm_layout layout;
};
constexpr Weights tiles = {LLM_BF16, LLM_LAYOUT_TILES32};
constexpr Weights floatPanels = {LLM_F32, LLM_LAYOUT_PANEL32};
constexpr Weights brainPanels = {LLM_BF16, LLM_LAYOUT_PANEL32};

/// out has two numbers behind each row, which no one may write.
struct Product {
  int64_t rows, k, columns;
  Weights weights;
  std::vector<float> w, x, out;
  std::vector<char> packed;

  Product(int64_t rows, int64_t k, int64_t columns, Weights weights = tiles)
      : rows(rows), k(k), columns(columns), weights(weights), w(columns * k),
        x(rows * (k + 3)), out(rows * (columns + 2), -7) {
    std::mt19937 random(static_cast<unsigned>(rows * 31 + k * 7 + columns));
    std::normal_distribution<float> normal;
    for (float &weight : w)
      weight =
          weights.dtype == LLM_F32 ? normal(random) : toBrain(normal(random));
    for (float &number : x)
      number = normal(random);
  }

  void pack() {
    llm_weight_desc desc = {};
    desc.num_names = 1;
    desc.dtype = weights.dtype;
    desc.layout = weights.layout;
    desc.rank = 2;
    desc.sizes[0] = columns;
    desc.sizes[1] = k;
    packed.resize(packedBytes(desc));
    llm_weight_source source = {w.data(), LLM_FILE_F32, 2, {columns, k}};
    packWeight(desc, &source, packed.data());
  }

  void compute(bool rounded) { computeInto(out.data(), columns + 2, rounded); }

  void computeInto(float *to, int64_t stride, bool rounded) {
    pack();
    llm_tensor from = {x.data(), LLM_F32, 2, {rows, k}, {k + 3, 1}};
    llm_tensor result = {to, LLM_F32, 2, {rows, columns}, {stride, 1}};
    const bool tiled = weights.layout == LLM_LAYOUT_TILES32;
    const int64_t steps = tiled ? k / 32 : k, step = tiled ? 1024 : 32;
    llm_tensor weight = {packed.data(),
                         weights.dtype,
                         3,
                         {(columns + 31) / 32, steps, step},
                         {steps * step, step, 1}};
    std::vector<float> factors;
    linear({from, weight, result,
            weights.dtype == LLM_F32 ? LLM_FILE_F32 : LLM_FILE_BF16,
            rounded ? LLM_BF16 : LLM_F32},
           factors);
  }

  /// The sum, and that of squares, which does not cancel.
  double expected(int64_t row, int64_t column, bool rounded,
                  double &squares) const {
    double sum = 0;
    for (int64_t i = 0; i < k; ++i) {
      float factor = x[row * (k + 3) + i];
      double term =
          double(rounded ? toBrain(factor) : factor) * w[column * k + i];
      sum += term;
      squares += term * term;
    }
    return sum;
  }

  void check(bool rounded) const {
    for (int64_t row = 0; row < rows; ++row) {
      double error = 0, squares = 0;
      for (int64_t column = 0; column < columns; ++column) {
        double difference = out[row * (columns + 2) + column] -
                            expected(row, column, rounded, squares);
        error += difference * difference;
      }
      ASSERT_LE(std::sqrt(error / squares), 1e-6)
          << "row " << row << " of " << rows << ", k " << k << ", columns "
          << columns << (rounded ? ", rounded" : "");
      for (int64_t i = 0; i < 2; ++i)
        ASSERT_EQ(out[row * (columns + 2) + columns + i], -7)
            << "wrote behind row " << row;
    }
  }
};

class Linear : public LevelTest {};
LLM_AT_EVERY_LEVEL(Linear);

TEST_P(Linear, EveryRowAgainstDoubles) {
  for (bool rounded : {false, true})
    for (int64_t rows : {1, 2, 3, 4, 5, 8, 9, 12, 13, 16, 24, 25, 37, 130})
      for (auto [k, columns] : {std::pair<int64_t, int64_t>{32, 1},
                                {64, 16},
                                {96, 40},
                                {576, 192},
                                {160, 63}}) {
        Product product(rows, k, columns);
        product.compute(rounded);
        product.check(rounded);
      }
}

TEST_P(Linear, PanelsAgainstDoubles) {
  for (Weights weights : {floatPanels, brainPanels})
    for (int64_t rows : {1, 2, 3, 4, 5, 12, 13, 24, 37, 130})
      for (auto [k, columns] : {std::pair<int64_t, int64_t>{1, 1},
                                {5, 40},
                                {70, 16},
                                {172, 63},
                                {576, 192}}) {
        Product product(rows, k, columns, weights);
        product.compute(false);
        product.check(false);
      }
}

/// A large out goes past the caches where all of its rows begin at lines.
TEST_P(Linear, LargeOutHasTheSameBits) {
  constexpr int64_t kRows = 1030, kColumns = 1024, kMost = kColumns + 16;
  Product product(kRows, 32, kColumns);
  product.compute(true);
  std::vector<float> memory(kRows * kMost + 16);
  void *at = memory.data();
  size_t space = memory.size() * sizeof(float);
  auto *out = static_cast<float *>(
      std::align(64, kRows * kMost * sizeof(float), at, space));
  for (int64_t stride : {kMost, kColumns + 1}) {
    std::fill(memory.begin(), memory.end(), -7.0f);
    product.computeInto(out, stride, true);
    for (int64_t row = 0; row < kRows; ++row) {
      ASSERT_EQ(std::memcmp(out + row * stride,
                            &product.out[row * (kColumns + 2)],
                            kColumns * sizeof(float)),
                0);
      ASSERT_EQ(out[row * stride + kColumns], -7) << "wrote behind row " << row;
    }
  }
}

TEST_P(Linear, NoDepthIsZero) {
  for (int64_t rows : {2, 20}) {
    Product product(rows, 0, 40);
    product.compute(true);
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t column = 0; column < 42; ++column)
        EXPECT_EQ(product.out[row * 42 + column], column < 40 ? 0 : -7);
  }
}

TEST_P(Linear, NoRowsWriteNothing) {
  Product product(0, 64, 40);
  product.out.assign(42, -7);
  product.compute(true);
  for (float number : product.out)
    EXPECT_EQ(number, -7);
}

/// Large and small numbers side by side: digits that are left out show here.
TEST_P(Linear, KeepsAllOfF32) {
  for (int64_t rows : {4, 40}) {
    Product product(rows, 256, 64);
    for (size_t i = 0; i < product.x.size(); ++i)
      product.x[i] *= i % 5 ? 1e-4f : 1.2345678e3f;
    product.compute(false);
    product.check(false);
  }
}

/// A row's bits are its own: those of any rows beside it, and of any number of
/// threads, among calls of few rows and among calls of many.
TEST_P(Linear, RowsDoNotMeet) {
  for (auto [rows, weights] : {std::pair<int64_t, Weights>{5, tiles},
                               {150, tiles},
                               {5, floatPanels},
                               {150, floatPanels}}) {
    const bool rounded = weights.dtype == LLM_BF16;
    Product all(rows, 96, 200, weights);
    setNumThreads(3);
    all.compute(rounded);
    setNumThreads(1);
    Product some = all;
    int64_t kept = rows == 5 ? 1 : 20, first = rows - kept;
    some.rows = kept;
    some.x.erase(some.x.begin(), some.x.begin() + first * 99);
    some.out.assign(kept * 202, -7);
    some.compute(rounded);
    setNumThreads(0);
    EXPECT_EQ(std::memcmp(some.out.data(), &all.out[first * 202],
                          some.out.size() * sizeof(float)),
              0);
  }
}

TEST_P(Linear, WhatIsNotFiniteStaysInItsRow) {
  for (int64_t rows : {3, 40}) {
    Product product(rows, 64, 48);
    Product finite = product;
    finite.compute(true);
    product.x[1 * 67 + 5] = std::numeric_limits<float>::infinity();
    product.x[2 * 67 + 6] = std::numeric_limits<float>::quiet_NaN();
    product.compute(true);
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t column = 0; column < 48; ++column) {
        float number = product.out[row * 50 + column];
        if (row == 1)
          EXPECT_TRUE(std::isinf(number));
        else if (row == 2)
          EXPECT_TRUE(std::isnan(number));
        else
          EXPECT_EQ(number, finite.out[row * 50 + column]);
      }
  }
}

} // namespace
