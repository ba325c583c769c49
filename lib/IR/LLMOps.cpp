//===- LLMOps.cpp - Operations of the llm dialect ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/IR/LLM.h"

#include "mlir/IR/Builders.h"

using namespace mlir;
using namespace mlir::llm;

void LLMDialect::registerOperations() {
  addOperations<
#define GET_OP_LIST
#include "llm/IR/LLMOps.cpp.inc"
      >();
}

//===----------------------------------------------------------------------===//
// Effects
//===----------------------------------------------------------------------===//

void mlir::llm::detail::getCacheEffects(
    Operation *op, SmallVectorImpl<MemoryEffects::EffectInstance> &effects) {
  auto cacheOp = cast<KVCacheInterface>(op);
  if (!cacheOp.isHandleForm())
    return;
  OpOperand &cache = cacheOp.getCacheOperand();
  effects.emplace_back(MemoryEffects::Read::get(), &cache);
  if (cacheOp.isConsuming())
    effects.emplace_back(MemoryEffects::Write::get(), &cache);
}

void CreateKVCacheOp::getEffects(
    SmallVectorImpl<MemoryEffects::EffectInstance> &effects) {
  effects.emplace_back(MemoryEffects::Allocate::get(),
                       cast<OpResult>(getResult()));
}

void SnapshotKVOp::getEffects(
    SmallVectorImpl<MemoryEffects::EffectInstance> &effects) {
  detail::getCacheEffects(getOperation(), effects);
  if (isHandleForm())
    effects.emplace_back(MemoryEffects::Allocate::get(),
                         cast<OpResult>(getResult()));
}

void KVStatsOp::getEffects(
    SmallVectorImpl<MemoryEffects::EffectInstance> &effects) {
  effects.emplace_back(MemoryEffects::Read::get(), &getCacheMutable());
}

//===----------------------------------------------------------------------===//
// What several verifiers ask
//===----------------------------------------------------------------------===//

/// The cache type behind a value or a handle.
static PagedKVCacheType getCacheType(Type type) {
  if (auto handle = dyn_cast<KVHandleType>(type))
    return handle.getCache();
  return cast<PagedKVCacheType>(type);
}

/// `actual` against what the type says, where it says something.
static LogicalResult verifyNumber(Operation *op, StringRef name,
                                  int64_t expected, int64_t actual) {
  if (ShapedType::isDynamic(expected) || ShapedType::isDynamic(actual) ||
      expected == actual)
    return success();
  return op->emitOpError() << "expected " << name
                           << " to match the cache type's " << expected
                           << ", got " << actual;
}

static LogicalResult verifyNumber(Operation *op, StringRef name,
                                  int64_t expected,
                                  std::optional<uint32_t> actual) {
  return actual ? verifyNumber(op, name, expected,
                               int64_t(static_cast<int32_t>(*actual)))
                : success();
}

/// Value form: the result has the cache's type. Handle form: no result.
static LogicalResult verifyConsuming(KVCacheInterface op) {
  Type cache = op.getCacheOperand().get().getType();
  Value result = op.getResultCache();
  if (op.isHandleForm() && result)
    return op.emitOpError("expected no cache result in handle form");
  if (!op.isHandleForm() && !result)
    return op.emitOpError("expected the next version as a result");
  if (result && result.getType() != cache)
    return op.emitOpError() << "expected the next version to have type "
                            << cache << ", got " << result.getType();
  return success();
}

/// Ragged `[T, H, D]` under a step, padded `[B, S, H, D]` without one.
static LogicalResult verifyRank(Operation *op, StringRef name, Value tensor,
                                bool ragged) {
  int64_t expected = ragged ? 3 : 4;
  int64_t actual = cast<RankedTensorType>(tensor.getType()).getRank();
  if (actual == expected)
    return success();
  return op->emitOpError() << "expected " << name << " to have rank "
                           << expected << (ragged ? " with" : " without")
                           << " a step, got " << actual;
}

