//===- SamplerTest.cpp - Draws against distributions by hand --------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/Sampler.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

using namespace mlir::llm;

/// Logits of the distribution 1/2, 1/4, 1/8, 1/8 in another order.
static const std::vector<float> logits = {std::log(0.125f), std::log(0.5f),
                                          std::log(0.125f), std::log(0.25f)};

/// How often each token is drawn, of 1.
static std::array<double, 4> frequencies(const SamplerOptions &options) {
  constexpr int draws = 20000;
  Sampler sampler(options);
  std::array<double, 4> counts = {};
  for (int i = 0; i < draws; ++i)
    counts[sampler.pick(logits)] += 1.0 / draws;
  return counts;
}

static void expectNear(const std::array<double, 4> &actual,
                       const std::array<double, 4> &expected) {
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(actual[i], expected[i], 0.02) << "token " << i;
    EXPECT_EQ(actual[i] == 0, expected[i] == 0) << "token " << i;
  }
}

TEST(SamplerTest, bestTokenIsTheLowestOfEquals) {
  EXPECT_EQ(bestToken({1, 3, 2, 3}), 1);
  EXPECT_EQ(bestToken({-1, -1}), 0);
}

TEST(SamplerTest, bestTokenOfManyIsTheLowestOfEquals) {
  std::vector<float> many(2500, -1.0f);
  EXPECT_EQ(bestToken(many), 0);
  for (int32_t best : {2499, 2490, 2048, 2047, 1030, 1024, 1023, 5, 0}) {
    many[best] = 1;
    EXPECT_EQ(bestToken(many), best);
  }
}

TEST(SamplerTest, bestTokenOfNone) {
  const float lowest = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(bestToken(std::vector<float>(40, lowest)), 0);
}

TEST(SamplerTest, secondBestToken) {
  EXPECT_EQ(secondBestToken({1, 3, 2, 3}), 3);
  EXPECT_EQ(secondBestToken({5, 1, 2, 2}), 2);
  EXPECT_EQ(secondBestToken({1, 1, 1}), 1);
  EXPECT_EQ(secondBestToken({1, 2}), 0);
}

TEST(SamplerTest, temperatureZeroIsGreedy) {
  Sampler sampler({/*temperature=*/0, /*topP=*/0.5, /*seed=*/3});
  for (int i = 0; i < 100; ++i)
    EXPECT_EQ(sampler.pick(logits), 1);
}

TEST(SamplerTest, temperatureOneDrawsFromTheSoftmax) {
  expectNear(frequencies({1, 1, 7}), {0.125, 0.5, 0.125, 0.25});
}

TEST(SamplerTest, temperatureSharpens) {
  // Squares: 1, 16, 1, 4 of 22.
  expectNear(frequencies({0.5, 1, 7}),
             {1 / 22.0, 16 / 22.0, 1 / 22.0, 4 / 22.0});
}

TEST(SamplerTest, topPKeepsTheLikeliest) {
  expectNear(frequencies({1, 0.4, 7}), {0, 1, 0, 0});
  expectNear(frequencies({1, 0.7, 7}), {0, 2 / 3.0, 0, 1 / 3.0});
  // Of the two tokens of 1/8 the lower id comes first.
  expectNear(frequencies({1, 0.8, 7}), {1 / 7.0, 4 / 7.0, 0, 2 / 7.0});
  expectNear(frequencies({1, 0.95, 7}), {0.125, 0.5, 0.125, 0.25});
}

/// The options of a draw from the `topK` likeliest.
static SamplerOptions likeliest(int64_t topK, double topP = 1) {
  return {/*temperature=*/1, topP, /*seed=*/7, topK};
}

TEST(SamplerTest, topKKeepsTheLikeliest) {
  expectNear(frequencies(likeliest(1)), {0, 1, 0, 0});
  expectNear(frequencies(likeliest(2)), {0, 2 / 3.0, 0, 1 / 3.0});
  // Of the two tokens of 1/8 the lower id comes first.
  expectNear(frequencies(likeliest(3)), {1 / 7.0, 4 / 7.0, 0, 2 / 7.0});
  for (int64_t all : {0, 4, 5})
    expectNear(frequencies(likeliest(all)), {0.125, 0.5, 0.125, 0.25});
}

TEST(SamplerTest, topPIsOfWhatTopKKeeps) {
  // Of 4/7, 2/7, 1/7 two make 6/7; of all, 1/2 and 1/4 would not do.
  expectNear(frequencies(likeliest(3, 0.8)), {0, 2 / 3.0, 0, 1 / 3.0});
}

/// The best token where the last ones are made less likely.
static int32_t bestWithPenalty(double penalty, llvm::ArrayRef<float> logits,
                               llvm::ArrayRef<int32_t> before) {
  SamplerOptions options;
  options.repeatPenalty = penalty;
  return Sampler(options).pick(logits, before);
}

TEST(SamplerTest, penaltyDividesPositiveLogitsAndMultipliesOthers) {
  EXPECT_EQ(bestWithPenalty(2, {4, 2.5, 1}, {0}), 1);
  EXPECT_EQ(bestWithPenalty(1.5, {4, 2.5, 1}, {0}), 0);
  EXPECT_EQ(bestWithPenalty(2, {-4, -2.5, -10}, {1}), 0);
  EXPECT_EQ(bestWithPenalty(1.5, {-4, -2.5, -10}, {1}), 1);
  EXPECT_EQ(bestWithPenalty(2, {4, 2.5, 1}, {}), 0);
  // Below 1 it favours what was there.
  EXPECT_EQ(bestWithPenalty(0.5, {4, 2.5, 1}, {1}), 1);
}

TEST(SamplerTest, penaltyCountsATokenOnce) {
  EXPECT_EQ(bestWithPenalty(1.5, {4, 2.5, 1}, {0, 0, 0}), 0);
}

TEST(SamplerTest, penaltyIsForTheLast64Tokens) {
  std::vector<int32_t> before(65, 2);
  before[0] = 0;
  EXPECT_EQ(bestWithPenalty(2, {4, 2.5, 1}, before), 0);
  before[1] = 0;
  EXPECT_EQ(bestWithPenalty(2, {4, 2.5, 1}, before), 1);
}

TEST(SamplerTest, penaltyComesBeforeTheDraw) {
  SamplerOptions options = likeliest(1);
  options.repeatPenalty = 2;
  Sampler sampler(options);
  for (int i = 0; i < 20; ++i)
    EXPECT_EQ(sampler.pick({4, 2.5, 1}, {0}), 1);
}

TEST(SamplerTest, theSeedDecides) {
  auto draw = [](uint64_t seed, uint64_t stream) {
    Sampler sampler({1, 1, seed}, stream);
    std::vector<int32_t> tokens;
    for (int i = 0; i < 50; ++i)
      tokens.push_back(sampler.pick(logits));
    return tokens;
  };
  EXPECT_EQ(draw(1, 0), draw(1, 0));
  EXPECT_NE(draw(1, 0), draw(2, 0));
  EXPECT_NE(draw(1, 0), draw(1, 1));
}

TEST(SamplerTest, drawsAreTheSameOnEveryMachine) {
  Sampler sampler({1, 1, 42});
  std::vector<int32_t> tokens;
  for (int i = 0; i < 12; ++i)
    tokens.push_back(sampler.pick(logits));
  EXPECT_EQ(tokens, (std::vector<int32_t>{3, 2, 3, 1, 3, 0, 1, 1, 1, 1, 0, 1}));
}
