//===- LLMToLinalgOps.cpp - Ops as calls of the specification ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What an op means is in Specification.mlir and SpecificationReads.mlir. Here
// its operands are put into the words of those texts, and results back into the
// types of the op.
//
//===----------------------------------------------------------------------===//

#include "LLMToLinalg.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/ControlFlow/IR/ControlFlowOps.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::llm;
using namespace mlir::llm::spec;

//===----------------------------------------------------------------------===//
// Calls
//===----------------------------------------------------------------------===//

namespace {
/// Builds the code of one op.
class OpBuild {
public:
  OpBuild(const Specification &specification,
          ConversionPatternRewriter &rewriter, Operation *op)
      : b(rewriter), loc(op->getLoc()), specification(specification), op(op) {}

  ConversionPatternRewriter &b;
  const Location loc;

  Value index(int64_t value) {
    return arith::ConstantIndexOp::create(b, loc, value);
  }
  Value i32(int32_t value) {
    return arith::ConstantOp::create(b, loc, b.getI32IntegerAttr(value));
  }
  Value i64(int64_t value) {
    return arith::ConstantOp::create(b, loc, b.getI64IntegerAttr(value));
  }
  Value i1(bool value) {
    return arith::ConstantOp::create(b, loc, b.getBoolAttr(value));
  }
  Value f32(const APFloat &value) {
    return arith::ConstantOp::create(b, loc,
                                     b.getFloatAttr(b.getF32Type(), value));
  }
  Value dim(Value tensor, int64_t dimension) {
    return b.createOrFold<tensor::DimOp>(loc, tensor, dimension);
  }

  /// Calls `llm_spec.NAME`.
  ValueRange call(StringRef name, ValueRange arguments) {
    func::FuncOp callee = specification.get(name);
    SmallVector<Value> operands;
    for (auto [value, type] :
         llvm::zip_equal(arguments, callee.getArgumentTypes()))
      operands.push_back(cast(value, type));
    return func::CallOp::create(b, loc, callee, operands).getResults();
  }

  Value cast(Value value, Type type) {
    return value.getType() == type
               ? value
               : tensor::CastOp::create(b, loc, type, value);
  }

  /// A tensor of f16 or bf16 as f32.
  Value widen(Value tensor) {
    return convertElements<arith::ExtFOp>(tensor, b.getF32Type());
  }

  /// A tensor of f32 as a result of the op: in its element type, and of its
  /// size or else `invalid argument`.
  Value fit(Value tensor, Type resultType) {
    auto type = mlir::cast<RankedTensorType>(resultType);
    auto from = mlir::cast<RankedTensorType>(tensor.getType());
    for (int64_t i = 0; i < type.getRank(); ++i)
      if (!type.isDynamicDim(i) && from.isDynamicDim(i))
        call("check_size", {dim(tensor, i), index(type.getDimSize(i))});
    return narrow(cast(tensor, type.clone(from.getElementType())),
                  type.getElementType());
  }

  Value narrow(Value tensor, Type elementType) {
    return convertElements<arith::TruncFOp>(tensor, elementType);
  }

  /// Fails with `invalid argument` unless the cache is what a type says of it.
  void checkParameter(StringRef name, Value actual, int64_t expected,
                      const Twine &text) {
    Value wanted = actual.getType().isIndex()
                       ? index(expected)
                       : i32(static_cast<int32_t>(expected));
    Value equal =
        arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, actual, wanted);
    cf::AssertOp::create(
        b, loc, equal,
        ("invalid argument: expected " + name + " of the cache to be " + text)
            .str());
  }
  void checkParameter(StringRef name, Value actual, int64_t expected) {
    checkParameter(name, actual, expected, Twine(expected));
  }
  void checkElementType(Value dtype, Type expected) {
    StringRef name = isa<Float32Type>(expected)   ? "f32"
                     : isa<Float16Type>(expected) ? "f16"
                                                  : "bf16";
    checkParameter("the element type", dtype, getElementCode(expected), name);
  }

