//===- GenerationTest.cpp - Ragged batches against a fake model -----------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ErrorMessage.h"
#include "FakeModel.h"

#include "llm/Driver/Generation.h"

#include <gtest/gtest.h>

#include <limits>

using namespace mlir::llm;

using Ids = std::vector<int32_t>;
using StepSizes = std::map<int32_t, size_t>;

/// What a model without a cache would generate.
static Ids continuation(Ids tokens, int64_t n) {
  const size_t promptLength = tokens.size();
  for (int64_t i = 0; i < n; ++i)
    tokens.push_back(FakeModel::bestAfter(tokens));
  return Ids(tokens.begin() + promptLength, tokens.end());
}

static GenerationResult generate(FakeModel &model,
                                 const GenerationOptions &options,
                                 const std::vector<Ids> &prompts) {
  auto result = Generator(model, options).run(prompts);
  if (result)
    return *result;
  ADD_FAILURE() << messageOf(std::move(result));
  return {};
}

TEST(GenerationTest, feedsEachTokenOnce) {
  FakeModel model;
  GenerationOptions options;
  options.maxNewTokens = 5;
  GenerationResult result = generate(model, options, {{1, 2, 3}});
  ASSERT_EQ(result.sequences.size(), 1u);
  EXPECT_EQ(result.sequences[0].promptIds, Ids({1, 2, 3}));
  EXPECT_EQ(result.sequences[0].ids, continuation({1, 2, 3}, 5));
  EXPECT_EQ(result.prefill.tokens, 3);
  EXPECT_EQ(result.decode.tokens, 4);
}

TEST(GenerationTest, eachPhaseKnowsItsWork) {
  FakeModel model;
  GenerationOptions options;
  options.maxNewTokens = 3;
  options.prefillChunk = 2;
  const GenerationResult result = generate(model, options, {{1, 2, 3}});
  EXPECT_EQ(result.prefill.steps, 2);
  EXPECT_EQ(result.prefill.work.append_bytes, 3);
  EXPECT_EQ(result.prefill.work.append_ns, 4 * 3);
  EXPECT_EQ(result.prefill.work.attention_bytes, 2 + 3);
  EXPECT_EQ(result.prefill.work.attention_ns, 2 * (2 + 3));
  EXPECT_EQ(result.prefill.work.attention_flops, 3 * (2 + 3));
  EXPECT_EQ(result.prefill.linear.linear_ns, 5 * 3);
  EXPECT_EQ(result.prefill.linear.linear_bytes, 3);
  EXPECT_EQ(result.prefill.linear.linear_flops, 6 * 3);
  EXPECT_EQ(result.decode.steps, 2);
  EXPECT_EQ(result.decode.work.append_bytes, 2);
  EXPECT_EQ(result.decode.work.attention_bytes, 4 + 5);
  EXPECT_EQ(result.decode.linear.linear_bytes, 2);
}

TEST(GenerationTest, chunkBoundsTheWholeBatch) {
  FakeModel model;
  GenerationOptions options;
  options.maxNewTokens = 2;
  options.prefillChunk = 3;
  std::vector<Ids> prompts = {{1, 2}, {3, 4, 5, 6}, {7}};
  GenerationResult result = generate(model, options, prompts);
  EXPECT_EQ(
      model.steps,
      std::vector<StepSizes>(
          {{{0, 2}, {1, 1}}, {{1, 3}}, {{2, 1}}, {{0, 1}, {1, 1}, {2, 1}}}));
  for (size_t i = 0; i < prompts.size(); ++i)
    EXPECT_EQ(result.sequences[i].ids, continuation(prompts[i], 2));
}

TEST(GenerationTest, anyChunkGivesTheSameTokens) {
  const Ids prompt = {3, 1, 4, 1, 5, 9, 2, 6};
  for (int64_t chunk : {1, 3, 7, 512}) {
    FakeModel model;
    GenerationOptions options;
    options.maxNewTokens = 6;
    options.prefillChunk = chunk;
    EXPECT_EQ(generate(model, options, {prompt}).sequences[0].ids,
              continuation(prompt, 6));
  }
}

