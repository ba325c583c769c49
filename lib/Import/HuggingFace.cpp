//===- HuggingFace.cpp - A directory as transformers writes it ------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "HuggingFaceConfig.h"
#include "ImportError.h"
#include "JSONFile.h"
#include "MappedFile.h"
#include "ModelFormats.h"
#include "Safetensors.h"
#include "TensorLayout.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"

#include <map>

using namespace mlir::llm;
using llvm::Error;
using llvm::Expected;
using llvm::StringRef;
namespace json = llvm::json;

namespace {

class HuggingFaceModel final : public ModelFile {
public:
  static Expected<std::unique_ptr<ModelFile>> open(StringRef directory);

  std::string tensorName(TensorRole role, int64_t layer) const override;
  void releasePages() const override;

private:
  std::string pathOf(StringRef file) const;
  Error readTensors();
  Error readShard(StringRef file);
  Error readShards(StringRef indexPath);
  void dropTiedHead();

  std::vector<MappedFile> files;
};

/// A shard, and the tensors that the index promises in it.
using ShardMap = std::map<std::string, llvm::StringSet<>>;

} // namespace

Expected<std::unique_ptr<ModelFile>>
mlir::llm::openHuggingFaceModel(StringRef directory) {
  return HuggingFaceModel::open(directory);
}

Expected<std::unique_ptr<ModelFile>>
HuggingFaceModel::open(StringRef directory) {
  auto model = std::make_unique<HuggingFaceModel>();
  model->filePath = directory.str();
  Expected<ModelConfig> config = readHuggingFaceConfig(directory);
  if (!config)
    return config.takeError();
  model->modelConfig = std::move(*config);
  if (Error error = model->readTensors())
    return error;
  if (Error error = checkLayerCount(directory, model->modelConfig.layers,
                                    model->tensorList.size()))
    return error;
  model->dropTiedHead();
  return model;
}

std::string HuggingFaceModel::pathOf(StringRef file) const {
  llvm::SmallString<128> path(filePath);
  llvm::sys::path::append(path, file);
  return path.str().str();
}

void HuggingFaceModel::releasePages() const {
  for (const MappedFile &file : files)
    file.release();
}

//===----------------------------------------------------------------------===//
// Tensors
//===----------------------------------------------------------------------===//

Error HuggingFaceModel::readTensors() {
  const char *single = "model.safetensors";
  std::string index = pathOf("model.safetensors.index.json");
  if (llvm::sys::fs::exists(pathOf(single)))
    return readShard(single);
  if (llvm::sys::fs::exists(index))
    return readShards(index);
  return importError(filePath, "neither {0} nor {0}.index.json is there",
                     single);
}

/// Appends the tensors of one file.
Error HuggingFaceModel::readShard(StringRef file) {
  std::string path = pathOf(file);
  Expected<MappedFile> mapped = MappedFile::open(path);
  if (!mapped)
    return mapped.takeError();
  files.push_back(std::move(*mapped));
  Expected<std::vector<TensorInfo>> read =
      readSafetensors(path, files.back().bytes());
  if (!read)
    return read.takeError();
  llvm::append_range(tensorList, std::move(*read));
  return Error::success();
}

/// A file name, and nothing that leads out of the directory.
static bool isFileName(StringRef name) {
  return !name.empty() && !name.contains('/') && !name.contains('\0');
}

static Expected<ShardMap> readIndex(StringRef path) {
  Expected<json::Object> index = readJSON(path);
  if (!index)
    return index.takeError();
  const json::Object *weights = index->getObject("weight_map");
  if (!weights)
    return importError(path, "missing 'weight_map'");
  ShardMap shards;
  for (const auto &[name, value] : *weights) {
    std::optional<StringRef> file = value.getAsString();
    if (!file || !isFileName(*file))
      return importError(path, "tensor '{0}' is said to lie in {1}",
                         StringRef(name), value);
    shards[file->str()].insert(name);
  }
  return shards;
}

/// Compares the tensors of a shard with those that the index promises in it.
static Error checkShard(StringRef path, llvm::ArrayRef<TensorInfo> tensors,
                        llvm::StringSet<> promised) {
  for (const TensorInfo &tensor : tensors)
    if (!promised.erase(tensor.name))
      return importError(path, "tensor '{0}' is not what the index has here",
                         tensor.name);
  for (const auto &name : promised)
    if (!name.getKey().ends_with(".rotary_emb.inv_freq"))
      return importError(path, "tensor '{0}' of the index is missing",
                         name.getKey());
  return Error::success();
}

Error HuggingFaceModel::readShards(StringRef indexPath) {
  Expected<ShardMap> shards = readIndex(indexPath);
  if (!shards)
    return shards.takeError();
  for (const auto &[file, promised] : *shards) {
    size_t begin = tensorList.size();
    if (Error error = readShard(file))
      return error;
    llvm::ArrayRef<TensorInfo> own = tensors().drop_front(begin);
    if (Error error = checkShard(pathOf(file), own, promised))
      return error;
  }
  return Error::success();
}

void HuggingFaceModel::dropTiedHead() {
  if (modelConfig.tiedHead)
    llvm::erase_if(tensorList, [](const TensorInfo &tensor) {
      return tensor.name == "lm_head.weight";
    });
}

//===----------------------------------------------------------------------===//
// Names
//===----------------------------------------------------------------------===//

/// What stands behind "model.layers.<i>.", up to the last part of the name.
static const char *layerPart(TensorRole role) {
  switch (role) {
  case TensorRole::AttentionNorm:
    return "input_layernorm";
  case TensorRole::Query:
  case TensorRole::QueryBias:
    return "self_attn.q_proj";
  case TensorRole::Key:
  case TensorRole::KeyBias:
    return "self_attn.k_proj";
  case TensorRole::Value:
  case TensorRole::ValueBias:
    return "self_attn.v_proj";
  case TensorRole::QueryNorm:
    return "self_attn.q_norm";
  case TensorRole::KeyNorm:
    return "self_attn.k_norm";
  case TensorRole::AttentionOutput:
  case TensorRole::AttentionOutputBias:
    return "self_attn.o_proj";
  case TensorRole::FFNNorm:
    return "post_attention_layernorm";
  case TensorRole::Gate:
    return "mlp.gate_proj";
  case TensorRole::Up:
    return "mlp.up_proj";
  case TensorRole::Down:
    return "mlp.down_proj";
  case TensorRole::Embedding:
  case TensorRole::FinalNorm:
  case TensorRole::Head:
    break;
  }
  llvm_unreachable("not a part of a layer");
}

std::string HuggingFaceModel::tensorName(TensorRole role, int64_t layer) const {
  if (role == TensorRole::Head && !modelConfig.tiedHead)
    return "lm_head.weight";
  if (role == TensorRole::Embedding || role == TensorRole::Head)
    return "model.embed_tokens.weight";
  if (role == TensorRole::FinalNorm)
    return "model.norm.weight";
  return "model.layers." + std::to_string(layer) + "." + layerPart(role) +
         (isBias(role) ? ".bias" : ".weight");
}
