//===- WeightLoader.h - From a model file to packed weights -----*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_WEIGHTLOADER_H
#define LLM_DRIVER_WEIGHTLOADER_H

#include "llm/Import/ModelFile.h"
#include "llm/Runtime/CAPI.h"

#include "llvm/Support/Error.h"
#include "llvm/Support/raw_ostream.h"

namespace mlir::llm {

/// Binds every tensor of `file` to `model` by name, packs them and lets go of
/// the file's pages. Tensors that do not fit are listed in one error. With
/// `progress`, a terminal, a line there says what is going on while it is.
::llvm::Error loadWeights(llm_model *model, const ModelFile &file,
                          ::llvm::raw_ostream *progress);

} // namespace mlir::llm

#endif // LLM_DRIVER_WEIGHTLOADER_H
