//===- RuntimeCall.cpp - Calls of the runtime in IR ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Transforms/RuntimeCall.h"

#include "mlir/Conversion/LLVMCommon/MemRefBuilder.h"
#include "mlir/Conversion/LLVMCommon/TypeConverter.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/IR/SymbolTable.h"

using namespace mlir;
using namespace mlir::llm;

static constexpr int64_t kMaxRank = 6; // LLM_MAX_RANK

//===----------------------------------------------------------------------===//
// Calls
//===----------------------------------------------------------------------===//

bool mlir::llm::isRuntimeCall(Operation *op) {
  auto call = dyn_cast<func::CallOp>(op);
  return call && call->hasAttr(kOpAttr);
}

std::optional<RuntimeCallBuilder>
RuntimeCallBuilder::create(func::FuncOp function) {
  if (function.isDeclaration() || function.getNumArguments() == 0 ||
      !isa<LLVM::LLVMPointerType>(function.getArgumentTypes().front()))
    return std::nullopt;
  return RuntimeCallBuilder(function, function.getArgument(0));
}

Value RuntimeCallBuilder::createSlot(Type type) const {
  func::FuncOp parent = function;
  OpBuilder b = OpBuilder::atBlockBegin(&parent.getBody().front());
  Location loc = parent.getLoc();
  Value one =
      LLVM::ConstantOp::create(b, loc, b.getI64Type(), b.getI64IntegerAttr(1));
  return LLVM::AllocaOp::create(
      b, loc, LLVM::LLVMPointerType::get(b.getContext()), type, one);
}

static void declare(func::FuncOp user, Location loc, StringRef symbol,
                    TypeRange operands) {
  auto module = user->getParentOfType<ModuleOp>();
  if (module.lookupSymbol(symbol))
    return;
  OpBuilder b = OpBuilder::atBlockBegin(module.getBody());
  auto type = b.getFunctionType(operands, b.getI32Type());
  func::FuncOp::create(b, b.getUnknownLoc(), symbol, type).setPrivate();
}

void RuntimeCallBuilder::create(OpBuilder &b, Location loc, StringRef symbol,
                                ValueRange operands, StringRef opName) const {
  Value unnumbered = arith::ConstantOp::create(b, loc, b.getI32IntegerAttr(-1));
  SmallVector<Value> all = {call, unnumbered};
  llvm::append_range(all, operands);
  declare(function, loc, symbol, ValueRange(all).getTypes());
  auto result =
      func::CallOp::create(b, loc, symbol, TypeRange{b.getI32Type()}, all);
  if (opName.empty())
    opName = symbol.drop_front(StringRef("llm_rt_").size());
  result->setAttr(kOpAttr, b.getStringAttr(opName));
}

//===----------------------------------------------------------------------===//
// Tensors
//===----------------------------------------------------------------------===//

LLVM::LLVMStructType mlir::llm::getTensorStruct(MLIRContext *context) {
  Type i32 = IntegerType::get(context, 32), i64 = IntegerType::get(context, 64);
  Type numbers = LLVM::LLVMArrayType::get(i64, kMaxRank);
  return LLVM::LLVMStructType::getLiteral(
      context,
      {LLVM::LLVMPointerType::get(context), i32, i32, numbers, numbers});
}

int32_t mlir::llm::getDTypeNumber(Type type) {
  if (type.isF32())
    return 0;
  if (type.isF16())
    return 1;
  if (type.isBF16())
    return 2;
  return type.isInteger(32) ? 3 : type.isInteger(8) ? 6 : 4;
}

int32_t mlir::llm::getStorageNumber(Type format) {
  if (!format)
    return 0;
  return format.isInteger(4) ? 3 : format.isInteger(8) ? 2 : 1;
}

/// Address of a field of llm_tensor; `index` within sizes (3) or strides (4).
static Value getField(OpBuilder &b, Location loc, Value tensor, int32_t field,
                      int32_t index = -1) {
  SmallVector<LLVM::GEPArg> path = {0, field};
  if (index >= 0)
    path.push_back(index);
  return LLVM::GEPOp::create(b, loc, LLVM::LLVMPointerType::get(b.getContext()),
                             getTensorStruct(b.getContext()), tensor, path);
}

static Value toI64(OpBuilder &b, Location loc, Value value) {
  if (value.getType().isInteger(64))
    return value;
  return arith::IndexCastOp::create(b, loc, b.getI64Type(), value);
}

static Value constant(OpBuilder &b, Location loc, int64_t value) {
  return arith::ConstantOp::create(b, loc, b.getI64IntegerAttr(value));
}

static Value finishBuffer(OpBuilder &b, Location loc, MemRefType type,
                          Value data, ArrayRef<Value> sizes,
                          ArrayRef<Value> strides) {
  LLVMTypeConverter converter(b.getContext());
  auto descriptor =
      MemRefDescriptor::poison(b, loc, converter.convertType(type));
  descriptor.setAllocatedPtr(b, loc, data);
  descriptor.setAlignedPtr(b, loc, data);
  descriptor.setOffset(b, loc, constant(b, loc, 0));
  for (int64_t i = 0; i < type.getRank(); ++i) {
    descriptor.setSize(b, loc, i, sizes[i]);
    descriptor.setStride(b, loc, i, strides[i]);
  }
  Value result = descriptor;
  return UnrealizedConversionCastOp::create(b, loc, type, result).getResult(0);
}

