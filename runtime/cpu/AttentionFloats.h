//===- AttentionFloats.h - Tiles as floating point --------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Keys and values are multiplied as f32, or as bf16 where the level has dot
// products. Few rows read keys where they lie in their pages, more rows read a
// panel that is packed once for all of them. Scales of quantized pages go to
// scores and weights.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_ATTENTIONFLOATS_H
#define LLM_RUNTIME_CPU_ATTENTIONFLOATS_H

#include "AttentionFrame.h"

namespace llm::cpu {
namespace {

/// Up to so many rows of a head are through with a tile before memory is: they
/// ask for a line at each step of their products, more rows at each block.
inline bool asksAtSteps(const Frame &f) { return f.rowsPerHead <= 64; }

/// Of a head's keys of a tile, `bytes` of each: lines to ask for at a block.
/// Asked for all at once, many would be dropped.
inline int64_t linesOfBlock(const Frame &f, int64_t bytes) {
  return bytes * kTileKeys / kLineBytes * kBlockRows / f.rowsPerHead + 1;
}

//===----------------------------------------------------------------------===//
// Scores
//===----------------------------------------------------------------------===//

/// Scores of a head's rows over `steps` lanes of its keys, from `lane` on, that
/// are packed; a block of rows computes what any of its rows sees.
template <typename Product>
void scorePanel(const Frame &f, int64_t head, int64_t tile, int64_t lane,
                int64_t steps, int64_t lines, Ahead &ahead) {
  forRowBlocks(f.rowsPerHead, [&](auto n, int64_t row) {
    row += head * f.rowsPerHead;
    KeyRange seen = {f.visible(row, tile).begin,
                     f.visible(row + n.value - 1, tile).end};
    if (!asksAtSteps(f))
      ahead.ask(lines);
    if (seen.begin >= seen.end)
      return;
    auto score = [&](auto ask) {
      scores<Product, n.value>(f.q(row, lane), f.work.keys, steps, seen,
                               f.scores(row), lane > 0, ask);
    };
    if (!asksAtSteps(f))
      return score([] {});
    Ahead local = ahead;
    score([&] { local.ask<1>(); });
    ahead = local;
  });
}

/// Scores of every row. Few rows may have a product of their own.
template <typename Product, llm_dtype T, typename Few = Product>
void scoreTile(const Frame &f, int64_t tile, KeyRange keys, const State &) {
  for (int64_t head = 0; head < f.heads; ++head) {
    Keys k = f.keys(f.task.pages->k, f.work.kOffsets, head);
    int64_t first = head * f.rowsPerHead;
    Ahead ahead = afterKeys(f, tile, head);
    if (f.few) {
      forRowBlocks<4>(f.rowsPerHead, [&](auto n, int64_t row) {
        scoresOfFew<Few, T, n.value>(f.q(first + row, 0), k, keys,
                                     f.scores(first + row), ahead);
      });
      continue;
    }
    for (int64_t lane = 0; lane * Product::kDepth < f.dim;
         lane += kPanelLanes) {
      int64_t steps =
          packKeys<Product, T>(k, keys, lane * Product::kDepth, f.work.keys);
      scorePanel<Product>(f, head, tile, lane, steps,
                          linesOfBlock(f, f.dim * bytesOf(T)), ahead);
    }
  }
}

//===----------------------------------------------------------------------===//
// Weighted values
//===----------------------------------------------------------------------===//

/// Adds weighted values v(lane of keys, dim), `dims` of them from `dim` on, to
/// every row of a head. The keys that a block's rows have in common are read
/// once; those before and after are added row by row, so every row gets its
/// keys in order, and none that it does not see. Asks for `lines` at each
/// block.
template <typename Product, int LineBytes, typename LoadV>
void addWeighted(const Frame &f, int64_t head, int64_t tile, const State &state,
                 int64_t dim, int64_t dims, LoadV v, Ahead &ahead,
                 int64_t lines = 0) {
  auto add = [&](auto n, int64_t row, int64_t begin, int64_t end) {
    if (begin < end)
      weighted<Product, n.value, LineBytes>(
          f.weights(row), begin, end, v, dims,
          {state.out[row] + dim, state.out.stride}, ahead);
  };
  forRowBlocks(f.rowsPerHead, [&](auto n, int64_t row) {
    row += head * f.rowsPerHead;
    ahead.ask(lines);
    KeyRange first = f.visible(row, tile);
    KeyRange last = f.visible(row + n.value - 1, tile);
    // A row's pairs are the same ones whatever its neighbours see.
    int64_t begin = first.begin == last.begin
                        ? last.begin
                        : roundUp(last.begin, Product::kDepth);
    int64_t end = first.end == last.end
                      ? last.end
                      : first.end / Product::kDepth * Product::kDepth;
    end = max(end, begin);
    if (first.begin < begin)
      for (int i = 0; i < n.value; ++i) {
        KeyRange keys = f.visible(row + i, tile);
        add(Int<1>{}, row + i, keys.begin, min(begin, keys.end));
      }
    add(n, row, begin, end);
    if (end < last.end)
      for (int i = 0; i < n.value; ++i)
        add(Int<1>{}, row + i, end, f.visible(row + i, tile).end);
  });
}

/// Whether few rows read V in parts, which pairs of i8 are not: outputs have
/// their order (outputPartOf) until the end of a chunk.
template <typename Product, llm_dtype T>
inline bool hasParts(const Frame &f) {
  return (Product::kDepth == 1 || T != LLM_I8) && f.few &&
         f.dim % kLoaded<T> == 0;
}

/// Values of a step, from dimension `dim` on, in parts.
template <typename Product, llm_dtype T>
inline void loadValues(const Keys &v, int64_t step, int64_t dim, Vec *x) {
  const char *from = v.at(step * Product::kDepth, dim * bytesOf(T));
  if constexpr (Product::kDepth == 1) {
    loadParts<Product, T>(from, kLoaded<T>, x);
  } else {
#if defined(LLM_CPU_X86_BF16)
    const char *next = v.at(step * 2 + 1, dim * bytesOf(T));
    if constexpr (T == LLM_F8E4M3FN)
      pairRowsOfF8(load<LLM_F32>(from), load<LLM_F32>(next), x);
    else
      pairRows(load<LLM_F32>(from), load<LLM_F32>(next), x[0], x[1]);
#endif
  }
}

/// The same of values that are packed.
template <typename Product>
void weighPanel(const Frame &f, int64_t head, int64_t tile, const State &state,
                int64_t dim, int64_t dims, int64_t lines, Ahead &ahead) {
  auto add = [&](auto lineBytes, int64_t lines) {
    addWeighted<Product, lineBytes.value>(
        f, head, tile, state, dim, dims,
        [panel = f.work.values](auto width, int64_t step, int64_t d, Vec *x) {
          loadEach<width.value>(panel + step * kValueLanes + d, x);
        },
        ahead, lines);
  };
  if (asksAtSteps(f)) // a line at each
    add(Int<kLineBytes / kBlockVecs>{}, 0);
  else
    add(Int<0>{}, lines);
}

/// Values that are whole vectors, and that few rows use, need no panel.
template <typename Product, llm_dtype T>
void weighTile(const Frame &f, int64_t tile, KeyRange keys,
               const State &state) {
  constexpr int kVecBytes = kLanes * bytesOf(T);
  for (int64_t head = 0; head < f.heads; ++head) {
    Keys v = f.keys(f.task.pages->v, f.work.vOffsets, head);
    Ahead ahead = afterValues(f, tile, head);
    if (hasParts<Product, T>(f)) {
      addWeighted<Product, kVecBytes * Product::kDepth>(
          f, head, tile, state, 0, f.dim,
          [v](auto width, int64_t step, int64_t d, Vec *x) {
            if constexpr (width.value >= kParts<T>)
              LLM_UNROLL
            for (int i = 0; i < width.value; i += kParts<T>)
              loadValues<Product, T>(v, step, d + i * kLanes, x + i);
          },
          ahead);
      continue;
    }
    if (Product::kDepth == 1 && f.few && f.dim % kLanes == 0) {
      addWeighted<FmaProduct, kVecBytes>(
          f, head, tile, state, 0, f.dim,
          [v](auto width, int64_t key, int64_t d, Vec *x) {
            LLM_UNROLL
            for (int i = 0; i < width.value; ++i)
              x[i] = load<T>(v.at(key, (d + i * kLanes) * bytesOf(T)));
          },
          ahead);
      continue;
    }
    for (int64_t dim = 0; dim < f.dim; dim += kValueLanes) {
      int64_t dims = packValues<Product, T>(v, keys, dim, f.work.values);
      weighPanel<Product>(f, head, tile, state, dim, dims,
                          linesOfBlock(f, dims * bytesOf(T)), ahead);
    }
  }
}

/// Outputs in the order of their dimensions.
template <typename Product, llm_dtype T>
void orderOutputs(const Frame &f, const State &state) {
  if (!hasParts<Product, T>(f))
    return;
  float numbers[kLoaded<T>];
  for (int64_t row = 0; row < f.rows; ++row)
    for (int64_t d = 0; d < f.dim; d += kLoaded<T>) {
      float *out = state.out[row] + d;
      for (int64_t i = 0; i < kLoaded<T>; ++i)
        numbers[i] = out[outputPartOf<Product, T>(i)];
      memcpy(out, numbers, sizeof(numbers));
    }
}

//===----------------------------------------------------------------------===//
// Quantized numbers
//===----------------------------------------------------------------------===//

/// The scales of a head's keys of the tile, zero outside of `keys`.
struct TileScales {
  alignas(64) float of[kTileKeys] = {};

