//===- FakeModel.h - A step model that adds up its tokens -------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_TEST_DRIVER_FAKEMODEL_H
#define LLM_TEST_DRIVER_FAKEMODEL_H

#include "llm/Driver/RuntimeError.h"
#include "llm/Driver/StepModel.h"

#include <cstdio>
#include <map>
#include <set>
#include <vector>

namespace mlir::llm {

/// The best token after some tokens is their sum plus one modulo the
/// vocabulary, the second-best the one after that: whoever feeds a wrong token,
/// or one too many, sees it. Blocks hold 4 tokens; nothing is shared.
class FakeModel final : public StepModel {
public:
  static constexpr int32_t vocabulary = 10;
  static constexpr int64_t blockSize = 4;

  int64_t context = 64;
  int64_t poolBlocks = 1000;

  /// Lengths of the parts of each step that was run, by sequence.
  std::vector<std::map<int32_t, size_t>> steps;
  std::map<int32_t, std::vector<int32_t>> sequences;
  std::set<int32_t> released;

  static int32_t bestAfter(::llvm::ArrayRef<int32_t> tokens) {
    int32_t sum = 1;
    for (int32_t token : tokens)
      sum += token;
    return sum % vocabulary;
  }

  int64_t vocabularySize() const override { return vocabulary; }
  int64_t contextLength() const override { return context; }

  ::llvm::Expected<::llvm::ArrayRef<float>>
  step(::llvm::ArrayRef<StepPart> parts) override {
    if (::llvm::Error error = checkBlocks(parts))
      return error;
    logits.clear();
    steps.emplace_back();
    for (const StepPart &part : parts)
      runPart(part);
    return ::llvm::ArrayRef<float>(logits);
  }

  ::llvm::Error fork(int32_t parent, int32_t child) override {
    sequences[child] = sequences[parent];
    return ::llvm::Error::success();
  }

  ::llvm::Error release(int32_t sequence) override {
    sequences.erase(sequence);
    released.insert(sequence);
    return ::llvm::Error::success();
  }

  /// Each step attends over a byte for each token of its sequences, in 2 ns and
  /// with 3 flops, and appends a byte for each new one in 4 ns.
  ::llvm::Expected<llm_kv_work> work() const override {
    return llm_kv_work{4 * newTokens, newTokens, 2 * seenTokens, seenTokens,
                       3 * seenTokens};
  }

  /// And multiplies each new one by a byte in 5 ns and with 6 flops.
  ::llvm::Expected<llm_model_work> linearWork() const override {
    return llm_model_work{5 * newTokens, newTokens, 6 * newTokens};
  }

private:
  static int64_t blocksFor(int64_t tokens) {
    return (tokens + blockSize - 1) / blockSize;
  }

  ::llvm::Error checkBlocks(::llvm::ArrayRef<StepPart> parts) {
    int64_t free = poolBlocks;
    for (const auto &[id, tokens] : sequences)
      free -= blocksFor(tokens.size());
    for (const StepPart &part : parts) {
      const int64_t length = sequences[part.sequence].size();
      const int64_t needed =
          blocksFor(length + part.tokens.size()) - blocksFor(length);
      if (needed > free)
        return outOfBlocks(part.sequence, needed, free);
      free -= needed;
    }
    return ::llvm::Error::success();
  }

  static ::llvm::Error outOfBlocks(int32_t sequence, int64_t needed,
                                   int64_t free) {
    llm_error error = LLM_ERROR_INIT;
    error.code = LLM_OUT_OF_BLOCKS;
    error.sequence = sequence;
    error.op = "llm.begin_step";
    error.file = "forward";
    std::snprintf(error.message, sizeof(error.message),
                  "sequence %d needs %d more blocks, %d are free", sequence,
                  int(needed), int(free));
    return ::llvm::make_error<RuntimeError>(error);
  }

  void runPart(const StepPart &part) {
    std::vector<int32_t> &tokens = sequences[part.sequence];
    newTokens += part.tokens.size();
    seenTokens += tokens.size() + part.tokens.size();
    steps.back()[part.sequence] = part.tokens.size();
    for (size_t i = 0; i < part.tokens.size(); ++i) {
      tokens.push_back(part.tokens[i]);
      if (int64_t(part.tokens.size() - i) <= part.rows)
        addRow(bestAfter(tokens));
    }
  }

  void addRow(int32_t best) {
    std::vector<float> row(vocabulary, 0);
    row[best] = 2;
    row[(best + 1) % vocabulary] = 1;
    logits.insert(logits.end(), row.begin(), row.end());
  }

  int64_t newTokens = 0, seenTokens = 0;
  std::vector<float> logits;
};

} // namespace mlir::llm

#endif // LLM_TEST_DRIVER_FAKEMODEL_H
