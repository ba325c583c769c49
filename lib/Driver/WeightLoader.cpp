//===- WeightLoader.cpp - From a model file to packed weights -------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/WeightLoader.h"

#include "llm/Driver/ProgressLine.h"
#include "llm/Driver/RuntimeError.h"

#include "llvm/Support/FormatVariadic.h"

#include <algorithm>

using namespace mlir::llm;
using llvm::Error;

static Error bind(llm_model *model, const TensorInfo &tensor) {
  llm_weight_source source = {tensor.data,
                              tensor.format,
                              static_cast<int32_t>(tensor.shape.size()),
                              {}};
  if (tensor.shape.size() > std::size(source.sizes))
    return llvm::createStringError(
        llvm::formatv("expected {0} of at most 2 dimensions, got {1}",
                      tensor.name, tensor.shape.size()));
  llvm::copy(tensor.shape, source.sizes);
  return callRuntime([&](llm_error *error) {
    return llm_model_bind_weight(model, tensor.name.c_str(), &source, error);
  });
}

static Error bindAll(llm_model *model, const ModelFile &file) {
  Error errors = Error::success();
  for (const TensorInfo &tensor : file.tensors())
    errors = llvm::joinErrors(std::move(errors), bind(model, tensor));
  return errors;
}

static std::string describe(const ModelFile &file) {
  uint64_t bytes = 0;
  for (const TensorInfo &tensor : file.tensors())
    bytes += tensor.bytes;
  return llvm::formatv("packing {0} tensors of {1:f1} MiB",
                       file.tensors().size(), double(bytes) / (1 << 20));
}

Error mlir::llm::loadWeights(llm_model *model, const ModelFile &file,
                             llvm::raw_ostream *progress) {
  if (Error errors = bindAll(model, file))
    return errors;
  const ProgressLine shown(progress, describe(file));
  Error error = callRuntime(
      [&](llm_error *error) { return llm_model_finish(model, error); });
  file.releasePages();
  return error;
}
