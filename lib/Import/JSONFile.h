//===- JSONFile.h - JSON that nobody vouches for -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_JSONFILE_H
#define LLM_LIB_IMPORT_JSONFILE_H

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/JSON.h"

namespace mlir::llm {

/// The object that `text` is. Refuses a key given twice in the outermost object
/// (the second would win in silence) and nesting that could exhaust the stack.
/// `path` is for messages.
::llvm::Expected<::llvm::json::Object> parseJSON(::llvm::StringRef path,
                                                 ::llvm::StringRef text);

/// The same for a file.
::llvm::Expected<::llvm::json::Object> readJSON(::llvm::StringRef path);

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_JSONFILE_H
