//===- LLMToRuntime.cpp - The product: ops as calls of the runtime ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "NumberWeights.h"
#include "llm/Transforms/Constants.h"
#include "llm/Transforms/Passes.h"
#include "llm/Transforms/RuntimeCall.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Bufferization/IR/Bufferization.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/UB/IR/UBOps.h"
#include "llvm/ADT/TypeSwitch.h"

namespace mlir::llm {
#define GEN_PASS_DEF_CONVERTLLMTORUNTIME
#include "llm/Transforms/Passes.h.inc"
} // namespace mlir::llm

using namespace mlir;
using namespace mlir::llm;

static constexpr int32_t kExtrasBytes = 48; // sizeof(llm_extras)

/// Handles and steps travel as i64.
static bool isOpaque(Type type) { return isa<KVHandleType, KVStepType>(type); }

namespace {
/// Lowers the ops of one function.
class OpLowering {
public:
  OpLowering(const RuntimeCallBuilder &call, ConstantEmitter &constants)
      : call(call), constants(constants) {}

  LogicalResult lower(Operation *op);

private:
  /// An operand or result of the runtime call in the making.
  struct Arguments {
    OpBuilder b;
    Location loc;
    SmallVector<Value> values;

    explicit Arguments(Operation *op) : b(op), loc(op->getLoc()) {}
  };

  // What one argument looks like in C.
  Value i64(Arguments &args, Value value);
  Value i64(Arguments &args, int64_t value);
  Value null(Arguments &args);
  Value tensor(Arguments &args, Value value);
  Value operand(Arguments &args, Value value);
  Value cacheType(Arguments &args, PagedKVCacheType type,
                  KVStrategy strategy = KVStrategy::Paged);
  Value handleOrZero(Arguments &args, Value value);
  template <typename OpT>
  Value extras(Arguments &args, OpT op, int32_t pairing = 0);
  Value attentionParams(Arguments &args, PagedAttentionOp op);

  // Results: a buffer for tensors, a slot for everything else.
  void addResult(Arguments &args, OpResult result, ValueRange dynamicSizes);
  void addSlot(Arguments &args, OpResult result);
  SmallVector<Value> getDynamicSizes(Arguments &args, OpResult result);
  Value queryRuntime(Arguments &args, StringRef symbol, ValueRange operands,
                     Operation *op, unsigned numSlots, unsigned wanted);

  void emit(Arguments &args, StringRef symbol, Operation *op);
  template <typename OpT>
  void lowerGeneric(OpT op);

  void lowerOp(CreateKVCacheOp op);
  void lowerOp(CastKVOp op);
  void lowerOp(AppendKVOp op);
  void lowerOp(PagedAttentionOp op);
  void lowerOp(LookupKVOp op);
  void lowerOp(LinearOp op);
  void lowerOp(CheckSizeOp op);
  void lowerOp(CallArgumentOp op);
  void lowerOp(NullKVOp op);
  template <typename OpT>
  void lowerOp(OpT op) {
    lowerGeneric(op);
  }

  const RuntimeCallBuilder call;
  ConstantEmitter &constants;
  /// Results that are loaded from slots after the call.
  SmallVector<std::pair<OpResult, Value>> slots;
  SmallVector<std::pair<OpResult, Value>> buffers;
};
} // namespace

//===----------------------------------------------------------------------===//
// Arguments
//===----------------------------------------------------------------------===//

Value OpLowering::i64(Arguments &args, Value value) {
  return arith::IndexCastOp::create(args.b, args.loc, args.b.getI64Type(),
                                    value);
}

Value OpLowering::i64(Arguments &args, int64_t value) {
  return arith::ConstantOp::create(args.b, args.loc,
                                   args.b.getI64IntegerAttr(value));
}

Value OpLowering::null(Arguments &args) {
  return LLVM::ZeroOp::create(args.b, args.loc,
                              LLVM::LLVMPointerType::get(args.b.getContext()));
}

Value OpLowering::tensor(Arguments &args, Value value) {
  auto type = cast<RankedTensorType>(value.getType());
  Value buffer = bufferization::ToBufferOp::create(
      args.b, args.loc, getViewType(type), value, /*read_only=*/true);
  return describeBuffer(args.b, args.loc, call, buffer);
}

Value OpLowering::operand(Arguments &args, Value value) {
  if (isa<RankedTensorType>(value.getType()))
    return tensor(args, value);
  return value.getType().isIndex() ? i64(args, value) : value;
}

