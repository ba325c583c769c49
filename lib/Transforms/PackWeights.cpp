//===- PackWeights.cpp - Weight matrices as panels ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Transforms/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Matchers.h"
#include "mlir/IR/SymbolTable.h"
#include "llvm/ADT/SetVector.h"

namespace mlir::llm {
#define GEN_PASS_DEF_PACKWEIGHTS
#include "llm/Transforms/Passes.h.inc"
} // namespace mlir::llm

using namespace mlir;
using namespace mlir::llm;

/// Rows of one panel; `LLM_LAYOUT_PANEL32` of CAPI.h.
static constexpr int64_t kPanelRows = 32;

static RankedTensorType getPanelType(RankedTensorType matrix) {
  int64_t panels = llvm::divideCeil(matrix.getDimSize(0), kPanelRows);
  return RankedTensorType::get({panels, matrix.getDimSize(1), kPanelRows},
                               matrix.getElementType());
}

//===----------------------------------------------------------------------===//
// Which arguments can be packed
//===----------------------------------------------------------------------===//

/// `x * transpose(w)` with a zero initial value, by its indexing maps.
static bool isTransposedProduct(linalg::MatmulOp op) {
  MLIRContext *context = op.getContext();
  AffineExpr m, n, k;
  bindDims(context, m, n, k);
  AffineMap expected[] = {AffineMap::get(3, 0, {m, k}, context),
                          AffineMap::get(3, 0, {n, k}, context),
                          AffineMap::get(3, 0, {m, n}, context)};
  auto fill = op.getDpsInits()[0].getDefiningOp<linalg::FillOp>();
  return fill && matchPattern(fill.value(), m_AnyZeroFloat()) &&
         op.hasPureTensorSemantics() &&
         op.getIndexingMapsArray() == ArrayRef<AffineMap>(expected) &&
         getElementTypeOrSelf(op.getResult(0)).isF32() &&
         getElementTypeOrSelf(op.getDpsInputs()[0]).isF32();
}

namespace {
/// The weight arguments, and the parameters of private functions that they are
/// passed to, which are used by transposed products alone. Starts from all and
/// takes away until nothing changes, so recursion is no special case.
class PackableArguments {
public:
  explicit PackableArguments(ModuleOp module) : symbols(module) {
    collect(module);
    while (removeOne())
      ;
  }

  ArrayRef<BlockArgument> get() const { return arguments.getArrayRef(); }

private:
  void collect(ModuleOp module) {
    for (auto function : module.getOps<func::FuncOp>()) {
      if (function.isDeclaration())
        continue;
      for (BlockArgument argument : function.getArguments())
        if (isCandidate(function, argument))
          arguments.insert(argument);
      collectCalls(function, module);
    }
  }

  bool isCandidate(func::FuncOp function, BlockArgument argument) {
    auto type = dyn_cast<RankedTensorType>(argument.getType());
    if (!type || type.getRank() != 2 || !type.hasStaticShape() ||
        !isa<Float32Type, BFloat16Type>(type.getElementType()))
      return false;
    return function.isPrivate() || function.getArgAttr(argument.getArgNumber(),
                                                       LLMDialect::kWeightAttr);
  }

  /// All calls of a private function; none where it is used in another way.
  void collectCalls(func::FuncOp function, ModuleOp module) {
    auto uses = SymbolTable::getSymbolUses(function, module);
    if (!function.isPrivate() || !uses)
      return;
    SmallVector<func::CallOp> found;
    for (SymbolTable::SymbolUse use : *uses) {
      auto call = dyn_cast<func::CallOp>(use.getUser());
      if (!call)
        return;
      found.push_back(call);
    }
    calls[function] = std::move(found);
  }

  bool isPackableUse(OpOperand &use) {
    if (auto product = dyn_cast<linalg::MatmulOp>(use.getOwner()))
      return use.getOperandNumber() == 1 && isTransposedProduct(product);
    auto call = dyn_cast<func::CallOp>(use.getOwner());
    if (!call)
      return false;
    auto callee = symbols.lookup<func::FuncOp>(call.getCallee());
    return callee && !callee.isDeclaration() &&
           arguments.contains(callee.getArgument(use.getOperandNumber()));
  }

  /// Every caller passes something packable.
  bool isPassedPackable(BlockArgument argument) {
    auto function = cast<func::FuncOp>(argument.getOwner()->getParentOp());
    if (!function.isPrivate())
      return true;
    auto found = calls.find(function);
    return found != calls.end() && !found->second.empty() &&
           llvm::all_of(found->second, [&](func::CallOp call) {
             auto passed = dyn_cast<BlockArgument>(
                 call.getOperand(argument.getArgNumber()));
             return passed && arguments.contains(passed);
           });
  }

  bool removeOne() {
    for (BlockArgument argument : arguments) {
      if (!argument.use_empty() && isPassedPackable(argument) &&
          llvm::all_of(argument.getUses(),
                       [&](OpOperand &use) { return isPackableUse(use); }))
        continue;
      arguments.remove(argument);
      return true;
    }
    return false;
  }

