//===- MaterializeCacheNormalize.cpp - Step 1: one form of each choice ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "MaterializeCache.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/UB/IR/UBOps.h"
#include "mlir/Transforms/RegionUtils.h"
#include "llvm/ADT/SetVector.h"

using namespace mlir;
using namespace mlir::llm;
using namespace mlir::llm::materialize;

//===----------------------------------------------------------------------===//
// Regions
//===----------------------------------------------------------------------===//

static LogicalResult inlineRegion(scf::ExecuteRegionOp op) {
  if (failed(checkBody(op, scf::YieldOp::getOperationName())))
    return failure();
  IRRewriter rewriter(op.getContext());
  Block &body = op.getRegion().front();
  Operation *yield = body.getTerminator();
  rewriter.inlineBlockBefore(&body, op);
  rewriter.replaceOp(op, yield->getOperands());
  rewriter.eraseOp(yield);
  return success();
}

/// Iterations may run at once, but a cache is used by one at a time.
static LogicalResult checkShared(scf::ForallOp loop) {
  llvm::SetVector<Value> captured;
  getUsedValuesDefinedAbove(loop.getRegion(), captured);
  auto shared = llvm::find_if(captured, [](Value v) { return isCache(v); });
  if (shared == captured.end())
    return success();
  auto error = loop.emitOpError("shares a cache between its iterations, which "
                                "may run at once; use scf.for");
  error.attachNote(shared->getLoc()) << "the cache is defined here";
  return error;
}

/// What each iteration writes goes into the result of the one before.
static scf::ValueVector insertInOrder(IRRewriter &rewriter,
                                      scf::InParallelOp end, ValueRange outs) {
  scf::ValueVector results(outs);
  for (Operation &op : llvm::make_early_inc_range(end.getYieldingOps())) {
    auto insert = cast<tensor::ParallelInsertSliceOp>(op);
    Value &result = results[llvm::find(outs, insert.getDest()) - outs.begin()];
    result = tensor::InsertSliceOp::create(
        rewriter, insert.getLoc(), insert.getSource(), result,
        insert.getMixedOffsets(), insert.getMixedSizes(),
        insert.getMixedStrides());
  }
  return results;
}

/// A loop whose iterations have caches of their own: calls that can fail need
/// an order.
static LogicalResult runInOrder(scf::ForallOp loop) {
  if (failed(checkShared(loop)))
    return failure();
  IRRewriter rewriter(loop);
  auto body = [&](OpBuilder &b, Location, ValueRange indices,
                  ValueRange outs) -> scf::ValueVector {
    SmallVector<Value> arguments(indices);
    llvm::append_range(arguments, outs);
    scf::InParallelOp end = loop.getTerminator();
    rewriter.inlineBlockBefore(loop.getBody(), b.getInsertionBlock(),
                               b.getInsertionPoint(), arguments);
    rewriter.setInsertionPoint(end);
    scf::ValueVector results = insertInOrder(rewriter, end, outs);
    rewriter.eraseOp(end);
    return results;
  };
  scf::LoopNest nest =
      scf::buildLoopNest(rewriter, loop.getLoc(), loop.getLowerBound(rewriter),
                         loop.getUpperBound(rewriter), loop.getStep(rewriter),
                         loop.getOutputs(), body);
  rewriter.replaceOp(loop, nest.results);
  return success();
}

//===----------------------------------------------------------------------===//
// Selects
//===----------------------------------------------------------------------===//

/// As many conditions of one nest as its 2^n leaves are worth.
static constexpr size_t kMaxMergedSelects = 4;

/// Choices that share a version. Apart, each would need a version of its own;
/// as one nest of branches they need a snapshot where both choose the same.
using Choices = SmallVector<arith::SelectOp>;