TEST(GenerationTest, stopTokenEndsASequenceAndIsReported) {
  FakeModel model;
  GenerationOptions options;
  options.maxNewTokens = 4;
  const Ids expected = continuation({1}, 4); // 2, 4, 8, 6
  options.stopTokens = {expected[2]};
  GenerationResult result = generate(model, options, {{1}, {5}});
  EXPECT_EQ(result.sequences[0].ids, Ids(expected.begin(), expected.end() - 1));
  EXPECT_EQ(model.steps.back(), StepSizes({{1, 1}}));
  EXPECT_EQ(model.released, std::set<int32_t>({0, 1}));
}

TEST(GenerationTest, contextEndsASequence) {
  FakeModel model;
  model.context = 6;
  // The last token needs no room: nothing follows it.
  EXPECT_EQ(generate(model, {}, {{1, 2, 3}}).sequences[0].ids.size(), 4u);
  EXPECT_EQ(generate(model, {}, {{1, 2, 3, 4, 5, 6}}).sequences[0].ids.size(),
            1u);
}

TEST(GenerationTest, noTokensWanted) {
  FakeModel model;
  GenerationOptions options;
  options.maxNewTokens = 0;
  GenerationResult result = generate(model, options, {{1, 2, 3}});
  EXPECT_TRUE(result.sequences[0].ids.empty());
  EXPECT_EQ(result.prefill.tokens, 3);
  EXPECT_EQ(result.decode.tokens, 0);
}

TEST(GenerationTest, promptsMustFitTheContext) {
  FakeModel model;
  model.context = 3;
  auto result = Generator(model, {}).run(std::vector<Ids>{{1}, {1, 2, 3, 4}});
  EXPECT_EQ(messageOf(std::move(result)),
            "prompt 1 has 4 tokens, the context holds 3");
  EXPECT_TRUE(model.steps.empty());
}

TEST(GenerationTest, promptsMustHaveTokens) {
  FakeModel model;
  auto result = Generator(model, {}).run(std::vector<Ids>{{}});
  EXPECT_EQ(messageOf(std::move(result)), "prompt 0 has no tokens");
}

TEST(GenerationTest, exhaustedPoolEndsTheSequenceNamed) {
  FakeModel model;
  model.poolBlocks = 3; // one each, and one more
  GenerationOptions options;
  options.maxNewTokens = 8;
  GenerationResult result = generate(model, options, {{1, 1}, {2, 2}});
  // Both reach a fifth token at once; only sequence 0 gets a block for it. What
  // sequence 1 gave back lets it reach the end.
  EXPECT_EQ(result.sequences[0].ids, continuation({1, 1}, 8));
  EXPECT_EQ(result.sequences[0].error, "");
  EXPECT_EQ(result.sequences[1].ids, continuation({2, 2}, 3));
  EXPECT_EQ(result.sequences[1].error,
            "llm.begin_step at forward: out of blocks: sequence 1 needs 1 more "
            "blocks, 0 are free");
  EXPECT_EQ(model.released, std::set<int32_t>({0, 1}));
}

TEST(GenerationTest, exhaustedPoolInPrefill) {
  FakeModel model;
  model.poolBlocks = 2;
  GenerationOptions options;
  options.maxNewTokens = 3;
  GenerationResult result =
      generate(model, options, {{1, 1, 1}, {2, 2, 2, 2, 2}, {3}});
  // The step is repeated for the others at once.
  EXPECT_EQ(model.steps.front(), StepSizes({{0, 3}, {2, 1}}));
  EXPECT_EQ(result.sequences[0].error, "llm.begin_step at forward: out of "
                                       "blocks: sequence 0 needs 1 more "
                                       "blocks, 0 are free");
  EXPECT_TRUE(result.sequences[1].ids.empty());
  EXPECT_NE(result.sequences[1].error, "");
  EXPECT_EQ(result.sequences[2].ids, continuation({3}, 3));
}

