//===- BuildModelTest.cpp - Modules of small checkpoints ------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Checkpoints are Hugging Face directories of zeros that the tests write, and
// stories260K of the shared files.
//
//===----------------------------------------------------------------------===//

#include "llm/Import/BuildModel.h"

#include "TestFiles.h"
#include "TestGGUF.h"

#include "llm/IR/LLM.h"
#include "llm/Import/ModelFile.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/IR/Verifier.h"
#include "mlir/Parser/Parser.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"

#include <map>

using namespace mlir;
using namespace mlir::llm;
using namespace mlir::llm::test;
using ::testing::AllOf;
using ::testing::HasSubstr;

namespace {

/// A Llama of zeros: hidden 8, 2 query heads and 1 KV head of 4, ffn 6,
/// vocabulary 10.
struct Checkpoint {
  explicit Checkpoint(int64_t layers, bool tied = true);

  std::string config() const;
  std::string safetensors() const;

  /// Adds a tensor to each layer.
  void add(const std::string &name, const std::vector<int64_t> &shape);
  /// Adds the biases of q, k and v.
  void addBiases();

  int64_t layers;
  bool tied;
  /// The model type, and fields of its own.
  std::string type = "llama", className = "LlamaForCausalLM";
  std::map<std::string, ::llvm::json::Value> fields;
  std::map<std::string, std::vector<int64_t>> tensors;
};

Checkpoint::Checkpoint(int64_t layers, bool tied) : layers(layers), tied(tied) {
  tensors = {{"model.embed_tokens.weight", {10, 8}},
             {"model.norm.weight", {8}}};
  if (!tied)
    tensors["lm_head.weight"] = {10, 8};
  for (int64_t i = 0; i < layers; ++i) {
    std::string prefix = "model.layers." + std::to_string(i) + ".";
    tensors[prefix + "input_layernorm.weight"] = {8};
    tensors[prefix + "self_attn.q_proj.weight"] = {8, 8};
    tensors[prefix + "self_attn.k_proj.weight"] = {4, 8};
    tensors[prefix + "self_attn.v_proj.weight"] = {4, 8};
    tensors[prefix + "self_attn.o_proj.weight"] = {8, 8};
    tensors[prefix + "post_attention_layernorm.weight"] = {8};
    tensors[prefix + "mlp.gate_proj.weight"] = {6, 8};
    tensors[prefix + "mlp.up_proj.weight"] = {6, 8};
    tensors[prefix + "mlp.down_proj.weight"] = {8, 6};
  }
}

void Checkpoint::add(const std::string &name,
                     const std::vector<int64_t> &shape) {
  for (int64_t i = 0; i < layers; ++i)
    tensors["model.layers." + std::to_string(i) + "." + name] = shape;
}

void Checkpoint::addBiases() {
  add("self_attn.q_proj.bias", {8});
  add("self_attn.k_proj.bias", {4});
  add("self_attn.v_proj.bias", {4});
}

Checkpoint qwen2(int64_t layers) {
  Checkpoint checkpoint(layers);
  checkpoint.type = "qwen2";
  checkpoint.className = "Qwen2ForCausalLM";
  checkpoint.addBiases();
  return checkpoint;
}

Checkpoint qwen3(int64_t layers) {
  Checkpoint checkpoint(layers);
  checkpoint.type = "qwen3";
  checkpoint.className = "Qwen3ForCausalLM";
  checkpoint.add("self_attn.q_norm.weight", {4});
  checkpoint.add("self_attn.k_norm.weight", {4});
  return checkpoint;
}

std::string json(::llvm::json::Object object) {
  return ::llvm::formatv("{0}", ::llvm::json::Value(std::move(object)));
}

std::string Checkpoint::config() const {
  ::llvm::json::Object config{{"architectures", ::llvm::json::Array{className}},
                              {"model_type", type},
                              {"hidden_size", 8},
                              {"intermediate_size", 6},
                              {"num_hidden_layers", layers},
                              {"num_attention_heads", 2},
                              {"num_key_value_heads", 1},
                              {"head_dim", 4},
                              {"vocab_size", 10},
                              {"max_position_embeddings", 32},
                              {"rms_norm_eps", 1e-5},
                              {"rope_theta", 10000.0},
                              {"hidden_act", "silu"},
                              {"tie_word_embeddings", tied},
                              {"torch_dtype", "float32"}};
  for (const auto &[key, value] : fields)
    config[key] = value;
  return json(std::move(config));
}

std::string Checkpoint::safetensors() const {
  ::llvm::json::Object header;
  int64_t end = 0;
  for (const auto &[name, shape] : tensors) {
    int64_t begin = end;
    end += 4 * ShapedType::getNumElements(shape);
    header[name] =
        ::llvm::json::Object{{"dtype", "F32"},
                             {"shape", ::llvm::json::Array(shape)},
                             {"data_offsets", ::llvm::json::Array{begin, end}}};
  }
  std::string text = json(std::move(header));
  uint64_t size = text.size();
  return std::string(reinterpret_cast<const char *>(&size), sizeof(size)) +
         text + std::string(end, '\0');
}

class BuildModelTest : public FileTest {
protected:
  /// The module of `source`; null, with `error`, if there is none.
  OwningOpRef<ModuleOp> importModel(const fs::path &source,
                                    ImportOptions options = {});
  OwningOpRef<ModuleOp> importModel(const Checkpoint &checkpoint,
                                    ImportOptions options = {}) {
    write("config.json", checkpoint.config());
    write("model.safetensors", checkpoint.safetensors());
    return importModel(directory, options);
  }

