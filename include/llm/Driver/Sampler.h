//===- Sampler.h - From logits to the next token ----------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_SAMPLER_H
#define LLM_DRIVER_SAMPLER_H

#include "llvm/ADT/ArrayRef.h"

#include <cstdint>
#include <random>
#include <vector>

namespace mlir::llm {

/// The highest logit; of equal ones the lowest id.
int32_t bestToken(::llvm::ArrayRef<float> logits);

/// The highest logit but for that of `bestToken`, by the same rule.
int32_t secondBestToken(::llvm::ArrayRef<float> logits);

struct SamplerOptions {
  /// 0: the best token, always.
  double temperature = 0;
  /// Draws from the smallest set of likeliest tokens with this probability.
  double topP = 1;
  uint64_t seed = 0;
  /// Draws from so many of the likeliest tokens; 0: from all.
  int64_t topK = 0;
  /// What makes the last 64 tokens less likely: a positive logit of one of
  /// them is divided by it, another multiplied, however often it occurs.
  double repeatPenalty = 1;
};

/// Draws tokens. The same options, stream and logits give the same tokens, on
/// every machine.
class Sampler {
public:
  /// `stream` tells the sequences of a batch apart.
  explicit Sampler(const SamplerOptions &options, uint64_t stream = 0)
      : options(options), random(options.seed + stream) {}

  /// The token after `before`, of which the logits are.
  int32_t pick(::llvm::ArrayRef<float> logits,
               ::llvm::ArrayRef<int32_t> before = {});

private:
  struct Candidate {
    int32_t token;
    double weight;
  };

  static bool isLikelier(const Candidate &a, const Candidate &b);

  /// The logits, those of tokens at the end of `before` made lower.
  ::llvm::ArrayRef<float> penalize(::llvm::ArrayRef<float> logits,
                                   ::llvm::ArrayRef<int32_t> before);
  /// exp((logit - max) / temperature) of every token.
  void weigh(::llvm::ArrayRef<float> logits);
  /// Cuts the candidates down to the likeliest: so many, or so likely together.
  void keepTopK();
  void keepNucleus();
  double totalWeight() const;
  /// In [0, 1), with 53 random bits.
  double uniform() { return double(random() >> 11) * 0x1p-53; }

  SamplerOptions options;
  std::mt19937_64 random;
  std::vector<Candidate> candidates;
  std::vector<float> penalized;
};

} // namespace mlir::llm

#endif // LLM_DRIVER_SAMPLER_H
