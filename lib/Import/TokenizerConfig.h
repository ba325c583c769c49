//===- TokenizerConfig.h - What stands beside a tokenizer -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_TOKENIZERCONFIG_H
#define LLM_LIB_IMPORT_TOKENIZERCONFIG_H

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <optional>
#include <string>

namespace mlir::llm {

/// What a Hugging Face directory says about its tokenizer elsewhere than in
/// tokenizer.model or tokenizer.json. Empty is absent.
struct TokenizerConfig {
  std::optional<bool> addsBos;
  std::string bosToken;
  std::string eosToken;
  std::string chatTemplate;
};

/// Reads tokenizer_config.json and chat_template.jinja, which wins, where they
/// are there.
::llvm::Expected<TokenizerConfig>
readTokenizerConfig(::llvm::StringRef directory);

/// The path of a file of a directory.
std::string pathIn(::llvm::StringRef directory, ::llvm::StringRef file);

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_TOKENIZERCONFIG_H