  MLIRContext context;
  std::string error;
};

OwningOpRef<ModuleOp> BuildModelTest::importModel(const fs::path &source,
                                                  ImportOptions options) {
  auto model = ModelFile::open(source.string());
  if (!model) {
    error = ::llvm::toString(model.takeError());
    return nullptr;
  }
  auto module = buildModel(context, **model, options);
  if (!module) {
    error = ::llvm::toString(module.takeError());
    return nullptr;
  }
  return std::move(*module);
}

func::FuncOp entryOf(ModuleOp module) {
  return module.lookupSymbol<func::FuncOp>("forward");
}

func::FuncOp layerOf(ModuleOp module) {
  return module.lookupSymbol<func::FuncOp>("layer");
}

/// The text of an op, a type or an attribute.
template <typename T>
std::string print(T printable) {
  std::string text;
  ::llvm::raw_string_ostream(text) << printable;
  return text;
}

/// The names in the weight arguments of the entry, those of one argument
/// joined by "+".
std::vector<std::string> weightNames(func::FuncOp entry) {
  std::vector<std::string> result;
  for (unsigned i = 0; i < entry.getNumArguments(); ++i) {
    auto weight =
        entry.getArgAttrOfType<WeightAttr>(i, LLMDialect::kWeightAttr);
    if (!weight)
      continue;
    EXPECT_EQ(weight.getAxis(), 0);
    result.push_back(::llvm::join(
        ::llvm::map_range(weight.getNames(),
                          [](StringAttr name) { return name.getValue(); }),
        "+"));
  }
  return result;
}

int64_t countOps(Operation *op) {
  int64_t count = 0;
  op->walk([&](Operation *) { ++count; });
  return count;
}

} // namespace

TEST_F(BuildModelTest, WeightsKeepTheSourcesNames) {
  OwningOpRef<ModuleOp> module = importModel(Checkpoint(1));
  ASSERT_TRUE(module) << error;
  std::vector<std::string> expected = {
      "model.embed_tokens.weight",
      "model.layers.0.input_layernorm.weight",
      "model.layers.0.self_attn.q_proj.weight+"
      "model.layers.0.self_attn.k_proj.weight+"
      "model.layers.0.self_attn.v_proj.weight",
      "model.layers.0.self_attn.o_proj.weight",
      "model.layers.0.post_attention_layernorm.weight",
      "model.layers.0.mlp.gate_proj.weight+model.layers.0.mlp.up_proj.weight",
      "model.layers.0.mlp.down_proj.weight",
      "model.norm.weight",
      "model.embed_tokens.weight"};
  EXPECT_EQ(weightNames(entryOf(*module)), expected);
}

TEST_F(BuildModelTest, UntiedHeadHasItsOwnWeight) {
  OwningOpRef<ModuleOp> module = importModel(Checkpoint(1, /*tied=*/false));
  ASSERT_TRUE(module) << error;
  EXPECT_EQ(weightNames(entryOf(*module)).back(), "lm_head.weight");
}

