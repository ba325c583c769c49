//===- MaterializeCacheNormalize.cpp - Steps 1 and 2 ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "MaterializeCache.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/UB/IR/UBOps.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"

using namespace mlir;
using namespace mlir::llm;
using namespace mlir::llm::materialize;

//===----------------------------------------------------------------------===//
// Rewrites
//===----------------------------------------------------------------------===//

/// Only one of the two versions is consumed: a branch says which.
static void branchInsteadOfSelect(arith::SelectOp select) {
  OpBuilder b(select);
  auto yield = [](Value version) {
    return [version](OpBuilder &nested, Location loc) {
      scf::YieldOp::create(nested, loc, version);
    };
  };
  auto branch = scf::IfOp::create(b, select.getLoc(), select.getCondition(),
                                  yield(select.getTrueValue()),
                                  yield(select.getFalseValue()));
  select.replaceAllUsesWith(branch.getResult(0));
  select.erase();
}

static bool touchesCache(Operation *op) {
  auto isCacheType = [](Type type) { return isCache(type); };
  return llvm::any_of(op->getOperandTypes(), isCacheType) ||
         llvm::any_of(op->getResultTypes(), isCacheType);
}

bool materialize::hasCacheInside(Region &region) {
  return region
      .walk([](Operation *op) {
        return touchesCache(op) ? WalkResult::interrupt()
                                : WalkResult::advance();
      })
      .wasInterrupted();
}

static LogicalResult inlineRegion(scf::ExecuteRegionOp op) {
  if (!op.getRegion().hasOneBlock())
    return op.emitOpError("cache crosses unstructured control flow; run "
                          "--lift-cf-to-scf first");
  IRRewriter rewriter(op.getContext());
  Block &body = op.getRegion().front();
  Operation *yield = body.getTerminator();
  rewriter.inlineBlockBefore(&body, op);
  rewriter.replaceOp(op, yield->getOperands());
  rewriter.eraseOp(yield);
  return success();
}

static LogicalResult rewrite(func::FuncOp function) {
  SmallVector<arith::SelectOp> selects;
  SmallVector<scf::ExecuteRegionOp> regions;
  function.walk([&](Operation *op) {
    if (auto select = dyn_cast<arith::SelectOp>(op))
      if (isCache(select.getResult()))
        selects.push_back(select);
    if (auto region = dyn_cast<scf::ExecuteRegionOp>(op))
      if (touchesCache(op) || hasCacheInside(region.getRegion()))
        regions.push_back(region);
  });
  for (arith::SelectOp select : selects)
    branchInsteadOfSelect(select);
  for (scf::ExecuteRegionOp region : regions)
    if (failed(inlineRegion(region)))
      return failure();
  return success();
}

//===----------------------------------------------------------------------===//
// What the other steps understand
//===----------------------------------------------------------------------===//

/// Ops that may make a cache: others could hide an alias.
static bool mayDefineCache(Operation *op) {
  return isa<KVCacheInterface, CreateKVCacheOp, scf::IfOp, scf::ForOp,
             scf::IndexSwitchOp, func::CallOp, ub::PoisonOp>(op);
}

static LogicalResult checkOp(Operation *op) {
  for (OpOperand &operand : op->getOpOperands())
    if (isCache(operand.get()) && classify(operand) == Use::Unknown)
      return op->emitOpError()
             << "takes a cache as operand " << operand.getOperandNumber()
             << ", and is not known to read or to consume one";
  bool definesCache =
      llvm::any_of(op->getResults(), [](Value v) { return isCache(v); });
  if (definesCache && !mayDefineCache(op))
    return op->emitOpError("makes a cache in a way that is not known");
  if (isa<func::FuncOp, scf::IfOp, scf::ForOp, scf::IndexSwitchOp>(op))
    return success();
  for (Region &region : op->getRegions())
    if (hasCacheInside(region))
      return op->emitOpError(
          "uses a cache in its region; only scf.if, scf.index_switch and "
          "scf.for may");
  return success();
}

static LogicalResult checkStructure(func::FuncOp function) {
  if (!function.getBody().hasOneBlock() && hasCacheInside(function.getBody()))
    return function.emitOpError("cache crosses unstructured control flow; run "
                                "--lift-cf-to-scf first");
  WalkResult result = function.walk<WalkOrder::PreOrder>([](Operation *op) {
    return failed(checkOp(op)) ? WalkResult::interrupt()
                               : WalkResult::advance();
  });
  return failure(result.wasInterrupted());
}

//===----------------------------------------------------------------------===//
// Provable misuse of steps
//===----------------------------------------------------------------------===//

