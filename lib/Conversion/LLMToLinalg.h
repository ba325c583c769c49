//===- LLMToLinalg.h - Parts of convert-llm-to-linalg -----------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_CONVERSION_LLMTOLINALG_H
#define LLM_LIB_CONVERSION_LLMTOLINALG_H

#include "llm/IR/LLM.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Transforms/DialectConversion.h"

namespace mlir::llm::spec {

/// The texts of Specification.mlir and SpecificationReads.mlir.
extern const char *const specificationTexts[2];

/// A cache in the words of Specification.mlir.
struct Version {
  Value k, v, cur, next, pos, appended, members;
  Value running, dtype, kStorage, vStorage, blockSize, window, sinks;

  static constexpr unsigned numParts = 14;
  static Version unpack(ValueRange parts);
  SmallVector<Value> pack() const;
};

/// A step in the words of Specification.mlir.
struct Step {
  Value ids, cuSeqlens, starts;
  Value number, layers, layer;

  static constexpr unsigned numParts = 6;
  static Step unpack(ValueRange parts);
  SmallVector<Value> pack() const;
};

/// Caches and steps to the types of their parts.
void addPartTypes(TypeConverter &converter);

/// 0: f32, 1: f16, 2: bf16.
int32_t getElementCode(Type elementType);
/// 0: null, the element type, 1: f8E4M3FN, 2: i8.
int32_t getStorageCode(Type format);

/// The functions of the specification, which the module gets as it calls them.
class Specification {
public:
  static FailureOr<Specification> load(ModuleOp module);

  /// The function `llm_spec.NAME`, with its dynamic types.
  func::FuncOp get(StringRef name) const;

  /// Copies what the module calls, and what that calls, into it.
  void importInto(ModuleOp module) const;

  static constexpr llvm::StringLiteral prefix = "llm_spec.";

private:
  explicit Specification(OwningOpRef<ModuleOp> library)
      : library(std::move(library)) {}

  OwningOpRef<ModuleOp> library;
};

/// Ops over caches and steps.
void populateOpPatterns(const TypeConverter &converter,
                        const Specification &specification,
                        RewritePatternSet &patterns);

/// Control flow that upstream does not convert 1:N: `arith.select`, `ub.poison`
/// and `scf.execute_region`.
void populateControlFlowPatterns(const TypeConverter &converter,
                                 RewritePatternSet &patterns,
                                 ConversionTarget &target);

} // namespace mlir::llm::spec

#endif // LLM_LIB_CONVERSION_LLMTOLINALG_H