TEST_F(BuildModelTest, EntryDescribesItsArguments) {
  OwningOpRef<ModuleOp> module = importModel(Checkpoint(1));
  ASSERT_TRUE(module) << error;
  func::FuncOp entry = entryOf(*module);
  std::string arguments = print(entry.getArgAttrsAttr());
  EXPECT_THAT(
      arguments,
      AllOf(
          HasSubstr(
              R"({llm.below = 10 : i64, llm.dims = ["T"], llm.name = "tokens"})"),
          HasSubstr(R"({llm.dims = ["B"], llm.name = "seq_ids"})"),
          HasSubstr(R"({llm.dims = ["B+1"], llm.name = "cu_seqlens"})"),
          HasSubstr(
              R"({llm.below = "T", llm.dims = ["R"], llm.name = "logit_rows"})"),
          HasSubstr(R"({llm.config = #llm.kv_cache_config<max_seq_len = 32>, )"
                    R"(llm.name = "cache"})")));
  EXPECT_EQ(print(entry.getResAttrsAttr()),
            R"([{llm.dims = ["R", "10"], llm.name = "logits"}, {}])");
}

TEST_F(BuildModelTest, LayersAreCallsOfOneFunction) {
  OwningOpRef<ModuleOp> module = importModel(Checkpoint(3));
  ASSERT_TRUE(module) << error;
  EXPECT_TRUE(layerOf(*module).isPrivate());
  EXPECT_TRUE(layerOf(*module).getNoInline());
  int64_t layer = 0;
  for (auto call : entryOf(*module).getOps<func::CallOp>()) {
    EXPECT_EQ(call.getCallee(), "layer");
    EXPECT_EQ(getConstantIntValue(call.getOperand(4)), layer++);
  }
  EXPECT_EQ(layer, 3);
}

TEST_F(BuildModelTest, LayerCostsTwoOps) {
  OwningOpRef<ModuleOp> two = importModel(Checkpoint(2));
  OwningOpRef<ModuleOp> five = importModel(Checkpoint(5));
  ASSERT_TRUE(two && five) << error;
  EXPECT_EQ(countOps(*five), countOps(*two) + 3 * 2);
}

TEST_F(BuildModelTest, ResidualStreamIsWrittenInPlace) {
  OwningOpRef<ModuleOp> module = importModel(Checkpoint(1));
  ASSERT_TRUE(module) << error;
  func::FuncOp layer = layerOf(*module);
  Value stream = layer.getBody().front().getTerminator()->getOperand(0);
  for (int adds = 0; adds < 2; ++adds) {
    auto add = stream.getDefiningOp<linalg::GenericOp>();
    ASSERT_TRUE(add);
    stream = add.getDpsInits()[0];
  }
  EXPECT_EQ(stream, layer.getArgument(0));
}

TEST_F(BuildModelTest, OptionsChooseElementTypes) {
  ImportOptions options{ElementKind::BF16,
                        {CacheFormat::F32, CacheFormat::F8E4M3FN}};
  OwningOpRef<ModuleOp> module = importModel(Checkpoint(2), options);
  ASSERT_TRUE(module) << error;
  auto types = llvm::map_to_vector(layerOf(*module).getArgumentTypes(),
                                   [](Type type) { return print(type); });
  EXPECT_EQ(types[1], "!llm.paged_kv_cache<2x1x4xf32, "
                      "storage = #llm.kv_storage<v = f8E4M3FN>>");
  EXPECT_EQ(types[5], "tensor<8xf32>") << "norms stay f32";
  EXPECT_EQ(types[6], "tensor<16x8xbf16>");
  EXPECT_EQ(types[10], "tensor<8x6xbf16>");
}

