//===- TestFiles.h - Files that the tests write and find -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_TEST_IMPORT_TESTFILES_H
#define LLM_TEST_IMPORT_TESTFILES_H

#include "RawBytes.h"

#include "llvm/Support/Error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <unistd.h>
#include <vector>

namespace mlir::llm::test {

namespace fs = std::filesystem;

/// A test with a directory of its own, gone afterwards.
class FileTest : public ::testing::Test {
protected:
  void SetUp() override {
    const auto *test = ::testing::UnitTest::GetInstance()->current_test_info();
    directory = fs::path(::testing::TempDir()) /
                ("llm-" + std::string(test->test_suite_name()) + "-" +
                 test->name() + "-" + std::to_string(::getpid()));
    fs::create_directories(directory);
  }
  void TearDown() override { fs::remove_all(directory); }

  std::string write(const std::string &name, const std::string &bytes) const {
    fs::path path = directory / name;
    fs::remove(path); // file systems flush what is cut to nothing and refilled
    std::ofstream(path, std::ios::binary) << bytes;
    return path.string();
  }

  fs::path directory;
};

inline std::string readFile(const fs::path &path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline fs::path fromEnvironment(const char *name, const char *otherwise) {
  const char *value = std::getenv(name);
  return value && *value ? value : otherwise;
}
inline fs::path sharedFiles() {
  return fromEnvironment("LLM_SHARED", LLM_DEFAULT_SHARED);
}
inline fs::path smolLM2() {
  return fromEnvironment("LLM_MODELS_DIR", LLM_DEFAULT_MODELS_DIR) /
         "SmolLM2-135M-Instruct.Q4_1.gguf";
}

/// The rest of the line of `file` that begins with `prefix`.
inline std::string lineOf(const fs::path &file, const std::string &prefix) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);)
    if (line.rfind(prefix, 0) == 0)
      return line.substr(prefix.size());
  return "";
}

inline std::vector<int32_t> parseIds(const std::string &text) {
  std::istringstream stream(text);
  return {std::istream_iterator<int32_t>(stream), {}};
}

/// The message of what failed; "" if nothing did.
template <typename T>
std::string messageOf(::llvm::Expected<T> result) {
  return result ? "" : ::llvm::toString(result.takeError());
}

} // namespace mlir::llm::test

#define LLM_SKIP_WITHOUT(path, variable)                                       \
  if (!std::filesystem::exists(path))                                          \
  GTEST_SKIP() << (path) << " is absent; set " variable

#endif // LLM_TEST_IMPORT_TESTFILES_H