Value OpLowering::handleOrZero(Arguments &args, Value value) {
  return value ? value : i64(args, int64_t(0));
}

Value OpLowering::cacheType(Arguments &args, PagedKVCacheType type,
                            KVStrategy strategy) {
  auto config = KVCacheConfigAttr::get(args.b.getContext(), 0, 0, 0, strategy);
  StringAttr symbol =
      constants.emit(describeCacheType("cache", type, config), "llm_type");
  return ConstantEmitter::getAddress(args.b, args.loc, symbol);
}

/// llm_extras, or null without any.
template <typename OpT>
Value OpLowering::extras(Arguments &args, OpT op, int32_t pairing) {
  constexpr Extra kinds[] = {Extra::BlockIndices, Extra::Alibi, Extra::HeadSink,
                             Extra::SinkQuery, Extra::RopeTable};
  if (llvm::none_of(kinds, [&](Extra kind) { return op.getExtra(kind); }))
    return null(args);
  OpBuilder &b = args.b;
  Type i32 = b.getI32Type(),
       pointer = LLVM::LLVMPointerType::get(i32.getContext());
  auto type = LLVM::LLVMStructType::getLiteral(
      b.getContext(), {i32, i32, pointer, pointer, pointer, pointer, pointer});
  Value slot = call.createSlot(type);
  auto store = [&](int32_t field, Value value) {
    Value place = LLVM::GEPOp::create(b, args.loc, pointer, type, slot,
                                      ArrayRef<LLVM::GEPArg>{0, field});
    LLVM::StoreOp::create(b, args.loc, value, place);
  };
  auto number = [&](int32_t value) -> Value {
    return arith::ConstantOp::create(b, args.loc, b.getI32IntegerAttr(value));
  };
  store(0, number(kExtrasBytes));
  store(1, number(pairing));
  for (auto [index, kind] : llvm::enumerate(kinds)) {
    Value given = op.getExtra(kind);
    store(int32_t(index) + 2, given ? tensor(args, given) : null(args));
  }
  return slot;
}

Value OpLowering::attentionParams(Arguments &args, PagedAttentionOp op) {
  float scale = op.getScale() ? op.getScale()->convertToFloat()
                              : std::numeric_limits<float>::quiet_NaN();
  float softcap = op.getSoftcap() ? op.getSoftcap()->convertToFloat() : 0.0f;
  StringAttr symbol = constants.emit(
      CData::structure({CData::f32(scale), CData::f32(softcap),
                        CData::i32(int32_t(op.getWindow().value_or(0))),
                        CData::i32(op.getCausal() ? 1 : 0)}),
      "llm_attention_params");
  return ConstantEmitter::getAddress(args.b, args.loc, symbol);
}

//===----------------------------------------------------------------------===//
// Results
//===----------------------------------------------------------------------===//

/// A runtime function that returns sizes through `numSlots` i64 pointers.
Value OpLowering::queryRuntime(Arguments &args, StringRef symbol,
                               ValueRange operands, Operation *op,
                               unsigned numSlots, unsigned wanted) {
  SmallVector<Value> all(operands);
  for (unsigned i = 0; i < numSlots; ++i)
    all.push_back(call.createSlot(args.b.getI64Type()));
  call.create(args.b, args.loc, symbol, all, op->getName().getStringRef());
  Value size = LLVM::LoadOp::create(args.b, args.loc, args.b.getI64Type(),
                                    all[operands.size() + wanted]);
  return arith::IndexCastOp::create(args.b, args.loc, args.b.getIndexType(),
                                    size);
}

/// The sizes of a result's `?` dimensions.
SmallVector<Value> OpLowering::getDynamicSizes(Arguments &args,
                                               OpResult result) {
  auto type = cast<RankedTensorType>(result.getType());
  Operation *op = result.getOwner();
  auto dim = [&](Value like, int64_t index) -> Value {
    return tensor::DimOp::create(args.b, args.loc, like, index);
  };
  auto getSize = [&](int64_t index) -> Value {
    return TypeSwitch<Operation *, Value>(op)
        .Case([&](PagedAttentionOp attention) {
          return dim(attention.getQuery(), index);
        })
        .Case([&](LookupKVOp lookup) {
          if (Value blocks = lookup.getExtra(Extra::BlockIndices))
            return dim(blocks, 0);
          return queryRuntime(args, "llm_rt_step_size", lookup.getStepOperand(),
                              op, 2,
                              /*wanted=*/1);
        })
        .Case([&](PositionsOp positions) {
          return queryRuntime(args, "llm_rt_step_size", positions.getStep(), op,
                              2, /*wanted=*/0);
        })
        .Case([&](BlockTableOp table) {
          if (index == 0)
            return dim(table.getSeqIds(), 0);
          return queryRuntime(
              args, "llm_rt_block_table_width",
              {table.getCache(), tensor(args, table.getSeqIds())}, op, 1,
              /*wanted=*/0);
        })
        .Case([&](LinearOp linear) { return dim(linear.getX(), index); })
        .Case([&](SeqLensOp lengths) { return dim(lengths.getSeqIds(), 0); });
  };
  SmallVector<Value> sizes;
  for (int64_t i = 0; i < type.getRank(); ++i)
    if (type.isDynamicDim(i))
      sizes.push_back(getSize(i));
  return sizes;
}

