//===- ChatTemplate.h - How a model wants a conversation -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_IMPORT_CHATTEMPLATE_H
#define LLM_IMPORT_CHATTEMPLATE_H

#include "llm/Import/Tokenizer.h"

namespace mlir::llm {

/// A row of the table of known templates.
struct KnownTemplate;

/// Ids around what the participants say. Special tokens come from the template
/// alone, never from what is said.
///
/// A conversation in a cache is: the ids of firstTurn, the answer, the ids of
/// nextTurn, the answer, ... An answer is what the model said, without the
/// token that ended it.
class ChatTemplate {
public:
  /// The template that `tokenizer`, which outlives this, has from its file. It
  /// is recognised by its whole text; an unknown one is an error that names
  /// the known ones.
  static ::llvm::Expected<ChatTemplate> open(const Tokenizer &tokenizer);

  /// "SmolLM2", for example.
  ::llvm::StringRef name() const;

  /// The beginning of a conversation, up to where the assistant's answer
  /// begins. Without `system` it is the template's default system message, if
  /// that has one.
  std::vector<int32_t>
  firstTurn(::llvm::StringRef user,
            std::optional<::llvm::StringRef> system = std::nullopt) const;

  /// What stands between an answer and the next one: first the token that ends
  /// an answer, whether the model wrote it or was stopped before.
  std::vector<int32_t> nextTurn(::llvm::StringRef user) const;

  /// The token that ends an answer; generation is to stop there.
  int32_t endOfAnswer() const { return endId; }

private:
  ChatTemplate(const Tokenizer &tokenizer, const KnownTemplate &known,
               int32_t endId)
      : tokenizer(&tokenizer), known(&known), endId(endId) {}

  const Tokenizer *tokenizer;
  const KnownTemplate *known;
  int32_t endId;
};

/// The first turn of `user` by the template of `tokenizer`.
::llvm::Expected<std::vector<int32_t>>
applyChatTemplate(const Tokenizer &tokenizer, ::llvm::StringRef user,
                  std::optional<::llvm::StringRef> system = std::nullopt);

} // namespace mlir::llm

#endif // LLM_IMPORT_CHATTEMPLATE_H
