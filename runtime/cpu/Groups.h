//===- Groups.h - Groups of 32 numbers as 4 bits, a minimum and a step ----===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
//   V of a token    channels 0 .. 31 | 32 .. 63 | ...   a group each
//   K of a channel  tokens   0 .. 31 | 32 .. 63 | ...
//
// The bits are those that #llm.kv_storage defines (LLMAttrs.td), at every
// level. A code is at most 15 and a step has 8 bits, so that their product is
// exact, and it does not matter whether a level adds the minimum to it with one
// instruction or two. Floor: bytes read plus bytes written over the bandwidth.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_GROUPS_H
#define LLM_RUNTIME_CPU_GROUPS_H

#include "Formats.h"

namespace llm::cpu {
namespace {

constexpr int64_t kGroupBytes = kGroupSize / 2;

//===----------------------------------------------------------------------===//
// Minima and steps
//===----------------------------------------------------------------------===//

inline Vec minimumOf(UInts params) { return ofBits(params << 16); }
inline Vec stepOf(UInts params) { return ofBits(params & 0xffff0000); }

/// Bounds of the numbers of each lane's group; NaN where one of them is.
struct Bounds {
  Vec least = splat(kInfinity), most = splat(-kInfinity);
  UInts none = {}; ///< all ones: a number is NaN

