//===- Tokenizer.cpp - Text to tokens and back ----------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Import/Tokenizer.h"
#include "ImportError.h"
#include "TokenizerFormats.h"

#include "llvm/ADT/SmallString.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"

using namespace mlir::llm;
using llvm::Expected;
using llvm::StringRef;

Tokenizer::~Tokenizer() = default;

static bool holds(StringRef directory, StringRef file) {
  llvm::SmallString<128> path(directory);
  llvm::sys::path::append(path, file);
  return llvm::sys::fs::exists(path);
}

Expected<std::unique_ptr<Tokenizer>> Tokenizer::open(StringRef path) {
  if (!llvm::sys::fs::is_directory(path))
    return openGGUFTokenizer(path);
  if (holds(path, "tokenizer.model"))
    return openSentencePieceTokenizer(path);
  if (holds(path, "tokenizer.json"))
    return openTokenizerJSON(path);
  return importError(path, "no tokenizer: expected tokenizer.model "
                           "(SentencePiece) or tokenizer.json");
}
