//===- OnlineSoftmax.h - Softmax over keys that come in pieces --*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The state of a row over the keys it has seen, with scores s and values v:
//
//     max  m = max s        sum  l = sum 2^(s - m)       out  o = sum 2^(s -
//     m) v
//
// Scores are multiplied by log2(e), with their scale: powers of 2 are cheaper
// than of e. More scores with maximum m' scale what is there by
// 2^(m - max(m, m')), and two states over disjoint keys merge alike; in the end
// o / l is the row's attention and m ln 2 + log l its log-sum-exp. No score is
// kept.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_ONLINESOFTMAX_H
#define LLM_RUNTIME_CPU_ONLINESOFTMAX_H

#include "Exp.h"
#include "Formats.h"
#include "Kernels.h"

namespace llm::cpu {
namespace {

/// Rows of f32, `stride` floats apart.
template <typename Float>
struct Rows {
  Float *data;
  int64_t stride;
  Float *operator[](int64_t row) const { return data + row * stride; }
};

/// Running maximum, sum and unnormalised output of each row.
struct State {
  float *max;
  float *sum;
  Rows<float> out;
};

constexpr int64_t kDimAlign = 16;

inline int64_t stateFloats(int64_t rows, int64_t headDim) {
  return rows * (roundUp(headDim, kDimAlign) + 2);
}

inline State stateAt(float *data, int64_t rows, int64_t headDim) {
  int64_t stride = roundUp(headDim, kDimAlign);
  float *max = data + rows * stride;
  return {max, max + rows, {data, stride}};
}

inline void clear(const State &state, int64_t rows) {
  for (int64_t row = 0; row < rows; ++row) {
    state.max[row] = -kInfinity;
    state.sum[row] = 0;
  }
  memset(state.out.data, 0, rows * state.out.stride * sizeof(float));
}

inline void scaleRow(float *row, int64_t n, float factor) {
  if (factor == 1) // most tiles leave the maximum as it is
    return;
  for (int64_t d = 0; d < n; d += kLanes)
    store(row + d, load(row + d) * factor);
}

/// Adds state `b`, of later keys, to state `a`. An empty state changes nothing.
inline void merge(const State &a, const State &b, int64_t rows) {
  for (int64_t row = 0; row < rows; ++row) {
    if (b.sum[row] == 0)
      continue;
    float m = a.max[row] > b.max[row] ? a.max[row] : b.max[row];
    float scaleA = decay(a.max[row] - m), scaleB = decay(b.max[row] - m);
    a.max[row] = m;
    a.sum[row] = a.sum[row] * scaleA + b.sum[row] * scaleB;
    for (int64_t d = 0; d < a.out.stride; d += kLanes)
      store(a.out[row] + d,
            load(a.out[row] + d) * scaleA + load(b.out[row] + d) * scaleB);
  }
}

//===----------------------------------------------------------------------===//
// Scores of a tile
//===----------------------------------------------------------------------===//

constexpr float kLog2E = 1.44269504f;
constexpr double kLn2 = 0.693147180559945309;

/// What turns products into scores of base 2 as they are folded: scores that
/// are not a positive multiple of them are computed before (scaleScores).
inline bool isPlain(const AttentionParams &params) {
  return params.softcap == 0 && !params.alibi && params.scale > 0 &&
         params.scale < 1e38f;
}
inline float factorOf(const AttentionParams &params) {
  return isPlain(params) ? params.scale * kLog2E : kLog2E;
}

/// What alibi adds to a tile's scores: slope * (first + lane).
struct Bias {
  float slope, first;
};

inline void addBias(Bias bias, float *s) {
  Vec distance;
  for (int i = 0; i < kLanes; ++i)
    distance[i] = bias.first + float(i);
  for (int64_t i = 0; i < kTileKeys; i += kLanes, distance += float(kLanes))
    store(s + i, fma(splat(bias.slope), distance, load(s + i)));
}

/// scale * s, softly capped, and biased.
inline void scaleScores(const AttentionParams &params, Bias bias, float *s) {
  for (int64_t i = 0; i < kTileKeys; i += kLanes) {
    Vec x = load(s + i) * params.scale;
    if (params.softcap != 0)
      x = tanh(x / params.softcap) * params.softcap;
    store(s + i, x);
  }
  if (bias.slope != 0)
    addBias(bias, s);
}

/// Scores of keys that the row does not see.
inline void maskScores(KeyRange seen, float *s) {
  for (int64_t i = 0; i < seen.begin; ++i)
    s[i] = -kInfinity;
  for (int64_t i = seen.end; i < kTileKeys; ++i)
    s[i] = -kInfinity;
}

/// What is subtracted for a maximum m: 0 if every score so far is -inf.
inline Vec finite(Vec m) { return m == -kInfinity ? Vec{} : m; }

/// Folds a logit without a value into the state of a row.
inline void foldLogit(float logit, const State &state, int64_t row) {
  logit *= kLog2E;
  float m = state.max[row] > logit ? state.max[row] : logit;
  float base = m == -kInfinity ? 0 : m, factor = decay(state.max[row] - base);
  state.max[row] = m;
  state.sum[row] = state.sum[row] * factor + decay(logit - base);
  scaleRow(state.out[row], state.out.stride, factor);
}

/// A tile's scores have to be so much above what a row subtracts, as powers of
/// two, that they take its place: outputs are rarely scaled then, and weights
/// stay small numbers.
constexpr float kMaxSlack = 8;

/// Folds a tile's scores of up to kLanes rows from `row` on into their state,
/// and turns them into weights, factors of the product. Calls scores(i) for
/// those of row i.
template <typename Product, typename Scores>
inline void foldScores(float unit, Scores scores, const State &state,
                       int64_t row, int64_t rows) {
  Vec x[kLanes];
  for (int64_t i = 0; i < kLanes; ++i) {
    const float *s = scores(i < rows ? i : 0);
    Vec top = load(s);
    for (int64_t key = kLanes; key < kTileKeys; key += kLanes)
      top = max(top, load(s + key));
    x[slotOf(i)] = top;
  }
  Vec tile = mergedLanes<Maximum>(x) * unit;
  Vec m = load<LLM_F32>(state.max + row, rows);
  Vec next = tile > m + kMaxSlack ? tile : m;
  const Vec factor = decay(m - finite(next));
  alignas(64) float bases[kLanes];
  store(bases, finite(next));
  for (int64_t i = 0; i < rows; ++i) {
    float *s = scores(i);
    const Vec base = splatAt(bases + i);
    Vec sum = {};
    LLM_UNROLL
    for (int64_t key = 0; key < kTileKeys; key += 2 * kLanes) {
      // No fma: it would not cancel, and what remains of huge scores is huge.
      Vec p = decay(load(s + key) * unit - base);
      Vec later = decay(load(s + key + kLanes) * unit - base);
      Product::storeWeights(s, key, p, later);
      sum = sum + p + later;
    }
    x[slotOf(i)] = sum;
  }
  Vec sums = load<LLM_F32>(state.sum + row, rows);
  sums = sums * factor + mergedLanes<Sum>(x);
  store<LLM_F32>(state.max + row, next, rows);
  store<LLM_F32>(state.sum + row, sums, rows);
  const Vec isScaled = factor == 1.0f ? Vec{} : splat(1.0f);
  if (maxOf(isScaled) == 0)
    return; // as of most tiles
  for (int64_t i = 0; i < rows; ++i)
    scaleRow(state.out[row + i], state.out.stride, factor[i]);
}

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_ONLINESOFTMAX_H
