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
#include "mlir/Dialect/Arith/IR/Arith.h"
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

//===----------------------------------------------------------------------===//
// Patterns over vectors
//===----------------------------------------------------------------------===//

namespace {
/// extf(broadcast x) -> broadcast(extf x): widen a line of bf16 once.
struct WidenBeforeBroadcast : OpRewritePattern<arith::ExtFOp> {
  using OpRewritePattern::OpRewritePattern;

  LogicalResult matchAndRewrite(arith::ExtFOp op,
                                PatternRewriter &rewriter) const override {
    auto broadcast = op.getIn().getDefiningOp<vector::BroadcastOp>();
    auto source = broadcast ? dyn_cast<VectorType>(broadcast.getSourceType())
                            : VectorType();
    if (!source)
      return rewriter.notifyMatchFailure(op, "not of a broadcast vector");
    Type wide = source.clone(getElementTypeOrSelf(op.getType()));
    Value widened = arith::ExtFOp::create(rewriter, op.getLoc(), wide,
                                          broadcast.getSource());
    rewriter.replaceOpWithNewOp<vector::BroadcastOp>(op, op.getType(), widened);
    return success();
  }
};

/// acc + columns * lines -> outer product: a multiply-add for each row.
struct FormOuterProduct : OpRewritePattern<arith::AddFOp> {
  using OpRewritePattern::OpRewritePattern;

  LogicalResult matchAndRewrite(arith::AddFOp op,
                                PatternRewriter &rewriter) const override {
    auto product = op.getRhs().getDefiningOp<arith::MulFOp>();
    if (!product)
      return rewriter.notifyMatchFailure(op, "no product on the right");
    auto transpose = product.getLhs().getDefiningOp<vector::TransposeOp>();
    Value column =
        getBroadcastVector(transpose ? transpose.getVector() : Value());
    Value line = getBroadcastVector(product.getRhs());
    if (!column || !line)
      return rewriter.notifyMatchFailure(op, "not a column times a line");
    rewriter.replaceOpWithNewOp<vector::OuterProductOp>(
        op, op.getType(), column, line, op.getLhs(),
        vector::CombiningKind::ADD);
    return success();
  }

private:
  static Value getBroadcastVector(Value value) {
    auto broadcast = value ? value.getDefiningOp<vector::BroadcastOp>()
                           : vector::BroadcastOp();
    if (!broadcast)
      return {};
    auto type = dyn_cast<VectorType>(broadcast.getSourceType());
    return type && type.getRank() == 1 ? broadcast.getSource() : Value();
  }
};

/// (read of a column)[i] -> one element: scalars are broadcast from memory.
struct ReadElement : OpRewritePattern<vector::ExtractOp> {
  using OpRewritePattern::OpRewritePattern;

  LogicalResult matchAndRewrite(vector::ExtractOp op,
                                PatternRewriter &rewriter) const override {
    auto read = op.getSource().getDefiningOp<vector::TransferReadOp>();
    bool isPlain = read && read.getVectorType().getRank() == 1 &&
                   read.getShapedType().getRank() == 1 &&
                   isa<RankedTensorType>(read.getShapedType()) &&
                   !read.getMask() && !read.hasOutOfBoundsDim();
    if (!isPlain || op.hasDynamicPosition() ||
        op.getStaticPosition().size() != 1)
      return rewriter.notifyMatchFailure(op, "not an element of a column");
    Value offset = arith::ConstantIndexOp::create(rewriter, op.getLoc(),
                                                  op.getStaticPosition()[0]);
    Value index = arith::AddIOp::create(rewriter, op.getLoc(),
                                        read.getIndices()[0], offset);
    rewriter.replaceOpWithNewOp<tensor::ExtractOp>(op, read.getBase(), index);
    return success();
  }
};
} // namespace

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

/// Whether `op` is what llm-pack-weights makes; the body is not looked at.
static bool isPanelProduct(linalg::GenericOp op) {
  using utils::IteratorType;
  AffineExpr m, p, k, n;
  bindDims(op.getContext(), m, p, k, n);
  const AffineExpr x[] = {m, k}, panel[] = {p, k, n}, result[] = {m, p, n};
  auto maps = AffineMap::inferFromExprList(
      ArrayRef<ArrayRef<AffineExpr>>{x, panel, result}, op.getContext());
  const IteratorType iterators[] = {
      IteratorType::parallel, IteratorType::parallel, IteratorType::reduction,
      IteratorType::parallel};
  if (!op.hasPureTensorSemantics() || op.getIndexingMapsArray() != maps ||
      op.getIteratorTypesArray() != ArrayRef(iterators))
    return false;
  auto panels = cast<ShapedType>(op.getDpsInputs()[1].getType());
  return panels.hasStaticShape() && panels.getDimSize(2) == kPanelRows;
}

