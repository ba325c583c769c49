//===- MatrixSizesTest.cpp - Matrices of a model with few numbers ---------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/MatrixSizes.h"

#include <gtest/gtest.h>

#include <deque>

using namespace mlir::llm;

namespace {

/// Two layers; the matrix of role i has i x 10 numbers of two bytes, and seven
/// more of the second layer. What is no matrix is not looked for.
struct SmallFile final : ModelFile {
  static constexpr TensorRole roles[] = {
      TensorRole::Query, TensorRole::Key,
      TensorRole::Value, TensorRole::AttentionOutput,
      TensorRole::Gate,  TensorRole::Up,
      TensorRole::Down};

  explicit SmallFile(bool tied) {
    modelConfig.layers = 2;
    modelConfig.tiedHead = tied;
    for (TensorRole role : roles)
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

  void setFormat(TensorRole role, int64_t layer, llm_file_format format) {
    for (TensorInfo &tensor : tensorList)
      if (tensor.name == tensorName(role, layer))
        tensor.format = format;
  }

  void addMatrix(std::string name, int64_t rows, int64_t columns) {
    tensorList.push_back({std::move(name),
                          LLM_FILE_F16,
                          {rows, columns},
                          nullptr,
                          uint64_t(rows * columns * 2)});
  }
};

/// A weight of each matrix, packed as bf16; the embedding's is f32.
struct SmallProgram {
  explicit SmallProgram(const SmallFile &file) {
    add(file.tensorName(TensorRole::Embedding, 0), LLM_F32);
    for (int64_t layer : {0, 1})
      for (TensorRole role : SmallFile::roles)
        add(file.tensorName(role, layer), LLM_BF16);
    add(file.tensorName(TensorRole::Head, 0), LLM_BF16);
  }

  void add(const std::string &tensor, llm_dtype dtype) {
    names.push_back(tensor);
    pointers.push_back(names.back().c_str());
    weights.push_back(
        {&pointers.back(), 1, 0, dtype, LLM_LAYOUT_PANEL32, 2, 0, {}});
  }

  /// The weight of a matrix, in blocks.
  void pack(const std::string &tensor, llm_file_format format) {
    for (llm_weight_desc &weight : weights)
      if (weight.names[0] == tensor) {
        weight.layout = LLM_LAYOUT_BLOCKS32;
        weight.format = format;
      }
  }

  MatrixSizes sizesOf(const SmallFile &file) {
    llm_program program = {};
    program.weights = weights.data();
    program.num_weights = static_cast<int32_t>(weights.size());
    return matrixSizesOf(file, program);
  }

  std::deque<std::string> names;
  std::deque<const char *> pointers;
  std::vector<llm_weight_desc> weights;
};

MatrixSizes sizesOf(const SmallFile &file) {
  return SmallProgram(file).sizesOf(file);
}

} // namespace

TEST(MatrixSizesTest, layersAreSummedAndNoNorms) {
  const MatrixSize layers = sizesOf(SmallFile(false)).layers;
  const int64_t roles = 2 + 3 + 4 + 5 + 7 + 8 + 9;
  EXPECT_EQ(layers.parameters, 10 * (2 * roles + 7 * 7));
  EXPECT_EQ(layers.fileBytes, 2 * layers.parameters);
  EXPECT_EQ(describeFormats(layers, "native"), "f16 packed as bf16");
  EXPECT_EQ(describeFormats(layers, "bf16"), "f16");
}

TEST(MatrixSizesTest, theHeadMayBeTheEmbedding) {
  EXPECT_EQ(sizesOf(SmallFile(false)).head.parameters, 30000);
  const MatrixSize tied = sizesOf(SmallFile(true)).head;
  EXPECT_EQ(tied.parameters, 10000);
  EXPECT_EQ(tied.fileBytes, 20000);
}

TEST(MatrixSizesTest, formatsAreThoseOfTheFileAndThePackedOnes) {
  SmallFile file(true);
  file.setFormat(TensorRole::Query, 0, LLM_FILE_Q4_K);
  file.setFormat(TensorRole::Query, 1, LLM_FILE_Q4_K);
  file.setFormat(TensorRole::Down, 1, LLM_FILE_Q8_0);
  file.setFormat(TensorRole::Embedding, 0, LLM_FILE_Q6_K);
  SmallProgram program(file);
  program.pack(file.tensorName(TensorRole::Query, 0), LLM_FILE_Q4_1);
  program.pack(file.tensorName(TensorRole::Query, 1), LLM_FILE_Q8_0);
  program.pack(file.tensorName(TensorRole::Down, 1), LLM_FILE_Q8_0);
  const MatrixSizes sizes = program.sizesOf(file);
  EXPECT_EQ(describeFormats(sizes.layers, "native"),
            "q4_K packed as q4_1 and q8_0, f16 packed as bf16, q8_0");
  EXPECT_EQ(describeFormats(sizes.head, "native"), "q6_K packed as bf16")
      << "the last weight with the name, not the embedding";
}
