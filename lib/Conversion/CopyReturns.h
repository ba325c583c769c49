//===- CopyReturns.h - Returned tensors that bufferize right ---*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_CONVERSION_COPYRETURNS_H
#define LLM_LIB_CONVERSION_COPYRETURNS_H

#include <memory>

namespace mlir {
class Pass;

namespace llm {

/// `llm-copy-returns`: a returned tensor is a copy if its buffer may be a
/// constant's or that of another result. One-Shot Bufferize of MLIR 22 takes
/// the results of a call for memory of their own: the caller would write into
/// the constant, or into both results at once.
std::unique_ptr<Pass> createCopyReturns();

} // namespace llm
} // namespace mlir

#endif // LLM_LIB_CONVERSION_COPYRETURNS_H
