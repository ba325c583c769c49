//===- Generation.cpp - Generating text for a batch of prompts ------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/Generation.h"

#include "llm/Driver/RuntimeError.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/FormatVariadic.h"

#include <algorithm>
#include <cassert>
#include <cmath>

using namespace mlir::llm;
using llvm::ArrayRef;
using llvm::Error;
using llvm::Expected;

template <typename... Args>
static Error makeError(const char *format, Args &&...args) {
  return llvm::createStringError(
      llvm::formatv(format, std::forward<Args>(args)...));
}

//===----------------------------------------------------------------------===//
// Batches
//===----------------------------------------------------------------------===//

Error Generator::addPrompt(ArrayRef<int32_t> prompt) {
  const int32_t id = sequences.size();
  const int64_t length = prompt.size(), context = model.contextLength();
  if (length == 0)
    return makeError("prompt {0} has no tokens", id);
  if (length > context)
    return makeError("prompt {0} has {1} tokens, the context holds {2}", id,
                     length, context);
  Sequence &sequence = sequences.emplace_back(id, options.sampler);
  sequence.tokens = prompt.vec();
  sequence.promptLength = prompt.size();
  return Error::success();
}

Generator::Parts Generator::prefillParts() {
  Parts parts;
  size_t room = options.prefillChunk;
  for (const Sequence &sequence : sequences) {
    if (room == 0)
      break;
    if (!sequence.live || sequence.fed >= sequence.promptLength)
      continue;
    ArrayRef<int32_t> tokens = sequence.pending().take_front(room);
    const bool last = tokens.size() == sequence.pending().size();
    parts.push_back({sequence.id, tokens, last ? 1 : 0});
    room -= tokens.size();
  }
  return parts;
}

