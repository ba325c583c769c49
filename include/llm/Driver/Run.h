//===- Run.h - What llm-run does --------------------------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_RUN_H
#define LLM_DRIVER_RUN_H

namespace mlir::llm {

/// The whole of llm-run. Returns its exit status: 0, 1 after an error or when a
/// sequence ended early, 2 for bad usage.
int runMain(int argc, const char *const *argv);

} // namespace mlir::llm

#endif // LLM_DRIVER_RUN_H
