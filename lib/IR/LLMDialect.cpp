//===- LLMDialect.cpp - The llm dialect ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/IR/LLM.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Interfaces/FunctionInterfaces.h"

using namespace mlir;
using namespace mlir::llm;

#include "llm/IR/LLMDialect.cpp.inc"
#include "llm/IR/LLMInterfaces.cpp.inc"

void LLMDialect::initialize() {
  registerTypes();
  registerAttributes();
  registerOperations();
}

//===----------------------------------------------------------------------===//
// Attributes of function arguments and results
//===----------------------------------------------------------------------===//

template <typename AttrT>
static LogicalResult verifyKind(Operation *op, NamedAttribute attribute,
                                StringRef expected) {
  if (isa<AttrT>(attribute.getValue()))
    return success();
  return op->emitOpError() << "expected '" << attribute.getName().getValue()
                           << "' to be " << expected << ", got "
                           << attribute.getValue();
}

/// A matrix that is quantized in the file, before it is packed.
static LogicalResult verifyFormat(Operation *op, WeightAttr weight,
                                  RankedTensorType type) {
  std::optional<WeightFormat> format = weight.getFormat();
  if (!format || (type.getRank() == 2 && type.getElementType().isF32() &&
                  type.getDimSize(1) % kTileDepth == 0))
    return success();
  return op->emitOpError() << "expected a weight of format "
                           << stringifyEnum(*format)
                           << " to be a matrix of f32 with a multiple of 32 "
                              "columns, got "
                           << type;
}

/// Whether the last dimension is that of the weight's layout.
static bool hasSteps(WeightAttr weight, RankedTensorType type) {
  if (weight.getFormat())
    return isInBlocks(type, *weight.getFormat());
  return isTiled(type) || (type.getDimSize(2) == kPanelRows &&
                           isa<FloatType>(type.getElementType()));
}

/// The logical sizes of a weight argument are those of its tensor, except that
/// a packed matrix is [ceil(N / 32)][K][32], or of [ceil(N / 32)][K / 32] tiles
/// or blocks.
static LogicalResult verifyWeight(Operation *op, WeightAttr weight, Type type) {
  auto tensor = dyn_cast<RankedTensorType>(type);
  if (!tensor || !tensor.hasStaticShape())
    return op->emitOpError()
           << "expected a weight to be a static tensor, got " << type;
  int64_t rank = weight.getPanelRows() ? 3 : tensor.getRank();
  if (tensor.getRank() != rank || rank < 1 ||
      (rank == 3 && !weight.getPanelRows()))
    return op->emitOpError()
           << "expected a weight of rank 1 or 2, or panels of rank 3, got "
           << type;
  if (rank != 3)
    return verifyFormat(op, weight, tensor);
  int64_t panels = llvm::divideCeil(weight.getPanelRows(), kPanelRows);
  if (tensor.getDimSize(0) != panels || !hasSteps(weight, tensor))
    return op->emitOpError()
           << "expected " << panels << " panels of 32 rows for "
           << weight.getPanelRows() << " rows, got " << type;
  return success();
}

static LogicalResult verifyDims(Operation *op, NamedAttribute attribute) {
  auto names = dyn_cast<ArrayAttr>(attribute.getValue());
  if (names && llvm::all_of(names, llvm::IsaPred<StringAttr>))
    return success();
  return op->emitOpError() << "expected '" << attribute.getName().getValue()
                           << "' to be an array of strings, got "
                           << attribute.getValue();
}

static LogicalResult verifyConfig(Operation *op, NamedAttribute attribute,
                                  Type type) {
  auto config = dyn_cast<KVCacheConfigAttr>(attribute.getValue());
  if (!config)
    return verifyKind<KVCacheConfigAttr>(op, attribute,
                                         "a #llm.kv_cache_config");
  auto cache = dyn_cast<PagedKVCacheType>(type);
  if (!cache || PagedKVCacheType::canHaveBlocksOf(cache.getStorage(),
                                                  config.getBlockSize()))
    return success();
  return op->emitOpError() << "expected block_size of '"
                           << attribute.getName().getValue()
                           << "' to be a multiple of 32 where K is stored as "
                              "i4, got "
                           << config.getBlockSize();
}

LogicalResult LLMDialect::verifyRegionArgAttribute(Operation *op,
                                                   unsigned region,
                                                   unsigned argument,
                                                   NamedAttribute attribute) {
  StringRef name = attribute.getName();
  Type type = op->getRegion(region).empty()
                  ? cast<FunctionOpInterface>(op).getArgumentTypes()[argument]
                  : op->getRegion(region).getArgument(argument).getType();
  if (name == kNameAttr)
    return verifyKind<StringAttr>(op, attribute, "a string");
  if (name == kDimsAttr)
    return verifyDims(op, attribute);
  if (name == kBelowAttr && !isa<StringAttr>(attribute.getValue()))
    return verifyKind<IntegerAttr>(op, attribute,
                                   "an integer or a dimension's name");
  if (name == kBelowAttr)
    return success();
  if (name == kConfigAttr)
    return verifyConfig(op, attribute, type);
  if (name == kBorrowedAttr || name == kFreshAttr)
    return verifyKind<UnitAttr>(op, attribute, "a unit attribute");
  if (name != kWeightAttr)
    return op->emitOpError() << "unknown argument attribute '" << name << "'";
  if (failed(verifyKind<WeightAttr>(op, attribute, "a #llm.weight")))
    return failure();
  return verifyWeight(op, cast<WeightAttr>(attribute.getValue()), type);
}

LogicalResult LLMDialect::verifyRegionResultAttribute(
    Operation *op, unsigned region, unsigned result, NamedAttribute attribute) {
  StringRef name = attribute.getName();
  if (name == kNameAttr)
    return verifyKind<StringAttr>(op, attribute, "a string");
  if (name == kDimsAttr)
    return verifyDims(op, attribute);
  auto function = cast<FunctionOpInterface>(op);
  if (name == kFreshAttr && function.getResultAttr(result, kTiedAttr))
    return op->emitOpError() << "result " << result << " is '" << kFreshAttr
                             << "' and '" << kTiedAttr << "'";
  if (name == kFreshAttr)
    return verifyKind<UnitAttr>(op, attribute, "a unit attribute");
  if (name != kTiedAttr)
    return op->emitOpError() << "unknown result attribute '" << name << "'";
  if (failed(verifyKind<IntegerAttr>(op, attribute, "an argument number")))
    return failure();
  int64_t tied = cast<IntegerAttr>(attribute.getValue()).getInt();
  if (tied < 0 || tied >= function.getNumArguments())
    return op->emitOpError() << "expected '" << kTiedAttr << "' to be below "
                             << function.getNumArguments() << ", got " << tied;
  if (function.getArgumentTypes()[tied] != function.getResultTypes()[result])
    return op->emitOpError()
           << "expected argument " << tied << " to have the type of result "
           << result << ", " << function.getResultTypes()[result] << ", got "
           << function.getArgumentTypes()[tied];
  return success();
}