  void add(Vec x) {
    least = min(x, least);
    most = max(x, most);
    none |= (UInts)(x != x);
  }
};

/// The minimum rounded down to a bf16, and the step up; a minimum of NaN where
/// 15 steps are no number.
inline UInts paramsOf(const Bounds &bounds) {
  UInts bits = bitsOf(bounds.least + 0.0f); // -0 becomes 0
  UInts minimum = (bits + (bits >> 31) * 0xffff) & 0xffff0000;
  Vec most = ofBits(bitsOf(bounds.most) | bounds.none);
  Vec step = (most - ofBits(minimum)) / 15.0f;
  UInts rounded = (bitsOf(step) + 0xffff) & 0x7fff0000; // nor is it -0
  Vec longest = ofBits(rounded) * 15.0f;
  UInts params = step < kInfinity ? rounded | minimum >> 16 : UInts{} + 0x7fc0;
  return longest < kInfinity ? params : UInts{} + 0x7fc0;
}

//===----------------------------------------------------------------------===//
// Codes
//===----------------------------------------------------------------------===//

/// To the nearest, to nearest even, and to an end of the range; 0 without a
/// step.
inline Bytes codesOf(Vec x, UInts params) {
  Vec step = stepOf(params);
  Vec code = (x - minimumOf(params)) / step;
  code = step > 0.0f ? min(max(code, Vec{}), splat(15)) : Vec{};
  // The last bit of 1.5 * 2^23 is 1: the addition rounds.
  return __builtin_convertvector(bitsOf(code + 12582912.0f) & 15, Bytes);
}

/// Bytes of a group from a byte for each of its channels.
inline void pack(uint8_t *to, const uint8_t *codes) {
  for (int i = 0; i < kGroupBytes; ++i)
    to[i] = static_cast<uint8_t>(codes[i] | codes[i + kGroupBytes] << 4);
}

/// What the channels from `channel` on, within a group, read as.
inline Vec readCodes(const uint8_t *group, int64_t channel, UInts params) {
  Bytes packed;
  memcpy(&packed, group + channel % kGroupBytes, sizeof(packed));
  UInts wide = __builtin_convertvector(packed, UInts);
  UInts codes = channel < kGroupBytes ? wide & 15 : wide >> 4;
  return fma(__builtin_convertvector((Ints)codes, Vec), stepOf(params),
             minimumOf(params));
}

//===----------------------------------------------------------------------===//
// Channels of a token
//===----------------------------------------------------------------------===//

template <llm_dtype From>
void quantizeChannelsOf(uint8_t *codes, uint32_t *params, const char *from,
                        int64_t n) {
  for (; n > 0; n -= kGroupSize, codes += kGroupBytes) {
    int64_t count = min(n, kGroupSize);
    alignas(64) float group[kGroupSize];
    for (int64_t i = 0; i < count; i += kLanes)
      store(group + i,
            load<From>(from + i * bytesOf(From), min(count - i, kLanes)));
    from += count * bytesOf(From);
    for (int64_t i = count; i < kGroupSize; ++i)
      group[i] = group[0];
    // The bounds of each lane, then of the first one and all others.
    Bounds lanes, all;
    for (int64_t i = 0; i < kGroupSize; i += kLanes)
      lanes.add(load(group + i));
    for (int i = 0; i < kLanes; ++i) {
      all.add(splat(lanes.least[i]));
      all.add(splat(lanes.most[i]));
      all.none |= UInts{} + lanes.none[i];
    }
    UInts shared = paramsOf(all);
    *params++ = shared[0];
    uint8_t wide[kGroupSize] = {};
    for (int64_t i = 0; i < count; i += kLanes) {
      Bytes bytes = codesOf(load(group + i), shared);
      memcpy(wide + i, &bytes, min(count - i, kLanes));
    }
    pack(codes, wide);
  }
}

void quantizeChannels(uint8_t *codes, uint32_t *params, const void *from,
                      llm_dtype fromType, int64_t n) {
  const char *in = static_cast<const char *>(from);
  if (fromType == LLM_F32)
    quantizeChannelsOf<LLM_F32>(codes, params, in, n);
  else if (fromType == LLM_F16)
    quantizeChannelsOf<LLM_F16>(codes, params, in, n);
  else
    quantizeChannelsOf<LLM_BF16>(codes, params, in, n);
}

void readChannels(float *to, const uint8_t *codes, const uint32_t *params,
                  int64_t n) {
  for (; n > 0; n -= kGroupSize, codes += kGroupBytes, ++params)
    for (int64_t i = 0; i < min(n, kGroupSize); i += kLanes, to += kLanes)
      store<LLM_F32>(to, readCodes(codes, i, UInts{} + *params),
                     min(n - i, kLanes));
}

//===----------------------------------------------------------------------===//
// Tokens of a channel
//===----------------------------------------------------------------------===//

/// Up to 32 channels. What is loaded beyond the last is 0, and so is its code.
inline void quantizeTokensOf(uint8_t *codes, int64_t codeStride,
                             uint32_t *params, const float *rows,
                             int64_t stride, int64_t n) {
  UInts shared[kGroupSize / kLanes];
  for (int64_t i = 0; i < kGroupSize; i += kLanes) {
    int64_t count = min(max(n - i, 0), kLanes);
    Bounds bounds;
    for (int64_t row = 0; row < kGroupSize; ++row)
      bounds.add(load<LLM_F32>(rows + row * stride + i, count));
    shared[i / kLanes] = paramsOf(bounds);
    memcpy(params + i, &shared[i / kLanes], count * sizeof(uint32_t));
  }
  for (int64_t row = 0; row < kGroupSize; ++row) {
    uint8_t wide[kGroupSize];
    for (int64_t i = 0; i < kGroupSize; i += kLanes) {
      int64_t count = min(max(n - i, 0), kLanes);
      Bytes bytes = codesOf(load<LLM_F32>(rows + row * stride + i, count),
                            shared[i / kLanes]);
      memcpy(wide + i, &bytes, sizeof(bytes));
    }
    pack(codes + row * codeStride, wide);
  }
}

void quantizeTokens(uint8_t *codes, int64_t codeStride, uint32_t *params,
                    const float *rows, int64_t stride, int64_t n) {
  for (int64_t i = 0; i < n; i += kGroupSize)
    quantizeTokensOf(codes + codeBytes(i), codeStride, params + i, rows + i,
                     stride, min(n - i, kGroupSize));
}

void readTokens(float *to, const uint8_t *codes, const uint32_t *params,
                int64_t n) {
  for (; n > 0; n -= kGroupSize, codes += kGroupBytes)
    for (int64_t i = 0; i < min(n, kGroupSize); i += kLanes) {
      int64_t count = min(n - i, kLanes);
      UInts own = bitsOf(load<LLM_F32>(params, count));
      store<LLM_F32>(to, readCodes(codes, i, own), count);
      params += count;
      to += count;
    }
}

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_GROUPS_H
