//===- Exp.h - Exponentials of vectors --------------------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln(2) / 2: n goes into the
// exponent, and exp(r) is a polynomial of degree 7 (Cephes' coefficients).
//
// ln 2 is subtracted in two parts, the first of which has few enough digits
// that n times it is exact with and without fused multiplication. Results from
// subnormals to infinity are right.
// exp(0) is 1 and exp(-inf) is 0 exactly: softmax leans on both.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_EXP_H
#define LLM_RUNTIME_CPU_EXP_H

#include "Simd.h"

namespace llm::cpu {
namespace {

/// exp(r) for |r| <= ln(2) / 2.
inline Vec expReduced(Vec r) {
  Vec p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  return fma(p, r * r, r) + 1.0f;
}

/// e^x for -104 <= x <= 89, beyond which it is 0 or infinity.
inline Vec expBounded(Vec x) {
  const Vec magic = splat(12582912.0f); // 1.5 * 2^23: adding it rounds
  Vec n = fma(x, splat(1.44269504f), magic) - magic;
  Vec r = fma(n, splat(-0.693359375f), x);
  r = fma(n, splat(2.12194440e-4f), r);
  return scaleByPowerOfTwo(expReduced(r), n);
}

/// e^x, relative error below 2e-7; NaN for NaN.
inline Vec exp(Vec x) {
  x = x < -104.0f ? splat(-104.0f) : x; // comparisons keep NaN
  return expBounded(x > 89.0f ? splat(89.0f) : x);
}

/// 2^x for x <= 0, relative error below 2e-7, but 0 where it would be
/// subnormal: what is masked would be. 2^0 is 1; NaN for NaN.
inline Vec decay(Vec x) {
  Vec r = fraction(x);
  Vec p = splat(1.86695135e-3f); // minimax over [0, 1): relative error 8.3e-8
  p = fma(p, r, splat(9.01748147e-3f));
  p = fma(p, r, splat(5.57995141e-2f));
  p = fma(p, r, splat(2.40164593e-1f));
  p = fma(p, r, splat(6.93151295e-1f));
  return scaleNormal(fma(p, r, splat(1.0f)), x);
}

inline float decay(float x) { return decay(splat(x))[0]; }

/// Relative error below 1e-6, near zero too.
inline Vec tanh(Vec x) {
  Vec z = x * x;
  Vec p = splat(-5.70498872745e-3f);
  p = fma(p, z, splat(2.06390887954e-2f));
  p = fma(p, z, splat(-5.37397155531e-2f));
  p = fma(p, z, splat(1.33314422036e-1f));
  p = fma(p, z, splat(-3.33332819422e-1f));
  Vec small = fma(p * z, x, x);
  Vec large = 1.0f - 2.0f / (exp(x + x) + 1.0f);
  return z < 0.390625f ? small : large; // |x| < 0.625
}

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_EXP_H
