//===- Model.h - A compiled model with its weights ------------ -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_MODEL_H
#define LLM_RUNTIME_MODEL_H

#include "Call.h"

#include <atomic>
#include <cstdlib>
#include <mutex>

/// Invocations of different caches may run at the same time: each has a call
/// of its own, which goes back to `idle` with all the memory that it has grown.
struct llm_model {
  struct Free {
    void operator()(void *memory) const { std::free(memory); }
  };
  struct Weight {
    std::vector<llm_weight_source> sources; ///< one per name
    std::vector<char> bound;                ///< one per name
    std::unique_ptr<void, Free> packed;
  };

  llm_model(const llm_program *program, const llm_context &context);

  std::unique_ptr<llm::Call> takeCall();
  void giveBack(std::unique_ptr<llm::Call> call) noexcept;
  llm_model_work work() const;

  const llm_program *const program;
  const int32_t numThreads;
  const std::shared_ptr<llm::Faults> faults;
  std::vector<Weight> weights;
  std::vector<void *> packed;
  int64_t packedBytes = 0;
  bool finished = false;
  /// Versions that compiled code has left behind so far: it should drop all.
  std::atomic<int64_t> leakedVersions = 0;

private:
  mutable std::mutex mutex_;
  llm_model_work work_ = {}; ///< of calls that were given back
  std::vector<std::unique_ptr<llm::Call>> idle_;
  size_t calls_ = 0; ///< that exist: idle_ has room for all
};

#endif // LLM_RUNTIME_MODEL_H
