//===- CharacterMap.h - How tokenizer.model rewrites text -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_CHARACTERMAP_H
#define LLM_LIB_IMPORT_CHARACTERMAP_H

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

namespace mlir::llm {

/// Refuses a SentencePiece model whose character maps lead outside themselves:
/// the library follows them unchecked. `path` is for messages.
::llvm::Error checkCharacterMaps(::llvm::StringRef path,
                                 ::llvm::StringRef model);

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_CHARACTERMAP_H
