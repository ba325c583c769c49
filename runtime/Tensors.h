//===- Tensors.h - Checks of tensor arguments ----------------- -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_TENSORS_H
#define LLM_RUNTIME_TENSORS_H

#include "llm/Runtime/Status.h"

#include <initializer_list>
#include <span>
#include <vector>

namespace llm {

/// "f16"; "unknown" for a number that is no dtype.
const char *dtypeName(llm_dtype dtype);

/// A non-null tensor of this shape (-1: any size), with data unless it is
/// empty.
Status checkShape(const char *name, const llm_tensor *tensor,
                  std::initializer_list<int64_t> sizes);
/// The same, of one dtype.
Status checkTensor(const char *name, const llm_tensor *tensor, llm_dtype dtype,
                   std::initializer_list<int64_t> sizes);
/// The same, of f32, f16 or bf16.
Status checkFloats(const char *name, const llm_tensor *tensor,
                   std::initializer_list<int64_t> sizes);
/// Kernels read rows: the last dimension must be contiguous.
Status checkRows(const char *name, const llm_tensor &tensor);

/// The caller's extras, with nulls behind their struct_size.
Status readExtras(const llm_extras *given, llm_extras &extras);

/// Elements of an i32 tensor of rank 1, by way of `scratch` if it is strided.
std::span<const int32_t> readI32(const llm_tensor &tensor,
                                 std::vector<int32_t> &scratch);
/// Elements of an i32 tensor of rank 1, widened.
std::span<const int64_t> widenI32(const llm_tensor &tensor,
                                  std::vector<int64_t> &scratch);

/// [B, S, ...] as [B * S, ...], in place; false where strides forbid it.
bool collapseBatch(llm_tensor &tensor);
/// [B, ...] at one index of the first dimension.
llm_tensor indexFirst(const llm_tensor &tensor, int64_t index);
/// Copies between tensors of one shape and dtype.
void copyElements(const llm_tensor &from, const llm_tensor &to);

} // namespace llm

#endif // LLM_RUNTIME_TENSORS_H
