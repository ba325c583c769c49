//===- ParallelizeRows.cpp - One loop over rows for many ------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Transforms/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"

#include "RowOps.h"

namespace mlir::llm {
#define GEN_PASS_DEF_PARALLELIZEROWS
#include "llm/Transforms/Passes.h.inc"
} // namespace mlir::llm

using namespace mlir;
using namespace mlir::llm;
using linalg::LinalgOp;

/// Shorter rows stay in loops of their own: what a row costs beside its numbers
/// would be more than they do.
static constexpr int64_t kLeastNumbersOfRow = 64;

//===----------------------------------------------------------------------===//
// Rows of buffers
//===----------------------------------------------------------------------===//

namespace {
/// A size as the one of a dimension of a buffer, as a value (dimension -1) or
/// as a number (no source). Equal ones are equal sizes.
struct Extent {
  Value source;
  int64_t number;
  bool operator==(const Extent &) const = default;
};

/// The memory behind a view, and whether row i of the view is in row
/// firstRow + i of it.
struct Root {
  Value buffer;
  bool sameRows;
  OpFoldResult firstRow; ///< none: 0
};

struct Access {
  Operation *op;
  Root root;
  bool byRow; ///< an iteration over rows touches its own row alone
  bool writes;
};
} // namespace

static const ReassociationIndices *
findGroup(ArrayRef<ReassociationIndices> groups, int64_t dimension,
          int64_t &number) {
  for (auto [i, group] : llvm::enumerate(groups))
    if (llvm::is_contained(group, dimension)) {
      number = int64_t(i);
      return &group;
    }
  return nullptr;
}

static Extent extentOf(Value buffer, int64_t dimension);

static Extent extentOf(OpFoldResult size) {
  if (std::optional<int64_t> constant = getConstantIntValue(size))
    return {Value(), *constant};
  auto value = cast<Value>(size);
  auto dim = value.getDefiningOp<memref::DimOp>();
  if (dim && dim.getConstantIndex())
    return extentOf(dim.getSource(), *dim.getConstantIndex());
  return {value, -1};
}

static Extent extentOf(Value buffer, int64_t dimension) {
  auto type = cast<MemRefType>(buffer.getType());
  if (!type.isDynamicDim(dimension))
    return {Value(), type.getDimSize(dimension)};
  if (auto alloc = buffer.getDefiningOp<memref::AllocOp>())
    return extentOf(alloc.getMixedSizes()[dimension]);
  if (auto cast = buffer.getDefiningOp<memref::CastOp>())
    return extentOf(cast.getSource(), dimension);
  if (auto view = buffer.getDefiningOp<memref::SubViewOp>();
      view && view.getDroppedDims().none())
    return extentOf(view.getMixedSizes()[dimension]);
  int64_t number = 0;
  if (auto view = buffer.getDefiningOp<memref::ExpandShapeOp>()) {
    SmallVector<ReassociationIndices> groups = view.getReassociationIndices();
    if (findGroup(groups, dimension, number)->size() == 1)
      return extentOf(view.getSrc(), number);
  }
  if (auto view = buffer.getDefiningOp<memref::CollapseShapeOp>()) {
    SmallVector<ReassociationIndices> groups = view.getReassociationIndices();
    if (groups[dimension].size() == 1)
      return extentOf(view.getSrc(), groups[dimension].front());
  }
  return {buffer, dimension};
}

/// Whether row i of the view is in row i of its source, or some rows on.
static bool keepsRows(Operation *view) {
  if (auto op = dyn_cast<memref::SubViewOp>(view))
    return op.getDroppedDims().none() && op.getSourceType().getRank() > 0 &&
           isOneInteger(op.getMixedStrides().front());
  auto keeps = [](ArrayRef<ReassociationIndices> groups) {
    return !groups.empty() && groups.front().size() == 1;
  };
  if (auto op = dyn_cast<memref::ExpandShapeOp>(view))
    return keeps(op.getReassociationIndices());
  if (auto op = dyn_cast<memref::CollapseShapeOp>(view))
    return keeps(op.getReassociationIndices());
  return isa<memref::CastOp>(view);
}

/// Where the rows of a view begin in its source; none for its first row.
static OpFoldResult firstRowOf(Operation *view) {
  auto op = dyn_cast<memref::SubViewOp>(view);
  if (!op || op.getSourceType().getRank() == 0 ||
      isZeroInteger(op.getMixedOffsets().front()))
    return {};
  return op.getMixedOffsets().front();
}

