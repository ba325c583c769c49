//===- HuggingFaceConfig.cpp - config.json and generation_config.json -----===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Spelled as transformers 4 and 5 do; a default is that of its LlamaConfig.
//
//===----------------------------------------------------------------------===//

#include "HuggingFaceConfig.h"
#include "JSONFile.h"
#include "JSONReader.h"
#include "ModelFormats.h"
#include "Rope.h"

#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"

using namespace mlir::llm;
using llvm::Expected;
using llvm::StringRef;
namespace json = llvm::json;

//===----------------------------------------------------------------------===//
// Refusals
//===----------------------------------------------------------------------===//

static void checkArchitecture(JSONReader &config) {
  StringRef type = config.string("model_type").value_or("");
  if (type != "llama")
    return config.fail("unsupported architecture '{0}', expected llama", type);
  const json::Value *names = config.find("architectures");
  const json::Array *list = names ? names->getAsArray() : nullptr;
  if (!names || (list && list->size() == 1 &&
                 list->front().getAsString() == "LlamaForCausalLM"))
    return;
  config.fail("unsupported architectures {0}, expected LlamaForCausalLM",
              *names);
}

static void checkAttention(JSONReader &config) {
  for (const char *key : {"attention_bias", "mlp_bias"})
    if (config.boolean(key).value_or(false))
      config.fail("{0} is not supported", key);
  int64_t window = config.integer("sliding_window").value_or(0);
  if (window > 0 && config.boolean("use_sliding_window").value_or(true))
    config.fail("sliding_window of {0} is not supported", window);
  const json::Value *types = config.find("layer_types");
  const json::Array *list = types ? types->getAsArray() : nullptr;
  for (const json::Value &type : list ? *list : json::Array())
    if (type.getAsString() != "full_attention")
      config.fail("layer type {0} is not supported", type);
}

static void checkLayers(JSONReader &config) {
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
  if (!(base > 0))
    rope.fail("expected a positive rope_theta, got {0}", base);
  std::vector<double> frequencies = inverseFrequencies(base, headDim);
  scaleByType(rope, frequencies);
  config.fail(rope.takeError());
  return roundToFloat(frequencies);
}

//===----------------------------------------------------------------------===//
// Sizes and ids
//===----------------------------------------------------------------------===//

static void readSizes(JSONReader &from, ModelConfig &to) {
  to.family = "llama";
  to.layers = from.requiredInteger("num_hidden_layers");
  to.hidden = from.requiredInteger("hidden_size");
  to.heads = from.requiredInteger("num_attention_heads");
  to.kvHeads = from.integer("num_key_value_heads").value_or(to.heads);
  to.headDim = from.integer("head_dim").value_or(0);
  to.ffn = from.requiredInteger("intermediate_size");
  to.vocab = from.requiredInteger("vocab_size");
  to.context = from.integer("max_position_embeddings").value_or(2048);
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
  checkArchitecture(reader);
  checkAttention(reader);
  checkLayers(reader);
  readSizes(reader, config);
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
