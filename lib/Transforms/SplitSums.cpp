//===- SplitSums.cpp - Sums of rows in lanes ------------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Transforms/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/IRMapping.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::llm {
#define GEN_PASS_DEF_SPLITSUMS
#include "llm/Transforms/Passes.h.inc"
} // namespace mlir::llm

using namespace mlir;
using namespace mlir::llm;

static constexpr int64_t kLanes = 16; // f32 of the longest vectors

/// Whether the last loop, and no other, adds up f32 that are made of a
/// tensor's.
static bool isSumOfRows(linalg::GenericOp op) {
  if (!op.hasPureTensorSemantics() || op.getNumDpsInputs() != 1 ||
      op.getNumDpsInits() != 1 || op.getNumReductionLoops() != 1)
    return false;
  const AffineMap all =
      AffineMap::getMultiDimIdentityMap(op.getNumLoops(), op.getContext());
  if (op.getIndexingMapsArray() !=
      ArrayRef<AffineMap>{all, all.dropResult(op.getNumLoops() - 1)})
    return false;
  auto add = op.getBody()
                 ->getTerminator()
                 ->getOperand(0)
                 .getDefiningOp<arith::AddFOp>();
  return add && add.getType().isF32() && !op.hasIndexSemantics() &&
         llvm::is_contained(add.getOperands(),
                            op.getRegionOutputArgs().front()) &&
         op.getRegionOutputArgs().front().hasOneUse();
}

/// More than the lanes: the sum of those is a sum of rows too.
static bool isSplittable(linalg::GenericOp op) {
  const int64_t size = op.getStaticLoopRanges().back();
  return !ShapedType::isDynamic(size) && size > kLanes && size % kLanes == 0;
}

/// [..., K] as [..., K / 16, 16].
static Value expandRows(ImplicitLocOpBuilder &b, Value x) {
  auto type = cast<RankedTensorType>(x.getType());
  const int64_t last = type.getRank() - 1;
  SmallVector<int64_t> shape(type.getShape());
  shape.back() /= kLanes;
  shape.push_back(kLanes);
  SmallVector<ReassociationIndices> groups;
  for (int64_t i = 0; i < last; ++i)
    groups.push_back({i});
  groups.push_back({last, last + 1});
  return tensor::ExpandShapeOp::create(
      b, RankedTensorType::get(shape, type.getElementType()), x, groups);
}

/// Zeros [..., 16] for sums [...].
static Value zeroLanes(ImplicitLocOpBuilder &b, Value sums) {
  SmallVector<OpFoldResult> sizes = tensor::getMixedSizes(b, b.getLoc(), sums);
  sizes.push_back(b.getIndexAttr(kLanes));
  Value empty = tensor::EmptyOp::create(b, sizes, b.getF32Type());
  Value zero = arith::ConstantOp::create(b, b.getF32FloatAttr(0.0f));
  return linalg::FillOp::create(b, zero, empty).getResult(0);
}

/// The op over lanes: what it reduces stands before them.
static Value sumLanes(ImplicitLocOpBuilder &b, linalg::GenericOp op) {
  const unsigned loops = op.getNumLoops() + 1;
  const AffineMap all =
      AffineMap::getMultiDimIdentityMap(loops, b.getContext());
  SmallVector<utils::IteratorType> iterators = op.getIteratorTypesArray();
  iterators.push_back(utils::IteratorType::parallel);
  Value init = zeroLanes(b, op.getDpsInits().front());
  auto lanes = linalg::GenericOp::create(
      b, init.getType(), expandRows(b, op.getDpsInputs().front()), init,
      ArrayRef<AffineMap>{all, all.dropResult(loops - 2)}, iterators);
  IRMapping mapping;
  op.getRegion().cloneInto(&lanes.getRegion(), mapping);
  return lanes.getResult(0);
}

static void split(linalg::GenericOp op) {
  ImplicitLocOpBuilder b(op.getLoc(), op);
  Value lanes = sumLanes(b, op);
  auto sum = linalg::GenericOp::create(
      b, op.getResultTypes(), lanes, op.getDpsInits(),
      op.getIndexingMapsArray(), op.getIteratorTypesArray(),
      [](OpBuilder &b, Location loc, ValueRange numbers) {
        Value sum = arith::AddFOp::create(b, loc, numbers[1], numbers[0]);
        linalg::YieldOp::create(b, loc, sum);
      });
  op.replaceAllUsesWith(sum.getResults());
  op.erase();
}

namespace {
struct SplitSums : llm::impl::SplitSumsBase<SplitSums> {
  void runOnOperation() override {
    SmallVector<linalg::GenericOp> sums;
    getOperation().walk([&](linalg::GenericOp op) {
      if (isSumOfRows(op) && isSplittable(op))
        sums.push_back(op);
    });
    for (linalg::GenericOp op : sums)
      split(op);
  }
};
} // namespace
