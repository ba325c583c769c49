//===- ConversionTest.cpp - Number formats and functions at every level -===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Formats are compared bit for bit with a reference in double, which knows an
// f16 or bf16 as sign, exponent and mantissa and rounds by comparing distances:
// widening for all 65536 patterns, rounding for each of them, for the points
// halfway between neighbours, and for the f32 just beside those points.
//
//===----------------------------------------------------------------------===//

#include "Levels.h"

#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

using namespace llm;

namespace {

//===----------------------------------------------------------------------===//
// The reference
//===----------------------------------------------------------------------===//

struct Format {
  llm_dtype type;
  int mantissa; ///< bits
  int bias;

  int exponentBits() const { return 15 - mantissa; }
  uint32_t infinity() const { return ((1u << exponentBits()) - 1) << mantissa; }
};

constexpr Format f16 = {LLM_F16, 10, 15}, bf16 = {LLM_BF16, 7, 127};

/// The value of a pattern below infinity; infinity's as if it were a number.
double valueOf(const Format &f, uint32_t magnitude) {
  int exponent = static_cast<int>(magnitude >> f.mantissa);
  double fraction = magnitude & ((1u << f.mantissa) - 1);
  if (exponent == 0)
    return std::ldexp(fraction, 1 - f.bias - f.mantissa);
  return std::ldexp(fraction + (1 << f.mantissa),
                    exponent - f.bias - f.mantissa);
}

double widened(const Format &f, uint16_t pattern) {
  uint32_t magnitude = pattern & 0x7fff;
  double sign = pattern >> 15 ? -1 : 1;
  if (magnitude > f.infinity())
    return std::nan("");
  return sign * (magnitude == f.infinity() ? INFINITY : valueOf(f, magnitude));
}

/// The nearest pattern to a number, the even one of two.
uint16_t rounded(const Format &f, float x) {
  double value = std::abs(static_cast<double>(x));
  uint32_t low = 0, high = f.infinity();
  while (high - low > 1) { // valueOf(low) <= value
    uint32_t middle = (low + high) / 2;
    (valueOf(f, middle) <= value ? low : high) = middle;
  }
  double below = value - valueOf(f, low), above = valueOf(f, high) - value;
  bool up = above < below || (above == below && high % 2 == 0);
  return static_cast<uint16_t>((up ? high : low) | (std::signbit(x) << 15));
}

//===----------------------------------------------------------------------===//
// Tests
//===----------------------------------------------------------------------===//

class ConversionTest : public LevelTest {
protected:
  static std::vector<float> widen(const std::vector<uint16_t> &from,
                                  llm_dtype type) {
    std::vector<float> to(from.size());
    cpu::kernels().convert(to.data(), LLM_F32, from.data(), type, to.size());
    return to;
  }
  static std::vector<uint16_t> round(const std::vector<float> &from,
                                     llm_dtype type) {
    std::vector<uint16_t> to(from.size());
    cpu::kernels().convert(to.data(), type, from.data(), LLM_F32, to.size());
    return to;
  }
};

std::vector<uint16_t> allPatterns() {
  std::vector<uint16_t> patterns(65536);
  for (uint32_t i = 0; i < 65536; ++i)
    patterns[i] = static_cast<uint16_t>(i);
  return patterns;
}

/// Every number of the format, the halfway points, their neighbours, and some
/// of the rest.
std::vector<float> trickyNumbers(const Format &f) {
  std::vector<float> numbers = {std::numeric_limits<float>::max(),
                                std::numeric_limits<float>::denorm_min(),
                                std::numeric_limits<float>::min(), INFINITY};
  for (uint32_t i = 0; i < f.infinity(); ++i) {
    float half = static_cast<float>((valueOf(f, i) + valueOf(f, i + 1)) / 2);
    for (float x : {static_cast<float>(valueOf(f, i)), half,
                    std::nextafter(half, 0.0f), std::nextafter(half, INFINITY)})
      numbers.push_back(x);
  }
  std::mt19937 random(3);
  for (int i = 0; i < 200000; ++i) {
    float x = std::bit_cast<float>(static_cast<uint32_t>(random()));
    numbers.push_back(std::isnan(x) ? 0 : x);
  }
  for (size_t i = 0, n = numbers.size(); i < n; ++i)
    numbers.push_back(-numbers[i]);
  return numbers;
}

TEST_P(ConversionTest, WidensEveryPattern) {
  for (const Format &f : {f16, bf16}) {
    std::vector<uint16_t> patterns = allPatterns();
    std::vector<float> result = widen(patterns, f.type);
    for (uint16_t pattern : patterns) {
      double expected = widened(f, pattern);
      if (std::isnan(expected)) {
        ASSERT_TRUE(std::isnan(result[pattern])) << pattern;
        continue;
      }
      ASSERT_EQ(result[pattern], expected) << pattern;
      ASSERT_EQ(std::signbit(result[pattern]), pattern >> 15) << pattern;
    }
  }
}

TEST_P(ConversionTest, RoundsToNearestEven) {
  for (const Format &f : {f16, bf16}) {
    std::vector<float> numbers = trickyNumbers(f);
    std::vector<uint16_t> result = round(numbers, f.type);
    for (size_t i = 0; i < numbers.size(); ++i)
      ASSERT_EQ(result[i], rounded(f, numbers[i])) << numbers[i];
  }
}

TEST_P(ConversionTest, NaNsStayNaNs) {
  for (const Format &f : {f16, bf16})
    for (uint32_t sign : {0u, 1u << 31})
      for (uint32_t payload : {1u, 0x1fffu, 0xffffu, 0x400000u, 0x7fffffu}) {
        float nan = std::bit_cast<float>(sign | 0x7f800000 | payload);
        uint16_t result = round({nan}, f.type)[0];
        EXPECT_GT(result & 0x7fffu, f.infinity());
        EXPECT_EQ(result >> 15, sign >> 31);
      }
}

/// Everything, the NaNs' payloads too.
TEST_P(ConversionTest, SameBitsAsTheBaseline) {
  std::vector<uint32_t> bits(1 << 20);
  std::mt19937 random(5);
  for (size_t i = 0; i < bits.size(); ++i)
    bits[i] = i % 16 ? random() : random() | 0x7f800000;
  std::vector<float> numbers(bits.size());
  for (size_t i = 0; i < bits.size(); ++i)
    numbers[i] = std::bit_cast<float>(bits[i]);
  for (llm_dtype type : {LLM_F16, LLM_BF16}) {
    std::vector<uint16_t> narrow = round(numbers, type);
    std::vector<float> wide = widen(allPatterns(), type);
    ASSERT_TRUE(cpu::selectKernels("baseline").ok());
    EXPECT_EQ(narrow, round(numbers, type));
    std::vector<float> expected = widen(allPatterns(), type);
    EXPECT_EQ(std::memcmp(wide.data(), expected.data(), wide.size() * 4), 0);
    ASSERT_TRUE(cpu::selectKernels(GetParam().name).ok());
  }
}

TEST_P(ConversionTest, AnyLengthAndNothingBehindIt) {
  for (llm_dtype to : {LLM_F32, LLM_F16, LLM_BF16})
    for (int64_t n = 0; n < 40; ++n) {
      std::vector<float> from(n, 1.5f);
      std::vector<uint8_t> result(41 * 4, 0xab);
      int64_t bytes = n * (to == LLM_F32 ? 4 : 2);
      cpu::kernels().convert(result.data(), to, from.data(), LLM_F32, n);
      std::vector<float> back(n);
      cpu::kernels().convert(back.data(), LLM_F32, result.data(), to, n);
      EXPECT_EQ(back, from);
      for (size_t i = bytes; i < result.size(); ++i)
        ASSERT_EQ(result[i], 0xab) << "n = " << n;
    }
}

std::vector<float> mapped(void (*fn)(float *, int64_t), std::vector<float> x) {
  fn(x.data(), x.size());
  return x;
}

TEST_P(ConversionTest, ExpIsAccurate) {
  std::vector<float> x;
  for (int i = -87000; i <= 88700; ++i)
    x.push_back(i * 1e-3f);
  std::vector<float> y = mapped(cpu::kernels().exp, x);
  for (size_t i = 0; i < x.size(); ++i) {
    double expected = std::exp(static_cast<double>(x[i]));
    ASSERT_LE(std::abs(y[i] - expected), 2e-7 * expected) << x[i];
  }
}

TEST_P(ConversionTest, ExpAtTheEdges) {
  float inf = INFINITY, nan = std::nanf("");
  std::vector<float> y =
      mapped(cpu::kernels().exp, {0, -0.0f, -inf, inf, nan, -200, 200, -100});
  EXPECT_EQ(y[0], 1);
  EXPECT_EQ(y[1], 1);
  EXPECT_EQ(y[2], 0);
  EXPECT_EQ(y[3], inf);
  EXPECT_TRUE(std::isnan(y[4]));
  EXPECT_EQ(y[5], 0);
  EXPECT_EQ(y[6], inf);
  EXPECT_NEAR(y[7], std::exp(-100.0), 2e-45); // a subnormal
}

TEST_P(ConversionTest, WeightsAreAccurate) {
  std::vector<float> x;
  for (int i = 0; i < 126000; ++i)
    x.push_back(i * -1e-3f);
  for (float tiny = 1; tiny > 1e-9f; tiny *= 0.999f)
    x.push_back(-tiny);
  std::vector<float> y = mapped(cpu::kernels().decay, x);
  for (size_t i = 0; i < x.size(); ++i) {
    double expected = std::exp2(static_cast<double>(x[i]));
    ASSERT_LE(std::abs(y[i] - expected), 2e-7 * expected) << x[i];
  }
}

/// Never a subnormal number, which takes its time.
TEST_P(ConversionTest, WeightsAtTheEdges) {
  float inf = INFINITY, nan = std::nanf("");
  std::vector<float> y = mapped(cpu::kernels().decay,
                                {0, -0.0f, -inf, nan, -126, -126.01f, -1e30f});
  EXPECT_EQ(y[0], 1);
  EXPECT_EQ(y[1], 1);
  EXPECT_EQ(y[2], 0);
  EXPECT_TRUE(std::isnan(y[3]));
  EXPECT_EQ(y[4], std::numeric_limits<float>::min());
  EXPECT_EQ(y[5], 0);
  EXPECT_EQ(y[6], 0);
}

TEST_P(ConversionTest, TanhIsAccurate) {
  std::vector<float> x = {1e-30f, -1e-10f, 100, -100, 0};
  for (int i = -12000; i <= 12000; ++i)
    x.push_back(i * 1e-3f);
  std::vector<float> y = mapped(cpu::kernels().tanh, x);
  for (size_t i = 0; i < x.size(); ++i) {
    double expected = std::tanh(static_cast<double>(x[i]));
    ASSERT_LE(std::abs(y[i] - expected), 1e-6 * std::abs(expected)) << x[i];
  }
}

//===----------------------------------------------------------------------===//
// The choice of a level
//===----------------------------------------------------------------------===//

TEST(CpuTarget, UnknownNamesAreErrorsAndGetTheBestLevel) {
  for (const char *best : {static_cast<const char *>(nullptr), ""})
    ASSERT_TRUE(cpu::selectKernels(best).ok());
  std::string best = llm_cpu_target();
  ASSERT_TRUE(cpu::selectKernels("baseline").ok());
  EXPECT_STREQ(llm_cpu_target(), "baseline");
  Status status = cpu::selectKernels("riscv");
  EXPECT_EQ(status.code(), LLM_INVALID_ARGUMENT);
  EXPECT_EQ(llm_cpu_target(), best);
}

/// As a message lists them: "baseline, x86-64-v3".
std::string levelsOfThisCPU() {
  std::string names;
  for (CpuLevel level : cpuLevels)
    if (cpu::selectKernels(level.name).ok())
      names += (names.empty() ? "" : ", ") + std::string(level.name);
  EXPECT_TRUE(cpu::selectKernels(nullptr).ok());
  return names;
}

/// What a host that begins is told, if anything.
std::string welcome() {
  llm_context *context = nullptr;
  llm_error error = LLM_ERROR_INIT;
  llm_context_create(1, &context, &error);
  llm_context_destroy(context);
  return error.message;
}

/// In a new process with that LLM_CPU_TARGET; it comes by here too, and has
/// `loaded` a level.
void expectLoaded(const std::string &loaded, const char *target,
                  const std::string &level, const std::string &message) {
  testing::FLAGS_gtest_death_test_style = "threadsafe"; // starts this program
  setenv("LLM_CPU_TARGET", target, 1);
  EXPECT_EXIT(std::exit(loaded == level && welcome() == message ? 0 : 1),
              testing::ExitedWithCode(0), "")
      << target;
  unsetenv("LLM_CPU_TARGET");
}

TEST(CpuTarget, TheEnvironmentForcesALevel) {
  const std::string loaded = llm_cpu_target();
  const std::string levels = levelsOfThisCPU(), best = llm_cpu_target();
  for (CpuLevel level : cpuLevels)
    if (cpu::selectKernels(level.name).ok())
      expectLoaded(loaded, level.name, level.name, "");
  EXPECT_TRUE(cpu::selectKernels(nullptr).ok());
  expectLoaded(loaded, "", best, "");
  expectLoaded(loaded, "no-such-level", best,
               "expected LLM_CPU_TARGET to name a level that this CPU runs (" +
                   levels + "), got 'no-such-level'");
}

LLM_AT_EVERY_LEVEL(ConversionTest);

} // namespace
