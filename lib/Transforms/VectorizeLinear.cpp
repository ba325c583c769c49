//===- VectorizeLinear.cpp - The schedule of matrix products ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

//
// x [M, K] times panels [P][K][32] into [M, P, 32]:
//
//   forall p                        one panel per work item
//     for m by 8, then by 1         rows of x
//       acc[8][32] in registers
//       for k                       one line of the panel, 8 broadcasts of x
//         acc += x[m .. m + 8, k] * panel[p, k, :]
//
// With AVX-512 that is 16 accumulators, 2 loads of the panel and 8 broadcasts
// for 16 multiply-adds.
//
//===----------------------------------------------------------------------===//

#include "llm/Transforms/Passes.h"

#include "mlir/Dialect/Affine/IR/AffineOps.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Linalg/Transforms/Hoisting.h"
#include "mlir/Dialect/Linalg/Transforms/Transforms.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/SCF/Transforms/Patterns.h"
#include "mlir/Dialect/SCF/Transforms/TileUsingInterface.h"
#include "mlir/Dialect/SCF/Transforms/Transforms.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Tensor/Transforms/Transforms.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/Dialect/Vector/Transforms/LoweringPatterns.h"
#include "mlir/Dialect/Vector/Transforms/VectorRewritePatterns.h"
#include "mlir/Interfaces/TilingInterface.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"
#include "mlir/Transforms/LoopInvariantCodeMotionUtils.h"

namespace mlir::llm {
#define GEN_PASS_DEF_VECTORIZELINEAR
#include "llm/Transforms/Passes.h.inc"
} // namespace mlir::llm

using namespace mlir;
using namespace mlir::llm;

static constexpr StringLiteral kLinear = "llm.linear";
static constexpr int64_t kRows = 8;

namespace {
struct VectorizeLinear : llm::impl::VectorizeLinearBase<VectorizeLinear> {
  void runOnOperation() override {
    SmallVector<linalg::GenericOp> products = findProducts();
    if (products.empty())
      return;
    for (linalg::GenericOp product : products)
      if (failed(tile(product))) {
        product.emitOpError("could not be tiled over panels");
        return signalPassFailure();
      }
    if (failed(simplify()) || failed(vectorize()) || failed(lowerVectors()))
      signalPassFailure();
  }

private:
  SmallVector<linalg::GenericOp> findProducts() {
    SmallVector<linalg::GenericOp> products;
    getOperation().walk([&](linalg::GenericOp op) {
      if (op->hasAttr(kLinear))
        products.push_back(op);
    });
    return products;
  }

  /// Tiles (m, p, k, n) by `sizes`; a new loop replaces `op`.
  FailureOr<scf::SCFTilingResult>
  tileBy(IRRewriter &rewriter, Operation *op, ArrayRef<int64_t> sizes,
         scf::SCFTilingOptions::LoopType loopType) {
    scf::SCFTilingOptions options;
    SmallVector<OpFoldResult> tileSizes =
        getAsIndexOpFoldResult(&getContext(), sizes);
    options.setTileSizes(tileSizes).setLoopType(loopType);
    rewriter.setInsertionPoint(op);
    FailureOr<scf::SCFTilingResult> tiled =
        scf::tileUsingSCF(rewriter, cast<TilingInterface>(op), options);
    if (succeeded(tiled))
      rewriter.replaceOp(op, tiled->replacements);
    return tiled;
  }

  LogicalResult tile(linalg::GenericOp product) {
    using LoopType = scf::SCFTilingOptions::LoopType;
    IRRewriter rewriter(&getContext());
    auto panels = tileBy(rewriter, product, {0, 1, 0, 0}, LoopType::ForallOp);
    if (failed(panels))
      return failure();
    auto rows = tileBy(rewriter, panels->tiledOps.front(), {kRows, 0, 0, 0},
                       LoopType::ForOp);
    if (failed(rows))
      return failure();
    // Peeling leaves full tiles in one loop and a last partial one in another.
    auto loop = cast<scf::ForOp>(rows->loops.front().getOperation());
    scf::ForOp remainder;
    SmallVector<linalg::GenericOp> tiles;
    rewriter.setInsertionPoint(loop);
    if (failed(scf::peelForLoopAndSimplifyBounds(rewriter, loop, remainder)))
      return failure();
    auto partial = *remainder.getOps<linalg::GenericOp>().begin();
    auto singles = tileBy(rewriter, partial, {1, 0, 0, 0}, LoopType::ForOp);
    return failure(failed(singles));
  }

  /// Makes the tiles' sizes static, so that what follows sees 8 or 1 rows; then
  /// walks k one by one.
  LogicalResult simplify() {
    if (failed(canonicalize()))
      return failure();
    IRRewriter rewriter(&getContext());
    for (linalg::GenericOp product : findProducts())
      if (failed(tileBy(rewriter, product, {0, 0, 1, 0},
                        scf::SCFTilingOptions::LoopType::ForOp)))
        return product.emitOpError("could not be tiled over k"), failure();
    RewritePatternSet patterns(&getContext());
    linalg::ControlDropUnitDims control;
    control.rankReductionStrategy =
        linalg::ControlDropUnitDims::RankReductionStrategy::ExtractInsertSlice;
    control.controlFn = [](Operation *op) -> SmallVector<unsigned> {
      if (!op->hasAttr(kLinear))
        return {};
      return llvm::to_vector(
          llvm::seq<unsigned>(0, cast<linalg::GenericOp>(op).getNumLoops()));
    };
    linalg::populateFoldUnitExtentDimsPatterns(patterns, control);
    addCanonicalization(patterns);
    return applyPatternsGreedily(getOperation(), std::move(patterns));
  }

  LogicalResult vectorize() {
    IRRewriter rewriter(&getContext());
    for (linalg::GenericOp product : findProducts()) {
      rewriter.setInsertionPoint(product);
      FailureOr<linalg::VectorizationResult> vectors =
          linalg::vectorize(rewriter, product);
      if (failed(vectors))
        return product.emitOpError("could not be vectorized"), failure();
      rewriter.replaceOp(product, vectors->replacements);
    }
    return success();
  }

  /// Keeps the accumulators in registers over the loop of k.
  LogicalResult lowerVectors() {
    RewritePatternSet patterns(&getContext());
    vector::populateVectorTransferPermutationMapLoweringPatterns(patterns);
    vector::populateVectorReductionToContractPatterns(patterns);
    tensor::populateMergeConsecutiveInsertExtractSlicePatterns(patterns);
    addCanonicalization(patterns);
    if (failed(applyPatternsGreedily(getOperation(), std::move(patterns))))
      return failure();
    IRRewriter rewriter(&getContext());
    getOperation().walk([&](LoopLikeOpInterface loop) {
      moveLoopInvariantCode(loop);
      hoistLoopInvariantSubsets(rewriter, loop);
    });
    return canonicalize();
  }

  LogicalResult canonicalize() {
    RewritePatternSet patterns(&getContext());
    addCanonicalization(patterns);
    scf::populateSCFForLoopCanonicalizationPatterns(patterns);
    return applyPatternsGreedily(getOperation(), std::move(patterns));
  }

  void addCanonicalization(RewritePatternSet &patterns) {
    for (Dialect *dialect : getContext().getLoadedDialects())
      dialect->getCanonicalizationPatterns(patterns);
    for (RegisteredOperationName op : getContext().getRegisteredOperations())
      op.getCanonicalizationPatterns(patterns, &getContext());
  }
};
} // namespace
