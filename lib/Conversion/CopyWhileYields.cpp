//===- CopyWhileYields.cpp - While loops that bufferize right -------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "CopyWhileYields.h"

#include "mlir/Dialect/Bufferization/IR/Bufferization.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Interfaces/DestinationStyleOpInterface.h"
#include "mlir/Pass/Pass.h"

using namespace mlir;

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
struct CopyWhileYields
    : PassWrapper<CopyWhileYields, OperationPass<func::FuncOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(CopyWhileYields)

  StringRef getArgument() const override { return "llm-copy-while-yields"; }
  StringRef getDescription() const override {
    return "Copy the tensors that while loops yield to their next turn, so "
           "that they bufferize right";
  }

  void getDependentDialects(DialectRegistry &registry) const override {
    registry.insert<bufferization::BufferizationDialect>();
  }

  void runOnOperation() override { getOperation().walk(rewrite); }
};
} // namespace

std::unique_ptr<Pass> mlir::llm::createCopyWhileYields() {
  return std::make_unique<CopyWhileYields>();
}
