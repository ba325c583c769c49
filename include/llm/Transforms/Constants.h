//===- Constants.h - C data as LLVM globals ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_TRANSFORMS_CONSTANTS_H
#define LLM_TRANSFORMS_CONSTANTS_H

#include "llm/IR/LLM.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/SymbolTable.h"

namespace mlir::llm {

/// A constant of C data: a number, a string, the address of other data, null,
/// or a struct or array of such.
class CData {
public:
  static CData i32(int32_t value);
  static CData i64(int64_t value);
  static CData f32(float value);
  static CData null();
  static CData string(StringRef text);
  /// Address of a global or function.
  static CData symbol(StringRef name);
  static CData structure(std::vector<CData> fields);
  /// Elements of one type.
  static CData array(std::vector<CData> elements);
  /// Address of a new constant that holds `data`; null for an empty array.
  static CData pointerTo(CData data);

private:
  friend class ConstantEmitter;
  enum class Kind {
    I32,
    I64,
    F32,
    Null,
    String,
    Symbol,
    Struct,
    Array,
    Pointer
  };

  Kind kind = Kind::Null;
  int64_t number = 0;
  float real = 0;
  std::string text;
  std::vector<CData> elements;
};

/// Writes constants into a module, equal strings once.
class ConstantEmitter {
public:
  explicit ConstantEmitter(ModuleOp module);

  /// Makes a private constant of `data` and returns its symbol.
  StringAttr emit(const CData &data, StringRef prefix);

  /// Makes a zero-terminated string, or finds an equal one.
  StringAttr emitString(StringRef text);

  /// Address of the global `symbol`, at the builder's place.
  static Value getAddress(OpBuilder &b, Location loc, StringRef symbol);

private:
  Type getType(const CData &data);
  Value build(OpBuilder &b, const CData &data);
  StringAttr createName(StringRef prefix);

  ModuleOp module;
  SymbolTable symbols; ///< names looked up in the module itself cost its size
  llvm::StringMap<StringAttr> strings;
  unsigned counter = 0;
};

/// llm_kv_group_desc of a cache type; `config` may be null.
CData describeCacheType(StringRef name, PagedKVCacheType type,
                        KVCacheConfigAttr config);

} // namespace mlir::llm

#endif // LLM_TRANSFORMS_CONSTANTS_H