void OpLowering::addResult(Arguments &args, OpResult result,
                           ValueRange dynamicSizes) {
  auto type = cast<RankedTensorType>(result.getType());
  Value buffer = memref::AllocOp::create(
      args.b, args.loc, MemRefType::get(type.getShape(), type.getElementType()),
      dynamicSizes);
  args.values.push_back(describeBuffer(args.b, args.loc, call, buffer));
  buffers.push_back({result, buffer});
}

void OpLowering::addSlot(Arguments &args, OpResult result) {
  Value slot = call.createSlot(args.b.getI64Type());
  args.values.push_back(slot);
  slots.push_back({result, slot});
}

/// Makes the call and replaces the op's results by what it wrote.
void OpLowering::emit(Arguments &args, StringRef symbol, Operation *op) {
  call.create(args.b, args.loc, symbol, args.values,
              op->getName().getStringRef());
  for (auto [result, slot] : slots) {
    Value loaded =
        LLVM::LoadOp::create(args.b, args.loc, args.b.getI64Type(), slot);
    if (result.getType().isIndex())
      loaded = arith::IndexCastOp::create(args.b, args.loc,
                                          args.b.getIndexType(), loaded);
    else // ops not lowered yet know their operands by type
      loaded = UnrealizedConversionCastOp::create(args.b, args.loc,
                                                  result.getType(), loaded)
                   .getResult(0);
    result.replaceAllUsesWith(loaded);
  }
  for (auto [result, buffer] : buffers)
    result.replaceAllUsesWith(bufferization::ToTensorOp::create(
        args.b, args.loc, result.getType(), buffer, /*restrict=*/true,
        /*writable=*/true));
  slots.clear();
  buffers.clear();
  op->erase();
}

//===----------------------------------------------------------------------===//
// Ops
//===----------------------------------------------------------------------===//

/// Operands in the order of ODS, then results: most ops.
template <typename OpT>
void OpLowering::lowerGeneric(OpT op) {
  Arguments args(op);
  SmallVector<SmallVector<Value>> sizes;
  for (OpResult result : op->getResults())
    sizes.push_back(isa<RankedTensorType>(result.getType())
                        ? getDynamicSizes(args, result)
                        : SmallVector<Value>());
  for (Value value : op->getOperands())
    args.values.push_back(operand(args, value));
  for (auto [result, dynamicSizes] : llvm::zip_equal(op->getResults(), sizes)) {
    if (isa<RankedTensorType>(result.getType()))
      addResult(args, result, dynamicSizes);
    else
      addSlot(args, result);
  }
  emit(args, OpT::getRuntimeSymbol(), op);
}

void OpLowering::lowerOp(CreateKVCacheOp op) {
  Arguments args(op);
  auto type = cast<KVHandleType>(op.getResult().getType()).getCache();
  args.values.push_back(cacheType(args, type, op.getStrategy()));
  args.values.push_back(op.getBlocks() ? i64(args, op.getBlocks())
                                       : i64(args, int64_t(0)));
  addSlot(args, op->getResult(0));
  emit(args, op.getRuntimeSymbol(), op);
}

void OpLowering::lowerOp(CastKVOp op) {
  Arguments args(op);
  auto type = cast<KVHandleType>(op.getResult().getType()).getCache();
  args.values = {op.getCache(), cacheType(args, type)};
  op.getResult().replaceAllUsesWith(op.getCache());
  emit(args, op.getRuntimeSymbol(), op);
}

