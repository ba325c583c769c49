//===- HuggingFaceConfig.h - The config.json files of a model ---*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_HUGGINGFACECONFIG_H
#define LLM_LIB_IMPORT_HUGGINGFACECONFIG_H

#include "llm/Import/ModelFile.h"

namespace mlir::llm {

/// What the two files of `directory` say. Fails for what we do not implement.
::llvm::Expected<ModelConfig>
readHuggingFaceConfig(::llvm::StringRef directory);

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_HUGGINGFACECONFIG_H
