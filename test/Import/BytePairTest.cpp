//===- BytePairTest.cpp - Byte-level BPE of small files -------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "BytePairMerges.h"
#include "TestFiles.h"
#include "TestGGUF.h"
#include "llm/Import/ChatTemplate.h"
#include "llm/Import/Tokenizer.h"

#include "llvm/ADT/StringExtras.h"

using namespace mlir::llm;
using namespace mlir::llm::test;
using ::testing::EndsWith;
using Ids = std::vector<int32_t>;

//===----------------------------------------------------------------------===//
// Merges
//===----------------------------------------------------------------------===//

static Ids merge(const BytePairMerges &merges, Ids ids) {
  llvm::SmallVector<int32_t> tokens(ids.begin(), ids.end());
  merges.apply(tokens);
  return {tokens.begin(), tokens.end()};
}

TEST(BytePairMergesTest, TakesTheLowestRankFirst) {
  BytePairMerges merges;
  merges.add({2, 3}, 10);
  merges.add({1, 2}, 11);
  EXPECT_EQ(merge(merges, {1, 2, 3}), (Ids{1, 10}));
  EXPECT_EQ(merge(merges, {1, 2, 2, 3}), (Ids{11, 10}));
}

TEST(BytePairMergesTest, TakesTheLeftmostOfEqualRank) {
  BytePairMerges merges;
  merges.add({1, 1}, 2);
  EXPECT_EQ(merge(merges, {1, 1, 1}), (Ids{2, 1}));
  EXPECT_EQ(merge(merges, {1, 1, 1, 1}), (Ids{2, 2}));
}

TEST(BytePairMergesTest, MergesWhatWasMerged) {
  BytePairMerges merges;
  merges.add({1, 1}, 2);
  merges.add({2, 2}, 3);
  merges.add({3, 1}, 4);
  EXPECT_EQ(merge(merges, {1, 1, 1, 1, 1}), (Ids{4}));
  EXPECT_EQ(merge(merges, {}), Ids());
}

TEST(BytePairMergesTest, KeepsTheFirstRankOfAPair) {
  BytePairMerges merges;
  merges.add({1, 2}, 10);
  merges.add({2, 3}, 11);
  merges.add({1, 2}, 12);
  EXPECT_EQ(merge(merges, {1, 2, 3}), (Ids{10, 3}));
}

//===----------------------------------------------------------------------===//
// Files
//===----------------------------------------------------------------------===//

namespace {

class BytePairTest : public FileTest {
protected:
  llvm::Expected<std::unique_ptr<Tokenizer>> open(const GGUFWriter &file) {
    return Tokenizer::open(write("model.gguf", file.write()));
  }
  std::unique_ptr<Tokenizer> read(const GGUFWriter &file) {
    return llvm::cantFail(open(file));
  }
  std::string failure(const GGUFWriter &file) { return messageOf(open(file)); }
  template <typename T>
  std::string failureWith(const char *key, T value) {
    return failure(smallTokenizer().set(key, value));
  }
};

} // namespace

TEST_F(BytePairTest, EncodesAndDecodes) {
  auto tokenizer = read(smallTokenizer());
  EXPECT_EQ(tokenizer->vocabularySize(), 9);
  EXPECT_EQ(tokenizer->encode("abab ab a"), (Ids{3, 3, 4, 3, 5}));
  EXPECT_EQ(tokenizer->decode(5), " a");
  EXPECT_EQ(tokenizer->decode(5, true), " a");
  EXPECT_EQ(tokenizer->numDroppedBytes(), 0);
}

TEST_F(BytePairTest, RemembersTheDroppedBytesOfAPiece) {
  auto tokenizer = read(smallTokenizer());
  for (int times = 1; times <= 3; ++times) {
    EXPECT_EQ(tokenizer->encode("axb"), (Ids{3}));
    EXPECT_EQ(tokenizer->numDroppedBytes(), times);
  }
}

TEST_F(BytePairTest, IgnoresMergesForLlama3Alone) {
  // No merge makes "aba" or " b", but both are tokens.
  EXPECT_EQ(read(smallTokenizer("llama-bpe"))->encode("aba b"), (Ids{6, 7}));
  EXPECT_EQ(read(smallTokenizer("qwen2"))->encode("aba b"), (Ids{3, 1, 4, 2}));
}

TEST_F(BytePairTest, BeginsWithBosWhereTheFileWantsIt) {
  EXPECT_EQ(read(smallTokenizer())->bos(), std::nullopt);
  EXPECT_EQ(read(smallTokenizer("llama-bpe"))->bos(), 0);
  GGUFWriter file = smallTokenizer("llama-bpe");
  EXPECT_EQ(read(file.set("tokenizer.ggml.add_bos_token", false))->bos(),
            std::nullopt);
  file = smallTokenizer();
  EXPECT_EQ(read(file.set("tokenizer.ggml.add_bos_token", true))->bos(), 0);
  EXPECT_THAT(failure(file.set("tokenizer.ggml.bos_token_id", 9)),
              EndsWith("expected a token id below 9 for "
                       "'tokenizer.ggml.bos_token_id', got 9"));
  EXPECT_THAT(failure(file.erase("tokenizer.ggml.bos_token_id")),
              EndsWith("missing 'tokenizer.ggml.bos_token_id'"));
}

