//===- MaterializeCache.cpp - Cache values become handles ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "MaterializeCache.h"

#include "llm/Transforms/Passes.h"

#include "mlir/Dialect/SCF/IR/SCF.h"

namespace mlir::llm {
#define GEN_PASS_DEF_MATERIALIZECACHE
#include "llm/Transforms/Passes.h.inc"
} // namespace mlir::llm

using namespace mlir;
using namespace mlir::llm;
using namespace mlir::llm::materialize;

namespace {
struct MaterializeCache : llm::impl::MaterializeCacheBase<MaterializeCache> {
  using Base::Base;

  LogicalResult initialize(MLIRContext *context) override {
    if (llvm::is_contained({"", "normalise", "schedule", "snapshot", "drop"},
                           StringRef(stopAfter)))
      return success();
    return emitError(UnknownLoc::get(context))
           << "expected stop-after to be normalise, schedule, snapshot or "
              "drop, got '"
           << stopAfter << "'";
  }

  void runOnOperation() override {
    if (failed(run(getOperation())))
      signalPassFailure();
  }

private:
  /// A cache elsewhere would change its type without having an owner.
  static LogicalResult checkModule(ModuleOp module) {
    for (Operation &op : *module.getBody()) {
      if (touchesCache(&op) && !isa<func::FuncOp>(op))
        return op.emitOpError("uses a cache outside of a function");
      if (!isa<func::FuncOp>(op) &&
          llvm::any_of(op.getRegions(), hasCacheInside))
        return op.emitOpError("uses a cache in its region; only func.func in "
                              "the module itself may");
    }
    return success();
  }

  LogicalResult run(ModuleOp module) {
    if (failed(checkModule(module)))
      return failure();
    SmallVector<func::FuncOp> functions;
    for (auto function : module.getOps<func::FuncOp>())
      if (!function.isDeclaration())
        functions.push_back(function);
    for (func::FuncOp function : functions)
      if (failed(normalize(function)))
        return failure();
    if (stopAfter == "normalise")
      return success();
    for (func::FuncOp function : functions)
      scheduleReads(function);
    if (stopAfter == "schedule")
      return success();
    if (failed(inferBorrowedParameters(module)) || failed(elaborate(functions)))
      return failure();
    if (stopAfter == "snapshot" || stopAfter == "drop")
      return success();
    return convertToHandles(module);
  }

  LogicalResult elaborate(ArrayRef<func::FuncOp> functions) {
    Ownership ownership;
    ownership.strict = strict;
    ownership.insertDrops = stopAfter != "snapshot";
    for (func::FuncOp function : functions)
      ownership.run(function);
    numSnapshots += ownership.numSnapshots;
    numDrops += ownership.numDrops;
    return failure(ownership.failed);
  }
};
} // namespace
