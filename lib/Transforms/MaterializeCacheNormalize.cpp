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
#include "mlir/Interfaces/SideEffectInterfaces.h"
#include "llvm/ADT/SetVector.h"

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

static bool hasCache(TypeRange types) {
  return llvm::any_of(types, [](Type type) { return isCache(type); });
}

static bool hasCacheArgument(Block &block) {
  return hasCache(block.getArgumentTypes());
}

static bool touchesCache(Operation *op) {
  return hasCache(op->getOperandTypes()) || hasCache(op->getResultTypes()) ||
         llvm::any_of(op->getRegions(), [](Region &region) {
           return llvm::any_of(region, hasCacheArgument);
         });
}

bool materialize::hasCacheInside(Region &region) {
  return region
      .walk([](Operation *op) {
        return touchesCache(op) ? WalkResult::interrupt()
                                : WalkResult::advance();
      })
      .wasInterrupted();
}

/// One block, which ends with an EndT: nothing else says where caches go.
template <typename EndT>
static LogicalResult checkBody(Operation *op) {
  Region &body = op->getRegion(0);
  if (!body.hasOneBlock())
    return op->emitOpError("cache crosses unstructured control flow; run "
                           "--lift-cf-to-scf first");
  Operation *end = body.front().getTerminator();
  if (isa<EndT>(end))
    return success();
  return end->emitOpError() << "ends a region that holds a cache; only '"
                            << EndT::getOperationName() << "' may";
}

static LogicalResult inlineRegion(scf::ExecuteRegionOp op) {
  if (failed(checkBody<scf::YieldOp>(op)))
    return failure();
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
  if (hasCache(op->getResultTypes()) && !mayDefineCache(op))
    return op->emitOpError("makes a cache in a way that is not known");
  if (isa<func::FuncOp, scf::IfOp, scf::ForOp, scf::IndexSwitchOp>(op))
    return success();
  for (Region &region : op->getRegions())
    if (hasCacheInside(region) || llvm::any_of(region, hasCacheArgument))
      return op->emitOpError(
          "uses a cache in its region; only scf.if, scf.index_switch and "
          "scf.for may");
  return success();
}

/// More than parameters that nothing uses?
static bool hasVersions(func::FuncOp function) {
  Region &body = function.getBody();
  return hasCache(function.getResultTypes()) || hasCacheInside(body) ||
         llvm::any_of(llvm::drop_begin(body), hasCacheArgument);
}

static LogicalResult checkStructure(func::FuncOp function) {
  if (hasVersions(function) && failed(checkBody<func::ReturnOp>(function)))
    return failure();
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

/// A read, or an op that only computes.
static bool canMove(Operation *op) {
  auto cacheOp = dyn_cast<KVCacheInterface>(op);
  return isMemoryEffectFree(op) && op->getNumRegions() == 0 &&
         !(cacheOp && cacheOp.isConsuming());
}

/// `read` and what it needs from behind `consumer`, an op of its block; nothing
/// if some of it cannot move.
static SmallVector<Operation *> collectMoved(Operation *read,
                                             Operation *consumer) {
  llvm::SetVector<Operation *> moved;
  moved.insert(read);
  for (size_t i = 0; i < moved.size(); ++i)
    for (Value operand : moved[i]->getOperands()) {
      Operation *def = operand.getDefiningOp();
      if (!def || def->getBlock() != consumer->getBlock() ||
          def->isBeforeInBlock(consumer))
        continue;
      if (!canMove(def))
        return {};
      moved.insert(def);
    }
  SmallVector<Operation *> ordered = moved.takeVector();
  llvm::sort(ordered, [](Operation *a, Operation *b) {
    return a != b && a->isBeforeInBlock(b);
  });
  return ordered;
}

/// Moves `read` in front of the ops that, themselves or in their regions, end
/// the version: of the first that it may precede.
static void schedule(Operation *read, ArrayRef<Operation *> consumers) {
  SmallVector<Operation *> moved;
  Operation *first = read;
  for (Operation *consumer : consumers) {
    Operation *op = read->getBlock()->findAncestorOpInBlock(*consumer);
    if (!op || !op->isBeforeInBlock(first))
      continue;
    SmallVector<Operation *> needed = collectMoved(read, op);
    if (needed.empty())
      continue;
    first = op;
    moved = std::move(needed);
  }
  for (Operation *op : moved)
    op->moveBefore(first);
}

void materialize::scheduleReads(func::FuncOp function) {
  for (Value version : collectCaches(function)) {
    SmallVector<Operation *> reads, consumers;
    for (OpOperand &use : version.getUses()) {
      if (classify(use) == Use::Consume)
        consumers.push_back(use.getOwner());
      else if (isa<KVCacheInterface>(use.getOwner()))
        reads.push_back(use.getOwner());
    }
    if (!consumers.empty())
      for (Operation *read : reads)
        schedule(read, consumers);
  }
}
