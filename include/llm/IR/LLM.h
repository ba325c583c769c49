//===- LLM.h - The llm dialect ----------------------------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_IR_LLM_H
#define LLM_IR_LLM_H

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/IR/PatternMatch.h"
#include "mlir/Interfaces/InferTypeOpInterface.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include "llm/IR/LLMDialect.h.inc"
#include "llm/IR/LLMEnums.h.inc"

namespace mlir::llm {
/// How a weight argument lies in memory: llm_layout of CAPI.h.
enum class PackedLayout : int32_t { Plain, Panel32, Tiles32, Blocks32 };
/// Rows of a panel, and what a step of it has: columns, and elements of tiles.
inline constexpr int64_t kPanelRows = 32, kTileDepth = 32;
inline constexpr int64_t kTileElements = kPanelRows * kTileDepth;
/// A matrix in tiles, [ceil(N / 32)][K / 32][1024] of bf16; else it is in panels,
/// [ceil(N / 32)][K][32].
inline bool isTiled(RankedTensorType type) {
  return type.getRank() == 3 && type.getDimSize(2) == kTileElements &&
         type.getElementType().isBF16();
}
/// Bytes of 32 rows and columns in quantized blocks: a step of a panel.
int64_t getBlockBytes(WeightFormat format);
/// That of the larger blocks, which hold what the other's do.
WeightFormat getCommonFormat(WeightFormat a, WeightFormat b);
/// A matrix in blocks, [ceil(N / 32)][K / 32][getBlockBytes] of i8.
bool isInBlocks(RankedTensorType type, WeightFormat format);
} // namespace mlir::llm

#define GET_ATTRDEF_CLASSES
#include "llm/IR/LLMAttrs.h.inc"

#define GET_TYPEDEF_CLASSES
#include "llm/IR/LLMTypes.h.inc"

#include "llm/IR/LLMInterfaces.h.inc"

namespace mlir::llm::detail {
/// Effects of an op on its cache operand: none on a value; a read, and a write
/// if the op consumes, on a handle.
void getCacheEffects(
    Operation *op,
    ::llvm::SmallVectorImpl<MemoryEffects::EffectInstance> &effects);
} // namespace mlir::llm::detail

#define GET_OP_CLASSES
#include "llm/IR/LLMOps.h.inc"

#endif // LLM_IR_LLM_H
