//===- TextFile.h - Whole files in and out ----------------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_TEXTFILE_H
#define LLM_DRIVER_TEXTFILE_H

#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/raw_ostream.h"

#include <optional>
#include <string>

namespace mlir::llm {

/// The bytes of a file. Errors are "path: what is wrong".
::llvm::Expected<std::string> readFile(::llvm::StringRef path);

/// The bytes of standard input, to its end.
::llvm::Expected<std::string> readInput();

/// The next line of standard input, without its end; none at the end of input
/// and where a signal ends the waiting. A terminal is prompted.
std::optional<std::string> readLine();

/// Fails where standard output did not take everything so far.
::llvm::Error checkOutput();

/// Creates or replaces a file by what `write` prints. Fails also where the
/// bytes do not all arrive.
::llvm::Error
writeFile(::llvm::StringRef path,
          ::llvm::function_ref<::llvm::Error(::llvm::raw_ostream &)> write);

} // namespace mlir::llm

#endif // LLM_DRIVER_TEXTFILE_H