static LogicalResult verifySingleLayer(Operation *op, PagedKVCacheType cache) {
  if (ShapedType::isDynamic(cache.getLayers()) || cache.getLayers() == 1)
    return success();
  return op->emitOpError() << "needs a step: without one the cache must have 1 "
                              "layer, its type has "
                           << cache.getLayers();
}

static LogicalResult verifySameLength(Operation *op, StringRef lhsName,
                                      Value lhs, StringRef rhsName, Value rhs,
                                      int64_t more = 0) {
  int64_t l = cast<ShapedType>(lhs.getType()).getDimSize(0);
  int64_t r = cast<ShapedType>(rhs.getType()).getDimSize(0);
  if (ShapedType::isDynamic(l) || ShapedType::isDynamic(r) || l == r - more)
    return success();
  return op->emitOpError() << "expected " << rhsName << " to have "
                           << uint64_t(l) + more << " elements for " << l << " "
                           << lhsName << ", got " << r;
}

//===----------------------------------------------------------------------===//
// Extras
//===----------------------------------------------------------------------===//

/// A single unnamed extra is known by its type.
static Extra getExtraKind(Type type) {
  return isa<KVStepType>(type) ? Extra::Step : Extra::BlockIndices;
}

static Value findExtra(OperandRange extras, std::optional<ArrayAttr> names,
                       Extra wanted) {
  for (auto [index, value] : llvm::enumerate(extras)) {
    Extra kind = names ? cast<ExtraAttr>((*names)[index]).getValue()
                       : getExtraKind(value.getType());
    if (kind == wanted)
      return value;
  }
  return {};
}

Value AppendKVOp::getExtra(Extra extra) {
  return findExtra(getExtras(), getExtraNames(), extra);
}

Value PagedAttentionOp::getExtra(Extra extra) {
  return findExtra(getExtras(), getExtraNames(), extra);
}

Value LookupKVOp::getExtra(Extra extra) {
  return findExtra(getExtras(), getExtraNames(), extra);
}

static const char *getExpectedExtra(Extra kind) {
  switch (kind) {
  case Extra::Step:
    return "a KV step";
  case Extra::BlockIndices:
    return "a rank 2 tensor of i32";
  case Extra::Alibi:
  case Extra::HeadSink:
    return "a rank 1 tensor of f32";
  case Extra::SinkQuery:
    return "a ranked tensor";
  case Extra::RopeTable:
    return "a rank 2 tensor of f32";
  }
  llvm_unreachable("unknown optional operand");
}

static bool isExpectedExtra(Extra kind, Type type) {
  if (kind == Extra::Step)
    return isa<KVStepType>(type);
  auto tensor = dyn_cast<RankedTensorType>(type);
  if (!tensor || kind == Extra::SinkQuery)
    return bool(tensor);
  if (kind == Extra::BlockIndices)
    return tensor.getRank() == 2 && tensor.getElementType().isInteger(32);
  int64_t rank = kind == Extra::RopeTable ? 2 : 1;
  return tensor.getRank() == rank && tensor.getElementType().isF32();
}

static LogicalResult verifyExtras(Operation *op, OperandRange extras,
                                  std::optional<ArrayAttr> names) {
  if (!names && extras.size() > 1)
    return op->emitOpError() << "expected extra_names for " << extras.size()
                             << " optional operands";
  if (names && names->size() != extras.size())
    return op->emitOpError() << "expected " << extras.size()
                             << " extra_names, got " << names->size();
  llvm::SmallDenseSet<uint32_t> seen;
  for (auto [index, value] : llvm::enumerate(extras)) {
    Extra kind = names ? cast<ExtraAttr>((*names)[index]).getValue()
                       : getExtraKind(value.getType());
    if (!seen.insert(uint32_t(kind)).second)
      return op->emitOpError()
             << "optional operand '" << stringifyExtra(kind) << "' given twice";
    if (!isExpectedExtra(kind, value.getType()))
      return op->emitOpError()
             << "expected optional operand '" << stringifyExtra(kind)
             << "' to be " << getExpectedExtra(kind) << ", got "
             << value.getType();
  }
  return success();
}

