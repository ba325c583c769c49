//===- DecomposeRope.cpp - llm.rope as linalg ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Transforms/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

namespace mlir::llm {
#define GEN_PASS_DEF_DECOMPOSEROPE
#include "llm/Transforms/Passes.h.inc"
} // namespace mlir::llm

using namespace mlir;
using namespace mlir::llm;

namespace {
/// The one definition of the table: cos w and sin w of the angles
/// w = f32(position) * inv_freq.
class TableBuilder {
public:
  TableBuilder(RopeTableOp op, PatternRewriter &rewriter)
      : op(op), b(rewriter), loc(op.getLoc()),
        type(cast<RankedTensorType>(op.getTable().getType())),
        half(type.getDimSize(1) / 2) {}

  Value build() {
    auto [cosines, sines] = buildAngles();
    Value table =
        tensor::EmptyOp::create(b, loc, getSizes(2 * half), b.getF32Type());
    return insert(sines, insert(cosines, table, 0), half);
  }

private:
  /// Cosines and sines of all angles, [T, D/2] each.
  std::pair<Value, Value> buildAngles() {
    Value frequencies = arith::ConstantOp::create(
        b, loc,
        DenseElementsAttr::get(RankedTensorType::get({half}, b.getF32Type()),
                               op.getInvFreq()));
    Value empty =
        tensor::EmptyOp::create(b, loc, getSizes(half), b.getF32Type());
    AffineMap map = b.getMultiDimIdentityMap(2);
    AffineMap row = AffineMap::get(2, 0, b.getAffineDimExpr(0));
    AffineMap column = AffineMap::get(2, 0, b.getAffineDimExpr(1));
    SmallVector<utils::IteratorType> iterators(2,
                                               utils::IteratorType::parallel);
    auto angles = linalg::GenericOp::create(
        b, loc, TypeRange{empty.getType(), empty.getType()},
        ValueRange{op.getPositions(), frequencies}, ValueRange{empty, empty},
        ArrayRef<AffineMap>{row, column, map, map}, iterators,
        [](OpBuilder &nested, Location loc, ValueRange args) {
          Value position = arith::SIToFPOp::create(
              nested, loc, nested.getF32Type(), args[0]);
          Value angle = arith::MulFOp::create(nested, loc, position, args[1]);
          Value results[] = {math::CosOp::create(nested, loc, angle),
                             math::SinOp::create(nested, loc, angle)};
          linalg::YieldOp::create(nested, loc, results);
        });
    return {angles.getResult(0), angles.getResult(1)};
  }

  Value insert(Value lanes, Value table, int64_t at) {
    SmallVector<OpFoldResult> offsets = {b.getIndexAttr(0), b.getIndexAttr(at)};
    SmallVector<OpFoldResult> strides(2, b.getIndexAttr(1));
    return tensor::InsertSliceOp::create(b, loc, lanes, table, offsets,
                                         getSizes(half), strides);
  }

  SmallVector<OpFoldResult> getSizes(int64_t lanes) {
    if (!type.isDynamicDim(0))
      return {b.getIndexAttr(type.getDimSize(0)), b.getIndexAttr(lanes)};
    Value tokens = tensor::DimOp::create(b, loc, op.getPositions(), 0);
    return {tokens, b.getIndexAttr(lanes)};
  }

  RopeTableOp op;
  PatternRewriter &b;
  Location loc;
  RankedTensorType type;
  int64_t half;
};

/// The one definition of rope. With pairs (a, b) of lanes, their cosine and
/// their sine: a' = a cos - b sin, b' = a sin + b cos.
class RopeBuilder {
public:
  RopeBuilder(RopeOp op, PatternRewriter &rewriter)
      : op(op), b(rewriter), loc(op.getLoc()),
        type(cast<RankedTensorType>(op.getInput().getType())),
        half(type.getDimSize(2) / 2),
        adjacent(op.getPairing() == RopePairing::Adjacent) {}

  Value build() {
    Value pairs =
        tensor::ExpandShapeOp::create(b, loc, getPairType(), op.getInput(),
                                      getReassociation(), getPairSizes());
    Value rotated = buildRotation(extractLane(pairs, 0), extractLane(pairs, 1),
                                  extractAngles(0), extractAngles(half));
    return tensor::CollapseShapeOp::create(b, loc, type, rotated,
                                           getReassociation());
  }

private:
  /// [T, H, 2, D/2] where halves pair up, [T, H, D/2, 2] where neighbours do.
  RankedTensorType getPairType() {
    SmallVector<int64_t> shape = {type.getDimSize(0), type.getDimSize(1),
                                  adjacent ? half : 2, adjacent ? 2 : half};
    return RankedTensorType::get(shape, b.getF32Type());
  }

  SmallVector<ReassociationIndices> getReassociation() {
    return {{0}, {1}, {2, 3}};
  }

