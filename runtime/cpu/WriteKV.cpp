//===- WriteKV.cpp - Tokens into pages, and back --------------------------===//
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
// rounding, a quantization or a copy. K may rotate on the way: in L1, never in
// memory. Floor: bytes read plus bytes written over the bandwidth.
//
//===----------------------------------------------------------------------===//

#include "../Parallel.h"
#include "Kernels.h"

using namespace llm;
using namespace llm::cpu;

namespace {

/// A row of a token, rotated on the way if there is a rope.
class RowReader {
public:
  RowReader(const llm_tensor &from, const Rope *rope)
      : from(from), rope(rope) {}

  const void *read(int64_t token, int64_t head) {
    const int64_t offset = token * from.strides[0] + head * from.strides[1];
    const char *row =
        static_cast<const char *>(from.data) + offset * bytesOf(from.dtype);
    if (!rope)
      return row;
    const auto *angles = static_cast<const float *>(rope->table->data) +
                         token * rope->table->strides[0];
    kernels().rotate(rotated, reinterpret_cast<const float *>(row), angles,
                     from.sizes[2], rope->adjacent);
    return rotated;
  }

private:
  const llm_tensor &from;
  const Rope *rope;
  float rotated[kMaxHeadDim];
};

/// A row of one token and head into its place of K or V.
void writeRow(const KVPlane &to, int64_t block, int64_t head, int64_t token,
              const void *from, llm_dtype type, int64_t n) {
  char *page = to.at(block, head, token);
  if (to.scales)
    *to.scaleAt(block, head, token) =
        kernels().quantize(page, to.dtype, from, type, n);
  else
    kernels().convert(page, to.dtype, from, type, n);
}

/// All heads of token `token` of `from` into a slot of K or V.
void writeToken(const KVPages &pages, const KVPlane &to, int64_t slot,
                const llm_tensor &from, int64_t token, const Rope *rope) {
  RowReader rows(from, rope);
  for (int64_t head = 0; head < pages.kvHeads; ++head)
    writeRow(to, slot / pages.blockSize, head, slot % pages.blockSize,
             rows.read(token, head), from.dtype, pages.headDim);
}

} // namespace

void llm::writeKV(const KVPages &pages, const int64_t *slotMapping,
                  const llm_tensor &k, const llm_tensor &v, const Rope *rope) {
  // Tokens of one range fill about a page of memory: less is not worth a
  // thread.
  int64_t rowBytes = int64_t(pages.kvHeads) * pages.headDim * 4;
  int64_t grain = 1 + 32768 / (rowBytes + 1);
  parallelFor(k.sizes[0], grain, [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      if (slotMapping[token] < 0)
        continue;
      writeToken(pages, pages.k, slotMapping[token], k, token, rope);
      writeToken(pages, pages.v, slotMapping[token], v, token, nullptr);
    }
  });
}

void llm::readRow(const KVPlane &plane, int64_t block, int64_t head,
                  int64_t token, int64_t headDim, void *to, llm_dtype type) {
  const char *from = plane.at(block, head, token);
  if (plane.scales)
    kernels().dequantize(to, type, from, plane.dtype,
                         *plane.scaleAt(block, head, token), headDim);
  else
    kernels().convert(to, type, from, plane.dtype, headDim);
}
