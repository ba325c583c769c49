//===- TurnWriter.h - Special tokens and text between them -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_TURNWRITER_H
#define LLM_LIB_IMPORT_TURNWRITER_H

#include "llm/Import/Tokenizer.h"

#include "llvm/ADT/STLExtras.h"

namespace mlir::llm {

/// Collects ids: what stands between two special tokens is tokenized as one
/// text, in which nothing is special.
class TurnWriter {
public:
  explicit TurnWriter(const Tokenizer &tokenizer) : tokenizer(tokenizer) {}

  TurnWriter &text(::llvm::StringRef more) {
    pending += more;
    return *this;
  }
  TurnWriter &token(int32_t id) {
    flush();
    ids.push_back(id);
    return *this;
  }
  /// A mark of the template: the special token of this text if there is one,
  /// else text.
  TurnWriter &mark(::llvm::StringRef name) {
    std::optional<int32_t> id = tokenizer.specialId(name);
    return id ? token(*id) : text(name);
  }

  /// The tokenizer's end of a text, which it has.
  TurnWriter &endOfText() { return token(*tokenizer.eos()); }

  std::vector<int32_t> takeIds() {
    flush();
    return std::move(ids);
  }

private:
  void flush() {
    if (!pending.empty())
      ::llvm::append_range(ids, tokenizer.encode(pending));
    pending.clear();
  }

  const Tokenizer &tokenizer;
  std::string pending;
  std::vector<int32_t> ids;
};

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_TURNWRITER_H
