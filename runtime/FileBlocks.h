//===- FileBlocks.h - Weights in the blocks of a format ---------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Kernels read blocks of q8_0, q4_0 and q4_1. Weights of the other quantized
// formats are packed as the first of q4_0, q4_1 and q8_0 that holds them about
// as well as their own, and each of the three holds what those before it do:
//
//   q4_0, q4_1, q8_0   as they are
//   q4_0 as q4_1       scale d, minimum -8 d: the same weights
//   q4_0, q5_0 as q8_0 scale d: the same weights
//   q4_K as q4_1       of each 32 weights the scale and the minimum, which are
//                      products of f16 and 6 bits, rounded to f16
//   others as q8_0     scale = largest magnitude / 127 of 32 weights, rounded
//   to
//                      f16; a weight moves by half of it at most
//
// A block with a weight that is not finite has no others.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_FILEBLOCKS_H
#define LLM_RUNTIME_FILEBLOCKS_H

#include "llm/Runtime/CAPI.h"

namespace llm {

/// Whether blocks of `blocks` can hold weights of `format`.
bool canHold(llm_file_format blocks, llm_file_format format);

/// Writes `n` weights of `format` at `from`, whole blocks of it, as blocks of a
/// format that can hold them, as a file has them. Returns the largest magnitude
/// of a scale or minimum that is beyond f16, and becomes infinite; else 0.
float convertBlocks(llm_file_format format, const void *from, int64_t n,
                    llm_file_format blocks, void *to);

} // namespace llm

#endif // LLM_RUNTIME_FILEBLOCKS_H
