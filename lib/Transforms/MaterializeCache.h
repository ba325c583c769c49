//===- MaterializeCache.h - The steps of llm-materialize-cache ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_TRANSFORMS_MATERIALIZECACHE_H
#define LLM_LIB_TRANSFORMS_MATERIALIZECACHE_H

#include "llm/IR/LLM.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"

namespace mlir::llm::materialize {

inline bool isCache(Type type) { return isa<PagedKVCacheType>(type); }
inline bool isCache(Value value) { return isCache(value.getType()); }

/// What an operand does to the version it is given. A version that is yielded,
/// returned or passed to a loop is consumed: it lives on under another name.
enum class Use { Read, Consume, Unknown };
Use classify(OpOperand &use);

/// Is this a parameter that the caller keeps?
bool isBorrowed(BlockArgument parameter);

/// Does an op take or make a cache; does one inside?
bool touchesCache(Operation *op);
bool hasCacheInside(Region &region);

/// Every cache value of a function, in program order.
SmallVector<Value> collectCaches(func::FuncOp function);

/// The body of an op that holds a cache is one block, which ends with an `end`:
/// nothing else says where caches go.
LogicalResult checkBody(Operation *op, StringRef end);

/// Fails at what the steps do not understand.
LogicalResult checkStructure(func::FuncOp function);

/// Fails at provable misuse of steps.
LogicalResult checkSteps(func::FuncOp function);

/// Step 1. Rewrites `arith.select`, `scf.execute_region` and `scf.forall` on
/// caches, then checks.
LogicalResult normalize(func::FuncOp function);

/// Step 2. Moves reads of a version in front of the ops that consume it.
void scheduleReads(func::FuncOp function);

/// Marks the parameters that a function only reads with `llm.borrowed`.
LogicalResult inferBorrowedParameters(ModuleOp module);

/// Steps 3 and 4 of one function.
struct Ownership {
  bool strict = false;
  bool insertDrops = true;
  unsigned numSnapshots = 0;
  unsigned numDrops = 0;
  bool failed = false;

  void run(func::FuncOp function);

private:
  void separateHostObjects(func::FuncOp function);
  void own(Value version, Block *block);
  void endAt(Value version, Operation *last, ArrayRef<OpOperand *> uses);
  void endInBranches(Value version, Operation *branches);
  void snapshotConsumers(ArrayRef<OpOperand *> uses, Operation *keeper);
  void snapshot(OpOperand &use, StringRef why, Location loc, const Twine &note);
  void dropAfter(Value version, Operation *op);
  void dropAtStart(Value version, Block *block);
  void drop(Value version, OpBuilder &b);
};

/// A public function's returned cache and the argument it is written back to.
/// Fresh results are tied to arguments behind the last: step 5 adds them.
using Tie = std::pair<unsigned, unsigned>;
FailureOr<SmallVector<Tie>> getTiedResults(func::FuncOp function);

/// The ties whose version may be another argument's object.
SmallVector<Tie> getForeignResults(func::FuncOp function);

/// Step 5. Values become handles.
LogicalResult convertToHandles(ModuleOp module);

} // namespace mlir::llm::materialize

#endif // LLM_LIB_TRANSFORMS_MATERIALIZECACHE_H
