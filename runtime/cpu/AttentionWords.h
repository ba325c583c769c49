//===- AttentionWords.h - Tiles as integers of 16 bits ----------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Many rows multiply pages of up to 16 bits as words (WordTile.h): K and V of a
// head's tile become panels, which stay in the first-level cache while blocks
// of rows pass, each from scores to outputs.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_ATTENTIONWORDS_H
#define LLM_RUNTIME_CPU_ATTENTIONWORDS_H

#include "AttentionFloats.h"
#include "AttentionGroups.h"

namespace llm::cpu {
namespace {

#if defined(LLM_CPU_X86_VNNI)

//===----------------------------------------------------------------------===//
// Planes
//===----------------------------------------------------------------------===//

/// K or V of a head's tile.
struct WordPlane {
  Keys keys;
  llm_dtype type; ///< of `keys`: LLM_F32 where they were unpacked
  TileScales scales;
  alignas(64) float steps[kTileKeys] = {};
  uint64_t plain = 0; ///< a bit for each key that is

  bool isPlain(int64_t key) const { return plain >> key & 1; }
};

/// Calls fn(Int<type>) for what a plane of words can be of.
template <typename Fn>
inline auto withWordType(llm_dtype type, Fn fn) {
  switch (type) {
  case LLM_F32:
    return fn(Int<LLM_F32>{});
  case LLM_F16:
    return fn(Int<LLM_F16>{});
  case LLM_BF16:
    return fn(Int<LLM_BF16>{});
  case LLM_F8E4M3FN:
    return fn(Int<LLM_F8E4M3FN>{});
  default:
    return fn(Int<LLM_I8>{});
  }
}

inline Vec numbersOf(llm_dtype type, const Keys &keys, int64_t key, int64_t d) {
  return withWordType(type, [&](auto t) {
    return numbersOf<llm_dtype(t.value)>(keys, key, d);
  });
}

inline void packKeyWords(const Frame &f, int64_t tile, int64_t head,
                         KeyRange keys, WordPlane &k, float *unpacked) {
  Ahead ahead = afterKeys(f, tile, head);
  if (k.type == LLM_F32) {
    unpackKeys(f, tile, keys, {head, 0, f.dim, unpacked, kMaxWordDim}, ahead);
    ahead = nothingAhead();
  }
  k.plain = withWordType(k.type, [&](auto t) {
    return packKeyWords<llm_dtype(t.value)>(k.keys, keys, k.scales.of,
                                            f.work.keys, k.steps, ahead);
  });
}

inline void packValueWords(const Frame &f, int64_t tile, int64_t head,
                           KeyRange keys, WordPlane &v, float *unpacked) {
  Ahead ahead = afterValues(f, tile, head);
  if (v.type == LLM_F32) {
    unpackValues(f, tile, keys, {head, 0, f.dim, unpacked, kMaxWordDim}, ahead);
    ahead = nothingAhead();
  }
  v.plain = withWordType(v.type, [&](auto t) {
    return packValueWords<llm_dtype(t.value)>(v.keys, keys, v.scales.of,
                                              f.work.values, v.steps, ahead);
  });
}

//===----------------------------------------------------------------------===//
// Blocks of rows
//===----------------------------------------------------------------------===//

/// So many rows' queries, scores and outputs stay beside the panels.
constexpr int64_t kRowsOfWords = 48;

struct WordBlock {
  int64_t row, rows, tile;
  const WordPlane &k, &v;

