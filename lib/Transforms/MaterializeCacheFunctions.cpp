//===- MaterializeCacheFunctions.cpp - Signatures, and step 5 ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "MaterializeCache.h"

#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/UB/IR/UBOps.h"
#include "mlir/IR/SymbolTable.h"
#include "llvm/ADT/SetVector.h"

using namespace mlir;
using namespace mlir::llm;
using namespace mlir::llm::materialize;

//===----------------------------------------------------------------------===//
// Moved and borrowed
//===----------------------------------------------------------------------===//

static bool hasCacheInSignature(func::FuncOp function) {
  auto isCacheType = [](Type type) { return isCache(type); };
  return llvm::any_of(function.getArgumentTypes(), isCacheType) ||
         llvm::any_of(function.getResultTypes(), isCacheType);
}

/// Calls are known, and only private functions are called.
static LogicalResult checkUses(ModuleOp module, func::FuncOp function) {
  if (!hasCacheInSignature(function))
    return success();
  auto uses = SymbolTable::getSymbolUses(function, module);
  if (!uses)
    return function.emitOpError("takes or returns a cache, and an unregistered "
                                "op may refer to it");
  for (SymbolTable::SymbolUse use : *uses) {
    if (!isa<func::CallOp>(use.getUser()))
      return use.getUser()->emitOpError()
             << "refers to @" << function.getName()
             << ", which takes or returns a cache, other than by a call";
    if (function.isPublic())
      return use.getUser()->emitOpError()
             << "calls the public function @" << function.getName()
             << " with a cache; only private functions may be called";
  }
  return success();
}

static void setBorrowed(BlockArgument parameter, bool borrowed) {
  auto function = cast<func::FuncOp>(parameter.getOwner()->getParentOp());
  unsigned number = parameter.getArgNumber();
  if (borrowed)
    function.setArgAttr(number, LLMDialect::kBorrowedAttr,
                        UnitAttr::get(function.getContext()));
  else
    function.removeArgAttr(number, LLMDialect::kBorrowedAttr);
}

/// A public function borrows what it does not return.
static LogicalResult borrowUntied(func::FuncOp function) {
  auto ties = getTiedResults(function);
  if (failed(ties))
    return failure();
  for (BlockArgument parameter : function.getArguments())
    if (isCache(parameter))
      setBorrowed(parameter, llvm::none_of(*ties, [&](auto tie) {
                    return tie.second == parameter.getArgNumber();
                  }));
  return success();
}

LogicalResult materialize::inferBorrowedParameters(ModuleOp module) {
  SmallVector<BlockArgument> candidates;
  for (auto function : module.getOps<func::FuncOp>()) {
    if (failed(checkUses(module, function)))
      return failure();
    if (function.isDeclaration())
      continue;
    if (function.isPublic()) {
      if (failed(borrowUntied(function)))
        return failure();
      continue;
    }
    for (BlockArgument parameter : function.getArguments())
      if (isCache(parameter)) {
        setBorrowed(parameter, true);
        candidates.push_back(parameter);
      }
  }
  // All are borrowed until a use shows otherwise: recursion is no special case.
  for (bool changed = true; changed;) {
    changed = false;
    for (BlockArgument parameter : candidates)
      if (isBorrowed(parameter) &&
          llvm::any_of(parameter.getUses(), [](OpOperand &use) {
            return classify(use) == Use::Consume;
          })) {
        setBorrowed(parameter, false);
        changed = true;
      }
  }
  return success();
}

//===----------------------------------------------------------------------===//
// Public functions
//===----------------------------------------------------------------------===//

