//===- Batch.h - Operations of compiled code without a step --- -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_BATCH_H
#define LLM_RUNTIME_BATCH_H

#include "Call.h"

namespace llm {

/// LLM_INVALID_ARGUMENT unless the cache has one layer.
Status checkOneLayer(const PagedKVCache &version);

/// 0 .. n - 1: the sequences of a batch without a step.
std::span<const int32_t> firstIds(Call &call, int64_t n);

/// k, v [B, S, Hkv, D]: a step of sequences 0 .. B - 1.
Status appendBatch(Call &call, PagedKVCache &version, const llm_tensor *k,
                   const llm_tensor *v);

/// q, out [B, S, Hq, D], lse null or [B, S, Hq]: the queries are the last S
/// positions of sequences 0 .. B - 1.
Status attendBatch(Call &call, PagedKVCache &version, const llm_tensor &q,
                   const llm_attention_params &params, const llm_tensor &out,
                   const llm_tensor *lse, const llm_extras &extras);

} // namespace llm

#endif // LLM_RUNTIME_BATCH_H
