//===- GGUFModel.cpp - A GGUF file as a model -----------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GGUF.h"
#include "MappedFile.h"
#include "ModelFormats.h"
#include "Rope.h"
#include "TensorLayout.h"

#include "llvm/ADT/STLExtras.h"

#include <cmath>

using namespace mlir::llm;
using llvm::Error;
using llvm::Expected;
using llvm::StringRef;

namespace {

class GGUFModel final : public ModelFile {
public:
  static Expected<std::unique_ptr<ModelFile>> open(StringRef path);

  explicit GGUFModel(MappedFile file) : file(std::move(file)) {}

  std::string tensorName(TensorRole role, int64_t layer) const override;
  void releasePages() const override { file.release(); }

private:
  Error readConfig(const GGUF &header);
  Error readEmbedding();
  Error readFrequencies(GGUFReader &reader);

  MappedFile file;
};

} // namespace

static constexpr const char *embeddingName = "token_embd.weight";
static constexpr const char *headName = "output.weight";
static constexpr const char *ropeFactorsName = "rope_freqs.weight";

Expected<std::unique_ptr<ModelFile>> mlir::llm::openGGUFModel(StringRef path) {
  return GGUFModel::open(path);
}

Expected<std::unique_ptr<ModelFile>> GGUFModel::open(StringRef path) {
  Expected<MappedFile> file = MappedFile::open(path);
  if (!file)
    return file.takeError();
  Expected<GGUF> header = readGGUF(path, file->bytes());
  if (!header)
    return header.takeError();
  auto model = std::make_unique<GGUFModel>(std::move(*file));
  model->filePath = path.str();
  model->tensorList = std::move(header->tensors);
  if (Error error = model->readConfig(*header))
    return error;
  llvm::erase_if(model->tensorList, [](const TensorInfo &tensor) {
    return tensor.name == ropeFactorsName;
  });
  return model;
}

//===----------------------------------------------------------------------===//
// Refusals
//===----------------------------------------------------------------------===//

static void checkArchitecture(GGUFReader &reader) {
  StringRef family = reader.string("general.architecture").value_or("");
  if (family != "llama")
    reader.fail("unsupported architecture '{0}', expected llama", family);
  int64_t parts = reader.integer("split.count").value_or(1);
  if (parts > 1)
    reader.fail("split.count of {0} is not supported: join the parts first",
                parts);
}

/// Numbers that change what a model computes, and their values in a plain one.
static void checkPlain(GGUFReader &reader) {
  constexpr std::pair<const char *, int64_t> counts[] = {
      {"llama.expert_count", 0},
      {"llama.expert_used_count", 0},
      {"llama.attention.sliding_window", 0},
  };
  for (auto [key, plain] : counts)
    if (int64_t value = reader.integer(key).value_or(plain); value != plain)
      reader.fail("{0} of {1} is not supported", key, value);
  constexpr std::pair<const char *, double> factors[] = {
      {"llama.rope.scale_linear", 1},
      {"llama.logit_scale", 1},
      {"llama.residual_scale", 1},
      {"llama.embedding_scale", 1},
  };
  for (auto [key, plain] : factors)
    if (double value = reader.number(key).value_or(plain); value != plain)
      reader.fail("{0} of {1} is not supported", key, value);
}

static void checkRope(GGUFReader &reader, int64_t headDim) {
  StringRef type = reader.string("llama.rope.scaling.type").value_or("none");
  if (type != "none")
    reader.fail("unsupported llama.rope.scaling.type '{0}', expected none",
                type);
  int64_t rotated =
      reader.integer("llama.rope.dimension_count").value_or(headDim);
  if (rotated != headDim)
    reader.fail("llama.rope.dimension_count of {0} for heads of {1} is not "
                "supported",
                rotated, headDim);
  int64_t values =
      reader.integer("llama.attention.value_length").value_or(headDim);
  if (values != headDim)
    reader.fail("llama.attention.value_length of {0} for keys of {1} is not "
                "supported",
                values, headDim);
}

//===----------------------------------------------------------------------===//
// Configuration
//===----------------------------------------------------------------------===//

static void readSizes(GGUFReader &from, ModelConfig &to) {
  to.family = "llama";
  to.layers = from.requiredInteger("llama.block_count");
  to.hidden = from.requiredInteger("llama.embedding_length");
  to.heads = from.requiredInteger("llama.attention.head_count");
  to.kvHeads = from.integer("llama.attention.head_count_kv").value_or(to.heads);
  to.ffn = from.requiredInteger("llama.feed_forward_length");
  to.context = from.requiredInteger("llama.context_length");
  constexpr const char *epsilon = "llama.attention.layer_norm_rms_epsilon";
  if (!from.has(epsilon))
    from.fail("missing '{0}'", epsilon);
  to.normEpsilon = from.number(epsilon).value_or(1e-5);
  to.adjacentRope = true;
}