void OpLowering::lowerOp(AppendKVOp op) {
  // What the op's attributes say and the type leaves open is checked first.
  if (op.getBlockSize() || op.getMaxSeqLen()) {
    Arguments check(op);
    auto attribute = [](std::optional<uint32_t> value) {
      return value ? int64_t(*value) : ShapedType::kDynamic;
    };
    auto type =
        PagedKVCacheType::get(op.getContext(), attribute(op.getBlockSize()),
                              attribute(op.getMaxSeqLen()));
    call.create(check.b, check.loc, CastKVOp::getRuntimeSymbol(),
                {op.getCache(), cacheType(check, type)},
                op->getName().getStringRef());
  }
  Arguments args(op);
  auto pairing = int32_t(op.getPairing().value_or(RopePairing::Half));
  args.values = {op.getCache(), handleOrZero(args, op.getStepOperand()),
                 tensor(args, op.getKey()), tensor(args, op.getValue()),
                 extras(args, op, pairing)};
  emit(args, op.getRuntimeSymbol(), op);
}

void OpLowering::lowerOp(PagedAttentionOp op) {
  Arguments args(op);
  SmallVector<Value> sizes = getDynamicSizes(args, op->getResult(0));
  args.values = {op.getCache(), handleOrZero(args, op.getStepOperand()),
                 tensor(args, op.getQuery())};
  addResult(args, op->getResult(0), sizes);
  if (op.getLse())
    addResult(args, op->getResult(1), getDynamicSizes(args, op->getResult(1)));
  else
    args.values.push_back(null(args));
  args.values.push_back(attentionParams(args, op));
  args.values.push_back(extras(args, op));
  emit(args, op.getRuntimeSymbol(), op);
}

void OpLowering::lowerOp(LookupKVOp op) {
  Arguments args(op);
  SmallVector<Value> sizes = getDynamicSizes(args, op->getResult(0));
  args.values = {op.getCache(), handleOrZero(args, op.getStepOperand())};
  addResult(args, op->getResult(0), sizes);
  addResult(args, op->getResult(1), sizes);
  args.values.push_back(extras(args, op));
  emit(args, op.getRuntimeSymbol(), op);
}

void OpLowering::lowerOp(LinearOp op) {
  Arguments args(op);
  OpResult result = cast<OpResult>(op.getResult());
  SmallVector<Value> sizes = getDynamicSizes(args, result);
  constexpr int32_t kF32 = 0, kBF16 = 2; // LLM_FILE_F32, LLM_FILE_BF16
  auto number = [&](int32_t value) -> Value {
    return arith::ConstantOp::create(args.b, args.loc,
                                     args.b.getI32IntegerAttr(value));
  };
  std::optional<WeightFormat> format = op.getFormat();
  const bool isF32 = getElementTypeOrSelf(op.getWeight()).isF32();
  args.values = {tensor(args, op.getX()), tensor(args, op.getWeight()),
                 number(format  ? int32_t(*format)
                        : isF32 ? kF32
                                : kBF16),
                 number(getDTypeNumber(op.getActivations()))};
  addResult(args, result, sizes);
  emit(args, op.getRuntimeSymbol(), op);
}

void OpLowering::lowerOp(CheckSizeOp op) {
  Arguments args(op);
  Value text = ConstantEmitter::getAddress(args.b, args.loc,
                                           constants.emitString(op.getWhat()));
  args.values = {text, i64(args, op.getActual()), i64(args, op.getExpected())};
  emit(args, op.getRuntimeSymbol(), op);
}

void OpLowering::lowerOp(CallArgumentOp op) {
  Arguments args(op);
  OpBuilder &b = args.b;
  auto address = [&](Type type) {
    return getCallArgument(b, args.loc, call.getCall(), op.getKind(), type,
                           int32_t(op.getIndex()));
  };
  Value result;
  if (op.getKind() == ArgumentKind::Cache) {
    result = LLVM::LoadOp::create(b, args.loc, b.getI64Type(),
                                  address(b.getI64Type()));
  } else if (op.getKind() == ArgumentKind::Weight) {
    result = loadWeight(b, args.loc, call.getCall(),
                        cast<MemRefType>(op.getType()), int32_t(op.getIndex()));
  } else {
    result = buildBufferOfTensor(b, args.loc, cast<MemRefType>(op.getType()),
                                 address(getTensorStruct(op.getContext())));
  }
  if (isOpaque(op.getType()))
    result =
        UnrealizedConversionCastOp::create(b, args.loc, op.getType(), result)
            .getResult(0);
  op.replaceAllUsesWith(result);
  op.erase();
}