static bool canJoin(const Choices &choices, arith::SelectOp select) {
  if (choices.size() == kMaxMergedSelects ||
      choices.back()->getBlock() != select->getBlock())
    return false;
  auto shares = [&](arith::SelectOp other) {
    return llvm::is_contained({select.getTrueValue(), select.getFalseValue()},
                              other.getTrueValue()) ||
           llvm::is_contained({select.getTrueValue(), select.getFalseValue()},
                              other.getFalseValue());
  };
  auto isNeededBefore = [&](arith::SelectOp other) {
    return llvm::any_of(other->getUsers(), [&](Operation *user) {
      Operation *op = select->getBlock()->findAncestorOpInBlock(*user);
      return op && !select->isBeforeInBlock(op);
    });
  };
  return llvm::any_of(choices, shares) &&
         llvm::none_of(choices, isNeededBefore);
}

/// The versions chosen on one path, or a branch on the next condition.
static SmallVector<Value> choose(OpBuilder &b, const Choices &choices,
                                 const SmallVector<bool> &path) {
  SmallVector<Value> chosen;
  for (size_t i = 0; i < path.size(); ++i) {
    arith::SelectOp select = choices[i];
    chosen.push_back(path[i] ? select.getTrueValue() : select.getFalseValue());
  }
  if (path.size() == choices.size())
    return chosen;
  arith::SelectOp next = choices[path.size()];
  auto along = [&](bool isTrue) {
    SmallVector<bool> longer = path;
    longer.push_back(isTrue);
    return longer;
  };
  for (size_t i = 0; i < path.size(); ++i)
    if (arith::SelectOp select = choices[i];
        select.getCondition() == next.getCondition())
      return choose(b, choices, along(path[i]));
  auto yield = [&](bool isTrue) {
    return [&, isTrue](OpBuilder &nested, Location loc) {
      scf::YieldOp::create(nested, loc, choose(nested, choices, along(isTrue)));
    };
  };
  auto branch = scf::IfOp::create(b, next.getLoc(), next.getCondition(),
                                  yield(true), yield(false));
  return SmallVector<Value>(branch.getResults());
}

/// Only one of the two versions is consumed: a branch says which.
static void branchInsteadOfSelects(const Choices &choices) {
  OpBuilder b(choices.back());
  SmallVector<Value> chosen = choose(b, choices, {});
  for (size_t i = 0; i < choices.size(); ++i) {
    arith::SelectOp select = choices[i];
    select.replaceAllUsesWith(chosen[i]);
    select.erase();
  }
}

//===----------------------------------------------------------------------===//
// Functions
//===----------------------------------------------------------------------===//

/// Each user has a null version of its own: none is ever needed twice.
static void splitPoison(ub::PoisonOp poison) {
  for (OpOperand &use : llvm::make_early_inc_range(poison->getUses())) {
    OpBuilder b(use.getOwner());
    use.set(b.clone(*poison)->getResult(0));
  }
  poison.erase();
}

static LogicalResult rewrite(func::FuncOp function) {
  SmallVector<Choices> selects;
  SmallVector<Operation *> regions;
  SmallVector<ub::PoisonOp> poisons;
  function.walk([&](Operation *op) {
    auto select = dyn_cast<arith::SelectOp>(op);
    if (select && isCache(select.getResult())) {
      if (selects.empty() || !canJoin(selects.back(), select))
        selects.emplace_back();
      selects.back().push_back(select);
    }
    auto poison = dyn_cast<ub::PoisonOp>(op);
    if (poison && isCache(poison.getResult()))
      poisons.push_back(poison);
    if (isa<scf::ExecuteRegionOp, scf::ForallOp>(op) &&
        (touchesCache(op) || hasCacheInside(op->getRegion(0))))
      regions.push_back(op);
  });
  for (const Choices &choices : selects)
    branchInsteadOfSelects(choices);
  for (ub::PoisonOp poison : poisons)
    splitPoison(poison);
  for (Operation *op : regions) {
    auto loop = dyn_cast<scf::ForallOp>(op);
    if (failed(loop ? runInOrder(loop)
                    : inlineRegion(cast<scf::ExecuteRegionOp>(op))))
      return failure();
  }
  return success();
}

LogicalResult materialize::normalize(func::FuncOp function) {
  return failure(failed(rewrite(function)) ||
                 failed(checkStructure(function)) ||
                 failed(checkSteps(function)));
}