/// A GGUF file of two layers, whose matrices are q4_1 but for those named.
std::string quantizedModel(const std::map<std::string, std::string> &formats) {
  struct Format {
    uint32_t type, bytes;
  };
  const std::map<std::string, Format> known = {
      {"f32", {0, 128}}, {"q4_0", {2, 18}}, {"q4_1", {3, 20}},
      {"q5_0", {6, 22}}, {"q5_1", {7, 24}}, {"q8_0", {8, 34}}};
  GGUFWriter file = smallModel();
  file.set("llama.block_count", 2);
  auto matrix = [&](const std::string &name, int64_t rows, int64_t columns) {
    auto found = formats.find(name);
    Format format = known.at(found == formats.end() ? "q4_1" : found->second);
    file.tensor(name + ".weight", {rows, columns}, format.type,
                std::string(rows * columns / 32 * format.bytes, 'w'));
  };
  for (std::string layer : {"blk.0.", "blk.1."}) {
    for (std::string norm : {"attn_norm", "ffn_norm"})
      file.tensor(layer + norm + ".weight", {32}, 0, std::string(128, 'n'));
    matrix(layer + "attn_q", 32, 32);
    matrix(layer + "attn_k", 16, 32);
    matrix(layer + "attn_v", 16, 32);
    matrix(layer + "attn_output", 32, 32);
    matrix(layer + "ffn_gate", 64, 32);
    matrix(layer + "ffn_up", 64, 32);
    matrix(layer + "ffn_down", 32, 64);
  }
  return file.write();
}

/// The type and the format of each weight of the entry that is a matrix.
std::vector<std::string> matrixTypes(func::FuncOp entry) {
  std::vector<std::string> result;
  for (unsigned i = 0; i < entry.getNumArguments(); ++i) {
    auto weight =
        entry.getArgAttrOfType<WeightAttr>(i, LLMDialect::kWeightAttr);
    auto type = dyn_cast<RankedTensorType>(entry.getArgumentTypes()[i]);
    if (!weight || type.getRank() != 2)
      continue;
    std::string format =
        weight.getFormat() ? stringifyEnum(*weight.getFormat()).str() : "none";
    result.push_back(print(type.getElementType()) + " " + format);
  }
  return result;
}

TEST_F(BuildModelTest, NativeWeightsHaveTheFormatsOfTheFile) {
  write("model.gguf", quantizedModel({}));
  OwningOpRef<ModuleOp> module =
      importModel(directory / "model.gguf", {ElementKind::Native});
  ASSERT_TRUE(module) << error;
  const std::string q41 = "f32 q4_1";
  EXPECT_EQ(matrixTypes(entryOf(*module)),
            (std::vector<std::string>{"bf16 none", q41, q41, q41, q41, q41, q41,
                                      q41, q41, "f32 q8_0"}));
  EXPECT_FALSE(module->lookupSymbol("layer1"));
  module = importModel(directory / "model.gguf", {ElementKind::BF16});
  ASSERT_TRUE(module) << error;
  EXPECT_EQ(matrixTypes(entryOf(*module)),
            std::vector<std::string>(10, "bf16 none"));
}

/// A layer whose weights have other formats is another kind of layer; of f32
/// comes bf16.
TEST_F(BuildModelTest, KindsOfLayersHaveFunctions) {
  write("model.gguf", quantizedModel({{"blk.1.ffn_down", "q4_0"},
                                      {"blk.1.attn_v", "q8_0"},
                                      {"blk.1.attn_output", "f32"}}));
  OwningOpRef<ModuleOp> module =
      importModel(directory / "model.gguf", {ElementKind::Native});
  ASSERT_TRUE(module) << error;
  const std::string q41 = "f32 q4_1";
  EXPECT_EQ(
      matrixTypes(entryOf(*module)),
      (std::vector<std::string>{"bf16 none", q41, q41, q41, q41, "f32 q8_0",
                                "bf16 none", q41, "f32 q4_0", "f32 q8_0"}));
  std::vector<std::string> callees;
  for (auto call : entryOf(*module).getOps<func::CallOp>())
    callees.push_back(call.getCallee().str());
  EXPECT_EQ(callees, (std::vector<std::string>{"layer", "layer1"}));
}

/// Tensors of one argument have the smallest blocks that hold all of them.
TEST_F(BuildModelTest, TensorsOfSeveralFormatsShareBlocks) {
  write("model.gguf", quantizedModel({{"blk.0.attn_q", "q4_0"},
                                      {"blk.0.attn_k", "q4_0"},
                                      {"blk.0.attn_output", "q5_0"},
                                      {"blk.0.ffn_up", "q5_1"},
                                      {"blk.0.ffn_down", "q4_0"},
                                      {"blk.1.attn_k", "f32"}}));
  OwningOpRef<ModuleOp> module =
      importModel(directory / "model.gguf", {ElementKind::Native});
  ASSERT_TRUE(module) << error;
  const std::string q41 = "f32 q4_1", q80 = "f32 q8_0";
  EXPECT_EQ(matrixTypes(entryOf(*module)),
            (std::vector<std::string>{"bf16 none", q41, q80, q80, "f32 q4_0",
                                      "bf16 none", q41, q41, q41, q80}));
}

