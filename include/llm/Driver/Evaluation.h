//===- Evaluation.h - Logits and likelihood of given text -------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_EVALUATION_H
#define LLM_DRIVER_EVALUATION_H

#include "llm/Driver/Generation.h"
#include "llm/Driver/StepModel.h"

#include "llvm/ADT/STLFunctionalExtras.h"

#include <optional>
#include <vector>

namespace mlir::llm {

/// Gets the logits after `tokens[position]`.
using LogitsSink = ::llvm::function_ref<::llvm::Error(
    int64_t position, ::llvm::ArrayRef<float> logits)>;

/// Feeds `tokens` to the empty sequence 0 in chunks, hands every row of logits
/// to `sink` in order and releases the sequence. One chunk of rows is in memory
/// at a time.
::llvm::Error evaluate(StepModel &model, ::llvm::ArrayRef<int32_t> tokens,
                       int64_t chunk, Phase &phase, LogitsSink sink);

/// -log softmax(logits)[token] in nats.
double negativeLogLikelihood(::llvm::ArrayRef<float> logits, int32_t token);

/// The likelihood of some tokens, each given those before it.
struct Score {
  int64_t tokens = 0; ///< scored ones
  double total = 0;   ///< negative log-likelihood of all, in nats

  double meanNLL() const { return tokens ? total / tokens : 0; }
  double perplexity() const;
};

/// Scores every token of `sequence` but the first.
::llvm::Error score(StepModel &model, ::llvm::ArrayRef<int32_t> sequence,
                    int64_t chunk, Phase &phase, Score &score);

/// Disjoint windows of `length` tokens; an incomplete last one is left out.
std::vector<::llvm::ArrayRef<int32_t>>
splitWindows(::llvm::ArrayRef<int32_t> tokens, int64_t length,
             std::optional<int64_t> maxWindows);

/// The pieces of `text` between record separators (0x1E).
std::vector<::llvm::StringRef>
splitDocuments(::llvm::StringRef text, std::optional<int64_t> maxDocuments);

} // namespace mlir::llm

#endif // LLM_DRIVER_EVALUATION_H
