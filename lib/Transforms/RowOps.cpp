//===- RowOps.cpp - Linalg ops that compute row by row --------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "RowOps.h"

#include "mlir/Dialect/MemRef/IR/MemRef.h"

using namespace mlir;
using namespace mlir::llm;
using linalg::LinalgOp;

bool mlir::llm::isByRow(LinalgOp op, OpOperand &operand) {
  AffineMap map = op.getMatchingIndexingMap(&operand);
  return map.getNumResults() > 0 &&
         map.getResult(0) == getAffineDimExpr(0, op.getContext());
}

/// Whether the outermost loop counts rows and nothing else of the operand.
static bool isRowsOrWhole(LinalgOp op, OpOperand &operand) {
  AffineMap map = op.getMatchingIndexingMap(&operand);
  ArrayRef<AffineExpr> others = map.getResults();
  if (isByRow(op, operand))
    others = others.drop_front();
  return llvm::none_of(others, [](AffineExpr expression) {
    return expression.isFunctionOfDim(0);
  });
}

/// Whether the body computes from the row alone and from what it loads.
static bool hasRowBody(LinalgOp op) {
  return llvm::all_of(op.getBlock()->getOperations(), [](Operation &inner) {
    if (auto index = dyn_cast<linalg::IndexOp>(inner))
      return index.getDim() != 0;
    return inner.getNumRegions() == 0 &&
           (isMemoryEffectFree(&inner) || isa<memref::LoadOp>(inner));
  });
}

bool mlir::llm::isRowOp(LinalgOp op) {
  if (op.getNumLoops() == 0 ||
      op.getIteratorTypesArray().front() != utils::IteratorType::parallel ||
      !hasRowBody(op))
    return false;
  return llvm::all_of(op->getOpOperands(), [&](OpOperand &operand) {
    if (!isa<RankedTensorType, MemRefType>(operand.get().getType()))
      return !isa<ShapedType>(operand.get().getType());
    return isRowsOrWhole(op, operand) &&
           (op.isDpsInput(&operand) || isByRow(op, operand));
  });
}
