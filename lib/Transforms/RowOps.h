//===- RowOps.h - Linalg ops that compute row by row ------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_TRANSFORMS_ROWOPS_H
#define LLM_LIB_TRANSFORMS_ROWOPS_H

#include "mlir/Dialect/Linalg/IR/Linalg.h"

namespace mlir::llm {

/// Whether the outermost loop counts the rows of the operand.
bool isByRow(linalg::LinalgOp op, OpOperand &operand);

/// Whether the outermost loop is parallel, counts the rows of all that the op
/// writes, and of what it reads counts rows or nothing; and the body computes
/// from the row alone and from what it loads.
bool isRowOp(linalg::LinalgOp op);

} // namespace mlir::llm

#endif // LLM_LIB_TRANSFORMS_ROWOPS_H