TEST_F(BuildModelTest, NativeWeightsNeedAQuantizedFile) {
  EXPECT_FALSE(importModel(Checkpoint(1), {ElementKind::Native}));
  EXPECT_THAT(error, HasSubstr("expected quantized weights to hold them as "
                               "they are, got none: take f32 or bf16"));
}

TEST_F(BuildModelTest, OptionsChooseAWindow) {
  ImportOptions options;
  options.window = 512;
  options.sinks = 4;
  OwningOpRef<ModuleOp> module = importModel(Checkpoint(2), options);
  ASSERT_TRUE(module) << error;
  EXPECT_EQ(print(layerOf(*module).getArgumentTypes()[1]),
            "!llm.paged_kv_cache<2x1x4xf16, window = 512, sinks = 4>");
  for (auto [window, sinks] : {std::pair{0, 4}, {-1, 0}, {8, -1}}) {
    options.window = window;
    options.sinks = sinks;
    EXPECT_FALSE(importModel(Checkpoint(1), options));
    EXPECT_EQ(error, "expected a window of at least 0 tokens, and sinks only "
                     "with a window, got " +
                         std::to_string(window) + " and " +
                         std::to_string(sinks));
  }
}

TEST_F(BuildModelTest, TextParsesAndVerifies) {
  OwningOpRef<ModuleOp> module = importModel(Checkpoint(2));
  ASSERT_TRUE(module) << error;
  std::string named;
  ::llvm::raw_string_ostream os(named);
  module->print(os, OpPrintingFlags().printNameLocAsPrefix());
  EXPECT_THAT(named, HasSubstr("%layer1.gate_up: tensor<12x8xf32>"));
  auto parsed = parseSourceString<ModuleOp>(named, &context);
  ASSERT_TRUE(parsed);
  EXPECT_TRUE(succeeded(verify(*parsed)));
  EXPECT_EQ(print(*parsed), print(*module));
}

/// What an error at run time shows as its place.
TEST_F(BuildModelTest, LocationsNameTheParts) {
  OwningOpRef<ModuleOp> module = importModel(Checkpoint(1));
  ASSERT_TRUE(module) << error;
  auto placeOf = [&](auto ops) { return print((*ops.begin()).getLoc()); };
  func::FuncOp entry = entryOf(*module), layer = layerOf(*module);
  EXPECT_EQ(placeOf(entry.getOps<BeginStepOp>()), R"(loc("begin_step"))");
  EXPECT_EQ(placeOf(layer.getOps<AppendKVOp>()), R"(loc("layer.attn"))");
  EXPECT_EQ(placeOf(entry.getOps<linalg::MatmulOp>()), R"(loc("head"))");
}

TEST_F(BuildModelTest, AllWrongTensorsAreListedAtOnce) {
  Checkpoint checkpoint(2);
  checkpoint.tensors.erase("model.norm.weight");
  checkpoint.tensors.erase("model.layers.1.self_attn.k_proj.weight");
  checkpoint.tensors["model.layers.0.mlp.down_proj.weight"] = {6, 8};
  checkpoint.tensors["model.layers.0.self_attn.q_proj.bias"] = {8};
  EXPECT_FALSE(importModel(checkpoint));
  EXPECT_EQ(
      error,
      directory.string() +
          ": the tensors are not those of the configuration\n"
          "  tensor 'model.layers.0.mlp.down_proj.weight' has shape [6, 8], "
          "expected [8, 6]\n"
          "  missing tensor 'model.layers.1.self_attn.k_proj.weight' [4, 8]\n"
          "  missing tensor 'model.norm.weight' [8]\n"
          "  unknown tensor 'model.layers.0.self_attn.q_proj.bias'");
}

