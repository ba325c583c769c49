//===- WriteKV.cpp - Tokens into pages, and back --------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Divides tokens over threads: see WriteKernel.h.
//
//===----------------------------------------------------------------------===//

#include "../Parallel.h"
#include "Kernels.h"

using namespace llm;
using namespace llm::cpu;

/// So much of K and V together is read again from memory anyway: attention
/// after a smaller write finds it in a cache of 2 MB (November 2026: append and
/// one read of 512 KB of bf16 take 101 us so, 108 us past the caches; of 1 MB
/// 230 and 204; of 8 MB 2205 and 1891).
static constexpr int64_t kStreamedBytes = int64_t(1) << 20;

void llm::writeKV(const KVPages &pages, const int64_t *slotMapping,
                  const llm_tensor &k, const llm_tensor &v, const Rope *rope) {
  const int64_t tokens = k.sizes[0];
  const int64_t row = int64_t(pages.kvHeads) * pages.headDim;
  const int64_t bytes = bytesOf(pages.k.dtype) + bytesOf(pages.v.dtype);
  const bool streaming = tokens * row * bytes >= kStreamedBytes;
  // Tokens of one range fill about a page of memory: less is not worth a
  // thread. Streams stop at the end of a range.
  const int64_t grain = 1 + (streaming ? 8 : 1) * 32768 / (row * 4 + 1);
  parallelFor(tokens, grain, [&](int64_t begin, int64_t end) {
    kernels().writeTokens(
        {&pages, slotMapping, &k, &v, rope, begin, end, streaming});
  });
}

void llm::readRow(const KVPlane &plane, int64_t block, int64_t head,
                  int64_t token, int64_t headDim, void *to, llm_dtype type) {
  if (plane.dtype == LLM_I4)
    return readGroups(plane, block, head, token, headDim, to, type);
  const char *from = plane.at(block, head, token);
  if (plane.scales)
    kernels().dequantize(to, type, from, plane.dtype,
                         *plane.scaleAt(block, head, token), headDim);
  else
    kernels().convert(to, type, from, plane.dtype, headDim);
}
