//===- PreTokenizer.h - Text into pieces that merges stay in ----*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_PRETOKENIZER_H
#define LLM_LIB_IMPORT_PRETOKENIZER_H

#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <memory>
#include <vector>

struct pcre2_real_code_8;

namespace mlir::llm {

/// The splits of a byte-level tokenizer: regular expressions, one after the
/// other, each applied to every piece of the one before as to a text of its own
/// (what looks ahead does not see the neighbour). What a pattern does not match
/// is a piece, too.
class PreTokenizer {
public:
  /// By the name of tokenizer.ggml.pre: smollm, gpt-2, llama-bpe or qwen2.
  /// `path` is for messages.
  static ::llvm::Expected<PreTokenizer> create(::llvm::StringRef path,
                                               ::llvm::StringRef name);

  /// The name of the pre-tokenizer that splits by nothing but this regular
  /// expression, as tokenizer.json has it; empty for an unknown one.
  static ::llvm::StringRef nameOf(::llvm::StringRef expression);

  using Consumer = ::llvm::function_ref<void(::llvm::StringRef piece)>;

  /// Hands all of `text` to `consumer`, piece by piece. Each byte that is not
  /// part of valid UTF-8 is a piece.
  void split(::llvm::StringRef text, Consumer consumer) const;

private:
  struct Release {
    void operator()(pcre2_real_code_8 *code) const;
  };
  using Pattern = std::unique_ptr<pcre2_real_code_8, Release>;

  static ::llvm::Expected<Pattern> compile(::llvm::StringRef path,
                                           ::llvm::StringRef text);
  void split(::llvm::StringRef text, size_t pattern, Consumer consumer) const;

  std::vector<Pattern> patterns;
};

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_PRETOKENIZER_H
