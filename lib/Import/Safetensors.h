//===- Safetensors.h - The tensors of one safetensors file -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_SAFETENSORS_H
#define LLM_LIB_IMPORT_SAFETENSORS_H

#include "llm/Import/ModelFile.h"

namespace mlir::llm {

/// The tensors of a safetensors file whose bytes are `file`:
///
///   u64 n | n bytes of JSON: name -> dtype, shape, data_offsets | data
///
/// sorted by name, `*.rotary_emb.inv_freq` left out. `path` is for messages.
::llvm::Expected<std::vector<TensorInfo>>
readSafetensors(::llvm::StringRef path, ::llvm::StringRef file);

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_SAFETENSORS_H
