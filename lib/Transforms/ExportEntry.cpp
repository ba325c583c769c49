//===- ExportEntry.cpp - Public functions as entries of the call ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Transforms/Passes.h"
#include "llm/Transforms/RuntimeCall.h"

#include "mlir/Dialect/Bufferization/IR/Bufferization.h"
#include "mlir/Dialect/ControlFlow/IR/ControlFlow.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/SymbolTable.h"
#include "llvm/ADT/StringMap.h"

namespace mlir::llm {
#define GEN_PASS_DEF_EXPORTENTRY
#include "llm/Transforms/Passes.h.inc"
} // namespace mlir::llm

using namespace mlir;
using namespace mlir::llm;

namespace {
/// Describes inputs and outputs of one entry; symbols ("T") get numbers.
class ValueDescriber {
public:
  explicit ValueDescriber(func::FuncOp function)
      : function(function), b(function.getContext()) {}

  /// {name, type, symbols, adds, below, below_symbol}, as llm_value_desc.
  FailureOr<DictionaryAttr> describe(StringRef name, RankedTensorType type,
                                     DictionaryAttr attributes) {
    ArrayAttr dims;
    if (attributes)
      dims = attributes.getAs<ArrayAttr>(LLMDialect::kDimsAttr);
    if (dims && int64_t(dims.size()) != type.getRank())
      return function.emitOpError()
             << "expected " << type.getRank() << " '" << LLMDialect::kDimsAttr
             << "' for '" << name << "', got " << dims.size();
    if (!isSupported(type.getElementType()) || type.getRank() > 6)
      return function.emitOpError()
             << "'" << name << "' cannot cross the exported call: expected up "
             << "to 6 dimensions of f32, f16, bf16, i32 or i64, got " << type;
    SmallVector<int32_t> symbols(type.getRank(), -1), adds(type.getRank(), 0);
    for (int64_t i = 0; dims && i < type.getRank(); ++i)
      if (failed(describeDim(name, type.getDimSize(i),
                             cast<StringAttr>(dims[i]), symbols[i], adds[i])))
        return failure();
    NamedAttrList result;
    result.set("name", b.getStringAttr(name));
    result.set("type", TypeAttr::get(type));
    result.set("symbols", b.getDenseI32ArrayAttr(symbols));
    result.set("adds", b.getDenseI32ArrayAttr(adds));
    if (failed(describeBound(name, attributes, result)))
      return failure();
    return result.getDictionary(b.getContext());
  }

  int32_t getNumSymbols() const { return symbolNumbers.size(); }

private:
  static bool isSupported(Type type) {
    return type.isF32() || type.isF16() || type.isBF16() ||
           type.isInteger(32) || type.isInteger(64);
  }

  /// "T", "B+1" or a number.
  LogicalResult describeDim(StringRef name, int64_t size, StringAttr text,
                            int32_t &symbol, int32_t &add) {
    auto fail = [&](StringRef why) {
      return function.emitOpError() << "dimension " << text.getValue()
                                    << " of '" << name << "' " << why;
    };
    int64_t number;
    if (!text.getValue().getAsInteger(10, number))
      return number == size ? success() : fail("differs from its type");
    if (!ShapedType::isDynamic(size))
      return fail("names a static dimension");
    auto [base, rest] = text.getValue().split('+');
    if (base.empty() || (!rest.empty() && rest.getAsInteger(10, add)) ||
        !(llvm::isAlpha(base.front())))
      return fail("is neither a name, a name + number, nor a number");
    auto entry = symbolNumbers.try_emplace(base, symbolNumbers.size());
    symbol = entry.first->second;
    return success();
  }

  LogicalResult describeBound(StringRef name, DictionaryAttr attributes,
                              NamedAttrList &result) {
    Attribute below =
        attributes ? attributes.get(LLMDialect::kBelowAttr) : Attribute();
    int64_t bound = -1;
    int32_t symbol = -1;
    if (auto number = dyn_cast_or_null<IntegerAttr>(below))
      bound = number.getInt();
    if (auto text = dyn_cast_or_null<StringAttr>(below)) {
      auto found = symbolNumbers.find(text.getValue());
      if (found == symbolNumbers.end())
        return function.emitOpError()
               << "'" << LLMDialect::kBelowAttr << "' of '" << name
               << "' names the unknown dimension '" << text.getValue() << "'";
      symbol = found->second;
    }
    result.set("below", b.getI64IntegerAttr(bound));
    result.set("below_symbol", b.getI32IntegerAttr(symbol));
    return success();
  }

