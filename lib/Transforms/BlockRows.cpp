//===- BlockRows.cpp - Some rows through many ops before the next ones ----===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Transforms/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/IRMapping.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/Transforms/RegionUtils.h"
#include "llvm/ADT/SetVector.h"

#include "RowOps.h"
#include "llm/IR/LLM.h"

namespace mlir::llm {
#define GEN_PASS_DEF_BLOCKROWS
#include "llm/Transforms/Passes.h.inc"
} // namespace mlir::llm

using namespace mlir;
using namespace mlir::llm;
using linalg::LinalgOp;

/// With fewer products there is little between them that a cache could hold.
static constexpr int64_t kLeastProducts = 2;

/// A tensor whose one dynamic size is the number of its rows.
static bool hasRows(Type type) {
  auto tensor = dyn_cast<RankedTensorType>(type);
  return tensor && tensor.getRank() > 0 && tensor.getNumDynamicDims() == 1 &&
         tensor.isDynamicDim(0);
}

/// Whether an op of a chain computes rows from the same rows of the operand. It
/// may read all rows of the same tensor beside that.
static bool readsRows(OpOperand &operand) {
  if (!isa<RankedTensorType>(operand.get().getType()))
    return false;
  if (auto loops = dyn_cast<LinalgOp>(operand.getOwner()))
    return isByRow(loops, operand);
  auto linear = dyn_cast<LinearOp>(operand.getOwner());
  return linear && &operand == &linear.getXMutable();
}

static bool isView(Operation *op) {
  return isa<tensor::ExtractSliceOp, tensor::ExpandShapeOp,
             tensor::CollapseShapeOp>(op);
}

namespace {
/// Ops of a block of IR over the same rows, the first and the last of which
/// have products with weights between them.
class Chain {
public:
  explicit Chain(LinearOp first) { add(first); }

  /// Adds the op where it computes rows of results from the same rows of the
  /// chain. False where the chain ends before it.
  bool go(Operation *op);

  /// Puts a loop over blocks of rows in place of the ops, where it is worth it.
  void rewrite(int64_t rowsOfBlock);

private:
  bool isMember(Operation *op) const { return op && members.contains(op); }
  bool hasResult(Value value) const { return isMember(value.getDefiningOp()); }
  bool usesResults(Operation *op) const;
  bool isRowCount(Value size) const;
  bool canAdd(LinalgOp op) const;
  bool canAdd(Operation *op) const;
  void add(Operation *op);

  void dropLastViews();
  bool findOutputs();
  Value findInit(Value output) const;

  llvm::SetVector<Operation *> members;
  /// From outside, with as many rows as the results.
  llvm::SetVector<Value> inputs;
  SmallVector<Value> outputs; ///< results that are used outside
  int64_t products = 0;
};

/// The body of the loop.
class BlockBuilder {
public:
  BlockBuilder(ImplicitLocOpBuilder &b, Value first, Value count)
      : b(b), first(first), count(count) {}

  /// Rows of `from` stand for those of `value`.
  void read(Value value, Value from) { inputs[value] = extract(from); }
  /// An op of the chain; `isRowCount` says which sizes are of all rows.
  void clone(Operation *op, llvm::function_ref<bool(Value)> isRowCount);
  Value insert(Value output, Value into);

private:
  SmallVector<OpFoldResult> sizesOf(Value tensor);
  Value extract(Value tensor);
  Value readInput(Value tensor);

  ImplicitLocOpBuilder &b;
  Value first, count;                  ///< rows
  IRMapping mapping;                   ///< of results and sizes
  llvm::DenseMap<Value, Value> inputs; ///< and of rows from outside
};
} // namespace

//===----------------------------------------------------------------------===//
// What goes into a chain
//===----------------------------------------------------------------------===//

bool Chain::usesResults(Operation *op) const {
  bool uses = llvm::any_of(op->getOperands(),
                           [&](Value operand) { return hasResult(operand); });
  visitUsedValuesDefinedAbove(op->getRegions(), [&](OpOperand *operand) {
    uses |= hasResult(operand->get());
  });
  return uses;
}

/// Whether this is the number of rows of what the chain reads and makes.
bool Chain::isRowCount(Value size) const {
  auto dim = size.getDefiningOp<tensor::DimOp>();
  if (!dim || dim.getConstantIndex() != 0)
    return false;
  Value tensor = dim.getSource();
  while (true) {
    if (hasResult(tensor) || inputs.contains(tensor))
      return true;
    if (auto fill = tensor.getDefiningOp<linalg::FillOp>())
      tensor = fill.getOutputs().front();
    else if (auto empty = tensor.getDefiningOp<tensor::EmptyOp>();
             empty && hasRows(empty.getType()))
      return isRowCount(empty.getDynamicSizes().front());
    else
      return false;
  }
}