  void checkStorage(StringRef of, Value storage, Type expected) {
    StringRef name = !expected                         ? "its element type"
                     : isa<Float8E4M3FNType>(expected) ? "f8E4M3FN"
                     : expected.isInteger(8)           ? "i8"
                                                       : "i4";
    checkParameter(("the storage of " + of).str(), storage,
                   getStorageCode(expected), name);
  }

  /// Replaces the op, whose results are these parts.
  void replace(ArrayRef<SmallVector<Value>> results) {
    b.replaceOpWithMultiple(op, SmallVector<SmallVector<Value>>(results));
  }

private:
  template <typename ConversionT>
  Value convertElements(Value tensor, Type elementType) {
    auto type = mlir::cast<RankedTensorType>(tensor.getType());
    if (type.getElementType() == elementType)
      return tensor;
    Value empty = tensor::EmptyOp::create(
        b, loc, tensor::getMixedSizes(b, loc, tensor), elementType);
    SmallVector<AffineMap> maps(2, b.getMultiDimIdentityMap(type.getRank()));
    SmallVector<utils::IteratorType> iterators(type.getRank(),
                                               utils::IteratorType::parallel);
    auto convert = [](OpBuilder &nested, Location loc, ValueRange elements) {
      Value converted =
          ConversionT::create(nested, loc, elements[1].getType(), elements[0]);
      linalg::YieldOp::create(nested, loc, converted);
    };
    return linalg::GenericOp::create(b, loc, empty.getType(), tensor, empty,
                                     maps, iterators, convert)
        .getResult(0);
  }

  const Specification &specification;
  Operation *op;
};

/// A pattern is `build`: it builds the code of the op.
template <typename OpT>
struct OpPattern : OpConversionPattern<OpT> {
  using Adaptor = typename OpT::template GenericAdaptor<ArrayRef<ValueRange>>;

  OpPattern(const TypeConverter &converter, const Specification &specification,
            MLIRContext *context)
      : OpConversionPattern<OpT>(converter, context),
        specification(specification) {}

  LogicalResult
  matchAndRewrite(OpT op, Adaptor adaptor,
                  ConversionPatternRewriter &rewriter) const override {
    OpBuild b(specification, rewriter, op);
    build(op, adaptor, b);
    return success();
  }

  virtual void build(OpT op, Adaptor adaptor, OpBuild &b) const = 0;

  const Specification &specification;
};
} // namespace

/// Defines the pattern of an op by the body of its `build`.
#define LLM_SPEC_PATTERN(OpT)                                                  \
  namespace {                                                                  \
  struct Convert##OpT : OpPattern<OpT> {                                       \
    using OpPattern::OpPattern;                                                \
    void build(OpT op, Adaptor adaptor, OpBuild &b) const override;            \
  };                                                                           \
  }                                                                            \
  void Convert##OpT::build(OpT op, Adaptor adaptor, OpBuild &b) const

//===----------------------------------------------------------------------===//
// Creation and types
//===----------------------------------------------------------------------===//

LLM_SPEC_PATTERN(CreateKVCacheOp) {
  auto type = cast<PagedKVCacheType>(op.getResult().getType());
  ValueRange made =
      b.call("create_kv_cache",
             {b.index(type.getLayers()), b.index(type.getMaxSequences()),
              b.index(type.getMaxSeqLen()), b.index(type.getKvHeads()),
              b.index(type.getHeadDim())});
  Version version = {made[0],
                     made[1],
                     made[2],
                     made[3],
                     made[4],
                     made[5],
                     made[6],
                     b.i64(0),
                     b.i32(getElementCode(type.getElementType())),
                     b.i32(getStorageCode(type.getKFormat())),
                     b.i32(getStorageCode(type.getVFormat())),
                     b.i32(static_cast<int32_t>(type.getBlockSize())),
                     b.i32(static_cast<int32_t>(type.getWindow())),
                     b.i32(static_cast<int32_t>(type.getSinks()))};
  b.replace({version.pack()});
}