  func::FuncOp function;
  Builder b;
  llvm::StringMap<int32_t> symbolNumbers;
};

/// The program's weights and cache groups, each listed once.
struct ProgramTables {
  SmallVector<Attribute> weights, groups;

  static int32_t add(SmallVectorImpl<Attribute> &table, Attribute entry) {
    auto found = llvm::find(table, entry);
    if (found == table.end())
      return table.push_back(entry), table.size() - 1;
    return found - table.begin();
  }
};

/// Rewrites one public function.
class EntryBuilder {
public:
  EntryBuilder(func::FuncOp function, ProgramTables &tables)
      : function(function), tables(tables), describer(function),
        b(function.getContext()), loc(function.getLoc()) {}

  LogicalResult build() {
    if (!function.getBody().hasOneBlock())
      return function.emitOpError("an entry needs structured control flow; run "
                                  "--lift-cf-to-scf first");
    b.setInsertionPointToStart(&function.getBody().front());
    for (BlockArgument argument : function.getArguments())
      if (failed(replaceArgument(argument)))
        return failure();
    if (failed(replaceResults()))
      return failure();
    describe();
    function.getBody().front().eraseArguments(
        [](BlockArgument) { return true; });
    function.setArgAttrsAttr({});
    function.setResAttrsAttr({});
    function.setFunctionType(b.getFunctionType({}, {}));
    return success();
  }

private:
  /// The name from `llm.name`, or "arg3".
  std::string getName(DictionaryAttr attributes, StringRef prefix,
                      unsigned number) {
    auto name = attributes ? attributes.getAs<StringAttr>(LLMDialect::kNameAttr)
                           : StringAttr();
    return name ? name.str() : (prefix + Twine(number)).str();
  }

  Value createArgument(ArgumentKind kind, int32_t index, Type type) {
    return CallArgumentOp::create(b, loc, type, kind, index);
  }

  LogicalResult replaceArgument(BlockArgument argument) {
    unsigned number = argument.getArgNumber();
    DictionaryAttr attributes = function.getArgAttrDict(number);
    std::string name = getName(attributes, "arg", number);
    if (auto handle = dyn_cast<KVHandleType>(argument.getType()))
      return replaceCache(argument, handle, name, attributes);
    auto tensor = dyn_cast<RankedTensorType>(argument.getType());
    if (!tensor)
      return function.emitOpError()
             << "argument " << number << " of an entry must be a tensor, a "
             << "weight or a cache, got " << argument.getType();
    if (auto weight = function.getArgAttrOfType<WeightAttr>(
            number, LLMDialect::kWeightAttr))
      return replaceWeight(argument, tensor, weight);
    auto input = describer.describe(name, tensor, attributes);
    if (failed(input))
      return failure();
    Value view =
        createArgument(ArgumentKind::Input, inputs.size(), getViewType(tensor));
    inputs.push_back(*input);
    return replaceByBuffer(argument, view);
  }

  LogicalResult replaceByBuffer(BlockArgument argument, Value buffer) {
    Value tensor = bufferization::ToTensorOp::create(b, loc, argument.getType(),
                                                     buffer, /*restrict=*/true);
    argument.replaceAllUsesWith(tensor);
    return success();
  }

  LogicalResult replaceWeight(BlockArgument argument, RankedTensorType type,
                              WeightAttr weight) {
    bool inBlocks = weight.getLayout(type) == PackedLayout::Blocks32;
    if (!type.getElementType().isF32() && !type.getElementType().isBF16() &&
        !inBlocks)
      return function.emitOpError()
             << "argument " << argument.getArgNumber()
             << ": expected a weight of f32 or bf16, or in blocks, got "
             << type;
    int32_t index = ProgramTables::add(
        tables.weights, b.getArrayAttr({weight, TypeAttr::get(type)}));
    auto buffer = MemRefType::get(type.getShape(), type.getElementType());
    return replaceByBuffer(argument,
                           createArgument(ArgumentKind::Weight, index, buffer));
  }

