//===- BuildModelWeights.h - The weights that a model needs -----*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_BUILDMODELWEIGHTS_H
#define LLM_LIB_IMPORT_BUILDMODELWEIGHTS_H

#include "llm/IR/LLM.h"

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <optional>
#include <string>
#include <vector>

namespace mlir::llm {

class ModelFile;

/// A tensor that the model file must have.
struct ExpectedTensor {
  std::string name;
  llvm::SmallVector<int64_t, 2> shape;
};

/// A weight argument of the entry: tensors of the file, stacked along rows.
struct WeightArgument {
  llvm::StringLiteral role; ///< "embedding", "qkv", "qkv_bias", ...
  llvm::SmallVector<ExpectedTensor, 3> tensors;

  llvm::SmallVector<int64_t, 2> shape() const;
  /// Of the blocks that hold all its tensors, if they are quantized: the
  /// smallest, whatever the format of each is in the file; none where one of
  /// them is not.
  std::optional<WeightFormat> format(const ModelFile &model) const;
  /// Norms and biases, which stay f32.
  bool isVector() const { return tensors.front().shape.size() == 1; }
  /// Whether a linear layer multiplies with it, and does nothing else.
  bool isLinear() const { return !isVector() && role != "embedding"; }
};

/// Embedding, then those of each layer in the order of @layer's arguments,
/// final norm, head. A tied head names the embedding once more.
std::vector<WeightArgument> listWeights(const ModelFile &model);

/// How many of `weights` weights each of the layers has.
inline int64_t weightsPerLayer(size_t weights, int64_t layers) {
  return int64_t(weights - 3) / layers;
}

/// The weights of a layer among all, or the values of them.
template <typename RangeT>
RangeT weightsOfLayer(RangeT weights, int64_t layer, int64_t layers) {
  int64_t count = weightsPerLayer(weights.size(), layers);
  return weights.slice(1 + layer * count, count);
}

/// Fails unless the file has just these tensors, in these shapes. Lists all
/// that differ.
llvm::Error checkWeights(const ModelFile &model,
                         llvm::ArrayRef<WeightArgument> weights);

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_BUILDMODELWEIGHTS_H