/// What ends a text, a turn or a message.
static std::vector<int32_t> readEosIds(GGUFReader &reader) {
  std::vector<int32_t> ids;
  for (const char *name : {"eos", "eot", "eom"}) {
    std::string key = "tokenizer.ggml." + std::string(name) + "_token_id";
    std::optional<int64_t> id = reader.integer(key);
    if (!id)
      continue;
    if (*id < 0 || *id > INT32_MAX)
      reader.fail("expected a token id for '{0}', got {1}", key, *id);
    else if (!llvm::is_contained(ids, *id))
      ids.push_back(int32_t(*id));
  }
  return ids;
}

/// The vocabulary has no field of its own that all files have.
Error GGUFModel::readEmbedding() {
  const TensorInfo *embedding = find(embeddingName);
  if (!embedding || embedding->shape.size() != 2)
    return importError(path(), "expected a matrix '{0}'", embeddingName);
  modelConfig.vocab = embedding->shape[0];
  modelConfig.tiedHead = !find(headName);
  return Error::success();
}

Error GGUFModel::readConfig(const GGUF &header) {
  GGUFReader reader(header);
  checkArchitecture(reader);
  checkPlain(reader);
  readSizes(reader, modelConfig);
  modelConfig.eosIds = readEosIds(reader);
  int64_t given = reader.integer("llama.attention.key_length").value_or(0);
  if (Error error = reader.takeError())
    return error;
  Expected<int64_t> headDim = chooseHeadDim(path(), modelConfig, given);
  if (!headDim)
    return headDim.takeError();
  modelConfig.headDim = *headDim;
  if (Error error = readEmbedding())
    return error;
  if (Error error = checkConfig(path(), modelConfig))
    return error;
  if (Error error =
          checkLayerCount(path(), modelConfig.layers, tensorList.size()))
    return error;
  checkRope(reader, modelConfig.headDim);
  if (Error error = reader.takeError())
    return error;
  return readFrequencies(reader);
}

/// Llama 3's scaling is a tensor in these files: it divides.
static Error divide(StringRef path, std::vector<double> &frequencies,
                    const TensorInfo &factors) {
  if (factors.format != LLM_FILE_F32 ||
      factors.shape != llvm::ArrayRef<int64_t>(int64_t(frequencies.size())))
    return importError(path,
                       "expected '{0}' of shape [{1}] in f32, got {2} in "
                       "{3}",
                       factors.name, frequencies.size(),
                       toString(factors.shape),
                       llm_file_format_name(factors.format));
  const char *data = static_cast<const char *>(factors.data);
  for (double &frequency : frequencies) {
    float factor;
    std::memcpy(&factor, data, sizeof(factor));
    data += sizeof(factor);
    if (!(factor > 0) || !std::isfinite(factor))
      return importError(path, "expected positive factors in '{0}', got {1}",
                         factors.name, factor);
    frequency /= factor;
  }
  return Error::success();
}

Error GGUFModel::readFrequencies(GGUFReader &reader) {
  double base = reader.number("llama.rope.freq_base").value_or(10000);
  if (!(base > 0) || !std::isfinite(base))
    reader.fail("expected a positive llama.rope.freq_base, got {0}", base);
  if (Error error = reader.takeError())
    return error;
  std::vector<double> frequencies =
      inverseFrequencies(base, modelConfig.headDim);
  if (const TensorInfo *factors = find(ropeFactorsName))
    if (Error error = divide(path(), frequencies, *factors))
      return error;
  modelConfig.ropeInverseFrequencies = roundToFloat(frequencies);
  return Error::success();
}

//===----------------------------------------------------------------------===//
// Names
//===----------------------------------------------------------------------===//

/// What stands behind "blk.<i>.".
static const char *layerPart(TensorRole role) {
  switch (role) {
  case TensorRole::AttentionNorm:
    return "attn_norm";
  case TensorRole::Query:
    return "attn_q";
  case TensorRole::Key:
    return "attn_k";
  case TensorRole::Value:
    return "attn_v";
  case TensorRole::AttentionOutput:
    return "attn_output";
  case TensorRole::FFNNorm:
    return "ffn_norm";
  case TensorRole::Gate:
    return "ffn_gate";
  case TensorRole::Up:
    return "ffn_up";
  case TensorRole::Down:
    return "ffn_down";
  case TensorRole::Embedding:
  case TensorRole::FinalNorm:
  case TensorRole::Head:
    break;
  }
  llvm_unreachable("not a part of a layer");
}

std::string GGUFModel::tensorName(TensorRole role, int64_t layer) const {
  if (role == TensorRole::Head && !modelConfig.tiedHead)
    return headName;
  if (role == TensorRole::Embedding || role == TensorRole::Head)
    return embeddingName;
  if (role == TensorRole::FinalNorm)
    return "output_norm.weight";
  return "blk." + std::to_string(layer) + "." + layerPart(role) + ".weight";
}
