//===- Phase.h - What a kind of work took ----------------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_PHASE_H
#define LLM_DRIVER_PHASE_H

#include "llm/Driver/StepModel.h"

#include "llvm/ADT/STLFunctionalExtras.h"

namespace mlir::llm {

/// Steps of one kind, the time that they took and what of it was whose.
struct Phase {
  int64_t tokens = 0;
  double seconds = 0;
  int64_t steps = 0;
  llm_kv_work work = {};
  llm_model_work linear = {};

  Phase &operator+=(const Phase &other);

  double tokensPerSecond() const { return seconds > 0 ? tokens / seconds : 0; }
};

/// Runs `step` as one step more of the phase; who counts tokens is `step`.
::llvm::Error measureStep(const StepModel &model, Phase &phase,
                          ::llvm::function_ref<::llvm::Error()> step);

} // namespace mlir::llm

#endif // LLM_DRIVER_PHASE_H
