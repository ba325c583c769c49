//===- HuggingFaceTest.cpp - Directories of config.json and safetensors ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TestFiles.h"
#include "llm/Import/ModelFile.h"

#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"

#include <cmath>
#include <numbers>

using namespace mlir::llm;
using namespace mlir::llm::test;
using ::testing::EndsWith;
using ::testing::HasSubstr;
namespace json = llvm::json;

namespace {

/// A tensor as a test describes it.
struct Tensor {
  std::string dtype = "F32";
  std::vector<int64_t> shape;
  int64_t begin = 0;
  int64_t end = 0;
};

std::string text(json::Object object) {
  return llvm::formatv("{0}", json::Value(std::move(object)));
}

std::string withHeader(const std::string &header, size_t dataBytes) {
  return raw<uint64_t>(header.size()) + header + std::string(dataBytes, '\0');
}

std::string safetensors(const std::map<std::string, Tensor> &tensors,
                        size_t dataBytes) {
  json::Object header{{"__metadata__", json::Object{{"format", "pt"}}}};
  for (const auto &[name, tensor] : tensors)
    header[name] = json::Object{{"dtype", tensor.dtype},
                                {"shape", tensor.shape},
                                {"data_offsets", {tensor.begin, tensor.end}}};
  return withHeader(text(std::move(header)), dataBytes);
}

/// Hidden 8, 2 heads, one layer.
json::Object smallConfig() {
  return json::Object{{"architectures", {"LlamaForCausalLM"}},
                      {"model_type", "llama"},
                      {"hidden_size", 8},
                      {"intermediate_size", 6},
                      {"num_hidden_layers", 1},
                      {"num_attention_heads", 2},
                      {"vocab_size", 10},
                      {"eos_token_id", 2},
                      {"tie_word_embeddings", true}};
}

/// The same of another model type, with 2 KV heads.
json::Object configOf(const std::string &type) {
  json::Object config = smallConfig();
  config["model_type"] = type;
  config["num_key_value_heads"] = 2;
  config["architectures"] =
      json::Array{std::string(1, char(std::toupper(type[0]))) + type.substr(1) +
                  "ForCausalLM"};
  return config;
}

const std::map<std::string, Tensor> smallTensors = {
    {"model.embed_tokens.weight", {"F32", {10, 8}, 0, 320}},
    {"model.norm.weight", {"BF16", {8}, 320, 336}}};
constexpr size_t smallBytes = 336;

class HuggingFaceTest : public FileTest {
protected:
  llvm::Expected<std::unique_ptr<ModelFile>> open() {
    write("config.json", text(std::move(config)));
    write("model.safetensors", weights);
    return ModelFile::open(directory.string());
  }
  std::string failure() { return messageOf(open()); }
  std::string failureWith(const char *key, json::Value value) {
    config = smallConfig();
    config[key] = std::move(value);
    return failure();
  }
  /// Of a model type; "" if it is read.
  std::string
  failureOfType(const char *type,
                const std::map<std::string, json::Value> &fields = {}) {
    config = configOf(type);
    for (const auto &[key, value] : fields)
      config[key] = value;
    return failure();
  }
  std::string failureOf(const std::map<std::string, Tensor> &tensors,
                        size_t bytes = smallBytes) {
    config = smallConfig();
    weights = safetensors(tensors, bytes);
    return failure();
  }

  json::Object config = smallConfig();
  std::string weights = safetensors(smallTensors, smallBytes);
};

} // namespace

//===----------------------------------------------------------------------===//
// What is read
//===----------------------------------------------------------------------===//