bool Chain::canAdd(LinalgOp op) const {
  if (!op.hasPureTensorSemantics() || !isRowOp(op))
    return false;
  bool reads = false;
  visitUsedValuesDefinedAbove(op->getRegions(), [&](OpOperand *operand) {
    reads |= hasResult(operand->get());
  });
  return !reads && llvm::all_of(op->getOpOperands(), [&](OpOperand &operand) {
    Value value = operand.get();
    if (!isa<RankedTensorType>(value.getType()))
      return true;
    return isByRow(op, operand) ? hasRows(value.getType()) : !hasResult(value);
  });
}

bool Chain::canAdd(Operation *op) const {
  auto onlyRows = [&](ValueRange sizes) {
    return llvm::all_of(sizes, [&](Value size) { return isRowCount(size); });
  };
  if (!llvm::all_of(op->getResultTypes(), hasRows))
    return false;
  if (auto linear = dyn_cast<LinearOp>(op))
    return hasResult(linear.getX()) && !hasResult(linear.getWeight());
  if (auto loops = dyn_cast<LinalgOp>(op))
    return canAdd(loops);
  if (auto slice = dyn_cast<tensor::ExtractSliceOp>(op))
    return slice.getDroppedDims().none() &&
           isZeroInteger(slice.getMixedOffsets().front()) &&
           isOneInteger(slice.getMixedStrides().front()) &&
           slice.getOffsets().empty() && slice.getStrides().empty() &&
           onlyRows(slice.getSizes());
  if (auto expand = dyn_cast<tensor::ExpandShapeOp>(op))
    return expand.getReassociationIndices().front().size() == 1 &&
           onlyRows(expand.getOutputShape());
  if (auto collapse = dyn_cast<tensor::CollapseShapeOp>(op))
    return collapse.getReassociationIndices().front().size() == 1;
  return false;
}

void Chain::add(Operation *op) {
  members.insert(op);
  products += isa<LinearOp>(op);
  for (OpOperand &operand : op->getOpOperands())
    if (readsRows(operand) && !hasResult(operand.get()))
      inputs.insert(operand.get());
}

bool Chain::go(Operation *op) {
  if (usesResults(op)) {
    if (auto dim = dyn_cast<tensor::DimOp>(op))
      return dim.getConstantIndex() == 0; // of the inputs as well
    if (!canAdd(op))
      return false;
    add(op);
    return true;
  }
  // What the loop may stand behind of.
  return isMemoryEffectFree(op) &&
         (op->getNumRegions() == 0 || isa<LinalgOp>(op));
}

//===----------------------------------------------------------------------===//
// What comes out of a chain
//===----------------------------------------------------------------------===//

/// Views that are used outside alone stay there.
void Chain::dropLastViews() {
  const SmallVector<Operation *> all = members.takeVector();
  for (Operation *op : llvm::reverse(all)) {
    bool usedInside = llvm::any_of(op->getUsers(), [&](Operation *user) {
      return members.contains(user);
    });
    if (!isView(op) || usedInside)
      members.insert(op);
  }
  const SmallVector<Operation *> fromLast = members.takeVector();
  members.insert(fromLast.rbegin(), fromLast.rend());
}

/// False where a result is used outside before the chain ends.
bool Chain::findOutputs() {
  Operation *last = members.back();
  for (Operation *op : members)
    for (Value result : op->getResults()) {
      bool used = false;
      for (Operation *user : result.getUsers())
        if (!isMember(user) && !isa<tensor::DimOp>(user)) {
          used = true;
          Operation *here = last->getBlock()->findAncestorOpInBlock(*user);
          if (!here || here->isBeforeInBlock(last))
            return false;
        }
      if (used)
        outputs.push_back(result);
    }
  return true;
}

/// The input in whose place the output would be computed, or none.
Value Chain::findInit(Value output) const {
  Value value = output;
  while (hasResult(value)) {
    auto op = value.getDefiningOp<LinalgOp>();
    if (!op)
      return {};
    value = op.getTiedOpOperand(cast<OpResult>(value))->get();
  }
  if (value.getType() != output.getType() ||
      isa_and_present<tensor::EmptyOp, linalg::FillOp>(value.getDefiningOp()))
    return {};
  return value;
}

//===----------------------------------------------------------------------===//
// Blocks of rows
//===----------------------------------------------------------------------===//

SmallVector<OpFoldResult> BlockBuilder::sizesOf(Value tensor) {
  auto type = cast<RankedTensorType>(tensor.getType());
  SmallVector<OpFoldResult> sizes =
      getAsIndexOpFoldResult(b.getContext(), type.getShape());
  sizes.front() = count;
  return sizes;
}

Value BlockBuilder::extract(Value tensor) {
  SmallVector<OpFoldResult> sizes = sizesOf(tensor);
  SmallVector<OpFoldResult> offsets(sizes.size(), b.getIndexAttr(0));
  SmallVector<OpFoldResult> strides(sizes.size(), b.getIndexAttr(1));
  offsets.front() = first;
  return tensor::ExtractSliceOp::create(
      b, cast<RankedTensorType>(tensor.getType()), tensor, offsets, sizes,
      strides);
}

