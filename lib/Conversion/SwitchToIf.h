//===- SwitchToIf.h - Switches that bufferize right ------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_CONVERSION_SWITCHTOIF_H
#define LLM_LIB_CONVERSION_SWITCHTOIF_H

#include <memory>

namespace mlir {
class Pass;

namespace llm {

/// `llm-switch-to-if`: an scf.index_switch with tensor results becomes a chain
/// of scf.if. One-Shot Bufferize of MLIR 22 does not see that two results of a
/// switch may share a buffer, and writes one in place where the other is read.
std::unique_ptr<Pass> createSwitchToIf();

} // namespace llm
} // namespace mlir

#endif // LLM_LIB_CONVERSION_SWITCHTOIF_H