TEST_F(HuggingFaceTest, ReadsStories260K) {
  fs::path source = sharedFiles() / "models/stories260K";
  LLM_SKIP_WITHOUT(source, "LLM_SHARED");
  auto model = llvm::cantFail(ModelFile::open(source.string()));
  const ModelConfig &config = model->config();
  EXPECT_EQ(config.family, "llama");
  EXPECT_EQ(config.layers, 5);
  EXPECT_EQ(config.hidden, 64);
  EXPECT_EQ(config.heads, 8);
  EXPECT_EQ(config.kvHeads, 4);
  EXPECT_EQ(config.headDim, 8);
  EXPECT_EQ(config.ffn, 172);
  EXPECT_EQ(config.vocab, 512);
  EXPECT_EQ(config.context, 512);
  EXPECT_EQ(config.normEpsilon, 1e-5);
  EXPECT_TRUE(config.tiedHead);
  EXPECT_FALSE(config.adjacentRope);
  EXPECT_EQ(config.eosIds, std::vector<int32_t>{2});
  EXPECT_EQ(config.ropeInverseFrequencies,
            (std::vector<float>{1, 0.1f, 0.01f, 0.001f}));
  EXPECT_EQ(model->tensors().size(), 47u);
  const TensorInfo *gate = model->find(model->tensorName(TensorRole::Gate, 4));
  ASSERT_TRUE(gate);
  EXPECT_EQ(gate->shape, (llvm::SmallVector<int64_t, 2>{172, 64}));
  EXPECT_EQ(gate->bytes, 172u * 64 * 4);
}

TEST_F(HuggingFaceTest, GivesDefaultsAndDerivesTheHeadDim) {
  auto model = llvm::cantFail(open());
  EXPECT_EQ(model->config().headDim, 4);
  EXPECT_EQ(model->config().kvHeads, 2);
  EXPECT_EQ(model->config().context, 2048);
  EXPECT_EQ(model->config().normEpsilon, 1e-6);
  EXPECT_EQ(model->config().ropeInverseFrequencies,
            (std::vector<float>{1, 0.01f}));
}

TEST_F(HuggingFaceTest, ReadsTheDataOfEachTensor) {
  weights[weights.size() - 16] = 'x';
  auto model = llvm::cantFail(open());
  const TensorInfo *norm = model->find("model.norm.weight");
  ASSERT_TRUE(norm);
  EXPECT_EQ(norm->format, LLM_FILE_BF16);
  EXPECT_EQ(norm->bytes, 16u);
  EXPECT_EQ(*static_cast<const char *>(norm->data), 'x');
  model->releasePages();
  EXPECT_EQ(*static_cast<const char *>(norm->data), 'x');
  EXPECT_FALSE(model->find("model.norm"));
}

TEST_F(HuggingFaceTest, IgnoresInverseFrequenciesAndATiedHead) {
  std::map<std::string, Tensor> tensors = smallTensors;
  tensors["lm_head.weight"] = {"F16", {4}, 336, 344};
  tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = {
      "F64", {1}, 344, 352};
  weights = safetensors(tensors, 352);
  auto tied = llvm::cantFail(open());
  EXPECT_EQ(tied->tensors().size(), smallTensors.size());
  EXPECT_EQ(tied->tensorName(TensorRole::Head), "model.embed_tokens.weight");
  config = smallConfig();
  config["tie_word_embeddings"] = false;
  auto untied = llvm::cantFail(open());
  EXPECT_EQ(untied->tensors().size(), smallTensors.size() + 1);
  EXPECT_EQ(untied->tensorName(TensorRole::Head), "lm_head.weight");
}

TEST_F(HuggingFaceTest, NamesEveryTensor) {
  auto model = llvm::cantFail(open());
  EXPECT_EQ(model->tensorName(TensorRole::Embedding),
            "model.embed_tokens.weight");
  EXPECT_EQ(model->tensorName(TensorRole::FinalNorm), "model.norm.weight");
  const std::pair<TensorRole, const char *> parts[] = {
      {TensorRole::AttentionNorm, "input_layernorm"},
      {TensorRole::Query, "self_attn.q_proj"},
      {TensorRole::Key, "self_attn.k_proj"},
      {TensorRole::Value, "self_attn.v_proj"},
      {TensorRole::AttentionOutput, "self_attn.o_proj"},
      {TensorRole::FFNNorm, "post_attention_layernorm"},
      {TensorRole::Gate, "mlp.gate_proj"},
      {TensorRole::Up, "mlp.up_proj"},
      {TensorRole::Down, "mlp.down_proj"}};
  for (auto [role, part] : parts)
    EXPECT_EQ(model->tensorName(role, 12),
              "model.layers.12." + std::string(part) + ".weight");
}