  LogicalResult replaceCache(BlockArgument argument, KVHandleType type,
                             StringRef name, DictionaryAttr attributes) {
    auto config =
        attributes
            ? attributes.getAs<KVCacheConfigAttr>(LLMDialect::kConfigAttr)
            : KVCacheConfigAttr();
    if (!config)
      config =
          KVCacheConfigAttr::get(b.getContext(), 0, 0, 0, KVStrategy::Paged);
    Attribute group = b.getArrayAttr(
        {b.getStringAttr(name), TypeAttr::get(type.getCache()), config});
    bool isFresh = function.getArgAttr(argument.getArgNumber(),
                                       LLMDialect::kFreshAttr) != nullptr;
    if (numFresh && !isFresh)
      return function.emitOpError()
             << "expected fresh caches to be the last, got argument "
             << argument.getArgNumber() << " behind one";
    numFresh += isFresh;
    argument.replaceAllUsesWith(
        createArgument(ArgumentKind::Cache, caches.size(), type));
    caches.push_back(ProgramTables::add(tables.groups, group));
    return success();
  }

  /// Results go to the host's buffers; their dynamic sizes must agree.
  LogicalResult replaceResults() {
    Operation *terminator = function.getBody().front().getTerminator();
    b.setInsertionPoint(terminator);
    for (auto [number, result] : llvm::enumerate(terminator->getOperands()))
      if (failed(replaceResult(number, result)))
        return failure();
    terminator->setOperands({});
    return success();
  }

  LogicalResult replaceResult(unsigned number, Value result) {
    auto type = dyn_cast<RankedTensorType>(result.getType());
    if (!type)
      return function.emitOpError()
             << "result " << number << " of an entry must be a tensor, got "
             << result.getType();
    DictionaryAttr attributes = function.getResultAttrDict(number);
    std::string name = getName(attributes, "result", number);
    auto output = describer.describe(name, type, attributes);
    if (failed(output))
      return failure();
    Value buffer =
        createArgument(ArgumentKind::Output, outputs.size(), getViewType(type));
    for (int64_t dim = 0; dim < type.getRank(); ++dim)
      if (type.isDynamicDim(dim))
        checkDim(name, dim, result, buffer);
    outputs.push_back(*output);
    bufferization::MaterializeInDestinationOp::create(
        b, loc, TypeRange(), result, buffer, /*restrict=*/true,
        /*writable=*/true);
    return success();
  }

  void checkDim(StringRef name, int64_t dim, Value result, Value buffer) {
    Value computed = tensor::DimOp::create(b, loc, result, dim);
    Value given = memref::DimOp::create(b, loc, buffer, dim);
    std::string what =
        ("dimension " + Twine(dim) + " of output '" + name + "'").str();
    CheckSizeOp::create(b, loc, given, computed, what);
  }

  void describe() {
    NamedAttrList entry;
    entry.set("inputs", b.getArrayAttr(inputs));
    entry.set("outputs", b.getArrayAttr(outputs));
    entry.set("caches", b.getDenseI32ArrayAttr(caches));
    entry.set("fresh", b.getI32IntegerAttr(numFresh));
    entry.set("symbols", b.getI32IntegerAttr(describer.getNumSymbols()));
    function->setAttr("llm.entry", entry.getDictionary(b.getContext()));
  }

  func::FuncOp function;
  ProgramTables &tables;
  ValueDescriber describer;
  OpBuilder b;
  Location loc;
  SmallVector<Attribute> inputs, outputs;
  SmallVector<int32_t> caches;
  int32_t numFresh = 0; ///< of the caches, the last ones
};

struct ExportEntry : llm::impl::ExportEntryBase<ExportEntry> {
  void runOnOperation() override {
    ModuleOp module = getOperation();
    ProgramTables tables;
    for (auto function : module.getOps<func::FuncOp>()) {
      if (!function.isPublic() || function.isDeclaration())
        continue;
      if (failed(refuseCalls(module, function)) ||
          failed(EntryBuilder(function, tables).build()))
        return signalPassFailure();
    }
    Builder b(&getContext());
    module->setAttr("llm.weights", b.getArrayAttr(tables.weights));
    module->setAttr("llm.groups", b.getArrayAttr(tables.groups));
  }

private:
  LogicalResult refuseCalls(ModuleOp module, func::FuncOp function) {
    auto uses = SymbolTable::getSymbolUses(function, module);
    if (!uses || uses->empty())
      return success();
    return uses->begin()->getUser()->emitOpError()
           << "refers to the entry @" << function.getName()
           << "; an entry is called by the host alone";
  }
};
} // namespace