template <typename OpT>
static LogicalResult verifyTakesNone(OpT op, ArrayRef<Extra> kinds) {
  for (Extra kind : kinds)
    if (op.getExtra(kind))
      return op.emitOpError()
             << "takes no optional operand '" << stringifyExtra(kind) << "'";
  return success();
}

/// Optional operands that are tensors, as they are written.
static constexpr std::pair<StringLiteral, Extra> tensorExtras[] = {
    {"blocks", Extra::BlockIndices},
    {"alibi", Extra::Alibi},
    {"head_sink", Extra::HeadSink},
    {"sink_query", Extra::SinkQuery},
    {"rope_table", Extra::RopeTable}};

static bool isKnownByType(Attribute name) {
  Extra kind = cast<ExtraAttr>(name).getValue();
  return kind == Extra::Step || kind == Extra::BlockIndices;
}

static ParseResult
parseExtras(OpAsmParser &parser,
            SmallVectorImpl<OpAsmParser::UnresolvedOperand> &extras,
            SmallVectorImpl<Type> &types, ArrayAttr &names) {
  MLIRContext *context = parser.getContext();
  SmallVector<Attribute> kinds;
  if (succeeded(parser.parseOptionalKeyword("at"))) {
    if (parser.parseOperand(extras.emplace_back()))
      return failure();
    types.push_back(KVStepType::get(context));
    kinds.push_back(ExtraAttr::get(context, Extra::Step));
  }
  for (auto [keyword, kind] : tensorExtras) {
    if (failed(parser.parseOptionalKeyword(keyword)))
      continue;
    if (parser.parseLParen() || parser.parseOperand(extras.emplace_back()) ||
        parser.parseColonType(types.emplace_back()) || parser.parseRParen())
      return failure();
    kinds.push_back(ExtraAttr::get(context, kind));
  }
  if (kinds.size() > 1 || (!kinds.empty() && !isKnownByType(kinds.front())))
    names = ArrayAttr::get(context, kinds);
  return success();
}

static void printExtras(OpAsmPrinter &printer, Operation *op,
                        OperandRange extras, TypeRange types, ArrayAttr names) {
  std::optional<ArrayAttr> given;
  if (names)
    given = names;
  if (Value step = findExtra(extras, given, Extra::Step))
    printer << " at " << step;
  for (auto [keyword, kind] : tensorExtras)
    if (Value tensor = findExtra(extras, given, kind))
      printer << ' ' << keyword << '(' << tensor << " : " << tensor.getType()
              << ')';
}

//===----------------------------------------------------------------------===//
// Creation and types
//===----------------------------------------------------------------------===//

LogicalResult CreateKVCacheOp::verify() {
  PagedKVCacheType type = getCacheType(getResult().getType());
  if (!type.isFullyStatic())
    return emitOpError() << "expected a fully static cache type, got " << type;
  if (getStrategy() == KVStrategy::Paged && !getBlocks())
    return emitOpError("expected a number of blocks with strategy paged");
  if (getStrategy() == KVStrategy::Static && getBlocks())
    return emitOpError("expected no number of blocks with strategy static");
  return success();
}

LogicalResult CastKVOp::verify() {
  Type from = getCache().getType(), to = getResult().getType();
  if (isa<KVHandleType>(from) != isa<KVHandleType>(to))
    return emitOpError() << "cannot cast between a value and a handle, " << from
                         << " to " << to;
  if (!getCacheType(from).isCompatibleWith(getCacheType(to)))
    return emitOpError() << "no cache has both types, " << from << " and "
                         << to;
  return success();
}

