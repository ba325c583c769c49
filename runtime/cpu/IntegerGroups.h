//===- IntegerGroups.h - Few rows and pages of i4 ---------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What reads as minimum + step * code leaves an integer product if minimum and
// step go to the other factor, which becomes digits (IntegerTile.h):
//
//   scores    q . k   =  q . minimum  +  (q * step) . code    a query per group
//   weighted  w * v   =  w * minimum  +  (w * step) * code    a weight per
//   group
//
// Exact groups of K are multiplied as any f32.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_INTEGERGROUPS_H
#define LLM_RUNTIME_CPU_INTEGERGROUPS_H

#include "Groups.h"
#include "IntegerTile.h"

namespace llm::cpu {
namespace {

#if defined(LLM_CPU_X86_VNNI)

/// Channels of a vector of codes: the lower halves of its bytes are the first
/// half of each group.
constexpr int64_t kVecCodes = 2 * kVecBytes;
constexpr int kVecGroups = kVecCodes / kGroupSize;

inline UInts lowerCodes(UInts bytes) { return bytes & 0x0f0f0f0f; }
inline UInts upperCodes(UInts bytes) { return bytes >> 4 & 0x0f0f0f0f; }

//===----------------------------------------------------------------------===//
// Scores
//===----------------------------------------------------------------------===//

/// A query beside a group of keys: q * steps ~ step * (256 * high + low), and
/// q . minima.
struct GroupQuery {
  char high[kMaxByteDim], low[kMaxByteDim]; ///< channel by channel
  float step, base;
};

/// Count rows of q beside a group's parameters, of which there are `dim`: those
/// of each of `stride` channels, zeros beyond.
template <int Count>
inline void setGroupQueries(GroupQuery *to, Rows<const float> q, int64_t stride,
                            const uint32_t *params, int64_t dim) {
  constexpr float kMost = 127 * 256 + 127;
  alignas(64) float x[Count][kMaxByteDim];
  Vec base[4] = {}, most[4] = {};
  for (int64_t d = 0; d < stride; d += kLanes) {
    UInts own = bitsOf(load<LLM_F32>(params + d, min(max(dim - d, 0), kLanes)));
    Vec minimum = minimumOf(own), step = stepOf(own);
    LLM_UNROLL
    for (int i = 0; i < Count; ++i) {
      Vec factor = load(q[i] + d), product = factor * step;
      base[i] = fma(factor, minimum, base[i]);
      most[i] = LargestBits::of(most[i], magnitudeOf(product));
      store(x[i] + d, product);
    }
  }
  Vec largest = mergedFour<LargestBits>(most);
  Vec bases = mergedFour<Sum>(base);
  auto finite = largest < kInfinity;
  Vec steps = finite ? largest / kMost : splat(__builtin_nanf(""));
  // What is so small is nothing in a score.
  alignas(64) float factors[kLanes];
  store(factors, (finite & (largest > 0x1p-100f)) ? kMost / largest : Vec{});
  LLM_UNROLL
  for (int i = 0; i < Count; ++i) {
    to[i].step = steps[i];
    to[i].base = bases[i];
    for (int64_t d = 0; d < stride; d += kVecBytes) {
      Ints high[4], low[4];
      LLM_UNROLL
      for (int j = 0; j < 4; ++j) {
        Ints integer = integersOf(load(x[i] + d + j * kLanes) * factors[i]);
        high[j] = (integer + 128) >> 8;
        low[j] = integer - (high[j] << 8);
      }
      UInts bytes = inOrder(packSigned(high));
      memcpy(to[i].high + d, &bytes, sizeof(bytes));
      bytes = inOrder(packSigned(low));
      memcpy(to[i].low + d, &bytes, sizeof(bytes));
    }
  }
}

/// s[row] = q[row] . k for NumRows rows and the kLanes keys from `key` on, of
/// whose codes `k` says where they are.
template <int NumRows>
inline void scoresOfCodes(const GroupQuery *q, const Keys &k, int64_t key,
                          Rows<float> s, Ahead &ahead) {
  Ints high[NumRows] = {}, low[NumRows] = {};
  // Or their digits would be spread over vectors in memory before the keys.
  asm("" : "+r"(q));
  // Lane i of vector j has the bytes 4 j to 4 j + 3 of key i.
  auto add = [&](auto words, int64_t d) {
    Vec x[kLanes];
    // At once, see scoresOfBytes. Of four codes of a line, one of parameters.
    ahead.ask<words.value / 4 * 5>();
    LLM_UNROLL
    for (int i = 0; i < kLanes; ++i)
      x[i] = ofBits(loadBytes(k.at(key + i, d / 2), codeBytes(k.dim - d)));
    transpose(x);
    LLM_UNROLL
    for (int j = 0; j < words.value; ++j) {
      int64_t channel = d + j / 4 * kGroupSize + j % 4 * kDepthOfBytes;
      UInts lower = lowerCodes(bitsOf(x[j])), upper = upperCodes(bitsOf(x[j]));
      LLM_UNROLL
      for (int r = 0; r < NumRows; ++r) {
        const char *h = q[r].high + channel, *l = q[r].low + channel;
        high[r] = dotBytes(lower, splatBytes(h), high[r]);
        low[r] = dotBytes(lower, splatBytes(l), low[r]);
        high[r] = dotBytes(upper, splatBytes(h + kGroupBytes), high[r]);
        low[r] = dotBytes(upper, splatBytes(l + kGroupBytes), low[r]);
      }
    }
  };
  for (int64_t d = 0; d < k.dim; d += kVecCodes)
    if (k.dim - d > kVecBytes)
      add(Int<kLanes>{}, d);
    else
      add(Int<kLanes / 2>{}, d);
  LLM_UNROLL
  for (int r = 0; r < NumRows; ++r)
    store(s[r] + key, fma(__builtin_convertvector((high[r] << 8) + low[r], Vec),
                          splat(q[r].step), splat(q[r].base)));
}

//===----------------------------------------------------------------------===//
// Weighted sums
//===----------------------------------------------------------------------===//

/// Minima and steps of the channel groups of a strip, for the keys of a tile;
/// zero for keys that have none.
struct StripParams {
  alignas(64) float minima[kVecGroups][kTileKeys], steps[kVecGroups][kTileKeys];
};

/// The first `groups` of the params of a token's strip.
inline void copyParams(uint32_t *to, const uint32_t *from, int64_t groups) {
  __mmask8 mask = static_cast<__mmask8>((1 << groups) - 1);
  _mm_store_si128(reinterpret_cast<__m128i *>(to),
                  _mm_maskz_loadu_epi32(mask, from));
}

inline void turnParams(const uint32_t (*params)[kVecGroups], StripParams &to) {
  for (int64_t key = 0; key < kTileKeys; key += kLanes) {
    // Keys 4 i to 4 i + 3; then of group g, those four keys apart together.
    Vec x[kVecGroups];
    memcpy(x, params[key], sizeof(x));
    LLM_TRANSPOSE(LLM_SHUFFLE, x[0], x[1], x[2], x[3]);
    LLM_UNROLL
    for (int g = 0; g < kVecGroups; ++g) {
      UInts own = inOrder(bitsOf(x[g]));
      store(to.minima[g] + key, minimumOf(own));
      store(to.steps[g] + key, stepOf(own));
    }
  }
}

/// Weights of one row beside a strip, as digits and times the minima.
struct GroupWeights {
  /// [digit][key / 4][group][key % 4]
  alignas(
      64) char digits[2][kTileKeys / kDepthOfBytes][kVecGroups * kDepthOfBytes];
  float step[kVecGroups], unit[kVecGroups], base[kVecGroups];
};

/// `w` of a tile for those of `keys`; zero for the others.
inline void setGroupWeights(GroupWeights &to, const float *w,
                            const StripParams &params, KeyRange keys) {
  FourWeights packed;
  packWeights<kVecGroups>(
      [&](int g, int64_t key) {
        return productOf(w, params.steps[g], keys, key);
      },
      packed);
  memcpy(to.step, packed.step, sizeof(to.step));
  memcpy(to.unit, packed.unit, sizeof(to.unit));
  Vec sums[kVecGroups] = {};
  LLM_UNROLL
  for (int g = 0; g < kVecGroups; ++g)
    for (int64_t key = 0; key < kTileKeys; key += kLanes)
      sums[g] += productOf(w, params.minima[g], keys, key);
  Vec base = mergedFour<Sum>(sums);
  memcpy(to.base, &base, sizeof(to.base));
  Vec high[kVecGroups], low[kVecGroups];
  memcpy(high, packed.high, sizeof(high));
  memcpy(low, packed.low, sizeof(low));
  // What was four lanes apart in a vector is now in four vectors.
  LLM_TRANSPOSE(LLM_SHUFFLE, high[0], high[1], high[2], high[3]);
  LLM_TRANSPOSE(LLM_SHUFFLE, low[0], low[1], low[2], low[3]);
  memcpy(to.digits[0], high, sizeof(high));
  memcpy(to.digits[1], low, sizeof(low));
}

/// A strip of the keys [begin, end) of V from channel `dim` on, in fours: four
/// vectors as turnValues makes them, of lower codes, then four of upper ones.
inline void turnCodes(const Keys &v, int64_t begin, int64_t end, int64_t dim,
                      UInts *panel) {
  for (int64_t key = begin; key < end; key += kDepthOfBytes, panel += 8) {
    UInts bytes[4];
    turnFourKeys(v, key, dim / 2, codeBytes(v.dim - dim), bytes);
    LLM_UNROLL
    for (int m = 0; m < 4; ++m) {
      panel[m] = lowerCodes(bytes[m]);
      panel[4 + m] = upperCodes(bytes[m]);
    }
  }
}

/// o[row][i] += w[row] . v[dim + i] for the strip that turnCodes made of the
/// keys [begin, end), `dims` of it.
template <int NumRows>
inline void weightedCodes(const GroupWeights *w, int64_t begin, int64_t end,
                          const UInts *panel, int64_t dims, Rows<float> o,
                          Ahead &asked) {
  // Quad i has the codes of group i.
  const UInts order = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
  Ahead ahead = asked;
  Ints sum[NumRows][8] = {};
  auto add = [&](int digit) {
    const UInts *v = panel;
    LLM_NO_UNROLL
    for (int64_t key = begin; key < end; key += kDepthOfBytes, v += 8) {
      ahead.ask<3>(); // of the two digits' five or six
      LLM_UNROLL
      for (int r = 0; r < NumRows; ++r) {
        __m128i four;
        memcpy(&four, w[r].digits[digit][key / kDepthOfBytes], sizeof(four));
        UInts factor = (UInts)_mm512_permutevar_ps(
            (__m512)_mm512_broadcast_i32x4(four), (__m512i)order);
        LLM_UNROLL
        for (int m = 0; m < 8; ++m)
          sum[r][m] = dotBytes(factor, v[m], sum[r][m]);
      }
    }
  };
  add(0);
  LLM_UNROLL
  for (int r = 0; r < NumRows; ++r)
    LLM_UNROLL
  for (int m = 0; m < 8; ++m)
    sum[r][m] <<= 8;
  add(1);
  asked = ahead;
  LLM_UNROLL
  for (int r = 0; r < NumRows; ++r)
    LLM_UNROLL
  for (int half = 0; half < 2; ++half) {
    Vec x[4];
    LLM_UNROLL
    for (int m = 0; m < 4; ++m)
      x[m] = __builtin_convertvector(sum[r][4 * half + m], Vec);
    LLM_TRANSPOSE(LLM_SHUFFLE_QUADS, x[0], x[1], x[2], x[3]);
    LLM_UNROLL
    for (int g = 0; g < kVecGroups; ++g) {
      int64_t channel = g * kGroupSize + half * kGroupBytes;
      if (channel >= dims)
        continue;
      float *to = o[r] + channel;
      store(to, fma(x[g] * w[r].step[g], splat(w[r].unit[g]),
                    load(to) + w[r].base[g]));
    }
  }
}

#endif // LLM_CPU_X86_VNNI

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_INTEGERGROUPS_H
