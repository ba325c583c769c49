//===- CopyWhileYields.cpp - While loops that bufferize right -------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Transforms/Passes.h"

#include "mlir/Dialect/Bufferization/IR/Bufferization.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Interfaces/DestinationStyleOpInterface.h"

namespace mlir::llm {
#define GEN_PASS_DEF_COPYWHILEYIELDS
#include "llm/Transforms/Passes.h.inc"
} // namespace mlir::llm

using namespace mlir;
using namespace mlir::llm;

/// The tensor in whose place the value is made, or the value.
static Value getOrigin(Value value) {
  while (auto op = value.getDefiningOp<DestinationStyleOpInterface>())
    value = op.getTiedOpOperand(cast<OpResult>(value))->get();
  return value;
}

static void rewrite(scf::WhileOp loop) {
  scf::YieldOp yield = loop.getYieldOp();
  OpBuilder b(yield);
  for (OpOperand &operand : yield->getOpOperands()) {
    auto type = dyn_cast<RankedTensorType>(operand.get().getType());
    if (!type)
      continue;
    auto argument = dyn_cast<BlockArgument>(getOrigin(operand.get()));
    if (argument && argument.getOwner() == loop.getAfterBody() &&
        argument.getArgNumber() == operand.getOperandNumber())
      continue;
    operand.set(bufferization::AllocTensorOp::create(b, yield.getLoc(), type,
                                                     /*dynamicSizes=*/{},
                                                     /*copy=*/operand.get()));
  }
}

namespace {
struct CopyWhileYields : llm::impl::CopyWhileYieldsBase<CopyWhileYields> {
  void runOnOperation() override { getOperation().walk(rewrite); }
};
} // namespace