/// Checks what type `to` says of a cache and type `from` does not.
static void checkType(OpBuild &b, const Version &version, PagedKVCacheType from,
                      PagedKVCacheType to) {
  auto check = [&](StringRef name, auto actual, int64_t expected,
                   int64_t known) {
    if (!ShapedType::isDynamic(expected) && expected != known)
      b.checkParameter(name, actual(), expected);
  };
  auto size = [&](int64_t dimension) {
    return [&b, &version, dimension] { return b.dim(version.k, dimension); };
  };
  check("layers", size(0), to.getLayers(), from.getLayers());
  check("kv_heads", size(3), to.getKvHeads(), from.getKvHeads());
  check("head_dim", size(4), to.getHeadDim(), from.getHeadDim());
  check(
      "block_size", [&] { return version.blockSize; }, to.getBlockSize(),
      from.getBlockSize());
  check("max_sequences", size(1), to.getMaxSequences(), from.getMaxSequences());
  check("max_seq_len", size(2), to.getMaxSeqLen(), from.getMaxSeqLen());
  if (to.getWindow() && to.getWindow() != from.getWindow()) {
    b.checkParameter("window", version.window, to.getWindow());
    b.checkParameter("sinks", version.sinks, to.getSinks());
  }
  if (to.isBare() || !from.isBare())
    return;
  b.checkElementType(version.dtype, to.getElementType());
  b.checkStorage("K", version.kStorage, to.getKFormat());
  b.checkStorage("V", version.vStorage, to.getVFormat());
}

LLM_SPEC_PATTERN(CastKVOp) {
  checkType(b, Version::unpack(adaptor.getCache()),
            cast<PagedKVCacheType>(op.getCache().getType()),
            cast<PagedKVCacheType>(op.getResult().getType()));
  b.replace({SmallVector<Value>(adaptor.getCache())});
}

LLM_SPEC_PATTERN(SnapshotKVOp) {
  b.replace({SmallVector<Value>(adaptor.getCache())});
}

/// Values end by themselves.
LLM_SPEC_PATTERN(DropKVOp) { b.b.eraseOp(op); }

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

/// The version in which a new step of these rows runs.
static std::pair<Version, Step> beginStep(OpBuild &b, Version version,
                                          Value ids, Value cuSeqlens) {
  ValueRange begun =
      b.call("begin_step", {version.cur, version.next, version.appended,
                            b.dim(version.k, 2), ids, cuSeqlens});
  version.next = begun[0];
  version.members = begun[1];
  version.running = begun[3];
  Type dynamic =
      RankedTensorType::get({ShapedType::kDynamic}, b.b.getI32Type());
  Step step = {b.cast(ids, dynamic),
               b.cast(cuSeqlens, dynamic),
               begun[2],
               begun[3],
               b.dim(version.k, 0),
               b.index(-1)};
  return {version, step};
}

LLM_SPEC_PATTERN(BeginStepOp) {
  auto [version, step] =
      beginStep(b, Version::unpack(adaptor.getCache()),
                adaptor.getSeqIds().front(), adaptor.getCuSeqlens().front());
  b.replace({version.pack(), step.pack()});
}

LLM_SPEC_PATTERN(PositionsOp) {
  Step step = Step::unpack(adaptor.getStep());
  ValueRange positions = b.call("positions", {step.cuSeqlens, step.starts});
  b.replace({{b.fit(positions[0], op.getType())}});
}

LLM_SPEC_PATTERN(AtLayerOp) {
  Step step = Step::unpack(adaptor.getStep());
  step.layer = adaptor.getLayer().front();
  b.call("at_layer", {step.layers, step.layer});
  b.replace({step.pack()});
}

//===----------------------------------------------------------------------===//
// Append
//===----------------------------------------------------------------------===//

/// Between [B, S, H, D] and [B * S, H, D].
static SmallVector<ReassociationIndices> getBatchDims(int64_t rank) {
  SmallVector<ReassociationIndices> dims = {{0, 1}};
  for (int64_t i = 2; i < rank; ++i)
    dims.push_back({i});
  return dims;
}

static Value collapseBatch(OpBuild &b, Value tensor) {
  int64_t rank = cast<RankedTensorType>(tensor.getType()).getRank();
  return tensor::CollapseShapeOp::create(b.b, b.loc, tensor,
                                         getBatchDims(rank));
}

