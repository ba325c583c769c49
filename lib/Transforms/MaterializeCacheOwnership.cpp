//===- MaterializeCacheOwnership.cpp - Steps 3 and 4 ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

//
// A version is owned from its definition to one end on every path: an op that
// consumes it, or a drop. Seen from the block that defines it, its users are
// ops of that block, each with all that happens in its regions. The last of
// them may end the version; every consumer before it takes a snapshot.
//
//===----------------------------------------------------------------------===//

#include "MaterializeCache.h"

#include "mlir/Dialect/SCF/IR/SCF.h"
#include "llvm/ADT/MapVector.h"

using namespace mlir;
using namespace mlir::llm;
using namespace mlir::llm::materialize;

static func::FuncOp getCallee(func::CallOp call) {
  return SymbolTable::lookupNearestSymbolFrom<func::FuncOp>(
      call, call.getCalleeAttr());
}

Use materialize::classify(OpOperand &use) {
  Operation *op = use.getOwner();
  if (auto cacheOp = dyn_cast<KVCacheInterface>(op)) {
    if (&cacheOp.getCacheOperand() != &use)
      return Use::Unknown;
    return cacheOp.isConsuming() ? Use::Consume : Use::Read;
  }
  if (isa<DropKVOp, scf::YieldOp, scf::ForOp, scf::WhileOp, scf::ConditionOp,
          func::ReturnOp>(op))
    return Use::Consume;
  auto call = dyn_cast<func::CallOp>(op);
  func::FuncOp callee = call ? getCallee(call) : func::FuncOp();
  if (!callee)
    return Use::Unknown;
  bool borrowed = bool(
      callee.getArgAttr(use.getOperandNumber(), LLMDialect::kBorrowedAttr));
  return borrowed ? Use::Read : Use::Consume;
}

bool materialize::isBorrowed(BlockArgument parameter) {
  auto function = dyn_cast<func::FuncOp>(parameter.getOwner()->getParentOp());
  return function && function.getArgAttr(parameter.getArgNumber(),
                                         LLMDialect::kBorrowedAttr);
}

SmallVector<Value> materialize::collectCaches(func::FuncOp function) {
  SmallVector<Value> versions;
  auto collect = [&](ValueRange values) {
    llvm::copy_if(values, std::back_inserter(versions),
                  [](Value value) { return isCache(value); });
  };
  function.walk<WalkOrder::PreOrder>([&](Operation *op) {
    if (op != function)
      collect(op->getResults());
    for (Region &region : op->getRegions())
      for (Block &block : region)
        collect(block.getArguments());
  });
  return versions;
}

//===----------------------------------------------------------------------===//
// Snapshots and drops
//===----------------------------------------------------------------------===//

/// `use` consumes a version that must stay; the note at `loc` says for whom.
void Ownership::snapshot(OpOperand &use, StringRef why, Location loc,
                         const Twine &note) {
  Operation *op = use.getOwner();
  if (strict) {
    auto error = op->emitError("consumes a cache version that ")
                 << why << "; use llm.snapshot_kv to keep both";
    error.attachNote(loc) << note;
    failed = true;
    return;
  }
  auto remark = op->emitRemark("takes a snapshot of its cache, which ") << why;
  remark.attachNote(loc) << note;
  OpBuilder b(op);
  use.set(SnapshotKVOp::create(b, op->getLoc(), use.get()));
  ++numSnapshots;
}

void Ownership::snapshotConsumers(ArrayRef<OpOperand *> uses,
                                  Operation *keeper) {
  for (OpOperand *use : uses)
    if (classify(*use) == Use::Consume)
      snapshot(*use, "is still needed", keeper->getLoc(),
               "the version is needed here");
}

/// Objects of the host are written one after the other: none may hold what
/// another is to become.
void Ownership::separateHostObjects(func::FuncOp function) {
  Operation *end = function.getBody().front().getTerminator();
  for (auto [result, argument] : getForeignResults(function)) {
    std::string note = "result " + std::to_string(result);
    note += argument < function.getNumArguments()
                ? " is tied to argument " + std::to_string(argument)
                : " is a new object";
    Value version = end->getOperand(result);
    snapshot(end->getOpOperand(result), "may be another argument's object",
             function.getLoc(), note);
    OpBuilder b(end);
    drop(version, b);
  }
}

void Ownership::drop(Value version, OpBuilder &b) {
  if (!insertDrops)
    return;
  DropKVOp::create(b, version.getLoc(), version);
  ++numDrops;
}

void Ownership::dropAfter(Value version, Operation *op) {
  OpBuilder b(op->getContext());
  b.setInsertionPointAfter(op);
  drop(version, b);
}

//===----------------------------------------------------------------------===//
// Ends
//===----------------------------------------------------------------------===//

/// Each branch ends the version itself.
void Ownership::endInBranches(Value version, Operation *branches) {
  for (Region &region : branches->getRegions()) {
    if (region.empty()) { // scf.if without else
      OpBuilder b(branches->getContext());
      b.createBlock(&region);
      scf::YieldOp::create(b, branches->getLoc());
    }
    own(version, &region.front());
  }
}

/// `last` is the last op of the version's block that uses it, in `uses`.
void Ownership::endAt(Value version, Operation *last,
                      ArrayRef<OpOperand *> uses) {
  SmallVector<OpOperand *> consumers;
  bool isReadOrInside = false, isConsumedInside = false;
  for (OpOperand *use : uses) {
    bool consumes = classify(*use) == Use::Consume;
    bool isInside = use->getOwner() != last;
    if (consumes && !isInside)
      consumers.push_back(use);
    isReadOrInside |= !consumes || isInside;
    isConsumedInside |= consumes && isInside;
  }
  if (isConsumedInside && isa<scf::IfOp, scf::IndexSwitchOp>(last))
    return endInBranches(version, last);
  if (!consumers.empty() && !isReadOrInside)
    // One use takes the version, the others get a snapshot of it.
    return snapshotConsumers(ArrayRef(consumers).drop_back(), last);
  snapshotConsumers(uses, last);
  dropAfter(version, last);
}

void Ownership::dropAtStart(Value version, Block *block) {
  OpBuilder b(block, block->begin());
  if (Operation *def = version.getDefiningOp(); def && def->getBlock() == block)
    b.setInsertionPointAfter(def);
  drop(version, b);
}

void Ownership::own(Value version, Block *block) {
  llvm::MapVector<Operation *, SmallVector<OpOperand *>> usesByUser;
  for (OpOperand &use : version.getUses())
    if (Operation *user = block->findAncestorOpInBlock(*use.getOwner()))
      usesByUser[user].push_back(&use);
  if (usesByUser.empty())
    return dropAtStart(version, block);
  auto users = usesByUser.takeVector();
  llvm::sort(users, [](auto &a, auto &b) {
    return a.first != b.first && a.first->isBeforeInBlock(b.first);
  });
  auto &[last, lastUses] = users.back();
  for (auto &[user, uses] : ArrayRef(users).drop_back())
    snapshotConsumers(uses, last);
  endAt(version, last, lastUses);
}

void Ownership::run(func::FuncOp function) {
  for (Value version : collectCaches(function)) {
    auto parameter = dyn_cast<BlockArgument>(version);
    if (!parameter || !isBorrowed(parameter)) {
      own(version, version.getParentBlock());
      continue;
    }
    SmallVector<OpOperand *> uses;
    for (OpOperand &use : version.getUses())
      uses.push_back(&use);
    snapshotConsumers(uses, function);
  }
  separateHostObjects(function);
}