TEST_F(BytePairTest, KnowsWhereATextEnds) {
  GGUFWriter file = smallTokenizer();
  EXPECT_EQ(read(file)->eos(), 2);
  EXPECT_THAT(failure(file.set("tokenizer.ggml.eos_token_id", 9)),
              EndsWith("expected a token id below 9 for "
                       "'tokenizer.ggml.eos_token_id', got 9"));
  EXPECT_EQ(read(file.erase("tokenizer.ggml.eos_token_id"))->eos(),
            std::nullopt);
}

TEST_F(BytePairTest, TellsSpecialTokensFromText) {
  auto tokenizer = read(smallTokenizer());
  EXPECT_EQ(tokenizer->specialId("<end>"), 0);
  EXPECT_EQ(tokenizer->specialId("<user>"), 8);
  EXPECT_EQ(tokenizer->specialId("ab"), std::nullopt);
  EXPECT_THAT(tokenizer->specialTexts(),
              ::testing::UnorderedElementsAre("<end>", "<user>"));
  EXPECT_EQ(tokenizer->decode(0), "");
  EXPECT_EQ(tokenizer->decode(8), "<user>");
  EXPECT_EQ(tokenizer->encode("<end>"), Ids());
}

TEST_F(BytePairTest, RefusesOtherTokenizers) {
  EXPECT_EQ(failureWith("tokenizer.ggml.model", "t5"),
            (directory / "model.gguf").string() +
                ": unsupported tokenizer 't5', expected gpt2 (byte-level BPE) "
                "or llama (SentencePiece)");
  EXPECT_THAT(failure(smallModel()),
              EndsWith("no tokenizer: missing 'tokenizer.ggml.model'"));
  EXPECT_THAT(failureWith("tokenizer.ggml.pre", "deepseek"),
              EndsWith("unsupported pre-tokenizer 'deepseek', expected smollm, "
                       "gpt-2, llama-bpe or qwen2"));
  EXPECT_THAT(failure(smallTokenizer().erase("tokenizer.ggml.pre")),
              EndsWith("unsupported pre-tokenizer '', expected smollm, gpt-2, "
                       "llama-bpe or qwen2"));
}

TEST_F(BytePairTest, RefusesBadVocabularies) {
  using Strings = std::vector<std::string>;
  EXPECT_THAT(failure(smallTokenizer().erase("tokenizer.ggml.tokens")),
              EndsWith("expected strings in 'tokenizer.ggml.tokens'"));
  EXPECT_THAT(failure(smallTokenizer().erase("tokenizer.ggml.merges")),
              EndsWith("expected strings in 'tokenizer.ggml.merges'"));
  EXPECT_THAT(failureWith("tokenizer.ggml.token_type", std::vector<int>{1}),
              EndsWith("9 tokens, but 1 types in 'tokenizer.ggml.token_type'"));
  EXPECT_THAT(failureWith("tokenizer.ggml.token_type",
                          std::vector<int>{3, 1, 1, 1, 1, 1, 1, 1, 7}),
              EndsWith("token '<user>' has unsupported type 7"));
  EXPECT_THAT(failureWith("tokenizer.ggml.tokens",
                          Strings{"a", "b", "b", "d", "e", "f", "g", "h", "i"}),
              EndsWith("token 'b' is given twice"));
  EXPECT_THAT(failureWith("tokenizer.ggml.merges", Strings{"ab"}),
              EndsWith("expected two tokens in merge 'ab'"));
  EXPECT_THAT(failureWith("tokenizer.ggml.merges", Strings{"b a"}),
              EndsWith("merge 'b a' needs a token that is not there"));
}

//===----------------------------------------------------------------------===//
// Chat templates
//===----------------------------------------------------------------------===//

TEST_F(BytePairTest, RefusesOtherChatTemplates) {
  EXPECT_EQ(messageOf(applyChatTemplate(*read(smallTokenizer()), "x")),
            "the model has no chat template");
  GGUFWriter file = smallTokenizer();
  file.set("tokenizer.chat_template", "[INST] {{ x }}");
  auto tokenizer = read(file);
  EXPECT_EQ(tokenizer->chatTemplate(), "[INST] {{ x }}");
  EXPECT_EQ(messageOf(applyChatTemplate(*tokenizer, "x")),
            "unknown chat template, expected that of SmolLM2, ChatML, Qwen1.5, "
            "Qwen2, Qwen2.5, Llama 3, Llama 3.1, Llama 3.2, Llama 2 or Zephyr");
}

TEST_F(BytePairTest, KnowsTheChatTemplateHoweverItsLineFeedsAreWritten) {
  LLM_SKIP_WITHOUT(smolLM2(), "LLM_MODELS_DIR");
  auto real = llvm::cantFail(Tokenizer::open(smolLM2().string()));
  llvm::SmallVector<llvm::StringRef> lines;
  real->chatTemplate().split(lines, '\n');
  ASSERT_GT(lines.size(), 1u);
  for (const char *lineFeed : {"\n", "\\n"}) {
    GGUFWriter file = smallTokenizer();
    file.set("tokenizer.chat_template", llvm::join(lines, lineFeed).c_str());
    EXPECT_EQ(messageOf(applyChatTemplate(*read(file), "x")),
              "the chat template needs the token '<|im_start|>', which the "
              "tokenizer lacks");
  }
}
