//===- ToolOptions.h - --help and --version of our tools --------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_IMPORT_TOOLOPTIONS_H
#define LLM_IMPORT_TOOLOPTIONS_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/CommandLine.h"

#include <string>

namespace mlir::llm {

/// "llm-run 0.1.0 (LLVM 22.1.8)".
std::string describeVersion(::llvm::StringRef tool);

/// Makes --help and --version those of a tool: LLVM's own options are hidden.
void presentTool(::llvm::StringRef tool,
                 ::llvm::ArrayRef<const ::llvm::cl::OptionCategory *> options);

} // namespace mlir::llm

#endif // LLM_IMPORT_TOOLOPTIONS_H
