//===- TokenizerFormats.h - What Tokenizer::open chooses from -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_TOKENIZERFORMATS_H
#define LLM_LIB_IMPORT_TOKENIZERFORMATS_H

#include "llm/Import/Tokenizer.h"

namespace mlir::llm {

/// tokenizer.model of a Hugging Face directory.
::llvm::Expected<std::unique_ptr<Tokenizer>>
openSentencePieceTokenizer(::llvm::StringRef directory);

/// The byte-level BPE of a GGUF file.
::llvm::Expected<std::unique_ptr<Tokenizer>>
openBytePairTokenizer(::llvm::StringRef path);

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_TOKENIZERFORMATS_H