TEST_F(HuggingFaceTest, NamesBiasesAndNormsOfHeads) {
  auto model = llvm::cantFail(open());
  const std::pair<TensorRole, const char *> parts[] = {
      {TensorRole::QueryBias, "q_proj.bias"},
      {TensorRole::KeyBias, "k_proj.bias"},
      {TensorRole::ValueBias, "v_proj.bias"},
      {TensorRole::AttentionOutputBias, "o_proj.bias"},
      {TensorRole::QueryNorm, "q_norm.weight"},
      {TensorRole::KeyNorm, "k_norm.weight"}};
  for (auto [role, part] : parts)
    EXPECT_EQ(model->tensorName(role, 12),
              "model.layers.12.self_attn." + std::string(part));
}

/// attention_bias means all four of llama and qwen3; qwen2 has those of q, k
/// and v whatever it says.
TEST_F(HuggingFaceTest, ReadsWhatTheModelTypesHave) {
  struct Parts {
    const char *type;
    bool asked, attentionBias, outputBias, headNorms;
  };
  for (Parts parts : {Parts{"llama", false, false, false, false},
                      {"llama", true, true, true, false},
                      {"mistral", false, false, false, false},
                      {"qwen2", false, true, false, false},
                      {"qwen2", true, true, false, false},
                      {"qwen3", false, false, false, true},
                      {"qwen3", true, true, true, true}}) {
    config = configOf(parts.type);
    config["attention_bias"] = parts.asked;
    config["sliding_window"] = nullptr;
    auto model = llvm::cantFail(open());
    EXPECT_EQ(model->config().family, parts.type);
    EXPECT_FALSE(model->config().adjacentRope);
    EXPECT_EQ(model->config().attentionBias, parts.attentionBias) << parts.type;
    EXPECT_EQ(model->config().outputBias, parts.outputBias) << parts.type;
    EXPECT_EQ(model->config().headNorms, parts.headNorms) << parts.type;
  }
  EXPECT_THAT(failureOfType("mistral", {{"sliding_window", nullptr},
                                        {"attention_bias", true}}),
              EndsWith("attention_bias of a mistral model is not supported"));
}

/// As in the configuration classes of transformers 5.23; a null is another
/// thing than no field.
TEST_F(HuggingFaceTest, GivesTheDefaultsOfTheModelType) {
  struct Defaults {
    const char *type;
    int64_t kvHeads, headDim, context;
  };
  for (Defaults defaults : {Defaults{"llama", 64, 4, 2048},
                            {"mistral", 8, 4, 131072},
                            {"qwen2", 32, 4, 32768},
                            {"qwen3", 32, 128, 32768}}) {
    auto read = [&](bool null) {
      config = configOf(defaults.type);
      config["hidden_size"] = 256;
      config["num_attention_heads"] = 64;
      config["use_sliding_window"] = false;
      config.erase("num_key_value_heads");
      if (null)
        config["num_key_value_heads"] = nullptr;
      return llvm::cantFail(open());
    };
    const ModelConfig absent = read(false)->config();
    EXPECT_EQ(absent.kvHeads, defaults.kvHeads) << defaults.type;
    EXPECT_EQ(absent.headDim, defaults.headDim) << defaults.type;
    EXPECT_EQ(absent.context, defaults.context) << defaults.type;
    EXPECT_EQ(read(true)->config().kvHeads, 64) << defaults.type;
  }
}

TEST_F(HuggingFaceTest, TakesEosIdsOfTheGenerationConfig) {
  config["eos_token_id"] = json::Array{1, 3};
  EXPECT_EQ(llvm::cantFail(open())->config().eosIds,
            (std::vector<int32_t>{1, 3}));
  config = smallConfig();
  write("generation_config.json", R"({"eos_token_id": [7, 8]})");
  EXPECT_EQ(llvm::cantFail(open())->config().eosIds,
            (std::vector<int32_t>{7, 8}));
  config = smallConfig();
  write("generation_config.json", R"({"eos_token_id": null})");
  EXPECT_EQ(llvm::cantFail(open())->config().eosIds, (std::vector<int32_t>{2}));
}

//===----------------------------------------------------------------------===//
// RoPE
//===----------------------------------------------------------------------===//

