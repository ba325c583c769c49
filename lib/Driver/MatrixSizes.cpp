//===- MatrixSizes.cpp - How large the matrices of a model are ------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/MatrixSizes.h"

#include "llvm/ADT/STLExtras.h"

#include <cassert>

using namespace mlir::llm;

static void add(MatrixSize &sum, const ModelFile &file, TensorRole role,
                int64_t layer = 0) {
  const TensorInfo *matrix = file.find(file.tensorName(role, layer));
  assert(matrix && "checked at import");
  sum.parameters += matrix->shape[0] * matrix->shape[1];
  sum.fileBytes += int64_t(matrix->bytes);
  const char *format = llm_file_format_name(matrix->format);
  if (!llvm::is_contained(sum.formats, format))
    sum.formats.push_back(format);
}

MatrixSizes mlir::llm::matrixSizesOf(const ModelFile &file) {
  MatrixSizes sizes;
  for (int64_t layer = 0; layer < file.config().layers; ++layer)
    for (TensorRole role : {TensorRole::Query, TensorRole::Key,
                            TensorRole::Value, TensorRole::AttentionOutput,
                            TensorRole::Gate, TensorRole::Up, TensorRole::Down})
      add(sizes.layers, file, role, layer);
  add(sizes.head, file, TensorRole::Head);
  return sizes;
}
