//===- BuildIds.h - Which build of the code is running ----------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_BUILDIDS_H
#define LLM_DRIVER_BUILDIDS_H

#include <string>

namespace mlir::llm {

/// The build ids, raw, of the program and the libraries in this process: this
/// compiler, MLIR, LLVM and our runtime among them. A linker computes them from
/// what it writes, so a changed compiler has other ones. Empty if the file that
/// this function is in has none.
std::string loadedBuildIds();

} // namespace mlir::llm

#endif // LLM_DRIVER_BUILDIDS_H