static json::Object llama3() {
  return json::Object{
      {"rope_type", "llama3"},  {"factor", 8.0},
      {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0},
      {"rope_theta", 500000.0}, {"original_max_position_embeddings", 8192}};
}

TEST_F(HuggingFaceTest, ReadsTheBaseInBothSpellings) {
  config["rope_theta"] = 100.0;
  EXPECT_EQ(llvm::cantFail(open())->config().ropeInverseFrequencies[1], 0.1f);
  config = smallConfig();
  config["rope_parameters"] =
      json::Object{{"rope_type", "default"}, {"rope_theta", 400.0}};
  EXPECT_EQ(llvm::cantFail(open())->config().ropeInverseFrequencies[1], 0.05f);
}

TEST_F(HuggingFaceTest, ScalesAsLlama3) {
  config["head_dim"] = 64;
  config["rope_parameters"] = llama3();
  std::vector<float> scaled =
      llvm::cantFail(open())->config().ropeInverseFrequencies;
  ASSERT_EQ(scaled.size(), 32u);
  for (int i = 0; i < 32; ++i) {
    // As in transformers' _compute_llama3_parameters.
    double frequency = 1 / std::pow(500000.0, 2.0 * i / 64);
    double wavelength = 2 * std::numbers::pi / frequency, expected = frequency;
    if (wavelength > 8192.0 / 1)
      expected = frequency / 8;
    else if (wavelength >= 8192.0 / 4) {
      double smooth = (8192 / wavelength - 1) / (4 - 1);
      expected = (1 - smooth) * frequency / 8 + smooth * frequency;
    }
    EXPECT_FLOAT_EQ(scaled[i], float(expected)) << i;
  }
  EXPECT_FLOAT_EQ(scaled[31], float(std::pow(500000.0, -62.0 / 64) / 8));
}

TEST_F(HuggingFaceTest, ReadsScalingInTheOldSpelling) {
  json::Object scaling = llama3();
  scaling.erase("rope_theta");
  config["rope_theta"] = 500000.0;
  config["rope_scaling"] = std::move(scaling);
  std::vector<float> old =
      llvm::cantFail(open())->config().ropeInverseFrequencies;
  config = smallConfig();
  config["rope_parameters"] = llama3();
  EXPECT_EQ(old, llvm::cantFail(open())->config().ropeInverseFrequencies);
}

TEST_F(HuggingFaceTest, RefusesOtherRopes) {
  EXPECT_THAT(
      failureWith("rope_scaling",
                  json::Object{{"type", "linear"}, {"factor", 2.0}}),
      EndsWith("unsupported rope type 'linear', expected default or llama3"));
  EXPECT_THAT(
      failureWith("rope_parameters", json::Object{{"rope_type", "yarn"}}),
      EndsWith("unsupported rope type 'yarn', expected default or llama3"));
  EXPECT_THAT(failureWith("partial_rotary_factor", 0.5),
              EndsWith("partial_rotary_factor of 0.50 is not supported"));
  EXPECT_THAT(failureWith("rope_parameters",
                          json::Object{{"partial_rotary_factor", 0.25}}),
              EndsWith("partial_rotary_factor of 0.25 is not supported"));
  EXPECT_THAT(failureWith("rope_parameters",
                          json::Object{{"full_attention", json::Object{}}}),
              EndsWith("rope_parameters by layer type are not supported"));
  EXPECT_THAT(failureWith("rope_scaling", json::Object{{"factor", 8.0}}),
              EndsWith("a rope factor without a rope_type is not supported"));
  EXPECT_THAT(failureWith("rope_theta", -1.0),
              EndsWith("expected a positive rope_theta, got -1.00"));
  json::Object missing = llama3();
  missing.erase("high_freq_factor");
  EXPECT_THAT(failureWith("rope_parameters", std::move(missing)),
              EndsWith("missing 'high_freq_factor'"));
  json::Object reversed = llama3();
  reversed["high_freq_factor"] = 1.0;
  EXPECT_THAT(failureWith("rope_parameters", std::move(reversed)),
              EndsWith("expected low_freq_factor below high_freq_factor, got "
                       "1.00 and 1.00"));
  json::Object shrinking = llama3();
  shrinking["factor"] = 0.0;
  EXPECT_THAT(failureWith("rope_parameters", std::move(shrinking)),
              EndsWith("expected a positive factor and original context, got "
                       "0.00 and 8192.00"));
}

