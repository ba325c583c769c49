//===- Simd.h - Vectors of f32 ----------------------------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Kernels compute in f32, `kLanes` numbers at a time; f16 and bf16 exist in
// memory (Formats.h), and as factors of bf16 dot products. The source of a
// kernel is compiled once per level:
//
//   level                  kLanes   what it may use
//   baseline                    4   compiler vectors: SSE2, NEON, or nothing
//   x86-64-v3                   8   AVX2, FMA, F16C
//   x86-64-v4                  16   AVX-512 F, BW, CD, DQ, VL
//   x86-64-v4+vnni             16   the same, and dot products of bytes
//   x86-64-v4+bf16+vnni        16   the same, and dot products of bf16
//   x86-64-v4+amx              16   those of bytes, and AMX (MatrixTile.h)
//
// Everything is internal to the file that includes this: two levels of one
// inline function must never meet in the linker, or a baseline CPU would run
// AVX-512 code. For the same reason levels include no C++ library header.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_SIMD_H
#define LLM_RUNTIME_CPU_SIMD_H

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

/// Unrolls the loop that follows, whose trip count is a small constant; or does
/// not, where more than one step at once would spill registers.
#if defined(__clang__)
#define LLM_UNROLL _Pragma("clang loop unroll(full)")
#define LLM_NO_UNROLL _Pragma("clang loop unroll(disable)")
#else
#define LLM_UNROLL _Pragma("GCC unroll 16")
#define LLM_NO_UNROLL _Pragma("GCC unroll 1")
#endif

/// For parts of a loop over registers: what is not inlined has them in memory.
#define LLM_INLINE inline __attribute__((always_inline))

namespace llm::cpu {
namespace {

//===----------------------------------------------------------------------===//
// Types
//===----------------------------------------------------------------------===//

/// A register tile is kBlockRows x kBlockVecs accumulators: with a row of
/// factors and one splat they fill the registers, 32 of them or 16.
#if defined(LLM_CPU_X86_V4)
constexpr int kLanes = 16, kBlockRows = 6, kBlockVecs = 4;
#elif defined(LLM_CPU_X86_V3)
constexpr int kLanes = 8, kBlockRows = 6, kBlockVecs = 2;
#elif defined(__aarch64__)
constexpr int kLanes = 4, kBlockRows = 6, kBlockVecs = 4;
#else
constexpr int kLanes = 4, kBlockRows = 2, kBlockVecs = 4;
#endif

typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef uint32_t UInts __attribute__((vector_size(kLanes * 4)));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));
typedef int16_t Shorts __attribute__((vector_size(kLanes * 4)));
typedef uint16_t Halves __attribute__((vector_size(kLanes * 2)));
typedef uint8_t Bytes __attribute__((vector_size(kLanes)));

constexpr float kInfinity = __builtin_inff();

inline UInts bitsOf(Vec x) { return (UInts)x; }
inline Vec ofBits(UInts x) { return (Vec)x; }
inline Vec splat(float x) { return x - Vec{}; } // keeps the sign of -0
/// The four bytes at `from` in every lane.
inline Vec splatAt(const float *from) {
  uint32_t bits;
  memcpy(&bits, from, sizeof(bits));
  return ofBits(UInts{} + bits);
}
/// Of two bf16, each in the upper half of its lane, the first in the lower.
inline Vec pairOf(Vec first, Vec second) {
  return ofBits(bitsOf(first) >> 16 | bitsOf(second));
}
inline Vec max(Vec a, Vec b) { return a > b ? a : b; }
inline Vec min(Vec a, Vec b) { return a < b ? a : b; }
inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }

constexpr int64_t roundUp(int64_t n, int64_t to) {
  return (n + to - 1) / to * to;
}

//===----------------------------------------------------------------------===//
// Arithmetic
//===----------------------------------------------------------------------===//

