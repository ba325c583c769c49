//===- BuildIdsTest.cpp - Which build of the code is running ---------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/BuildIds.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Object/BuildID.h"
#include "llvm/Object/ObjectFile.h"
#include <gtest/gtest.h>

/// What LLVM reads from a file.
static std::string buildIdOf(llvm::StringRef path) {
  auto file = llvm::object::ObjectFile::createObjectFile(path);
  EXPECT_TRUE(bool(file)) << llvm::toString(file.takeError());
  return llvm::toStringRef(llvm::object::getBuildID(file->getBinary())).str();
}

TEST(BuildIdsTest, beginWithTheProgram) {
  const std::string id = buildIdOf("/proc/self/exe");
  ASSERT_GE(id.size(), 8u);
  const std::string all = mlir::llm::loadedBuildIds();
  EXPECT_EQ(all.substr(0, id.size()), id);
  EXPECT_GE(all.size(), 4 * id.size()); // MLIR, LLVM and the runtime
}