static std::optional<int64_t> getConstantLayer(Value step) {
  auto at = step ? step.getDefiningOp<AtLayerOp>() : AtLayerOp();
  return at ? getConstantIntValue(at.getLayer()) : std::nullopt;
}

static BeginStepOp getBegin(Value step) {
  while (auto at = step.getDefiningOp<AtLayerOp>())
    step = at.getStep();
  return step.getDefiningOp<BeginStepOp>();
}

static LogicalResult checkLayer(KVCacheInterface op) {
  std::optional<int64_t> layer = getConstantLayer(op.getStepOperand());
  auto type = cast<PagedKVCacheType>(op.getCacheOperand().get().getType());
  if (!layer)
    return success();
  bool isKnown = !ShapedType::isDynamic(type.getLayers());
  if (*layer >= 0 && (!isKnown || *layer < type.getLayers()))
    return success();
  if (!isKnown)
    return op.emitOpError() << "expected a layer of at least 0, got " << *layer;
  return op.emitOpError() << "expected a layer in [0, " << type.getLayers()
                          << "), got " << *layer;
}

/// Follows the version back to where the step began. Reaching a version's
/// origin first proves that the step is another's.
static LogicalResult checkLineage(KVCacheInterface op) {
  BeginStepOp begin =
      op.getStepOperand() ? getBegin(op.getStepOperand()) : BeginStepOp();
  if (!begin)
    return success();
  std::optional<int64_t> layer = getConstantLayer(op.getStepOperand());
  Value version = op.getCacheOperand().get();
  while (auto previous = version.getDefiningOp<KVCacheInterface>()) {
    if (previous == begin)
      return success();
    bool appendsTwice = isa<AppendKVOp>(op) && isa<AppendKVOp>(previous) &&
                        layer && previous.getStepOperand() &&
                        getBegin(previous.getStepOperand()) == begin &&
                        getConstantLayer(previous.getStepOperand()) == layer;
    if (appendsTwice) {
      auto error = op.emitOpError()
                   << "appends twice at layer " << *layer << " in one step";
      error.attachNote(previous.getLoc()) << "it was appended to here";
      return error;
    }
    version = previous.getCacheOperand().get();
  }
  bool isOrigin = version.getDefiningOp<CreateKVCacheOp>() ||
                  (isa<BlockArgument>(version) &&
                   isa<func::FuncOp>(version.getParentBlock()->getParentOp()));
  if (!isOrigin)
    return success();
  auto error = op.emitOpError("works under a step of another cache version");
  error.attachNote(begin.getLoc()) << "the step begins here";
  return error;
}

static LogicalResult checkSteps(func::FuncOp function) {
  WalkResult result = function.walk([](KVCacheInterface op) {
    if (op.isHandleForm())
      return WalkResult::advance();
    return failed(checkLayer(op)) || failed(checkLineage(op))
               ? WalkResult::interrupt()
               : WalkResult::advance();
  });
  return failure(result.wasInterrupted());
}

LogicalResult materialize::normalize(func::FuncOp function) {
  return failure(failed(rewrite(function)) ||
                 failed(checkStructure(function)) ||
                 failed(checkSteps(function)));
}

//===----------------------------------------------------------------------===//
// Reads
//===----------------------------------------------------------------------===//

/// Are all operands of `read` there before `op`, in the same block?
static bool canMoveBefore(Operation *read, Operation *op) {
  return llvm::all_of(read->getOperands(), [&](Value operand) {
    Operation *def = operand.getDefiningOp();
    return !def || def->getBlock() != op->getBlock() ||
           def->isBeforeInBlock(op);
  });
}

/// The first op of the read's block that ends, itself or in its regions, the
/// version, and that the read may precede.
static Operation *findConsumer(KVCacheInterface read) {
  Operation *first = read;
  for (OpOperand &use : read.getCacheOperand().get().getUses()) {
    if (classify(use) != Use::Consume)
      continue;
    Operation *op = read->getBlock()->findAncestorOpInBlock(*use.getOwner());
    if (op && op->isBeforeInBlock(first) && canMoveBefore(read, op))
      first = op;
  }
  return first;
}

void materialize::scheduleReads(func::FuncOp function) {
  SmallVector<KVCacheInterface> reads;
  function.walk([&](KVCacheInterface op) {
    // Reads of a handle see what was written before them.
    if (!op.isConsuming() && !op.isHandleForm())
      reads.push_back(op);
  });
  for (KVCacheInterface read : reads)
    if (Operation *consumer = findConsumer(read);
        consumer != read.getOperation())
      read->moveBefore(consumer);
}
