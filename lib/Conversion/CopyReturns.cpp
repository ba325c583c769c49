//===- CopyReturns.cpp - Returned tensors that bufferize right ------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Transforms/Passes.h"

#include "mlir/Dialect/Bufferization/IR/BufferizableOpInterface.h"
#include "mlir/Dialect/Bufferization/IR/Bufferization.h"
#include "mlir/Dialect/Bufferization/Transforms/OneShotAnalysis.h"
#include "mlir/IR/Matchers.h"

namespace mlir::llm {
#define GEN_PASS_DEF_COPYRETURNS
#include "llm/Transforms/Passes.h.inc"
} // namespace mlir::llm

using namespace mlir;
using namespace mlir::llm;
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
struct CopyReturns : llm::impl::CopyReturnsBase<CopyReturns> {
  void runOnOperation() override { getOperation().walk(rewrite); }
};
} // namespace