TEST(GenerationTest, nothingFits) {
  FakeModel model;
  model.poolBlocks = 0;
  GenerationResult result = generate(model, {}, {{1}, {2}});
  EXPECT_NE(result.sequences[0].error, "");
  EXPECT_NE(result.sequences[1].error, "");
  EXPECT_TRUE(model.steps.empty());
}

TEST(GenerationTest, forkGoesOnWithTheSecondBestToken) {
  FakeModel model;
  GenerationOptions options;
  options.maxNewTokens = 5;
  options.forkAt = 2;
  GenerationResult result = generate(model, options, {{1}, {7}});
  ASSERT_EQ(result.sequences.size(), 3u);
  const Ids expected = continuation({1}, 5);
  EXPECT_EQ(result.sequences[0].ids, expected);
  EXPECT_EQ(result.sequences[1].ids, continuation({7}, 5));

  Ids branch = {expected[0], expected[1],
                (expected[2] + 1) % FakeModel::vocabulary};
  Ids tokens = {1};
  tokens.insert(tokens.end(), branch.begin(), branch.end());
  for (int32_t token : continuation(tokens, 2))
    branch.push_back(token);
  EXPECT_EQ(result.sequences[2].promptIds, Ids({1}));
  EXPECT_EQ(result.sequences[2].ids, branch);
  EXPECT_EQ(model.steps.back(), StepSizes({{0, 1}, {1, 1}, {2, 1}}));
}

TEST(GenerationTest, forkRightAfterThePrompt) {
  FakeModel model;
  GenerationOptions options;
  options.maxNewTokens = 1;
  options.forkAt = 0;
  GenerationResult result = generate(model, options, {{1}});
  ASSERT_EQ(result.sequences.size(), 2u);
  EXPECT_EQ(result.sequences[0].ids, Ids({2}));
  EXPECT_EQ(result.sequences[1].ids, Ids({3}));
}

TEST(GenerationTest, hearsOfEachToken) {
  FakeModel model;
  GenerationOptions options;
  options.maxNewTokens = 3;
  std::map<int32_t, Ids> heard;
  options.onToken = [&](int32_t sequence, int32_t token) {
    heard[sequence].push_back(token);
  };
  GenerationResult result = generate(model, options, {{1}, {2}});
  EXPECT_EQ(heard[0], result.sequences[0].ids);
  EXPECT_EQ(heard[1], result.sequences[1].ids);
}

//===----------------------------------------------------------------------===//
// Going on with what is in the cache
//===----------------------------------------------------------------------===//

/// Options of a conversation whose answers end with this token.
static GenerationOptions keeping(int64_t maxNewTokens,
                                 std::vector<int32_t> stops = {}) {
  GenerationOptions options;
  options.maxNewTokens = maxNewTokens;
  options.stopTokens = std::move(stops);
  options.keep = true;
  return options;
}

static GenerationResult cantFail(llvm::Expected<GenerationResult> result) {
  if (result)
    return *result;
  ADD_FAILURE() << messageOf(std::move(result));
  return {};
}

TEST(GenerationTest, resumingFeedsOnlyWhatIsNew) {
  FakeModel model;
  const GenerationOptions options = keeping(3);
  Generator generator(model, options);
  const Ids first =
      cantFail(generator.run(std::vector<Ids>{{1, 2}})).sequences[0].ids;
  EXPECT_EQ(first, continuation({1, 2}, 3));
  EXPECT_TRUE(model.released.empty());
  EXPECT_EQ(generator.length(), 5);
  GenerationResult second = cantFail(generator.resume({7, 8}));
  // The last token of the answer was not in the cache yet.
  EXPECT_EQ(second.sequences[0].promptIds, Ids({first[2], 7, 8}));
  EXPECT_EQ(second.prefill.tokens, 3);
  EXPECT_EQ(second.decode.tokens, 2);
  EXPECT_EQ(second.sequences[0].ids,
            continuation({1, 2, first[0], first[1], first[2], 7, 8}, 3));
}

