//===- FuzzInput.h - Bytes of a fuzzer as a file -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_TEST_FUZZ_FUZZINPUT_H
#define LLM_TEST_FUZZ_FUZZINPUT_H

#include "llm/Import/ModelFile.h"
#include "llm/Import/Tokenizer.h"

#include "llvm/Support/raw_ostream.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <sys/mman.h>
#include <unistd.h>

namespace mlir::llm::fuzz {

/// A file that lies in memory and has a path. Refilled for every input.
class MemoryFile {
public:
  MemoryFile() : descriptor(::memfd_create("fuzz", 0)) { check(descriptor); }
  ~MemoryFile() { ::close(descriptor); }

  std::string path() const {
    return "/proc/self/fd/" + std::to_string(descriptor);
  }
  void fill(::llvm::StringRef bytes) {
    check(::ftruncate(descriptor, 0));
    check(::pwrite(descriptor, bytes.data(), bytes.size(), 0));
  }

private:
  static void check(ssize_t result) {
    if (result < 0)
      std::abort();
  }

  int descriptor;
};

/// A directory with files that stay and files in memory.
class ModelDirectory {
public:
  ModelDirectory() {
    directory = (std::filesystem::temp_directory_path() / "fuzz-XXXXXX");
    if (!::mkdtemp(directory.data()))
      std::abort();
  }
  ~ModelDirectory() { std::filesystem::remove_all(directory); }

  const std::string &path() const { return directory; }
  void add(const std::string &name, const std::string &bytes) {
    std::ofstream(directory + "/" + name, std::ios::binary) << bytes;
  }
  void link(const std::string &name, const MemoryFile &file) {
    std::filesystem::create_symlink(file.path(), directory + "/" + name);
  }

private:
  std::string directory;
};

/// Reads all the data of the tensors, which must lie within the file.
inline void readData(::llvm::ArrayRef<TensorInfo> tensors) {
  volatile unsigned sum = 0;
  for (const TensorInfo &tensor : tensors) {
    const auto *bytes = static_cast<const uint8_t *>(tensor.data);
    sum = std::accumulate(bytes, bytes + tensor.bytes, unsigned(sum));
  }
}

/// Turns `text` into ids, and all ids there are into text.
inline void useTokenizer(const Tokenizer &tokenizer, ::llvm::StringRef text) {
  auto size = int32_t(tokenizer.vocabularySize());
  for (int32_t id : tokenizer.encode(text))
    if (id < 0 || id >= size)
      std::abort();
  for (int32_t id = -1; id <= size; ++id)
    tokenizer.decode(id, id % 2 == 0);
  tokenizer.specialId(text);
}

/// What became of the inputs, told at the end.
class Verdicts {
public:
  ~Verdicts() { ::llvm::errs() << "accepted: " << numAccepted << "\n"; }

  /// True if it was read. Refusing it is no failure, but takes a message.
  template <typename T>
  bool accept(::llvm::Expected<T> &result) {
    if (result)
      return ++numAccepted;
    if (::llvm::toString(result.takeError()).empty())
      std::abort();
    return false;
  }

private:
  uint64_t numAccepted = 0;
};

inline Verdicts verdicts;

} // namespace mlir::llm::fuzz

#endif // LLM_TEST_FUZZ_FUZZINPUT_H
