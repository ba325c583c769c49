//===- EvaluationTest.cpp - Scores against arithmetic by hand -------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ErrorMessage.h"
#include "FakeModel.h"

#include "llm/Driver/Evaluation.h"

#include "llvm/ADT/StringRef.h"
#include <gtest/gtest.h>

#include <cmath>

using namespace mlir::llm;

using Ids = std::vector<int32_t>;

/// The fake model's logits are 2 for the best token, 1 for the next, 8 x 0.
static double likelihoodOf(double logit) {
  return std::log(std::exp(2) + std::exp(1) + 8) - logit;
}

TEST(EvaluationTest, negativeLogLikelihood) {
  EXPECT_NEAR(negativeLogLikelihood({0, 0, 0, 0}, 2), std::log(4), 1e-12);
  const float half = std::log(0.5f), quarter = std::log(0.25f);
  EXPECT_NEAR(negativeLogLikelihood({half, quarter, quarter}, 1), std::log(4),
              1e-6);
  EXPECT_NEAR(negativeLogLikelihood({1000, 999}, 1),
              1 + std::log1p(std::exp(-1)), 1e-9);
}

TEST(EvaluationTest, scoresAllButTheFirstToken) {
  FakeModel model;
  Phase phase;
  Score result;
  // After 1 the best is 2; after 1, 2 it is 4, the next 5; after 1, 2, 5 it is
  // 9, the next 0.
  ASSERT_EQ(messageOf(score(model, {1, 2, 5, 3}, 512, phase, result)), "");
  EXPECT_EQ(result.tokens, 3);
  EXPECT_NEAR(result.total, likelihoodOf(2) + likelihoodOf(1) + likelihoodOf(0),
              1e-6);
  EXPECT_NEAR(result.meanNLL(), result.total / 3, 1e-12);
  EXPECT_NEAR(result.perplexity(), std::exp(result.total / 3), 1e-9);
  EXPECT_EQ(phase.tokens, 3);
  EXPECT_EQ(phase.steps, 1);
  EXPECT_EQ(phase.work.attention_bytes, 3);
  EXPECT_EQ(model.released, std::set<int32_t>({0}));
}

TEST(EvaluationTest, chunksDoNotChangeTheScore) {
  const Ids ids = {1, 2, 5, 0, 3, 3, 8};
  Score whole;
  for (int64_t chunk : {512, 1, 2, 4, 6}) {
    FakeModel model;
    Phase phase;
    Score result;
    ASSERT_EQ(messageOf(score(model, ids, chunk, phase, result)), "");
    if (chunk == 512)
      whole = result;
    EXPECT_EQ(result.tokens, 6);
    EXPECT_NEAR(result.total, whole.total, 1e-9);
    EXPECT_EQ(model.steps.size(), size_t((6 + chunk - 1) / chunk));
  }
}

TEST(EvaluationTest, sequencesAddUp) {
  FakeModel model;
  Phase phase;
  Score result;
  for (const Ids &ids : {Ids{1, 2}, Ids{7}, Ids{}, Ids{1, 3}})
    ASSERT_EQ(messageOf(score(model, ids, 512, phase, result)), "");
  EXPECT_EQ(result.tokens, 2);
  EXPECT_NEAR(result.total, likelihoodOf(2) + likelihoodOf(1), 1e-6);
}

TEST(EvaluationTest, everyRowInOrder) {
  FakeModel model;
  Phase phase;
  const Ids ids = {4, 4, 1, 9, 0};
  Ids best;
  auto sink = [&](int64_t position, llvm::ArrayRef<float> row) {
    EXPECT_EQ(position, int64_t(best.size()));
    best.push_back(bestToken(row));
    return llvm::Error::success();
  };
  ASSERT_EQ(messageOf(evaluate(model, ids, 2, phase, sink)), "");
  EXPECT_EQ(best, Ids({5, 9, 0, 9, 9}));
}

TEST(EvaluationTest, aStepThatFailsFailsTheScore) {
  FakeModel model;
  model.poolBlocks = 0;
  Phase phase;
  Score result;
  EXPECT_NE(messageOf(score(model, {1, 2}, 512, phase, result)), "");
}

TEST(EvaluationTest, windowsAreDisjointAndWhole) {
  const Ids ids = {0, 1, 2, 3, 4, 5, 6, 7};
  auto windows = splitWindows(ids, 3, std::nullopt);
  ASSERT_EQ(windows.size(), 2u);
  EXPECT_EQ(windows[0], llvm::ArrayRef(Ids({0, 1, 2})));
  EXPECT_EQ(windows[1], llvm::ArrayRef(Ids({3, 4, 5})));
  EXPECT_EQ(splitWindows(ids, 2, std::nullopt).size(), 4u);
  EXPECT_EQ(splitWindows(ids, 2, 3).size(), 3u);
  EXPECT_EQ(splitWindows(ids, 9, std::nullopt).size(), 0u);
}

TEST(EvaluationTest, documentsEndAtRecordSeparators) {
  using Texts = std::vector<llvm::StringRef>;
  EXPECT_EQ(splitDocuments("one\x1etwo\n\x1e three", std::nullopt),
            Texts({"one", "two\n", " three"}));
  EXPECT_EQ(splitDocuments("one\x1etwo\x1ethree", 2), Texts({"one", "two"}));
  EXPECT_EQ(splitDocuments("one", std::nullopt), Texts({"one"}));
}
