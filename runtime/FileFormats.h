//===- FileFormats.h - The weights that files hold --------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A row of a tensor is a sequence of blocks, as ggml defines them: of one
// number (f32, f16, bf16), of 32 weights (q8_0, q4_0, q4_1, q5_0, q5_1) or of
// 256 (q4_K, q5_K, q6_K). Callers have checked sizes; nothing here can fail or
// allocates.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_FILEFORMATS_H
#define LLM_RUNTIME_FILEFORMATS_H

#include "llm/Runtime/CAPI.h"

namespace llm {

/// Weights of the smallest quantized block, and of the largest.
constexpr int64_t kQuantBlock = 32, kSuperBlock = 256;

/// Weights of one block of a known format: a row has a multiple of them.
int64_t weightsOfBlock(llm_file_format format);

/// An f16 at any address.
float readHalf(const uint8_t *from);

/// A scale and a minimum, which q4_K and q5_K have for 32 weights: they are
/// scale * q - minimum.
struct ScaleAndMinimum {
  float scale, minimum;
};
/// Those of weights 32 `part` .. 32 part + 31 of a block.
ScaleAndMinimum readScaleAndMinimum(const uint8_t *block, int64_t part);

/// The 4 bits of weight 32 `part` + i, of the 128 bytes of q4_K or q5_K that
/// have them: 32 bytes have two parts, low nibbles first.
inline int nibbleOfPart(const uint8_t *quants, int64_t part, int64_t i) {
  return quants[part / 2 * kQuantBlock + i] >> part % 2 * 4 & 15;
}
/// Where those bytes begin in a block of q4_K.
constexpr int64_t kQ4KQuants = 16;

/// `n` weights at `from` (any alignment; whole blocks) as f32.
void dequantize(llm_file_format format, const void *from, int64_t n, float *to);

} // namespace llm

#endif // LLM_RUNTIME_FILEFORMATS_H
