//===- WordTile.h - Numbers as integers of 16 bits --------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Many rows multiply pages of up to 16 bits as words, integers of 16 bits. A
// CPU multiplies and adds as many pairs of them as of bf16, twice what it does
// of f32, and they keep more: bf16 rounds numbers to 2^-9 each.
//
//   q[d]             ~  step of the row * word,   |words of q| = 32767
//   k[d]             ~  step of the key * word,   |words of k| <= 65500
//   v[d]             ~  step of the key * word,   the largest is 32767
//   p * (step of v)  ~  step of the row * word,   their sum is 32735
//
// |x| is the square root of the sum of squares. So no sum of products leaves 32
// bits, and sums of integers are exact and have no order. A score is wrong by
// some 1.5e-5 |q| |k| where numbers are normally distributed, an output by what
// rounds the weights of 64 keys to 2^-15 of their sum: to 2^-10 of each where
// all are equal.
//
// What has no words, numbers that are not finite or too far from 1, is plain:
// it is multiplied as it is, where a row sees it.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_WORDTILE_H
#define LLM_RUNTIME_CPU_WORDTILE_H

#include "AttentionTile.h"

namespace llm::cpu {
namespace {

#if defined(LLM_CPU_X86_VNNI)

//===----------------------------------------------------------------------===//
// Numbers
//===----------------------------------------------------------------------===//

/// A longer head_dim has no words.
constexpr int64_t kMaxWordDim = 256;
constexpr int64_t kWordDepth = 2 * kLanes; ///< of a vector

/// The length of a row's words; the largest of a value's; the sum of weights'.
constexpr float kQueryWords = 32767, kMostWord = 32767, kWeightWords = 32735;

/// The largest word of a key of so many numbers.
inline float mostWordOfKey(int64_t dim) {
  return __builtin_fminf(kMostWord, 65500 / __builtin_sqrtf(float(dim)));
}

/// Words of numbers up to this one have a step, which has an inverse.
inline bool hasWords(float magnitude) {
  return magnitude > 0x1p-60f && magnitude < 0x1p60f;
}

/// Numbers d to d + kLanes - 1 of a key, zeros beyond its last one.
template <llm_dtype T>
inline Vec numbersOf(const Keys &keys, int64_t key, int64_t d) {
  const char *from = keys.at(key, d * bytesOf(T));
  return d + kLanes <= keys.dim ? load<T>(from)
                                : load<T>(from, max(keys.dim - d, 0));
}

/// The largest magnitude of a key's numbers in each lane; of f16 2^-112 times
/// as much, infinity included.
template <llm_dtype T>
inline Vec largestInLanes(const Keys &keys, int64_t key) {
  if constexpr (T == LLM_F32) {
    UInts most = {};
    for (int64_t d = 0; d < keys.dim; d += kLanes) {
      UInts magnitude = bitsOf(numbersOf<T>(keys, key, d)) & 0x7fffffff;
      most = magnitude > most ? magnitude : most;
    }
    return magnitudesOf(most);
  } else {
    Shorts most = {};
    for (int64_t d = 0; d < keys.dim; d += kWordDepth) {
      const char *from = keys.at(key, d * bytesOf(T));
      Shorts magnitude =
          (Shorts)loadPacked<T>(from, min(keys.dim - d, kWordDepth)) & 0x7fff;
      most = magnitude > most ? magnitude : most;
    }
    UInts even = (UInts)most & 0xffff, odd = (UInts)most >> 16;
    UInts larger = even > odd ? even : odd;
    return T == LLM_F16 ? ofBits(larger << 13) : magnitudesOf(larger << 16);
  }
}

/// The largest magnitude of each of kLanes keys; infinity if one of a key's
/// numbers is not finite.
template <llm_dtype T>
inline Vec largestOfKeys(const Keys &keys, int64_t key) {
  Vec largest[kLanes];
  LLM_UNROLL
  for (int i = 0; i < kLanes; ++i)
    largest[slotOf(i)] = largestInLanes<T>(keys, key + i);
  const Vec most = mergedLanes<Maximum>(largest);
  if constexpr (T == LLM_F16)
    return most < 0x1p-96f ? most * 0x1p112f : splat(kInfinity);
  return most;
}

/// Of kLanes keys: what their numbers are multiplied with to become words, and
/// what words with the scale of their key are to become numbers: 0 where a key
/// has none.
struct KeySteps {
  float factors[kLanes], steps[kLanes];
  uint32_t plain = 0; ///< a bit for each key that has none and is not zero
};

/// The steps of the keys from `key` on, of which `most` is the largest word.
template <llm_dtype T>
inline KeySteps stepsOf(const Keys &keys, int64_t key, float most,
                        const float *scales) {
  // i8 are words, of which sums are small. Of f8 any may be the largest.
  if (T == LLM_I8)
    most = kLargest<T>;
  KeySteps result;
  alignas(64) float largest[kLanes];
  store(largest,
        isQuantized(T) ? splat(kLargest<T>) : largestOfKeys<T>(keys, key));
  for (int i = 0; i < kLanes; ++i) {
    const float scale = isQuantized(T) ? scales[key + i] : 1;
    const bool has = hasWords(largest[i] * scale) && hasWords(largest[i]);
    result.factors[i] = has ? most / largest[i] : 0;
    result.steps[i] = has ? largest[i] * scale / most : 0;
    if (!has && !(largest[i] * scale == 0))
      result.plain |= 1u << i;
  }
  return result;
}

/// The words nearest to kLanes numbers, and to as many more, in quads of four
/// in turn.
inline UInts wordsInTurn(Vec first, Vec second) {
  return (UInts)_mm512_packs_epi32(_mm512_cvtps_epi32((__m512)first),
                                   _mm512_cvtps_epi32((__m512)second));
}
/// The pair of numbers that a lane of these holds.
constexpr int64_t pairInTurn(int lane) {
  return lane % 4 / 2 * 8 + lane / 4 * 2 + lane % 2;
}
/// The same, one behind the other.
inline UInts wordsOf(Vec first, Vec second) {
  const __m512i order = _mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0);
  return (UInts)_mm512_permutexvar_epi64(order,
                                         (__m512i)wordsInTurn(first, second));
}
/// One of each beside the other.
inline UInts pairedWords(Vec first, Vec second) {
  UInts low = (UInts)_mm512_cvtps_epi32((__m512)first);
  UInts high = (UInts)_mm512_cvtps_epi32((__m512)second);
  return (low & 0xffff) | high << 16;
}

//===----------------------------------------------------------------------===//
// Panels
//===----------------------------------------------------------------------===//

/// Words of two numbers in each lane, and sums of their products.
struct WordProduct {
  static Vec multiply(Vec a, Vec b, Vec c) {
    return (Vec)dotWords((Ints)a, (Ints)b, (Ints)c);
  }
};

/// The panel [pair of dim][key] of the vectors of keys that hold `keys`, and
/// the steps of these. Returns which are plain.
template <llm_dtype T>
uint64_t packKeyWords(const Keys &k, KeyRange keys, const float *scales,
                      float *panel, float *steps, Ahead &ahead) {
  constexpr int kLines = kWordDepth * bytesOf(T) * kLanes / kLineBytes;
  uint64_t plain = 0;
  for (int64_t key = keys.begin / kLanes * kLanes; key < keys.end;
       key += kLanes) {
    KeySteps of = stepsOf<T>(k, key, mostWordOfKey(k.dim), scales);
    plain |= uint64_t(of.plain) << key;
    memcpy(steps + key, of.steps, sizeof(of.steps));
    for (int64_t d = 0; d < k.dim; d += kWordDepth) {
      float *to = panel + d / 2 * kTileKeys + key;
      ahead.ask<kLines>();
      Vec x[kLanes];
      LLM_UNROLL
      for (int i = 0; i < kLanes; ++i)
        x[i] = ofBits(
            wordsInTurn(numbersOf<T>(k, key + i, d) * of.factors[i],
                        numbersOf<T>(k, key + i, d + kLanes) * of.factors[i]));
      transpose(x);
      LLM_UNROLL
      for (int i = 0; i < kLanes; ++i)
        store(to + pairInTurn(i) * kTileKeys, x[i]);
    }
  }
  return plain;
}

/// The same as the panel [pair of keys][dim].
template <llm_dtype T>
uint64_t packValueWords(const Keys &v, KeyRange keys, const float *scales,
                        float *panel, float *steps, Ahead &ahead) {
  constexpr int kLines = // of two keys, rounded up
      (2 * kLanes * bytesOf(T) + kLineBytes - 1) / kLineBytes;
  const int64_t stride = roundUp(v.dim, kLanes);
  uint64_t plain = 0;
  for (int64_t key = keys.begin / kLanes * kLanes; key < keys.end;
       key += kLanes) {
    KeySteps of = stepsOf<T>(v, key, kMostWord, scales);
    plain |= uint64_t(of.plain) << key;
    memcpy(steps + key, of.steps, sizeof(of.steps));
    for (int i = 0; i < kLanes; i += 2)
      for (int64_t d = 0; d < v.dim; d += kLanes) {
        ahead.ask<kLines>();
        store(panel + (key + i) / 2 * stride + d,
              ofBits(pairedWords(numbersOf<T>(v, key + i, d) * of.factors[i],
                                 numbersOf<T>(v, key + i + 1, d) *
                                     of.factors[i + 1])));
      }
  }
  return plain;
}

/// A row as words. Returns their step, or NaN where it is plain.
template <llm_dtype T>
float storeRowWords(const char *from, int64_t dim, float *to) {
  constexpr int64_t kNone = 0;
  const Keys row = {from, &kNone, dim};
  Vec squares = {};
  UInts bits = {};
  for (int64_t d = 0; d < dim; d += kLanes) {
    Vec x = numbersOf<T>(row, 0, d);
    squares = fma(x, x, squares);
    bits |= bitsOf(x) << 1;
  }
  const float length = __builtin_sqrtf(sumOf(squares));
  const bool has = hasWords(length);
  const float factor = has ? kQueryWords / length : 0;
  for (int64_t d = 0; d < dim; d += kWordDepth)
    store(to + d / 2,
          ofBits(wordsOf(numbersOf<T>(row, 0, d) * factor,
                         numbersOf<T>(row, 0, d + kLanes) * factor)));
  if (has)
    return length / kQueryWords;
  return _mm512_test_epi32_mask((__m512i)bits, (__m512i)bits)
             ? __builtin_nanf("")
             : 0;
}

#endif // LLM_CPU_X86_VNNI

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_WORDTILE_H
