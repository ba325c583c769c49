//===- CopyReturns.cpp - Returned tensors that bufferize right ------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "CopyReturns.h"

#include "mlir/Dialect/Bufferization/IR/BufferizableOpInterface.h"
#include "mlir/Dialect/Bufferization/IR/Bufferization.h"
#include "mlir/Dialect/Bufferization/Transforms/OneShotAnalysis.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Matchers.h"
#include "mlir/Pass/Pass.h"

using namespace mlir;
using namespace mlir::bufferization;

/// The values whose buffers the operand's may be.
static SetVector<Value> getOrigins(const AnalysisState &state,
                                   OpOperand &operand) {
  SetVector<Value> origins = state.findValueInReverseUseDefChain(
      &operand, /*condition=*/[](Value) { return false; });
  origins.insert(operand.get());
  return origins;
}

static void rewrite(func::ReturnOp op) {
  OneShotBufferizationOptions options;
  options.bufferizeFunctionBoundaries = true; // look through calls
  OneShotAnalysisState state(op->getParentOp(), options);
  OpBuilder b(op);
  DenseSet<Value> returned;
  for (OpOperand &operand : op->getOpOperands()) {
    auto type = dyn_cast<RankedTensorType>(operand.get().getType());
    if (!type)
      continue;
    SetVector<Value> origins = getOrigins(state, operand);
    const bool isShared = llvm::any_of(origins, [&](Value origin) {
      return matchPattern(origin, m_Constant()) || returned.contains(origin);
    });
    returned.insert_range(origins);
    if (isShared)
      operand.set(AllocTensorOp::create(b, op.getLoc(), type,
                                        /*dynamicSizes=*/{},
                                        /*copy=*/operand.get()));
  }
}

namespace {
struct CopyReturns : PassWrapper<CopyReturns, OperationPass<func::FuncOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(CopyReturns)

  StringRef getArgument() const override { return "llm-copy-returns"; }
  StringRef getDescription() const override {
    return "Copy returned tensors that may share a buffer with a constant or "
           "with another result, so that calls bufferize right";
  }

  void getDependentDialects(DialectRegistry &registry) const override {
    registry.insert<BufferizationDialect>();
  }

  void runOnOperation() override { getOperation().walk(rewrite); }
};
} // namespace

std::unique_ptr<Pass> mlir::llm::createCopyReturns() {
  return std::make_unique<CopyReturns>();
}
