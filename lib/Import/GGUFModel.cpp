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

/// The fields of a file, among them those of its architecture: their keys begin
/// with its name.
class ModelReader : public GGUFReader {
public:
  explicit ModelReader(const GGUF &file)
      : GGUFReader(file), family(string("general.architecture").value_or("")) {}

  StringRef architecture() const { return family; }
  std::string key(const char *name) const {
    return (family + "." + name).str();
  }

private:
  StringRef family;
};

class GGUFModel final : public ModelFile {
public:
  static Expected<std::unique_ptr<ModelFile>> open(StringRef path);

  explicit GGUFModel(MappedFile file) : file(std::move(file)) {}

  std::string tensorName(TensorRole role, int64_t layer) const override;
  void releasePages() const override { file.release(); }

private:
  Error readConfig(const GGUF &header);
  Error readEmbedding();
  void findBiases();
  Error readFrequencies(ModelReader &reader);

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

static void checkArchitecture(ModelReader &reader) {
  StringRef family = reader.architecture();
  if (family != "llama" && family != "qwen2" && family != "qwen3")
    reader.fail(
        "unsupported architecture '{0}', expected llama, qwen2 or qwen3",
        family);
  int64_t parts = reader.integer("split.count").value_or(1);
  if (parts > 1)
    reader.fail("split.count of {0} is not supported: join the parts first",
                parts);
}

/// Numbers that change what a model computes, and their values in a plain one.
static void checkPlain(ModelReader &reader) {
  for (const char *name : {"expert_count", "expert_used_count"})
    if (int64_t value = reader.integer(reader.key(name)).value_or(0))
      reader.fail("{0} of {1} is not supported", reader.key(name), value);
  for (const char *name : {"rope.scale_linear", "logit_scale", "residual_scale",
                           "embedding_scale"})
    if (double value = reader.number(reader.key(name)).value_or(1); value != 1)
      reader.fail("{0} of {1} is not supported", reader.key(name), value);
}

/// A window as long as the context hides nothing.
static void checkWindow(ModelReader &reader, int64_t context) {
  std::string key = reader.key("attention.sliding_window");
  int64_t window = reader.integer(key).value_or(0);
  if (window != 0 && window < context)
    reader.fail("{0} of {1} in a context of {2} is not supported", key, window,
                context);
}

static void checkRope(ModelReader &reader, int64_t headDim) {
  std::string typeKey = reader.key("rope.scaling.type");
  StringRef type = reader.string(typeKey).value_or("none");
  if (type != "none")
    reader.fail("unsupported {0} '{1}', expected none", typeKey, type);
  // A factor without a type is a linear one.
  std::string factorKey = reader.key("rope.scaling.factor");
  double factor = reader.number(factorKey).value_or(1);
  if (!reader.string(typeKey) && factor != 0 && factor != 1)
    reader.fail("{0} of {1} is not supported", factorKey, factor);
  std::string rotatedKey = reader.key("rope.dimension_count");
  int64_t rotated = reader.integer(rotatedKey).value_or(headDim);
  if (rotated != headDim)
    reader.fail("{0} of {1} for heads of {2} is not supported", rotatedKey,
                rotated, headDim);
  std::string valuesKey = reader.key("attention.value_length");
  int64_t values = reader.integer(valuesKey).value_or(headDim);
  if (values != headDim)
    reader.fail("{0} of {1} for keys of {2} is not supported", valuesKey,
                values, headDim);
}

//===----------------------------------------------------------------------===//
// Configuration
//===----------------------------------------------------------------------===//

static void readSizes(ModelReader &from, ModelConfig &to) {
  auto required = [&](const char *name) {
    return from.requiredInteger(from.key(name));
  };
  to.family = from.architecture();
  to.layers = required("block_count");
  to.hidden = required("embedding_length");
  to.heads = required("attention.head_count");
  to.kvHeads =
      from.integer(from.key("attention.head_count_kv")).value_or(to.heads);
  to.ffn = required("feed_forward_length");
  to.context = required("context_length");
  std::string epsilon = from.key("attention.layer_norm_rms_epsilon");
  if (!from.has(epsilon))
    from.fail("missing '{0}'", epsilon);
  to.normEpsilon = from.number(epsilon).value_or(1e-5);
  to.headNorms = to.family == "qwen3";
  to.adjacentRope = to.family == "llama";
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

/// No field tells of them; llama and qwen3 may have some.
void GGUFModel::findBiases() {
  auto has = [&](std::initializer_list<const char *> endings) {
    return llvm::any_of(tensors(), [&](const TensorInfo &tensor) {
      return llvm::any_of(endings, [&](StringRef ending) {
        return StringRef(tensor.name).ends_with(ending);
      });
    });
  };
  bool fixed = modelConfig.family == "qwen2";
  modelConfig.attentionBias =
      fixed || has({".attn_q.bias", ".attn_k.bias", ".attn_v.bias"});
  modelConfig.outputBias = !fixed && has({".attn_output.bias"});
}

Error GGUFModel::readConfig(const GGUF &header) {
  ModelReader reader(header);
  checkArchitecture(reader);
  checkPlain(reader);
  readSizes(reader, modelConfig);
  checkWindow(reader, modelConfig.context);
  modelConfig.eosIds = readEosIds(reader);
  int64_t given =
      reader.integer(reader.key("attention.key_length")).value_or(0);
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
  findBiases();
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

Error GGUFModel::readFrequencies(ModelReader &reader) {
  std::string key = reader.key("rope.freq_base");
  double base = reader.number(key).value_or(10000);
  if (!(base > 0) || !std::isfinite(base))
    reader.fail("expected a positive {0}, got {1}", key, base);
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

/// What stands behind "blk.<i>.", up to the last part of the name.
static const char *layerPart(TensorRole role) {
  switch (role) {
  case TensorRole::AttentionNorm:
    return "attn_norm";
  case TensorRole::Query:
  case TensorRole::QueryBias:
    return "attn_q";
  case TensorRole::Key:
  case TensorRole::KeyBias:
    return "attn_k";
  case TensorRole::Value:
  case TensorRole::ValueBias:
    return "attn_v";
  case TensorRole::QueryNorm:
    return "attn_q_norm";
  case TensorRole::KeyNorm:
    return "attn_k_norm";
  case TensorRole::AttentionOutput:
  case TensorRole::AttentionOutputBias:
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
  return "blk." + std::to_string(layer) + "." + layerPart(role) +
         (isBias(role) ? ".bias" : ".weight");
}
