//===- NumberWeights.h - Weights that travel by number ---------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_CONVERSION_NUMBERWEIGHTS_H
#define LLM_LIB_CONVERSION_NUMBERWEIGHTS_H

#include "mlir/IR/BuiltinOps.h"

namespace mlir::llm {

/// A parameter of a private function becomes an i64 where every caller passes a
/// weight of its own call and linalg ops alone read it: the function looks the
/// weight up by number. A buffer that is passed costs some ten values at every
/// call, in all passes that follow. Functions take the call as first argument.
void numberWeights(ModuleOp module);

} // namespace mlir::llm

#endif // LLM_LIB_CONVERSION_NUMBERWEIGHTS_H