MemRefType mlir::llm::getViewType(RankedTensorType tensor) {
  SmallVector<int64_t> strides(tensor.getRank(), ShapedType::kDynamic);
  auto layout = StridedLayoutAttr::get(tensor.getContext(),
                                       ShapedType::kDynamic, strides);
  return MemRefType::get(tensor.getShape(), tensor.getElementType(), layout);
}

Value mlir::llm::buildBuffer(OpBuilder &b, Location loc, MemRefType type,
                             Value data, ValueRange dynamicSizes) {
  SmallVector<Value> sizes, strides(type.getRank());
  for (int64_t size : type.getShape()) {
    bool isDynamic = ShapedType::isDynamic(size);
    sizes.push_back(isDynamic ? toI64(b, loc, dynamicSizes.front())
                              : constant(b, loc, size));
    dynamicSizes = dynamicSizes.drop_front(isDynamic);
  }
  Value stride = constant(b, loc, 1);
  for (int64_t i = type.getRank() - 1; i >= 0; --i) {
    strides[i] = stride;
    stride = arith::MulIOp::create(b, loc, stride, sizes[i]);
  }
  return finishBuffer(b, loc, type, data, sizes, strides);
}

/// Reads llm_call: {u32, u32, inputs, outputs, weights, kv}.
Value mlir::llm::getCallArgument(OpBuilder &b, Location loc, Value call,
                                 ArgumentKind kind, Type type,
                                 LLVM::GEPArg number) {
  Type pointer = LLVM::LLVMPointerType::get(b.getContext());
  auto callType = LLVM::LLVMStructType::getLiteral(
      b.getContext(),
      {b.getI32Type(), b.getI32Type(), pointer, pointer, pointer, pointer});
  Value address =
      LLVM::GEPOp::create(b, loc, pointer, callType, call,
                          ArrayRef<LLVM::GEPArg>{0, int32_t(kind) + 2});
  Value table = LLVM::LoadOp::create(b, loc, pointer, address);
  return LLVM::GEPOp::create(b, loc, pointer, type, table, number);
}

Value mlir::llm::loadWeight(OpBuilder &b, Location loc, Value call,
                            MemRefType type, LLVM::GEPArg number) {
  Type pointer = LLVM::LLVMPointerType::get(b.getContext());
  Value address =
      getCallArgument(b, loc, call, ArgumentKind::Weight, pointer, number);
  Value data = LLVM::LoadOp::create(b, loc, pointer, address);
  return buildBuffer(b, loc, type, data, {});
}

Value mlir::llm::buildBufferOfTensor(OpBuilder &b, Location loc,
                                     MemRefType type, Value tensor) {
  Type pointer = LLVM::LLVMPointerType::get(b.getContext());
  Value data =
      LLVM::LoadOp::create(b, loc, pointer, getField(b, loc, tensor, 0));
  SmallVector<Value> sizes, strides;
  for (int32_t i = 0; i < type.getRank(); ++i) {
    auto load = [&](int32_t field) -> Value {
      return LLVM::LoadOp::create(b, loc, b.getI64Type(),
                                  getField(b, loc, tensor, field, i));
    };
    sizes.push_back(load(3));
    strides.push_back(load(4));
  }
  return finishBuffer(b, loc, type, data, sizes, strides);
}

/// Address of the first element, offset included.
static Value getDataPointer(OpBuilder &b, Location loc, Value buffer,
                            Value offset) {
  auto type = cast<MemRefType>(buffer.getType());
  Value address = toI64(
      b, loc, memref::ExtractAlignedPointerAsIndexOp::create(b, loc, buffer));
  int64_t bytes = llvm::divideCeil(type.getElementTypeBitWidth(), 8u);
  Value skipped = arith::MulIOp::create(b, loc, toI64(b, loc, offset),
                                        constant(b, loc, bytes));
  Value first = arith::AddIOp::create(b, loc, address, skipped);
  return LLVM::IntToPtrOp::create(
      b, loc, LLVM::LLVMPointerType::get(b.getContext()), first);
}

Value mlir::llm::describeBuffer(OpBuilder &b, Location loc,
                                const RuntimeCallBuilder &call, Value buffer) {
  auto type = cast<MemRefType>(buffer.getType());
  Value slot = call.createSlot(getTensorStruct(b.getContext()));
  auto metadata = memref::ExtractStridedMetadataOp::create(b, loc, buffer);
  auto store = [&](Value value, int32_t field, int32_t index = -1) {
    LLVM::StoreOp::create(b, loc, value, getField(b, loc, slot, field, index));
  };
  auto number = [&](int32_t value) -> Value {
    return arith::ConstantOp::create(b, loc, b.getI32IntegerAttr(value));
  };
  store(getDataPointer(b, loc, buffer, metadata.getOffset()), 0);
  store(number(getDTypeNumber(type.getElementType())), 1);
  store(number(type.getRank()), 2);
  for (int32_t i = 0; i < type.getRank(); ++i) {
    store(toI64(b, loc, metadata.getSizes()[i]), 3, i);
    store(toI64(b, loc, metadata.getStrides()[i]), 4, i);
  }
  return slot;
}
