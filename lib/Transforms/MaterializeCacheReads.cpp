//===- MaterializeCacheReads.cpp - Step 2: reads before consumers ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "MaterializeCache.h"

#include "mlir/Interfaces/SideEffectInterfaces.h"
#include "llvm/ADT/SetVector.h"

using namespace mlir;
using namespace mlir::llm;
using namespace mlir::llm::materialize;

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
