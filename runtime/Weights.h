//===- Weights.h - From a file's formats to packed weights ------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A weight argument of a compiled model is one or several tensors of a file,
// concatenated, in the type and layout that compiled code reads. Callers have
// checked shapes and formats; nothing here allocates.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_WEIGHTS_H
#define LLM_RUNTIME_WEIGHTS_H

#include "llm/Runtime/CAPI.h"

namespace llm {

/// Bytes that packWeight writes.
int64_t packedBytes(const llm_weight_desc &desc);

/// Concatenates the sources (one per name, in order) along desc.axis, rounds to
/// desc.dtype (nearest even; blocks of desc.format keep their bits, others are
/// converted as FileBlocks.h says) and lays them out as desc.layout, in
/// parallel. A weight of rank 1 is a matrix of one row. Returns the largest
/// magnitude of a block's number that is beyond f16, else 0.
float packWeight(const llm_weight_desc &desc, const llm_weight_source *sources,
                 void *packed);

} // namespace llm

#endif // LLM_RUNTIME_WEIGHTS_H
