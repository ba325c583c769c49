//===- Formats.h - f32, f16 and bf16 in memory ------------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Loads are exact and stores round to nearest even with the same bits at every
// level: subnormals are kept, NaNs stay NaNs (f16 ones become quiet). This is
// why bf16 is rounded with integers: AVX-512's own instruction flushes
// subnormals.
//
//             sign  exponent  fraction
//     f32        1         8        23
//     f16        1         5        10
//     bf16       1         8         7    the upper half of an f32
//     f8E4M3FN   1         4         3    no infinity, one NaN: 448 is largest
//
// f8E4M3FN and i8 exist in quantized pages only, with a scale beside them
// (Quantize.h). What is stored there is finite; beyond the largest number, or
// below the smallest, it is that number.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_FORMATS_H
#define LLM_RUNTIME_CPU_FORMATS_H

#include "Kernels.h"
#include "Simd.h"
#include "llm/Runtime/CAPI.h"

namespace llm::cpu {
namespace {

//===----------------------------------------------------------------------===//
// f16 and bf16
//===----------------------------------------------------------------------===//

inline Vec fromBF16(Halves h) {
  return ofBits(__builtin_convertvector(h, UInts) << 16);
}

inline Halves toBF16(Vec x) {
  UInts bits = bitsOf(x), magnitude = bits & 0x7fffffff;
  UInts rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  UInts quiet = bits >> 16 | 0x40;
  return __builtin_convertvector(magnitude > 0x7f800000 ? quiet : rounded,
                                 Halves);
}

/// Both as bf16, a in the lower half of each lane. Subnormals may become zeros.
inline UInts pairBF16(Vec a, Vec b) {
#if defined(LLM_CPU_X86_BF16)
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11,
                                         26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  __m512bh both = _mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
  return (UInts)_mm512_permutexvar_epi16(order, (__m512i)both);
#else
  return __builtin_convertvector(toBF16(a), UInts) |
         __builtin_convertvector(toBF16(b), UInts) << 16;
#endif
}

#if defined(LLM_CPU_X86_BF16)
/// The numbers of `first`, then those of `second`.
inline Vec packBF16(Vec first, Vec second) {
  return (Vec)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
}
#endif

inline Vec fromF16(Halves h) {
#if defined(LLM_CPU_X86_V4)
  return (Vec)_mm512_cvtph_ps((__m256i)h);
#elif defined(LLM_CPU_X86_V3)
  return (Vec)_mm256_cvtph_ps((__m128i)h);
#else
  UInts wide = __builtin_convertvector(h, UInts), magnitude = wide & 0x7fff;
  UInts normal = (magnitude << 13) + 0x38000000; // exponent bias 15 -> 127
  UInts special = (magnitude << 13) + 0x70000000;
  special |= magnitude > 0x7c00 ? UInts{} + 0x400000 : UInts{};
  UInts subnormal = bitsOf(__builtin_convertvector(magnitude, Vec) * 0x1p-24f);
  UInts result = magnitude < 0x400 ? subnormal : normal;
  result = magnitude >= 0x7c00 ? special : result;
  return ofBits(result | (wide & 0x8000) << 16);
#endif
}

inline Halves toF16(Vec x) {
#if defined(LLM_CPU_X86_V4)
  return (Halves)_mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT);
#elif defined(LLM_CPU_X86_V3)
  return (Halves)_mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT);
#else
  UInts bits = bitsOf(x), magnitude = bits & 0x7fffffff;
  UInts normal = (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13;
  // The last bit of 0.5 is f16's smallest subnormal: the addition rounds.
  UInts subnormal = bitsOf(ofBits(magnitude) + 0.5f) - 0x3f000000;
  UInts nan = (magnitude >> 13 & 0x3ff) | 0x7e00;
  UInts result = magnitude < 0x38800000 ? subnormal : normal;
  result = magnitude >= 0x47800000 ? UInts{} + 0x7c00 : result;
  result = magnitude > 0x7f800000 ? nan : result;
  return __builtin_convertvector(result | (bits >> 16 & 0x8000), Halves);
#endif
}

//===----------------------------------------------------------------------===//
// f8E4M3FN and i8
//===----------------------------------------------------------------------===//

/// The largest number of a quantized format.
template <llm_dtype T>
constexpr float kLargest = T == LLM_I8 ? 127 : 448;

inline Vec fromF8(Bytes b) {
#if defined(LLM_CPU_X86_V4) || defined(LLM_CPU_X86_V3)
  // The same bits as an f16 are 2^-8 of it, subnormals included.
  Halves wide = __builtin_convertvector(b, Halves);
  return fromF16((wide & 0x80) << 8 | (wide & 0x7f) << 7) * 0x1p8f;
#else
  UInts wide = __builtin_convertvector(b, UInts), magnitude = wide & 0x7f;
  UInts normal = (magnitude << 20) + 0x3c000000; // exponent bias 7 -> 127
  UInts subnormal = bitsOf(__builtin_convertvector(magnitude, Vec) * 0x1p-9f);
  UInts result = magnitude < 8 ? subnormal : normal;
  return ofBits(result | (wide & 0x80) << 24);
#endif
}

inline Bytes toF8(Vec x) {
  UInts bits = bitsOf(x), magnitude = bits & 0x7fffffff;
  UInts largest = bitsOf(splat(kLargest<LLM_F8E4M3FN>));
  magnitude = magnitude > largest ? largest : magnitude;
  UInts normal =
      (magnitude - 0x3c000000 + 0x7ffff + (magnitude >> 20 & 1)) >> 20;
  // The last bit of 2^14 is f8's smallest subnormal: the addition rounds.
  UInts subnormal = bitsOf(ofBits(magnitude) + 0x1p14f) - 0x46800000;
  UInts result = magnitude < 0x3c800000 ? subnormal : normal;
  return __builtin_convertvector(result | (bits >> 24 & 0x80), Bytes);
}

inline Vec fromI8(Bytes b) {
  UInts wide = __builtin_convertvector(b, UInts);
  return __builtin_convertvector((Ints)(wide << 24) >> 24, Vec);
}

inline Bytes toI8(Vec x) {
  x = min(max(x, splat(-kLargest<LLM_I8>)), splat(kLargest<LLM_I8>));
  // The last bit of 1.5 * 2^23 is 1: the addition rounds.
  return __builtin_convertvector(bitsOf(x + 12582912.0f), Bytes);
}

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

/// What lies in memory behind a vector of f32.
template <llm_dtype T>
struct Memory {
  typedef Halves Type;
  static Vec widen(Halves h) { return T == LLM_F16 ? fromF16(h) : fromBF16(h); }
  static Halves round(Vec x) { return T == LLM_F16 ? toF16(x) : toBF16(x); }
};
template <>
struct Memory<LLM_F32> {
  typedef Vec Type;
  static Vec widen(Vec x) { return x; }
  static Vec round(Vec x) { return x; }
};

template <>
struct Memory<LLM_F8E4M3FN> {
  typedef Bytes Type;
  static Vec widen(Bytes b) { return fromF8(b); }
  static Bytes round(Vec x) { return toF8(x); }
};
template <>
struct Memory<LLM_I8> {
  typedef Bytes Type;
  static Vec widen(Bytes b) { return fromI8(b); }
  static Bytes round(Vec x) { return toI8(x); }
};

template <llm_dtype T>
inline Vec load(const void *from) {
  typename Memory<T>::Type raw;
  memcpy(&raw, from, sizeof(raw));
  return Memory<T>::widen(raw);
}

/// The first `n` elements, then zeros; nothing behind them is touched.
template <llm_dtype T>
inline Vec load(const void *from, int64_t n) {
#if defined(LLM_CPU_X86_V4)
  uint16_t mask = static_cast<uint16_t>((1u << n) - 1);
  if constexpr (T == LLM_F32)
    return (Vec)_mm512_maskz_loadu_ps(mask, from);
  else if constexpr (isQuantized(T))
    return Memory<T>::widen((Bytes)_mm_maskz_loadu_epi8(mask, from));
  else
    return Memory<T>::widen((Halves)_mm256_maskz_loadu_epi16(mask, from));
#else
  typename Memory<T>::Type raw = {};
  memcpy(&raw, from, n * bytesOf(T));
  return Memory<T>::widen(raw);
#endif
}

/// The bytes of the first `n` elements of type T, then zeros: two f16 or bf16
/// share a lane.
template <llm_dtype T>
inline Vec loadPacked(const void *from, int64_t n) {
#if defined(LLM_CPU_X86_V4)
  if constexpr (T != LLM_F32)
    return (Vec)_mm512_maskz_loadu_epi16(
        static_cast<uint32_t>((uint64_t(1) << n) - 1), from);
#endif
  if constexpr (T == LLM_F32)
    return load<T>(from, n);
  Vec packed = {};
  memcpy(&packed, from, n * bytesOf(T));
  return packed;
}

/// The first and the second element of each lane.
template <llm_dtype T>
inline void unpack(Vec packed, Vec &first, Vec &second) {
  if constexpr (T == LLM_BF16) {
    first = ofBits(bitsOf(packed) << 16);
    second = ofBits(bitsOf(packed) & 0xffff0000);
    return;
  }
#if defined(LLM_CPU_X86_V4)
  // Even words to the lower half, odd ones to the upper.
  const __m512i order = _mm512_set_epi16(31, 29, 27, 25, 23, 21, 19, 17, 15, 13,
                                         11, 9, 7, 5, 3, 1, 30, 28, 26, 24, 22,
                                         20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  __m512i words = _mm512_permutexvar_epi16(order, (__m512i)packed);
  first = fromF16((Halves)_mm512_castsi512_si256(words));
  second = fromF16((Halves)_mm512_extracti64x4_epi64(words, 1));
#else
  first = fromF16(__builtin_convertvector(bitsOf(packed) & 0xffff, Halves));
  second = fromF16(__builtin_convertvector(bitsOf(packed) >> 16, Halves));
#endif
}

template <llm_dtype T>
inline void store(void *to, Vec x) {
  typename Memory<T>::Type raw = Memory<T>::round(x);
  memcpy(to, &raw, sizeof(raw));
}

/// Stores the first `n` lanes.
template <llm_dtype T>
inline void store(void *to, Vec x, int64_t n) {
  typename Memory<T>::Type raw = Memory<T>::round(x);
#if defined(LLM_CPU_X86_V4)
  uint16_t mask = static_cast<uint16_t>((1u << n) - 1);
  if constexpr (T == LLM_F32)
    return _mm512_mask_storeu_ps(to, mask, (__m512)raw);
  else if constexpr (isQuantized(T))
    return _mm_mask_storeu_epi8(to, mask, (__m128i)raw);
  else
    return _mm256_mask_storeu_epi16(to, mask, (__m256i)raw);
#else
  memcpy(to, &raw, n * bytesOf(T));
#endif
}

inline Vec load(const float *from) { return load<LLM_F32>(from); }
inline void store(float *to, Vec x) { store<LLM_F32>(to, x); }

/// Of the bits of magnitudes, the largest: as floats, which compare as these do
/// where they are finite. What is not is larger than all of them: infinity.
inline Vec magnitudesOf(UInts most) {
  return ofBits(most > 0x7f7fffff ? UInts{} + 0x7f800000 : most);
}

/// The largest magnitude of n floats, which are whole vectors; infinity if one
/// is not finite.
inline float largestOf(const float *x, int64_t n) {
  UInts most = {};
  for (int64_t i = 0; i < n; i += kLanes) {
    UInts magnitude = bitsOf(load(x + i)) & 0x7fffffff;
    most = magnitude > most ? magnitude : most;
  }
  return maxOf(magnitudesOf(most));
}

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_FORMATS_H
