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
  EXPECT_EQ(tokenizer->specialTexts(),
            std::vector<std::string>({"<unk>", "<s>", "</s>"}));
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

TEST_F(TokenizerFilesTest, RefusesDirectoriesWithoutATokenizer) {
  EXPECT_EQ(messageOf(Tokenizer::open(directory.string())),
            directory.string() + ": no tokenizer: expected tokenizer.model "
                                 "(SentencePiece) or tokenizer.json");
}

TEST_F(TokenizerFilesTest, RefusesDamagedModels) {
  write("tokenizer.model", "this is no protocol buffer");
  EXPECT_THAT(messageOf(Tokenizer::open(directory.string())),
              HasSubstr("tokenizer.model: invalid SentencePiece model: "));
}

namespace {

/// A model that is nothing but a piece and how text is rewritten.
class SmallModelTest : public FileTest {
protected:
  static std::string varint(size_t value) {
    std::string low(1, char(value & 0x7f));
    if (value < 0x80)
      return low;
    return char(low[0] | 0x80) + varint(value >> 7);
  }
  static std::string field(unsigned number, const std::string &content) {
    return varint(number << 3 | 2) + varint(content.size()) + content;
  }
  static std::string piece(const std::string &text, char type) {
    return field(1, field(1, text) + char(3 << 3) + type);
  }

  /// A double array of one block whose root and first leaf are given.
  static std::string map(uint32_t root, uint32_t leaf) {
    std::string units = raw(root) + raw(leaf) + std::string(254 * 4, '\0');
    return raw<uint32_t>(units.size()) + units + std::string("a\0", 2);
  }

  std::string load(const std::string &pieces, const std::string &map) {
    std::string unknown = piece("<unk>", 2);
    write("tokenizer.model", unknown + pieces + field(3, field(2, map)));
    return messageOf(Tokenizer::open(directory.string()));
  }
};

constexpr uint32_t isValue = 1u << 31;

} // namespace

TEST_F(SmallModelTest, TakesAMapThatStaysInside) {
  EXPECT_EQ(load(piece("a", 1), ""), "");
  EXPECT_EQ(load(piece("a", 1), map(1 << 10, isValue)), "");
}

TEST_F(SmallModelTest, RefusesWhatTheLibraryThrows) {
  EXPECT_THAT(load(piece("a", 1) + piece(std::string("\0b", 2), 1), ""),
              HasSubstr("tokenizer.model: invalid SentencePiece model: "));
}

TEST_F(SmallModelTest, RefusesMapsThatLeadOutside) {
  const std::string inside = map(1 << 10, isValue);
  const uint32_t leaf = 1 << 8 | 1 << 10;
  for (const std::string &outside :
       {map(256 << 10, isValue), map(1 << 10, 256 << 10),
        map(isValue | 1 << 10, isValue), map(leaf, isValue | 2),
        map(1 << 10 | 1 << 9, isValue), inside.substr(0, inside.size() - 1),
        inside.substr(0, 3), raw<uint32_t>(0) + std::string(1, '\0'),
        raw<uint32_t>(1024) + std::string(1000, '\0'),
        raw<uint32_t>(1000) + inside.substr(4)})
    EXPECT_THAT(load(piece("a", 1), outside),
                EndsWith("tokenizer.model: invalid SentencePiece model: the "
                         "character map of the normalizer is damaged"));
}
