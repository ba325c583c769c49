//===- LLMAttrs.cpp - Attributes of the llm dialect ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/IR/LLM.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::llm;

#include "llm/IR/LLMEnums.cpp.inc"
#define GET_ATTRDEF_CLASSES
#include "llm/IR/LLMAttrs.cpp.inc"

void LLMDialect::registerAttributes() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "llm/IR/LLMAttrs.cpp.inc"
      >();
}

LogicalResult
KVStorageAttr::verify(function_ref<InFlightDiagnostic()> emitError, Type k,
                      Type v, KVScale scale) {
  if (!k && !v)
    return emitError() << "expected a format of k, of v or of both";
  std::pair<StringRef, Type> formats[] = {{"k", k}, {"v", v}};
  for (auto [name, format] : formats)
    if (format && !format.isSignlessInteger(8) &&
        !format.isSignlessInteger(4) && !isa<Float8E4M3FNType>(format))
      return emitError() << "expected the format of " << name
                         << " to be i8, f8E4M3FN or i4, got " << format;
  return success();
}

LogicalResult
KVCacheConfigAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                          int64_t blockSize, int64_t maxSeqLen,
                          int64_t maxSequences, KVStrategy strategy) {
  std::pair<StringRef, int64_t> parameters[] = {
      {"block_size", blockSize},
      {"max_seq_len", maxSeqLen},
      {"max_sequences", maxSequences}};
  for (auto [name, value] : parameters)
    if (value < 0 || value > std::numeric_limits<int32_t>::max())
      return emitError() << "expected " << name
                         << " to be between 0 and 2147483647, got " << value;
  return success();
}

LogicalResult WeightAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                                 ArrayRef<StringAttr> names, int64_t axis,
                                 int64_t panelRows,
                                 std::optional<WeightFormat> format) {
  if (names.empty())
    return emitError() << "expected at least one tensor name";
  if (axis != 0 && axis != 1)
    return emitError() << "expected axis to be 0 or 1, got " << axis;
  if (panelRows < 0)
    return emitError() << "expected panel_rows to be positive, got "
                       << panelRows;
  return success();
}

PackedLayout WeightAttr::getLayout(RankedTensorType type) const {
  if (!getPanelRows())
    return PackedLayout::Plain;
  if (getFormat())
    return PackedLayout::Blocks32;
  return isTiled(type) ? PackedLayout::Tiles32 : PackedLayout::Panel32;
}

int64_t mlir::llm::getBlockBytes(WeightFormat format) {
  switch (format) {
  case WeightFormat::Q8_0:
    return kPanelRows * (2 + 32);
  case WeightFormat::Q4_0:
    return kPanelRows * (2 + 16);
  case WeightFormat::Q4_1:
    return kPanelRows * (2 + 2 + 16);
  }
  llvm_unreachable("unknown weight format");
}

WeightFormat mlir::llm::getCommonFormat(WeightFormat a, WeightFormat b) {
  return getBlockBytes(a) < getBlockBytes(b) ? b : a;
}

bool mlir::llm::isInBlocks(RankedTensorType type, WeightFormat format) {
  return type.getRank() == 3 && type.getElementType().isSignlessInteger(8) &&
         type.getDimSize(2) == getBlockBytes(format);
}
