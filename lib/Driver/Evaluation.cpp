//===- Evaluation.cpp - Logits and likelihood of given text ---------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/Evaluation.h"

#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringRef.h"

#include <algorithm>
#include <cmath>

using namespace mlir::llm;
using llvm::ArrayRef;
using llvm::Error;
using llvm::Expected;
using llvm::StringRef;

static Error evaluateChunk(StepModel &model, ArrayRef<int32_t> tokens,
                           int64_t begin, Phase &phase, LogitsSink sink) {
  const StepPart part = {0, tokens, int64_t(tokens.size())};
  ArrayRef<float> logits;
  if (Error error = measureStep(
          model, phase, [&] { return model.step(part).moveInto(logits); }))
    return error;
  phase.tokens += tokens.size();
  const int64_t vocabulary = model.vocabularySize();
  for (int64_t i = 0, e = tokens.size(); i != e; ++i)
    if (Error error = sink(begin + i, logits.slice(i * vocabulary, vocabulary)))
      return error;
  return Error::success();
}

Error mlir::llm::evaluate(StepModel &model, ArrayRef<int32_t> tokens,
                          int64_t chunk, Phase &phase, LogitsSink sink) {
  const int64_t length = tokens.size();
  for (int64_t begin = 0; begin < length; begin += chunk)
    if (Error error = evaluateChunk(
            model, tokens.slice(begin, std::min(chunk, length - begin)), begin,
            phase, sink))
      return error;
  return model.release(0);
}

double mlir::llm::negativeLogLikelihood(ArrayRef<float> logits, int32_t token) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (float logit : logits)
    total += std::exp(logit - highest);
  return std::log(total) + highest - logits[token];
}

double Score::perplexity() const { return std::exp(meanNLL()); }

Error mlir::llm::score(StepModel &model, ArrayRef<int32_t> sequence,
                       int64_t chunk, Phase &phase, Score &score) {
  if (sequence.size() < 2)
    return Error::success();
  return evaluate(model, sequence.drop_back(), chunk, phase,
                  [&](int64_t position, ArrayRef<float> logits) -> Error {
                    score.total +=
                        negativeLogLikelihood(logits, sequence[position + 1]);
                    ++score.tokens;
                    return Error::success();
                  });
}

std::vector<ArrayRef<int32_t>>
mlir::llm::splitWindows(ArrayRef<int32_t> tokens, int64_t length,
                        std::optional<int64_t> maxWindows) {
  std::vector<ArrayRef<int32_t>> windows;
  for (; int64_t(tokens.size()) >= length; tokens = tokens.drop_front(length)) {
    if (int64_t(windows.size()) == maxWindows)
      break;
    windows.push_back(tokens.take_front(length));
  }
  return windows;
}

std::vector<StringRef>
mlir::llm::splitDocuments(StringRef text, std::optional<int64_t> maxDocuments) {
  llvm::SmallVector<StringRef> documents;
  text.split(documents, '\x1e');
  if (maxDocuments && int64_t(documents.size()) > *maxDocuments)
    documents.truncate(*maxDocuments);
  return {documents.begin(), documents.end()};
}
