//===- Quantize.h - Rows as small numbers and a scale -----------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
//   x [head_dim]   -->   q [head_dim] of i8 or f8E4M3FN,   scale s   ~   q * s
//
// The bits are those that #llm.kv_storage defines (LLMAttrs.td), at every
// level. The row is read twice, for its largest magnitude and to be divided;
// the second time it is in the cache. Floor: bytes read plus bytes written over
// the bandwidth.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_QUANTIZE_H
#define LLM_RUNTIME_CPU_QUANTIZE_H

#include "Formats.h"

namespace llm::cpu {
namespace {

/// The largest magnitude of n numbers; NaN if some number is one. As integers
/// magnitudes are in the same order, with NaNs above infinity.
template <llm_dtype From>
inline float magnitudeOf(const char *from, int64_t n) {
  UInts most = {};
  for (int64_t i = 0; i < n; i += kLanes) {
    UInts bits =
        bitsOf(load<From>(from + i * bytesOf(From), min(n - i, kLanes)));
    UInts magnitude = bits & 0x7fffffff;
    most = magnitude > most ? magnitude : most;
  }
  uint32_t top = 0;
  for (int i = 0; i < kLanes; ++i)
    top = most[i] > top ? most[i] : top;
  return ofBits(UInts{} + top)[0];
}

template <llm_dtype To, llm_dtype From>
float quantizeAs(char *to, const char *from, int64_t n) {
  float scale = magnitudeOf<From>(from, n) / kLargest<To>;
  scale = scale < kInfinity ? scale : __builtin_nanf("");
  if (!(scale > 0)) {
    memset(to, 0, n * bytesOf(To));
    return scale;
  }
  for (int64_t i = 0; i < n; i += kLanes) {
    int64_t count = min(n - i, kLanes);
    store<To>(to + i * bytesOf(To),
              load<From>(from + i * bytesOf(From), count) / scale, count);
  }
  return scale;
}

template <llm_dtype To>
float quantizeTo(char *to, const char *from, llm_dtype fromType, int64_t n) {
  if (fromType == LLM_F32)
    return quantizeAs<To, LLM_F32>(to, from, n);
  if (fromType == LLM_F16)
    return quantizeAs<To, LLM_F16>(to, from, n);
  return quantizeAs<To, LLM_BF16>(to, from, n);
}

inline float quantize(void *to, llm_dtype toType, const void *from,
                      llm_dtype fromType, int64_t n) {
  char *out = static_cast<char *>(to);
  const char *in = static_cast<const char *>(from);
  return toType == LLM_I8 ? quantizeTo<LLM_I8>(out, in, fromType, n)
                          : quantizeTo<LLM_F8E4M3FN>(out, in, fromType, n);
}

template <llm_dtype To, llm_dtype From>
void dequantizeAs(char *to, const char *from, float scale, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    int64_t count = min(n - i, kLanes);
    store<To>(to + i * bytesOf(To), load<From>(from + i, count) * scale, count);
  }
}

template <llm_dtype From>
void dequantizeFrom(char *to, llm_dtype toType, const char *from, float scale,
                    int64_t n) {
  if (toType == LLM_F32)
    dequantizeAs<LLM_F32, From>(to, from, scale, n);
  else if (toType == LLM_F16)
    dequantizeAs<LLM_F16, From>(to, from, scale, n);
  else
    dequantizeAs<LLM_BF16, From>(to, from, scale, n);
}

inline void dequantize(void *to, llm_dtype toType, const void *from,
                       llm_dtype fromType, float scale, int64_t n) {
  char *out = static_cast<char *>(to);
  const char *in = static_cast<const char *>(from);
  if (fromType == LLM_I8)
    dequantizeFrom<LLM_I8>(out, toType, in, scale, n);
  else
    dequantizeFrom<LLM_F8E4M3FN>(out, toType, in, scale, n);
}

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_QUANTIZE_H
