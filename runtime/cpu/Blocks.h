//===- Blocks.h - How quantized weights lie in memory -----------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// LLM_LAYOUT_BLOCKS32: an [N, K] matrix as panels of 32 rows, [ceil(N / 32)]
// [K / 32] blocks. A block has 32 weights of each row, at the bits that they
// have in the file, in whole lines of a cache:
//
//   q4_1   | 32 scales | 32 minimums | rows 0-15: 4 lines | rows 16-31: 4 |
//   q4_0   | 32 scales |               rows 0-15: 4 lines | rows 16-31: 4 |
//   q8_0   | 32 scales |               rows 0-15: 8 lines | rows 16-31: 8 |
//
// Scales and minimums are f16. A line has four bytes of each of 16 rows: what
// one instruction multiplies with four numbers of x and adds up, so that a lane
// is a row of the matrix and no sum crosses lanes.
//
//   nibbles   byte k of a row: weight k low, weight k + 16 high, as in the file
//   bytes     byte k of a row: weight k + 128, for factors without a sign
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_BLOCKS_H
#define LLM_RUNTIME_CPU_BLOCKS_H

#include "llm/Runtime/CAPI.h"

#include <stdint.h>

namespace llm::cpu {

/// Whether there are blocks of this format.
static constexpr bool isBlockFormat(llm_file_format format) {
  return format == LLM_FILE_Q8_0 || format == LLM_FILE_Q4_0 ||
         format == LLM_FILE_Q4_1;
}

static constexpr bool hasMinimums(llm_file_format format) {
  return format == LLM_FILE_Q4_1;
}

static constexpr bool hasNibbles(llm_file_format format) {
  return format != LLM_FILE_Q8_0;
}

/// What stands for the weight 0.
static constexpr int32_t zeroOf(llm_file_format format) {
  return format == LLM_FILE_Q8_0 ? 128 : format == LLM_FILE_Q4_0 ? 8 : 0;
}

constexpr int64_t kBlockScaleBytes = 32 * 2, kBlockLineBytes = 64;

/// Lines of 16 rows of a block.
static constexpr int64_t linesOf(llm_file_format format) {
  return hasNibbles(format) ? 4 : 8;
}

/// Where the lines of a block begin.
static constexpr int64_t linesAt(llm_file_format format) {
  return (hasMinimums(format) ? 2 : 1) * kBlockScaleBytes;
}

/// Bytes of a block: 32 rows, 32 weights each.
static constexpr int64_t bytesOfBlock(llm_file_format format) {
  return linesAt(format) + 2 * linesOf(format) * kBlockLineBytes;
}

} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_BLOCKS_H