  SmallVector<OpFoldResult> getPairSizes() {
    SmallVector<OpFoldResult> sizes =
        tensor::getMixedSizes(b, loc, op.getInput());
    sizes.resize(2);
    sizes.push_back(b.getIndexAttr(adjacent ? half : 2));
    sizes.push_back(b.getIndexAttr(adjacent ? 2 : half));
    return sizes;
  }

  /// Lanes a (0) or b (1) of all pairs, [T, H, D/2].
  Value extractLane(Value pairs, int64_t lane) {
    SmallVector<OpFoldResult> sizes = getPairSizes();
    SmallVector<OpFoldResult> offsets(4, b.getIndexAttr(0));
    SmallVector<OpFoldResult> strides(4, b.getIndexAttr(1));
    unsigned laneDim = adjacent ? 3 : 2;
    offsets[laneDim] = b.getIndexAttr(lane);
    sizes[laneDim] = b.getIndexAttr(1);
    auto laneType = RankedTensorType::get(
        {type.getDimSize(0), type.getDimSize(1), half}, b.getF32Type());
    return tensor::ExtractSliceOp::create(b, loc, laneType, pairs, offsets,
                                          sizes, strides);
  }

  Value createEmpty(ArrayRef<OpFoldResult> sizes) {
    return tensor::EmptyOp::create(b, loc, sizes, b.getF32Type());
  }

  AffineMap getMap(unsigned dims, ArrayRef<unsigned> results) {
    SmallVector<AffineExpr> exprs;
    for (unsigned dim : results)
      exprs.push_back(b.getAffineDimExpr(dim));
    return AffineMap::get(dims, 0, exprs, b.getContext());
  }

  /// Half of the table's lanes, [T, D/2].
  Value extractAngles(int64_t at) {
    SmallVector<OpFoldResult> offsets = {b.getIndexAttr(0), b.getIndexAttr(at)};
    SmallVector<OpFoldResult> sizes = {
        tensor::getMixedSize(b, loc, op.getTable(), 0), b.getIndexAttr(half)};
    SmallVector<OpFoldResult> strides(2, b.getIndexAttr(1));
    return tensor::ExtractSliceOp::create(b, loc, op.getTable(), offsets, sizes,
                                          strides);
  }

  /// Loops (t, h, i, lane): both lanes of a pair from a, b and the angle.
  Value buildRotation(Value a, Value bLane, Value cosines, Value sines) {
    Value empty = createEmpty(getPairSizes());
    unsigned pairDim = adjacent ? 2 : 3, laneDim = adjacent ? 3 : 2;
    AffineMap lanes = getMap(4, {0, 1, pairDim});
    AffineMap angles = getMap(4, {0, pairDim});
    SmallVector<utils::IteratorType> iterators(4,
                                               utils::IteratorType::parallel);
    auto rotation = linalg::GenericOp::create(
        b, loc, TypeRange{empty.getType()},
        ValueRange{a, bLane, cosines, sines}, ValueRange{empty},
        ArrayRef<AffineMap>{lanes, lanes, angles, angles,
                            b.getMultiDimIdentityMap(4)},
        iterators, [&](OpBuilder &nested, Location loc, ValueRange args) {
          auto multiply = [&](Value x, Value y) -> Value {
            return arith::MulFOp::create(nested, loc, x, y);
          };
          Value first =
              arith::SubFOp::create(nested, loc, multiply(args[0], args[2]),
                                    multiply(args[1], args[3]));
          Value second =
              arith::AddFOp::create(nested, loc, multiply(args[0], args[3]),
                                    multiply(args[1], args[2]));
          Value lane = linalg::IndexOp::create(nested, loc, laneDim);
          Value zero = arith::ConstantIndexOp::create(nested, loc, 0);
          Value isFirst = arith::CmpIOp::create(
              nested, loc, arith::CmpIPredicate::eq, lane, zero);
          Value lanes =
              arith::SelectOp::create(nested, loc, isFirst, first, second);
          linalg::YieldOp::create(nested, loc, lanes);
        });
    return rotation.getResult(0);
  }

  RopeOp op;
  PatternRewriter &b;
  Location loc;
  RankedTensorType type;
  int64_t half;
  bool adjacent;
};

template <typename Op, typename Builder>
struct Lower : OpRewritePattern<Op> {
  using OpRewritePattern<Op>::OpRewritePattern;

  LogicalResult matchAndRewrite(Op op,
                                PatternRewriter &rewriter) const override {
    rewriter.replaceOp(op, Builder(op, rewriter).build());
    return success();
  }
};

struct DecomposeRope : llm::impl::DecomposeRopeBase<DecomposeRope> {
  void runOnOperation() override {
    RewritePatternSet patterns(&getContext());
    patterns.add<Lower<RopeOp, RopeBuilder>, Lower<RopeTableOp, TableBuilder>>(
        &getContext());
    if (failed(applyPatternsGreedily(getOperation(), std::move(patterns))))
      signalPassFailure();
  }
};
} // namespace
