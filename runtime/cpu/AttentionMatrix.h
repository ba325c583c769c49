//===- AttentionMatrix.h - Tiles by matrix instructions ---------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Many rows, with the products of MatrixTile.h: K and V of a head's tile become
// panels once, then block by block of rows goes through scores, softmax and
// weighted values.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_ATTENTIONMATRIX_H
#define LLM_RUNTIME_CPU_ATTENTIONMATRIX_H

#include "AttentionGroups.h"

namespace llm::cpu {
namespace {

#if defined(LLM_CPU_X86_AMX)

//===----------------------------------------------------------------------===//
// Panels
//===----------------------------------------------------------------------===//

/// Digits of a plane's numbers.
constexpr int planeDigits(llm_dtype type) {
  return type == LLM_F32 ? 3 : type == LLM_F16 || type == LLM_I4 ? 2 : 1;
}

template <llm_dtype T>
inline void packKeyPanel(const Frame &f, int64_t head, KeyRange keys,
                         Ahead &ahead) {
  packKeyDigits<T, planeDigits(T)>(
      f.keys(f.task.pages->k, f.work.kOffsets, head), keys, f.work.keys, ahead);
}

inline void packKeyPanel(const Frame &f, int64_t head, int64_t tile,
                         KeyRange keys) {
  Ahead ahead = afterKeys(f, tile, head);
  switch (f.task.pages->k.dtype) {
  case LLM_F32:
    return packKeyPanel<LLM_F32>(f, head, keys, ahead);
  case LLM_F16:
    return packKeyPanel<LLM_F16>(f, head, keys, ahead);
  case LLM_BF16:
    return packKeyPanel<LLM_BF16>(f, head, keys, ahead);
  case LLM_F8E4M3FN:
    return packKeyPanel<LLM_F8E4M3FN>(f, head, keys, ahead);
  case LLM_I8:
    return packKeyPanel<LLM_I8>(f, head, keys, ahead);
  default:
    break;
  }
  alignas(64) float rows[kTileKeys * kMaxMatrixDim];
  unpackKeys(f, tile, keys, {head, 0, f.dim, rows, kMaxMatrixDim}, ahead);
  locateUnpacked(keys, kMaxMatrixDim, f.work.kOffsets);
  Ahead nothing = nothingAhead();
  packKeyDigits<LLM_F32, planeDigits(LLM_I4)>(
      {reinterpret_cast<const char *>(rows), f.work.kOffsets, f.dim}, keys,
      f.work.keys, nothing);
}

template <llm_dtype T>
inline void packValuePanel(const Frame &f, int64_t head, KeyRange keys,
                           Ahead &ahead) {
  packValueDigits<T, planeDigits(T)>(
      f.keys(f.task.pages->v, f.work.vOffsets, head), keys, f.work.values,
      ahead);
}

inline void packValuePanel(const Frame &f, int64_t head, int64_t tile,
                           KeyRange keys) {
  Ahead ahead = afterValues(f, tile, head);
  switch (f.task.pages->v.dtype) {
  case LLM_F32:
    return packValuePanel<LLM_F32>(f, head, keys, ahead);
  case LLM_F16:
    return packValuePanel<LLM_F16>(f, head, keys, ahead);
  case LLM_BF16:
    return packValuePanel<LLM_BF16>(f, head, keys, ahead);
  case LLM_F8E4M3FN:
    return packValuePanel<LLM_F8E4M3FN>(f, head, keys, ahead);
  case LLM_I8:
    return packValuePanel<LLM_I8>(f, head, keys, ahead);
  default:
    break;
  }
  alignas(64) float rows[kTileKeys * kMaxMatrixDim];
  int64_t offsets[kTileKeys];
  unpackValues(f, tile, keys, {head, 0, f.dim, rows, kMaxMatrixDim}, ahead);
  locateUnpacked(keys, kMaxMatrixDim, offsets);
  Ahead nothing = nothingAhead();
  packValueDigits<LLM_F32, planeDigits(LLM_I4)>(
      {reinterpret_cast<const char *>(rows), offsets, f.dim}, keys,
      f.work.values, nothing);
}

//===----------------------------------------------------------------------===//
// Rows
//===----------------------------------------------------------------------===//

/// Up to kBlockOfRows rows of a head, and a tile of keys whose panels are in
/// the workspace.
struct Block {
  int64_t row, rows, tile;
  Panel k, v;
  const float *kScales, *vScales; ///< of each key, or null
  bool finite;                    ///< all values are
};

/// What some row sees of the tile.
inline KeyRange keysOf(const Frame &f, const Block &b) {
  return {f.visible(b.row, b.tile).begin,
          f.visible(b.row + b.rows - 1, b.tile).end};
}

/// The first n elements at `from`, then zeros.
inline Vec loadPlain(llm_dtype type, const char *from, int64_t n) {
  switch (type) {
  case LLM_F32:
    return load<LLM_F32>(from, n);
  case LLM_F16:
    return load<LLM_F16>(from, n);
  default:
    return load<LLM_BF16>(from, n);
  }
}

/// The score of a key of f32, f16 or bf16.
inline float plainScore(const Frame &f, int64_t row, const char *key) {
  const llm_tensor &q = *f.work.loaded;
  llm_dtype type = f.task.pages->k.dtype;
  const char *from = rowOf<const char>(f.task, q, row, bytesOf(q.dtype));
  Vec sum = {};
  for (int64_t d = 0; d < f.dim; d += kLanes) {
    int64_t n = min(f.dim - d, kLanes);
    sum = fma(loadPlain(q.dtype, from + d * bytesOf(q.dtype), n),
              loadPlain(type, key + d * bytesOf(type), n), sum);
  }
  return sumOf(sum);
}

/// Scores that are NaN, and may be so because of a digit of zero.
inline void mendScores(const Frame &f, const Block &b, int64_t head) {
  const KVPlane &plane = f.task.pages->k;
  if (isQuantized(plane.dtype) || plane.dtype == LLM_I4) // is finite
    return;
  Keys k = f.keys(plane, f.work.kOffsets, head);
  for (int64_t row = b.row; row < b.row + b.rows; ++row) {
    float *s = f.scores(row)[0];
    KeyRange keys = f.visible(row, b.tile);
    for (int64_t i = keys.begin / kLanes * kLanes; i < keys.end; i += kLanes) {
      __m512 x = (__m512)load(s + i);
      if (__builtin_expect(_mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), 0))
        for (int64_t key = max(i, keys.begin); key < min(i + kLanes, keys.end);
             ++key)
          if (s[key] != s[key])
            s[key] = plainScore(f, row, k.at(key, 0));
    }
  }
}

/// Their scores. What lies behind them is overwritten.
inline void scoreBlock(const Frame &f, const Block &b, int64_t head) {
  KeyRange keys = keysOf(f, b);
  multiplyTiles(b.rows, queriesAt(f, b.row), b.k,
                {keys.begin / kLanes, (keys.end + kLanes - 1) / kLanes},
                {0, b.k.steps}, f.scores(b.row), false);
  mendScores(f, b, head);
  for (int64_t row = b.row; b.kScales && row < b.row + b.rows; ++row) {
    float *s = f.scores(row)[0];
    for (int64_t i = 0; i < kTileKeys; i += kLanes)
      store(s + i, load(s + i) * load(b.kScales + i));
  }
}

inline int weightDigits(const Frame &f) {
  return f.task.pages->v.dtype == LLM_F32 ? 3 : 2;
}

/// A row's scores become digits of weights, zeros but for `keys`, which may be
/// none.
template <int Count>
inline void splitWeights(const Block &b, KeyRange keys, float *w) {
  uint64_t seen = keys.begin < keys.end ? ~uint64_t(0) : 0;
  if (seen)
    seen =
        seen << (kTileKeys - keys.end + keys.begin) >> (kTileKeys - keys.end);
  Vec x[kTileKeys / kLanes];
  LLM_UNROLL
  for (int i = 0; i < kTileKeys / kLanes; ++i) {
    Vec scale = b.vScales ? load(b.vScales + i * kLanes) : splat(1);
    x[i] =
        (Vec)_mm512_maskz_mul_ps(static_cast<__mmask16>(seen >> i * kLanes),
                                 (__m512)load(w + i * kLanes), (__m512)scale);
  }
  LLM_UNROLL
  for (int i = 0; i < kTileKeys / kLanes; i += 2)
    storeWeights<Count>(w + i / 2 * kLanes, x[i], x[i + 1]);
}

/// Adds weighted values to `rows` rows from `row` on.
inline void addValues(const Frame &f, int64_t row, int64_t rows, KeyRange steps,
                      const Panel &v, const State &state) {
  RowDigits w = {reinterpret_cast<const char *>(f.scores(row)[0]),
                 4 * kScoreStride, 4 * kDigitFloats, weightDigits(f)};
  Rows<float> out = {state.out[row], state.out.stride};
  if (rows % kTileRows == 0)
    return multiplyTiles(rows, w, v, {0, v.tiles}, steps, out, true);
  // There may be none behind them.
  alignas(64) float copy[kBlockOfRows * kMaxMatrixDim];
  memcpy(copy, out.data, rows * out.stride * sizeof(float));
  multiplyTiles(rows, w, v, {0, v.tiles}, steps, {copy, out.stride}, true);
  memcpy(out.data, copy, rows * out.stride * sizeof(float));
}

/// Adds a row's weighted values, which are not finite: the sums of their digits
/// are.
inline void addPlain(const Frame &f, int64_t row, KeyRange keys, const Panel &v,
                     const State &state) {
  const char *weights = reinterpret_cast<const char *>(f.scores(row)[0]);
  for (int64_t key = keys.begin; key < keys.end; ++key) {
    float w = 0;
    for (int i = 0; i < weightDigits(f); ++i)
      w += load<LLM_BF16>(weights + 4 * i * kDigitFloats + 2 * key, 1)[0];
    for (int64_t tile = 0; tile < v.tiles; ++tile) {
      Vec sum = {};
      for (int i = 0; i < v.count; ++i) {
        UInts pair = bitsOf(load(v.at(i, key / kMatrixDepth, tile) +
                                 key % kMatrixDepth / 2 * kLanes));
        sum += ofBits(key % 2 ? pair & 0xffff0000 : pair << 16);
      }
      float *out = state.out[row] + tile * kLanes;
      store(out, fma(splat(w), sum, load(out)));
    }
  }
}

inline void weighBlock(const Frame &f, const Block &b, const State &state) {
  for (int64_t row = b.row; row < b.row + b.rows; ++row)
    if (weightDigits(f) == 2)
      splitWeights<2>(b, f.visible(row, b.tile), f.scores(row)[0]);
    else
      splitWeights<3>(b, f.visible(row, b.tile), f.scores(row)[0]);
  if (b.finite)
    return addValues(f, b.row, b.rows, stepsOf(keysOf(f, b)), b.v, state);
  alignas(64) float own[kMaxValueFloats];
  for (int64_t row = b.row; row < b.row + b.rows; ++row) {
    KeyRange keys = f.visible(row, b.tile);
    if (keys.begin >= keys.end)
      continue;
    Panel v = copyKeys(own, b.v, keys);
    if (isFinite(v, keys))
      addValues(f, row, 1, stepsOf(keys), v, state);
    else
      addPlain(f, row, keys, v, state);
  }
}

#endif // LLM_CPU_X86_AMX

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_ATTENTIONMATRIX_H