/// The only layer of the cache, in a step that is the running one.
static Step makeOnlyLayer(OpBuild &b, const Version &version, Value ids,
                          Value cuSeqlens, Value starts) {
  b.call("check_one_layer", {b.dim(version.k, 0)});
  return {ids, cuSeqlens, starts, version.running, b.index(1), b.index(0)};
}

/// Without a step: one of all rows begins first.
static std::pair<Version, Step> beginBatch(OpBuild &b, const Version &version,
                                           Value key) {
  b.call("check_one_layer", {b.dim(version.k, 0)});
  ValueRange batch = b.call("even_batch", {b.dim(key, 0), b.dim(key, 1)});
  return beginStep(b, version, batch[0], batch[1]);
}

/// Checks what the attributes say and the type leaves open.
static void checkAttributes(OpBuild &b, AppendKVOp op, const Version &version) {
  auto number = [](std::optional<uint32_t> value) {
    return value ? int64_t(*value) : ShapedType::kDynamic;
  };
  checkType(b, version, cast<PagedKVCacheType>(op.getCache().getType()),
            PagedKVCacheType::get(op.getContext(), number(op.getBlockSize()),
                                  number(op.getMaxSeqLen())));
}

/// An optional operand's parts; empty when it is absent.
template <typename OpT, typename AdaptorT>
static ValueRange getExtra(OpT op, AdaptorT adaptor, Extra extra) {
  Value wanted = op.getExtra(extra);
  for (auto [value, parts] :
       llvm::zip_equal(op.getExtras(), adaptor.getExtras()))
    if (value == wanted)
      return parts;
  return {};
}

/// The key, rotated if the op says so.
template <typename AdaptorT>
static Value getKey(OpBuild &b, AppendKVOp op, AdaptorT adaptor) {
  Value key = b.widen(adaptor.getKey().front());
  ValueRange table = getExtra(op, adaptor, Extra::RopeTable);
  if (table.empty())
    return key;
  Value adjacent = b.i1(op.getPairing() == RopePairing::Adjacent);
  return b.call("rotate", {key, table.front(), adjacent})[0];
}

LLM_SPEC_PATTERN(AppendKVOp) {
  Version version = Version::unpack(adaptor.getCache());
  Value key = getKey(b, op, adaptor);
  Value value = b.widen(adaptor.getValue().front());
  checkAttributes(b, op, version);
  Step step;
  if (op.getStepOperand()) {
    step = Step::unpack(getExtra(op, adaptor, Extra::Step));
  } else {
    std::tie(version, step) = beginBatch(b, version, key);
    key = collapseBatch(b, key);
    value = collapseBatch(b, value);
  }
  ValueRange appended =
      b.call("append_kv",
             {version.k, version.v, version.cur, version.pos, version.appended,
              version.members, version.running, version.dtype, version.kStorage,
              version.vStorage, step.ids, step.cuSeqlens, step.starts,
              step.number, step.layers, step.layer, key, value});
  version.k = appended[0];
  version.v = appended[1];
  version.cur = appended[2];
  version.pos = appended[3];
  version.appended = appended[4];
  b.replace({version.pack()});
}

//===----------------------------------------------------------------------===//
// Reads
//===----------------------------------------------------------------------===//

/// Is there an explicit table, and which; else an empty one.
static std::pair<Value, Value> getTable(OpBuild &b, ValueRange table) {
  if (!table.empty())
    return {b.i1(true), table.front()};
  return {b.i1(false),
          tensor::EmptyOp::create(b.b, b.loc, ArrayRef<int64_t>{0, 0},
                                  b.b.getI32Type())};
}

/// Without a step: the queries are the last positions of all rows.
static Step makeQueryRows(OpBuild &b, const Version &version, Value query) {
  Value rows = b.dim(query, 0), queries = b.dim(query, 1);
  ValueRange batch = b.call("even_batch", {rows, queries});
  ValueRange starts =
      b.call("last_positions", {version.cur, batch[0], queries});
  return makeOnlyLayer(b, version, batch[0], batch[1], starts[0]);
}