//===----------------------------------------------------------------------===//
// Refused configurations
//===----------------------------------------------------------------------===//

TEST_F(HuggingFaceTest, RefusesOtherArchitectures) {
  std::string message = failureWith("model_type", "mamba");
  EXPECT_EQ(message, (directory / "config.json").string() +
                         ": unsupported architecture 'mamba', expected llama, "
                         "mistral, qwen2 or qwen3");
  EXPECT_THAT(failureWith("model_type", nullptr),
              EndsWith("unsupported architecture '', expected llama, mistral, "
                       "qwen2 or qwen3"));
  EXPECT_THAT(failureWith("model_type", "qwen2"),
              EndsWith("unsupported architectures [\"LlamaForCausalLM\"], "
                       "expected Qwen2ForCausalLM"));
  EXPECT_THAT(
      failureWith("architectures", json::Array{"LlamaForPoetry"}),
      EndsWith("unsupported architectures [\"LlamaForPoetry\"], expected "
               "LlamaForCausalLM"));
}

TEST_F(HuggingFaceTest, RefusesWhatChangesTheLayers) {
  EXPECT_THAT(failureWith("hidden_act", "gelu"),
              EndsWith("unsupported activation 'gelu', expected silu"));
  EXPECT_THAT(failureWith("mlp_bias", true),
              EndsWith("mlp_bias is not supported"));
  EXPECT_THAT(failureWith("sliding_window", 2047),
              EndsWith("sliding_window of 2047 in a context of 2048 is not "
                       "supported"));
  EXPECT_THAT(failureWith("layer_types", json::Array{"sliding_attention"}),
              EndsWith("layer type \"sliding_attention\" is not supported"));
  EXPECT_THAT(failureWith("num_local_experts", 8),
              EndsWith("num_local_experts of 8 is not supported"));
}

TEST_F(HuggingFaceTest, AcceptsAnInactiveSlidingWindow) {
  config["sliding_window"] = 64;
  config["use_sliding_window"] = false;
  EXPECT_EQ(failure(), "");
  EXPECT_EQ(failureWith("sliding_window", nullptr), "");
  EXPECT_EQ(failureWith("sliding_window", 2048), "");
}

/// Where the file says nothing of it, the window is 4096.
TEST_F(HuggingFaceTest, MistralHasAWindowUnlessToldOtherwise) {
  const std::string refusal =
      "sliding_window of 4096 in a context of 131072 is not supported";
  EXPECT_THAT(failureOfType("mistral"), EndsWith(refusal));
  EXPECT_THAT(failureOfType("mistral", {{"sliding_window", 4096}}),
              EndsWith(refusal));
  EXPECT_EQ(failureOfType("mistral", {{"sliding_window", nullptr}}), "");
  EXPECT_EQ(failureOfType("mistral", {{"sliding_window", 131072}}), "");
  EXPECT_EQ(failureOfType("mistral", {{"max_position_embeddings", 4096}}), "");
}

/// A window that is asked for counts from layer `max_window_layers` on.
TEST_F(HuggingFaceTest, QwenHasAWindowIfAsked) {
  for (const char *type : {"qwen2", "qwen3"}) {
    auto failureWithWindow = [&](bool used, int64_t fullLayers) {
      return failureOfType(type, {{"sliding_window", 64},
                                  {"use_sliding_window", used},
                                  {"max_window_layers", fullLayers}});
    };
    EXPECT_THAT(failureWithWindow(true, 0),
                EndsWith("sliding_window of 64 in a context of 32768 is not "
                         "supported"));
    EXPECT_EQ(failureWithWindow(true, 1), "") << "there is one layer";
    EXPECT_EQ(failureWithWindow(false, 0), "");
    EXPECT_EQ(
        failureOfType(type, {{"sliding_window", 64}, {"max_window_layers", 0}}),
        "");
  }
}

