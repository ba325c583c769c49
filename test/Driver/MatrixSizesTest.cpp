//===- MatrixSizesTest.cpp - Matrices of a model with few numbers ---------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/MatrixSizes.h"

#include <gtest/gtest.h>

using namespace mlir::llm;

namespace {

/// Two layers; the matrix of role i has i x 10 numbers of two bytes, and seven
/// more of the second layer. What is no matrix is not looked for.
struct SmallFile final : ModelFile {
  explicit SmallFile(bool tied) {
    modelConfig.layers = 2;
    modelConfig.tiedHead = tied;
    for (TensorRole role : {TensorRole::Query, TensorRole::Key,
                            TensorRole::Value, TensorRole::AttentionOutput,
                            TensorRole::Gate, TensorRole::Up, TensorRole::Down})
      for (int64_t layer : {0, 1})
        addMatrix(tensorName(role, layer), int64_t(role) + 7 * layer, 10);
    addMatrix(tensorName(TensorRole::Embedding, 0), 1000, 10);
    if (!tied)
      addMatrix(tensorName(TensorRole::Head, 0), 3000, 10);
  }

  std::string tensorName(TensorRole role, int64_t layer) const override {
    if (role == TensorRole::Head && modelConfig.tiedHead)
      role = TensorRole::Embedding;
    return std::to_string(int64_t(role)) + "." + std::to_string(layer);
  }
  void releasePages() const override {}

  void addMatrix(std::string name, int64_t rows, int64_t columns) {
    tensorList.push_back({std::move(name),
                          LLM_FILE_F16,
                          {rows, columns},
                          nullptr,
                          uint64_t(rows * columns * 2)});
  }
};

} // namespace

TEST(MatrixSizesTest, layersAreSummedAndNoNorms) {
  const MatrixSize layers = matrixSizesOf(SmallFile(false)).layers;
  const int64_t roles = 2 + 3 + 4 + 5 + 7 + 8 + 9;
  EXPECT_EQ(layers.parameters, 10 * (2 * roles + 7 * 7));
  EXPECT_EQ(layers.fileBytes, 2 * layers.parameters);
  EXPECT_EQ(layers.formats, std::vector<std::string>{"f16"});
}

TEST(MatrixSizesTest, theHeadMayBeTheEmbedding) {
  EXPECT_EQ(matrixSizesOf(SmallFile(false)).head.parameters, 30000);
  const MatrixSize tied = matrixSizesOf(SmallFile(true)).head;
  EXPECT_EQ(tied.parameters, 10000);
  EXPECT_EQ(tied.fileBytes, 20000);
}
