//===- Sampler.cpp - From logits to the next token ------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/Sampler.h"

#include "llvm/ADT/STLExtras.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <tuple>

using namespace mlir::llm;

/// The highest of a block, in lanes that are compared side by side.
static float highestOf(llvm::ArrayRef<float> block) {
  constexpr size_t kLanes = 16;
  float lanes[kLanes];
  std::fill(std::begin(lanes), std::end(lanes),
            -std::numeric_limits<float>::infinity());
  for (; block.size() >= kLanes; block = block.drop_front(kLanes))
    for (size_t lane = 0; lane < kLanes; ++lane)
      lanes[lane] = std::max(lanes[lane], block[lane]);
  for (float logit : block)
    lanes[0] = std::max(lanes[0], logit);
  return *std::max_element(std::begin(lanes), std::end(lanes));
}

int32_t mlir::llm::bestToken(llvm::ArrayRef<float> logits) {
  constexpr size_t kBlock = 1024;
  llvm::ArrayRef<float> best = logits.take_front(kBlock);
  float highest = highestOf(best);
  for (llvm::ArrayRef<float> rest = logits.drop_front(best.size());
       !rest.empty(); rest = rest.drop_front(std::min(kBlock, rest.size()))) {
    const llvm::ArrayRef<float> block = rest.take_front(kBlock);
    const float candidate = highestOf(block);
    if (candidate > highest) {
      best = block;
      highest = candidate;
    }
  }
  return std::max_element(best.begin(), best.end()) - logits.begin();
}

int32_t mlir::llm::secondBestToken(llvm::ArrayRef<float> logits) {
  assert(logits.size() > 1 && "a second token needs two");
  const int32_t best = bestToken(logits);
  int32_t second = best == 0 ? 1 : 0;
  for (int32_t i = second + 1, e = logits.size(); i != e; ++i)
    if (i != best && logits[i] > logits[second])
      second = i;
  return second;
}

llvm::ArrayRef<float> Sampler::penalize(llvm::ArrayRef<float> logits,
                                        llvm::ArrayRef<int32_t> before) {
  constexpr size_t kLastTokens = 64;
  penalized = logits.vec();
  for (int32_t token : before.take_back(kLastTokens)) {
    const float logit = logits[token]; // once, if it occurs twice
    penalized[token] = logit > 0 ? float(logit / options.repeatPenalty)
                                 : float(logit * options.repeatPenalty);
  }
  return penalized;
}

void Sampler::weigh(llvm::ArrayRef<float> logits) {
  const double highest = logits[bestToken(logits)];
  candidates.clear();
  candidates.reserve(logits.size());
  for (auto [token, logit] : llvm::enumerate(logits))
    candidates.push_back({static_cast<int32_t>(token),
                          std::exp((logit - highest) / options.temperature)});
}

/// Of equally likely ones, the lower id comes first.
bool Sampler::isLikelier(const Candidate &a, const Candidate &b) {
  return std::tie(b.weight, a.token) < std::tie(a.weight, b.token);
}

double Sampler::totalWeight() const {
  double total = 0;
  for (const Candidate &candidate : candidates)
    total += candidate.weight;
  return total;
}

void Sampler::keepTopK() {
  if (options.topK >= int64_t(candidates.size()))
    return;
  const auto last = candidates.begin() + options.topK;
  std::nth_element(candidates.begin(), last, candidates.end(), isLikelier);
  candidates.erase(last, candidates.end());
  llvm::sort(candidates, isLikelier);
}

void Sampler::keepNucleus() {
  const double total = totalWeight();
  // All tokens below this together have less than 1 - topP: few are left to
  // sort.
  const double negligible =
      total * (1 - options.topP) / double(candidates.size());
  llvm::erase_if(candidates, [&](const Candidate &candidate) {
    return candidate.weight < negligible;
  });
  llvm::sort(candidates, isLikelier);
  double kept = 0;
  auto last = llvm::find_if(candidates, [&](const Candidate &candidate) {
    kept += candidate.weight;
    return kept >= options.topP * total;
  });
  if (last != candidates.end())
    candidates.erase(last + 1, candidates.end());
}

int32_t Sampler::pick(llvm::ArrayRef<float> logits,
                      llvm::ArrayRef<int32_t> before) {
  if (options.repeatPenalty != 1)
    logits = penalize(logits, before);
  if (options.temperature == 0)
    return bestToken(logits);
  weigh(logits);
  if (options.topK > 0)
    keepTopK();
  if (options.topP < 1)
    keepNucleus();
  double rest = uniform() * totalWeight();
  for (const Candidate &candidate : candidates)
    if ((rest -= candidate.weight) < 0)
      return candidate.token;
  return candidates.back().token; // rounding used up the rest
}