TEST_F(HuggingFaceTest, RefusesBadFields) {
  EXPECT_THAT(failureWith("hidden_size", nullptr),
              EndsWith("missing 'hidden_size'"));
  EXPECT_THAT(failureWith("hidden_size", "8"),
              EndsWith("expected an integer for 'hidden_size', got \"8\""));
  EXPECT_THAT(failureWith("mlp_bias", 1),
              EndsWith("expected true or false for 'mlp_bias', got 1"));
  EXPECT_THAT(failureWith("rms_norm_eps", "small"),
              EndsWith("expected a number for 'rms_norm_eps', got \"small\""));
  EXPECT_THAT(failureWith("rope_scaling", 1),
              EndsWith("expected an object for 'rope_scaling', got 1"));
  EXPECT_THAT(failureWith("eos_token_id", json::Array{1, "x"}),
              EndsWith("expected token ids for 'eos_token_id', got [1,\"x\"]"));
}

TEST_F(HuggingFaceTest, RefusesImpossibleSizes) {
  EXPECT_THAT(failureWith("num_attention_heads", 3),
              EndsWith("hidden size 8 is no multiple of the 3 heads, and no "
                       "head dimension is given"));
  EXPECT_THAT(failureWith("num_key_value_heads", 3),
              EndsWith("2 heads are no multiple of 3 key/value heads"));
  EXPECT_THAT(
      failureWith("head_dim", 7),
      EndsWith("expected an even head dimension from 2 to 65536, got 7"));
  EXPECT_THAT(failureWith("vocab_size", -1),
              EndsWith("expected vocabulary from 1 to 2147483647, got -1"));
  EXPECT_THAT(failureWith("num_hidden_layers", 1000000),
              EndsWith("1000000 layers, but only 2 tensors"));
  EXPECT_THAT(failureWith("rms_norm_eps", -1.0),
              EndsWith("expected a norm epsilon from 0 to 1, got -1.00"));
  EXPECT_THAT(failureWith("eos_token_id", 10),
              EndsWith("end-of-text id 10 is outside the vocabulary of 10"));
}

TEST_F(HuggingFaceTest, RefusesBadPaths) {
  EXPECT_THAT(messageOf(ModelFile::open("/dev/null")),
              EndsWith("/dev/null: expected a regular file"));
  EXPECT_THAT(messageOf(ModelFile::open((directory / "none").string())),
              EndsWith("none: no such file or directory"));
  EXPECT_THAT(messageOf(ModelFile::open(directory.string())),
              EndsWith("config.json: no such file or directory"));
  write("config.json", text(smallConfig()));
  EXPECT_THAT(messageOf(ModelFile::open(directory.string())),
              EndsWith("neither model.safetensors nor "
                       "model.safetensors.index.json is there"));
  write("model.safetensors", "");
  EXPECT_THAT(messageOf(ModelFile::open(directory.string())),
              EndsWith("model.safetensors: the file is empty"));
}

//===----------------------------------------------------------------------===//
// Refused safetensors
//===----------------------------------------------------------------------===//

TEST_F(HuggingFaceTest, RefusesOtherDtypes) {
  EXPECT_THAT(failureOf({{"a", {"F64", {2}, 0, 16}}}),
              EndsWith("tensor 'a' has unsupported dtype 'F64', expected F32, "
                       "F16 or BF16"));
}

TEST_F(HuggingFaceTest, RefusesBadOffsets) {
  EXPECT_THAT(
      failureOf({{"a", {"F32", {2}, 0, 8}}}, 7),
      EndsWith("tensor 'a' at [0, 8) lies outside the 7 bytes of data"));
  EXPECT_THAT(
      failureOf({{"a", {"F32", {2}, 8, 0}}}),
      EndsWith("tensor 'a' at [8, 0) lies outside the 336 bytes of data"));
  EXPECT_THAT(failureOf({{"a", {"F32", {3}, 0, 8}}}),
              EndsWith("tensor 'a' of shape [3] in f32 has 8 bytes of data"));
  EXPECT_THAT(failureOf({{"a", {"F32", {1ll << 40, 1ll << 40}, 0, 0}}}),
              EndsWith("in f32 has 0 bytes of data"));
  EXPECT_THAT(
      failureOf({{"a", {"F32", {2}, 0, 8}}, {"b", {"F16", {4}, 7, 15}}}),
      EndsWith("tensors 'a' and 'b' overlap"));
}

