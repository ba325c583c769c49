//===- Constants.cpp - C data as LLVM globals ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Transforms/Constants.h"
#include "llm/Transforms/RuntimeCall.h"

#include "mlir/IR/SymbolTable.h"

using namespace mlir;
using namespace mlir::llm;

//===----------------------------------------------------------------------===//
// CData
//===----------------------------------------------------------------------===//

CData CData::i32(int32_t value) {
  CData data;
  data.kind = Kind::I32;
  data.number = value;
  return data;
}

CData CData::i64(int64_t value) {
  CData data;
  data.kind = Kind::I64;
  data.number = value;
  return data;
}

CData CData::f32(float value) {
  CData data;
  data.kind = Kind::F32;
  data.real = value;
  return data;
}

CData CData::null() { return CData(); }

CData CData::string(StringRef text) {
  CData data;
  data.kind = Kind::String;
  data.text = text.str();
  return data;
}

CData CData::symbol(StringRef name) {
  CData data;
  data.kind = Kind::Symbol;
  data.text = name.str();
  return data;
}

CData CData::structure(std::vector<CData> fields) {
  CData data;
  data.kind = Kind::Struct;
  data.elements = std::move(fields);
  return data;
}

CData CData::array(std::vector<CData> elements) {
  CData data;
  data.kind = Kind::Array;
  data.elements = std::move(elements);
  return data;
}

CData CData::pointerTo(CData pointee) {
  if (pointee.kind == Kind::Array && pointee.elements.empty())
    return null();
  CData data;
  data.kind = Kind::Pointer;
  data.elements.push_back(std::move(pointee));
  return data;
}

//===----------------------------------------------------------------------===//
// ConstantEmitter
//===----------------------------------------------------------------------===//

ConstantEmitter::ConstantEmitter(ModuleOp module)
    : module(module), symbols(module) {}

Type ConstantEmitter::getType(const CData &data) {
  MLIRContext *context = module.getContext();
  switch (data.kind) {
  case CData::Kind::I32:
    return IntegerType::get(context, 32);
  case CData::Kind::I64:
    return IntegerType::get(context, 64);
  case CData::Kind::F32:
    return Float32Type::get(context);
  case CData::Kind::Struct: {
    SmallVector<Type> fields;
    for (const CData &field : data.elements)
      fields.push_back(getType(field));
    return LLVM::LLVMStructType::getLiteral(context, fields);
  }
  case CData::Kind::Array:
    return LLVM::LLVMArrayType::get(getType(data.elements.front()),
                                    data.elements.size());
  default:
    return LLVM::LLVMPointerType::get(context);
  }
}

StringAttr ConstantEmitter::createName(StringRef prefix) {
  std::string name;
  do
    name = (prefix + "_" + Twine(counter++)).str();
  while (symbols.lookup(name));
  return StringAttr::get(module.getContext(), name);
}

Value ConstantEmitter::getAddress(OpBuilder &b, Location loc,
                                  StringRef symbol) {
  return LLVM::AddressOfOp::create(
      b, loc, LLVM::LLVMPointerType::get(b.getContext()), symbol);
}

StringAttr ConstantEmitter::emitString(StringRef text) {
  StringAttr &name = strings[text];
  if (name)
    return name;
  name = createName("llm_string");
  OpBuilder b = OpBuilder::atBlockBegin(module.getBody());
  std::string terminated = text.str() + '\0';
  auto type = LLVM::LLVMArrayType::get(b.getI8Type(), terminated.size());
  symbols.insert(LLVM::GlobalOp::create(
      b, b.getUnknownLoc(), type, /*isConstant=*/true, LLVM::Linkage::Private,
      name, b.getStringAttr(terminated)));
  return name;
}

Value ConstantEmitter::build(OpBuilder &b, const CData &data) {
  Location loc = b.getUnknownLoc();
  Type type = getType(data);
  switch (data.kind) {
  case CData::Kind::I32:
  case CData::Kind::I64:
    return LLVM::ConstantOp::create(b, loc, type,
                                    b.getIntegerAttr(type, data.number));
  case CData::Kind::F32:
    return LLVM::ConstantOp::create(b, loc, type, b.getF32FloatAttr(data.real));
  case CData::Kind::Null:
    return LLVM::ZeroOp::create(b, loc, type);
  case CData::Kind::String:
    return getAddress(b, loc, emitString(data.text));
  case CData::Kind::Symbol:
    return getAddress(b, loc, data.text);
  case CData::Kind::Pointer:
    return getAddress(b, loc, emit(data.elements.front(), "llm_data"));
  case CData::Kind::Struct:
  case CData::Kind::Array:
    break;
  }
  Value result = LLVM::UndefOp::create(b, loc, type);
  for (auto [index, element] : llvm::enumerate(data.elements))
    result = LLVM::InsertValueOp::create(b, loc, result, build(b, element),
                                         int64_t(index));
  return result;
}

StringAttr ConstantEmitter::emit(const CData &data, StringRef prefix) {
  StringAttr name = createName(prefix);
  OpBuilder b = OpBuilder::atBlockBegin(module.getBody());
  auto global = LLVM::GlobalOp::create(
      b, b.getUnknownLoc(), getType(data),
      /*isConstant=*/true, LLVM::Linkage::Private, name, Attribute());
  symbols.insert(global);
  Block *block = b.createBlock(&global.getInitializerRegion());
  Value value = build(b, data);
  b.setInsertionPointToEnd(block);
  LLVM::ReturnOp::create(b, b.getUnknownLoc(), value);
  return name;
}

//===----------------------------------------------------------------------===//
// Cache types
//===----------------------------------------------------------------------===//

CData mlir::llm::describeCacheType(StringRef name, PagedKVCacheType type,
                                   KVCacheConfigAttr config) {
  auto known = [](int64_t value) {
    return ShapedType::isDynamic(value) ? int64_t(0) : value;
  };
  auto i32 = [&](int64_t value) { return CData::i32(int32_t(known(value))); };
  int32_t dtype = type.isBare() ? -1 : getDTypeNumber(type.getElementType());
  auto storage = [](Type format) {
    return CData::i32(getStorageNumber(format));
  };
  auto strategy = config ? config.getStrategy() : KVStrategy::Paged;
  return CData::structure(
      {CData::string(name), i32(type.getLayers()), i32(type.getKvHeads()),
       i32(type.getHeadDim()), CData::i32(dtype), i32(type.getBlockSize()),
       i32(type.getMaxSequences()), storage(type.getKFormat()),
       storage(type.getVFormat()), CData::i64(known(type.getMaxSeqLen())),
       CData::i32(int32_t(type.getWindow())),
       CData::i32(int32_t(type.getSinks())), CData::i32(int32_t(strategy)),
       CData::i32(config ? int32_t(config.getBlockSize()) : 0),
       CData::i32(config ? int32_t(config.getMaxSequences()) : 0),
       CData::i64(config ? config.getMaxSeqLen() : 0)});
}
