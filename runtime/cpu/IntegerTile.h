//===- IntegerTile.h - Few rows and pages of i8 -----------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A factor of bytes is an integer of two digits, which is as good as f32 is
// beside eight bits, and products of integers have no order:
//
//   query    q ~ step * (256 * high + low)   signed digits     one step per row
//   weight   w ~ step * (256 * high + low)   unsigned digits   per row and tile
//
// One instruction (VNNI) multiplies four bytes of each lane, one factor
// unsigned, and adds them to the lane's 32 bits:
//
//   scores    k + 128 of four dims  x  digits of q    k turned: a lane is a key
//   weighted  digits of w           x  v of four keys  a lane is a dim
//
// A row's integers depend on nothing but the row, so its bits are those of any
// batch. A row of q, or of weights in a tile, that has a number which is not
// finite gives NaN.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_INTEGERTILE_H
#define LLM_RUNTIME_CPU_INTEGERTILE_H

#include "AttentionTile.h"

#include <stddef.h>

namespace llm::cpu {
namespace {

#if defined(LLM_CPU_X86_VNNI)

/// Bytes of a vector, and the keys or dimensions that a lane has of them.
constexpr int64_t kVecBytes = 64, kDepthOfBytes = 4;

/// Longer sums of k * q could leave 32 bits.
constexpr int64_t kMaxByteDim = 512;

/// Rows whose digits lie together.
constexpr int kDigitRows = 4;

/// x as integers, for at most 2^22 in magnitude.
inline Ints integersOf(Vec x) { return (Ints)_mm512_cvtps_epi32((__m512)x); }

/// 64 integers, which fit, as bytes: lane 4 i + e has those of lanes 4 i to
/// 4 i + 3 of x[e].
inline UInts packSigned(const Ints *x) {
  return (UInts)_mm512_packs_epi16(
      _mm512_packs_epi32((__m512i)x[0], (__m512i)x[1]),
      _mm512_packs_epi32((__m512i)x[2], (__m512i)x[3]));
}
inline UInts packUnsigned(const Ints *x) {
  return (UInts)_mm512_packus_epi16(
      _mm512_packus_epi32((__m512i)x[0], (__m512i)x[1]),
      _mm512_packus_epi32((__m512i)x[2], (__m512i)x[3]));
}
/// Such bytes in their order.
inline UInts inOrder(UInts packed) {
  const UInts order = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  return (UInts)_mm512_permutexvar_epi32((__m512i)order, (__m512i)packed);
}

/// Lanes as bytes: the lowest of each.
inline void storeBytes(char *to, Ints x) {
  _mm_storeu_si128(reinterpret_cast<__m128i *>(to),
                   _mm512_cvtepi32_epi8((__m512i)x));
}

//===----------------------------------------------------------------------===//
// Scores
//===----------------------------------------------------------------------===//

/// Rows of queries as digits. Those of a block of n rows lie, for each four
/// dimensions, as n pairs of four high and four low digits.
struct IntegerQueries {
  char *digits;    ///< 2 * stride bytes for each row
  int64_t stride;  ///< dimensions of a row, padded with zeros
  float *step;     ///< of each row
  int32_t *offset; ///< of each row, 128 times the sum of its integers
};

/// Row `row` + i of q, which is row i of a block of n.
inline void setQuery(const IntegerQueries &q, const float *from, int64_t row,
                     int64_t i, int64_t n) {
  constexpr float kMost = 127 * 256 + 127;
  float largest = largestOf(from, q.stride);
  bool finite = largest < kInfinity;
  // What is so small is nothing in a score.
  float factor = finite && largest > 0x1p-100f ? kMost / largest : 0;
  int32_t sum = 0;
  char *to = q.digits + 2 * q.stride * row + 2 * kDepthOfBytes * i;
  for (int64_t d = 0; d < q.stride; d += kLanes) {
    Ints x = {};
    if (factor > 0)
      x = integersOf(load(from + d) * factor);
    Ints high = (x + 128) >> 8;
    char digits[2][kLanes];
    storeBytes(digits[0], high);
    storeBytes(digits[1], x - (high << 8));
    for (int64_t j = 0; j < kLanes; j += kDepthOfBytes) {
      memcpy(to, digits[0] + j, kDepthOfBytes);
      memcpy(to + kDepthOfBytes, digits[1] + j, kDepthOfBytes);
      to += 2 * kDepthOfBytes * n;
    }
    for (int j = 0; j < kLanes; ++j)
      sum += x[j];
  }
  q.step[row + i] = finite ? largest / kMost : __builtin_nanf("");
  q.offset[row + i] = 128 * sum;
}

/// s[row] = q[row] * k * scale for NumRows rows from `row` on and the kLanes
/// keys from `key` on.
template <int NumRows>
inline void scoresOfBytes(const IntegerQueries &q, int64_t row, const Keys &k,
                          int64_t key, const float *scales, Rows<float> s,
                          Ahead &ahead) {
  constexpr int kSums = NumRows < 3 ? 2 : 1; // side by side: they take a while
  Ints high[NumRows][kSums] = {}, low[NumRows][kSums] = {};
  const char *digits = q.digits + 2 * q.stride * row;
  LLM_NO_UNROLL
  for (int64_t d = 0; d < k.dim; d += kVecBytes) {
    Vec x[kLanes];
    // At once: a branch between the products would have their factors, spread
    // over vectors, wait in memory.
    ahead.ask<kLanes>();
    LLM_UNROLL
    for (int i = 0; i < kLanes; ++i)
      x[i] = ofBits(loadBytes(k.at(key + i, d), k.dim - d));
    transpose(x);
    LLM_UNROLL
    for (int j = 0; j < kLanes; ++j) {
      UInts bytes = bitsOf(x[j]) ^ 0x80808080;
      LLM_UNROLL
      for (int r = 0; r < NumRows; ++r) {
        const char *from = digits + 2 * kDepthOfBytes * (j * NumRows + r);
        high[r][j % kSums] =
            dotBytes(bytes, splatBytes(from), high[r][j % kSums]);
        low[r][j % kSums] = dotBytes(bytes, splatBytes(from + kDepthOfBytes),
                                     low[r][j % kSums]);
      }
    }
    digits += 2 * kVecBytes * NumRows;
  }
  LLM_UNROLL
  for (int r = 0; r < NumRows; ++r) {
    // Sums on the way may leave 32 bits, and come back.
    UInts sum = ((UInts)high[r][0] << 8) + (UInts)low[r][0];
    if (kSums == 2)
      sum += ((UInts)high[r][kSums - 1] << 8) + (UInts)low[r][kSums - 1];
    sum -= static_cast<uint32_t>(q.offset[row + r]);
    store(s[r] + key, __builtin_convertvector((Ints)sum, Vec) *
                          q.step[row + r] * load(scales + key));
  }
}

//===----------------------------------------------------------------------===//
// Weighted sums
//===----------------------------------------------------------------------===//

/// Weights of one row and tile as digits: w ~ step * unit * (256 * high + low).
struct IntegerWeights {
  char high[kTileKeys], low[kTileKeys];
  float step, unit;
};

/// The same of up to four, with digits as they come from packUnsigned.
struct FourWeights {
  UInts high[4], low[4];
  alignas(16) float step[4], unit[4];
};

/// Which of kLanes keys from `key` on are in the range.
inline __mmask16 lanesIn(KeyRange keys, int64_t key) {
  auto below = [&](int64_t end) {
    return (1u << min(max(end - key, 0), kLanes)) - 1;
  };
  return static_cast<__mmask16>(below(keys.end) & ~below(keys.begin));
}

/// a * b for `keys` of a tile; zero for the others.
inline Vec productOf(const float *a, const float *b, KeyRange keys,
                     int64_t key) {
  return (Vec)_mm512_maskz_mul_ps(lanesIn(keys, key), (__m512)load(a + key),
                                  (__m512)load(b + key));
}

/// Lane i: the lanes of x[i] as one.
template <typename Merge>
inline Vec mergedFour(Vec *x) {
  LLM_TRANSPOSE(LLM_SHUFFLE, x[0], x[1], x[2], x[3]);
  Vec merged = Merge::of(Merge::of(x[0], x[1]), Merge::of(x[2], x[3]));
  merged = Merge::of(merged, LLM_SHUFFLE_QUADS(merged, merged, 2, 3));
  return Merge::of(merged, LLM_SHUFFLE_QUADS(merged, merged, 1, 1));
}

/// Of bits: infinity is above every number, and NaN above that.
struct LargestBits {
  static Vec of(Vec a, Vec b) {
    return ofBits(bitsOf(a) > bitsOf(b) ? bitsOf(a) : bitsOf(b));
  }
};

inline Vec magnitudeOf(Vec x) { return ofBits(bitsOf(x) & 0x7fffffff); }

/// Count rows of a tile, of which weight(i, key) has kLanes from `key` on.
template <int Count, typename Weight>
inline void packWeights(Weight weight, FourWeights &to) {
  constexpr float kMost = 65535;
  const Vec one = splat(1);
  Vec most[4] = {};
  LLM_UNROLL
  for (int i = 0; i < Count; ++i)
    for (int64_t key = 0; key < kTileKeys; key += kLanes)
      most[i] = LargestBits::of(most[i], magnitudeOf(weight(i, key)));
  Vec largest = mergedFour<LargestBits>(most);
  // Reciprocals of what is smaller could be infinite.
  Vec first = largest < 0x1p-64f ? splat(0x1p64f) : one;
  largest *= first;
  Vec second = largest < 0x1p-64f ? splat(0x1p64f) : one;
  largest *= second;
  auto finite = largest < kInfinity;
  alignas(64) float units[kLanes], factors[kLanes];
  store(units, first);
  store(factors, (finite & (largest > 0)) ? kMost / largest * second : Vec{});
  Vec unit = one / first / second;
  Vec step = finite ? largest / kMost : splat(__builtin_nanf(""));
  memcpy(to.step, &step, sizeof(to.step));
  memcpy(to.unit, &unit, sizeof(to.unit));
  LLM_UNROLL
  for (int i = 0; i < Count; ++i) {
    Ints high[4], low[4];
    LLM_UNROLL
    for (int j = 0; j < 4; ++j) {
      Ints integer = integersOf(weight(i, j * kLanes) * units[i] * factors[i]);
      high[j] = integer >> 8;
      low[j] = integer & 0xff;
    }
    to.high[i] = packUnsigned(high);
    to.low[i] = packUnsigned(low);
  }
}

/// w[key] * scales[key] for what each of Count rows sees of a tile.
template <int Count, typename Seen>
inline void setWeights(IntegerWeights *to, Rows<const float> w,
                       const float *scales, Seen seen) {
  FourWeights packed;
  packWeights<Count>(
      [&](int i, int64_t key) { return productOf(w[i], scales, seen(i), key); },
      packed);
  for (int i = 0; i < Count; ++i) {
    UInts high = inOrder(packed.high[i]), low = inOrder(packed.low[i]);
    memcpy(to[i].high, &high, sizeof(high));
    memcpy(to[i].low, &low, sizeof(low));
    to[i].step = packed.step[i];
    to[i].unit = packed.unit[i];
  }
}

/// `bytes` bytes of four keys from byte `at` on, as four vectors: number m has
/// in quad i the bytes 16 i + 4 m to 16 i + 4 m + 3, and in each lane the four
/// keys.
inline void turnFourKeys(const Keys &v, int64_t key, int64_t at, int64_t bytes,
                         UInts *to) {
  __m512i x[kDepthOfBytes];
  LLM_UNROLL
  for (int i = 0; i < kDepthOfBytes; ++i)
    x[i] = (__m512i)loadBytes(v.at(key + i, at), bytes);
  __m512i ab = _mm512_unpacklo_epi8(x[0], x[1]);
  __m512i cd = _mm512_unpacklo_epi8(x[2], x[3]);
  to[0] = (UInts)_mm512_unpacklo_epi16(ab, cd);
  to[1] = (UInts)_mm512_unpackhi_epi16(ab, cd);
  ab = _mm512_unpackhi_epi8(x[0], x[1]);
  cd = _mm512_unpackhi_epi8(x[2], x[3]);
  to[2] = (UInts)_mm512_unpacklo_epi16(ab, cd);
  to[3] = (UInts)_mm512_unpackhi_epi16(ab, cd);
}

/// A strip of kVecBytes dimensions of the keys [begin, end), four by four.
inline void turnValues(const Keys &v, int64_t begin, int64_t end, int64_t dim,
                       UInts *panel) {
  for (int64_t key = begin; key < end; key += kDepthOfBytes, panel += 4)
    turnFourKeys(v, key, dim, v.dim - dim, panel);
}

/// o[row][i] += w[row][key] * v[key][dim + i] for the strip that turnValues
/// made of the keys [begin, end), `dims` of it.
template <int NumRows>
inline void weightedBytes(const IntegerWeights *w, int64_t begin, int64_t end,
                          const UInts *panel, int64_t dims, Rows<float> o,
                          Ahead &asked) {
  Ahead ahead = asked;
  Ints sum[NumRows][4] = {};
  auto add = [&](int64_t digit) {
    const UInts *v = panel;
    LLM_NO_UNROLL
    for (int64_t key = begin; key < end; key += kDepthOfBytes, v += 4) {
      ahead.ask<kDepthOfBytes / 2>(); // there are two digits
      LLM_UNROLL
      for (int r = 0; r < NumRows; ++r) {
        UInts factor =
            splatBytes(reinterpret_cast<const char *>(w + r) + digit + key);
        LLM_UNROLL
        for (int m = 0; m < 4; ++m)
          sum[r][m] = dotBytes(factor, v[m], sum[r][m]);
      }
    }
  };
  add(offsetof(IntegerWeights, high));
  LLM_UNROLL
  for (int r = 0; r < NumRows; ++r)
    LLM_UNROLL
  for (int m = 0; m < 4; ++m)
    sum[r][m] <<= 8;
  add(offsetof(IntegerWeights, low));
  asked = ahead;
  LLM_UNROLL
  for (int r = 0; r < NumRows; ++r) {
    Vec x[4];
    LLM_UNROLL
    for (int m = 0; m < 4; ++m)
      x[m] = __builtin_convertvector(sum[r][m], Vec) * w[r].step;
    LLM_TRANSPOSE(LLM_SHUFFLE_QUADS, x[0], x[1], x[2], x[3]);
    for (int64_t i = 0; i * kLanes < dims; ++i) {
      float *to = o[r] + i * kLanes;
      store(to, fma(x[i], splat(w[r].unit), load(to)));
    }
  }
}

#endif // LLM_CPU_X86_VNNI

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_INTEGERTILE_H