void OpLowering::lowerOp(NullKVOp op) {
  Arguments args(op);
  Value null = i64(args, int64_t(0));
  op.replaceAllUsesWith(
      UnrealizedConversionCastOp::create(args.b, args.loc, op.getType(), null)
          .getResult(0));
  op.erase();
}

LogicalResult OpLowering::lower(Operation *op) {
  return TypeSwitch<Operation *, LogicalResult>(op)
      .Case<
#define GET_OP_LIST
#include "llm/IR/LLMOps.cpp.inc"
          >([&](auto concrete) -> LogicalResult {
        if constexpr (llvm::is_one_of<decltype(concrete), RopeOp,
                                      RopeTableOp>::value)
          return op->emitOpError("must be decomposed first; run "
                                 "--llm-decompose-rope");
        else
          return lowerOp(concrete), success();
      })
      .DefaultUnreachable("not an op of the dialect");
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

namespace {
struct ConvertLLMToRuntime
    : llm::impl::ConvertLLMToRuntimeBase<ConvertLLMToRuntime> {
  void runOnOperation() override {
    ModuleOp module = getOperation();
    if (failed(refuseValues(module)))
      return signalPassFailure();
    SmallVector<func::FuncOp> functions;
    for (auto function : module.getOps<func::FuncOp>())
      if (!function.isDeclaration())
        functions.push_back(function);
    for (func::FuncOp function : functions)
      addCallArgument(function);
    for (func::FuncOp function : functions)
      passCall(module, function);
    numberWeights(module);
    ConstantEmitter constants(module);
    for (func::FuncOp function : functions)
      if (failed(lowerOps(function, constants)))
        return signalPassFailure();
    lowerPoison(module);
    replaceTypes(module);
  }

private:
  LogicalResult refuseValues(ModuleOp module) {
    WalkResult result = module.walk([](Operation *op) {
      for (Type type :
           llvm::concat<const Type>(llvm::to_vector(op->getOperandTypes()),
                                    llvm::to_vector(op->getResultTypes())))
        if (isa<PagedKVCacheType>(type)) {
          op->emitOpError("works on a cache value; run "
                          "--llm-materialize-cache first");
          return WalkResult::interrupt();
        }
      return WalkResult::advance();
    });
    return failure(result.wasInterrupted());
  }

  void addCallArgument(func::FuncOp function) {
    Type pointer = LLVM::LLVMPointerType::get(&getContext());
    (void)function.insertArgument(0, pointer, DictionaryAttr(),
                                  function.getLoc());
  }

  void passCall(ModuleOp module, func::FuncOp function) {
    SymbolTable symbols(module);
    Value call = function.getArgument(0);
    function.walk([&](func::CallOp op) {
      auto callee = symbols.lookup<func::FuncOp>(op.getCallee());
      if (callee && !callee.isDeclaration())
        op->insertOperands(0, call);
    });
  }

  LogicalResult lowerOps(func::FuncOp function, ConstantEmitter &constants) {
    SmallVector<Operation *> ops;
    function.walk([&](Operation *op) {
      if (isa_and_nonnull<LLMDialect>(op->getDialect()))
        ops.push_back(op);
    });
    if (ops.empty())
      return success();
    OpLowering lowering(*RuntimeCallBuilder::create(function), constants);
    for (Operation *op : ops)
      if (failed(lowering.lower(op)))
        return failure();
    return success();
  }

  /// A version on a path that no one takes is the null handle.
  void lowerPoison(ModuleOp module) {
    module.walk([](ub::PoisonOp op) {
      if (!isOpaque(op.getType()))
        return;
      OpBuilder b(op);
      Value null =
          arith::ConstantOp::create(b, op.getLoc(), b.getI64IntegerAttr(0));
      op.replaceAllUsesWith(null);
      op.erase();
    });
  }

  void replaceTypes(ModuleOp module) {
    AttrTypeReplacer replacer;
    Type i64 = IntegerType::get(&getContext(), 64);
    replacer.addReplacement([=](KVHandleType) { return i64; });
    replacer.addReplacement([=](KVStepType) { return i64; });
    replacer.recursivelyReplaceElementsIn(module, /*replaceAttrs=*/true,
                                          /*replaceLocs=*/false,
                                          /*replaceTypes=*/true);
    module.walk([](UnrealizedConversionCastOp op) {
      if (op.getNumOperands() != 1 ||
          op.getOperand(0).getType() != op.getResult(0).getType())
        return;
      op.getResult(0).replaceAllUsesWith(op.getOperand(0));
      op.erase();
    });
  }
};
} // namespace
