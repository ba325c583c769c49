//===- NumberWeights.cpp - Weights that travel by number ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "NumberWeights.h"

#include "llm/IR/LLM.h"
#include "llm/Transforms/RuntimeCall.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Bufferization/IR/Bufferization.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/IR/SymbolTable.h"

using namespace mlir;
using namespace mlir::llm;

/// All calls of `function`; none where it is used in another way.
static SmallVector<func::CallOp> getCalls(ModuleOp module,
                                          func::FuncOp function) {
  auto uses = SymbolTable::getSymbolUses(function, module);
  SmallVector<func::CallOp> calls;
  if (!function.isPrivate() || function.isDeclaration() || !uses)
    return {};
  for (SymbolTable::SymbolUse use : *uses) {
    auto call = dyn_cast<func::CallOp>(use.getUser());
    if (!call)
      return {};
    calls.push_back(call);
  }
  return calls;
}

/// The weight whose tensor `value` is, or none.
static CallArgumentOp getWeight(Value value) {
  auto tensor = value.getDefiningOp<bufferization::ToTensorOp>();
  auto argument = tensor ? tensor.getBuffer().getDefiningOp<CallArgumentOp>()
                         : CallArgumentOp();
  const bool isWeight = argument && argument.getKind() == ArgumentKind::Weight;
  return isWeight ? argument : CallArgumentOp();
}

/// Neither written nor returned, so nothing else can share its buffer.
static bool isOnlyRead(BlockArgument argument) {
  return llvm::all_of(argument.getUses(), [](OpOperand &use) {
    auto op = dyn_cast<linalg::LinalgOp>(use.getOwner());
    return op && op.isDpsInput(&use);
  });
}

static bool isWeightOfCallers(BlockArgument argument,
                              ArrayRef<func::CallOp> calls) {
  return llvm::all_of(calls, [&](func::CallOp call) {
    return getWeight(call.getOperand(argument.getArgNumber()));
  });
}

/// Passes the number of the weight in place of its tensor.
static void passNumber(func::CallOp call, unsigned operand) {
  Value tensor = call.getOperand(operand);
  CallArgumentOp weight = getWeight(tensor);
  OpBuilder b(call);
  call.setOperand(
      operand, arith::ConstantOp::create(
                   b, call.getLoc(), b.getI64IntegerAttr(weight.getIndex())));
  if (!tensor.use_empty())
    return;
  tensor.getDefiningOp()->erase();
  if (weight->use_empty())
    weight.erase();
}

/// Looks up the weight at the start of the function that takes its number.
static void takeNumber(BlockArgument argument) {
  auto function = cast<func::FuncOp>(argument.getOwner()->getParentOp());
  auto type = cast<RankedTensorType>(argument.getType());
  Location loc = argument.getLoc();
  OpBuilder b = OpBuilder::atBlockBegin(argument.getOwner());
  unsigned position = argument.getArgNumber();
  (void)function.insertArgument(position, b.getI64Type(), DictionaryAttr(),
                                loc);
  Value buffer =
      loadWeight(b, loc, function.getArgument(0),
                 MemRefType::get(type.getShape(), type.getElementType()),
                 function.getArgument(position));
  Value tensor = bufferization::ToTensorOp::create(b, loc, type, buffer,
                                                   /*restrict=*/true);
  function.getArgument(position + 1).replaceAllUsesWith(tensor);
  (void)function.eraseArgument(position + 1);
}

void mlir::llm::numberWeights(ModuleOp module) {
  for (auto function : module.getOps<func::FuncOp>()) {
    SmallVector<func::CallOp> calls = getCalls(module, function);
    if (calls.empty())
      continue;
    for (unsigned i = 0; i < function.getNumArguments(); ++i) {
      BlockArgument argument = function.getArgument(i);
      if (!isWeightOfCallers(argument, calls) || !isOnlyRead(argument))
        continue;
      for (func::CallOp call : calls)
        passNumber(call, i);
      takeNumber(argument);
    }
  }
}
