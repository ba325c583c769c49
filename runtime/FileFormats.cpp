//===- FileFormats.cpp - The weights that files hold ----------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "FileFormats.h"

#include "cpu/Kernels.h"

#include <cstdint>
#include <iterator>

using namespace llm;

//===----------------------------------------------------------------------===//
// Formats
//===----------------------------------------------------------------------===//

namespace {

struct Format {
  const char *name;
  int64_t weights; ///< of one block
  int64_t bytes;
};

constexpr Format formats[] = {
    {"f32", 1, 4},      {"f16", 1, 2},      {"bf16", 1, 2},
    {"q8_0", 32, 34},   {"q4_0", 32, 18},   {"q4_1", 32, 20},
    {"q5_0", 32, 22},   {"q5_1", 32, 24},   {"q4_K", 256, 144},
    {"q5_K", 256, 176}, {"q6_K", 256, 210},
};

const Format *formatOf(llm_file_format format) {
  bool known = format >= 0 && format < llm_file_format(std::size(formats));
  return known ? &formats[format] : nullptr;
}

} // namespace

extern "C" const char *llm_file_format_name(llm_file_format format) {
  const Format *known = formatOf(format);
  return known ? known->name : nullptr;
}

extern "C" int64_t llm_file_row_bytes(llm_file_format format, int64_t cols) {
  const Format *known = formatOf(format);
  if (!known || cols < 0 || cols % known->weights != 0 ||
      cols / known->weights > INT64_MAX / known->bytes)
    return -1;
  return cols / known->weights * known->bytes;
}

int64_t llm::weightsOfBlock(llm_file_format format) {
  return formats[format].weights;
}

//===----------------------------------------------------------------------===//
// Parts of blocks
//===----------------------------------------------------------------------===//

float llm::readHalf(const uint8_t *from) {
  float value;
  cpu::kernels().convert(&value, LLM_F32, from, LLM_F16, 1);
  return value;
}

/// f16 d, f16 m, then 12 bytes of eight scales and eight minimums of 6 bits:
///
///   bytes 0-3    scales 0-3     and above them the highest pairs of 4-7
///   bytes 4-7    minimums 0-3   and above them the highest pairs of 4-7
///   bytes 8-11   the low nibbles of scales 4-7, then of minimums 4-7
ScaleAndMinimum llm::readScaleAndMinimum(const uint8_t *block, int64_t part) {
  const uint8_t *scales = block + 4, *minimums = block + 8;
  const int64_t i = part % 4;
  int scale = scales[i] & 63, minimum = minimums[i] & 63;
  if (part >= 4) {
    const uint8_t low = block[12 + i];
    scale = (low & 15) | scales[i] >> 6 << 4;
    minimum = low >> 4 | minimums[i] >> 6 << 4;
  }
  return {readHalf(block) * scale, readHalf(block + 2) * minimum};
}

//===----------------------------------------------------------------------===//
// Dequantization
//===----------------------------------------------------------------------===//

