//===- RunInputsTest.cpp - Prompts and scored text from files -------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ErrorMessage.h"

#include "llm/Driver/RunInputs.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FileUtilities.h"
#include <gtest/gtest.h>

#include <map>

using namespace mlir::llm;

namespace {

/// A token for each byte, its code. The BOS is 256; no text is a special token.
class ByteTokenizer final : public Tokenizer {
public:
  std::optional<int32_t> first = 256;
  std::map<std::string, int32_t> specials = {
      {"", 300}, {"<s>", 256}, {"<x", 257}, {"<x>", 258}};

  int64_t vocabularySize() const override { return 301; }
  TokenIds encode(llvm::StringRef text) const override {
    auto bytes = text.bytes();
    return {bytes.begin(), bytes.end()};
  }
  std::string decode(int32_t id, bool) const override {
    return id < 256 ? std::string(1, char(id)) : "";
  }
  std::optional<int32_t> specialId(llvm::StringRef text) const override {
    auto known = specials.find(text.str());
    return known == specials.end() ? std::nullopt
                                   : std::optional(known->second);
  }
  std::vector<std::string> specialTexts() const override {
    auto texts = llvm::make_first_range(specials);
    return {texts.begin(), texts.end()};
  }
  std::optional<int32_t> bos() const override { return first; }
  llvm::StringRef chatTemplate() const override { return ""; }
};

/// A file with some text, while it lives.
class TextFile {
public:
  explicit TextFile(llvm::StringRef text) : remover(create(text, path)) {}

  llvm::SmallString<128> path;

private:
  static llvm::StringRef create(llvm::StringRef text,
                                llvm::SmallString<128> &path) {
    int descriptor = -1;
    llvm::sys::fs::createTemporaryFile("driver", "txt", descriptor, path);
    llvm::raw_fd_ostream(descriptor, /*shouldClose=*/true) << text;
    return path;
  }

  llvm::FileRemover remover;
};

} // namespace

static std::vector<TokenIds> scored(llvm::StringRef text, RunOptions options,
                                    int64_t context,
                                    const Tokenizer &tokenizer) {
  TextFile file(text);
  options.scoreFile = file.path.str().str();
  auto sequences = readScoredText(options, tokenizer, context);
  if (sequences)
    return *sequences;
  ADD_FAILURE() << messageOf(std::move(sequences));
  return {};
}

//===----------------------------------------------------------------------===//
// Prompts
//===----------------------------------------------------------------------===//

TEST(RunInputsTest, promptGetsTheBOSThatTheTokenizerWants) {
  ByteTokenizer tokenizer;
  RunOptions options;
  options.prompt = "ab";
  EXPECT_EQ(*readPrompts(options, &tokenizer),
            std::vector<TokenIds>({{256, 97, 98}}));
  tokenizer.first = std::nullopt;
  EXPECT_EQ(*readPrompts(options, &tokenizer),
            std::vector<TokenIds>({{97, 98}}));
}

TEST(RunInputsTest, idsAreTakenAsTheyAre) {
  ByteTokenizer tokenizer;
  RunOptions options;
  options.ids = {5, 6};
  EXPECT_EQ(*readPrompts(options, &tokenizer), std::vector<TokenIds>({{5, 6}}));
  EXPECT_EQ(*readPrompts(options, nullptr), std::vector<TokenIds>({{5, 6}}));
}

TEST(RunInputsTest, aWholeFileIsAPrompt) {
  ByteTokenizer tokenizer;
  TextFile file("a\r\nb\n");
  RunOptions options;
  options.promptFile = file.path.str().str();
  EXPECT_EQ(*readPrompts(options, &tokenizer),
            std::vector<TokenIds>({{256, 97, 13, 10, 98, 10}}));
  options.promptFile = "/nonexistent/prompt.txt";
  EXPECT_EQ(messageOf(readPrompts(options, &tokenizer)),
            "/nonexistent/prompt.txt: no such file or directory");
}

/// Ids of a prompt that may spell out special tokens.
static TokenIds withSpecials(const char *text) {
  ByteTokenizer tokenizer;
  RunOptions options;
  options.prompt = text;
  options.special = true;
  return readPrompts(options, &tokenizer)->front();
}

