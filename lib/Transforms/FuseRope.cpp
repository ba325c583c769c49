//===- FuseRope.cpp - Keys that rotate on their way into the cache --------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Transforms/Passes.h"

#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

namespace mlir::llm {
#define GEN_PASS_DEF_FUSEROPE
#include "llm/Transforms/Passes.h.inc"
} // namespace mlir::llm

using namespace mlir;
using namespace mlir::llm;

namespace {
struct FuseIntoAppend : OpRewritePattern<AppendKVOp> {
  using OpRewritePattern::OpRewritePattern;

  LogicalResult matchAndRewrite(AppendKVOp op,
                                PatternRewriter &rewriter) const override {
    auto rope = op.getKey().getDefiningOp<RopeOp>();
    if (!rope)
      return rewriter.notifyMatchFailure(op, "the key is not rotated");
    if (op.getPairing())
      return rewriter.notifyMatchFailure(op, "it rotates its key already");
    if (!rope->hasOneUse())
      return rewriter.notifyMatchFailure(op, "the key has another use");
    if (rope->getBlock() != op->getBlock())
      return rewriter.notifyMatchFailure(op, "it may run more often");
    rewriter.modifyOpInPlace(op, [&] { addRotation(op, rope); });
    rewriter.eraseOp(rope);
    return success();
  }

  /// A rotated key has rank 3, so that the step is there.
  static void addRotation(AppendKVOp op, RopeOp rope) {
    MLIRContext *context = op.getContext();
    op.getKeyMutable().assign(rope.getInput());
    op.getExtrasMutable().append(rope.getTable());
    op.setExtraNamesAttr(
        ArrayAttr::get(context, {ExtraAttr::get(context, Extra::Step),
                                 ExtraAttr::get(context, Extra::RopeTable)}));
    op.setPairing(rope.getPairing());
  }
};

struct FuseRope : llm::impl::FuseRopeBase<FuseRope> {
  void runOnOperation() override {
    RewritePatternSet patterns(&getContext());
    patterns.add<FuseIntoAppend>(&getContext());
    if (failed(applyPatternsGreedily(getOperation(), std::move(patterns))))
      signalPassFailure();
  }
};
} // namespace
