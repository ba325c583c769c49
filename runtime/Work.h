//===- Work.h - What calls of kernels cost ------------------- -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_WORK_H
#define LLM_RUNTIME_WORK_H

#include "llm/Runtime/Attention.h"

#include <chrono>

namespace llm {

/// Adds the nanoseconds of its life to a counter.
class Timer {
public:
  explicit Timer(int64_t &counter) : counter_(counter) {}
  ~Timer() {
    const auto time = Clock::now() - start_;
    counter_ += std::chrono::nanoseconds(time).count();
  }
  Timer(const Timer &) = delete;
  Timer &operator=(const Timer &) = delete;

private:
  using Clock = std::chrono::steady_clock;

  int64_t &counter_;
  Clock::time_point start_ = Clock::now();
};

/// Keys that an attention call needs: those that some query of a row sees, and
/// the pairs of a query and a key that it sees.
struct VisibleKeys {
  int64_t keys = 0;
  int64_t pairs = 0;
};
VisibleKeys countVisibleKeys(const BatchView &batch,
                             const AttentionParams &params);

} // namespace llm

#endif // LLM_RUNTIME_WORK_H
