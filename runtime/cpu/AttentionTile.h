//===- AttentionTile.h - Products of rows with a tile of keys ---*- C++ -*-===//
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

  const char *at(int64_t key, int64_t byte) const {
    return base + offsets[key] + byte;
  }
};

/// Memory that lies in one piece, and again `step` bytes further for each head.
struct Run {
  const char *begin, *end;
  int64_t step;
};

/// What a head has of a tile: up to the run that begins at null, to be asked
/// for in pieces of so many bytes.
struct Runs {
  static constexpr int64_t kMost = 256;
  Run of[kMost + 1];
  int64_t piece;
};

/// Asks for what a head reads next while it is being read, one line for each,
/// in several streams in turn: memory answers four rows of lines faster than
/// one, and as near as this the lines still are in the first-level cache when
/// they are read. A CPU drops what it has no room to remember: each line is
/// asked for once more, half a piece later.
class Ahead {
public:
  static constexpr int kStreams = 4;

  /// The share of the task's head `head`.
  Ahead(const Runs &runs, int64_t head)
      : next(runs.of), head(head), piece(runs.piece) {
    // Asking for nothing is dear: there is no page at null.
    for (const char *&stream : streams)
      stream = reinterpret_cast<const char *>(runs.of);
    begin = next->begin + head * next->step;
    take();
  }
  /// The next lines.
  template <int Lines>
  void ask() {
    LLM_UNROLL
    for (int i = 0; i < Lines / kStreams; ++i)
      askEach();
    LLM_UNROLL
    for (int i = 0; i < Lines % kStreams; ++i)
      askOne();
  }

  /// The same, in whole turns.
  void ask(int64_t lines) {
    for (; lines > 0; lines -= kStreams)
      askEach();
  }

private:
  void advance() {
    at += step;
    if (__builtin_expect(at >= end, 0))
      take();
  }
  void askEach() {
    LLM_UNROLL
    for (int i = 0; i < kStreams; ++i) {
      __builtin_prefetch(streams[i] + at);
      __builtin_prefetch(streams[i] + at - piece / 2);
    }
    advance();
  }
  void askOne() {
    __builtin_prefetch(streams[turn] + at);
    turn = (turn + 1) % kStreams;
    if (turn == 0)
      advance();
  }

  /// The next pieces of the runs; as many as there are, then the first again.
  void take() {
    at = end = step = 0;
    for (const char *&stream : streams) {
      stream = streams[0];
      if (!next->begin)
        continue;
      const char *last = next->end + head * next->step;
      stream = begin;
      begin += piece;
      step = kLineBytes;
      if (begin < last) {
        end = piece;
        continue;
      }
      end = max(end, last - stream);
      ++next;
      begin = next->begin + head * next->step;
    }
    end = step ? end : 1;
  }

  const char *streams[kStreams] = {};
  int64_t at, end, step; ///< of each stream
  unsigned turn = 0;
  const Run *next;
  int64_t head, piece;
  const char *begin; ///< of what is left of the run at `next`
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
  /// Weights of the keys from `key` on, and of those behind, as factors of a
  /// row.
  static void storeWeights(float *row, int64_t key, Vec p, Vec later) {
    store(row + key, p);
    store(row + key + kLanes, later);
  }
};

#if defined(LLM_CPU_X86_BF16)
struct DotProduct {
  static constexpr int kDepth = 2;
  static Vec multiply(Vec a, Vec b, Vec c) { return dot(a, b, c); }