  /// What some of `count` rows from `first` on see of the tile.
  KeyRange seen(const Frame &f, int64_t first, int64_t count) const {
    return {f.visible(first, tile).begin,
            f.visible(first + count - 1, tile).end};
  }
};

/// What a row that is plain, or a key, has for a score.
inline float plainScore(const Frame &f, const WordBlock &b, int64_t row,
                        int64_t key) {
  constexpr int64_t kNone = 0;
  const llm_tensor &q = *f.work.loaded;
  const Keys queries = {rowOf<const char>(f.task, q, row, bytesOf(q.dtype)),
                        &kNone, f.dim};
  Vec sum = {};
  for (int64_t d = 0; d < f.dim; d += kLanes)
    sum = fma(numbersOf(q.dtype, queries, 0, d),
              numbersOf(b.k.type, b.k.keys, key, d), sum);
  return sumOf(sum) * (isQuantized(b.k.type) ? b.k.scales.of[key] : 1);
}

inline void scoreWords(const Frame &f, const WordBlock &b) {
  forRowBlocks(b.rows, [&](auto n, int64_t row) {
    row += b.row;
    const KeyRange seen = b.seen(f, row, n.value);
    if (seen.begin >= seen.end)
      return;
    forStrips<kBlockVecs>(
        seen.begin / kLanes * kLanes, roundUp(seen.end, kLanes),
        [&](auto width, int64_t key) {
          multiply<WordProduct, n.value, width.value>(
              f.q(row, 0), 0, (f.dim + 1) / 2,
              [&](int64_t step, Vec *factors) {
                loadEach<width.value>(f.work.keys + step * kTileKeys + key,
                                      factors);
              },
              [](int, int) { return Vec{}; },
              [&](int r, int i, Vec sum) {
                const int64_t at = key + i * kLanes;
                Vec step = load(b.k.steps + at) * f.work.qSteps[row + r];
                store(f.scores(row)[r] + at,
                      __builtin_convertvector((Ints)sum, Vec) * step);
              },
              [] {});
        });
  });
  for (int64_t row = b.row; row < b.row + b.rows; ++row) {
    const float step = f.work.qSteps[row];
    if (!b.k.plain && step == step)
      continue;
    const KeyRange seen = f.visible(row, b.tile);
    for (int64_t key = seen.begin; key < seen.end; ++key)
      if (b.k.isPlain(key) || step != step)
        f.scores(row)[0][key] = plainScore(f, b, row, key);
  }
}

/// Adds plain values, which a row's weights are no words beside.
inline void addPlainValues(const Frame &f, const WordBlock &b,
                           const State &state) {
  for (int64_t row = b.row; row < b.row + b.rows; ++row) {
    const KeyRange seen = f.visible(row, b.tile);
    for (int64_t key = seen.begin; key < seen.end; ++key) {
      if (!b.v.isPlain(key))
        continue;
      const float scale = isQuantized(b.v.type) ? b.v.scales.of[key] : 1;
      const Vec weight = splat(f.scores(row)[0][key] * scale);
      float *out = state.out[row];
      for (int64_t d = 0; d < f.dim; d += kLanes)
        store(out + d, fma(weight, numbersOf(b.v.type, b.v.keys, key, d),
                           load(out + d)));
    }
  }
}

/// Turns the weights of up to kLanes rows into words, and returns their steps.
inline Vec roundWeights(const Frame &f, const WordPlane &v, int64_t row,
                        int64_t rows) {
  Vec x[kLanes] = {};
  for (int64_t i = 0; i < rows; ++i) {
    Vec sum = {};
    for (int64_t key = 0; key < kTileKeys; key += kLanes)
      sum = fma(load(f.scores(row)[i] + key), load(v.steps + key), sum);
    x[slotOf(i)] = sum;
  }
  const Vec sums = mergedLanes<Sum>(x);
  // What is less adds nothing to what a row has of other keys.
  const Vec factors = sums > 0x1p-100f ? kWeightWords / sums : Vec{};
  for (int64_t i = 0; i < rows; ++i) {
    float *weights = f.scores(row)[i];
    for (int64_t key = 0; key < kTileKeys; key += kWordDepth) {
      auto word = [&](int64_t at) {
        return load(weights + at) * load(v.steps + at) * factors[i];
      };
      store(weights + key / 2, ofBits(wordsOf(word(key), word(key + kLanes))));
    }
  }
  return sums / kWeightWords;
}

inline void weighWords(const Frame &f, const WordBlock &b, const State &state) {
  if (b.v.plain)
    addPlainValues(f, b, state);
  alignas(64) float steps[kRowsOfWords];
  for (int64_t i = 0; i < b.rows; i += kLanes)
    store(steps + i, roundWeights(f, b.v, b.row + i, min(b.rows - i, kLanes)));
  const int64_t dims = roundUp(f.dim, kLanes);
  forRowBlocks(b.rows, [&](auto n, int64_t first) {
    const int64_t row = b.row + first;
    const KeyRange seen = b.seen(f, row, n.value);
    if (seen.begin >= seen.end)
      return;
    // A row has no weight for what it does not see.
    forStrips<kBlockVecs>(0, dims, [&](auto width, int64_t d) {
      multiply<WordProduct, n.value, width.value>(
          f.weights(row), seen.begin / 2, (seen.end + 1) / 2,
          [&](int64_t step, Vec *factors) {
            loadEach<width.value>(f.work.values + step * dims + d, factors);
          },
          [](int, int) { return Vec{}; },
          [&](int r, int i, Vec sum) {
            float *out = state.out[row + r] + d + i * kLanes;
            store(out, fma(__builtin_convertvector((Ints)sum, Vec),
                           splat(steps[first + r]), load(out)));
          },
          [] {});
    });
  });
}

#endif // LLM_CPU_X86_VNNI

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_ATTENTIONWORDS_H