FailureOr<SmallVector<Tie>> materialize::getTiedResults(func::FuncOp function) {
  SmallVector<unsigned> arguments;
  for (auto [number, type] : llvm::enumerate(function.getArgumentTypes()))
    if (isCache(type))
      arguments.push_back(number);
  SmallVector<Tie> ties;
  unsigned next = 0, nextFresh = function.getNumArguments();
  for (auto [number, type] : llvm::enumerate(function.getResultTypes())) {
    if (!isCache(type))
      continue;
    auto explicitTie = function.getResultAttrOfType<IntegerAttr>(
        number, LLMDialect::kTiedAttr);
    unsigned argument = explicitTie               ? explicitTie.getInt()
                        : next < arguments.size() ? arguments[next]
                                                  : ~0u;
    ++next;
    if (argument == ~0u ||
        function.getResultAttr(number, LLMDialect::kFreshAttr)) {
      ties.push_back({unsigned(number), nextFresh++});
      continue;
    }
    if (function.getArgAttr(argument, LLMDialect::kBorrowedAttr))
      return function.emitOpError()
             << "result " << number << " is tied to argument " << argument
             << ", which is borrowed";
    if (function.getArgumentTypes()[argument] != type)
      return function.emitOpError()
             << "result " << number << " of type " << type
             << " cannot be written back to argument " << argument
             << " of type " << function.getArgumentTypes()[argument];
    bool tiedTwice =
        llvm::any_of(ties, [&](auto tie) { return tie.second == argument; });
    if (tiedTwice)
      return function.emitOpError()
             << "two results are tied to argument " << argument;
    ties.push_back({unsigned(number), argument});
  }
  return ties;
}

/// Versions whose object the parameter of a region may be.
static SmallVector<Value> getSameObjects(BlockArgument argument) {
  Operation *parent = argument.getOwner()->getParentOp();
  if (auto loop = dyn_cast<scf::ForOp>(parent))
    return {loop.getTiedLoopInit(argument)->get(),
            loop.getTiedLoopYieldedValue(argument)->get()};
  auto loop = dyn_cast<scf::WhileOp>(parent);
  if (!loop)
    return {};
  unsigned number = argument.getArgNumber();
  if (argument.getOwner() == loop.getAfterBody())
    return {loop.getConditionOp().getArgs()[number]};
  return {loop.getInits()[number], loop.getYieldedValues()[number]};
}

/// Versions whose object the result of an op may be. A call may return any
/// object that it is given to keep.
static SmallVector<Value> getSameObjects(OpResult result) {
  Operation *def = result.getOwner();
  unsigned number = result.getResultNumber();
  if (auto loop = dyn_cast<scf::ForOp>(def))
    return {loop.getInitArgs()[number], loop.getYieldedValues()[number]};
  if (auto loop = dyn_cast<scf::WhileOp>(def))
    return {loop.getConditionOp().getArgs()[number]};
  SmallVector<Value> objects;
  if (isa<KVCacheInterface, func::CallOp>(def))
    for (OpOperand &operand : def->getOpOperands())
      if (isCache(operand.get()) && classify(operand) == Use::Consume)
        objects.push_back(operand.get());
  for (Region &region : def->getRegions())
    if (!region.empty())
      objects.push_back(region.front().getTerminator()->getOperand(number));
  return objects;
}

static SmallVector<Value> getSameObjects(Value version) {
  if (auto argument = dyn_cast<BlockArgument>(version))
    return getSameObjects(argument);
  return getSameObjects(cast<OpResult>(version));
}

/// May the version be the object of another parameter than number `host`?
static bool isForeign(Value version, Block &entry, unsigned host) {
  llvm::SetVector<Value> seen;
  seen.insert(version);
  for (size_t i = 0; i < seen.size(); ++i) {
    auto parameter = dyn_cast<BlockArgument>(seen[i]);
    if (parameter && parameter.getOwner() == &entry &&
        parameter.getArgNumber() != host)
      return true;
    seen.insert_range(getSameObjects(seen[i]));
  }
  return false;
}

SmallVector<Tie> materialize::getForeignResults(func::FuncOp function) {
  if (!function.isPublic())
    return {};
  auto ties = getTiedResults(function);
  assert(succeeded(ties) && "checked with the parameters");
  Block &entry = function.getBody().front();
  llvm::erase_if(*ties, [&](Tie tie) {
    return !isForeign(entry.getTerminator()->getOperand(tie.first), entry,
                      tie.second);
  });
  return std::move(*ties);
}

