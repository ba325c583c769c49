//===- BuildModelWeights.cpp - The weights that a model needs -------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "BuildModelWeights.h"

#include "ImportError.h"

#include "llm/Import/ModelFile.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringSet.h"

using namespace mlir::llm;
using llvm::ArrayRef;
using llvm::StringRef;

llvm::SmallVector<int64_t, 2> WeightArgument::shape() const {
  llvm::SmallVector<int64_t, 2> shape = tensors.front().shape;
  for (const ExpectedTensor &tensor : llvm::drop_begin(tensors))
    shape.front() += tensor.shape.front();
  return shape;
}

std::optional<WeightFormat>
WeightArgument::format(const ModelFile &model) const {
  std::optional<WeightFormat> common;
  for (const ExpectedTensor &tensor : tensors) {
    const TensorInfo *found = model.find(tensor.name);
    if (!found)
      return std::nullopt;
    auto blocks = symbolizeWeightFormat(llm_file_block_format(found->format));
    if (!blocks)
      return std::nullopt;
    common = common ? getCommonFormat(*common, *blocks) : *blocks;
  }
  return common;
}

//===----------------------------------------------------------------------===//
// The list
//===----------------------------------------------------------------------===//

static void appendLayer(std::vector<WeightArgument> &weights,
                        const ModelFile &model, int64_t layer) {
  const ModelConfig &config = model.config();
  int64_t hidden = config.hidden, ffn = config.ffn;
  int64_t queries = config.heads * config.headDim;
  int64_t keys = config.kvHeads * config.headDim;
  auto name = [&](TensorRole role) { return model.tensorName(role, layer); };
  weights.push_back(
      {"attn_norm", {{name(TensorRole::AttentionNorm), {hidden}}}});
  weights.push_back({"qkv",
                     {{name(TensorRole::Query), {queries, hidden}},
                      {name(TensorRole::Key), {keys, hidden}},
                      {name(TensorRole::Value), {keys, hidden}}}});
  if (config.attentionBias)
    weights.push_back({"qkv_bias",
                       {{name(TensorRole::QueryBias), {queries}},
                        {name(TensorRole::KeyBias), {keys}},
                        {name(TensorRole::ValueBias), {keys}}}});
  if (config.headNorms) {
    weights.push_back(
        {"q_norm", {{name(TensorRole::QueryNorm), {config.headDim}}}});
    weights.push_back(
        {"k_norm", {{name(TensorRole::KeyNorm), {config.headDim}}}});
  }
  weights.push_back(
      {"o", {{name(TensorRole::AttentionOutput), {hidden, queries}}}});
  if (config.outputBias)
    weights.push_back(
        {"o_bias", {{name(TensorRole::AttentionOutputBias), {hidden}}}});
  weights.push_back({"ffn_norm", {{name(TensorRole::FFNNorm), {hidden}}}});
  weights.push_back({"gate_up",
                     {{name(TensorRole::Gate), {ffn, hidden}},
                      {name(TensorRole::Up), {ffn, hidden}}}});
  weights.push_back({"down", {{name(TensorRole::Down), {hidden, ffn}}}});
}

std::vector<WeightArgument> mlir::llm::listWeights(const ModelFile &model) {
  const ModelConfig &config = model.config();
  auto name = [&](TensorRole role) { return model.tensorName(role); };
  std::vector<WeightArgument> weights;
  weights.push_back(
      {"embedding",
       {{name(TensorRole::Embedding), {config.vocab, config.hidden}}}});
  for (int64_t layer = 0; layer < config.layers; ++layer)
    appendLayer(weights, model, layer);
  weights.push_back({"norm", {{name(TensorRole::FinalNorm), {config.hidden}}}});
  weights.push_back(
      {"head", {{name(TensorRole::Head), {config.vocab, config.hidden}}}});
  return weights;
}

//===----------------------------------------------------------------------===//
// The check
//===----------------------------------------------------------------------===//

/// "[64, 32]"
static std::string toString(ArrayRef<int64_t> shape) {
  return llvm::formatv("[{0:$[, ]}]",
                       llvm::make_range(shape.begin(), shape.end()));
}

static void checkTensor(const ExpectedTensor &expected, const TensorInfo *found,
                        std::vector<std::string> &problems) {
  if (!found)
    problems.push_back(llvm::formatv("missing tensor '{0}' {1}", expected.name,
                                     toString(expected.shape)));
  else if (ArrayRef<int64_t>(found->shape) != ArrayRef(expected.shape))
    problems.push_back(llvm::formatv("tensor '{0}' has shape {1}, expected {2}",
                                     expected.name, toString(found->shape),
                                     toString(expected.shape)));
}

llvm::Error mlir::llm::checkWeights(const ModelFile &model,
                                    ArrayRef<WeightArgument> weights) {
  std::vector<std::string> problems;
  llvm::StringSet<> needed;
  for (const WeightArgument &weight : weights)
    for (const ExpectedTensor &tensor : weight.tensors)
      if (needed.insert(tensor.name).second)
        checkTensor(tensor, model.find(tensor.name), problems);
  for (const TensorInfo &tensor : model.tensors())
    if (!needed.contains(tensor.name))
      problems.push_back(llvm::formatv("unknown tensor '{0}'", tensor.name));
  if (problems.empty())
    return llvm::Error::success();
  return importError(model.path(),
                     "the tensors are not those of the configuration\n  {0}",
                     llvm::join(problems, "\n  "));
}
