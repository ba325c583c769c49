//===- AttentionTile.h - Products of rows with a tile of keys ----*- C++
//-*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Both products of attention are one loop, c[row][lane] += a[row][step] *
// b[step][lane], over register tiles of kBlockRows x kBlockVecs accumulators:
//
//             a          b                               c
//   scores    queries    keys, [dim][key]: a panel       scores  [row][key]
//   weighted  weights    values, [key][dim]              outputs [row][dim]
//
// Each vector of b feeds kBlockRows accumulators, and each splat of a
// kBlockVecs: 24 products need 10 loads. K lies token by token in its pages,
// so the panel is K transposed (packKeys), once for all rows; nothing is ever
// summed across lanes.
//
// `Product` says what a step is. FmaProduct: one number, widened to f32. With
// DotProduct it is a pair of bf16, and a lane of a or b holds both halves.
//
// One number's additions have one order, whatever the rows beside it are: along
// dim for a score, along the keys for an output. This is what makes results
// independent of the batch, of how queries are cut into chunks, and of the
// block size.
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

/// Lines of the tile to come. The hardware prefetches within a page only, and
/// many requests at once would hold up the loads of this tile: they are asked
/// for one by one, half of them while keys turn and half of them while few rows
/// are multiplied, PerStep at a time. PerStep is 0 for many rows: they multiply
/// for longer than memory takes.
template <int PerStep>
struct Ahead {
  const char *const *next;
  const char *const *end; ///< may be read, too

  /// While a step is multiplied.
  void askAtStep() {
    for (int i = 0; i < PerStep; ++i) {
      __builtin_prefetch(*next, 0, 2);
      next += next < end;
    }
  }
  /// While a vector of each of kLanes keys turns.
  void askAtTurn() {
    int64_t count = min(PerStep ? kLanes : 2 * kLanes, end - next);
    for (int64_t i = 0; i < count; ++i)
      __builtin_prefetch(next[i], 0, 2);
    next += count;
  }
};

//===----------------------------------------------------------------------===//
// What a step multiplies
//===----------------------------------------------------------------------===//

struct FmaProduct {
  static constexpr int kDepth = 1; ///< numbers of one lane
  static Vec multiply(Vec a, Vec b, Vec c) { return fma(a, b, c); }

  /// The first n elements at `from` as lanes, then zeros.
  template <llm_dtype T>
  static Vec lanes(const char *from, int64_t n) {
    return load<T>(from, n);
  }
  /// Weights as factors, in place.
  static void round(float *) {}
};

#if defined(LLM_CPU_X86_BF16)
struct DotProduct {
  static constexpr int kDepth = 2;
  static Vec multiply(Vec a, Vec b, Vec c) { return dot(a, b, c); }

  template <llm_dtype T>
  static Vec lanes(const char *from, int64_t n) {
    return loadPacked<T>(from, n);
  }
  static void round(float *p) {
    for (int64_t i = 0; i < kTileKeys; i += kLanes)
      store<LLM_BF16>(reinterpret_cast<char *>(p) + 2 * i, load(p + i));
  }
};
constexpr bool kHasDots = true;
using BestProduct = DotProduct;
#else
constexpr bool kHasDots = false;
using BestProduct = FmaProduct;
#endif

//===----------------------------------------------------------------------===//
// The product
//===----------------------------------------------------------------------===//

template <int N>
struct Int {
  static constexpr int value = N;
};

/// Calls fn(Int<width>, begin) for strips of `Width` vectors, then narrower
/// ones, that cover [begin, end): whole vectors.
template <int Width, typename Fn>
inline void forStrips(int64_t begin, int64_t end, Fn fn) {
  for (; begin + Width * kLanes <= end; begin += Width * kLanes)
    fn(Int<Width>{}, begin);
  if constexpr (Width > 1)
    forStrips<Width / 2>(begin, end, fn);
}

/// Calls fn(Int<n>, first row) for blocks of kBlockRows rows and what remains.
template <int N = kBlockRows, typename Fn>
inline void forRowBlocks(int64_t rows, Fn fn, int64_t row = 0) {
  for (; row + N <= rows; row += N)
    fn(Int<N>{}, row);
  if constexpr (N > 1)
    forRowBlocks<N - 1>(rows, fn, row);
}

/// c[row] (+)= the sum over steps of a[row][step] * b(step, i), a vector.
template <typename Product, int NumRows, int Width, typename LoadB,
          typename Ahead>
inline void multiply(Rows<const float> a, int64_t begin, int64_t end, LoadB b,
                     Rows<float> c, bool add, Ahead &ahead) {
  auto lines = ahead;
  Vec acc[NumRows][Width];
  LLM_UNROLL
  for (int r = 0; r < NumRows; ++r)
    LLM_UNROLL
  for (int i = 0; i < Width; ++i)
    acc[r][i] = add ? load(c[r] + i * kLanes) : Vec{};
  LLM_NO_UNROLL
  for (int64_t step = begin; step < end; ++step) {
    lines.askAtStep();
    Vec factors[Width];
    LLM_UNROLL
    for (int i = 0; i < Width; ++i)
      factors[i] = b(step, i);
    LLM_UNROLL
    for (int r = 0; r < NumRows; ++r) {
      Vec factor = splatAt(a[r] + step);
      LLM_UNROLL
      for (int i = 0; i < Width; ++i)
        acc[r][i] = Product::multiply(factor, factors[i], acc[r][i]);
    }
  }
  LLM_UNROLL
  for (int r = 0; r < NumRows; ++r)
    LLM_UNROLL
  for (int i = 0; i < Width; ++i)
    store(c[r] + i * kLanes, acc[r][i]);
  ahead = lines;
}

