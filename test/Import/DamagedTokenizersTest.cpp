//===- DamagedTokenizersTest.cpp - Tokenizers with other bytes ------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Whatever the bytes are, a tokenizer is loaded or refused with a message; a
// loaded one takes any text, makes ids of its vocabulary and decodes them. None
// takes much memory.
//
//===----------------------------------------------------------------------===//

#include "SentencePieceModel.h"
#include "TestFiles.h"
#include "TestGGUF.h"
#include "TestTokenizerJSON.h"
#include "llm/Import/ChatTemplate.h"
#include "llm/Import/Tokenizer.h"

#include <random>
#include <sys/resource.h>

using namespace mlir::llm;
using namespace mlir::llm::test;

namespace {

constexpr int numFiles = 2500;
constexpr long mostKibibytes = 1 << 20; ///< more than what sanitizers keep

/// Changes texts, the same way in every run.
class Mutator {
public:
  std::string operator()(std::string text) {
    for (unsigned changes = 1 + below(3); changes > 0 && !text.empty();
         --changes)
      change(text);
    return text;
  }

private:
  size_t below(size_t size) { return random() % size; }

  void change(std::string &text) {
    static const char *const words[] = {"-1",   "4294967295", "1e308", "null",
                                        "[]",   "{}",         "\"\"",  "true",
                                        "\xff", "\\ud800",    "\0x",   "[[[["};
    const size_t at = below(text.size());
    const size_t length = 1 + below(std::min<size_t>(text.size() - at, 24));
    switch (below(5)) {
    case 0:
      text[at] = char(random());
      return;
    case 1:
      text[at] ^= 1 << below(8);
      return;
    case 2:
      text.erase(at, length);
      return;
    case 3:
      text.insert(below(text.size()), text.substr(at, length));
      return;
    case 4:
      text.replace(at, length, words[below(std::size(words))]);
      return;
    }
  }

  std::mt19937 random{20240229};
};

class DamagedTokenizersTest : public FileTest {
protected:
  void open(const fs::path &path);
  void mutateAndOpen(const std::string &name, const std::string &bytes,
                     const fs::path &tokenizer);

  int loaded = 0;
  int refused = 0;
};

} // namespace

static long peakKibibytes() {
  struct rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

static void use(const Tokenizer &tokenizer) {
  const int64_t size = tokenizer.vocabularySize();
  for (const char *text : {"", "abab a b\xff\u00e4", "  <end>\n12e\u0301 "})
    for (int32_t id : tokenizer.encode(text)) {
      ASSERT_GE(id, 0);
      ASSERT_LT(id, size);
      tokenizer.decode(id);
    }
  for (int64_t id = -1; id <= std::min<int64_t>(size, 1000); ++id)
    tokenizer.decode(int32_t(id), id % 2);
  for (std::optional<int32_t> id : {tokenizer.bos(), tokenizer.eos()})
    if (id) {
      EXPECT_GE(*id, 0);
      EXPECT_LT(*id, size);
    }
  if (auto chat = ChatTemplate::open(tokenizer))
    chat->firstTurn("ab");
  else
    llvm::consumeError(chat.takeError());
}

void DamagedTokenizersTest::open(const fs::path &path) {
  if (auto tokenizer = Tokenizer::open(path.string())) {
    ++loaded;
    use(**tokenizer);
  } else {
    ++refused;
    EXPECT_GT(llvm::toString(tokenizer.takeError()).size(),
              directory.string().size());
  }
}

void DamagedTokenizersTest::mutateAndOpen(const std::string &name,
                                          const std::string &bytes,
                                          const fs::path &tokenizer) {
  write(name, bytes);
  open(tokenizer);
  ASSERT_EQ(loaded, 1) << name;
  Mutator mutate;
  const long before = peakKibibytes();
  for (int i = 0; i < numFiles; ++i) {
    write(name, mutate(bytes));
    open(tokenizer);
    ASSERT_FALSE(HasFailure()) << name << " " << i;
  }
  EXPECT_EQ(loaded + refused, numFiles + 1);
  EXPECT_GT(loaded, numFiles / 100) << name;
  EXPECT_GT(refused, numFiles / 100) << name;
  EXPECT_LT(peakKibibytes() - before, mostKibibytes) << name;
}

TEST_F(DamagedTokenizersTest, TokenizerJSON) {
  TokenizerJSON file;
  file.set("normalizer", R"({"type": "NFC"})")
      .set("unk_token", R"("<end>")")
      .set("post_processor",
           R"({"type": "TemplateProcessing", "single": [{"SpecialToken": )"
           R"({"id": "<end>"}}, {"Sequence": {"id": "A"}}], )"
           R"("special_tokens": {"<end>": {"ids": [0]}}})");
  mutateAndOpen("tokenizer.json", file.text(), directory);
}

TEST_F(DamagedTokenizersTest, TokenizerConfig) {
  write("tokenizer.json", TokenizerJSON().text());
  mutateAndOpen("tokenizer_config.json",
                R"({"add_bos_token": true, "bos_token": {"content": "<end>"},)"
                R"( "eos_token": "<user>", "chat_template": [{"name":)"
                R"( "default", "template": "{{ messages }}"}]})",
                directory);
}

TEST_F(DamagedTokenizersTest, SentencePieceInGGUF) {
  mutateAndOpen("model.gguf", smallSentencePiece().write(),
                directory / "model.gguf");
}

TEST_F(DamagedTokenizersTest, BytePairInGGUF) {
  mutateAndOpen("model.gguf", smallTokenizer("llama-bpe").write(),
                directory / "model.gguf");
}

TEST_F(DamagedTokenizersTest, SentencePieceModel) {
  SentencePieceModel model;
  model.pieces = {
      {"<unk>", 0, TokenType::Unknown},  {"<s>", 0, TokenType::Control},
      {"</s>", 0, TokenType::Control},   {"\u2581", -3, TokenType::Normal},
      {"a", -4, TokenType::Normal},      {"b", -5, TokenType::Normal},
      {"ab", -1, TokenType::Normal},     {"\u2581a", -2, TokenType::Normal},
      {"[y]", 0, TokenType::UserDefined}};
  mutateAndOpen("tokenizer.model", serialize(model), directory);
}
