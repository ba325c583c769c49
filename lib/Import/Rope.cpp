//===- Rope.cpp - Frequencies of the rotary embedding ---------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Rope.h"

#include <cmath>
#include <numbers>

using namespace mlir::llm;

std::vector<double> mlir::llm::inverseFrequencies(double base,
                                                  int64_t headDim) {
  std::vector<double> frequencies(headDim / 2);
  for (size_t i = 0; i < frequencies.size(); ++i)
    frequencies[i] = std::pow(base, -2.0 * double(i) / double(headDim));
  return frequencies;
}

static double scaled(double frequency, const Llama3Scaling &scaling) {
  // Waves of the original context, by which the formula draws its limits.
  double waves = scaling.originalContext * frequency / (2 * std::numbers::pi);
  if (waves > scaling.highFrequencyFactor)
    return frequency;
  if (waves < scaling.lowFrequencyFactor)
    return frequency / scaling.factor;
  double smooth = (waves - scaling.lowFrequencyFactor) /
                  (scaling.highFrequencyFactor - scaling.lowFrequencyFactor);
  return (1 - smooth) * frequency / scaling.factor + smooth * frequency;
}

void mlir::llm::scale(std::vector<double> &frequencies,
                      const Llama3Scaling &scaling) {
  for (double &frequency : frequencies)
    frequency = scaled(frequency, scaling);
}

std::vector<float> mlir::llm::roundToFloat(llvm::ArrayRef<double> frequencies) {
  return {frequencies.begin(), frequencies.end()};
}
