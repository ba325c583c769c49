//===- MatrixSizes.h - How large the matrices of a model are ----*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_MATRIXSIZES_H
#define LLM_DRIVER_MATRIXSIZES_H

#include "llm/Import/ModelFile.h"

namespace mlir::llm {

struct MatrixSize {
  int64_t parameters = 0;
  int64_t fileBytes = 0;
  std::vector<std::string> formats; ///< of the file, each once
};

/// The matrices that tokens are multiplied with: what a step has to read, and
/// half of the operations for a token.
struct MatrixSizes {
  MatrixSize layers; ///< of all layers together
  MatrixSize head;   ///< the embedding's where the head is tied to it
};

/// Of a model whose tensors are complete.
MatrixSizes matrixSizesOf(const ModelFile &file);

} // namespace mlir::llm

#endif // LLM_DRIVER_MATRIXSIZES_H
