//===- Linear.h - Products with weights -------------------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_LINEAR_H
#define LLM_RUNTIME_LINEAR_H

#include "llm/Runtime/CAPI.h"

#include <vector>

namespace llm {

/// out = x * transpose(w). Callers have checked shapes.
struct LinearOperands {
  const llm_tensor &x; ///< f32 [M, K], rows contiguous
  const llm_tensor &w; ///< [N, K] in LLM_LAYOUT_TILES32, _PANEL32 or _BLOCKS32
  const llm_tensor &out;  ///< f32 [M, N], rows contiguous
  llm_file_format format; ///< of w: LLM_FILE_F32 or BF16, or that of its blocks
  llm_dtype activations;  ///< what x is rounded to first, see llm_rt_linear
};

/// Whether w is in LLM_LAYOUT_TILES32: bf16 [ceil(N / 32), K / 32, 1024], else
/// f32 or bf16 [ceil(N / 32), K, 32].
inline bool isTiled(const llm_tensor &w) {
  return w.dtype == LLM_BF16 && w.sizes[2] == 1024;
}

/// Grows `factors`, its scratch, where that is too small.
void linear(const LinearOperands &operands, std::vector<float> &factors);

/// The part of it that has a weight of blocks.
void linearOfBlocks(const LinearOperands &operands,
                    std::vector<float> &factors);

/// `floats` floats of the scratch, aligned to a line.
float *scratchOf(std::vector<float> &factors, int64_t floats);

} // namespace llm

#endif // LLM_RUNTIME_LINEAR_H