/// [B * S, ...] as [B, S, ...] like `query`, [B, S, Hq, D]. (Where more sizes
/// are dynamic, MLIR 22 cannot lower an expand_shape.)
static Value expandBatch(OpBuild &b, Value tensor, RankedTensorType type,
                         Value query) {
  Value queries = b.dim(query, 1);
  SmallVector<Value> sizes;
  for (int64_t i = 0; i < type.getRank(); ++i)
    if (type.isDynamicDim(i))
      sizes.push_back(b.dim(query, i));
  return tensor::GenerateOp::create(
      b.b, b.loc, type, sizes,
      [&](OpBuilder &nested, Location loc, ValueRange at) {
        Value first = arith::MulIOp::create(nested, loc, at[0], queries);
        SmallVector<Value> from = {
            arith::AddIOp::create(nested, loc, first, at[1])};
        llvm::append_range(from, at.drop_front(2));
        tensor::YieldOp::create(
            nested, loc, tensor::ExtractOp::create(nested, loc, tensor, from));
      });
}

/// One number of each query head, or `absent` for all of them.
static Value getHeadNumbers(OpBuild &b, ValueRange given, Value heads,
                            const APFloat &absent) {
  if (!given.empty())
    return given.front();
  auto type = RankedTensorType::get({ShapedType::kDynamic}, b.b.getF32Type());
  return tensor::SplatOp::create(b.b, b.loc, type, b.f32(absent), heads);
}

/// The query for sinks: the rows themselves where none is given.
static Value getSinkRows(OpBuild &b, const Version &version, ValueRange given,
                         Value rows) {
  if (given.empty())
    return rows;
  b.call("check_sinks", version.sinks);
  Value nearer = b.widen(given.front());
  return cast<RankedTensorType>(nearer.getType()).getRank() == 4
             ? collapseBatch(b, nearer)
             : nearer;
}

LLM_SPEC_PATTERN(PagedAttentionOp) {
  Version version = Version::unpack(adaptor.getCache());
  Value query = adaptor.getQuery().front();
  bool ragged = bool(op.getStepOperand());
  Step step = ragged ? Step::unpack(getExtra(op, adaptor, Extra::Step))
                     : makeQueryRows(b, version, query);
  auto [given, table] = getTable(b, getExtra(op, adaptor, Extra::BlockIndices));
  Value wide = b.widen(query);
  Value rows = ragged ? wide : collapseBatch(b, wide);
  Value heads = b.dim(rows, 1);
  const auto &single = APFloat::IEEEsingle();
  ValueRange attended = b.call(
      "paged_attention",
      {version.k,
       version.v,
       version.cur,
       version.next,
       version.pos,
       version.running,
       version.blockSize,
       version.window,
       version.sinks,
       step.ids,
       step.cuSeqlens,
       step.starts,
       step.number,
       step.layers,
       step.layer,
       rows,
       getSinkRows(b, version, getExtra(op, adaptor, Extra::SinkQuery), rows),
       getHeadNumbers(b, getExtra(op, adaptor, Extra::Alibi), heads,
                      APFloat::getZero(single)),
       getHeadNumbers(b, getExtra(op, adaptor, Extra::HeadSink), heads,
                      APFloat::getInf(single, /*Negative=*/true)),
       b.f32(op.getScale().value_or(APFloat::getNaN(single))),
       b.f32(op.getSoftcap().value_or(APFloat(0.0f))),
       b.i32(static_cast<int32_t>(op.getWindow().value_or(0))),
       b.i1(op.getCausal()),
       given,
       table});
  SmallVector<SmallVector<Value>> results;
  for (auto [result, rows] : llvm::zip(op->getResults(), attended)) {
    auto type = cast<RankedTensorType>(result.getType());
    auto dense = type.clone(b.b.getF32Type());
    Value shaped =
        ragged ? b.cast(rows, dense) : expandBatch(b, rows, dense, query);
    results.push_back({b.narrow(shaped, type.getElementType())});
  }
  b.replace(results);
}

