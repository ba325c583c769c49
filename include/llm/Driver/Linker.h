//===- Linker.h - Shared libraries of compiled models -----------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_LINKER_H
#define LLM_DRIVER_LINKER_H

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

namespace mlir::llm {

/// Links an object, by lld, into the shared library `path`, which needs the
/// runtime that this process has loaded, by its name. What was there before
/// stays until the library is whole.
::llvm::Error linkLibrary(::llvm::StringRef object, ::llvm::StringRef path);

} // namespace mlir::llm

#endif // LLM_DRIVER_LINKER_H