/// Concatenated weights have concatenated biases; norms of heads are apart.
TEST_F(BuildModelTest, BiasesAndHeadNormsAreWeightsOfTheirOwn) {
  Checkpoint checkpoint = qwen3(2);
  checkpoint.fields = {{"attention_bias", true}};
  checkpoint.addBiases();
  checkpoint.add("self_attn.o_proj.bias", {8});
  OwningOpRef<ModuleOp> module = importModel(checkpoint, {ElementKind::BF16});
  ASSERT_TRUE(module) << error;
  const std::string attention = "model.layers.1.self_attn.";
  const std::vector<std::string> names = weightNames(entryOf(*module));
  ASSERT_EQ(names.size(), 1u + 2 * 10 + 2);
  EXPECT_EQ(std::vector<std::string>(names.begin() + 13, names.begin() + 18),
            (std::vector<std::string>{
                attention + "q_proj.bias+" + attention + "k_proj.bias+" +
                    attention + "v_proj.bias",
                attention + "q_norm.weight", attention + "k_norm.weight",
                attention + "o_proj.weight", attention + "o_proj.bias"}));
  auto types = llvm::map_to_vector(layerOf(*module).getArgumentTypes(),
                                   [](Type type) { return print(type); });
  EXPECT_EQ(types[6], "tensor<16x8xbf16>");
  EXPECT_EQ(types[7], "tensor<16xf32>") << "biases stay f32";
  EXPECT_EQ(types[8], "tensor<4xf32>");
  EXPECT_EQ(types[11], "tensor<8xf32>");
  std::string named;
  ::llvm::raw_string_ostream os(named);
  module->print(os, OpPrintingFlags().printNameLocAsPrefix());
  EXPECT_THAT(named, AllOf(HasSubstr("%layer1.qkv_bias: tensor<16xf32>"),
                           HasSubstr("%layer1.k_norm: tensor<4xf32>"),
                           HasSubstr("%layer1.o_bias: tensor<8xf32>")));
}

/// The op that `argument` is read by; null unless it is the only one.
linalg::GenericOp readerOf(Value argument) {
  if (!argument.hasOneUse())
    return nullptr;
  return dyn_cast<linalg::GenericOp>(*argument.user_begin());
}

TEST_F(BuildModelTest, BiasesAreAddedInPlaceToProducts) {
  Checkpoint checkpoint(1);
  checkpoint.fields = {{"attention_bias", true}};
  checkpoint.addBiases();
  checkpoint.add("self_attn.o_proj.bias", {8});
  OwningOpRef<ModuleOp> module = importModel(checkpoint);
  ASSERT_TRUE(module) << error;
  func::FuncOp layer = layerOf(*module);
  for (auto [weight, bias] : {std::pair{6, 7}, {8, 9}}) {
    linalg::GenericOp add = readerOf(layer.getArgument(bias));
    ASSERT_TRUE(add);
    auto product = add.getDpsInits()[0].getDefiningOp<linalg::MatmulOp>();
    ASSERT_TRUE(product);
    EXPECT_EQ(product.getDpsInputs()[1], layer.getArgument(weight));
  }
}

TEST_F(BuildModelTest, HeadsAreNormedBeforeTheyRotate) {
  OwningOpRef<ModuleOp> module = importModel(qwen3(1));
  ASSERT_TRUE(module) << error;
  func::FuncOp layer = layerOf(*module);
  auto ropes = llvm::to_vector(layer.getOps<RopeOp>());
  ASSERT_EQ(ropes.size(), 2u);
  for (auto [rope, weight, type] :
       {std::tuple{ropes[0], 7, "tensor<?x2x4xf32>"},
        {ropes[1], 8, "tensor<?x1x4xf32>"}}) {
    linalg::GenericOp norm = readerOf(layer.getArgument(weight));
    ASSERT_TRUE(norm);
    EXPECT_EQ(rope.getInput().getDefiningOp(), norm.getOperation());
    EXPECT_EQ(print(norm.getDpsInputs()[0].getType()), type);
    EXPECT_EQ(print(norm.getDpsInputs()[1].getType()),
              std::string(type).substr(0, 10) + "xf32>")
        << "a scale of each head";
    EXPECT_EQ(rope.getPairing(), RopePairing::Half);
  }
}

