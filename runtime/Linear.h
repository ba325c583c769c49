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
  const llm_tensor &x;   ///< f32 [M, K], rows contiguous, K a multiple of 32
  const llm_tensor &w;   ///< bf16 [N, K] in LLM_LAYOUT_TILES32
  const llm_tensor &out; ///< f32 [M, N], rows contiguous
  bool rounded;          ///< x is rounded to bf16 first
};

/// Grows `factors`, its scratch, where that is too small.
void linear(const LinearOperands &operands, std::vector<float> &factors);

} // namespace llm

#endif // LLM_RUNTIME_LINEAR_H