Generator::Parts Generator::decodeParts() {
  Parts parts;
  for (const Sequence &sequence : sequences)
    if (sequence.live)
      parts.push_back({sequence.id, sequence.pending(), 1});
  return parts;
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

/// Ends the sequence that `error` names, unless the error is about something
/// else.
Error Generator::endUnfitting(Error error, Parts &parts) {
  return llvm::handleErrors(
      std::move(error), [&](std::unique_ptr<RuntimeError> cause) -> Error {
        auto *part = llvm::find_if(parts, [&](const StepPart &part) {
          return part.sequence == cause->sequence();
        });
        if (!cause->isOutOfBlocks() || part == parts.end())
          return Error(std::move(cause));
        Sequence &sequence = sequences[cause->sequence()];
        sequence.error = cause->message();
        parts.erase(part);
        return end(sequence);
      });
}

/// Runs a step, without those that do not fit.
Error Generator::runStep(Parts &parts, Phase &phase) {
  while (!parts.empty()) {
    Expected<ArrayRef<float>> logits = model.step(parts);
    if (!logits) {
      if (Error error = endUnfitting(logits.takeError(), parts))
        return error;
      continue;
    }
    for (const StepPart &part : parts) {
      const size_t size = part.rows * model.vocabularySize();
      phase.tokens += part.tokens.size();
      if (Error error = advance(part, logits->take_front(size)))
        return error;
      *logits = logits->drop_front(size);
    }
    break;
  }
  return Error::success();
}

Error Generator::runPhase(Phase &phase, Parts (Generator::*nextParts)()) {
  for (Parts parts; !(parts = (this->*nextParts)()).empty();) {
    if (options.interrupted && options.interrupted())
      break;
    if (Error error =
            measureStep(model, phase, [&] { return runStep(parts, phase); }))
      return error;
  }
  return Error::success();
}

//===----------------------------------------------------------------------===//
// Sequences
//===----------------------------------------------------------------------===//

/// Takes note of a part that was run.
Error Generator::advance(const StepPart &part, ArrayRef<float> logits) {
  Sequence &sequence = sequences[part.sequence];
  sequence.fed += part.tokens.size();
  if (part.rows == 0)
    return Error::success();
  if (options.maxNewTokens == 0)
    return end(sequence);
  const bool forks =
      sequence.id == 0 && options.forkAt == sequence.numGenerated();
  const int32_t token = sequence.sampler.pick(logits, sequence.tokens);
  if (!std::isfinite(logits[token]))
    return makeError("logits of sequence {0} at position {1} are not finite",
                     sequence.id, sequence.fed - 1);
  if (forks)
    if (Error error = forkFirst(logits))
      return error;
  return take(sequences[part.sequence], token);
}

/// Appends a new token to a sequence, which may end by it.
Error Generator::take(Sequence &sequence, int32_t token) {
  sequence.tokens.push_back(token);
  if (options.onToken)
    options.onToken(sequence.id, token);
  if (isStop(token) || reachedLimit(sequence))
    return end(sequence);
  return Error::success();
}

bool Generator::isStop(int32_t token) const {
  return llvm::is_contained(options.stopTokens, token);
}

/// True when a sequence that has a new token has as many as it may have: all
/// that are wanted, or one that the context has no room for.
bool Generator::reachedLimit(const Sequence &sequence) const {
  return sequence.numGenerated() == options.maxNewTokens ||
         int64_t(sequence.fed) == model.contextLength();
}

/// Gives sequence 0 a sibling that takes the second-best token.
Error Generator::forkFirst(ArrayRef<float> logits) {
  const int32_t child = sequences.size();
  if (Error error = model.fork(0, child))
    return error;
  Sequence sibling = sequences.front();
  sibling.id = child;
  sibling.sampler = Sampler(options.sampler, child);
  sequences.push_back(std::move(sibling));
  return take(sequences.back(), secondBestToken(logits));
}

Error Generator::end(Sequence &sequence) {
  sequence.live = false;
  if (options.keep)
    return Error::success();
  return model.release(sequence.id);
}

//===----------------------------------------------------------------------===//
// The whole
//===----------------------------------------------------------------------===//

GenerationResult Generator::result() const {
  GenerationResult result{{}, prefill, decode};
  for (const Sequence &sequence : sequences) {
    const ArrayRef<int32_t> tokens = sequence.tokens;
    const auto prompt = tokens.slice(
        sequence.promptBegin, sequence.promptLength - sequence.promptBegin);
    const auto ids = tokens.drop_front(sequence.promptLength);
    result.sequences.push_back({prompt.vec(), ids.vec(), sequence.error});
  }
  return result;
}

Expected<GenerationResult> Generator::runPhases() {
  prefill = decode = Phase();
  if (Error error = runPhase(prefill, &Generator::prefillParts))
    return error;
  if (Error error = runPhase(decode, &Generator::decodeParts))
    return error;
  return result();
}

Expected<GenerationResult>
Generator::run(ArrayRef<std::vector<int32_t>> prompts) {
  sequences.clear();
  for (const std::vector<int32_t> &prompt : prompts)
    if (Error error = addPrompt(prompt))
      return error;
  return runPhases();
}

int64_t Generator::length() const {
  if (sequences.empty())
    return 0;
  const Sequence &sequence = sequences.front();
  const bool stopped =
      sequence.fed < sequence.tokens.size() && isStop(sequence.tokens.back());
  return sequence.tokens.size() - stopped;
}

Expected<GenerationResult> Generator::resume(ArrayRef<int32_t> tokens) {
  assert(sequences.size() == 1 && !sequences[0].live && "none was kept");
  const int64_t before = length(), context = model.contextLength();
  if (before + int64_t(tokens.size()) > context)
    return makeError("{0} tokens after {1} are more than the {2} that the "
                     "context holds",
                     tokens.size(), before, context);
  Sequence &sequence = sequences.front();
  sequence.tokens.resize(before);
  llvm::append_range(sequence.tokens, tokens);
  sequence.promptBegin = sequence.fed;
  sequence.promptLength = sequence.tokens.size();
  sequence.live = true;
  return runPhases();
}
