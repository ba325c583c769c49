//===- AttentionPlan.h - How attention is cut for threads -------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_ATTENTIONPLAN_H
#define LLM_RUNTIME_ATTENTIONPLAN_H

#include "llm/Runtime/Attention.h"

#include <memory>

namespace llm {

/// How the work of an attention call is cut for threads, and memory for what
/// they leave each other. The layers of a step do the same work: whoever passes
/// one plan to all of them plans once. One call at a time.
class AttentionPlan {
public:
  AttentionPlan();
  ~AttentionPlan();
  AttentionPlan(AttentionPlan &&) noexcept;
  AttentionPlan &operator=(AttentionPlan &&) noexcept;

private:
  friend void pagedAttention(const KVPages &, const BatchView &,
                             const AttentionParams &, const llm_tensor &,
                             const llm_tensor &, const llm_tensor *,
                             AttentionPlan *);
  struct Work;
  std::unique_ptr<Work> work;
};

} // namespace llm

#endif // LLM_RUNTIME_ATTENTIONPLAN_H
