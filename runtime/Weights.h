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
// checked shapes; nothing here can fail or allocates.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_WEIGHTS_H
#define LLM_RUNTIME_WEIGHTS_H

#include "llm/Runtime/CAPI.h"

namespace llm {

/// Weights of one quantized block.
constexpr int64_t kQuantBlock = 32;

/// `n` weights at `from` (any alignment; whole blocks) as f32.
void dequantize(llm_file_format format, const void *from, int64_t n, float *to);

/// Bytes that packWeight writes.
int64_t packedBytes(const llm_weight_desc &desc);

/// Concatenates the sources (one per name, in order) along desc.axis, rounds to
/// desc.dtype (nearest even; blocks keep their bits) and lays them out as
/// desc.layout, in parallel. A weight of rank 1 is a matrix of one row.
void packWeight(const llm_weight_desc &desc, const llm_weight_source *sources,
                void *packed);

} // namespace llm

#endif // LLM_RUNTIME_WEIGHTS_H