  TileScales(const Frame &f, const KVPlane &plane, int64_t head, int64_t tile,
             KeyRange keys) {
    forBlocks(f, tile, keys,
              [&](int64_t block, int64_t slot, int64_t key, int64_t count) {
                memcpy(of + key,
                       plane.scaleAt(block, f.task.headBegin + head, slot),
                       count * sizeof(float));
              });
  }
};

/// Of the weights of a row as bf16, those of keys that it does not see but that
/// are one half of a pair: a scale may have made them NaN.
inline void clearNeighbours(KeyRange seen, float *row) {
  char *weights = reinterpret_cast<char *>(row);
  if (seen.begin % 2)
    memset(weights + 2 * (seen.begin - 1), 0, 2);
  if (seen.end % 2)
    memset(weights + 2 * seen.end, 0, 2);
}

/// Multiplies what a head's rows have of the tile with the scales of its keys,
/// and with `unit`: scores, or weights that become factors of the product.
template <typename Product>
void scaleTile(const Frame &f, const KVPlane &plane, int64_t head, int64_t tile,
               KeyRange keys, float unit) {
  constexpr int64_t kPair = 2 * kLanes;
  TileScales scales(f, plane, head, tile, keys);
  for (int64_t i = 0; i < kTileKeys; i += kLanes)
    store(scales.of + i, load(scales.of + i) * unit);
  int64_t first = head * f.rowsPerHead;
  for (int64_t row = first; row < first + f.rowsPerHead; ++row) {
    float *s = f.scores(row)[0];
    for (int64_t i = keys.begin / kPair * kPair; i < keys.end; i += kPair)
      Product::storeWeights(s, i, load(s + i) * load(scales.of + i),
                            load(s + i + kLanes) *
                                load(scales.of + i + kLanes));
    if (Product::kDepth == 2)
      clearNeighbours(f.visible(row, tile), s);
  }
}

/// Quantized numbers are multiplied as they are: a key's scale is the score's.
template <typename Few, llm_dtype T>
void scoreQuantized(const Frame &f, int64_t tile, KeyRange keys,
                    const State &state) {
  scoreTile<FmaProduct, T, Few>(f, tile, keys, state);
  for (int64_t head = 0; head < f.heads; ++head)
    scaleTile<FmaProduct>(f, f.task.pages->k, head, tile, keys,
                          f.few ? kPartUnit<Few, T> : 1);
}

/// A value's scale is the weight's, of which the sum has been taken.
template <typename Product, llm_dtype T>
void weighQuantized(const Frame &f, int64_t tile, KeyRange keys,
                    const State &state) {
  for (int64_t head = 0; head < f.heads; ++head)
    scaleTile<Product>(f, f.task.pages->v, head, tile, keys,
                       hasParts<Product, T>(f) ? kPartUnit<Product, T> : 1);
  weighTile<Product, T>(f, tile, keys, state);
}

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_ATTENTIONFLOATS_H
