//===- CompositionTest.cpp - Normalization form C -------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What is expected is from Python's unicodedata; test/EndToEnd/tokenization.py
// compares every character with it.
//
//===----------------------------------------------------------------------===//

#include "Composition.h"

#include <gtest/gtest.h>

using mlir::llm::compose;

TEST(CompositionTest, joinsLettersAndAccents) {
  EXPECT_EQ(compose("plain \u00e9"), "plain \u00e9");
  EXPECT_EQ(compose("e\u0301"), "\u00e9");
  EXPECT_EQ(compose("\u212b"), "\u00c5");
  EXPECT_EQ(compose("a\u0302\u0301 x"), "\u1ea5 x");
  EXPECT_EQ(compose("\u0301e"), "\u0301e");
}

TEST(CompositionTest, sortsMarks) {
  EXPECT_EQ(compose("a\u0301\u0323"), "\u1ea1\u0301");
  EXPECT_EQ(compose("q\u0307\u0323"), "q\u0323\u0307");
  EXPECT_EQ(compose("\u1e0b\u0323"), "\u1e0d\u0307");
}

TEST(CompositionTest, doesNotJoinAcrossAMarkOfTheSameClass) {
  EXPECT_EQ(compose("a\u0315\u0315\u0301"), "\u00e1\u0315\u0315");
  EXPECT_EQ(compose("a\u0306\u0301"), "\u1eaf");
  EXPECT_EQ(compose("x\u0306\u0301"), "x\u0306\u0301");
  EXPECT_EQ(compose("c\u0306\u0301"), "c\u0306\u0301");
}

TEST(CompositionTest, leavesApartWhatUnicodeExcludes) {
  EXPECT_EQ(compose("\u0958"), "\u0915\u093c");
  EXPECT_EQ(compose("\u0344"), "\u0308\u0301");
}

TEST(CompositionTest, joinsHangul) {
  EXPECT_EQ(compose("\u1112\u1161\u11ab"), "\ud55c");
  EXPECT_EQ(compose("\ud558\u11ab"), "\ud55c");
  EXPECT_EQ(compose("\ud55c\u11ab"), "\ud55c\u11ab");
  EXPECT_EQ(compose("\ud558\u11a7"), "\ud558\u11a7");
}

TEST(CompositionTest, keepsInvalidBytes) {
  EXPECT_EQ(compose("e\xcc\u0301 e\u0301\xff"), "e\xcc\u0301 \u00e9\xff");
  EXPECT_EQ(compose("e\xcc"), "e\xcc");
  EXPECT_EQ(compose(""), "");
}
