//===- Work.cpp - What calls of kernels cost ------------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Work.h"

using namespace llm;

VisibleKeys llm::countVisibleKeys(const BatchView &batch,
                                  const AttentionParams &params) {
  VisibleKeys visible;
  for (int32_t row = 0; row < batch.numSequences; ++row) {
    const int64_t queries = batch.cuSeqlens[row + 1] - batch.cuSeqlens[row];
    if (queries == 0)
      continue;
    const auto keysOf = [&](int64_t query) {
      return visibleKeys(params, batch.firstPosition[row] + query,
                         batch.seqLens[row]);
    };
    const auto sinksOf = [&](int64_t query) {
      return visibleSinks(params, batch.firstPosition[row] + query,
                          batch.seqLens[row])
          .end;
    };
    visible.keys +=
        sinksOf(queries - 1) + keysOf(queries - 1).end - keysOf(0).begin;
    for (int64_t query = 0; query < queries; ++query)
      visible.pairs += sinksOf(query) + keysOf(query).end - keysOf(query).begin;
  }
  return visible;
}