//===----------------------------------------------------------------------===//
// Scores
//===----------------------------------------------------------------------===//

/// Lanes of a panel, of K or V: a longer head_dim takes several.
constexpr int64_t kPanelLanes = 256;

/// One number, or two, of each of kLanes keys: a row of the panel, or two.
template <typename Product, llm_dtype T>
inline void storeKeys(float *to, Vec packed) {
  if constexpr (T == LLM_F32 || Product::kDepth == 2) {
    store(to, packed);
  } else {
    Vec first, second;
    unpack<T>(packed, first, second);
    store(to, first);
    store(to + kTileKeys, second);
  }
}

/// The panel [lane of dim][key] of the vectors of keys that hold `keys`, from
/// dimension `dim` on. Returns its lanes of dim. Keys turn as they lie in
/// memory, f16 and bf16 in pairs: it takes half of the shuffles.
template <typename Product, llm_dtype T, typename Ahead>
int64_t packKeys(const Keys &k, KeyRange keys, int64_t dim, float *panel,
                 Ahead &ahead) {
  constexpr int64_t kStep = kLanes * 4 / bytesOf(T);
  constexpr int64_t kRow = kTileKeys * 4 / bytesOf(T) / Product::kDepth;
  int64_t end = min(k.dim, dim + kPanelLanes * Product::kDepth);
  for (int64_t key = keys.begin / kLanes * kLanes; key < keys.end;
       key += kLanes) {
    float *to = panel + key;
    for (int64_t d = dim; d < end; d += kStep, to += kLanes * kRow) {
      Vec x[kLanes];
      ahead.askAtTurn();
      auto from = [&](int i) {
        return k.base + k.offsets[key + i] + d * bytesOf(T);
      };
      if (d + kStep <= end) {
        LLM_UNROLL
        for (int i = 0; i < kLanes; ++i)
          x[i] = load<LLM_F32>(from(i));
      } else {
        LLM_UNROLL
        for (int i = 0; i < kLanes; ++i)
          x[i] = loadPacked<T>(from(i), end - d);
      }
      transpose(x);
      LLM_UNROLL
      for (int i = 0; i < kLanes; ++i)
        storeKeys<Product, T>(to + i * kRow, x[i]);
    }
  }
  return (end - dim + Product::kDepth - 1) / Product::kDepth;
}

/// s[row][key] (+)= q[row] * the panel, for the vectors that hold `keys`.
template <typename Product, int NumRows, typename Ahead>
void scores(Rows<const float> q, const float *panel, int64_t steps,
            KeyRange keys, Rows<float> s, bool add, Ahead &ahead) {
  forStrips<kBlockVecs>(keys.begin / kLanes * kLanes, roundUp(keys.end, kLanes),
                        [&](auto width, int64_t key) {
                          multiply<Product, NumRows, width.value>(
                              q, 0, steps,
                              [&](int64_t step, int i) {
                                return load(panel + step * kTileKeys + key +
                                            i * kLanes);
                              },
                              {s.data + key, s.stride}, add, ahead);
                        });
}

//===----------------------------------------------------------------------===//
// Weighted sums
//===----------------------------------------------------------------------===//

/// The panel [lane of keys][dim] of `keys`, from dimension `dim` on. Returns
/// its whole vectors' dimensions.
template <typename Product, llm_dtype T>
int64_t packValues(const Keys &v, KeyRange keys, int64_t dim, float *panel) {
  constexpr int kDepth = Product::kDepth;
  int64_t end = min(v.dim, dim + kPanelLanes);
  for (int64_t step = keys.begin / kDepth; step * kDepth < keys.end; ++step) {
    float *to = panel + step * kPanelLanes;
    for (int64_t d = dim; d < end; d += kLanes, to += kLanes) {
      Vec value = {};
      LLM_UNROLL
      for (int i = 0; i < kDepth; ++i) {
        const char *from = v.base + v.offsets[step * kDepth + i];
        Vec x = load<T>(from + d * bytesOf(T), min(end - d, kLanes));
        // Of two bf16, each in the upper half of its lane, the first goes down.
        value = ofBits(bitsOf(value) >> 16 | bitsOf(x));
      }
      store(to, value);
    }
  }
  return roundUp(end - dim, kLanes);
}

/// o[row] += p[row][key] * v(lane of keys, dim) for the keys [begin, end) and
/// the dimensions [0, dims). Of a pair of keys only those in the range enter.
template <typename Product, int NumRows, typename LoadV, typename Ahead>
void weighted(Rows<const float> p, int64_t begin, int64_t end, LoadV v,
              int64_t dims, Rows<float> o, Ahead &ahead) {
  constexpr int kWidth = NumRows > 2 ? kBlockVecs : 2 * kBlockVecs;
  auto add = [&](int64_t first, int64_t last, auto load) {
    forStrips<kWidth>(0, dims, [&](auto width, int64_t d) {
      multiply<Product, NumRows, width.value>(
          p, first, last,
          [&](int64_t step, int i) { return load(step, d + i * kLanes); },
          {o.data + d, o.stride}, true, ahead);
    });
  };
  if constexpr (Product::kDepth == 1) {
    add(begin, end, v);
  } else {
    auto masked = [&](uint32_t mask) {
      return [=](int64_t step, int64_t d) {
        return ofBits(bitsOf(v(step, d)) & mask);
      };
    };
    if (begin % 2)
      add(begin / 2, begin / 2 + 1, masked(0xffff0000));
    add((begin + 1) / 2, end / 2, v);
    if (end % 2)
      add(end / 2, end / 2 + 1, masked(0xffff));
  }
}

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_ATTENTIONTILE_H
