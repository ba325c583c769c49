//===- BuildModel.cpp - A model file as an MLIR module --------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Import/BuildModel.h"

#include "BuildModelOps.h"
#include "BuildModelWeights.h"
#include "ImportError.h"

#include "llm/IR/LLM.h"
#include "llm/Import/ModelFile.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Verifier.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/xxhash.h"

#include <cmath>

using namespace mlir;
using namespace mlir::llm;

namespace {

struct Argument {
  std::string name;
  Type type;
};

/// The residual stream and the cache, as they pass from layer to layer.
struct State {
  Value stream, cache;
};

/// What all layers share of a step.
struct StepValues {
  Value step, angles;
};

/// Those of a layer by their roles.
using LayerWeights = llvm::StringMap<Value>;

class ModelBuilder {
public:
  ModelBuilder(ModuleOp module, const ModelFile &model,
               ArrayRef<WeightArgument> weights, const ImportOptions &options);

  void buildLayers();
  void buildEntry();

private:
  Type typeOf(CacheFormat format);
  KVStorageAttr storageOf(const CacheFormats &formats);
  std::optional<WeightFormat> formatOf(const WeightArgument &weight);
  RankedTensorType typeOf(const WeightArgument &weight);
  func::FuncOp createFunction(StringRef name, ArrayRef<Argument> arguments,
                              TypeRange results);

  func::FuncOp buildLayer(StringRef name, ArrayRef<WeightArgument> weights);

  // The parts of @layer; `weights` are all of the layer's.
  void attention(ActivationBuilder &b, State &state, StepValues values,
                 Value layer, const LayerWeights &weights);
  Value project(ActivationBuilder &b, Value x, const LayerWeights &weights,
                StringRef role);
  Value rotate(ActivationBuilder &b, Value heads, Value angles, Value norm);
  Value attend(ActivationBuilder &b, Value queries, Value cache, Value at);
  void feedForward(ActivationBuilder &b, State &state,
                   const LayerWeights &weights);

  // The parts of @forward; `weights` are all of the model's.
  std::string entryWeightName(size_t number);
  void annotateEntry();
  void nameInput(unsigned argument, StringRef name, StringRef dimension);
  WeightAttr namesOf(const WeightArgument &weight);
  StepValues beginStep(ActivationBuilder &b, State &state);
  SmallVector<Value> layerNumbers(ActivationBuilder &b);
  void callLayers(ActivationBuilder &b, State &state, StepValues values,
                  ArrayRef<Value> numbers, ValueRange weights);
  Value logits(ActivationBuilder &b, Value stream, ValueRange weights);

  const ModelFile &model;
  const ModelConfig &config;
  RopePairing ropePairing;
  ArrayRef<WeightArgument> weights;
  OpBuilder builder;
  Type weightType;
  bool native;
  RankedTensorType idsType, anglesType, streamType;
  PagedKVCacheType cacheType;
  SmallVector<func::FuncOp> layers; ///< that of each layer
  func::FuncOp entry;
};

/// Arguments of @layer and @forward; weights follow.
enum LayerArgument { Stream, Cache, Step, Angles, Layer, NumLayerArguments };
enum EntryArgument {
  Tokens,
  SeqIds,
  CuSeqlens,
  LogitRows,
  EntryCache,
  NumEntryArguments
};

} // namespace

//===----------------------------------------------------------------------===//
// Types and functions
//===----------------------------------------------------------------------===//

ModelBuilder::ModelBuilder(ModuleOp module, const ModelFile &model,
                           ArrayRef<WeightArgument> weights,
                           const ImportOptions &options)
    : model(model), config(model.config()),
      ropePairing(config.adjacentRope ? RopePairing::Adjacent
                                      : RopePairing::Half),
      weights(weights), builder(module.getBodyRegion()),
      native(options.weights == ElementKind::Native) {
  constexpr int64_t dynamic = ShapedType::kDynamic;
  weightType = options.weights == ElementKind::F32 ? Type(builder.getF32Type())
                                                   : builder.getBF16Type();
  idsType = RankedTensorType::get({dynamic}, builder.getI32Type());
  anglesType =
      RankedTensorType::get({dynamic, config.headDim}, builder.getF32Type());
  streamType =
      RankedTensorType::get({dynamic, config.hidden}, builder.getF32Type());
  cacheType = PagedKVCacheType::get(
      typeOf(options.cache.elementType()), config.layers, config.kvHeads,
      config.headDim, dynamic, dynamic, dynamic, options.window, options.sinks,
      storageOf(options.cache));
}

