//===- RuntimeCall.h - Calls of the runtime in IR ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_TRANSFORMS_RUNTIMECALL_H
#define LLM_TRANSFORMS_RUNTIMECALL_H

#include "llm/IR/LLM.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"

namespace mlir::llm {

/// Discardable attribute on a runtime call: the op it came from ("llm.rope").
/// `llm-emit-program` numbers the calls and fills in their site.
inline constexpr StringLiteral kOpAttr = "llm.op";

/// Is this a call of a runtime function, which returns a code?
bool isRuntimeCall(Operation *op);

/// Builds calls `llm_rt_*(call, site, operands...) -> i32` in one function,
/// whose first argument is the call.
class RuntimeCallBuilder {
public:
  /// None if `function` does not take the call.
  static std::optional<RuntimeCallBuilder> create(func::FuncOp function);

  Value getCall() const { return call; }

  /// A stack slot of the function, made once at its start.
  Value createSlot(Type type) const;

  /// Calls `symbol`, declaring it where needed, on behalf of the op `opName`
  /// (the symbol itself, without "llm_rt_", when empty).
  void create(OpBuilder &b, Location loc, StringRef symbol, ValueRange operands,
              StringRef opName = {}) const;

private:
  RuntimeCallBuilder(func::FuncOp function, Value call)
      : function(function), call(call) {}

  func::FuncOp function;
  Value call;
};

/// The C struct llm_tensor.
LLVM::LLVMStructType getTensorStruct(MLIRContext *context);
/// The number of `type` in llm_dtype.
int32_t getDTypeNumber(Type type);
/// The number of a cache's `format` (null: its element type) in llm_kv_storage.
int32_t getStorageNumber(Type format);

/// The buffer of a tensor that crosses the ABI: a view with any strides.
MemRefType getViewType(RankedTensorType tensor);
/// A buffer of `type` at `data` with an identity layout.
Value buildBuffer(OpBuilder &b, Location loc, MemRefType type, Value data,
                  ValueRange dynamicSizes);
/// The address of entry `number`, of `type`, in a table of the `call`.
Value getCallArgument(OpBuilder &b, Location loc, Value call, ArgumentKind kind,
                      Type type, LLVM::GEPArg number);
/// The buffer of weight `number` of the `call`.
Value loadWeight(OpBuilder &b, Location loc, Value call, MemRefType type,
                 LLVM::GEPArg number);
/// A buffer of `type` that a pointer to an llm_tensor describes.
Value buildBufferOfTensor(OpBuilder &b, Location loc, MemRefType type,
                          Value tensor);
/// Fills an llm_tensor in a slot of the function with a description of
/// `buffer`, and returns the slot.
Value describeBuffer(OpBuilder &b, Location loc, const RuntimeCallBuilder &call,
                     Value buffer);

} // namespace mlir::llm

#endif // LLM_TRANSFORMS_RUNTIMECALL_H
