//===- HuggingFaceConfig.cpp - config.json and generation_config.json -----===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Spelled as transformers 4 and 5 do; a default is that of its class for the
// model type.
//
//===----------------------------------------------------------------------===//

#include "HuggingFaceConfig.h"
#include "JSONFile.h"
#include "JSONReader.h"
#include "ModelFormats.h"
#include "Rope.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"

#include <cmath>

using namespace mlir::llm;
using llvm::Expected;
using llvm::StringRef;
namespace json = llvm::json;

namespace {

/// Where linear layers of attention have biases.
enum class Biases {
  None,
  Inputs, ///< of q, k and v
  Asked,  ///< of the output as well, if attention_bias says so
};

/// A model type, and what transformers takes where the file says nothing.
struct Architecture {
  const char *type;      ///< model_type
  const char *className; ///< the only one of architectures
  int64_t context;
  int64_t kvHeads = 0;    ///< 0: as many as query heads
  int64_t headDim = 0;    ///< 0: hidden size / heads
  int64_t window = 0;     ///< 0: none
  int64_t fullLayers = 0; ///< before the first that has the window
  bool usesWindow = true;
  Biases biases = Biases::None;
  bool headNorms = false;
};

} // namespace

static constexpr Architecture architectures[] = {
    {.type = "llama",
     .className = "LlamaForCausalLM",
     .context = 2048,
     .biases = Biases::Asked},
    {.type = "mistral",
     .className = "MistralForCausalLM",
     .context = 131072,
     .kvHeads = 8,
     .window = 4096},
    {.type = "qwen2",
     .className = "Qwen2ForCausalLM",
     .context = 32768,
     .kvHeads = 32,
     .window = 4096,
     .fullLayers = 28,
     .usesWindow = false,
     .biases = Biases::Inputs},
    {.type = "qwen3",
     .className = "Qwen3ForCausalLM",
     .context = 32768,
     .kvHeads = 32,
     .headDim = 128,
     .window = 4096,
     .fullLayers = 28,
     .usesWindow = false,
     .biases = Biases::Asked,
     .headNorms = true},
};

//===----------------------------------------------------------------------===//
// Refusals
//===----------------------------------------------------------------------===//

/// The one that the file names; fails, with any one, where it is not known.
static const Architecture &readArchitecture(JSONReader &config) {
  StringRef type = config.string("model_type").value_or("");
  const auto *known =
      llvm::find_if(architectures, [&](const Architecture &architecture) {
        return type == architecture.type;
      });
  if (known == std::end(architectures)) {
    config.fail(
        "unsupported architecture '{0}', expected llama, mistral, qwen2 "
        "or qwen3",
        type);
    return architectures[0];
  }
  const json::Value *names = config.find("architectures");
  const json::Array *list = names ? names->getAsArray() : nullptr;
  if (names && (!list || list->size() != 1 ||
                list->front().getAsString() != known->className))
    config.fail("unsupported architectures {0}, expected {1}", *names,
                known->className);
  return *known;
}

/// A window as long as the context hides nothing.
static void checkWindows(JSONReader &config, const Architecture &architecture,
                         const ModelConfig &sizes) {
  int64_t window =
      config.integer("sliding_window")
          .value_or(config.has("sliding_window") ? 0 : architecture.window);
  bool used =
      config.boolean("use_sliding_window").value_or(architecture.usesWindow);
  int64_t fullLayers =
      config.integer("max_window_layers").value_or(architecture.fullLayers);
  if (used && window > 0 && window < sizes.context && fullLayers < sizes.layers)
    config.fail("sliding_window of {0} in a context of {1} is not supported",
                window, sizes.context);
  const json::Value *types = config.find("layer_types");
  const json::Array *list = types ? types->getAsArray() : nullptr;
  for (const json::Value &type : list ? *list : json::Array())
    if (type.getAsString() != "full_attention")
      config.fail("layer type {0} is not supported", type);
}

static void readBiases(JSONReader &from, const Architecture &architecture,
                       ModelConfig &to) {
  bool asked = from.boolean("attention_bias").value_or(false);
  if (asked && architecture.biases == Biases::None)
    from.fail("attention_bias of a {0} model is not supported",
              architecture.type);
  to.outputBias = asked && architecture.biases == Biases::Asked;
  to.attentionBias = to.outputBias || architecture.biases == Biases::Inputs;
}

static void checkLayers(JSONReader &config) {
  if (config.boolean("mlp_bias").value_or(false))
    config.fail("mlp_bias is not supported");
  StringRef activation = config.string("hidden_act").value_or("silu");
  if (activation != "silu")
    config.fail("unsupported activation '{0}', expected silu", activation);
  for (const char *key : {"num_local_experts", "num_experts"})
    if (int64_t experts = config.integer(key).value_or(0))
      config.fail("{0} of {1} is not supported", key, experts);
}

//===----------------------------------------------------------------------===//
// RoPE
//===----------------------------------------------------------------------===//

/// The object with the rope's type and its numbers; null without one.
static const json::Object *ropeParameters(JSONReader &config) {
  const json::Object *current = config.objectOf("rope_parameters");
  return current ? current : config.objectOf("rope_scaling");
}