Type ModelBuilder::typeOf(CacheFormat format) {
  switch (format) {
  case CacheFormat::F32:
    return builder.getF32Type();
  case CacheFormat::F16:
    return builder.getF16Type();
  case CacheFormat::BF16:
    return builder.getBF16Type();
  case CacheFormat::F8E4M3FN:
    return builder.getType<Float8E4M3FNType>();
  case CacheFormat::I8:
    return builder.getI8Type();
  case CacheFormat::I4:
    return builder.getIntegerType(4);
  }
  llvm_unreachable("unknown cache format");
}

/// Null if neither K nor V is quantized.
KVStorageAttr ModelBuilder::storageOf(const CacheFormats &formats) {
  auto format = [&](CacheFormat of) {
    return isQuantized(of) ? typeOf(of) : Type();
  };
  Type k = format(formats.k), v = format(formats.v);
  if (!k && !v)
    return {};
  return KVStorageAttr::get(builder.getContext(), k, v, KVScale::TokenHead);
}

/// Of the blocks that the argument shall hold, if it shall.
std::optional<WeightFormat>
ModelBuilder::formatOf(const WeightArgument &weight) {
  return native && weight.isLinear() ? weight.format(model) : std::nullopt;
}

RankedTensorType ModelBuilder::typeOf(const WeightArgument &weight) {
  bool isF32 = weight.isVector() || formatOf(weight).has_value();
  Type element = isF32 ? builder.getF32Type() : weightType;
  return RankedTensorType::get(weight.shape(), element);
}

func::FuncOp ModelBuilder::createFunction(StringRef name,
                                          ArrayRef<Argument> arguments,
                                          TypeRange results) {
  auto nameLoc = [&](StringRef name) {
    return NameLoc::get(builder.getStringAttr(name));
  };
  auto types = llvm::map_to_vector(
      arguments, [](const Argument &argument) { return argument.type; });
  auto function = func::FuncOp::create(builder, nameLoc(name), name,
                                       builder.getFunctionType(types, results));
  function.addEntryBlock();
  for (auto [value, argument] :
       llvm::zip_equal(function.getArguments(), arguments))
    value.setLoc(nameLoc(argument.name));
  return function;
}

//===----------------------------------------------------------------------===//
// @layer
//===----------------------------------------------------------------------===//

/// One function for all layers whose weights have the same formats.
void ModelBuilder::buildLayers() {
  std::vector<SmallVector<std::optional<WeightFormat>>> kinds;
  SmallVector<func::FuncOp> functions;
  for (int64_t i = 0; i < config.layers; ++i) {
    ArrayRef<WeightArgument> layerWeights =
        weightsOfLayer(weights, i, config.layers);
    auto formats =
        llvm::map_to_vector(layerWeights, [&](const WeightArgument &weight) {
          return formatOf(weight);
        });
    size_t kind = llvm::find(kinds, formats) - kinds.begin();
    if (kind == kinds.size()) {
      kinds.push_back(formats);
      std::string name = kind ? "layer" + std::to_string(kind) : "layer";
      functions.push_back(buildLayer(name, layerWeights));
    }
    layers.push_back(functions[kind]);
  }
}

func::FuncOp ModelBuilder::buildLayer(StringRef name,
                                      ArrayRef<WeightArgument> weights) {
  SmallVector<Argument> arguments = {{"x", streamType},
                                     {"cache", cacheType},
                                     {"step", builder.getType<KVStepType>()},
                                     {"rope_table", anglesType},
                                     {"layer", builder.getIndexType()}};
  for (const WeightArgument &weight : weights)
    arguments.push_back({weight.role.str(), typeOf(weight)});
  func::FuncOp layer = createFunction(name, arguments, {streamType, cacheType});
  layer.setPrivate();
  layer.setNoInline(true);

  ValueRange values = layer.getArguments();
  LayerWeights layerWeights;
  for (auto [weight, value] :
       llvm::zip_equal(weights, values.drop_front(NumLayerArguments)))
    layerWeights[weight.role] = value;
  ActivationBuilder b(layer);
  State state{values[Stream], values[Cache]};
  b.setRowsOf(state.stream);
  attention(b, state, {values[Step], values[Angles]}, values[Layer],
            layerWeights);
  feedForward(b, state, layerWeights);
  func::ReturnOp::create(b, {state.stream, state.cache});
  return layer;
}

