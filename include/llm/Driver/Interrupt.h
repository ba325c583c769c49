//===- Interrupt.h - Ctrl-C -------------------------------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_INTERRUPT_H
#define LLM_DRIVER_INTERRUPT_H

namespace mlir::llm {

/// From now on the first Ctrl-C (SIGINT) is taken note of, and the second ends
/// the process at once. Reading from a terminal ends by either.
void noteInterrupts();

bool wasInterrupted();

} // namespace mlir::llm

#endif // LLM_DRIVER_INTERRUPT_H
