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

/// Adds what was done between two looks.
static void add(llm_kv_work &sum, const llm_kv_work &before,
                const llm_kv_work &after) {
  for (int64_t llm_kv_work::*counter :
       {&llm_kv_work::append_ns, &llm_kv_work::append_bytes,
        &llm_kv_work::attention_ns, &llm_kv_work::attention_bytes,
        &llm_kv_work::attention_flops})
    sum.*counter += after.*counter - before.*counter;
}

Error mlir::llm::measureStep(const StepModel &model, Phase &phase,
                             llvm::function_ref<Error()> step) {
  using Clock = std::chrono::steady_clock;
  Expected<llm_kv_work> before = model.work();
  if (!before)
    return before.takeError();
  const Clock::time_point start = Clock::now();
  if (Error error = step())
    return error;
  phase.seconds += std::chrono::duration<double>(Clock::now() - start).count();
  ++phase.steps;
  Expected<llm_kv_work> after = model.work();
  if (!after)
    return after.takeError();
  add(phase.work, *before, *after);
  return Error::success();
}