void ModelBuilder::attention(ActivationBuilder &b, State &state,
                             StepValues values, Value layer,
                             const LayerWeights &weights) {
  b.setPlace("layer.attn");
  int64_t headDim = config.headDim, kvHeads = config.kvHeads;
  int64_t firstKey = config.heads * headDim;
  int64_t firstValue = firstKey + kvHeads * headDim;

  Value normed =
      b.rmsNorm(state.stream, weights.at("attn_norm"), config.normEpsilon);
  Value qkv = project(b, normed, weights, "qkv");
  Value q = b.heads(qkv, 0, config.heads, headDim);
  Value k = b.heads(qkv, firstKey, kvHeads, headDim);
  Value v = b.heads(qkv, firstValue, kvHeads, headDim);
  q = rotate(b, q, values.angles, weights.lookup("q_norm"));
  k = rotate(b, k, values.angles, weights.lookup("k_norm"));

  Value at = AtLayerOp::create(b, values.step, layer);
  state.cache = AppendKVOp::create(b, cacheType, state.cache, k, v, at,
                                   /*extra_names=*/nullptr,
                                   /*pairing=*/nullptr, /*block_size=*/nullptr,
                                   /*max_seq_len=*/nullptr)
                    .getResult();
  Value mixed = b.joinHeads(attend(b, q, state.cache, at));
  state.stream = b.addTo(state.stream, project(b, mixed, weights, "o"));
}

/// With the bias of the role, where the model has one.
Value ModelBuilder::project(ActivationBuilder &b, Value x,
                            const LayerWeights &weights, StringRef role) {
  Value result = b.linear(x, weights.at(role));
  Value bias = weights.lookup((role + "_bias").str());
  return bias ? b.addToRows(result, bias) : result;
}

/// Each head normed by `norm`, where the model has one, and rotated.
Value ModelBuilder::rotate(ActivationBuilder &b, Value heads, Value angles,
                           Value norm) {
  if (norm)
    heads = b.rmsNorm(heads, norm, config.normEpsilon);
  return RopeOp::create(b, heads, angles, ropePairing);
}

Value ModelBuilder::attend(ActivationBuilder &b, Value queries, Value cache,
                           Value at) {
  Attribute step = ExtraAttr::get(b.getContext(), Extra::Step);
  double scale = 1.0 / std::sqrt(double(config.headDim));
  return PagedAttentionOp::create(b, queries.getType(), /*lse=*/Type(), queries,
                                  cache, at, b.getArrayAttr(step),
                                  /*num_heads=*/nullptr, /*head_dim=*/nullptr,
                                  b.getF32FloatAttr(scale),
                                  /*softcap=*/nullptr, /*window=*/nullptr)
      .getOutput();
}

void ModelBuilder::feedForward(ActivationBuilder &b, State &state,
                               const LayerWeights &weights) {
  b.setPlace("layer.ffn");
  Value normed =
      b.rmsNorm(state.stream, weights.at("ffn_norm"), config.normEpsilon);
  Value inner = b.gatedSilu(b.linear(normed, weights.at("gate_up")));
  state.stream = b.addTo(state.stream, b.linear(inner, weights.at("down")));
}

//===----------------------------------------------------------------------===//
// @forward
//===----------------------------------------------------------------------===//

