//===- Composition.h - Equivalent texts made equal -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_COMPOSITION_H
#define LLM_LIB_IMPORT_COMPOSITION_H

#include "llvm/ADT/StringRef.h"

#include <string>

namespace mlir::llm {

/// Unicode's normalization form C of `text`: letters and their accents as one
/// character where there is one. Bytes that are not valid UTF-8 stay, and part
/// what is around them.
std::string compose(::llvm::StringRef text);

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_COMPOSITION_H
