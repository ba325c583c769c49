//===- CopyWhileYields.h - While loops that bufferize right ----*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_CONVERSION_COPYWHILEYIELDS_H
#define LLM_LIB_CONVERSION_COPYWHILEYIELDS_H

#include <memory>

namespace mlir {
class Pass;

namespace llm {

/// `llm-copy-while-yields`: the tensors that an scf.while yields to its next
/// turn are copies, unless made in place of its own argument. One-Shot
/// Bufferize of MLIR 22 yields the buffer of any other tensor as it is, one
/// from outside of the loop too, and the next turn writes into it.
std::unique_ptr<Pass> createCopyWhileYields();

} // namespace llm
} // namespace mlir

#endif // LLM_LIB_CONVERSION_COPYWHILEYIELDS_H
