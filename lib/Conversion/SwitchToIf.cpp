//===- SwitchToIf.cpp - Switches that bufferize right ---------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Transforms/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/SCF/IR/SCF.h"

namespace mlir::llm {
#define GEN_PASS_DEF_SWITCHTOIF
#include "llm/Transforms/Passes.h.inc"
} // namespace mlir::llm

using namespace mlir;
using namespace mlir::llm;

/// Moves a case, its end included, into an empty block.
static void moveCase(Region &from, Block *to) {
  to->getOperations().splice(to->end(), from.front().getOperations());
}

/// The branch on case `number`, and on those behind it in its else.
static scf::IfOp branchOnCase(OpBuilder &b, scf::IndexSwitchOp op,
                              unsigned number) {
  Location loc = op.getLoc();
  Value label = arith::ConstantIndexOp::create(b, loc, op.getCases()[number]);
  Value isCase = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq,
                                       op.getArg(), label);
  auto branch = scf::IfOp::create(b, loc, op.getResultTypes(), isCase,
                                  /*withElseRegion=*/true);
  moveCase(op.getCaseRegions()[number], branch.thenBlock());
  if (number + 1 == op.getNumCases()) {
    moveCase(op.getDefaultRegion(), branch.elseBlock());
    return branch;
  }
  OpBuilder nested = OpBuilder::atBlockEnd(branch.elseBlock());
  scf::IfOp others = branchOnCase(nested, op, number + 1);
  scf::YieldOp::create(nested, loc, others.getResults());
  return branch;
}

static void rewrite(scf::IndexSwitchOp op) {
  IRRewriter rewriter(op);
  if (op.getNumCases() != 0) {
    rewriter.replaceOp(op, branchOnCase(rewriter, op, 0).getResults());
    return;
  }
  Block &body = op.getDefaultRegion().front();
  Operation *yield = body.getTerminator();
  rewriter.inlineBlockBefore(&body, op);
  rewriter.replaceOp(op, yield->getOperands());
  rewriter.eraseOp(yield);
}

namespace {
struct SwitchToIf : llm::impl::SwitchToIfBase<SwitchToIf> {
  void runOnOperation() override {
    SmallVector<scf::IndexSwitchOp> switches;
    getOperation().walk([&](scf::IndexSwitchOp op) {
      if (llvm::any_of(op.getResultTypes(),
                       [](Type type) { return isa<TensorType>(type); }))
        switches.push_back(op);
    });
    for (scf::IndexSwitchOp op : switches)
      rewrite(op);
  }
};
} // namespace
