//===- AttentionTile.h - Scores and weighted sums of a few rows --*- C++
//-*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The two products of attention, for up to four rows that share their keys:
//
//   scores:   s[row][key]  = sum over d   of q[row][d] * k[key][d]
//   weighted: o[row][d]   += sum over key of p[row][key] * v[key][d]
//
// K and V lie token by token, so vectors run along d in both. A register tile
// is `kAccumulators` vectors:
//
//   scores    rows x keys: each vector of q and k that is loaded (and widened
//             from f16 or bf16) feeds several accumulators; sumEach then adds
//             up the lanes of all accumulators at once
//   weighted  rows x a strip of d: each vector of v feeds every row, and o
//             stays in registers over the whole tile of keys
//
// One number's additions have one order, whatever the rows beside it are: along
// d and then sumEach's tree for a score, along the keys for an output. This is
// what makes results independent of the batch, of how queries are cut into
// chunks, and of the block size.
//
// Keys are addressed through byte offsets, one per key; how a block table leads
// to them is the business of AttentionKernel.h.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_ATTENTIONTILE_H
#define LLM_RUNTIME_CPU_ATTENTIONTILE_H

#include "Formats.h"
#include "OnlineSoftmax.h"

namespace llm::cpu {
namespace {

/// K or V of a tile: key i of the tile starts at base + offsets[i].
struct Keys {
  const char *base;
  const int64_t *offsets;
  int64_t dim;
};

/// scores computes keys in groups: it may write up to this many scores too
/// many, and reads as many offsets.
constexpr int kKeySlack = kAccumulators;

//===----------------------------------------------------------------------===//
// Scores
//===----------------------------------------------------------------------===//

/// acc[row][key] += q[row][d ..] * k[key], where `loadKey(key)` is k's vector.
template <int NumRows, int NumKeys, typename Load>
inline void multiplyScores(Vec *acc, Rows<const float> q, int64_t d,
                           Load loadKey) {
  Vec row[NumRows];
  LLM_UNROLL
  for (int r = 0; r < NumRows; ++r)
    row[r] = load(q[r] + d);
  LLM_UNROLL
  for (int key = 0; key < NumKeys; ++key) {
    Vec k = loadKey(key);
    LLM_UNROLL
    for (int r = 0; r < NumRows; ++r)
      acc[r * NumKeys + key] = fma(row[r], k, acc[r * NumKeys + key]);
  }
}

/// The lane sums of a register tile, to s[row][0 .. NumKeys).
template <int NumRows, int NumKeys>
inline void storeScores(const Vec *acc, Rows<float> s) {
  float sums[kAccumulators];
  LLM_UNROLL
  for (int i = 0; i < kAccumulators; i += kLanes)
    store(sums + i, sumEach(acc + i));
  LLM_UNROLL
  for (int r = 0; r < NumRows; ++r)
    memcpy(s[r], sums + r * NumKeys, NumKeys * sizeof(float));
}

/// s[row][key] for the keys [begin, end) of the tile; q's rows are padded with
/// zeros to whole vectors.
template <llm_dtype T, int NumRows>
void scores(Rows<const float> q, const Keys &k, int64_t begin, int64_t end,
            Rows<float> s) {
  constexpr int kKeys = kAccumulators / NumRows;
  const int64_t tail = k.dim % kLanes, whole = k.dim - tail;
  for (int64_t key = begin; key < end; key += kKeys) {
    Vec acc[kAccumulators] = {};
    const int64_t *offsets = k.offsets + key;
    for (int64_t d = 0; d < whole; d += kLanes)
      multiplyScores<NumRows, kKeys>(acc, q, d, [&](int i) {
        return load<T>(k.base + offsets[i] + d * bytesOf(T));
      });
    if (tail)
      multiplyScores<NumRows, kKeys>(acc, q, whole, [&](int i) {
        return load<T>(k.base + offsets[i] + whole * bytesOf(T), tail);
      });
    storeScores<NumRows, kKeys>(acc, {s.data + key, s.stride});
  }
}

//===----------------------------------------------------------------------===//
// Weighted sums
//===----------------------------------------------------------------------===//

/// o[row][d ..] += p * v for a strip of `Width` vectors, of which the last has
/// `last` elements.
template <llm_dtype T, int NumRows, int Width, bool Tail>
inline void weightedStrip(Rows<const float> p, const Keys &v, int64_t begin,
                          int64_t end, int64_t d, Rows<float> o) {
  Vec acc[NumRows][Width];
  LLM_UNROLL
  for (int r = 0; r < NumRows; ++r)
    LLM_UNROLL
  for (int i = 0; i < Width; ++i)
    acc[r][i] = load(o[r] + d + i * kLanes);
  for (int64_t key = begin; key < end; ++key) {
    const char *from = v.base + v.offsets[key] + d * bytesOf(T);
    Vec value[Width];
    LLM_UNROLL
    for (int i = 0; i < Width; ++i)
      value[i] = Tail ? load<T>(from, v.dim - d)
                      : load<T>(from + i * kLanes * bytesOf(T));
    LLM_UNROLL
    for (int r = 0; r < NumRows; ++r) {
      Vec weight = splat(p[r][key]);
      LLM_UNROLL
      for (int i = 0; i < Width; ++i)
        acc[r][i] = fma(weight, value[i], acc[r][i]);
    }
  }
  LLM_UNROLL
  for (int r = 0; r < NumRows; ++r)
    LLM_UNROLL
  for (int i = 0; i < Width; ++i)
    store(o[r] + d + i * kLanes, acc[r][i]);
}

/// Strips of `Width` vectors from d on, then narrower ones. Returns where
/// fewer elements than a vector remain.
template <llm_dtype T, int NumRows, int Width>
inline int64_t weightedStrips(Rows<const float> p, const Keys &v, int64_t begin,
                              int64_t end, int64_t d, Rows<float> o) {
  for (; d + Width * kLanes <= v.dim; d += Width * kLanes)
    weightedStrip<T, NumRows, Width, false>(p, v, begin, end, d, o);
  if constexpr (Width > 1)
    return weightedStrips<T, NumRows, (Width > 4 ? 4 : 1)>(p, v, begin, end, d,
                                                           o);
  return d;
}

/// o[row] += p[row][key] * v[key] for the keys [begin, end) of the tile; o's
/// rows are whole vectors.
template <llm_dtype T, int NumRows>
void weighted(Rows<const float> p, const Keys &v, int64_t begin, int64_t end,
              Rows<float> o) {
  constexpr int kWidth = kAccumulators / NumRows > 8 ? 8
                         : kAccumulators / NumRows >= 4
                             ? 4
                             : kAccumulators / NumRows;
  int64_t d = weightedStrips<T, NumRows, kWidth>(p, v, begin, end, 0, o);
  if (d < v.dim)
    weightedStrip<T, NumRows, 1, true>(p, v, begin, end, d, o);
}

//===----------------------------------------------------------------------===//
// Blocks of rows
//===----------------------------------------------------------------------===//

constexpr int kBlockRows = 4;

template <int N>
struct Int {
  static constexpr int value = N;
};

/// Calls fn(Int<n>, first row) for blocks of four rows and what remains.
template <typename Fn>
inline void forRowBlocks(int64_t rows, Fn fn) {
  for (int64_t row = 0; row < rows; row += kBlockRows)
    switch (rows - row) {
    case 1:
      fn(Int<1>{}, row);
      break;
    case 2:
      fn(Int<2>{}, row);
      break;
    case 3:
      fn(Int<3>{}, row);
      break;
    default:
      fn(Int<kBlockRows>{}, row);
    }
}

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_ATTENTIONTILE_H