namespace {

constexpr int64_t kParts = kSuperBlock / kQuantBlock;

/// f16 d, 32 x int8 q: d * q.
void dequantizeQ8(const uint8_t *block, float *to) {
  float d = readHalf(block);
  for (int64_t i = 0; i < kQuantBlock; ++i)
    to[i] = d * static_cast<int8_t>(block[2 + i]);
}

/// f16 d, 16 bytes: d * (q - 8), low nibbles first.
void dequantizeQ4(const uint8_t *block, float *to) {
  float d = readHalf(block);
  for (int64_t i = 0; i < kQuantBlock / 2; ++i) {
    to[i] = d * ((block[2 + i] & 15) - 8);
    to[i + kQuantBlock / 2] = d * ((block[2 + i] >> 4) - 8);
  }
}

/// f16 d, f16 m, 16 bytes: d * q + m, low nibbles first.
void dequantizeQ4Min(const uint8_t *block, float *to) {
  float d = readHalf(block), m = readHalf(block + 2);
  for (int64_t i = 0; i < kQuantBlock / 2; ++i) {
    to[i] = d * (block[4 + i] & 15) + m;
    to[i + kQuantBlock / 2] = d * (block[4 + i] >> 4) + m;
  }
}

/// The five bits of weight i of q5_0 and q5_1: four bytes have the highest
/// ones, 16 bytes the others, low nibbles first.
int fiveBits(const uint8_t *quants, int64_t i) {
  constexpr int64_t kHalf = kQuantBlock / 2;
  const int low = quants[4 + i % kHalf] >> (i < kHalf ? 0 : 4) & 15;
  return low | (quants[i / 8] >> i % 8 & 1) << 4;
}

/// f16 d, 32 x 5 bits: d * (q - 16).
void dequantizeQ5(const uint8_t *block, float *to) {
  float d = readHalf(block);
  for (int64_t i = 0; i < kQuantBlock; ++i)
    to[i] = d * (fiveBits(block + 2, i) - 16);
}

/// f16 d, f16 m, 32 x 5 bits: d * q + m.
void dequantizeQ5Min(const uint8_t *block, float *to) {
  float d = readHalf(block), m = readHalf(block + 2);
  for (int64_t i = 0; i < kQuantBlock; ++i)
    to[i] = d * fiveBits(block + 4, i) + m;
}

/// f16 d, f16 m, 12 bytes of scales and minimums, 128 bytes: 8 parts of 32.
void dequantizeQ4K(const uint8_t *block, float *to) {
  for (int64_t part = 0; part < kParts; ++part) {
    const auto [scale, minimum] = readScaleAndMinimum(block, part);
    for (int64_t i = 0; i < kQuantBlock; ++i)
      to[part * kQuantBlock + i] =
          scale * nibbleOfPart(block + kQ4KQuants, part, i) - minimum;
  }
}

/// As q4_K, with 32 bytes before the 128: bit `part` of byte i is the fifth bit
/// of weight i of that part.
void dequantizeQ5K(const uint8_t *block, float *to) {
  const uint8_t *highest = block + 16, *quants = highest + kQuantBlock;
  for (int64_t part = 0; part < kParts; ++part) {
    const auto [scale, minimum] = readScaleAndMinimum(block, part);
    for (int64_t i = 0; i < kQuantBlock; ++i) {
      const int q = nibbleOfPart(quants, part, i) | (highest[i] >> part & 1)
                                                        << 4;
      to[part * kQuantBlock + i] = scale * q - minimum;
    }
  }
}

/// 128 bytes of low nibbles, 64 bytes of high pairs of bits, 16 x int8 scales
/// of 16 weights each, f16 d: d * scale * (q - 32). Each half of 128 weights
/// has four parts of 32: nibbles of parts 0 and 1 lie below those of 2 and 3.
void dequantizeQ6K(const uint8_t *block, float *to) {
  const uint8_t *pairs = block + 128, *scales = pairs + 64;
  const float d = readHalf(scales + 16);
  for (int64_t w = 0; w < kSuperBlock; ++w) {
    const int64_t half = w / 128, part = w / 32 % 4, i = w % 32;
    const int low = block[half * 64 + part % 2 * 32 + i] >> part / 2 * 4 & 15;
    const int high = pairs[half * 32 + i] >> part * 2 & 3;
    const float scale = d * static_cast<int8_t>(scales[w / 16]);
    to[w] = scale * ((low | high << 4) - 32);
  }
}

template <typename Fn>
void forBlocks(llm_file_format format, const void *from, int64_t n, float *to,
               Fn block) {
  const uint8_t *bytes = static_cast<const uint8_t *>(from);
  const auto [name, weights, size] = formats[format];
  for (int64_t i = 0; i < n / weights; ++i)
    block(bytes + i * size, to + i * weights);
}

} // namespace

void llm::dequantize(llm_file_format format, const void *from, int64_t n,
                     float *to) {
  switch (format) {
  case LLM_FILE_F32:
    return cpu::kernels().convert(to, LLM_F32, from, LLM_F32, n);
  case LLM_FILE_F16:
    return cpu::kernels().convert(to, LLM_F32, from, LLM_F16, n);
  case LLM_FILE_BF16:
    return cpu::kernels().convert(to, LLM_F32, from, LLM_BF16, n);
  case LLM_FILE_Q8_0:
    return forBlocks(format, from, n, to, dequantizeQ8);
  case LLM_FILE_Q4_0:
    return forBlocks(format, from, n, to, dequantizeQ4);
  case LLM_FILE_Q4_1:
    return forBlocks(format, from, n, to, dequantizeQ4Min);
  case LLM_FILE_Q5_0:
    return forBlocks(format, from, n, to, dequantizeQ5);
  case LLM_FILE_Q5_1:
    return forBlocks(format, from, n, to, dequantizeQ5Min);
  case LLM_FILE_Q4_K:
    return forBlocks(format, from, n, to, dequantizeQ4K);
  case LLM_FILE_Q5_K:
    return forBlocks(format, from, n, to, dequantizeQ5K);
  case LLM_FILE_Q6_K:
    return forBlocks(format, from, n, to, dequantizeQ6K);
  }
}