/// a * b + c. Contraction is off for these files: what is fused is fused here,
/// so the same expression has the same bits wherever it is inlined.
inline Vec fma(Vec a, Vec b, Vec c) {
#if defined(LLM_CPU_X86_V4)
  return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(LLM_CPU_X86_V3)
  return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
  return (Vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

#if defined(LLM_CPU_X86_BF16)
/// c + the products of both bf16 in each lane of a and b. Subnormals count as
/// zero.
inline Vec dot(Vec a, Vec b, Vec c) {
  return (Vec)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
}

/// Two rows of 32 bf16 as pairs, one of each row, the first in the lower half:
/// numbers 8 i to 8 i + 3 in lanes 4 i to 4 i + 3 of `low`, the four behind
/// them in those of `high`.
inline void pairRows(Vec first, Vec second, Vec &low, Vec &high) {
  low = (Vec)_mm512_unpacklo_epi16((__m512i)first, (__m512i)second);
  high = (Vec)_mm512_unpackhi_epi16((__m512i)first, (__m512i)second);
}

/// What the bits of an f8E4M3FN without its sign are as bf16.
struct Bf16OfF8 {
  alignas(64) uint8_t low[128], high[128];

  constexpr Bf16OfF8() : low(), high() {
    for (int bits = 0; bits < 128; ++bits) {
      int exponent = bits >> 3, fraction = bits & 7;
      if (exponent == 0 && fraction) { // subnormal: normal as bf16
        for (exponent = 1; fraction < 8; --exponent)
          fraction *= 2;
        fraction -= 8;
      }
      int wide = bits ? (exponent + 120) << 7 | fraction << 4 : 0;
      low[bits] = static_cast<uint8_t>(wide);
      high[bits] = static_cast<uint8_t>(wide >> 8);
    }
  }
};
constexpr Bf16OfF8 kBf16OfF8;

/// The bytes of 64 f8E4M3FN as bf16.
inline void bytesOfF8(__m512i x, __m512i &low, __m512i &high) {
  auto lookUp = [&](const uint8_t *table) {
    return _mm512_permutex2var_epi8(_mm512_load_si512(table), x,
                                    _mm512_load_si512(table + 64));
  };
  low = lookUp(kBf16OfF8.low);
  high = lookUp(kBf16OfF8.high); // | sign
  high = _mm512_ternarylogic_epi64(high, x, _mm512_set1_epi8(char(0x80)), 0xf8);
}

/// 64 f8E4M3FN as pairs: pairs 8 i to 8 i + 3 in lanes 4 i to 4 i + 3 of
/// `first`, the four behind them in those of `second`.
inline void pairsOfF8(Vec x, Vec &first, Vec &second) {
  __m512i low, high;
  bytesOfF8((__m512i)x, low, high);
  first = (Vec)_mm512_unpacklo_epi8(low, high);
  second = (Vec)_mm512_unpackhi_epi8(low, high);
}

/// 64 numbers as pairs in the order of pairsOfF8: what bf16 keeps of them, two
/// vectors, then what it keeps of the rest.
inline void splitPairs(const float *from, float *to) {
  __m512 x[4];
  __m512i pairs[2];
  for (int i = 0; i < 4; ++i)
    x[i] = _mm512_loadu_ps(from + 16 * i);
  for (int digit = 0; digit < 4; digit += 2) {
    for (int i = 0; i < 2; ++i)
      pairs[i] = (__m512i)_mm512_cvtne2ps_pbh(x[2 * i + 1], x[2 * i]);
    _mm512_storeu_si512(to + 16 * digit,
                        _mm512_shuffle_i32x4(pairs[0], pairs[1], 0x88));
    _mm512_storeu_si512(to + 16 * digit + 16,
                        _mm512_shuffle_i32x4(pairs[0], pairs[1], 0xdd));
    for (__m512 &number : x)
      number -= _mm512_cvtpbh_ps(_mm512_cvtneps_pbh(number));
  }
}

/// Two rows of 64 f8E4M3FN as pairs, one of each row, the first in the lower
/// half: numbers 16 i + 4 j to 16 i + 4 j + 3 in lanes 4 i to 4 i + 3 of x[j].
inline void pairRowsOfF8(Vec first, Vec second, Vec *x) {
  __m512i a = (__m512i)first, b = (__m512i)second;
  pairsOfF8((Vec)_mm512_unpacklo_epi8(a, b), x[0], x[1]);
  pairsOfF8((Vec)_mm512_unpackhi_epi8(a, b), x[2], x[3]);
}
#endif

/// The sums of the products of both 16-bit integers of each lane.
inline Ints multiplyPairs(Shorts a, Shorts b) {
#if defined(LLM_CPU_X86_V4)
  return (Ints)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(LLM_CPU_X86_V3)
  return (Ints)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__x86_64__)
  return (Ints)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
  Ints low = ((Ints)a << 16 >> 16) * ((Ints)b << 16 >> 16);
  return low + ((Ints)a >> 16) * ((Ints)b >> 16);
#endif
}

/// c + the products of the four bytes of each lane: a's unsigned, b's signed.
inline Ints dotBytes(UInts a, UInts b, Ints c) {
#if defined(LLM_CPU_X86_VNNI)
  return (Ints)_mm512_dpbusd_epi32((__m512i)c, (__m512i)a, (__m512i)b);
#else
  Shorts even = (Shorts)(b << 8) >> 8, odd = (Shorts)b >> 8;
  c += multiplyPairs((Shorts)(a & 0x00ff00ff), even);
  return c + multiplyPairs((Shorts)(a >> 8 & 0x00ff00ff), odd);
#endif
}

#if defined(LLM_CPU_X86_VNNI)
/// c + the products of both 16-bit integers of each lane. Of the intrinsic
/// clang makes two instructions, which have a lower latency.
inline Ints dotWords(Ints a, Ints b, Ints c) {
  asm("vpdpwssd %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
  return c;
}
#endif

/// The four bytes at `from` in every lane.
inline UInts splatBytes(const char *from) {
  uint32_t bits;
  memcpy(&bits, from, sizeof(bits));
  return UInts{} + bits;
}

#if !defined(LLM_CPU_X86_V4)
/// The integer below, for at most 2^22 in magnitude; NaN for NaN.
inline Vec floor(Vec x) {
#if defined(LLM_CPU_X86_V3)
  return (Vec)_mm256_floor_ps((__m256)x);
#elif defined(__aarch64__)
  return (Vec)vrndmq_f32((float32x4_t)x);
#else
  Vec n = x + 12582912.0f - 12582912.0f; // 1.5 * 2^23: adding it rounds
  return n > x ? n - 1.0f : n;
#endif
}
#endif

/// x * 2^n for an integral n of at most 255 in magnitude, rounded once.
inline Vec scaleByPowerOfTwo(Vec x, Vec n) {
#if defined(LLM_CPU_X86_V4)
  return (Vec)_mm512_scalef_ps((__m512)x, (__m512)n);
#else
  // In two steps, because 2^n alone may be no number of f32. Adding 1.5 * 2^23
  // leaves an integer in the low bits; biased by 256 it halves as an unsigned.
  UInts biased = bitsOf(n + 12582912.0f) - 0x4b400000 + 256;
  UInts half = (biased >> 1) - 128, rest = biased - 256 - half;
  return x * ofBits((half + 127) << 23) * ofBits((rest + 127) << 23);
#endif
}

/// x - floor(x).
inline Vec fraction(Vec x) {
#if defined(LLM_CPU_X86_V4)
  return (Vec)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEG_INF);
#else
  return x - floor(x);
#endif
}

/// x * 2^floor(n) for x in [1, 2] and n <= 0, but 0 where it would be
/// subnormal: such a result takes a CPU 16 times as long.
inline Vec scaleNormal(Vec x, Vec n) {
#if defined(LLM_CPU_X86_V4)
  __mmask16 normal =
      _mm512_cmp_ps_mask((__m512)n, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ);
  return (Vec)_mm512_maskz_scalef_ps(normal, (__m512)x, (__m512)n);
#else
  // Adding 1.5 * 2^23 leaves an integer in the low bits.
  Vec power = ofBits(bitsOf(floor(n) + 12583039.0f) << 23);
  return n < -126.0f ? Vec{} : x * power;
#endif
}

/// Elements i, j of each quad (four lanes) of `a`, then of `b`; and the same
/// with whole quads for elements.
#if defined(LLM_CPU_X86_V4)
#define LLM_SHUFFLE(a, b, i, j)                                                \
  (Vec) _mm512_shuffle_ps((__m512)(a), (__m512)(b),                            \
                          (i) | (j) << 2 | (i) << 4 | (j) << 6)
#define LLM_SHUFFLE_QUADS(a, b, i, j)                                          \
  (Vec) _mm512_shuffle_f32x4((__m512)(a), (__m512)(b),                         \
                             (i) | (j) << 2 | (i) << 4 | (j) << 6)
#elif defined(LLM_CPU_X86_V3)
#define LLM_SHUFFLE(a, b, i, j)                                                \
  __builtin_shufflevector(a, b, i, j, 8 + (i), 8 + (j), 4 + (i), 4 + (j),      \
                          12 + (i), 12 + (j))
/// Quad i of `a` and quad j of `b`.
#define LLM_JOIN_QUADS(a, b, i, j)                                             \
  (Vec) _mm256_permute2f128_ps((__m256)(a), (__m256)(b), (i) | (2 + (j)) << 4)
#else
#define LLM_SHUFFLE(a, b, i, j)                                                \
  __builtin_shufflevector(a, b, i, j, 4 + (i), 4 + (j))
#endif

/// Transposes the 4 x 4 elements, or quads, of four vectors.
#define LLM_TRANSPOSE(SHUFFLE, a, b, c, d)                                     \
  do {                                                                         \
    Vec abLow = SHUFFLE(a, b, 0, 1), abHigh = SHUFFLE(a, b, 2, 3);             \
    Vec cdLow = SHUFFLE(c, d, 0, 1), cdHigh = SHUFFLE(c, d, 2, 3);             \
    a = SHUFFLE(abLow, cdLow, 0, 2);                                           \
    b = SHUFFLE(abLow, cdLow, 1, 3);                                           \
    c = SHUFFLE(abHigh, cdHigh, 0, 2);                                         \
    d = SHUFFLE(abHigh, cdHigh, 1, 3);                                         \
  } while (false)

/// x[i][j] <-> x[j][i] for kLanes vectors: four shuffles each at 16 lanes,
/// three at 8, two at 4.
inline void transpose(Vec *x) {
  LLM_UNROLL
  for (int i = 0; i < kLanes; i += 4)
    LLM_TRANSPOSE(LLM_SHUFFLE, x[i], x[i + 1], x[i + 2], x[i + 3]);
#if defined(LLM_CPU_X86_V4)
  LLM_UNROLL
  for (int i = 0; i < 4; ++i)
    LLM_TRANSPOSE(LLM_SHUFFLE_QUADS, x[i], x[4 + i], x[8 + i], x[12 + i]);
#elif defined(LLM_CPU_X86_V3)
  LLM_UNROLL
  for (int i = 0; i < 4; ++i) {
    Vec first = x[i];
    x[i] = LLM_JOIN_QUADS(first, x[4 + i], 0, 0);
    x[4 + i] = LLM_JOIN_QUADS(first, x[4 + i], 1, 1);
  }
#endif
}

/// Quads of lanes in a vector.
constexpr int kQuads = kLanes / 4;

/// What two vectors become.
struct Sum {
  static Vec of(Vec a, Vec b) { return a + b; }
};
struct Maximum {
  static Vec of(Vec a, Vec b) { return max(a, b); }
};

#define LLM_MERGE(SHUFFLE, a, b, i, j, k, l)                                   \
  Merge::of(SHUFFLE(a, b, i, j), SHUFFLE(a, b, k, l))

/// Where the lanes of a vector are that shall come to lane `lane`; see
/// mergedLanes.
constexpr int slotOf(int lane) { return lane % 4 * kQuads + lane / 4; }

/// The lanes of kLanes vectors merged into one: those of x[slotOf(lane)] into
/// lane `lane`. Merges lanes 8 apart, then 4, 2, 1; overwrites x.
template <typename Merge>
inline Vec mergedLanes(Vec *x) {
#if defined(LLM_CPU_X86_V4)
  LLM_UNROLL
  for (int i = 0; i < 8; ++i)
    x[i] = LLM_MERGE(LLM_SHUFFLE_QUADS, x[2 * i], x[2 * i + 1], 0, 1, 2, 3);
  LLM_UNROLL
  for (int i = 0; i < 4; ++i)
    x[i] = LLM_MERGE(LLM_SHUFFLE_QUADS, x[2 * i], x[2 * i + 1], 0, 2, 1, 3);
#elif defined(LLM_CPU_X86_V3)
  LLM_UNROLL
  for (int i = 0; i < 4; ++i)
    x[i] = Merge::of(LLM_JOIN_QUADS(x[2 * i], x[2 * i + 1], 0, 0),
                     LLM_JOIN_QUADS(x[2 * i], x[2 * i + 1], 1, 1));
#endif
  Vec a = LLM_MERGE(LLM_SHUFFLE, x[0], x[1], 0, 1, 2, 3);
  Vec b = LLM_MERGE(LLM_SHUFFLE, x[2], x[3], 0, 1, 2, 3);
  return LLM_MERGE(LLM_SHUFFLE, a, b, 0, 2, 1, 3);
}

/// The sum of the lanes: those 8 apart, then 4, 2, 1.
inline float sumOf(Vec x) {
#if defined(LLM_CPU_X86_V4)
  x += LLM_SHUFFLE_QUADS(x, x, 2, 3);
  x += LLM_SHUFFLE_QUADS(x, x, 1, 1);
#elif defined(LLM_CPU_X86_V3)
  x += LLM_JOIN_QUADS(x, x, 1, 0);
#endif
  x += LLM_SHUFFLE(x, x, 2, 3);
  return x[0] + x[1];
}

inline float maxOf(Vec x) {
#if defined(LLM_CPU_X86_V4)
  x = max(x, LLM_SHUFFLE_QUADS(x, x, 2, 3));
  x = max(x, LLM_SHUFFLE_QUADS(x, x, 1, 1));
#elif defined(LLM_CPU_X86_V3)
  x = max(x, LLM_JOIN_QUADS(x, x, 1, 0));
#endif
  x = max(x, LLM_SHUFFLE(x, x, 2, 3));
  return x[0] > x[1] ? x[0] : x[1];
}

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

constexpr int64_t kLineBytes = 64; ///< of a cache

inline Vec join(Halves a, Halves b) {
  Vec both;
  memcpy(&both, &a, sizeof(a));
  memcpy(reinterpret_cast<char *>(&both) + sizeof(a), &b, sizeof(b));
  return both;
}

/// Past the caches, where the CPU can; `to` is as aligned as a vector.
inline void storeStreaming(void *to, Vec x) {
#if defined(LLM_CPU_X86_V4)
  _mm512_stream_ps(static_cast<float *>(to), (__m512)x);
#elif defined(LLM_CPU_X86_V3)
  _mm256_stream_ps(static_cast<float *>(to), (__m256)x);
#elif defined(__x86_64__)
  _mm_stream_ps(static_cast<float *>(to), (__m128)x);
#else
  memcpy(to, &x, sizeof(x));
#endif
}

/// Streaming stores before it are seen before stores behind it.
inline void fenceStreaming() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_SIMD_H
