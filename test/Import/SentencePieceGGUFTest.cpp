//===- SentencePieceGGUFTest.cpp - SentencePiece inside GGUF files --------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TestFiles.h"
#include "TestGGUF.h"
#include "llm/Import/Tokenizer.h"

using namespace mlir::llm;
using namespace mlir::llm::test;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using Ids = std::vector<int32_t>;

namespace {

class SentencePieceGGUFTest : public FileTest {
protected:
  llvm::Expected<std::unique_ptr<Tokenizer>> open(const GGUFWriter &file) {
    return Tokenizer::open(write("model.gguf", file.write()));
  }
  std::unique_ptr<Tokenizer> read(const GGUFWriter &file) {
    return llvm::cantFail(open(file));
  }
  template <typename T>
  std::unique_ptr<Tokenizer> readWith(const char *key, T value) {
    return read(smallSentencePiece().set(key, value));
  }
  std::string failure(const GGUFWriter &file) { return messageOf(open(file)); }
  template <typename T>
  std::string failureWith(const char *key, T value) {
    return failure(smallSentencePiece().set(key, value));
  }
};

} // namespace

TEST_F(SentencePieceGGUFTest, TakesTheBestScoreFirst) {
  auto tokenizer = read(smallSentencePiece());
  EXPECT_EQ(tokenizer->vocabularySize(), 10);
  EXPECT_EQ(tokenizer->encode("ab a"), (Ids{3, 6, 7}));
  EXPECT_EQ(tokenizer->encode(" ab  b "), (Ids{3, 3, 6, 3, 3, 5, 3}));
  EXPECT_EQ(tokenizer->decode(7), " a");
  EXPECT_EQ(tokenizer->decode(7, true), "a");
}

TEST_F(SentencePieceGGUFTest, PutsABlankFirstUnlessTheFileSaysNo) {
  auto tokenizer = readWith("tokenizer.ggml.add_space_prefix", false);
  EXPECT_EQ(tokenizer->encode("ab a"), (Ids{6, 7}));
  EXPECT_EQ(tokenizer->decode(7, true), " a");
}

TEST_F(SentencePieceGGUFTest, RemovesBlanksWhereTheFileSaysSo) {
  auto tokenizer = readWith("tokenizer.ggml.remove_extra_whitespaces", true);
  EXPECT_EQ(tokenizer->encode(" ab  b "), (Ids{3, 6, 3, 5}));
}

TEST_F(SentencePieceGGUFTest, BeginsWithBosUnlessTheFileSaysNo) {
  EXPECT_EQ(read(smallSentencePiece())->bos(), 1);
  EXPECT_EQ(readWith("tokenizer.ggml.add_bos_token", false)->bos(),
            std::nullopt);
  EXPECT_EQ(readWith("tokenizer.ggml.bos_token_id", 2)->bos(), 2);
  EXPECT_EQ(read(smallSentencePiece())->eos(), 2);
  EXPECT_THAT(failureWith("tokenizer.ggml.bos_token_id", 10),
              EndsWith("expected a token id below 10 for "
                       "'tokenizer.ggml.bos_token_id', got 10"));
}

TEST_F(SentencePieceGGUFTest, TakesOnlyUserTokensThatAreNoMarksFromText) {
  auto tokenizer = read(smallSentencePiece());
  EXPECT_EQ(tokenizer->specialId("<|x|>"), 8);
  EXPECT_EQ(tokenizer->specialId("[y]"), std::nullopt);
  EXPECT_EQ(tokenizer->encode("a[y]"), (Ids{7, 9}));
  EXPECT_THAT(tokenizer->encode("a<|x|></s>"),
              ::testing::Not(::testing::AnyOf(::testing::Contains(8),
                                              ::testing::Contains(2))));
}

TEST_F(SentencePieceGGUFTest, WritesWhatNoPieceHasInBytes) {
  GGUFWriter file = smallSentencePiece();
  std::vector<std::string> tokens = {"<unk>", "\u2581", "a"};
  std::vector<int> types = {2, 1, 1};
  const char digits[] = "0123456789ABCDEF";
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back(std::string("<0x") + digits[byte / 16] +
                     digits[byte % 16] + ">");
    types.push_back(6);
  }
  file.set("tokenizer.ggml.tokens", tokens)
      .set("tokenizer.ggml.token_type", types)
      .set("tokenizer.ggml.scores", std::vector<float>(tokens.size(), 0));
  auto tokenizer = read(file);
  EXPECT_EQ(tokenizer->encode("\u00e4"), (Ids{1, 3 + 0xc3, 3 + 0xa4}));
  EXPECT_EQ(tokenizer->decode(3 + 0xc3), "\xc3");
}

TEST_F(SentencePieceGGUFTest, KnowsTheUnknownTokenByItsTypeOrId) {
  GGUFWriter file = smallSentencePiece();
  file.set("tokenizer.ggml.token_type",
           std::vector<int>{3, 3, 3, 1, 1, 1, 1, 1, 4, 4});
  EXPECT_THAT(failure(file), HasSubstr("invalid SentencePiece model: "));
  file.set("tokenizer.ggml.unknown_token_id", 0);
  EXPECT_EQ(read(file)->encode("a?"), (Ids{7, 0}));
  EXPECT_THAT(failureWith("tokenizer.ggml.unknown_token_id", 2),
              EndsWith("'tokenizer.ggml.unknown_token_id' is 2, but the type "
                       "of token 0 says unknown"));
}

TEST_F(SentencePieceGGUFTest, RefusesBadVocabularies) {
  auto without = [&](const char *key) {
    return failure(smallSentencePiece().erase(key));
  };
  EXPECT_THAT(without("tokenizer.ggml.tokens"),
              EndsWith("expected strings in 'tokenizer.ggml.tokens'"));
  EXPECT_THAT(without("tokenizer.ggml.scores"),
              EndsWith("expected 10 numbers in 'tokenizer.ggml.scores', got "
                       "0"));
  EXPECT_THAT(without("tokenizer.ggml.token_type"),
              EndsWith("10 tokens, but 0 types in "
                       "'tokenizer.ggml.token_type'"));
  EXPECT_THAT(failureWith("tokenizer.ggml.scores", std::vector<int>{1}),
              EndsWith("expected an array of numbers for "
                       "'tokenizer.ggml.scores'"));
  EXPECT_THAT(failureWith("tokenizer.ggml.scores",
                          std::vector<float>(10, std::nanf(""))),
              EndsWith("token '<unk>' has the score nan"));
  EXPECT_THAT(failureWith("tokenizer.ggml.token_type",
                          std::vector<int>{2, 3, 3, 1, 1, 1, 1, 1, 4, 7}),
              EndsWith("token '[y]' has unsupported type 7"));
  EXPECT_THAT(failureWith("tokenizer.ggml.tokens",
                          std::vector<std::string>(10, "twice")),
              HasSubstr("invalid SentencePiece model: "));
}

TEST_F(SentencePieceGGUFTest, RefusesToRewriteText) {
  EXPECT_THAT(
      failureWith("tokenizer.ggml.precompiled_charsmap", std::vector<int>{1}),
      EndsWith("unsupported 'tokenizer.ggml.precompiled_charsmap' of a "
               "SentencePiece tokenizer"));
}
