//===- TensorLayout.h - Where the tensors of a file lie -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_TENSORLAYOUT_H
#define LLM_LIB_IMPORT_TENSORLAYOUT_H

#include "llm/Import/ModelFile.h"

#include <optional>

namespace mlir::llm {

/// Bytes of a tensor. None for a negative size, for a row that does not consist
/// of whole blocks, and for what 63 bits cannot count.
std::optional<uint64_t> tensorBytes(llm_file_format format,
                                    ::llvm::ArrayRef<int64_t> shape);

/// "[64, 32]"
std::string toString(::llvm::ArrayRef<int64_t> shape);

/// Refuses a name given twice. `path` is for messages.
::llvm::Error checkNames(::llvm::StringRef path,
                         ::llvm::ArrayRef<TensorInfo> tensors);

/// Refuses tensors of one file that share bytes.
::llvm::Error checkOverlaps(::llvm::StringRef path,
                            ::llvm::ArrayRef<TensorInfo> tensors);

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_TENSORLAYOUT_H
