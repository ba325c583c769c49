//===- TextFileTest.cpp - Files that work and files that do not -----------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ErrorMessage.h"

#include "llm/Driver/TextFile.h"

#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FileUtilities.h"
#include <gtest/gtest.h>

using namespace mlir::llm;

static llvm::Error writeHello(llvm::raw_ostream &os) {
  os << "hello";
  return llvm::Error::success();
}

TEST(TextFileTest, readsWhatWasWritten) {
  llvm::SmallString<128> path;
  ASSERT_FALSE(llvm::sys::fs::createTemporaryFile("driver", "txt", path));
  llvm::FileRemover remover(path);
  EXPECT_EQ(messageOf(writeFile(path, writeHello)), "");
  EXPECT_EQ(*readFile(path), "hello");
}

TEST(TextFileTest, pathsThatDoNotExist) {
  EXPECT_EQ(messageOf(readFile("/nonexistent/file")),
            "/nonexistent/file: no such file or directory");
  EXPECT_EQ(messageOf(writeFile("/nonexistent/file", writeHello)),
            "/nonexistent/file: no such file or directory");
}

TEST(TextFileTest, theWriterMayFail) {
  auto fail = [](llvm::raw_ostream &) {
    return llvm::createStringError("nothing to write");
  };
  EXPECT_EQ(messageOf(writeFile("/dev/null", fail)), "nothing to write");
}

TEST(TextFileTest, bytesThatDoNotArrive) {
  EXPECT_EQ(messageOf(writeFile("/dev/full", writeHello)),
            "/dev/full: no space left on device");
}