TEST_F(HuggingFaceTest, RefusesDamagedHeaders) {
  weights = "1234567";
  EXPECT_THAT(failure(),
              EndsWith("7 bytes are too few for a safetensors file"));
  weights = raw<uint64_t>(UINT64_MAX) + "{}";
  EXPECT_THAT(failureWith("vocab_size", 10),
              EndsWith("the header of 18446744073709551615 bytes ends beyond "
                       "the file of 10"));
  weights = withHeader("{", 0);
  EXPECT_THAT(failureWith("vocab_size", 10), HasSubstr("invalid JSON: "));
  weights = withHeader("[]", 0);
  EXPECT_THAT(failureWith("vocab_size", 10),
              EndsWith("expected a JSON object"));
  weights = withHeader(std::string(100000, '['), 0);
  EXPECT_THAT(failureWith("vocab_size", 10),
              EndsWith("JSON nested 100000 deep, more than 64"));
  weights = withHeader(R"({"a": 1})", 0);
  EXPECT_THAT(
      failureWith("vocab_size", 10),
      EndsWith("expected dtype, shape and data_offsets for tensor 'a'"));
  weights = withHeader(R"({"a": {"dtype": "F32", "shape": [-1],
                                 "data_offsets": [0, 4]}})",
                       4);
  EXPECT_THAT(
      failureWith("vocab_size", 10),
      EndsWith("expected dtype, shape and data_offsets for tensor 'a'"));
}

TEST_F(HuggingFaceTest, RefusesATensorGivenTwice) {
  const char *one = R"("a\":": {"dtype": "F32", "shape": [1],
                               "data_offsets": [0, 4]})";
  weights = withHeader(std::string("{") + one + "," + one + "}", 4);
  EXPECT_THAT(failure(), EndsWith("1 of 2 keys are given twice"));
}

//===----------------------------------------------------------------------===//
// Shards
//===----------------------------------------------------------------------===//

namespace {

class ShardTest : public FileTest {
protected:
  void SetUp() override {
    FileTest::SetUp();
    write("config.json", text(smallConfig()));
    write("one.safetensors",
          safetensors({{"model.embed_tokens.weight", {"F32", {10, 8}, 0, 320}}},
                      320));
    write("two.safetensors",
          safetensors({{"model.norm.weight", {"F16", {8}, 0, 16}}}, 16));
  }
  llvm::Expected<std::unique_ptr<ModelFile>> open(json::Object map) {
    write("model.safetensors.index.json",
          text(json::Object{{"weight_map", std::move(map)}}));
    return ModelFile::open(directory.string());
  }
};

} // namespace

TEST_F(ShardTest, JoinsShards) {
  auto model = llvm::cantFail(
      open(json::Object{{"model.embed_tokens.weight", "one.safetensors"},
                        {"model.norm.weight", "two.safetensors"}}));
  EXPECT_EQ(model->tensors().size(), 2u);
  EXPECT_EQ(model->find("model.norm.weight")->format, LLM_FILE_F16);
  EXPECT_EQ(model->find("model.embed_tokens.weight")->format, LLM_FILE_F32);
}

TEST_F(ShardTest, RefusesWhatDoesNotFitTheIndex) {
  EXPECT_THAT(
      messageOf(open(json::Object{{"model.norm.weight", "two.safetensors"},
                                  {"extra", "two.safetensors"}})),
      EndsWith("two.safetensors: tensor 'extra' of the index is missing"));
  EXPECT_THAT(
      messageOf(open(json::Object{{"model.norm.weight", "one.safetensors"}})),
      EndsWith("one.safetensors: tensor 'model.embed_tokens.weight' is "
               "not what the index has here"));
  EXPECT_THAT(messageOf(open(
                  json::Object{{"model.norm.weight", "../two.safetensors"}})),
              EndsWith("tensor 'model.norm.weight' is said to lie in "
                       "\"../two.safetensors\""));
  EXPECT_THAT(
      messageOf(open(json::Object{{"model.norm.weight", "three.safetensors"}})),
      EndsWith("three.safetensors: no such file or directory"));
  write("model.safetensors.index.json", "{}");
  EXPECT_THAT(messageOf(ModelFile::open(directory.string())),
              EndsWith("index.json: missing 'weight_map'"));
}
