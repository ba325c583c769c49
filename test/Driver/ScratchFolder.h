//===- ScratchFolder.h - A folder for one test ---------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_TEST_DRIVER_SCRATCHFOLDER_H
#define LLM_TEST_DRIVER_SCRATCHFOLDER_H

#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace mlir::llm {

/// A new folder, gone with its files when the test is over.
class ScratchFolder {
public:
  ScratchFolder() {
    EXPECT_FALSE(::llvm::sys::fs::createUniqueDirectory("llm-driver", folder));
  }
  ~ScratchFolder() { ::llvm::sys::fs::remove_directories(folder); }
  ScratchFolder(const ScratchFolder &) = delete;

  std::string path(const ::llvm::Twine &name = "") const {
    ::llvm::SmallString<128> path(folder);
    ::llvm::sys::path::append(path, name);
    return std::string(path);
  }

  /// The names in it, sorted.
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    std::error_code code;
    for (::llvm::sys::fs::directory_iterator file(folder, code), end;
         file != end && !code; file.increment(code))
      names.push_back(::llvm::sys::path::filename(file->path()).str());
    ::llvm::sort(names);
    return names;
  }

private:
  ::llvm::SmallString<128> folder;
};

} // namespace mlir::llm

#endif // LLM_TEST_DRIVER_SCRATCHFOLDER_H
