//===- QuantizeTest.cpp - Quantized rows at every level -------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Codes, scales and what is read of them, bit for bit against a reference that
// computes in double and finds the nearest number of a format by comparing
// distances to all of them.
//
//===----------------------------------------------------------------------===//

#include "Levels.h"

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

using namespace llm;

namespace {

//===----------------------------------------------------------------------===//
// The reference
//===----------------------------------------------------------------------===//

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kTiny = std::numeric_limits<float>::denorm_min();
constexpr float kHuge = std::numeric_limits<float>::max();

/// The number behind a code that is no NaN.
double valueOf(llm_dtype type, uint8_t code) {
  if (type == LLM_I8)
    return static_cast<int8_t>(code);
  const int exponent = code >> 3 & 15, fraction = code & 7;
  const double magnitude = exponent ? std::ldexp(8 + fraction, exponent - 10)
                                    : std::ldexp(fraction, -9);
  return code & 0x80 ? -magnitude : magnitude;
}

/// The code of the number nearest to x, the even one of two.
uint8_t nearest(llm_dtype type, double x) {
  uint8_t best = 0;
  for (int code = 0; code <= (type == LLM_I8 ? 127 : 126); ++code) {
    const double distance = std::abs(std::abs(x) - valueOf(type, code));
    const double least = std::abs(std::abs(x) - valueOf(type, best));
    if (distance < least || (distance == least && code % 2 == 0))
      best = static_cast<uint8_t>(code);
  }
  if (!std::signbit(x))
    return best;
  return type == LLM_I8 ? static_cast<uint8_t>(-best) : best | 0x80;
}

struct Quantized {
  std::vector<uint8_t> codes;
  float scale;
};

Quantized reference(llm_dtype type, const std::vector<float> &row) {
  double most = 0;
  for (float x : row)
    most = std::isnan(x) || std::isnan(most)
               ? NAN
               : std::max<double>(most, std::abs(x));
  float scale = static_cast<float>(most / (type == LLM_I8 ? 127 : 448));
  if (!std::isfinite(scale))
    scale = kNaN;
  Quantized result = {std::vector<uint8_t>(row.size()), scale};
  for (size_t i = 0; i < row.size() && scale > 0; ++i)
    result.codes[i] =
        nearest(type, static_cast<float>(static_cast<double>(row[i]) / scale));
  return result;
}

//===----------------------------------------------------------------------===//
// Rows
//===----------------------------------------------------------------------===//

/// What the largest number of a row makes of the others: one for each pattern
/// of ratios that the format can get, its halfway points and their neighbours.
std::vector<float> trickyRow(llm_dtype type, float scale) {
  std::vector<float> row = {(type == LLM_I8 ? 127 : 448) * scale, 0.0f, -0.0f};
  for (int code = 0; code < (type == LLM_I8 ? 127 : 126); ++code) {
    const double low = valueOf(type, code), high = valueOf(type, code + 1);
    const auto half = static_cast<float>((low + high) / 2);
    for (float x : {static_cast<float>(low), half, std::nextafter(half, 0.0f),
                    std::nextafter(half, INFINITY)}) {
      row.push_back(x * scale);
      row.push_back(-x * scale);
    }
  }
  return row;
}

std::vector<std::vector<float>> allRows(llm_dtype type) {
  std::vector<std::vector<float>> rows = {
      {},
      {0},
      {0, -0.0f, 0, 0, 0},
      {1, kNaN, 2},
      {-kNaN, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
      {INFINITY, 1},
      {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, -INFINITY},
      {kHuge, -kHuge, 1, 1e38f},
      {kTiny},                                // scale 0
      {63 * kTiny, -kTiny},                   // 0 for i8, too
      {190 * kTiny, -190 * kTiny, kTiny},     // beyond 127 for i8
      {671 * kTiny, -671 * kTiny, 3 * kTiny}, // beyond 448 for f8
      {1000 * kTiny, -501 * kTiny, 3 * kTiny}};
  for (float scale : {1.0f, 0x1p-100f, 0x1p-140f, 0x1p100f, 0.3f, 1e-41f})
    rows.push_back(trickyRow(type, scale));
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (int n = 1; n < 200; ++n) {
    const float scale = std::exp2(static_cast<float>(random() % 250) - 125);
    rows.emplace_back(n);
    for (float &x : rows.back())
      x = normal(random) * scale;
  }
  return rows;
}

std::vector<char> as(llm_dtype type, const std::vector<float> &row) {
  std::vector<char> to(row.size() * 4 + 1);
  cpu::kernels().convert(to.data(), type, row.data(), LLM_F32, row.size());
  return to;
}

std::vector<float> widened(llm_dtype type, const std::vector<char> &from,
                           size_t n) {
  std::vector<float> row(n);
  cpu::kernels().convert(row.data(), LLM_F32, from.data(), type, n);
  return row;
}

std::string describe(llm_dtype type, const std::vector<float> &row) {
  return std::string(type == LLM_I8 ? "i8" : "f8") + " row of " +
         std::to_string(row.size()) +
         (row.empty() ? "" : " from " + std::to_string(row[0]));
}

/// One NaN is as good as another one.
testing::AssertionResult sameBits(float a, float b) {
  if ((std::isnan(a) && std::isnan(b)) ||
      std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b))
    return testing::AssertionSuccess();
  return testing::AssertionFailure() << a << " and " << b;
}

//===----------------------------------------------------------------------===//
// Tests
//===----------------------------------------------------------------------===//

class QuantizeTest : public LevelTest {
protected:
  /// Nothing behind the row is touched.
  static Quantized quantize(llm_dtype type, const std::vector<char> &from,
                            llm_dtype fromType, size_t n) {
    Quantized result = {std::vector<uint8_t>(n + 1, 0xab), 0};
    result.scale = cpu::kernels().quantize(result.codes.data(), type,
                                           from.data(), fromType, n);
    EXPECT_EQ(result.codes.back(), 0xab);
    result.codes.pop_back();
    return result;
  }
};

constexpr llm_dtype formats[] = {LLM_F8E4M3FN, LLM_I8};
constexpr llm_dtype types[] = {LLM_F32, LLM_F16, LLM_BF16};

TEST_P(QuantizeTest, CodesAndScales) {
  for (llm_dtype format : formats)
    for (const std::vector<float> &row : allRows(format))
      for (llm_dtype type : types) {
        SCOPED_TRACE(describe(format, row));
        const std::vector<char> from = as(type, row);
        const Quantized expected =
            reference(format, widened(type, from, row.size()));
        const Quantized actual = quantize(format, from, type, row.size());
        ASSERT_TRUE(sameBits(actual.scale, expected.scale));
        ASSERT_EQ(actual.codes, expected.codes);
      }
}

TEST_P(QuantizeTest, ReadsAreRoundedOnce) {
  for (llm_dtype format : formats)
    for (const std::vector<float> &row : allRows(format))
      for (llm_dtype type : types) {
        SCOPED_TRACE(describe(format, row));
        const Quantized q = reference(format, row);
        std::vector<float> expected;
        for (uint8_t code : q.codes)
          expected.push_back(static_cast<float>(valueOf(format, code) *
                                                static_cast<double>(q.scale)));
        expected = widened(type, as(type, expected), row.size());
        std::vector<char> read(row.size() * 4 + 1);
        cpu::kernels().dequantize(read.data(), type, q.codes.data(), format,
                                  q.scale, row.size());
        const std::vector<float> actual = widened(type, read, row.size());
        for (size_t i = 0; i < row.size(); ++i)
          ASSERT_TRUE(sameBits(actual[i], expected[i])) << "element " << i;
      }
}

/// Every code but f8's NaNs, which are never stored.
TEST_P(QuantizeTest, WidensEveryCode) {
  for (llm_dtype format : formats)
    for (int code = 0; code < 256; ++code) {
      if (format == LLM_F8E4M3FN && (code & 0x7f) == 0x7f)
        continue;
      const std::vector<uint8_t> codes(17, static_cast<uint8_t>(code));
      std::vector<float> wide(codes.size());
      cpu::kernels().dequantize(wide.data(), LLM_F32, codes.data(), format, 1,
                                codes.size());
      const auto expected = static_cast<float>(valueOf(format, codes[0]));
      for (float x : wide)
        ASSERT_TRUE(sameBits(x, expected)) << code;
    }
}

LLM_AT_EVERY_LEVEL(QuantizeTest);

} // namespace