OpFoldResult CastKVOp::fold(FoldAdaptor) {
  // In a graph region a cast may be its own operand.
  bool isSame = getCache().getType() == getResult().getType();
  return isSame && getCache() != getResult() ? getCache() : Value();
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

LogicalResult BeginStepOp::verify() {
  if (failed(verifyConsuming(*this)))
    return failure();
  return verifySameLength(*this, "sequence ids", getSeqIds(), "cu_seqlens",
                          getCuSeqlens(), /*more=*/1);
}

OpFoldResult AtLayerOp::fold(FoldAdaptor) {
  // Only the last layer counts. A graph region may hold a cycle.
  Value step = getStep();
  llvm::SmallPtrSet<Operation *, 4> seen;
  while (auto inner = step.getDefiningOp<AtLayerOp>()) {
    if (!seen.insert(inner).second)
      return {};
    step = inner.getStep();
  }
  if (step == getStep())
    return {};
  getStepMutable().assign(step);
  return getResult();
}

//===----------------------------------------------------------------------===//
// Append and read
//===----------------------------------------------------------------------===//

/// A tensor [T, H, D] that is rotated by a table [T, D].
static LogicalResult verifyRotation(Operation *op, Value rotated, Value table) {
  auto type = cast<RankedTensorType>(rotated.getType());
  int64_t headDim = type.getDimSize(2);
  if (ShapedType::isDynamic(headDim) || headDim < 1 || headDim % 2)
    return op->emitOpError()
           << "expected a static, even head_dim, got " << type;
  auto tableType = cast<RankedTensorType>(table.getType());
  if (tableType.getDimSize(1) != headDim)
    return op->emitOpError() << "expected a rope table with rows of " << headDim
                             << " elements, got " << tableType;
  return verifySameLength(op, "tokens", rotated, "the rope table", table);
}

static LogicalResult verifyRope(AppendKVOp op) {
  Value table = op.getExtra(Extra::RopeTable);
  if (bool(table) != bool(op.getPairing()))
    return op.emitOpError(
        "expected optional operand 'rope_table' and a pairing together");
  if (!table)
    return success();
  if (!op.getStepOperand())
    return op.emitOpError("needs a step for optional operand 'rope_table'");
  auto key = cast<RankedTensorType>(op.getKey().getType());
  if (!key.getElementType().isF32())
    return op.emitOpError() << "expected a key of f32 for optional operand "
                               "'rope_table', got "
                            << key;
  return verifyRotation(op, op.getKey(), table);
}

LogicalResult AppendKVOp::verify() {
  PagedKVCacheType cache = getCacheType(getCache().getType());
  auto key = cast<RankedTensorType>(getKey().getType());
  auto value = cast<RankedTensorType>(getValue().getType());
  if (failed(verifyExtras(*this, getExtras(), getExtraNames())) ||
      failed(verifyTakesNone(*this, {Extra::BlockIndices, Extra::Alibi,
                                     Extra::HeadSink, Extra::SinkQuery})))
    return failure();
  bool ragged = bool(getStepOperand());
  if (failed(verifyConsuming(*this)) ||
      failed(verifyRank(*this, "key", getKey(), ragged)))
    return failure();
  if (key != value)
    return emitOpError() << "expected key and value to have one type, got "
                         << key << " and " << value;
  if (!ragged && failed(verifySingleLayer(*this, cache)))
    return failure();
  int64_t rank = key.getRank();
  return failure(failed(verifyRope(*this)) ||
                 failed(verifyNumber(*this, "KV heads", cache.getKvHeads(),
                                     key.getDimSize(rank - 2))) ||
                 failed(verifyNumber(*this, "head_dim", cache.getHeadDim(),
                                     key.getDimSize(rank - 1))) ||
                 failed(verifyNumber(*this, "block_size", cache.getBlockSize(),
                                     getBlockSize())) ||
                 failed(verifyNumber(*this, "max_seq_len", cache.getMaxSeqLen(),
                                     getMaxSeqLen())));
}

Value PagedAttentionOp::getQueries() { return getQuery(); }
Value PagedAttentionOp::getAttentionResult() { return getOutput(); }
std::optional<APFloat> PagedAttentionOp::getScoreScale() { return getScale(); }

static LogicalResult verifyQueryHeads(PagedAttentionOp op, int64_t queryHeads,
                                      PagedKVCacheType cache) {
  if (op.getNumHeads() && !ShapedType::isDynamic(queryHeads) &&
      int64_t(*op.getNumHeads()) != queryHeads)
    return op.emitOpError()
           << "expected num_heads to match the query's " << queryHeads
           << ", got " << int32_t(*op.getNumHeads());
  if (ShapedType::isDynamic(queryHeads) ||
      ShapedType::isDynamic(cache.getKvHeads()) ||
      queryHeads % cache.getKvHeads() == 0)
    return success();
  return op.emitOpError() << "expected the query heads to be a multiple of the "
                             "cache type's "
                          << cache.getKvHeads() << " KV heads, got "
                          << queryHeads;
}

static LogicalResult verifyLse(PagedAttentionOp op, RankedTensorType query) {
  if (!op.getLse())
    return success();
  auto expected = RankedTensorType::get(query.getShape().drop_back(),
                                        Float32Type::get(op.getContext()));
  if (op.getLse().getType() == expected)
    return success();
  return op.emitOpError() << "expected lse to have type " << expected
                          << ", got " << op.getLse().getType();
}

static LogicalResult verifyMask(PagedAttentionOp op, PagedKVCacheType cache) {
  if (op.getScale() && !op.getScale()->isFinite())
    return op.emitOpError() << "expected a finite scale, got "
                            << op.getScale()->convertToFloat();
  if (op.getSoftcap() && (!op.getSoftcap()->isFinite() ||
                          !(op.getSoftcap()->convertToFloat() > 0)))
    return op.emitOpError() << "expected softcap to be positive and finite, "
                               "got "
                            << op.getSoftcap()->convertToFloat();
  if (!op.getWindow())
    return success();
  int64_t window = int32_t(*op.getWindow());
  if (window < 1)
    return op.emitOpError()
           << "expected window to be at least 1, got " << window;
  if (cache.getWindow() && window > cache.getWindow())
    return op.emitOpError() << "window may only narrow the cache type's "
                            << cache.getWindow() << ", got " << window;
  return success();
}

/// One number of each query head.
static LogicalResult verifyHeadNumbers(PagedAttentionOp op, Extra kind,
                                       int64_t queryHeads) {
  Value numbers = op.getExtra(kind);
  if (!numbers)
    return success();
  int64_t size = cast<RankedTensorType>(numbers.getType()).getDimSize(0);
  if (ShapedType::isDynamic(size) || ShapedType::isDynamic(queryHeads) ||
      size == queryHeads)
    return success();
  return op.emitOpError() << "expected optional operand '"
                          << stringifyExtra(kind) << "' to have " << queryHeads
                          << " elements, one for each query head, got " << size;
}

static LogicalResult verifySinkQuery(PagedAttentionOp op,
                                     PagedKVCacheType cache) {
  Value sinkQuery = op.getExtra(Extra::SinkQuery);
  if (!sinkQuery)
    return success();
  if (sinkQuery.getType() != op.getQuery().getType())
    return op.emitOpError()
           << "expected optional operand 'sink_query' to have "
              "the query's type "
           << op.getQuery().getType() << ", got " << sinkQuery.getType();
  if (cache.isBare() || cache.getSinks())
    return success();
  return op.emitOpError() << "expected a cache type with sinks for optional "
                             "operand 'sink_query', got "
                          << cache;
}

static LogicalResult verifyModifiers(PagedAttentionOp op, int64_t queryHeads,
                                     PagedKVCacheType cache) {
  return failure(failed(verifyHeadNumbers(op, Extra::Alibi, queryHeads)) ||
                 failed(verifyHeadNumbers(op, Extra::HeadSink, queryHeads)) ||
                 failed(verifySinkQuery(op, cache)));
}

LogicalResult PagedAttentionOp::verify() {
  PagedKVCacheType cache = getCacheType(getCache().getType());
  auto query = cast<RankedTensorType>(getQuery().getType());
  if (failed(verifyExtras(*this, getExtras(), getExtraNames())) ||
      failed(verifyTakesNone(*this, {Extra::RopeTable})) ||
      failed(verifyRank(*this, "query", getQuery(), bool(getStepOperand()))))
    return failure();
  if (getOutput().getType() != query)
    return emitOpError() << "expected the result to have the query's type "
                         << query << ", got " << getOutput().getType();
  if (!getStepOperand() && failed(verifySingleLayer(*this, cache)))
    return failure();
  int64_t rank = query.getRank();
  int64_t headDim = query.getDimSize(rank - 1);
  return failure(
      failed(verifyQueryHeads(*this, query.getDimSize(rank - 2), cache)) ||
      failed(verifyNumber(*this, "head_dim", cache.getHeadDim(), headDim)) ||
      failed(verifyNumber(*this, "head_dim",
                          ShapedType::isDynamic(cache.getHeadDim())
                              ? headDim
                              : cache.getHeadDim(),
                          getHeadDim())) ||
      failed(verifyLse(*this, query)) || failed(verifyMask(*this, cache)) ||
      failed(verifyModifiers(*this, query.getDimSize(rank - 2), cache)));
}

LogicalResult LookupKVOp::verify() {
  PagedKVCacheType cache = getCacheType(getCache().getType());
  auto key = cast<RankedTensorType>(getKey().getType());
  if (failed(verifyExtras(*this, getExtras(), getExtraNames())) ||
      failed(verifyRank(*this, "the result", getKey(), /*ragged=*/false)))
    return failure();
  if (key != getValue().getType())
    return emitOpError() << "expected K and V to have one type, got " << key
                         << " and " << getValue().getType();
  if (llvm::any_of(key.getShape().drop_front(), ShapedType::isDynamic))
    return emitOpError() << "expected the result's bound, heads and head_dim "
                            "to be static, got "
                         << key;
  if (!cache.isBare() && key.getElementType() != cache.getElementType())
    return emitOpError() << "expected the cache's element type "
                         << cache.getElementType() << ", got "
                         << key.getElementType();
  if (!getStepOperand() && failed(verifySingleLayer(*this, cache)))
    return failure();
  if (failed(verifyTakesNone(*this, {Extra::Alibi, Extra::HeadSink,
                                     Extra::SinkQuery, Extra::RopeTable})))
    return failure();
  bool hasRows = getStepOperand() || getExtra(Extra::BlockIndices);
  if (key.isDynamicDim(0) && !hasRows)
    return emitOpError("expected a static number of rows without a step or "
                       "block indices");
  return failure(
      failed(verifyNumber(*this, "KV heads", cache.getKvHeads(),
                          key.getDimSize(2))) ||
      failed(verifyNumber(*this, "head_dim", cache.getHeadDim(),
                          key.getDimSize(3))) ||
      failed(
          verifyNumber(*this, "num_heads", key.getDimSize(2), getNumHeads())) ||
      failed(verifyNumber(*this, "head_dim", key.getDimSize(3), getHeadDim())));
}

//===----------------------------------------------------------------------===//
// Sequences and queries
//===----------------------------------------------------------------------===//

LogicalResult ForkKVOp::verify() {
  return failure(failed(verifyConsuming(*this)) ||
                 failed(verifySameLength(*this, "parents", getParents(),
                                         "children", getChildren())) ||
                 failed(verifySameLength(*this, "parents", getParents(),
                                         "lengths", getLengths())));
}

LogicalResult TrimKVOp::verify() {
  return failure(failed(verifyConsuming(*this)) ||
                 failed(verifySameLength(*this, "sequence ids", getSeqIds(),
                                         "lengths", getLengths())));
}

LogicalResult ReleaseKVOp::verify() { return verifyConsuming(*this); }

LogicalResult SeqLensOp::verify() {
  return verifySameLength(*this, "sequence ids", getSeqIds(), "the result",
                          getLengths());
}

LogicalResult BlockTableOp::verify() {
  return verifySameLength(*this, "sequence ids", getSeqIds(), "the result",
                          getTable());
}

LogicalResult KVStatsOp::verify() {
  auto type = cast<RankedTensorType>(getStats().getType());
  if (type.getRank() == 1 && type.getDimSize(0) == kNumStats)
    return success();
  return emitOpError() << "expected " << kNumStats << " statistics, got "
                       << type;
}

//===----------------------------------------------------------------------===//
// Linear layers
//===----------------------------------------------------------------------===//

LogicalResult LinearOp::verify() {
  auto x = cast<RankedTensorType>(getX().getType());
  auto weight = cast<RankedTensorType>(getWeight().getType());
  auto result = cast<RankedTensorType>(getResult().getType());
  std::optional<WeightFormat> format = getFormat();
  bool isByte = getActivations().isSignlessInteger(8);
  if (!getActivations().isF32() && !getActivations().isBF16() &&
      !(isByte && format))
    return emitOpError() << "expected activations of f32 or bf16, or of i8 "
                            "beside a weight with a format, got "
                         << getActivations();
  const bool tiled = isTiled(weight), inSteps = tiled || format;
  if (!inSteps && !getActivations().isF32())
    return emitOpError() << "expected activations of f32 beside panels, got "
                         << getActivations();
  int64_t k = x.getDimSize(1), n = result.getDimSize(1);
  if (ShapedType::isDynamic(k) || ShapedType::isDynamic(n))
    return emitOpError() << "expected a static [N, K] matrix, got x of type "
                         << getX().getType() << " and a result of type "
                         << getResult().getType();
  if (inSteps && k % kTileDepth)
    return emitOpError()
           << "expected K of tiles and blocks to be a multiple of "
           << kTileDepth << ", got x of type " << getX().getType();
  int64_t elements = format  ? getBlockBytes(*format)
                     : tiled ? kTileElements
                             : kPanelRows;
  int64_t expected[] = {(n + kPanelRows - 1) / kPanelRows,
                        inSteps ? k / kTileDepth : k, elements};
  Type element = weight.getElementType();
  if (format)
    element = IntegerType::get(getContext(), 8);
  else if (element.isInteger())
    element = BFloat16Type::get(getContext());
  auto expectedType = RankedTensorType::get(expected, element);
  if (weight != expectedType)
    return emitOpError() << "expected a weight of type " << expectedType
                         << ", got " << weight;
  if (x.getDimSize(0) != result.getDimSize(0))
    return emitOpError() << "expected as many rows in x and the result, got "
                         << getX().getType() << " and "
                         << getResult().getType();
  return success();
}

//===----------------------------------------------------------------------===//
// Rotary position embedding
//===----------------------------------------------------------------------===//

LogicalResult RopeTableOp::verify() {
  auto type = cast<RankedTensorType>(getTable().getType());
  int64_t headDim = type.getDimSize(1);
  if (ShapedType::isDynamic(headDim) || headDim < 1 || headDim % 2)
    return emitOpError() << "expected a static, even head_dim, got " << type;
  if (int64_t(getInvFreq().size()) != headDim / 2)
    return emitOpError() << "expected " << headDim / 2
                         << " inverse frequencies for head_dim " << headDim
                         << ", got " << getInvFreq().size();
  return verifySameLength(*this, "tokens", getTable(), "positions",
                          getPositions());
}

LogicalResult RopeOp::verify() {
  return verifyRotation(*this, getInput(), getTable());
}

//===----------------------------------------------------------------------===//
// Handle level only
//===----------------------------------------------------------------------===//

LogicalResult ReplaceKVOp::canonicalize(ReplaceKVOp op,
                                        PatternRewriter &rewriter) {
  if (op.getHost() != op.getVersion())
    return rewriter.notifyMatchFailure(op, "two different handles");
  rewriter.eraseOp(op);
  return success();
}

LogicalResult CallArgumentOp::verify() {
  bool isCache = isa<KVHandleType>(getResult().getType());
  if (isCache == (getKind() == ArgumentKind::Cache))
    return success();
  return emitOpError() << "expected argument kind "
                       << stringifyArgumentKind(getKind()) << " to be a "
                       << (isCache ? "buffer" : "handle") << ", got "
                       << getResult().getType();
}

#define GET_OP_CLASSES
#include "llm/IR/LLMOps.cpp.inc"
