//===- SentencePieceTest.cpp - tokenizer.model of a directory -------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TestFiles.h"
#include "llm/Import/Tokenizer.h"

using namespace mlir::llm;
using namespace mlir::llm::test;
using ::testing::EndsWith;
using ::testing::HasSubstr;

namespace {

class SentencePieceTest : public FileTest {
protected:
  void SetUp() override {
    FileTest::SetUp();
    LLM_SKIP_WITHOUT(stories, "LLM_SHARED");
    tokenizer = llvm::cantFail(Tokenizer::open(stories.string()));
  }
  /// Puts the model into the test's own directory.
  void copyModel() {
    fs::copy_file(stories / "tokenizer.model", directory / "tokenizer.model");
  }

  const fs::path stories = sharedFiles() / "models/stories260K";
  std::unique_ptr<Tokenizer> tokenizer;
};

} // namespace

TEST_F(SentencePieceTest, EncodesTheExpectedPrompts) {
  const std::pair<const char *, const char *> prompts[] = {
      {"expected-stories260K-1.txt", "Once upon a time"},
      {"expected-stories260K-2.txt",
       "Lily and Tom went to the park. They saw a"}};
  for (auto [file, prompt] : prompts) {
    fs::path path = stories / file;
    ASSERT_THAT(readFile(path), HasSubstr("prompt=[" + std::string(prompt)));
    std::vector<int32_t> ids = tokenizer->encode(prompt);
    ids.insert(ids.begin(), *tokenizer->bos());
    EXPECT_EQ(ids, parseIds(lineOf(path, "prompt_ids: "))) << file;
  }
}

TEST_F(SentencePieceTest, DecodesWhatItEncodes) {
  const std::string text = "Lily said: \"I can't!\"\nZo\u00eb \U0001f600";
  std::string decoded;
  bool isFirst = true;
  for (int32_t id : tokenizer->encode(text)) {
    decoded += tokenizer->decode(id, isFirst);
    isFirst = false;
  }
  EXPECT_EQ(decoded, text);
}

TEST_F(SentencePieceTest, DropsOnlyTheBlankThatItPutFirst) {
  EXPECT_EQ(tokenizer->decode(403), " Once");
  EXPECT_EQ(tokenizer->decode(403, true), "Once");
}

TEST_F(SentencePieceTest, DecodesBytes) {
  EXPECT_EQ(tokenizer->decode(3), std::string(1, '\0'));
  EXPECT_EQ(tokenizer->decode(13), "\n");
  EXPECT_EQ(tokenizer->decode(258), "\xff");
}

TEST_F(SentencePieceTest, KnowsItsSpecialTokens) {
  EXPECT_EQ(tokenizer->vocabularySize(), 512);
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_EQ(tokenizer->specialId("<s>"), 1);
  EXPECT_EQ(tokenizer->specialId("</s>"), 2);
  EXPECT_EQ(tokenizer->specialId("Once"), std::nullopt);
  EXPECT_EQ(tokenizer->specialId("<0x0A>"), std::nullopt);
  for (int32_t id : {0, 1, 2, -1, 512, INT32_MAX, INT32_MIN})
    EXPECT_EQ(tokenizer->decode(id), "") << id;
}

TEST_F(SentencePieceTest, MakesNoSpecialTokensFromText) {
  for (int32_t id : tokenizer->encode("<s>a</s><unk>"))
    EXPECT_GT(id, 2);
  EXPECT_EQ(tokenizer->encode(""), std::vector<int32_t>());
}

TEST_F(SentencePieceTest, EncodesAnyBytes) {
  EXPECT_FALSE(tokenizer->encode("a\xff\xc3z").empty());
  EXPECT_FALSE(tokenizer->encode(llvm::StringRef("a\0b", 3)).empty());
}

TEST_F(SentencePieceTest, ReadsTheTokenizerConfig) {
  copyModel();
  EXPECT_EQ(tokenizer->chatTemplate(), "");
  write("tokenizer_config.json",
        R"({"add_bos_token": false, "chat_template": "{{ x }}"})");
  auto configured = llvm::cantFail(Tokenizer::open(directory.string()));
  EXPECT_EQ(configured->bos(), std::nullopt);
  EXPECT_EQ(configured->chatTemplate(), "{{ x }}");
  write("tokenizer_config.json", R"({"add_bos_token": 1})");
  EXPECT_THAT(messageOf(Tokenizer::open(directory.string())),
              EndsWith("expected true or false for 'add_bos_token', got 1"));
}

TEST_F(SentencePieceTest, SurvivesEveryTruncation) {
  std::string model = readFile(stories / "tokenizer.model");
  for (size_t size = 0; size < model.size(); size += 1 + size / 64) {
    write("tokenizer.model", model.substr(0, size));
    if (auto cut = Tokenizer::open(directory.string()))
      (*cut)->encode("Once upon a time");
    else
      llvm::consumeError(cut.takeError());
  }
}

//===----------------------------------------------------------------------===//
// Refusals
//===----------------------------------------------------------------------===//

using TokenizerFilesTest = FileTest;

TEST_F(TokenizerFilesTest, RefusesOtherTokenizers) {
  EXPECT_THAT(messageOf(Tokenizer::open(directory.string())),
              EndsWith("no tokenizer: expected tokenizer.model "
                       "(SentencePiece)"));
  write("tokenizer.json", "{}");
  EXPECT_EQ(messageOf(Tokenizer::open(directory.string())),
            directory.string() + ": tokenizer.json is not supported, expected "
                                 "tokenizer.model (SentencePiece) beside it");
}

TEST_F(TokenizerFilesTest, RefusesDamagedModels) {
  write("tokenizer.model", "this is no protocol buffer");
  EXPECT_THAT(messageOf(Tokenizer::open(directory.string())),
              HasSubstr("tokenizer.model: invalid SentencePiece model: "));
}
