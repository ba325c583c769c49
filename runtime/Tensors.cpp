//===- Tensors.cpp - Checks of tensor arguments ---------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Tensors.h"

#include "KVPool.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

using namespace llm;

const char *llm::dtypeName(llm_dtype dtype) {
  static const char *const names[] = {"f32", "f16",      "bf16", "i32",
                                      "i64", "f8E4M3FN", "i8",   "i4"};
  return dtype >= 0 && dtype <= LLM_I4 ? names[dtype] : "unknown";
}

static bool isEmpty(const llm_tensor &tensor) {
  return std::any_of(tensor.sizes, tensor.sizes + tensor.rank,
                     [](int64_t size) { return size == 0; });
}

Status llm::checkShape(const char *name, const llm_tensor *tensor,
                       std::initializer_list<int64_t> sizes) {
  const auto rank = static_cast<int32_t>(sizes.size());
  if (!tensor)
    return Status::error(LLM_INVALID_ARGUMENT, rank, 0,
                         "expected a tensor %s of rank %d, got null", name,
                         rank);
  if (tensor->rank != rank)
    return Status::error(LLM_INVALID_ARGUMENT, rank, tensor->rank,
                         "expected %s of rank %d, got rank %d", name, rank,
                         tensor->rank);
  for (int32_t i = 0; i < rank; ++i) {
    const int64_t expected = sizes.begin()[i], actual = tensor->sizes[i];
    if (actual < 0 || (expected >= 0 && actual != expected))
      return Status::error(
          LLM_INVALID_ARGUMENT, expected, actual,
          "expected dimension %d of %s to be %lld, got %lld", i, name,
          static_cast<long long>(std::max<int64_t>(expected, 0)),
          static_cast<long long>(actual));
  }
  if (!tensor->data && !isEmpty(*tensor))
    return Status::error(LLM_INVALID_ARGUMENT, 1, 0,
                         "expected data behind %s, got null", name);
  return Status();
}

Status llm::checkTensor(const char *name, const llm_tensor *tensor,
                        llm_dtype dtype, std::initializer_list<int64_t> sizes) {
  LLM_TRY(checkShape(name, tensor, sizes));
  if (tensor->dtype != dtype)
    return Status::error(LLM_INVALID_ARGUMENT, dtype, tensor->dtype,
                         "expected %s of type %s, got %s", name,
                         dtypeName(dtype), dtypeName(tensor->dtype));
  return Status();
}

Status llm::checkFloats(const char *name, const llm_tensor *tensor,
                        std::initializer_list<int64_t> sizes) {
  LLM_TRY(checkShape(name, tensor, sizes));
  if (tensor->dtype < LLM_F32 || tensor->dtype > LLM_BF16)
    return Status::error(LLM_INVALID_ARGUMENT, LLM_F32, tensor->dtype,
                         "expected %s of type f32, f16 or bf16, got %s", name,
                         dtypeName(tensor->dtype));
  return checkRows(name, *tensor);
}

Status llm::checkRows(const char *name, const llm_tensor &tensor) {
  const int32_t last = tensor.rank - 1;
  if (tensor.sizes[last] <= 1 || tensor.strides[last] == 1)
    return Status();
  return Status::error(
      LLM_INVALID_ARGUMENT, 1, tensor.strides[last],
      "expected the last dimension of %s to have stride 1, got %lld", name,
      static_cast<long long>(tensor.strides[last]));
}

Status llm::readExtras(const llm_extras *given, llm_extras &extras) {
  extras = {};
  if (!given)
    return Status();
  constexpr size_t least = offsetof(llm_extras, alibi);
  if (given->struct_size < least || given->struct_size > sizeof(llm_extras))
    return Status::error(LLM_INVALID_ARGUMENT, sizeof(llm_extras),
                         given->struct_size,
                         "expected a struct_size of extras from %zu to %zu, "
                         "got %u",
                         least, sizeof(llm_extras), given->struct_size);
  std::memcpy(&extras, given, given->struct_size);
  return Status();
}

template <typename T>
static std::span<const T> copyI32(const llm_tensor &tensor,
                                  std::vector<T> &scratch) {
  const auto *data = static_cast<const int32_t *>(tensor.data);
  scratch.resize(tensor.sizes[0]);
  for (int64_t i = 0; i < tensor.sizes[0]; ++i)
    scratch[i] = data[i * tensor.strides[0]];
  return scratch;
}

std::span<const int32_t> llm::readI32(const llm_tensor &tensor,
                                      std::vector<int32_t> &scratch) {
  if (tensor.strides[0] != 1)
    return copyI32(tensor, scratch);
  return {static_cast<const int32_t *>(tensor.data), size_t(tensor.sizes[0])};
}

std::span<const int64_t> llm::widenI32(const llm_tensor &tensor,
                                       std::vector<int64_t> &scratch) {
  return copyI32(tensor, scratch);
}

bool llm::collapseBatch(llm_tensor &tensor) {
  const int64_t rows = tensor.sizes[0] * tensor.sizes[1];
  if (rows && tensor.sizes[0] > 1 && tensor.sizes[1] > 1 &&
      tensor.strides[0] != tensor.sizes[1] * tensor.strides[1])
    return false;
  const int64_t stride =
      tensor.sizes[1] > 1 ? tensor.strides[1] : tensor.strides[0];
  std::copy_n(tensor.sizes + 1, tensor.rank - 1, tensor.sizes);
  std::copy_n(tensor.strides + 1, tensor.rank - 1, tensor.strides);
  --tensor.rank;
  tensor.sizes[0] = rows;
  tensor.strides[0] = stride;
  return true;
}

llm_tensor llm::indexFirst(const llm_tensor &tensor, int64_t index) {
  llm_tensor row = tensor;
  std::copy_n(tensor.sizes + 1, tensor.rank - 1, row.sizes);
  std::copy_n(tensor.strides + 1, tensor.rank - 1, row.strides);
  --row.rank;
  if (tensor.data)
    row.data = static_cast<char *>(tensor.data) +
               index * tensor.strides[0] * elementBytes(tensor.dtype);
  return row;
}

void llm::copyElements(const llm_tensor &from, const llm_tensor &to) {
  const int64_t size = elementBytes(from.dtype);
  if (from.rank == 0)
    std::memcpy(to.data, from.data, size);
  else if (from.rank == 1 && from.strides[0] == 1 && to.strides[0] == 1)
    std::memcpy(to.data, from.data, from.sizes[0] * size);
  else
    for (int64_t i = 0; i < from.sizes[0]; ++i)
      copyElements(indexFirst(from, i), indexFirst(to, i));
}