/// What a model type lacks in one file, and has too much in another.
TEST_F(BuildModelTest, BiasesAndNormsOfHeadsMustBeThere) {
  Checkpoint checkpoint = qwen2(2);
  checkpoint.tensors.erase("model.layers.1.self_attn.k_proj.bias");
  checkpoint.tensors["model.layers.0.self_attn.v_proj.bias"] = {5};
  checkpoint.tensors["model.layers.0.self_attn.o_proj.bias"] = {8};
  checkpoint.tensors["model.layers.1.self_attn.q_norm.weight"] = {4};
  EXPECT_FALSE(importModel(checkpoint));
  EXPECT_THAT(
      error,
      HasSubstr(
          "configuration\n"
          "  tensor 'model.layers.0.self_attn.v_proj.bias' has shape [5], "
          "expected [4]\n"
          "  missing tensor 'model.layers.1.self_attn.k_proj.bias' [4]\n"
          "  unknown tensor 'model.layers.0.self_attn.o_proj.bias'\n"
          "  unknown tensor 'model.layers.1.self_attn.q_norm.weight'"));

  checkpoint = qwen3(2);
  checkpoint.tensors.erase("model.layers.0.self_attn.q_norm.weight");
  checkpoint.tensors["model.layers.1.self_attn.k_norm.weight"] = {8};
  EXPECT_FALSE(importModel(checkpoint));
  EXPECT_THAT(
      error,
      HasSubstr("configuration\n"
                "  missing tensor 'model.layers.0.self_attn.q_norm.weight' "
                "[4]\n"
                "  tensor 'model.layers.1.self_attn.k_norm.weight' has shape "
                "[8], expected [4]"));
  EXPECT_TRUE(importModel(qwen2(2))) << error;
}

/// One bias in a GGUF file asks for those of all layers.
TEST_F(BuildModelTest, BiasesOfGGUFAreInAllLayersOrNone) {
  GGUFWriter file = smallModel();
  file.tensor("blk.0.attn_k.bias", {16}, 0, std::string(64, 'b'));
  write("model.gguf", file.write());
  EXPECT_FALSE(importModel(directory / "model.gguf"));
  EXPECT_THAT(error, AllOf(HasSubstr("missing tensor 'blk.0.attn_q.bias' [32]"),
                           HasSubstr("missing tensor 'blk.0.attn_v.bias' [16]"),
                           ::testing::Not(HasSubstr("attn_k.bias")),
                           ::testing::Not(HasSubstr("attn_output.bias"))));
}

TEST_F(BuildModelTest, IgnoredTensorsAreNotUnknown) {
  Checkpoint checkpoint(1);
  checkpoint.tensors["lm_head.weight"] = {10, 8};
  checkpoint.tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = {2};
  EXPECT_TRUE(importModel(checkpoint)) << error;
}

/// What no text can say.
TEST(WeightAttrTest, NeedsAName) {
  MLIRContext context;
  context.loadDialect<LLMDialect>();
  std::string error;
  ScopedDiagnosticHandler handler(
      &context, [&](Diagnostic &diagnostic) { error = diagnostic.str(); });
  auto refuse = [&] { return emitError(UnknownLoc::get(&context)); };
  EXPECT_FALSE(
      WeightAttr::getChecked(refuse, &context, {}, 0, 0, std::nullopt));
  EXPECT_EQ(error, "expected at least one tensor name");
}

TEST_F(BuildModelTest, Stories260K) {
  fs::path source = sharedFiles() / "models/stories260K";
  if (!fs::exists(source))
    GTEST_SKIP() << source << " is absent; set LLM_SHARED";
  OwningOpRef<ModuleOp> module = importModel(source);
  ASSERT_TRUE(module) << error;
  func::FuncOp entry = entryOf(*module);
  EXPECT_EQ(print(entry.getArgumentTypes()[4]),
            "!llm.paged_kv_cache<5x4x8xf16>");
  EXPECT_EQ(weightNames(entry).size(), 1u + 5 * 6 + 2);
  RopeOp rope = *layerOf(*module).getOps<RopeOp>().begin();
  EXPECT_EQ(rope.getPairing(), RopePairing::Half);
  auto tables = entry.getOps<RopeTableOp>();
  ASSERT_EQ(std::distance(tables.begin(), tables.end()), 1);
  EXPECT_EQ((*tables.begin()).getInvFreq(),
            ArrayRef<float>({1.0f, 0.1f, 0.01f, 0.001f}));
}