TEST(GenerationTest, resumingTakesTheStopTokenAway) {
  FakeModel model;
  const Ids answer = continuation({1}, 3); // 2, 4, 8
  const GenerationOptions options = keeping(10, {answer[2]});
  Generator generator(model, options);
  EXPECT_EQ(cantFail(generator.run(std::vector<Ids>{{1}})).sequences[0].ids,
            answer);
  EXPECT_EQ(generator.length(), 3);
  GenerationResult second = cantFail(generator.resume({5}));
  EXPECT_EQ(second.sequences[0].promptIds, Ids({5}));
  EXPECT_EQ(model.sequences[0][3], 5);
  EXPECT_EQ(second.sequences[0].ids.front(),
            FakeModel::bestAfter({1, answer[0], answer[1], 5}));
}

TEST(GenerationTest, resumingMustFitTheContext) {
  FakeModel model;
  model.context = 6;
  const GenerationOptions options = keeping(2);
  Generator generator(model, options);
  cantFail(generator.run(std::vector<Ids>{{1, 2}}));
  EXPECT_EQ(messageOf(generator.resume({1, 2, 3})),
            "3 tokens after 4 are more than the 6 that the context holds");
  // Nothing has changed: fewer go on.
  EXPECT_EQ(cantFail(generator.resume({1, 2})).sequences[0].ids.size(), 1u);
}

TEST(GenerationTest, interruptionEndsWhereItIs) {
  for (int64_t steps : {0, 1, 3}) {
    FakeModel model;
    GenerationOptions options;
    options.maxNewTokens = 8;
    options.interrupted = [&] { return int64_t(model.steps.size()) == steps; };
    GenerationResult result = generate(model, options, {{1}, {2}});
    EXPECT_EQ(int64_t(model.steps.size()), steps);
    for (int64_t i : {0, 1})
      EXPECT_EQ(result.sequences[i].ids, continuation({int32_t(i + 1)}, steps));
  }
}

TEST(GenerationTest, penaltySeesThePrompt) {
  FakeModel model; // the best token has a logit of 2, the next one of 1
  GenerationOptions options;
  options.maxNewTokens = 1;
  options.sampler.repeatPenalty = 3;
  EXPECT_EQ(generate(model, options, {{9, 2}}).sequences[0].ids, Ids({3}));
  EXPECT_EQ(generate(model, options, {{8, 3}}).sequences[0].ids, Ids({2}));
}

namespace {

/// Logits that are no numbers.
class BrokenModel final : public StepModel {
public:
  int64_t vocabularySize() const override { return 2; }
  int64_t contextLength() const override { return 8; }
  llvm::Expected<llvm::ArrayRef<float>>
  step(llvm::ArrayRef<StepPart> parts) override {
    return llvm::ArrayRef<float>(logits);
  }
  llvm::Error fork(int32_t, int32_t) override { return llvm::Error::success(); }
  llvm::Error release(int32_t) override { return llvm::Error::success(); }
  llvm::Expected<llm_kv_work> work() const override { return llm_kv_work{}; }
  llvm::Expected<llm_model_work> linearWork() const override {
    return llm_model_work{};
  }

private:
  std::vector<float> logits{std::numeric_limits<float>::quiet_NaN(), 1};
};

} // namespace

TEST(GenerationTest, logitsMustBeFinite) {
  BrokenModel model;
  auto result = Generator(model, {}).run(std::vector<Ids>{{1, 1}});
  EXPECT_EQ(messageOf(std::move(result)),
            "logits of sequence 0 at position 1 are not finite");
}
