//===- Conversation.h - Turns that share a cache ----------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_CONVERSATION_H
#define LLM_DRIVER_CONVERSATION_H

#include "llm/Driver/Generation.h"
#include "llm/Import/ChatTemplate.h"

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <optional>
#include <string>
#include <vector>

namespace mlir::llm {

/// What a user and a model say to each other in turns. All of it stays in the
/// cache: a turn feeds its own tokens alone.
class Conversation {
public:
  /// `system`: none is what the chat template says. The options keep sequences.
  Conversation(const ChatTemplate &chat, StepModel &model,
               const GenerationOptions &options,
               std::optional<std::string> system)
      : chat(chat), model(model), generator(model, options),
        system(std::move(system)) {}

  /// Ids of what the user says next. An error, also where the context has no
  /// room for them, leaves the conversation as it is.
  ::llvm::Expected<std::vector<int32_t>> encode(::llvm::StringRef user) const;

  /// Takes these ids as the next turn of the user, and answers.
  ::llvm::Expected<GenerationResult> answer(::llvm::ArrayRef<int32_t> ids);

  /// Tokens of all turns so far.
  int64_t length() const { return generator.length(); }

private:
  ChatTemplate chat;
  StepModel &model;
  Generator generator;
  std::optional<std::string> system;
  bool begun = false;
};

} // namespace mlir::llm

#endif // LLM_DRIVER_CONVERSATION_H
