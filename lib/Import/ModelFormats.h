//===- ModelFormats.h - What ModelFile::open chooses from -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_MODELFORMATS_H
#define LLM_LIB_IMPORT_MODELFORMATS_H

#include "llm/Import/ModelFile.h"

namespace mlir::llm {

::llvm::Expected<std::unique_ptr<ModelFile>>
openGGUFModel(::llvm::StringRef path);

::llvm::Expected<std::unique_ptr<ModelFile>>
openHuggingFaceModel(::llvm::StringRef directory);

/// Whether a tensor is named a bias, not a weight.
bool isBias(TensorRole role);

/// Refuses sizes that no model has and that do not fit each other. `path` is
/// for messages, as below.
::llvm::Error checkConfig(::llvm::StringRef path, const ModelConfig &config);

/// Refuses more layers than there can be: each has a tensor of its own.
::llvm::Error checkLayerCount(::llvm::StringRef path, int64_t layers,
                              size_t tensors);

/// The head dimension: the one that is `given`, or hidden / heads where it is
/// 0.
::llvm::Expected<int64_t>
chooseHeadDim(::llvm::StringRef path, const ModelConfig &config, int64_t given);

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_MODELFORMATS_H