//===----------------------------------------------------------------------===//
// Handles
//===----------------------------------------------------------------------===//

/// The object that the host gets for a fresh result.
static void addFreshArgument(func::FuncOp function, Tie tie) {
  auto [result, argument] = tie;
  NamedAttrList attributes;
  attributes.set(LLMDialect::kFreshAttr, UnitAttr::get(function.getContext()));
  if (Attribute name = function.getResultAttr(result, LLMDialect::kNameAttr))
    attributes.set(LLMDialect::kNameAttr, name);
  (void)function.insertArgument(argument, function.getResultTypes()[result],
                                attributes.getDictionary(function.getContext()),
                                function.getLoc());
}

/// What a public function returned, its host's objects now hold.
static void writeBack(func::FuncOp function, ArrayRef<Tie> ties) {
  Operation *end = function.getBody().front().getTerminator();
  OpBuilder b(end);
  ::llvm::BitVector erased(end->getNumOperands());
  for (auto [result, argument] : ties) {
    if (argument == function.getNumArguments())
      addFreshArgument(function, {result, argument});
    Value host = function.getArgument(argument);
    Value version = end->getOperand(result);
    if (host != version)
      ReplaceKVOp::create(b, end->getLoc(), host, version);
    erased.set(result);
  }
  end->eraseOperands(erased);
  (void)function.eraseResults(erased);
}

/// The consuming op over a handle, which has no cache result.
static void dropCacheResult(KVCacheInterface op) {
  Value cache = op.getCacheOperand().get();
  Value next = op.getResultCache();
  next.replaceAllUsesWith(cache);
  OperationState state(op.getLoc(), op->getName(), op->getOperands(), {},
                       op->getAttrs());
  SmallVector<Value> kept;
  for (Value result : op->getResults())
    if (result != next) {
      state.addTypes(result.getType());
      kept.push_back(result);
    }
  OpBuilder b(op);
  Operation *onHandle = b.create(state);
  for (auto [before, after] : llvm::zip_equal(kept, onHandle->getResults()))
    before.replaceAllUsesWith(after);
  op.erase();
}

static void replaceTypes(ModuleOp module) {
  AttrTypeReplacer replacer;
  replacer.addReplacement([](KVHandleType type) {
    return std::make_pair(Type(type), WalkResult::skip());
  });
  replacer.addReplacement([](PagedKVCacheType type) {
    return std::make_pair(Type(KVHandleType::get(type)), WalkResult::skip());
  });
  replacer.recursivelyReplaceElementsIn(module, /*replaceAttrs=*/true,
                                        /*replaceLocs=*/false,
                                        /*replaceTypes=*/true);
}

/// Poison may become any handle, to be dropped twice: null may not.
static void nullInsteadOfPoison(ModuleOp module) {
  module.walk([](ub::PoisonOp poison) {
    if (!isa<KVHandleType>(poison.getType()))
      return;
    OpBuilder b(poison);
    poison.replaceAllUsesWith(
        NullKVOp::create(b, poison.getLoc(), poison.getType()).getResult());
    poison.erase();
  });
}

LogicalResult materialize::convertToHandles(ModuleOp module) {
  SmallVector<std::pair<func::FuncOp, SmallVector<Tie>>> entries;
  for (auto function : module.getOps<func::FuncOp>())
    if (function.isPublic() && !function.isDeclaration()) {
      auto ties = getTiedResults(function);
      if (failed(ties))
        return failure();
      if (!ties->empty())
        entries.push_back({function, std::move(*ties)});
    }
  SmallVector<KVCacheInterface> consumers;
  module.walk([&](KVCacheInterface op) {
    // A cast makes a handle of another type.
    if (op.isConsuming() && op.getResultCache() && !isa<CastKVOp>(op))
      consumers.push_back(op);
  });
  replaceTypes(module);
  nullInsteadOfPoison(module);
  for (KVCacheInterface op : consumers)
    dropCacheResult(op);
  for (auto &[function, ties] : entries)
    writeBack(function, ties);
  return success();
}
