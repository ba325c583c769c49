//===- ProgramHeader.h - C headers of compiled models -----------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_PROGRAMHEADER_H
#define LLM_DRIVER_PROGRAMHEADER_H

#include "mlir/IR/BuiltinAttributes.h"

#include <string>

namespace mlir::llm {

/// A header in C99 and C++ for `llm.program` (see `llm-emit-program`): the
/// function that returns the program, and one with named parameters for each
/// entry.
std::string headerOf(DictionaryAttr program);

} // namespace mlir::llm

#endif // LLM_DRIVER_PROGRAMHEADER_H