TEST(RunInputsTest, specialTokensAreSpelledOutWhereAsked) {
  EXPECT_EQ(withSpecials("a<x>b<x<"), TokenIds({256, 97, 258, 98, 257, '<'}));
  EXPECT_EQ(withSpecials("<x><x>"), TokenIds({256, 258, 258}));
  EXPECT_EQ(withSpecials(""), TokenIds({256}));
  ByteTokenizer tokenizer;
  RunOptions options;
  options.prompt = "<x>";
  EXPECT_EQ(readPrompts(options, &tokenizer)->front(),
            TokenIds({256, '<', 'x', '>'}));
}

TEST(RunInputsTest, aSpelledOutBOSIsEnough) {
  EXPECT_EQ(withSpecials("<s>a"), TokenIds({256, 97}));
  EXPECT_EQ(withSpecials("a<s>"), TokenIds({256, 97, 256}));
  EXPECT_EQ(withSpecials("<s><s>"), TokenIds({256, 256}));
}

TEST(RunInputsTest, aPromptOnEachLine) {
  ByteTokenizer tokenizer;
  TextFile file("a\r\n\nb c");
  RunOptions options;
  options.promptsFile = file.path.str().str();
  EXPECT_EQ(*readPrompts(options, &tokenizer),
            std::vector<TokenIds>({{256, 97}, {256}, {256, 98, 32, 99}}));
}

TEST(RunInputsTest, noPrompts) {
  ByteTokenizer tokenizer;
  TextFile file("");
  RunOptions options;
  options.promptsFile = file.path.str().str();
  EXPECT_EQ(messageOf(readPrompts(options, &tokenizer)),
            "no prompts in " + *options.promptsFile);
}

TEST(RunInputsTest, chatWithoutTemplate) {
  ByteTokenizer tokenizer;
  RunOptions options;
  options.prompt = "ab";
  options.chat = true;
  EXPECT_NE(messageOf(readPrompts(options, &tokenizer)), "");
}

TEST(RunInputsTest, badPath) {
  ByteTokenizer tokenizer;
  RunOptions options;
  options.promptsFile = "/nonexistent/prompts.txt";
  EXPECT_EQ(messageOf(readPrompts(options, &tokenizer)),
            "/nonexistent/prompts.txt: no such file or directory");
  options.scoreFile = "/nonexistent/text.txt";
  EXPECT_EQ(messageOf(readScoredText(options, tokenizer, 8)),
            "/nonexistent/text.txt: no such file or directory");
}

//===----------------------------------------------------------------------===//
// Scored text
//===----------------------------------------------------------------------===//

TEST(RunInputsTest, windowsHaveNothingPrepended) {
  ByteTokenizer tokenizer;
  RunOptions options;
  options.windowTokens = 2;
  EXPECT_EQ(scored("abcde", options, 8, tokenizer),
            std::vector<TokenIds>({{97, 98}, {99, 100}}));
  options.maxWindows = 1;
  EXPECT_EQ(scored("abcde", options, 8, tokenizer),
            std::vector<TokenIds>({{97, 98}}));
}

TEST(RunInputsTest, documentsBeginWithTheBOSAndAreCutToTheContext) {
  ByteTokenizer tokenizer;
  const char text[] = "abcd\x1e\ne\x1ez";
  EXPECT_EQ(scored(text, {}, 3, tokenizer),
            std::vector<TokenIds>({{256, 97, 98}, {256, 10, 101}, {256, 122}}));
  RunOptions options;
  options.maxDocuments = 1;
  tokenizer.first = std::nullopt;
  EXPECT_EQ(scored(text, options, 3, tokenizer),
            std::vector<TokenIds>({{97, 98, 99}}));
}

TEST(RunInputsTest, windowsMustFit) {
  ByteTokenizer tokenizer;
  TextFile file("abc");
  RunOptions options;
  options.scoreFile = file.path.str().str();
  options.windowTokens = 9;
  EXPECT_EQ(messageOf(readScoredText(options, tokenizer, 8)),
            "a window has 9 tokens, the context holds 8");
  EXPECT_EQ(messageOf(readScoredText(options, tokenizer, 9)),
            "a window has 9 tokens, the text only 3");
}