  template <llm_dtype T>
  static Vec lanes(const char *from, int64_t n) {
    return loadPacked<T>(from, n);
  }
  /// No weight is subnormal (decay), which this instruction flushes.
  static void storeWeights(float *row, int64_t key, Vec p, Vec later) {
    store(row + key / 2, packBF16(p, later));
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

template <int Width>
inline void loadEach(const float *from, Vec *to) {
  LLM_UNROLL
  for (int i = 0; i < Width; ++i)
    to[i] = load(from + i * kLanes);
}

/// Calls fn(Int<width>, begin) for strips of `Width` vectors, then narrower
/// ones, that cover [begin, end): whole vectors.
template <int Width, typename Fn>
inline void forStrips(int64_t begin, int64_t end, Fn fn) {
  for (; begin + Width * kLanes <= end; begin += Width * kLanes)
    fn(Int<Width>{}, begin);
  if constexpr (Width > 1)
    forStrips<Width / 2>(begin, end, fn);
}

/// Calls fn(Int<n>) for n = count, of 1 to N.
template <int N, typename Fn>
inline void withCount(int64_t count, Fn fn) {
  if constexpr (N > 1)
    if (count < N)
      return withCount<N - 1>(count, fn);
  fn(Int<N>{});
}

/// Calls fn(Int<n>, first row) for blocks of N rows. What is left of more than
/// one are two halves: few rows have too few sums to keep a CPU busy.
template <int N = kBlockRows, typename Fn>
inline void forRowBlocks(int64_t rows, Fn fn, int64_t row = 0) {
  while (row < rows) {
    int64_t left = rows - row;
    int64_t count = left >= 2 * N ? N : left > N ? (left + 1) / 2 : left;
    withCount<N>(count, [&](auto n) { fn(n, row); });
    row += count;
  }
}

/// Calls finish(row, i, sum) with start(row, i) + the sum over steps of
/// a[row][step] * b, of which b(step, to) loads Width vectors, for vector i of
/// these. Calls ask() at each step.
template <typename Product, int NumRows, int Width, typename LoadB,
          typename Start, typename Finish, typename Ask>
inline void multiply(Rows<const float> a, int64_t begin, int64_t end, LoadB b,
                     Start start, Finish finish, Ask ask) {
  Vec acc[NumRows][Width];
  LLM_UNROLL
  for (int r = 0; r < NumRows; ++r)
    LLM_UNROLL
  for (int i = 0; i < Width; ++i)
    acc[r][i] = start(r, i);
  LLM_NO_UNROLL
  for (int64_t step = begin; step < end; ++step) {
    Vec factors[Width];
    ask();
    b(step, factors);
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
    finish(r, i, acc[r][i]);
}

/// c[row] (+)= that sum.
template <typename Product, int NumRows, int Width, typename LoadB,
          typename Ask>
inline void multiply(Rows<const float> a, int64_t begin, int64_t end, LoadB b,
                     Rows<float> c, bool add, Ask ask) {
  multiply<Product, NumRows, Width>(
      a, begin, end, b,
      [&](int r, int i) { return add ? load(c[r] + i * kLanes) : Vec{}; },
      [&](int r, int i, Vec sum) { store(c[r] + i * kLanes, sum); }, ask);
}

//===----------------------------------------------------------------------===//
// Scores
//===----------------------------------------------------------------------===//

/// Dimensions of a panel of K: a longer head_dim takes several.
constexpr int64_t kPanelLanes = 256;

/// Numbers of a key that turn at once: f16 and bf16 in pairs, as they lie in
/// memory. It takes half of the shuffles.
template <llm_dtype T>
constexpr int64_t kTurned = kLanes * (T == LLM_F16 || T == LLM_BF16 ? 2 : 1);

/// One number, or two, of each of kLanes keys: a row of the panel, or two.
template <typename Product, llm_dtype T>
inline void storeKeys(float *to, Vec packed) {
  if constexpr (kTurned<T> == kLanes || Product::kDepth == 2) {
    store(to, packed);
  } else {
    Vec first, second;
    unpack<T>(packed, first, second);
    store(to, first);
    store(to + kTileKeys, second);
  }
}

/// Dimensions d to d + n - 1 of kLanes keys, turned: lane i of x[j] is the j-th
/// number or pair of key i, zeros beyond n.
template <llm_dtype T>
inline void turnKeys(const Keys &k, int64_t key, int64_t d, int64_t n, Vec *x) {
  LLM_UNROLL
  for (int i = 0; i < kLanes; ++i) {
    const char *from = k.at(key + i, d * bytesOf(T));
    if constexpr (isQuantized(T))
      x[i] = load<T>(from, n);
    else
      x[i] = n == kTurned<T> ? load<LLM_F32>(from) : loadPacked<T>(from, n);
  }
  transpose(x);
}

/// The panel [lane of dim][key] of the vectors of keys that hold `keys`, from
/// dimension `dim` on. Returns its lanes of dim.
template <typename Product, llm_dtype T>
int64_t packKeys(const Keys &k, KeyRange keys, int64_t dim, float *panel) {
  constexpr int64_t kStep = kTurned<T>;
  constexpr int64_t kRow = kTileKeys * kStep / kLanes / Product::kDepth;
  int64_t end = min(k.dim, dim + kPanelLanes * Product::kDepth);
  for (int64_t key = keys.begin / kLanes * kLanes; key < keys.end;
       key += kLanes) {
    float *to = panel + key;
    for (int64_t d = dim; d < end; d += kStep, to += kLanes * kRow) {
      Vec x[kLanes];
      turnKeys<T>(k, key, d, min(end - d, kStep), x);
      LLM_UNROLL
      for (int i = 0; i < kLanes; ++i)
        storeKeys<Product, T>(to + i * kRow, x[i]);
    }
  }
  return (end - dim + Product::kDepth - 1) / Product::kDepth;
}

/// s[row][key] (+)= q[row] * the panel, for the vectors that hold `keys`.
template <typename Product, int NumRows, typename Ask>
void scores(Rows<const float> q, const float *panel, int64_t steps,
            KeyRange keys, Rows<float> s, bool add, Ask ask) {
  forStrips<kBlockVecs>(keys.begin / kLanes * kLanes, roundUp(keys.end, kLanes),
                        [&](auto width, int64_t key) {
                          multiply<Product, NumRows, width.value>(
                              q, 0, steps,
                              [&](int64_t step, Vec *factors) {
                                loadEach<width.value>(
                                    panel + step * kTileKeys + key, factors);
                              },
                              {s.data + key, s.stride}, add, ask);
                        });
}

//===----------------------------------------------------------------------===//
// Parts
//===----------------------------------------------------------------------===//

/// f8E4M3FN becomes f32 by way of f16, two bytes of a lane apart.
template <llm_dtype T>
constexpr bool kIsHalved = T == LLM_F8E4M3FN && kLanes == 16;

/// Numbers of type T that are loaded at once, and the vectors they make.
template <llm_dtype T>
constexpr int64_t kLoaded = kLanes * (T == LLM_F32   ? 1
                                      : kIsHalved<T> ? 4
                                                     : 2);
template <llm_dtype T>
constexpr int kParts = kLoaded<T> / kLanes;

/// Where number i of kLoaded ends up: parts of some types are the even numbers,
/// then the odd ones.
template <llm_dtype T>
constexpr bool kHasEvenParts = T == LLM_BF16 || kIsHalved<T>;
template <llm_dtype T>
constexpr int64_t partOf(int64_t i) {
  return kHasEvenParts<T> ? i % 2 * (kLoaded<T> / 2) + i / 2 : i;
}

/// The same of outputs: pairs of rows leave dot products in another order.
template <typename Product, llm_dtype T>
constexpr int64_t outputPartOf(int64_t i) {
  if (Product::kDepth == 2 && isQuantized(T))
    return i % 16 / 4 * kLanes + i / 16 * 4 + i % 4;
  if (Product::kDepth == 2)
    return i % 8 / 4 * kLanes + i / 8 * 4 + i % 4;
  return partOf<T>(i);
}

/// What parts are to be multiplied with.
template <typename Product, llm_dtype T>
constexpr float kPartUnit = kIsHalved<T> && Product::kDepth == 1 ? 0x1p8f : 1;

#if defined(LLM_CPU_X86_V4)
/// The first n of 64 bytes, then zeros.
inline UInts loadBytes(const char *from, int64_t n) {
  return n >= 64 ? (UInts)_mm512_loadu_si512(from)
                 : (UInts)_mm512_maskz_loadu_epi8((uint64_t(1) << n) - 1, from);
}

/// The first n of 64 f8E4M3FN: as f16, 2^-8 of them.
inline void loadHalved(const char *from, int64_t n, Vec *x) {
  __m512i bytes = (__m512i)loadBytes(from, n);
  const __m512i mask = _mm512_set1_epi16(static_cast<short>(0xbf80));
  // The sign goes down with the other bits, and stays: the mask takes one.
  auto halves = [&](__m512i upper, Vec *to) {
    __m512i half = _mm512_and_si512(_mm512_srai_epi16(upper, 1), mask);
    to[0] = fromF16((Halves)_mm512_castsi512_si256(half));
    to[1] = fromF16((Halves)_mm512_extracti64x4_epi64(half, 1));
  };
  halves(_mm512_slli_epi16(bytes, 8), x);
  halves(bytes, x + 2);
}
#endif

/// The vectors of loadParts.
template <typename Product, llm_dtype T>
constexpr int kFactors = Product::kDepth == 2 && T == LLM_BF16 ? 1 : kParts<T>;

/// The first n of kLoaded numbers at `from`, then zeros, each at its partOf, or
/// as the pairs that Product multiplies: those of f8 twice, since queries
/// beside them are two bf16, of which the second, what the first leaves, leaves
/// less than 2^-17 (splitPairs).
template <typename Product, llm_dtype T>
inline void loadParts(const char *from, int64_t n, Vec *x) {
  if constexpr (Product::kDepth == 2 && T == LLM_F8E4M3FN) {
#if defined(LLM_CPU_X86_BF16)
    pairsOfF8(ofBits(loadBytes(from, n)), x[0], x[1]);
    x[2] = x[0], x[3] = x[1];
#endif
  } else if constexpr (Product::kDepth == 2) {
    x[0] = loadPacked<T>(from, n);
  } else if constexpr (T == LLM_BF16) {
    unpack<T>(loadPacked<T>(from, n), x[0], x[1]);
  } else if constexpr (kIsHalved<T>) {
#if defined(LLM_CPU_X86_V4)
    loadHalved(from, n, x);
#endif
  } else {
    for (int i = 0; i < kParts<T>; ++i)
      x[i] = load<T>(from + i * kLanes * bytesOf(T),
                     min(max(n - i * kLanes, 0), kLanes));
  }
}

//===----------------------------------------------------------------------===//
// Scores of few rows
//===----------------------------------------------------------------------===//

/// s[row][key] = q[row] * k[key] for NumRows rows and as many keys as make
/// kLanes scores: each is summed lane by lane along dim, then over the lanes.
template <typename Product, llm_dtype T, int NumRows, bool Whole>
inline void scoresOfKeys(Rows<const float> q, const Keys &k, int64_t key,
                         Rows<float> s, Ahead &ahead) {
  constexpr int kParts = kFactors<Product, T>;
  constexpr int kSlots = NumRows == 3 ? 4 : NumRows; // rows, a power of two
  constexpr int kKeys = kLanes / kSlots;
  Vec acc[kSlots][kKeys] = {};
  LLM_NO_UNROLL
  for (int64_t d = 0; d < k.dim; d += kLoaded<T>) {
    int64_t n = Whole ? kLoaded<T> : min(k.dim - d, kLoaded<T>);
    const float *factors = q.data + d / kLoaded<T> * kParts * kLanes;
    ahead.ask<kKeys>();
    Vec x[kKeys][kParts];
    LLM_UNROLL
    for (int i = 0; i < kKeys; ++i)
      loadParts<Product, T>(k.at(key + i, d * bytesOf(T)), n, x[i]);
    LLM_UNROLL
    for (int p = 0; p < kParts; ++p)
      LLM_UNROLL
    for (int r = 0; r < NumRows; ++r) {
      Vec factor = load(factors + r * q.stride + p * kLanes);
      LLM_UNROLL
      for (int i = 0; i < kKeys; ++i)
        acc[r][i] = Product::multiply(factor, x[i][p], acc[r][i]);
    }
  }
  // The score of row r and key i belongs into lane r * kKeys + i.
  Vec x[kLanes];
  LLM_UNROLL
  for (int lane = 0; lane < kLanes; ++lane)
    x[slotOf(lane)] = acc[lane / kKeys][lane % kKeys];
  Vec sums = mergedLanes<Sum>(x);
  LLM_UNROLL
  for (int r = 0; r < NumRows; ++r)
    memcpy(s[r] + key, reinterpret_cast<const float *>(&sums) + r * kKeys,
           kKeys * sizeof(float));
}

/// The same for the vectors that hold `keys`.
template <typename Product, llm_dtype T, int NumRows>
void scoresOfFew(Rows<const float> q, const Keys &k, KeyRange keys,
                 Rows<float> s, Ahead &asked) {
  constexpr int kKeys = kLanes / (NumRows == 3 ? 4 : NumRows);
  Ahead ahead = asked;
  bool whole = k.dim % kLoaded<T> == 0;
  for (int64_t key = keys.begin / kKeys * kKeys; key < keys.end; key += kKeys)
    if (whole)
      scoresOfKeys<Product, T, NumRows, true>(q, k, key, s, ahead);
    else
      scoresOfKeys<Product, T, NumRows, false>(q, k, key, s, ahead);
  asked = ahead;
}

//===----------------------------------------------------------------------===//
// Weighted sums
//===----------------------------------------------------------------------===//

/// Dimensions of a panel of V, which stays in L1 while all rows pass.
constexpr int64_t kValueLanes = 64;

/// The panel [lane of keys][dim] of `keys`, from dimension `dim` on. Returns
/// its whole vectors' dimensions.
template <typename Product, llm_dtype T>
int64_t packValues(const Keys &v, KeyRange keys, int64_t dim, float *panel) {
  constexpr int kDepth = Product::kDepth;
  int64_t end = min(v.dim, dim + kValueLanes);
  for (int64_t step = keys.begin / kDepth; step * kDepth < keys.end; ++step) {
    float *to = panel + step * kValueLanes;
    for (int64_t d = dim; d < end; d += kLanes, to += kLanes) {
      Vec value = {};
      LLM_UNROLL
      for (int i = 0; i < kDepth; ++i) {
        const char *from = v.base + v.offsets[step * kDepth + i];
        Vec x = load<T>(from + d * bytesOf(T), min(end - d, kLanes));
        value = pairOf(value, x);
      }
      store(to, value);
    }
  }
  return roundUp(end - dim, kLanes);
}

/// o[row] += p[row][key] * v for the keys [begin, end) and the dimensions
/// [0, dims), of which v(Int<width>, lane of keys, dim, to) loads some vectors.
/// Of a pair of keys only those in the range enter. Asks for a line for each
/// kLineBytes bytes of V, of which a vector has LineBytes.
template <typename Product, int NumRows, int LineBytes, typename LoadV>
void weighted(Rows<const float> p, int64_t begin, int64_t end, LoadV v,
              int64_t dims, Rows<float> o, Ahead &asked) {
  constexpr int kWidth = NumRows > 2 ? kBlockVecs : 2 * kBlockVecs;
  Ahead ahead = asked;
  auto add = [&](int64_t first, int64_t last, auto load) {
    forStrips<kWidth>(0, dims, [&](auto width, int64_t d) {
      multiply<Product, NumRows, width.value>(
          p, first, last,
          [&](int64_t step, Vec *factors) { load(width, step, d, factors); },
          {o.data + d, o.stride}, true,
          [&] { ahead.ask<width.value * LineBytes / kLineBytes>(); });
    });
  };
  if constexpr (Product::kDepth == 1) {
    add(begin, end, v);
  } else {
    auto masked = [&](uint32_t mask) {
      return [=](auto width, int64_t step, int64_t d, Vec *x) {
        v(width, step, d, x);
        for (int i = 0; i < width.value; ++i)
          x[i] = ofBits(bitsOf(x[i]) & mask);
      };
    };
    if (begin % 2)
      add(begin / 2, begin / 2 + 1, masked(0xffff0000));
    add((begin + 1) / 2, end / 2, v);
    if (end % 2)
      add(end / 2, end / 2 + 1, masked(0xffff));
  }
  asked = ahead;
}

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_ATTENTIONTILE_H