LLM_SPEC_PATTERN(LookupKVOp) {
  Version version = Version::unpack(adaptor.getCache());
  auto type = cast<RankedTensorType>(op.getKey().getType());
  ValueRange blocks = getExtra(op, adaptor, Extra::BlockIndices);
  Step step;
  if (op.getStepOperand()) {
    step = Step::unpack(getExtra(op, adaptor, Extra::Step));
  } else {
    Value rows = type.isDynamicDim(0) ? b.dim(blocks.front(), 0)
                                      : b.index(type.getDimSize(0));
    ValueRange batch = b.call("even_batch", {rows, b.index(0)});
    step = makeOnlyLayer(b, version, batch[0], batch[1], batch[0]);
  }
  if (cast<PagedKVCacheType>(op.getCache().getType()).isBare())
    b.checkElementType(version.dtype, type.getElementType());
  auto [given, table] = getTable(b, blocks);
  ValueRange found =
      b.call("lookup_kv", {version.k, version.v, version.cur, version.next,
                           version.blockSize, step.ids, step.layers, step.layer,
                           given, table, b.index(type.getDimSize(1))});
  b.replace({{b.fit(found[0], type)}, {b.fit(found[1], type)}});
}

//===----------------------------------------------------------------------===//
// Sequences
//===----------------------------------------------------------------------===//

LLM_SPEC_PATTERN(ForkKVOp) {
  Version version = Version::unpack(adaptor.getCache());
  ValueRange forked =
      b.call("fork_kv",
             {version.k, version.v, version.cur, version.next, version.pos,
              version.appended, version.members, adaptor.getParents().front(),
              adaptor.getChildren().front(), adaptor.getLengths().front()});
  version.k = forked[0];
  version.v = forked[1];
  version.cur = forked[2];
  version.next = forked[3];
  version.pos = forked[4];
  version.members = forked[5];
  b.replace({version.pack()});
}

/// A version in which sequences were cut.
static void replaceCut(OpBuild &b, Version version, ValueRange cut) {
  version.cur = cut[0];
  version.next = cut[1];
  version.members = cut[2];
  b.replace({version.pack()});
}

LLM_SPEC_PATTERN(TrimKVOp) {
  Version version = Version::unpack(adaptor.getCache());
  replaceCut(b, version,
             b.call("trim_kv", {version.cur, version.next, version.members,
                                adaptor.getSeqIds().front(),
                                adaptor.getLengths().front()}));
}

LLM_SPEC_PATTERN(ReleaseKVOp) {
  Version version = Version::unpack(adaptor.getCache());
  replaceCut(b, version,
             b.call("release_kv", {version.cur, version.next, version.members,
                                   adaptor.getSeqIds().front()}));
}

//===----------------------------------------------------------------------===//
// Queries
//===----------------------------------------------------------------------===//

LLM_SPEC_PATTERN(SeqLensOp) {
  Version version = Version::unpack(adaptor.getCache());
  ValueRange lengths =
      b.call("seq_lens", {version.cur, adaptor.getSeqIds().front()});
  b.replace({{b.fit(lengths[0], op.getType())}});
}

LLM_SPEC_PATTERN(BlockTableOp) {
  Version version = Version::unpack(adaptor.getCache());
  auto type = cast<RankedTensorType>(op.getType());
  Value width = b.index(type.isDynamicDim(1) ? -1 : type.getDimSize(1));
  ValueRange table = b.call(
      "block_table", {version.cur, b.dim(version.k, 2), version.blockSize,
                      adaptor.getSeqIds().front(), width});
  b.replace({{b.fit(table[0], type)}});
}

void spec::populateOpPatterns(const TypeConverter &converter,
                              const Specification &specification,
                              RewritePatternSet &patterns) {
  patterns.add<ConvertCreateKVCacheOp, ConvertCastKVOp, ConvertSnapshotKVOp,
               ConvertDropKVOp, ConvertBeginStepOp, ConvertPositionsOp,
               ConvertAtLayerOp, ConvertAppendKVOp, ConvertPagedAttentionOp,
               ConvertLookupKVOp, ConvertForkKVOp, ConvertTrimKVOp,
               ConvertReleaseKVOp, ConvertSeqLensOp, ConvertBlockTableOp>(
      converter, specification, patterns.getContext());
}