  SymbolTable symbols;
  llvm::SetVector<BlockArgument> arguments;
  llvm::DenseMap<func::FuncOp, SmallVector<func::CallOp>> calls;
};
} // namespace

//===----------------------------------------------------------------------===//
// Rewriting
//===----------------------------------------------------------------------===//

/// Sum over k of x[m, k] * panels[p, k, n] into [m, p, n].
static Value buildPanelProduct(OpBuilder &b, Location loc, Value x,
                               Value panels) {
  auto type = cast<RankedTensorType>(panels.getType());
  SmallVector<OpFoldResult> sizes = {tensor::getMixedSize(b, loc, x, 0),
                                     b.getIndexAttr(type.getDimSize(0)),
                                     b.getIndexAttr(kPanelRows)};
  Value empty = tensor::EmptyOp::create(b, loc, sizes, b.getF32Type());
  Value zero = arith::ConstantOp::create(b, loc, b.getF32FloatAttr(0));
  Value init = linalg::FillOp::create(b, loc, zero, empty).getResult(0);
  AffineExpr m, p, k, n;
  bindDims(b.getContext(), m, p, k, n);
  auto map = [&](ArrayRef<AffineExpr> results) {
    return AffineMap::get(4, 0, results, b.getContext());
  };
  using utils::IteratorType;
  SmallVector<IteratorType> iterators = {
      IteratorType::parallel, IteratorType::parallel, IteratorType::reduction,
      IteratorType::parallel};
  auto product = linalg::GenericOp::create(
      b, loc, TypeRange{init.getType()}, ValueRange{x, panels},
      ValueRange{init},
      ArrayRef<AffineMap>{map({m, k}), map({p, k, n}), map({m, p, n})},
      iterators, [](OpBuilder &nested, Location loc, ValueRange args) {
        Value weight = args[1];
        if (!weight.getType().isF32())
          weight =
              arith::ExtFOp::create(nested, loc, nested.getF32Type(), weight);
        Value term = arith::MulFOp::create(nested, loc, args[0], weight);
        Value sum = arith::AddFOp::create(nested, loc, args[2], term);
        linalg::YieldOp::create(nested, loc, sum);
      });
  product->setAttr("llm.linear", b.getUnitAttr());
  return product.getResult(0);
}

/// The product over panels in place of `op`, without the padding's columns.
static void replaceProduct(linalg::MatmulOp op) {
  OpBuilder b(op);
  Location loc = op.getLoc();
  auto type = cast<RankedTensorType>(op.getResult(0).getType());
  Value product =
      buildPanelProduct(b, loc, op.getDpsInputs()[0], op.getDpsInputs()[1]);
  SmallVector<ReassociationIndices> columns = {{0}, {1, 2}};
  Value padded = tensor::CollapseShapeOp::create(b, loc, product, columns);
  SmallVector<OpFoldResult> sizes = {tensor::getMixedSize(b, loc, padded, 0),
                                     b.getIndexAttr(type.getDimSize(1))};
  SmallVector<OpFoldResult> offsets(2, b.getIndexAttr(0));
  SmallVector<OpFoldResult> strides(2, b.getIndexAttr(1));
  Value result =
      tensor::ExtractSliceOp::create(b, loc, padded, offsets, sizes, strides);
  if (result.getType() != type)
    result = tensor::CastOp::create(b, loc, type, result);
  op.getResult(0).replaceAllUsesWith(result);
  op.erase();
}

static void packArgument(BlockArgument argument) {
  auto function = cast<func::FuncOp>(argument.getOwner()->getParentOp());
  auto matrix = cast<RankedTensorType>(argument.getType());
  argument.setType(getPanelType(matrix));
  function.setFunctionType(FunctionType::get(
      function.getContext(), function.getBody().getArgumentTypes(),
      function.getResultTypes()));
  auto weight = function.getArgAttrOfType<WeightAttr>(argument.getArgNumber(),
                                                      LLMDialect::kWeightAttr);
  if (weight)
    function.setArgAttr(argument.getArgNumber(), LLMDialect::kWeightAttr,
                        WeightAttr::get(function.getContext(),
                                        weight.getNames(), weight.getAxis(),
                                        matrix.getDimSize(0)));
}

namespace {
struct PackWeights : llm::impl::PackWeightsBase<PackWeights> {
  void runOnOperation() override {
    PackableArguments packable(getOperation());
    SmallVector<linalg::MatmulOp> products;
    for (BlockArgument argument : packable.get()) {
      for (Operation *user : argument.getUsers())
        if (auto product = dyn_cast<linalg::MatmulOp>(user))
          products.push_back(product);
      packArgument(argument);
    }
    for (linalg::MatmulOp product : products)
      replaceProduct(product);
  }
};
} // namespace