void ModelBuilder::buildEntry() {
  SmallVector<Argument> arguments = {{"tokens", idsType},
                                     {"seq_ids", idsType},
                                     {"cu_seqlens", idsType},
                                     {"logit_rows", idsType},
                                     {"cache", cacheType}};
  for (auto [i, weight] : llvm::enumerate(weights))
    arguments.push_back({entryWeightName(i), typeOf(weight)});
  auto logitsType = RankedTensorType::get({ShapedType::kDynamic, config.vocab},
                                          builder.getF32Type());
  entry = createFunction("forward", arguments, {logitsType, cacheType});
  annotateEntry();

  ValueRange values = entry.getArguments();
  ValueRange modelWeights = values.drop_front(NumEntryArguments);
  ActivationBuilder b(entry);
  SmallVector<Value> numbers = layerNumbers(b);
  State state{Value(), values[EntryCache]};
  StepValues step = beginStep(b, state);
  b.setPlace("embed");
  state.stream = b.gatherRows(modelWeights.front(), values[Tokens]);
  callLayers(b, state, step, numbers, modelWeights);
  Value result = logits(b, state.stream, modelWeights);
  func::ReturnOp::create(b, {result, state.cache});
}

std::string ModelBuilder::entryWeightName(size_t number) {
  StringRef role = weights[number].role;
  if (number == 0 || number + 2 >= weights.size())
    return role.str();
  int64_t count = weightsPerLayer(weights.size(), config.layers);
  return llvm::formatv("layer{0}.{1}", (number - 1) / count, role);
}

void ModelBuilder::annotateEntry() {
  nameInput(Tokens, "tokens", "T");
  nameInput(SeqIds, "seq_ids", "B");
  nameInput(CuSeqlens, "cu_seqlens", "B+1");
  nameInput(LogitRows, "logit_rows", "R");
  auto context = KVCacheConfigAttr::get(builder.getContext(), /*block_size=*/0,
                                        config.context, /*max_sequences=*/0,
                                        KVStrategy::Paged);
  StringAttr logits = builder.getStringAttr("logits");
  ArrayAttr logitDims =
      builder.getStrArrayAttr({"R", std::to_string(config.vocab)});

  entry.setArgAttr(Tokens, LLMDialect::kBelowAttr,
                   builder.getI64IntegerAttr(config.vocab));
  entry.setArgAttr(LogitRows, LLMDialect::kBelowAttr,
                   builder.getStringAttr("T"));
  entry.setArgAttr(EntryCache, LLMDialect::kNameAttr,
                   builder.getStringAttr("cache"));
  entry.setArgAttr(EntryCache, LLMDialect::kConfigAttr, context);
  entry.setResultAttr(0, LLMDialect::kNameAttr, logits);
  entry.setResultAttr(0, LLMDialect::kDimsAttr, logitDims);
  for (auto [i, weight] : llvm::enumerate(weights))
    entry.setArgAttr(NumEntryArguments + i, LLMDialect::kWeightAttr,
                     namesOf(weight));
}

void ModelBuilder::nameInput(unsigned argument, StringRef name,
                             StringRef dimension) {
  entry.setArgAttr(argument, LLMDialect::kNameAttr,
                   builder.getStringAttr(name));
  entry.setArgAttr(argument, LLMDialect::kDimsAttr,
                   builder.getStrArrayAttr(dimension));
}

WeightAttr ModelBuilder::namesOf(const WeightArgument &weight) {
  auto names =
      llvm::map_to_vector(weight.tensors, [&](const ExpectedTensor &tensor) {
        return builder.getStringAttr(tensor.name);
      });
  return WeightAttr::get(builder.getContext(), names, /*axis=*/0,
                         /*panel_rows=*/0, formatOf(weight));
}

StepValues ModelBuilder::beginStep(ActivationBuilder &b, State &state) {
  b.setPlace("begin_step");
  ValueRange values = entry.getArguments();
  auto begin =
      BeginStepOp::create(b, cacheType, b.getType<KVStepType>(), state.cache,
                          values[SeqIds], values[CuSeqlens]);
  Value positions = PositionsOp::create(b, idsType, begin.getStep());
  // RoPE reads a position for each token.
  CheckSizeOp::create(b, b.sizeOf(values[Tokens]), b.sizeOf(positions),
                      "tokens, against the end of cu_seqlens");
  state.cache = begin.getResult();
  Value angles = RopeTableOp::create(b, anglesType, positions,
                                     config.ropeInverseFrequencies);
  return {begin.getStep(), angles};
}

SmallVector<Value> ModelBuilder::layerNumbers(ActivationBuilder &b) {
  return llvm::map_to_vector(llvm::seq(config.layers), [&](int64_t i) -> Value {
    return arith::ConstantIndexOp::create(b, i);
  });
}

