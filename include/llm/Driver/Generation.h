//===- Generation.h - Generating text for a batch of prompts ----*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_GENERATION_H
#define LLM_DRIVER_GENERATION_H

#include "llm/Driver/Phase.h"
#include "llm/Driver/Sampler.h"
#include "llm/Driver/StepModel.h"

#include "llvm/ADT/SmallVector.h"

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace mlir::llm {

struct GenerationOptions {
  SamplerOptions sampler;
  /// Tokens to generate; none: to the end of generation or of the context.
  std::optional<int64_t> maxNewTokens;
  /// Prompt tokens of a step, over all sequences.
  int64_t prefillChunk = 512;
  /// Tokens that end a sequence.
  std::vector<int32_t> stopTokens;
  /// After so many tokens sequence 0 is forked: its sibling, the last sequence
  /// of the result, goes on with the second-best token.
  std::optional<int64_t> forkAt;
  /// Sequences stay in the cache when they end, for `Generator::resume`.
  bool keep = false;
  /// Asked before each step: whether the generation is to end where it is.
  std::function<bool()> interrupted;
  /// Hears of each token as it comes, the stop token included.
  std::function<void(int32_t sequence, int32_t token)> onToken;
};

struct SequenceResult {
  std::vector<int32_t> promptIds;
  /// The generated tokens, with the stop token.
  std::vector<int32_t> ids;
  /// Why it ended early, or empty.
  std::string error;
};

struct GenerationResult {
  std::vector<SequenceResult> sequences;
  Phase prefill, decode;
};

/// Runs all prompts as one ragged batch: first every prompt in chunks, then one
/// token of each live sequence per step. Sequence i of the cache is prompt i.
///
/// A sequence that gets no blocks ends with an error in its result; the step is
/// repeated for the others. Every other error ends the generation.
class Generator {
public:
  Generator(StepModel &model, const GenerationOptions &options)
      : model(model), options(options) {}

  ::llvm::Expected<GenerationResult>
  run(::llvm::ArrayRef<std::vector<int32_t>> prompts);

  /// Goes on with the one sequence that `keep` kept: `tokens` follow what was
  /// generated, in place of a stop token at its end. They and what was not yet
  /// fed are the prompt of the result.
  ::llvm::Expected<GenerationResult> resume(::llvm::ArrayRef<int32_t> tokens);

  /// Tokens of the first sequence, without a stop token at its end.
  int64_t length() const;

private:
  struct Sequence {
    Sequence(int32_t id, const SamplerOptions &options)
        : id(id), sampler(options, id) {}

    ::llvm::ArrayRef<int32_t> pending() const {
      return ::llvm::ArrayRef(tokens).drop_front(fed);
    }
    int64_t numGenerated() const { return tokens.size() - promptLength; }

    int32_t id;
    Sampler sampler;
    std::vector<int32_t> tokens; ///< the prompt, then what was generated
    size_t promptBegin = 0;      ///< those before were there already
    size_t promptLength = 0;     ///< with those before
    size_t fed = 0;              ///< tokens in the cache
    bool live = true;
    std::string error;
  };
  using Parts = ::llvm::SmallVector<StepPart>;

  ::llvm::Error addPrompt(::llvm::ArrayRef<int32_t> prompt);

  /// The next chunk of prompts, and the next token of every live sequence.
  Parts prefillParts();
  Parts decodeParts();

  ::llvm::Error runPhase(Phase &phase, Parts (Generator::*nextParts)());
  ::llvm::Error runStep(Parts &parts, Phase &phase);
  ::llvm::Error endUnfitting(::llvm::Error error, Parts &parts);

  ::llvm::Error advance(const StepPart &part, ::llvm::ArrayRef<float> logits);
  ::llvm::Error take(Sequence &sequence, int32_t token);
  ::llvm::Error forkFirst(::llvm::ArrayRef<float> logits);
  ::llvm::Error end(Sequence &sequence);

  bool isStop(int32_t token) const;
  ::llvm::Expected<GenerationResult> runPhases();
  bool reachedLimit(const Sequence &sequence) const;
  GenerationResult result() const;

  StepModel &model;
  const GenerationOptions &options;
  std::vector<Sequence> sequences; ///< by id
  Phase prefill, decode;
};

} // namespace mlir::llm

#endif // LLM_DRIVER_GENERATION_H
