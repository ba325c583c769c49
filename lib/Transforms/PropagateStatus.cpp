//===- PropagateStatus.cpp - A failing runtime call returns its code ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Transforms/Constants.h"
#include "llm/Transforms/Passes.h"
#include "llm/Transforms/RuntimeCall.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/ControlFlow/IR/ControlFlowOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/OpenMP/OpenMPDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/UB/IR/UBOps.h"
#include "mlir/IR/SymbolTable.h"

namespace mlir::llm {
#define GEN_PASS_DEF_PROPAGATESTATUS
#include "llm/Transforms/Passes.h.inc"
} // namespace mlir::llm

using namespace mlir;
using namespace mlir::llm;

static constexpr int32_t kWrongState = 6; // LLM_WRONG_STATE

namespace {
/// Functions with a body that can reach a runtime call.
class FailingFunctions {
public:
  explicit FailingFunctions(ModuleOp module) : symbols(module) {
    for (bool changed = true; changed;) {
      changed = false;
      for (auto function : module.getOps<func::FuncOp>())
        changed |= canFail(function) && functions.insert(function).second;
    }
  }

  /// Does this call return a code, now or after the pass?
  bool isFailing(func::CallOp call) {
    return isRuntimeCall(call) || functions.contains(getCallee(call));
  }

  func::FuncOp getCallee(func::CallOp call) {
    return symbols.lookup<func::FuncOp>(call.getCallee());
  }

  bool contains(func::FuncOp function) { return functions.contains(function); }

private:
  bool canFail(func::FuncOp function) {
    return function
        .walk([&](func::CallOp call) {
          return isFailing(call) ? WalkResult::interrupt()
                                 : WalkResult::advance();
        })
        .wasInterrupted();
  }

  SymbolTable symbols;
  llvm::DenseSet<func::FuncOp> functions;
};

/// Gives one function a status result and early exits.
class StatusPropagation {
public:
  StatusPropagation(func::FuncOp function, FailingFunctions &failing)
      : function(function), failing(failing), b(function.getContext()) {}

  LogicalResult run() {
    SmallVector<func::CallOp> calls;
    WalkResult structured = function.walk([&](func::CallOp call) {
      if (!failing.isFailing(call))
        return WalkResult::advance();
      calls.push_back(call);
      return failed(checkPlace(call)) ? WalkResult::interrupt()
                                      : WalkResult::advance();
    });
    if (structured.wasInterrupted())
      return failure();
    rewriteReturns();
    createExit();
    for (func::CallOp call : calls)
      branchOnCode(call);
    return success();
  }

private:
  LogicalResult checkPlace(func::CallOp call) {
    if (call->getParentOp() == function)
      return success();
    return call.emitOpError()
           << "can fail inside '" << call->getParentOp()->getName()
           << "', which has no early exit";
  }

  Value createCode(Location loc, int32_t code) {
    return arith::ConstantOp::create(b, loc, b.getI32IntegerAttr(code));
  }

  void rewriteReturns() {
    for (Block &block : function.getBody()) {
      auto end = dyn_cast<func::ReturnOp>(block.getTerminator());
      if (!end)
        continue;
      b.setInsertionPoint(end);
      end->insertOperands(0, createCode(end.getLoc(), 0));
    }
    SmallVector<Type> results = {b.getI32Type()};
    llvm::append_range(results, function.getResultTypes());
    function.setFunctionType(
        b.getFunctionType(function.getArgumentTypes(), results));
  }

  /// The one block that returns the code it is given.
  void createExit() {
    Location loc = function.getLoc();
    exit = b.createBlock(&function.getBody(), function.getBody().end(),
                         {b.getI32Type()}, {loc});
    SmallVector<Value> results = {exit->getArgument(0)};
    for (Type type : function.getResultTypes().drop_front())
      results.push_back(ub::PoisonOp::create(b, loc, type));
    func::ReturnOp::create(b, loc, results);
  }

  void branchOnCode(func::CallOp call) {
    b.setInsertionPoint(call);
    Location loc = call.getLoc();
    auto checked = isRuntimeCall(call) ? call : addCodeResult(call);
    Block *next = checked->getBlock()->splitBlock(checked->getNextNode());
    b.setInsertionPointToEnd(checked->getBlock());
    Value ok = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq,
                                     checked.getResult(0), createCode(loc, 0));
    cf::CondBranchOp::create(b, loc, ok, next, ValueRange(), exit,
                             ValueRange(checked.getResult(0)));
  }

  func::CallOp addCodeResult(func::CallOp call) {
    SmallVector<Type> results = {b.getI32Type()};
    llvm::append_range(results, call.getResultTypes());
    auto checked = func::CallOp::create(b, call.getLoc(), call.getCallee(),
                                        results, call.getOperands());
    checked->setDiscardableAttrs(call->getDiscardableAttrDictionary());
    call.replaceAllUsesWith(checked.getResults().drop_front());
    call.erase();
    return checked;
  }

  func::FuncOp function;
  FailingFunctions &failing;
  OpBuilder b;
  Block *exit = nullptr;
};

struct PropagateStatus : llm::impl::PropagateStatusBase<PropagateStatus> {
  void runOnOperation() override {
    ModuleOp module = getOperation();
    if (failed(lowerAsserts(module)))
      return signalPassFailure();
    FailingFunctions failing(module);
    for (auto function : module.getOps<func::FuncOp>())
      if (failing.contains(function) || isEntry(function))
        if (failed(StatusPropagation(function, failing).run()))
          return signalPassFailure();
  }

private:
  static bool isEntry(func::FuncOp function) {
    return function->hasAttr("llm.entry");
  }

  /// `cf.assert` fails the call with its message.
  LogicalResult lowerAsserts(ModuleOp module) {
    ConstantEmitter constants(module);
    SmallVector<cf::AssertOp> asserts;
    module.walk([&](cf::AssertOp op) { asserts.push_back(op); });
    for (cf::AssertOp op : asserts) {
      auto call =
          RuntimeCallBuilder::create(op->getParentOfType<func::FuncOp>());
      if (!call || !isa<func::FuncOp>(op->getParentOp()))
        return op.emitOpError("has no call to fail here");
      lowerAssert(op, *call, constants);
    }
    return success();
  }

  void lowerAssert(cf::AssertOp op, const RuntimeCallBuilder &call,
                   ConstantEmitter &constants) {
    Location loc = op.getLoc();
    Block *block = op->getBlock();
    Block *next = block->splitBlock(op->getNextNode());
    OpBuilder b(op);
    Block *fail = b.createBlock(next);
    Value zero = arith::ConstantOp::create(b, loc, b.getI64IntegerAttr(0));
    Value code =
        arith::ConstantOp::create(b, loc, b.getI32IntegerAttr(kWrongState));
    Value text =
        ConstantEmitter::getAddress(b, loc, constants.emitString(op.getMsg()));
    call.create(b, loc, "llm_rt_fail", {code, text, zero, zero}, "cf.assert");
    cf::BranchOp::create(b, loc, next);
    b.setInsertionPoint(op);
    cf::CondBranchOp::create(b, loc, op.getArg(), next, fail);
    op.erase();
  }
};
} // namespace