void ModelBuilder::callLayers(ActivationBuilder &b, State &state,
                              StepValues values, ArrayRef<Value> numbers,
                              ValueRange weights) {
  b.setPlace("layers");
  for (auto [i, number] : llvm::enumerate(numbers)) {
    SmallVector<Value> arguments = {state.stream, state.cache, values.step,
                                    values.angles, number};
    llvm::append_range(arguments, weightsOfLayer(weights, i, config.layers));
    auto call = func::CallOp::create(b, layers[i], arguments);
    state = {call.getResult(0), call.getResult(1)};
  }
}

Value ModelBuilder::logits(ActivationBuilder &b, Value stream,
                           ValueRange weights) {
  b.setPlace("head");
  Value rows = b.gatherRows(stream, entry.getArgument(LogitRows));
  Value normed =
      b.rmsNorm(rows, weights[weights.size() - 2], config.normEpsilon);
  return b.linear(normed, weights.back());
}

//===----------------------------------------------------------------------===//
// The module
//===----------------------------------------------------------------------===//

/// A number that stands for all of them.
static std::string digestOf(ArrayRef<float> numbers) {
  ArrayRef<uint8_t> bytes(reinterpret_cast<const uint8_t *>(numbers.data()),
                          numbers.size() * sizeof(float));
  return llvm::utohexstr(llvm::xxh3_64bits(bytes));
}

std::string mlir::llm::metadataOf(const ModelConfig &config) {
  llvm::json::Object object{
      {"family", config.family},
      {"vocab", config.vocab},
      {"context", config.context},
      {"layers", config.layers},
      {"hidden", config.hidden},
      {"heads", config.heads},
      {"kv_heads", config.kvHeads},
      {"head_dim", config.headDim},
      {"ffn", config.ffn},
      {"norm_epsilon", config.normEpsilon},
      {"rope_adjacent", config.adjacentRope},
      {"rope_frequencies", digestOf(config.ropeInverseFrequencies)}};
  return llvm::formatv("{0}", llvm::json::Value(std::move(object)));
}

static OwningOpRef<ModuleOp> createModule(MLIRContext &context,
                                          const ModelConfig &config) {
  context.loadDialect<LLMDialect, arith::ArithDialect, func::FuncDialect,
                      linalg::LinalgDialect, math::MathDialect,
                      tensor::TensorDialect>();
  auto name = StringAttr::get(&context, config.family);
  OwningOpRef<ModuleOp> module =
      ModuleOp::create(NameLoc::get(name), name.getValue());
  (*module)->setAttr(LLMDialect::kMetadataAttr,
                     StringAttr::get(&context, metadataOf(config)));
  return module;
}

static llvm::Error checkOptions(const ImportOptions &options) {
  const auto [window, sinks] = std::pair(options.window, options.sinks);
  if (window >= 0 && sinks >= 0 && (window || !sinks))
    return llvm::Error::success();
  return llvm::createStringError(
      llvm::formatv("expected a window of at least 0 tokens, and sinks only "
                    "with a window, got {0} and {1}",
                    window, sinks));
}

bool mlir::llm::hasQuantizedWeights(const ModelFile &model) {
  return llvm::any_of(listWeights(model), [&](const WeightArgument &weight) {
    return weight.isLinear() && weight.format(model);
  });
}

llvm::Expected<OwningOpRef<ModuleOp>>
mlir::llm::buildModel(MLIRContext &context, const ModelFile &model,
                      const ImportOptions &options) {
  const ModelConfig &config = model.config();
  if (llvm::Error error = checkOptions(options))
    return error;
  std::vector<WeightArgument> weights = listWeights(model);
  if (llvm::Error error = checkWeights(model, weights))
    return error;
  if (options.weights == ElementKind::Native && !hasQuantizedWeights(model))
    return importError(model.path(),
                       "expected quantized weights to hold them as they are, "
                       "got none: take f32 or bf16");

  OwningOpRef<ModuleOp> module = createModule(context, config);
  ModelBuilder builder(*module, model, weights, options);
  builder.buildLayers();
  builder.buildEntry();
  if (failed(verify(*module)))
    return llvm::createStringError("the imported module does not verify");
  return module;
}
