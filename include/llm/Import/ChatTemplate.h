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

/// Ids of a conversation with one user message, up to where the assistant's
/// answer begins, with the template's default system message. Special tokens
/// come from the template alone, never from `user`. The template is recognised
/// by the file's template text; an unknown one is an error that names the known
/// ones (ChatML as in SmolLM2).
::llvm::Expected<std::vector<int32_t>>
applyChatTemplate(const Tokenizer &tokenizer, ::llvm::StringRef user);

} // namespace mlir::llm

#endif // LLM_IMPORT_CHATTEMPLATE_H