Value BlockBuilder::insert(Value output, Value into) {
  Value block = mapping.lookup(output);
  SmallVector<OpFoldResult> sizes = sizesOf(block);
  SmallVector<OpFoldResult> offsets(sizes.size(), b.getIndexAttr(0));
  SmallVector<OpFoldResult> strides(sizes.size(), b.getIndexAttr(1));
  offsets.front() = first;
  return tensor::InsertSliceOp::create(b, block, into, offsets, sizes, strides);
}

/// The block's rows of what comes from outside. What has nothing to read is
/// made here, no longer than the block.
Value BlockBuilder::readInput(Value tensor) {
  if (Value known = inputs.lookup(tensor))
    return known;
  Value rows;
  if (auto empty = tensor.getDefiningOp<tensor::EmptyOp>()) {
    rows = tensor::EmptyOp::create(b, sizesOf(tensor),
                                   empty.getType().getElementType());
  } else if (auto fill = tensor.getDefiningOp<linalg::FillOp>()) {
    Value init = readInput(fill.getOutputs().front());
    rows =
        linalg::FillOp::create(b, fill.getInputs().front(), init).getResult(0);
  } else {
    rows = extract(tensor);
  }
  inputs[tensor] = rows;
  return rows;
}

void BlockBuilder::clone(Operation *op,
                         llvm::function_ref<bool(Value)> isRowCount) {
  SmallVector<std::pair<unsigned, Value>> fromOutside;
  for (OpOperand &operand : op->getOpOperands()) {
    Value value = operand.get();
    if (readsRows(operand) && !mapping.contains(value))
      fromOutside.emplace_back(operand.getOperandNumber(), readInput(value));
    else if (value.getType().isIndex() && isRowCount(value))
      mapping.map(value, count);
  }
  Operation *block = b.clone(*op, mapping);
  for (auto [number, rows] : fromOutside)
    block->setOperand(number, rows);
}

void Chain::rewrite(int64_t rowsOfBlock) {
  dropLastViews();
  if (products < kLeastProducts || !findOutputs())
    return;
  ImplicitLocOpBuilder b(members.front()->getLoc(), members.back());
  auto index = [&](int64_t n) { return arith::ConstantIndexOp::create(b, n); };
  Value zero = index(0), one = index(1);
  Value rows = tensor::DimOp::create(b, inputs.front(), zero);
  // Blocks of one size: the last one would often have a few rows only.
  Value blocks = arith::CeilDivUIOp::create(b, rows, index(rowsOfBlock));
  Value size = arith::CeilDivUIOp::create(
      b, rows, arith::MaxUIOp::create(b, blocks, one));
  size = arith::MaxUIOp::create(b, size, one);

  SmallVector<Value> inits;
  for (Value output : outputs) {
    Value init = findInit(output);
    if (!init || llvm::is_contained(inits, init)) {
      auto type = cast<RankedTensorType>(output.getType());
      init = tensor::EmptyOp::create(b, type.getShape(), type.getElementType(),
                                     rows);
    }
    inits.push_back(init);
  }
  auto loop = scf::ForOp::create(b, zero, rows, size, inits);
  ImplicitLocOpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(loop.getBody());
  Value first = loop.getInductionVar();
  Value count =
      arith::MinUIOp::create(b, arith::SubIOp::create(b, rows, first), size);
  BlockBuilder block(b, first, count);
  for (auto [init, turn] : llvm::zip_equal(inits, loop.getRegionIterArgs()))
    if (inputs.contains(init))
      block.read(init, turn); // its rows to come are as they were
  for (Operation *op : members)
    block.clone(op, [&](Value size) { return isRowCount(size); });
  SmallVector<Value> turned;
  for (auto [output, turn] : llvm::zip_equal(outputs, loop.getRegionIterArgs()))
    turned.push_back(block.insert(output, turn));
  if (!turned.empty())
    scf::YieldOp::create(b, turned);

  // Sizes of results are those of the inputs.
  for (Operation *op : members)
    for (Operation *user : llvm::make_early_inc_range(op->getUsers()))
      if (isa<tensor::DimOp>(user))
        user->setOperand(0, inputs.front());
  for (auto [output, result] : llvm::zip_equal(outputs, loop.getResults()))
    output.replaceUsesWithIf(
        result, [&](OpOperand &use) { return !isMember(use.getOwner()); });
  for (Operation *op : llvm::reverse(members))
    op->erase();
}

namespace {
struct BlockRows : llm::impl::BlockRowsBase<BlockRows> {
  using BlockRowsBase::BlockRowsBase;

  void runOnOperation() override {
    if (rows <= 0) {
      getOperation().emitError("expected a block of at least 1 row, got ")
          << rows.getValue();
      return signalPassFailure();
    }
    SmallVector<Chain> chains;
    getOperation().walk([&](Block *block) {
      bool open = false;
      for (Operation &op : *block) {
        open = open && chains.back().go(&op);
        auto linear = dyn_cast<LinearOp>(op);
        if (open || !linear || !hasRows(linear.getX().getType()))
          continue;
        chains.emplace_back(linear);
        open = true;
      }
    });
    for (Chain &chain : chains)
      chain.rewrite(rows);
  }
};
} // namespace
