//===- FileBlocks.cpp - Weights in the blocks of a format -----------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "FileBlocks.h"

#include "FileFormats.h"
#include "cpu/Blocks.h"
#include "cpu/Kernels.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

using namespace llm;

//===----------------------------------------------------------------------===//
// Which blocks hold which weights
//===----------------------------------------------------------------------===//

extern "C" llm_file_format llm_file_block_format(llm_file_format format) {
  switch (format) {
  case LLM_FILE_Q4_0:
    return LLM_FILE_Q4_0;
  case LLM_FILE_Q4_1:
  case LLM_FILE_Q4_K:
    return LLM_FILE_Q4_1;
  case LLM_FILE_Q8_0:
  case LLM_FILE_Q5_0:
  case LLM_FILE_Q5_1:
  case LLM_FILE_Q5_K:
  case LLM_FILE_Q6_K:
    return LLM_FILE_Q8_0;
  default:
    return -1;
  }
}

bool llm::canHold(llm_file_format blocks, llm_file_format format) {
  const llm_file_format smallest = llm_file_block_format(format);
  return smallest >= 0 &&
         cpu::bytesOfBlock(smallest) <= cpu::bytesOfBlock(blocks);
}

//===----------------------------------------------------------------------===//
// Numbers of f16
//===----------------------------------------------------------------------===//

namespace {

/// Writes blocks one after the other.
struct BlockWriter {
  uint8_t *to;
  float beyond = 0; ///< the largest magnitude that no f16 has

  void half(float value);
  void bytes(const uint8_t *from, int64_t n) {
    std::memcpy(to, from, n);
    to += n;
  }
  void repeatScale(const uint8_t *scale) { bytes(scale, 2); }
};

uint16_t roundToHalf(float value) {
  uint16_t bits;
  cpu::kernels().convert(&bits, LLM_F16, &value, LLM_F32, 1);
  return bits;
}

float widenHalf(uint16_t bits) {
  uint8_t bytes[2];
  std::memcpy(bytes, &bits, 2);
  return readHalf(bytes);
}

void BlockWriter::half(float value) {
  const uint16_t bits = roundToHalf(value);
  if (std::isfinite(value) && !std::isfinite(widenHalf(bits)))
    beyond = std::max(beyond, std::abs(value));
  std::memcpy(to, &bits, 2);
  to += 2;
}

//===----------------------------------------------------------------------===//
// The same weights
//===----------------------------------------------------------------------===//

constexpr int64_t kHalfBlock = kQuantBlock / 2;

/// d * (q - 8) is d * q + -8 d.
void addMinimum(const uint8_t *block, BlockWriter &out) {
  out.bytes(block, 2);
  out.half(-8 * readHalf(block));
  out.bytes(block + 2, kHalfBlock);
}

/// The integers that a scale is multiplied with, which dequantizing with a
/// scale of one gives.
void widenIntegers(llm_file_format format, const uint8_t *block,
                   BlockWriter &out) {
  constexpr uint8_t kOne[] = {0x00, 0x3c};
  std::array<uint8_t, 32> unscaled;
  std::array<float, kQuantBlock> integers;
  std::memcpy(unscaled.data(), block, llm_file_row_bytes(format, kQuantBlock));
  std::memcpy(unscaled.data(), kOne, 2);
  dequantize(format, unscaled.data(), kQuantBlock, integers.data());
  out.bytes(block, 2);
  for (float integer : integers)
    *out.to++ = static_cast<uint8_t>(static_cast<int8_t>(integer));
}

//===----------------------------------------------------------------------===//
// q4_K as q4_1
//===----------------------------------------------------------------------===//

/// Eight parts of 32 weights.
void splitBlock(const uint8_t *block, BlockWriter &out) {
  for (int64_t part = 0; part < kSuperBlock / kQuantBlock; ++part) {
    const auto [scale, minimum] = readScaleAndMinimum(block, part);
    out.half(scale);
    out.half(-minimum);
    for (int64_t i = 0; i < kHalfBlock; ++i) {
      const uint8_t *quants = block + kQ4KQuants;
      *out.to++ =
          static_cast<uint8_t>(nibbleOfPart(quants, part, i) |
                               nibbleOfPart(quants, part, i + kHalfBlock) << 4);
    }
  }
}

//===----------------------------------------------------------------------===//
// Others as q8_0
//===----------------------------------------------------------------------===//

/// The f16 next to m / 127, or the one above it where m is too many steps of
/// that: where it is subnormal.
float scaleOf(float m) {
  const uint16_t bits = roundToHalf(m / 127);
  const bool tooMany = m >= 127.5f * widenHalf(bits);
  return m > 0 && tooMany ? widenHalf(bits + 1) : widenHalf(bits);
}

/// Nearest integer, the even one of two, of a magnitude below 2^22.
int8_t nearestInteger(float x) {
  constexpr float kUnit = 1.5f * (1 << 23); // whose last bit is worth 1
  return static_cast<int8_t>((x + kUnit) - kUnit);
}

void quantizeBlock(const float *weights, BlockWriter &out) {
  float largest = 0;
  bool finite = true;
  for (int64_t i = 0; i < kQuantBlock; ++i) {
    finite &= std::isfinite(weights[i]);
    largest = std::max(largest, std::abs(weights[i]));
  }
  const float scale = finite ? scaleOf(largest) : NAN;
  const bool known = std::isfinite(scale) && scale > 0;
  out.half(finite && !std::isfinite(scale) ? largest / 127 : scale);
  for (int64_t i = 0; i < kQuantBlock; ++i)
    *out.to++ = known ? static_cast<uint8_t>(nearestInteger(weights[i] / scale))
                      : uint8_t(0);
}

void quantize(llm_file_format format, const uint8_t *block, BlockWriter &out) {
  std::array<float, kSuperBlock> weights;
  const int64_t n = weightsOfBlock(format);
  dequantize(format, block, n, weights.data());
  for (int64_t i = 0; i < n; i += kQuantBlock)
    quantizeBlock(weights.data() + i, out);
}

void convertBlock(llm_file_format format, const uint8_t *block,
                  llm_file_format blocks, BlockWriter &out) {
  const bool isSymmetric = format == LLM_FILE_Q4_0 || format == LLM_FILE_Q5_0;
  if (format == LLM_FILE_Q4_K && blocks == LLM_FILE_Q4_1)
    splitBlock(block, out);
  else if (blocks == LLM_FILE_Q4_1)
    addMinimum(block, out);
  else if (isSymmetric)
    widenIntegers(format, block, out);
  else
    quantize(format, block, out);
}

} // namespace

float llm::convertBlocks(llm_file_format format, const void *from, int64_t n,
                         llm_file_format blocks, void *to) {
  const int64_t weights = weightsOfBlock(format);
  const int64_t bytes = llm_file_row_bytes(format, weights);
  const uint8_t *block = static_cast<const uint8_t *>(from);
  BlockWriter out{static_cast<uint8_t *>(to)};
  if (format == blocks)
    out.bytes(block, n / weights * bytes);
  else
    for (int64_t i = 0; i < n; i += weights, block += bytes)
      convertBlock(format, block, blocks, out);
  return out.beyond;
}