static Root rootOf(Value buffer) {
  Root root{buffer, true, {}};
  while (auto view = root.buffer.getDefiningOp<ViewLikeOpInterface>()) {
    root.sameRows &= keepsRows(view);
    if (OpFoldResult first = firstRowOf(view)) {
      root.sameRows &= root.firstRow.isNull(); // sums are not followed
      root.firstRow = first;
    }
    root.buffer = view.getViewSource();
  }
  return root;
}

/// Whether it is known which memory this is: an allocation, what a function is
/// passed, or what the call describes.
static bool isKnown(Value buffer) {
  if (auto argument = dyn_cast<BlockArgument>(buffer))
    return argument.getOwner()->isEntryBlock() &&
           isa<FunctionOpInterface>(argument.getOwner()->getParentOp());
  return isa<memref::AllocOp, memref::GetGlobalOp, UnrealizedConversionCastOp>(
      buffer.getDefiningOp());
}

/// Whether two ops that were one after the other may be done row by row, as far
/// as these two accesses go, of which the first writes.
static bool areApart(const Access &written, const Access &other) {
  if (written.root.buffer == other.root.buffer)
    return written.byRow && other.byRow &&
           written.root.firstRow == other.root.firstRow;
  // An op by itself may be: that is what its parallel loops say.
  return written.op == other.op ||
         (isKnown(written.root.buffer) && isKnown(other.root.buffer));
}

//===----------------------------------------------------------------------===//
// Loops over rows
//===----------------------------------------------------------------------===//

/// All memory that the op touches.
static SmallVector<Access> accessesOf(LinalgOp op) {
  SmallVector<Access> accesses;
  for (OpOperand &operand : op->getOpOperands())
    if (isa<MemRefType>(operand.get().getType())) {
      Root root = rootOf(operand.get());
      accesses.push_back({op, root, root.sameRows && isByRow(op, operand),
                          op.isDpsInit(&operand)});
    }
  for (Operation &inner : *op.getBlock())
    if (auto load = dyn_cast<memref::LoadOp>(inner))
      accesses.push_back({op, rootOf(load.getMemRef()), false, false});
  return accesses;
}

/// The buffers whose rows the outermost loop counts.
static SmallVector<Value> rowOperands(LinalgOp op) {
  SmallVector<Value> buffers;
  for (OpOperand &operand : op->getOpOperands())
    if (isa<MemRefType>(operand.get().getType()) && isByRow(op, operand))
      buffers.push_back(operand.get());
  return buffers;
}

static int64_t numbersOfRow(LinalgOp op) {
  int64_t numbers = 1;
  SmallVector<int64_t> sizes = op.getStaticLoopRanges();
  for (int64_t size : ArrayRef(sizes).drop_front())
    numbers *= ShapedType::isDynamic(size) ? 1 : size;
  return numbers;
}

namespace {
/// Neighbours over the same number of rows, each of which may be done for all
/// of them before the next one.
class Run {
public:
  /// False if the op does not go with the others.
  bool add(LinalgOp op) {
    SmallVector<Extent> extents = llvm::map_to_vector(
        rowOperands(op), [](Value buffer) { return extentOf(buffer, 0); });
    SmallVector<Access> all = accesses;
    llvm::append_range(all, accessesOf(op));
    if ((!ops.empty() && !llvm::is_contained(extents, rows)) ||
        haveConflict(all))
      return false;
    if (ops.empty())
      rows = extents.front();
    ops.push_back(op);
    accesses = std::move(all);
    return true;
  }

  /// Puts one loop in place of theirs, where it is worth it.
  void rewrite(int64_t leastNumbers);

private:
  static bool haveConflict(ArrayRef<Access> accesses) {
    return llvm::any_of(accesses, [&](const Access &written) {
      return written.writes && llvm::any_of(accesses, [&](const Access &other) {
               return !areApart(written, other);
             });
    });
  }

  void doRow(OpBuilder &b, Location loc, Value row);
  void makeLoop(OpBuilder &b, Location loc, Value count, bool parallel);

  SmallVector<LinalgOp> ops;
  SmallVector<Access> accesses;
  Extent rows{Value(), 0};
};
} // namespace

