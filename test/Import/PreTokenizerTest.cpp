//===- PreTokenizerTest.cpp - Pieces of text, by pre-tokenizer ------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "PreTokenizer.h"
#include "ByteAlphabet.h"
#include "TestFiles.h"

using namespace mlir::llm;
using namespace mlir::llm::test;
using Pieces = std::vector<std::string>;

static Pieces split(const char *name, llvm::StringRef text) {
  PreTokenizer splitter = llvm::cantFail(PreTokenizer::create("file", name));
  Pieces pieces;
  splitter.split(text,
                 [&](llvm::StringRef piece) { pieces.push_back(piece.str()); });
  return pieces;
}

TEST(PreTokenizerTest, SplitsAsGPT2) {
  EXPECT_EQ(split("gpt-2", "I can't pay 1234,  OK?\n\n x"),
            (Pieces{"I", " can", "'t", " pay", " 1234", ",", " ", " OK", "?",
                    "\n\n", " x"}));
  EXPECT_EQ(split("gpt-2", "I'LL"), (Pieces{"I", "'", "LL"}));
  EXPECT_EQ(split("gpt-2", "end \n "), (Pieces{"end", " \n "}));
}

TEST(PreTokenizerTest, SplitsAsSmolLM) {
  EXPECT_EQ(split("smollm", "in 1999,  42"),
            (Pieces{"in", " ", "1", "9", "9", "9", ",", "  ", "4", "2"}));
}

TEST(PreTokenizerTest, SplitsAsLlama3) {
  EXPECT_EQ(split("llama-bpe", "I'LL pay 1234!\n\nOK  (yes)  "),
            (Pieces{"I", "'LL", " pay", " ", "123", "4", "!\n\n", "OK", " ",
                    " (", "yes", ")", "  "}));
  EXPECT_EQ(split("llama-bpe", "a \r\n b"), (Pieces{"a", " \r\n", " b"}));
  EXPECT_EQ(split("llama-bpe", "\tx"), (Pieces{"\tx"}));
}

TEST(PreTokenizerTest, SplitsAsQwen2) {
  EXPECT_EQ(split("qwen2", "it's 1234"),
            (Pieces{"it", "'s", " ", "1", "2", "3", "4"}));
}

TEST(PreTokenizerTest, KnowsUnicode) {
  // Letters, digits and blanks beyond ASCII: U+0663 is a digit, U+3000 a blank.
  EXPECT_EQ(split("gpt-2", "Za\u017c\u00f3\u0142\u0107\u3000\u3000x\u0663"),
            (Pieces{"Za\u017c\u00f3\u0142\u0107", "\u3000", "\u3000", "x",
                    "\u0663"}));
  EXPECT_EQ(split("gpt-2", "\u00a0\u0085"), (Pieces{"\u00a0\u0085"}));
  // No blank, though PCRE2's \s takes it for one.
  EXPECT_EQ(split("gpt-2", " \u180e!"), (Pieces{" \u180e!"}));
}

TEST(PreTokenizerTest, MakesEachInvalidByteAPiece) {
  EXPECT_EQ(split("gpt-2", "ab\xff\xfe cd\xe2\x82"),
            (Pieces{"ab", "\xff", "\xfe", " cd", "\xe2", "\x82"}));
  // A surrogate, and a number beyond Unicode.
  EXPECT_EQ(split("gpt-2", "\xed\xa0\x80").size(), 3u);
  EXPECT_EQ(split("gpt-2", "\xf4\x90\x80\x80").size(), 4u);
}

TEST(PreTokenizerTest, LosesNoByte) {
  std::string text;
  for (int i = 0; i < 65536; ++i)
    text += char((i * 2654435761u) >> 13);
  for (const char *name : {"smollm", "gpt-2", "llama-bpe", "qwen2"}) {
    std::string joined;
    for (const std::string &piece : split(name, text))
      joined += piece;
    EXPECT_EQ(joined, text) << name;
  }
  EXPECT_EQ(split("gpt-2", ""), Pieces());
}

TEST(PreTokenizerTest, RefusesOtherNames) {
  EXPECT_EQ(
      messageOf(PreTokenizer::create("file", "deepseek")),
      "file: unsupported pre-tokenizer 'deepseek', expected smollm, gpt-2, "
      "llama-bpe or qwen2");
}

TEST(ByteAlphabetTest, MapsEveryByteBothWays) {
  std::string all, written;
  for (int byte = 0; byte < 256; ++byte) {
    all += char(byte);
    written += characterOf(byte);
  }
  EXPECT_EQ(bytesOf(written), all);
  EXPECT_EQ(characterOf(' '), "\u0120");
  EXPECT_EQ(characterOf('\n'), "\u010a");
  EXPECT_EQ(characterOf(0xad), "\u0143");
  EXPECT_EQ(characterOf('~'), "~");
}

TEST(ByteAlphabetTest, RefusesOtherCharacters) {
  for (const char *text : {" ", "\u0144", "\u4e2d", "\xc4", "\xff", "a\x80"})
    EXPECT_EQ(bytesOf(text), std::nullopt) << text;
}
