//===- MaterializeCacheChecks.cpp - What the steps understand ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "MaterializeCache.h"

#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/UB/IR/UBOps.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"

using namespace mlir;
using namespace mlir::llm;
using namespace mlir::llm::materialize;

static bool hasCache(TypeRange types) {
  return llvm::any_of(types, [](Type type) { return isCache(type); });
}

static bool hasCacheArgument(Block &block) {
  return hasCache(block.getArgumentTypes());
}

bool materialize::touchesCache(Operation *op) {
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

LogicalResult materialize::checkBody(Operation *op, StringRef end) {
  Region &body = op->getRegion(0);
  if (!body.hasOneBlock())
    return op->emitOpError("cache crosses unstructured control flow; run "
                           "--lift-cf-to-scf first");
  Operation *terminator = body.front().getTerminator();
  if (terminator->getName().getStringRef() == end)
    return success();
  return terminator->emitOpError()
         << "ends a region that holds a cache; only '" << end << "' may";
}

//===----------------------------------------------------------------------===//
// What the other steps understand
//===----------------------------------------------------------------------===//

/// Ops that may make a cache: others could hide an alias.
static bool mayDefineCache(Operation *op) {
  return isa<KVCacheInterface, CreateKVCacheOp, scf::IfOp, scf::ForOp,
             scf::IndexSwitchOp, scf::WhileOp, func::CallOp, ub::PoisonOp>(op);
}

static LogicalResult checkOp(Operation *op) {
  for (OpOperand &operand : op->getOpOperands())
    if (isCache(operand.get()) && classify(operand) == Use::Unknown)
      return op->emitOpError()
             << "takes a cache as operand " << operand.getOperandNumber()
             << ", and is not known to read or to consume one";
  if (hasCache(op->getResultTypes()) && !mayDefineCache(op))
    return op->emitOpError("makes a cache in a way that is not known");
  if (isa<func::FuncOp, scf::IfOp, scf::ForOp, scf::IndexSwitchOp,
          scf::WhileOp>(op))
    return success();
  for (Region &region : op->getRegions())
    if (hasCacheInside(region) || llvm::any_of(region, hasCacheArgument))
      return op->emitOpError(
          "uses a cache in its region; only scf.if, scf.index_switch, scf.for, "
          "scf.while, scf.forall and scf.execute_region may");
  return success();
}

/// More than parameters that nothing uses?
static bool hasVersions(func::FuncOp function) {
  Region &body = function.getBody();
  return hasCache(function.getResultTypes()) || hasCacheInside(body) ||
         llvm::any_of(llvm::drop_begin(body), hasCacheArgument);
}

LogicalResult materialize::checkStructure(func::FuncOp function) {
  if (hasVersions(function) &&
      failed(checkBody(function, func::ReturnOp::getOperationName())))
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

LogicalResult materialize::checkSteps(func::FuncOp function) {
  WalkResult result = function.walk([](KVCacheInterface op) {
    if (op.isHandleForm())
      return WalkResult::advance();
    return failed(checkLayer(op)) || failed(checkLineage(op))
               ? WalkResult::interrupt()
               : WalkResult::advance();
  });
  return failure(result.wasInterrupted());
}