//===----------------------------------------------------------------------===//
// Rewriting
//===----------------------------------------------------------------------===//

static Value rowOf(OpBuilder &b, Location loc, Value buffer, Value row) {
  SmallVector<OpFoldResult> sizes = memref::getMixedSizes(b, loc, buffer);
  SmallVector<OpFoldResult> offsets(sizes.size(), b.getIndexAttr(0));
  SmallVector<OpFoldResult> strides(sizes.size(), b.getIndexAttr(1));
  offsets.front() = row;
  sizes.front() = b.getIndexAttr(1);
  return memref::SubViewOp::create(b, loc, buffer, offsets, sizes, strides);
}

void Run::doRow(OpBuilder &b, Location loc, Value row) {
  for (LinalgOp op : ops) {
    SmallVector<Value> operands;
    for (OpOperand &operand : op->getOpOperands())
      operands.push_back(isa<MemRefType>(operand.get().getType()) &&
                                 isByRow(op, operand)
                             ? rowOf(b, op.getLoc(), operand.get(), row)
                             : operand.get());
    clone(b, op, /*newResultTypes=*/{}, operands);
  }
}

void Run::makeLoop(OpBuilder &b, Location loc, Value count, bool parallel) {
  Value zero = arith::ConstantIndexOp::create(b, loc, 0);
  Value one = arith::ConstantIndexOp::create(b, loc, 1);
  if (parallel)
    scf::ParallelOp::create(b, loc, zero, count, one,
                            [&](OpBuilder &b, Location loc, ValueRange rows) {
                              doRow(b, loc, rows.front());
                            });
  else
    scf::ForOp::create(b, loc, zero, count, one, {},
                       [&](OpBuilder &b, Location loc, Value row, ValueRange) {
                         doRow(b, loc, row);
                         scf::YieldOp::create(b, loc);
                       });
}

void Run::rewrite(int64_t leastNumbers) {
  int64_t numbers = 0;
  for (LinalgOp op : ops)
    numbers += numbersOfRow(op);
  if (numbers < kLeastNumbersOfRow)
    return;
  OpBuilder b(ops.back());
  Location loc = ops.front().getLoc();
  Value count =
      b.createOrFold<memref::DimOp>(loc, rowOperands(ops.front()).front(), 0);
  Value least = arith::ConstantIndexOp::create(
      b, loc, std::max<int64_t>(2, llvm::divideCeil(leastNumbers, numbers)));
  Value worthThreads = b.createOrFold<arith::CmpIOp>(
      loc, arith::CmpIPredicate::uge, count, least);
  auto branch =
      scf::IfOp::create(b, loc, worthThreads, /*withElseRegion=*/true);
  OpBuilder many = branch.getThenBodyBuilder();
  makeLoop(many, loc, count, /*parallel=*/true);
  OpBuilder few = branch.getElseBodyBuilder();
  makeLoop(few, loc, count, /*parallel=*/false);
  for (LinalgOp op : ops)
    op.erase();
}

namespace {
struct ParallelizeRows : llm::impl::ParallelizeRowsBase<ParallelizeRows> {
  using ParallelizeRowsBase::ParallelizeRowsBase;

  void runOnOperation() override {
    SmallVector<Run> runs;
    getOperation().walk([&](Block *block) {
      Operation *parent = block->getParentOp();
      if (!isa<LinalgOp, scf::ParallelOp, scf::ForallOp>(parent) &&
          !parent->getParentOfType<scf::ParallelOp>() &&
          !parent->getParentOfType<scf::ForallOp>())
        collect(*block, runs);
    });
    for (Run &run : runs)
      run.rewrite(leastNumbers);
  }

private:
  /// Nothing that an op of a run could not wait for.
  static bool isBetween(Operation &op) {
    return isMemoryEffectFree(&op) || isa<memref::AllocOp>(op);
  }

  static void collect(Block &block, SmallVectorImpl<Run> &runs) {
    bool open = false;
    for (Operation &op : block) {
      if (auto loops = dyn_cast<LinalgOp>(op);
          loops && loops.hasPureBufferSemantics() && isRowOp(loops)) {
        open = open && runs.back().add(loops);
        if (open)
          continue;
        Run run;
        open = run.add(loops);
        if (open)
          runs.push_back(std::move(run));
      } else if (!isBetween(op)) {
        open = false;
      }
    }
  }
};
} // namespace
