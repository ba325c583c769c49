//===- SentencePieceFuzzer.cpp - Any bytes as tokenizer.model -------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "FuzzInput.h"

using namespace mlir::llm;
using namespace mlir::llm::fuzz;

namespace {

struct Model {
  Model() { directory.link("tokenizer.model", input); }

  MemoryFile input;
  ModelDirectory directory;
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static Model model;
  model.input.fill({reinterpret_cast<const char *>(data), size});
  auto tokenizer = Tokenizer::open(model.directory.path());
  if (verdicts.accept(tokenizer))
    useTokenizer(**tokenizer, "abab a b\xff\xe2\x96\x81");
  return 0;
}
