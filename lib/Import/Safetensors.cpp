//===- Safetensors.cpp - The tensors of one safetensors file --------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Safetensors.h"
#include "ImportError.h"
#include "JSONFile.h"
#include "TensorLayout.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringSwitch.h"
#include "llvm/Support/Endian.h"

#include <optional>

using namespace mlir::llm;
using llvm::ArrayRef;
using llvm::Error;
using llvm::Expected;
using llvm::StringRef;
namespace json = llvm::json;

namespace {

/// A file in its parts.
struct Safetensors {
  StringRef path;
  json::Object header;
  StringRef data;
};

} // namespace

static Expected<Safetensors> split(StringRef path, StringRef file) {
  if (file.size() < sizeof(uint64_t))
    return importError(path, "{0} bytes are too few for a safetensors file",
                       file.size());
  uint64_t size = llvm::support::endian::read64le(file.data());
  StringRef rest = file.drop_front(sizeof(uint64_t));
  if (size > rest.size())
    return importError(path,
                       "the header of {0} bytes ends beyond the file of {1}",
                       size, file.size());
  Expected<json::Object> header = parseJSON(path, rest.take_front(size));
  if (!header)
    return header.takeError();
  return Safetensors{path, std::move(*header), rest.drop_front(size)};
}

static std::optional<llm_file_format> formatOf(StringRef dtype) {
  return llvm::StringSwitch<std::optional<llm_file_format>>(dtype)
      .Case("F32", LLM_FILE_F32)
      .Case("F16", LLM_FILE_F16)
      .Case("BF16", LLM_FILE_BF16)
      .Default(std::nullopt);
}

/// The non-negative integers of `array`; none if it is anything else.
static std::optional<llvm::SmallVector<int64_t, 2>>
integers(const json::Array *array) {
  if (!array)
    return std::nullopt;
  llvm::SmallVector<int64_t, 2> numbers;
  for (const json::Value &value : *array) {
    std::optional<int64_t> number = value.getAsInteger();
    if (!number || *number < 0)
      return std::nullopt;
    numbers.push_back(*number);
  }
  return numbers;
}

/// Sets where the bytes of `tensor` lie: [offsets[0], offsets[1]) of the data.
static Error setData(const Safetensors &file, ArrayRef<int64_t> offsets,
                     TensorInfo &tensor) {
  uint64_t begin = offsets[0], end = offsets[1];
  if (begin > end || end > file.data.size())
    return importError(
        file.path,
        "tensor '{0}' at [{1}, {2}) lies outside the {3} bytes of data",
        tensor.name, begin, end, file.data.size());
  tensor.data = file.data.data() + begin;
  tensor.bytes = end - begin;
  std::optional<uint64_t> bytes = tensorBytes(tensor.format, tensor.shape);
  if (bytes != tensor.bytes)
    return importError(file.path,
                       "tensor '{0}' of shape {1} in {2} has {3} bytes of data",
                       tensor.name, toString(tensor.shape),
                       llm_file_format_name(tensor.format), tensor.bytes);
  return Error::success();
}

static Expected<TensorInfo> readTensor(const Safetensors &file, StringRef name,
                                       const json::Value &value) {
  const json::Object *entry = value.getAsObject();
  std::optional<StringRef> dtype =
      entry ? entry->getString("dtype") : std::nullopt;
  auto shape = integers(entry ? entry->getArray("shape") : nullptr);
  auto offsets = integers(entry ? entry->getArray("data_offsets") : nullptr);
  if (!dtype || !shape || !offsets || offsets->size() != 2)
    return importError(
        file.path, "expected dtype, shape and data_offsets for tensor '{0}'",
        name);
  std::optional<llm_file_format> format = formatOf(*dtype);
  if (!format)
    return importError(file.path,
                       "tensor '{0}' has unsupported dtype '{1}', expected "
                       "F32, F16 or BF16",
                       name, *dtype);
  TensorInfo tensor{name.str(), *format, std::move(*shape), nullptr, 0};
  if (Error error = setData(file, *offsets, tensor))
    return error;
  return tensor;
}

Expected<std::vector<TensorInfo>> mlir::llm::readSafetensors(StringRef path,
                                                             StringRef bytes) {
  Expected<Safetensors> file = split(path, bytes);
  if (!file)
    return file.takeError();
  std::vector<TensorInfo> tensors;
  for (const auto &[key, value] : file->header) {
    StringRef name = key;
    if (name == "__metadata__" || name.ends_with(".rotary_emb.inv_freq"))
      continue;
    Expected<TensorInfo> tensor = readTensor(*file, name, value);
    if (!tensor)
      return tensor.takeError();
    tensors.push_back(std::move(*tensor));
  }
  llvm::sort(tensors, [](const TensorInfo &a, const TensorInfo &b) {
    return a.name < b.name;
  });
  if (Error error = checkOverlaps(path, tensors))
    return error;
  return tensors;
}
