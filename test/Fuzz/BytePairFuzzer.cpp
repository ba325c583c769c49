//===- BytePairFuzzer.cpp - Any vocabulary on any text --------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The input is text: the name of the pre-tokenizer, a line for each token (the
// digit of its type before it), an empty line, a line for each merge, an empty
// line, the text to encode.
//
//===----------------------------------------------------------------------===//

#include "FuzzInput.h"
#include "TestGGUF.h"

using namespace mlir::llm;
using namespace mlir::llm::fuzz;
using llvm::StringRef;

static StringRef takeLine(StringRef &rest) {
  StringRef line;
  std::tie(line, rest) = rest.split('\n');
  return line;
}

/// The lines up to an empty one.
static std::vector<std::string> takeLines(StringRef &rest) {
  std::vector<std::string> lines;
  for (StringRef line = takeLine(rest); !line.empty(); line = takeLine(rest))
    lines.push_back(line.str());
  return lines;
}

/// Takes what describes the tokenizer off `rest`.
static std::string writeTokenizer(StringRef &rest) {
  std::string kind = takeLine(rest).str();
  std::vector<std::string> tokens = takeLines(rest);
  std::vector<int> types;
  for (std::string &token : tokens) {
    types.push_back(token[0] - '0');
    token.erase(0, 1);
  }
  return test::smallTokenizer(kind.c_str())
      .set("tokenizer.ggml.tokens", tokens)
      .set("tokenizer.ggml.token_type", types)
      .set("tokenizer.ggml.merges", takeLines(rest))
      .write();
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static MemoryFile file;
  StringRef rest(reinterpret_cast<const char *>(data), size);
  file.fill(writeTokenizer(rest));
  auto tokenizer = Tokenizer::open(file.path());
  if (verdicts.accept(tokenizer))
    useTokenizer(**tokenizer, rest);
  return 0;
}
