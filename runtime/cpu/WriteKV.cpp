//===- WriteKV.cpp - Tokens into pages ------------------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
//   k [T, Hkv, D]     token t, head h  -->  block slot / blockSize of head h,
//                                           token slot % blockSize
//
// Each (token, head) is one contiguous row at both ends: a conversion with one
// rounding, or a copy. Floor: bytes read plus bytes written over the bandwidth.
//
//===----------------------------------------------------------------------===//

#include "../Parallel.h"
#include "Kernels.h"

using namespace llm;
using namespace llm::cpu;

namespace {

/// All heads of token `token` of `from` into a slot of K or V.
void writeToken(const KVPages &pages, const KVPlane &to, int64_t slot,
                const llm_tensor &from, int64_t token) {
  const KernelTable &table = kernels();
  const char *row = static_cast<const char *>(from.data) +
                    token * from.strides[0] * bytesOf(from.dtype);
  for (int64_t head = 0; head < pages.kvHeads; ++head)
    table.convert(to.at(slot / pages.blockSize, head, slot % pages.blockSize),
                  to.dtype,
                  row + head * from.strides[1] * bytesOf(from.dtype),
                  from.dtype, pages.headDim);
}

} // namespace

void llm::writeKV(const KVPages &pages, const int64_t *slotMapping,
                  const llm_tensor &k, const llm_tensor &v) {
  // Tokens of one range fill about a page of memory: less is not worth a
  // thread.
  int64_t rowBytes = int64_t(pages.kvHeads) * pages.headDim * 4;
  int64_t grain = 1 + 32768 / (rowBytes + 1);
  parallelFor(k.sizes[0], grain, [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      if (slotMapping[token] < 0)
        continue;
      writeToken(pages, pages.k, slotMapping[token], k, token);
      writeToken(pages, pages.v, slotMapping[token], v, token);
    }
  });
}
