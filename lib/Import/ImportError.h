//===- ImportError.h - What is wrong with a file -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_IMPORTERROR_H
#define LLM_LIB_IMPORT_IMPORTERROR_H

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/FormatVariadic.h"

#include <utility>

namespace mlir::llm {

/// "<path>: <message>", the message being written by `formatv`.
template <typename... Args>
::llvm::Error importError(::llvm::StringRef path, const char *format,
                          Args &&...args) {
  std::string message =
      ::llvm::formatv(format, std::forward<Args>(args)...).str();
  return ::llvm::createStringError(path + ": " + message);
}

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_IMPORTERROR_H
