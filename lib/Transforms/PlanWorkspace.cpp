//===- PlanWorkspace.cpp - Buffers from the call's arena ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Transforms/Passes.h"

#include "mlir/Conversion/LLVMCommon/TypeConverter.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"

#include "llm/Transforms/RuntimeCall.h"

namespace mlir::llm {
#define GEN_PASS_DEF_PLANWORKSPACE
#include "llm/Transforms/Passes.h.inc"
} // namespace mlir::llm

using namespace mlir;
using namespace mlir::llm;

static bool isBuffer(Type type) { return isa<BaseMemRefType>(type); }

/// Bytes of the buffer that `alloc` makes.
static Value computeBytes(OpBuilder &b, memref::AllocOp alloc) {
  Location loc = alloc.getLoc();
  MemRefType type = alloc.getType();
  int64_t bytes = llvm::divideCeil(type.getElementTypeBitWidth(), 8u);
  for (int64_t size : type.getShape())
    if (!ShapedType::isDynamic(size))
      bytes *= size;
  Value result = arith::ConstantIndexOp::create(b, loc, bytes);
  for (Value size : alloc.getDynamicSizes())
    result = arith::MulIOp::create(b, loc, result, size);
  return arith::IndexCastOp::create(b, loc, b.getI64Type(), result);
}

namespace {
struct PlanWorkspace : llm::impl::PlanWorkspaceBase<PlanWorkspace> {
  void runOnOperation() override {
    for (auto function : getOperation().getOps<func::FuncOp>())
      if (!function.isDeclaration() && failed(plan(function)))
        return signalPassFailure();
  }

private:
  LogicalResult plan(func::FuncOp function) {
    SmallVector<memref::AllocOp> allocs;
    function.walk([&](memref::AllocOp alloc) { allocs.push_back(alloc); });
    function.walk([](memref::DeallocOp dealloc) { dealloc.erase(); });
    function.walk([](memref::CopyOp copy) { lowerCopy(copy); });
    if (allocs.empty())
      return success();
    std::optional<RuntimeCallBuilder> call =
        RuntimeCallBuilder::create(function);
    if (!call)
      return allocs.front().emitOpError(
          "allocates in a function without the call's context; run "
          "--convert-llm-to-runtime first");
    SetVector<Region *> scopes;
    for (memref::AllocOp alloc : allocs)
      if (failed(replaceAlloc(*call, alloc, scopes)))
        return failure();
    for (Region *scope : scopes)
      releaseAtEnd(*call, *scope);
    return success();
  }

  /// A loop nest that needs no library function.
  static void lowerCopy(memref::CopyOp copy) {
    OpBuilder b(copy);
    linalg::CopyOp::create(b, copy.getLoc(), copy.getSource(),
                           copy.getTarget());
    copy.erase();
  }

  LogicalResult replaceAlloc(RuntimeCallBuilder &call, memref::AllocOp alloc,
                             SetVector<Region *> &scopes) {
    if (!alloc.getType().getLayout().isIdentity())
      return alloc.emitOpError("expected an identity layout");
    if (alloc->getParentOfType<scf::ParallelOp>() ||
        alloc->getParentOfType<scf::ForallOp>())
      return alloc.emitOpError("allocates inside a parallel region, where a "
                               "failure cannot be returned");
    OpBuilder b(alloc);
    Location loc = alloc.getLoc();
    Value pointer = call.createSlot(LLVM::LLVMPointerType::get(&getContext()));
    call.create(b, loc, "llm_rt_workspace", {computeBytes(b, alloc), pointer});
    Value data = LLVM::LoadOp::create(
        b, loc, LLVM::LLVMPointerType::get(&getContext()), pointer);
    Value buffer =
        buildBuffer(b, loc, alloc.getType(), data, alloc.getDynamicSizes());
    if (Region *scope = findScope(alloc))
      scopes.insert(scope);
    alloc.replaceAllUsesWith(buffer);
    alloc.erase();
    return success();
  }

  /// The innermost loop body or function that returns no buffer.
  Region *findScope(Operation *op) {
    for (Region *region = op->getParentRegion(); region;
         region = region->getParentRegion()) {
      Operation *parent = region->getParentOp();
      if (isa<func::FuncOp>(parent))
        return llvm::any_of(cast<func::FuncOp>(parent).getResultTypes(),
                            isBuffer)
                   ? nullptr
                   : region;
      if (isa<LoopLikeOpInterface>(parent) &&
          llvm::none_of(parent->getResultTypes(), isBuffer))
        return region;
    }
    return nullptr;
  }

  void releaseAtEnd(RuntimeCallBuilder &call, Region &scope) {
    Type i64 = IntegerType::get(&getContext(), 64);
    Location loc = scope.getLoc();
    Value mark = call.createSlot(i64);
    OpBuilder b = OpBuilder::atBlockBegin(&scope.front());
    // Slots are made at the function's start: mark behind them.
    if (mark.getParentBlock() == &scope.front())
      b.setInsertionPointAfterValue(mark);
    call.create(b, loc, "llm_rt_workspace_mark", {mark});
    for (Block &block : scope) {
      Operation *end = block.getTerminator();
      if (end->getNumSuccessors() != 0)
        continue;
      b.setInsertionPoint(end);
      Value taken = LLVM::LoadOp::create(b, loc, i64, mark);
      call.create(b, loc, "llm_rt_workspace_release", {taken});
    }
  }
};
} // namespace