namespace {
struct VectorizeLinear : llm::impl::VectorizeLinearBase<VectorizeLinear> {
  void runOnOperation() override {
    SmallVector<linalg::GenericOp> products = findProducts();
    if (products.empty())
      return;
    for (linalg::GenericOp product : products)
      if (!isPanelProduct(product)) {
        product.emitOpError() << "expected '" << kLinear
                              << "' only on a product of [M, K] and static "
                              << "panels [P, K, " << kPanelRows << "]";
        return signalPassFailure();
      }
    for (linalg::GenericOp product : products)
      if (failed(tile(product)))
        return signalPassFailure();
    if (failed(simplify()) || failed(vectorize()) || failed(lowerVectors()))
      signalPassFailure();
  }

private:
  /// What failed to be tiled may be gone already.
  static LogicalResult refuse(Location loc) {
    return emitError(loc) << "the product marked '" << kLinear
                          << "' could not be vectorized";
  }

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
    Location loc = product.getLoc();
    auto panels = tileBy(rewriter, product, {0, 1, 0, 0}, LoopType::ForallOp);
    if (failed(panels))
      return refuse(loc);
    auto rows = tileBy(rewriter, panels->tiledOps.front(), {kRows, 0, 0, 0},
                       LoopType::ForOp);
    if (failed(rows))
      return refuse(loc);
    // Peeling leaves full tiles in one loop and a last partial one in another.
    auto loop = cast<scf::ForOp>(rows->loops.front().getOperation());
    scf::ForOp remainder;
    SmallVector<linalg::GenericOp> tiles;
    rewriter.setInsertionPoint(loop);
    if (failed(scf::peelForLoopAndSimplifyBounds(rewriter, loop, remainder)))
      return refuse(loc);
    auto partial = *remainder.getOps<linalg::GenericOp>().begin();
    auto singles = tileBy(rewriter, partial, {1, 0, 0, 0}, LoopType::ForOp);
    return failed(singles) ? refuse(loc) : success();
  }

  /// Makes the tiles' sizes static, so that what follows sees 8 or 1 rows; then
  /// walks k one by one.
  LogicalResult simplify() {
    if (failed(canonicalize()))
      return failure();
    IRRewriter rewriter(&getContext());
    for (linalg::GenericOp product : findProducts()) {
      Location loc = product.getLoc();
      auto line = tileBy(rewriter, product, {0, 0, 1, 0},
                         scf::SCFTilingOptions::LoopType::ForOp);
      if (failed(line) ||
          failed(dropUnitDims(rewriter,
                              cast<linalg::GenericOp>(line->tiledOps.front()))))
        return refuse(loc);
    }
    return canonicalize();
  }

  /// 8 rows, or one, times a line of the panel: loops over rows and columns.
  LogicalResult dropUnitDims(IRRewriter &rewriter, linalg::GenericOp line) {
    linalg::ControlDropUnitDims control;
    control.rankReductionStrategy =
        linalg::ControlDropUnitDims::RankReductionStrategy::ExtractInsertSlice;
    rewriter.setInsertionPoint(line);
    auto dropped = linalg::dropUnitDims(rewriter, line, control);
    if (failed(dropped))
      return failure();
    dropped->resultOp->setAttr(kLinear, rewriter.getUnitAttr());
    rewriter.replaceOp(line, dropped->replacements);
    return success();
  }

  LogicalResult vectorize() {
    IRRewriter rewriter(&getContext());
    for (linalg::GenericOp product : findProducts()) {
      rewriter.setInsertionPoint(product);
      FailureOr<linalg::VectorizationResult> vectors =
          linalg::vectorize(rewriter, product);
      if (failed(vectors))
        return refuse(product.getLoc());
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
    RewritePatternSet products(&getContext());
    products.add<WidenBeforeBroadcast, FormOuterProduct, ReadElement>(
        &getContext());
    vector::populateVectorOuterProductLoweringPatterns(products);
    addCanonicalization(products);
    return applyPatternsGreedily(getOperation(), std::move(products));
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
