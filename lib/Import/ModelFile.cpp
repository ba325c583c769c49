//===- ModelFile.cpp - A model as it lies on disk -------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Import/ModelFile.h"
#include "ImportError.h"
#include "ModelFormats.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/FileSystem.h"

#include <cmath>

using namespace mlir::llm;
using llvm::Error;
using llvm::Expected;
using llvm::StringRef;

ModelFile::~ModelFile() = default;

Expected<std::unique_ptr<ModelFile>> ModelFile::open(StringRef path) {
  if (llvm::sys::fs::is_directory(path))
    return openHuggingFaceModel(path);
  return openGGUFModel(path);
}

const TensorInfo *ModelFile::find(StringRef name) const {
  const auto *tensor = llvm::find_if(
      tensors(), [&](const TensorInfo &tensor) { return tensor.name == name; });
  return tensor == tensors().end() ? nullptr : tensor;
}

bool mlir::llm::isBias(TensorRole role) {
  return role == TensorRole::QueryBias || role == TensorRole::KeyBias ||
         role == TensorRole::ValueBias ||
         role == TensorRole::AttentionOutputBias;
}

//===----------------------------------------------------------------------===//
// Sizes
//===----------------------------------------------------------------------===//

/// Far beyond any model, and small enough that products of two cannot overflow.
static constexpr int64_t largestSize = INT32_MAX;
static constexpr int64_t largestHeadDim = 65536;

Expected<int64_t> mlir::llm::chooseHeadDim(StringRef path,
                                           const ModelConfig &config,
                                           int64_t given) {
  if (given)
    return given;
  if (config.heads <= 0 || config.hidden % config.heads != 0)
    return importError(
        path,
        "hidden size {0} is no multiple of the {1} heads, and no "
        "head dimension is given",
        config.hidden, config.heads);
  return config.hidden / config.heads;
}

static Error checkRanges(StringRef path, const ModelConfig &config) {
  const std::pair<const char *, int64_t> sizes[] = {
      {"layers", config.layers},   {"hidden size", config.hidden},
      {"heads", config.heads},     {"key/value heads", config.kvHeads},
      {"ffn size", config.ffn},    {"vocabulary", config.vocab},
      {"context", config.context},
  };
  for (auto [what, size] : sizes)
    if (size < 1 || size > largestSize)
      return importError(path, "expected {0} from 1 to {1}, got {2}", what,
                         largestSize, size);
  if (config.headDim < 2 || config.headDim > largestHeadDim ||
      config.headDim % 2 != 0)
    return importError(path,
                       "expected an even head dimension from 2 to {0}, got {1}",
                       largestHeadDim, config.headDim);
  if (std::isnan(config.normEpsilon) || config.normEpsilon < 0 ||
      config.normEpsilon >= 1)
    return importError(path, "expected a norm epsilon from 0 to 1, got {0}",
                       config.normEpsilon);
  return Error::success();
}

Error mlir::llm::checkLayerCount(StringRef path, int64_t layers,
                                 size_t tensors) {
  if (size_t(layers) > tensors)
    return importError(path, "{0} layers, but only {1} tensors", layers,
                       tensors);
  return Error::success();
}

Error mlir::llm::checkConfig(StringRef path, const ModelConfig &config) {
  if (Error error = checkRanges(path, config))
    return error;
  if (config.heads % config.kvHeads != 0)
    return importError(path, "{0} heads are no multiple of {1} key/value heads",
                       config.heads, config.kvHeads);
  for (int32_t id : config.eosIds)
    if (id < 0 || id >= config.vocab)
      return importError(path,
                         "end-of-text id {0} is outside the vocabulary of {1}",
                         id, config.vocab);
  return Error::success();
}
