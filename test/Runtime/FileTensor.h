//===- FileTensor.h - Tensors as they lie in files --------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One weight at a time, in double, from the block definitions of ggml.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_TEST_RUNTIME_FILETENSOR_H
#define LLM_TEST_RUNTIME_FILETENSOR_H

#include "llm/Runtime/CAPI.h"

#include <cmath>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

namespace llm {

inline double halfAt(const uint8_t *bytes) {
  int bits = bytes[0] | bytes[1] << 8;
  int exponent = bits >> 10 & 31, fraction = bits & 1023;
  double value = exponent ? std::ldexp(1024 + fraction, exponent - 25)
                          : std::ldexp(fraction, -24);
  return bits >> 15 ? -value : value;
}

inline double brainAt(const uint8_t *bytes) {
  uint32_t bits = uint32_t(bytes[0] | bytes[1] << 8) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline double floatAt(const uint8_t *bytes) {
  float value;
  std::memcpy(&value, bytes, 4);
  return value;
}

inline int nibble(const uint8_t *quants, int64_t i) {
  return i < 16 ? quants[i] & 15 : quants[i - 16] >> 4;
}

/// The fifth bit of weight i, of four bytes.
inline int fifthBit(const uint8_t *bits, int64_t i) {
  return bits[i / 8] >> i % 8 & 1;
}

/// Scale and minimum of the 32 weights `part` of a block of q4_K or q5_K: eight
/// of 6 bits each, the last four in pieces.
inline std::pair<double, double> scaleAndMinimum(const uint8_t *block,
                                                 int64_t part) {
  const uint8_t *bytes = block + 4;
  int scale, minimum;
  if (part < 4) {
    scale = bytes[part] % 64;
    minimum = bytes[part + 4] % 64;
  } else {
    scale = bytes[part + 4] % 16 + bytes[part - 4] / 64 * 16;
    minimum = bytes[part + 4] / 16 + bytes[part] / 64 * 16;
  }
  return {halfAt(block) * scale, halfAt(block + 2) * minimum};
}

/// Weight i of a block of q4_K or q5_K, whose 128 bytes of nibbles lie at
/// `quants`: 32 bytes have 64 weights.
inline int nibbleOf256(const uint8_t *quants, int64_t i) {
  const uint8_t byte = quants[i / 64 * 32 + i % 32];
  return i % 64 < 32 ? byte % 16 : byte / 16;
}

inline double weightOf256(llm_file_format format, const uint8_t *block,
                          int64_t i) {
  if (format == LLM_FILE_Q6_K) {
    const int64_t half = i / 128, part = i % 128 / 32;
    const uint8_t byte = block[half * 64 + part % 2 * 32 + i % 32];
    const uint8_t pairs = block[128 + half * 32 + i % 32];
    const int low = part < 2 ? byte % 16 : byte / 16;
    const int q = low + (pairs >> 2 * part) % 4 * 16 - 32;
    return halfAt(block + 208) * static_cast<int8_t>(block[192 + i / 16]) * q;
  }
  const auto [scale, minimum] = scaleAndMinimum(block, i / 32);
  if (format == LLM_FILE_Q4_K)
    return scale * nibbleOf256(block + 16, i) - minimum;
  const int fifth = block[16 + i % 32] >> i / 32 & 1;
  return scale * (nibbleOf256(block + 48, i) + 16 * fifth) - minimum;
}

inline double weightAt(llm_file_format format, const uint8_t *row,
                       int64_t col) {
  int64_t block = col / 32, i = col % 32;
  switch (format) {
  case LLM_FILE_F32:
    return floatAt(row + col * 4);
  case LLM_FILE_F16:
    return halfAt(row + col * 2);
  case LLM_FILE_BF16:
    return brainAt(row + col * 2);
  case LLM_FILE_Q8_0:
    row += block * 34;
    return halfAt(row) * static_cast<int8_t>(row[2 + i]);
  case LLM_FILE_Q4_0:
    row += block * 18;
    return halfAt(row) * (nibble(row + 2, i) - 8);
  case LLM_FILE_Q4_1:
    row += block * 20;
    return halfAt(row) * nibble(row + 4, i) + halfAt(row + 2);
  case LLM_FILE_Q5_0:
    row += block * 22;
    return halfAt(row) * (nibble(row + 6, i) + 16 * fifthBit(row + 2, i) - 16);
  case LLM_FILE_Q5_1:
    row += block * 24;
    return halfAt(row) * (nibble(row + 8, i) + 16 * fifthBit(row + 4, i)) +
           halfAt(row + 2);
  default:
    row += col / 256 * llm_file_row_bytes(format, 256);
    return weightOf256(format, row, col % 256);
  }
}

constexpr llm_file_format fileFormats[] = {
    LLM_FILE_F32,  LLM_FILE_F16,  LLM_FILE_BF16, LLM_FILE_Q8_0,
    LLM_FILE_Q4_0, LLM_FILE_Q4_1, LLM_FILE_Q5_0, LLM_FILE_Q5_1,
    LLM_FILE_Q4_K, LLM_FILE_Q5_K, LLM_FILE_Q6_K};

inline bool isOf256(llm_file_format format) {
  return format >= LLM_FILE_Q4_K && format <= LLM_FILE_Q6_K;
}

/// Random finite weights at an odd address.
struct FileTensor {
  std::vector<uint8_t> bytes;
  llm_weight_source source;

  FileTensor(llm_file_format format, int32_t rank, int64_t rows, int64_t cols,
             unsigned seed = 1) {
    int64_t rowBytes = llm_file_row_bytes(format, cols);
    std::mt19937 random(seed);
    bytes.resize(1 + rows * rowBytes);
    for (uint8_t &byte : bytes)
      byte = static_cast<uint8_t>(random());
    int64_t weights = isOf256(format) ? 256 : cols % 32 ? 1 : 32;
    int64_t unit = llm_file_row_bytes(format, weights);
    for (size_t at = 1; at < bytes.size(); at += unit)
      tame(format, weights, &bytes[at]);
    source = {bytes.data() + 1, format, rank, {rows, cols}};
    if (rank == 1)
      source.sizes[0] = cols;
  }

  /// Clears an exponent bit of every floating-point number of `n` weights.
  static void tame(llm_file_format format, int64_t n, uint8_t *unit) {
    if (format == LLM_FILE_F32)
      for (int64_t i = 0; i < n; ++i)
        unit[4 * i + 3] = (unit[4 * i + 3] & 0x81) | 0x3e;
    else if (format == LLM_FILE_F16 || format == LLM_FILE_BF16)
      for (int64_t i = 0; i < n; ++i)
        unit[2 * i + 1] &= 0xbf;
    else if (format == LLM_FILE_Q6_K)
      unit[209] &= 0xbf;
    else
      unit[1] &= 0xbf, unit[3] &= hasMinimum(format) ? 0xbf : 0xff;
  }

  static bool hasMinimum(llm_file_format format) {
    return format == LLM_FILE_Q4_1 || format == LLM_FILE_Q5_1 ||
           isOf256(format);
  }

  double at(int64_t row, int64_t col) const {
    int64_t cols = source.rank == 1 ? source.sizes[0] : source.sizes[1];
    return weightAt(
        source.format,
        bytes.data() + 1 + row * llm_file_row_bytes(source.format, cols), col);
  }
};

} // namespace llm

#endif // LLM_TEST_RUNTIME_FILETENSOR_H
