//===- TensorLayout.cpp - Where the tensors of a file lie -----------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TensorLayout.h"
#include "ImportError.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/CheckedArithmetic.h"

using namespace mlir::llm;
using llvm::ArrayRef;
using llvm::Error;
using llvm::StringRef;

std::optional<uint64_t> mlir::llm::tensorBytes(llm_file_format format,
                                               ArrayRef<int64_t> shape) {
  std::optional<int64_t> rows = 1;
  for (int64_t size : shape.drop_back(shape.empty() ? 0 : 1)) {
    rows = size < 0 ? std::nullopt : llvm::checkedMul(*rows, size);
    if (!rows)
      return std::nullopt;
  }
  int64_t rowBytes =
      llm_file_row_bytes(format, shape.empty() ? 1 : shape.back());
  if (rowBytes < 0)
    return std::nullopt;
  return llvm::checkedMul(*rows, rowBytes);
}

std::string mlir::llm::toString(ArrayRef<int64_t> shape) {
  return llvm::formatv("[{0:$[, ]}]",
                       llvm::make_range(shape.begin(), shape.end()));
}

Error mlir::llm::checkNames(StringRef path, ArrayRef<TensorInfo> tensors) {
  llvm::StringSet<> names;
  for (const TensorInfo &tensor : tensors)
    if (!names.insert(tensor.name).second)
      return importError(path, "tensor '{0}' is given twice", tensor.name);
  return Error::success();
}

Error mlir::llm::checkOverlaps(StringRef path, ArrayRef<TensorInfo> tensors) {
  std::vector<const TensorInfo *> byAddress;
  for (const TensorInfo &tensor : tensors)
    if (tensor.bytes > 0)
      byAddress.push_back(&tensor);
  llvm::sort(byAddress, [](const TensorInfo *a, const TensorInfo *b) {
    return a->data < b->data;
  });
  for (size_t i = 1; i < byAddress.size(); ++i) {
    const TensorInfo &before = *byAddress[i - 1], &behind = *byAddress[i];
    if (static_cast<const char *>(before.data) + before.bytes > behind.data)
      return importError(path, "tensors '{0}' and '{1}' overlap", before.name,
                         behind.name);
  }
  return Error::success();
}
