//===- Phase.cpp - What a kind of work took -------------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/Phase.h"

#include <chrono>

using namespace mlir::llm;
using llvm::Error;
using llvm::Expected;

namespace {
/// What steps so far have cost, at one look.
struct Costs {
  llm_kv_work cache;
  llm_model_work linear;
};
} // namespace

static Expected<Costs> lookAt(const StepModel &model) {
  Expected<llm_kv_work> cache = model.work();
  if (!cache)
    return cache.takeError();
  Expected<llm_model_work> linear = model.linearWork();
  if (!linear)
    return linear.takeError();
  return Costs{*cache, *linear};
}

/// Adds `after` to `sum` and takes `before` away.
static void add(Phase &sum, const Costs &before, const Costs &after) {
  for (int64_t llm_kv_work::*counter :
       {&llm_kv_work::append_ns, &llm_kv_work::append_bytes,
        &llm_kv_work::attention_ns, &llm_kv_work::attention_bytes,
        &llm_kv_work::attention_flops})
    sum.work.*counter += after.cache.*counter - before.cache.*counter;
  for (int64_t llm_model_work::*counter :
       {&llm_model_work::linear_ns, &llm_model_work::linear_bytes,
        &llm_model_work::linear_flops})
    sum.linear.*counter += after.linear.*counter - before.linear.*counter;
}

Phase &Phase::operator+=(const Phase &other) {
  tokens += other.tokens;
  seconds += other.seconds;
  steps += other.steps;
  add(*this, /*before=*/{}, /*after=*/{other.work, other.linear});
  return *this;
}

Error mlir::llm::measureStep(const StepModel &model, Phase &phase,
                             llvm::function_ref<Error()> step) {
  using Clock = std::chrono::steady_clock;
  Expected<Costs> before = lookAt(model);
  if (!before)
    return before.takeError();
  const Clock::time_point start = Clock::now();
  if (Error error = step())
    return error;
  phase.seconds += std::chrono::duration<double>(Clock::now() - start).count();
  ++phase.steps;
  Expected<Costs> after = lookAt(model);
  if (!after)
    return after.takeError();
  add(phase, *before, *after);
  return Error::success();
}
