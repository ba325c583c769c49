//===- TextStreamTest.cpp - Characters that arrive in pieces --------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/TextStream.h"

#include <gtest/gtest.h>

using namespace mlir::llm;

TEST(TextStreamTest, completeLength) {
  EXPECT_EQ(completeUTF8Length(""), 0u);
  EXPECT_EQ(completeUTF8Length("abc"), 3u);
  EXPECT_EQ(completeUTF8Length("a\xc3\xa9"), 3u);
  EXPECT_EQ(completeUTF8Length("a\xc3"), 1u);
  EXPECT_EQ(completeUTF8Length("a\xe2\x82"), 1u);
  EXPECT_EQ(completeUTF8Length("a\xf0\x9f\x98"), 1u);
  EXPECT_EQ(completeUTF8Length("a\xf0\x9f\x98\x80"), 5u);
}

TEST(TextStreamTest, whatIsNoCharacterIsNotHeldBack) {
  EXPECT_EQ(completeUTF8Length("a\x80"), 2u);
  EXPECT_EQ(completeUTF8Length("\x80\x80\x80\x80"), 4u);
  EXPECT_EQ(completeUTF8Length("a\xff"), 2u);
  EXPECT_EQ(completeUTF8Length("\xc3\x28"), 2u);
}

TEST(TextStreamTest, holdsBackUntilComplete) {
  std::string text;
  llvm::raw_string_ostream os(text);
  TextStream stream(os);
  stream.write("a\xf0");
  EXPECT_EQ(text, "a");
  stream.write("\x9f");
  stream.write("\x98");
  EXPECT_EQ(text, "a");
  stream.write("\x80z");
  EXPECT_EQ(text, "a\xf0\x9f\x98\x80z");
}

TEST(TextStreamTest, finishPrintsTheRest) {
  std::string text;
  llvm::raw_string_ostream os(text);
  TextStream stream(os);
  stream.write("a\xe2\x82");
  stream.finish();
  EXPECT_EQ(text, "a\xe2\x82\n");
}

TEST(TextStreamTest, noLineWithoutText) {
  std::string text;
  llvm::raw_string_ostream os(text);
  TextStream stream(os);
  stream.write("");
  stream.finish();
  EXPECT_EQ(text, "");
}
