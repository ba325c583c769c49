//===- Rope.h - Frequencies of the rotary embedding -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_ROPE_H
#define LLM_LIB_IMPORT_ROPE_H

#include "llvm/ADT/ArrayRef.h"

#include <cstdint>
#include <vector>

namespace mlir::llm {

/// How Llama 3.1 stretches positions: long waves by `factor`, short ones not at
/// all, those between by a blend.
struct Llama3Scaling {
  double factor;
  double lowFrequencyFactor;
  double highFrequencyFactor;
  double originalContext;
};

/// base^(-2i / headDim) for i in [0, headDim / 2).
std::vector<double> inverseFrequencies(double base, int64_t headDim);

void scale(std::vector<double> &frequencies, const Llama3Scaling &scaling);

/// What the runtime takes: everything before was f64.
std::vector<float> roundToFloat(::llvm::ArrayRef<double> frequencies);

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_ROPE_H
