//===- Activations.h - What linear layers round their input to --*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_TRANSFORMS_ACTIVATIONS_H
#define LLM_TRANSFORMS_ACTIVATIONS_H

namespace mlir::llm {

/// The smallest type that the input of a linear layer may be rounded to: I8 goes
/// with weights in blocks, BF16 with those and with weights of bf16.
enum class Activations { F32, BF16, I8 };

} // namespace mlir::llm

#endif // LLM_TRANSFORMS_ACTIVATIONS_H
