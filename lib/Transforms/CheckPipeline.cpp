//===- CheckPipeline.cpp - What must be gone between two passes ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Transforms/Passes.h"

namespace mlir::llm {
#define GEN_PASS_DEF_CHECKPIPELINE
#include "llm/Transforms/Passes.h.inc"
} // namespace mlir::llm

using namespace mlir;
using namespace mlir::llm;

static bool isOfKind(Type type, StringRef kind) {
  if (kind == "cache")
    return isa<PagedKVCacheType>(type);
  if (kind == "handle")
    return isa<KVHandleType>(type);
  if (kind == "step")
    return isa<KVStepType>(type);
  return kind == "tensor" && isa<TensorType>(type);
}

namespace {
struct CheckPipeline : llm::impl::CheckPipelineBase<CheckPipeline> {
  using Base::Base;

  void runOnOperation() override {
    WalkResult result = getOperation()->walk([&](Operation *op) {
      return failed(checkOp(op)) || failed(checkTypes(op))
                 ? WalkResult::interrupt()
                 : WalkResult::advance();
    });
    if (result.wasInterrupted())
      signalPassFailure();
  }

private:
  LogicalResult checkOp(Operation *op) {
    StringRef name = op->getName().getStringRef();
    StringRef dialect = op->getName().getDialectNamespace();
    for (const std::string &entry : gone)
      if (name == entry || dialect == entry)
        return op->emitOpError() << "must be gone after " << after;
    return success();
  }

  LogicalResult checkTypes(Operation *op) {
    auto check = [&](Type type) -> LogicalResult {
      for (const std::string &kind : goneTypes)
        if (isOfKind(type, kind))
          return op->emitOpError() << "has type " << type << ", which must be "
                                   << "gone after " << after;
      return success();
    };
    for (Type type : op->getResultTypes())
      if (failed(check(type)))
        return failure();
    for (Region &region : op->getRegions())
      for (Type type : region.getArgumentTypes())
        if (failed(check(type)))
          return failure();
    return success();
  }
};
} // namespace
