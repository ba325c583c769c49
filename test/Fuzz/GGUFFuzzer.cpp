//===- GGUFFuzzer.cpp - Any bytes as a GGUF file --------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "FuzzInput.h"
#include "GGUF.h"

using namespace mlir::llm;
using namespace mlir::llm::fuzz;
using llvm::StringRef;

/// The header, in memory that ends where the file does.
static bool isContainer(StringRef bytes) {
  llvm::Expected<GGUF> header = readGGUF("input", bytes);
  if (!verdicts.accept(header))
    return false;
  readData(header->tensors);
  return true;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  StringRef bytes(reinterpret_cast<const char *>(data), size);
  if (!isContainer(bytes))
    return 0;
  static MemoryFile file;
  file.fill(bytes);
  auto model = ModelFile::open(file.path());
  if (verdicts.accept(model))
    readData((*model)->tensors());
  auto tokenizer = Tokenizer::open(file.path());
  if (verdicts.accept(tokenizer))
    useTokenizer(**tokenizer, "abab a b\xff");
  return 0;
}