static void checkFullRotary(JSONReader &fields) {
  double part = fields.number("partial_rotary_factor").value_or(1);
  if (part != 1)
    fields.fail("partial_rotary_factor of {0} is not supported", part);
}

static void scaleLlama3(JSONReader &rope, std::vector<double> &frequencies) {
  Llama3Scaling scaling{
      rope.requiredNumber("factor"), rope.requiredNumber("low_freq_factor"),
      rope.requiredNumber("high_freq_factor"),
      rope.requiredNumber("original_max_position_embeddings")};
  if (!(scaling.factor > 0) || !(scaling.originalContext > 0))
    return rope.fail("expected a positive factor and original context, got {0} "
                     "and {1}",
                     scaling.factor, scaling.originalContext);
  if (!(scaling.lowFrequencyFactor < scaling.highFrequencyFactor))
    return rope.fail("expected low_freq_factor below high_freq_factor, got {0} "
                     "and {1}",
                     scaling.lowFrequencyFactor, scaling.highFrequencyFactor);
  scale(frequencies, scaling);
}

static void scaleByType(JSONReader &rope, std::vector<double> &frequencies) {
  StringRef old = rope.string("type").value_or("default");
  StringRef type = rope.string("rope_type").value_or(old);
  if (type == "llama3")
    scaleLlama3(rope, frequencies);
  else if (type != "default")
    rope.fail("unsupported rope type '{0}', expected default or llama3", type);
  else if (!rope.has("type") && !rope.has("rope_type") && rope.has("factor"))
    rope.fail("a rope factor without a rope_type is not supported");
}

static std::vector<float> readFrequencies(JSONReader &config, int64_t headDim) {
  const json::Object *parameters = ropeParameters(config);
  json::Object none;
  JSONReader rope(config.path(), parameters ? *parameters : none);
  checkFullRotary(config);
  checkFullRotary(rope);
  for (const char *kind : {"full_attention", "sliding_attention"})
    if (rope.find(kind))
      rope.fail("rope_parameters by layer type are not supported");
  double outer = config.number("rope_theta").value_or(10000);
  double base = rope.number("rope_theta").value_or(outer);
  if (!(base > 0) || !std::isfinite(base))
    rope.fail("expected a positive rope_theta, got {0}", base);
  std::vector<double> frequencies = inverseFrequencies(base, headDim);
  scaleByType(rope, frequencies);
  config.fail(rope.takeError());
  return roundToFloat(frequencies);
}

//===----------------------------------------------------------------------===//
// Sizes and ids
//===----------------------------------------------------------------------===//

static void readSizes(JSONReader &from, const Architecture &architecture,
                      ModelConfig &to) {
  to.family = architecture.type;
  to.layers = from.requiredInteger("num_hidden_layers");
  to.hidden = from.requiredInteger("hidden_size");
  to.heads = from.requiredInteger("num_attention_heads");
  bool ownDefault = architecture.kvHeads && !from.has("num_key_value_heads");
  to.kvHeads = from.integer("num_key_value_heads")
                   .value_or(ownDefault ? architecture.kvHeads : to.heads);
  to.headDim = from.integer("head_dim").value_or(architecture.headDim);
  to.headNorms = architecture.headNorms;
  to.ffn = from.requiredInteger("intermediate_size");
  to.vocab = from.requiredInteger("vocab_size");
  to.context =
      from.integer("max_position_embeddings").value_or(architecture.context);
  to.normEpsilon = from.number("rms_norm_eps").value_or(1e-6);
  to.tiedHead = from.boolean("tie_word_embeddings").value_or(false);
  to.eosIds = from.ids("eos_token_id").value_or(std::vector<int32_t>());
}

/// generation_config.json, if there is one, knows better how answers end.
static llvm::Error readGenerationConfig(StringRef directory, ModelConfig &to) {
  llvm::SmallString<128> path(directory);
  llvm::sys::path::append(path, "generation_config.json");
  if (!llvm::sys::fs::exists(path))
    return llvm::Error::success();
  Expected<json::Object> object = readJSON(path);
  if (!object)
    return object.takeError();
  JSONReader generation(path, *object);
  if (auto ids = generation.ids("eos_token_id"))
    to.eosIds = std::move(*ids);
  return generation.takeError();
}

Expected<ModelConfig> mlir::llm::readHuggingFaceConfig(StringRef directory) {
  llvm::SmallString<128> path(directory);
  llvm::sys::path::append(path, "config.json");
  Expected<json::Object> object = readJSON(path);
  if (!object)
    return object.takeError();
  JSONReader reader(path, *object);
  ModelConfig config;
  const Architecture &architecture = readArchitecture(reader);
  checkLayers(reader);
  readSizes(reader, architecture, config);
  readBiases(reader, architecture, config);
  checkWindows(reader, architecture, config);
  if (llvm::Error error = reader.takeError())
    return error;
  Expected<int64_t> headDim = chooseHeadDim(path, config, config.headDim);
  if (!headDim)
    return headDim.takeError();
  config.headDim = *headDim;
  if (llvm::Error error = readGenerationConfig(directory, config))
    return error;
  if (llvm::Error error = checkConfig(path, config))
    return error;
  config.ropeInverseFrequencies = readFrequencies(reader, config.headDim);
  if (llvm::Error error = reader.takeError())
    return error;
  return config;
}
