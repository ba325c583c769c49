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
#include "llm/Runtime/CAPI.h"

#include <string>
#include <vector>

namespace mlir::llm {

/// A format of the file, and what its matrices are packed as, each once.
struct MatrixFormat {
  std::string inFile;
  std::vector<std::string> packed;
};

struct MatrixSize {
  int64_t parameters = 0;
  int64_t fileBytes = 0;
  std::vector<MatrixFormat> formats; ///< in the order of the matrices
};

/// The matrices that tokens are multiplied with: what a step has to read, and
/// half of the operations for a token.
struct MatrixSizes {
  MatrixSize layers; ///< of all layers together
  MatrixSize head;   ///< the embedding's where the head is tied to it
};

/// Of a model whose tensors are complete, and a program compiled from it.
MatrixSizes matrixSizesOf(const ModelFile &file, const llm_program &program);

/// "q4_1", or "q4_K packed as q4_1 and q8_0, q6_K packed as q8_0" where weights
/// are held neither in the format that they have in the file nor `as` all are.
std::string describeFormats(const MatrixSize &size, ::llvm::StringRef as);

} // namespace mlir::llm

#endif // LLM_DRIVER_MATRIXSIZES_H
