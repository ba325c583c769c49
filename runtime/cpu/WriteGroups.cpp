//===- WriteGroups.cpp - Groups of i4 into pages, and back ----------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
//   k [T, Hkv, D]   tokens of one group, head h  -->  codes and params of the
//                                                     group, or its exact rows
//
// A work item is a group at one head: 32 rows are quantized channel by channel,
// in stripes that stay in L1, so that a prompt never touches exact rows. Floor:
// bytes read plus bytes written over the bandwidth.
//
//===----------------------------------------------------------------------===//

#include "../Parallel.h"
#include "Kernels.h"

#include <algorithm>
#include <cstring>

using namespace llm;
using namespace llm::cpu;

/// Channels that are read or quantized at once.
static constexpr int64_t kStripe = 256;

//===----------------------------------------------------------------------===//
// Writing
//===----------------------------------------------------------------------===//

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

/// A group of K at one head, and the tokens that go into it.
class GroupRows {
public:
  GroupRows(const KVPages &pages, const GroupWrite &write, int64_t head,
            const llm_tensor &k, const Rope *rope)
      : pages(pages), write(write), head(head), type(k.dtype), rows(k, rope) {}

  void keep() {
    for (int64_t row = write.begin; row < write.begin + write.count; ++row)
      kernels().convert(exactRow(row), LLM_F32, given(row), type,
                        pages.headDim);
  }

  void quantize() {
    auto *codes = reinterpret_cast<uint8_t *>(
        pages.k.groupAt(write.block, head, write.group));
    uint32_t *params = pages.k.groupParamsAt(write.block, head, write.group);
    for (int64_t first = 0; first < pages.headDim; first += kStripe) {
      const int64_t n = std::min(pages.headDim - first, kStripe);
      for (int64_t row = 0; row < kGroupSize; ++row)
        readStripe(row, first, n);
      kernels().quantizeTokens(codes + codeBytes(first), pages.k.tokenStride,
                               params + first, stripe[0], kStripe, n);
    }
  }

private:
  float *exactRow(int64_t row) const {
    return pages.k.exactRow(write.block, head, write.group, row, pages.headDim);
  }
  const char *given(int64_t row) {
    return static_cast<const char *>(
        rows.read(write.token + row - write.begin, head));
  }
  void readStripe(int64_t row, int64_t first, int64_t n) {
    if (row < write.begin)
      memcpy(stripe[row], exactRow(row) + first, n * sizeof(float));
    else
      kernels().convert(stripe[row], LLM_F32,
                        given(row) + first * bytesOf(type), type, n);
  }

  const KVPages &pages;
  const GroupWrite &write;
  const int64_t head;
  const llm_dtype type;
  RowReader rows;
  float stripe[kGroupSize][kStripe];
};

} // namespace

void llm::writeGroups(const KVPages &pages, const GroupWrite *groups,
                      int64_t count, const llm_tensor &k, const Rope *rope) {
  const int64_t items = count * pages.kvHeads;
  const int64_t bytes = k.sizes[0] * pages.kvHeads * pages.headDim * 4;
  const int64_t grain = 1 + 32768 * items / (bytes + 1);
  parallelFor(items, grain, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const GroupWrite &write = groups[item / pages.kvHeads];
      GroupRows rows(pages, write, item % pages.kvHeads, k, rope);
      if (write.completes)
        rows.quantize();
      else
        rows.keep();
    }
  });
}

void llm::reopenGroup(const KVPages &pages, int64_t block, int64_t group,
                      int64_t rows) {
  const KVPlane &page = pages.k;
  for (int64_t head = 0; head < pages.kvHeads; ++head)
    for (int64_t row = 0; row < rows; ++row)
      kernels().readTokens(
          page.exactRow(block, head, group, row, pages.headDim),
          reinterpret_cast<uint8_t *>(page.groupAt(block, head, group)) +
              row * page.tokenStride,
          page.groupParamsAt(block, head, group), pages.headDim);
}

//===----------------------------------------------------------------------===//
// Reading
//===----------------------------------------------------------------------===//

namespace {

/// Channels [first, first + n) of a token, as f32.
void readGroupStripe(const KVPlane &plane, int64_t block, int64_t head,
                     int64_t token, int64_t headDim, int64_t first, int64_t n,
                     float *to) {
  if (plane.params)
    return kernels().readChannels(
        to,
        reinterpret_cast<uint8_t *>(plane.at(block, head, token)) +
            codeBytes(first),
        plane.paramsAt(block, head, token, headDim) + groupsOf(first), n);
  const int64_t group = token / kGroupSize, row = token % kGroupSize;
  if (plane.isExact(block, group))
    memcpy(to, plane.exactRow(block, head, group, row, headDim) + first,
           n * sizeof(float));
  else
    kernels().readTokens(
        to,
        reinterpret_cast<uint8_t *>(plane.groupAt(block, head, group)) +
            row * plane.tokenStride + codeBytes(first),
        plane.groupParamsAt(block, head, group) + first, n);
}

} // namespace

void llm::readGroups(const KVPlane &plane, int64_t block, int64_t head,
                     int64_t token, int64_t headDim, void *to, llm_dtype type) {
  float stripe[kStripe];
  for (int64_t first = 0; first < headDim; first += kStripe) {
    const int64_t n = std::min(headDim - first, kStripe);
    readGroupStripe(plane, block, head, token, headDim, first, n, stripe);
    kernels().convert(static_cast<char *>(to) + first * bytesOf(type), type,
                      stripe, LLM_F32, n);
  }
}
