//===- PackWeights.cpp - Weight matrices as panels, tiles and blocks ------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Transforms/Passes.h"

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

/// The layout that a matrix gets: blocks of its format; tiles are of bf16, and
/// whole.
static RankedTensorType getPackedType(RankedTensorType matrix,
                                      std::optional<WeightFormat> format) {
  int64_t panels = llvm::divideCeil(matrix.getDimSize(0), kPanelRows);
  int64_t columns = matrix.getDimSize(1);
  Type element = matrix.getElementType();
  if (format)
    return RankedTensorType::get(
        {panels, columns / kTileDepth, getBlockBytes(*format)},
        IntegerType::get(matrix.getContext(), 8));
  if (element.isBF16() && columns % kTileDepth == 0)
    return RankedTensorType::get({panels, columns / kTileDepth, kTileElements},
                                 element);
  return RankedTensorType::get({panels, columns, kPanelRows}, element);
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
    findFormats();
  }

  ArrayRef<BlockArgument> get() const { return arguments.getArrayRef(); }

  /// Of the weight that an argument is, if it is quantized.
  std::optional<WeightFormat> getFormat(BlockArgument argument) const {
    return formats.lookup(argument);
  }

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

  /// Those of weights, which their attributes tell, spread along calls.
  void findFormats() {
    for (BlockArgument argument : arguments) {
      auto function = cast<func::FuncOp>(argument.getOwner()->getParentOp());
      auto weight = function.getArgAttrOfType<WeightAttr>(
          argument.getArgNumber(), LLMDialect::kWeightAttr);
      if (weight)
        formats[argument] = weight.getFormat();
    }
    while (spreadFormats())
      ;
  }

  bool spreadFormats() {
    bool changed = false;
    for (BlockArgument argument : arguments)
      for (OpOperand &use : argument.getUses())
        if (auto call = dyn_cast<func::CallOp>(use.getOwner())) {
          auto callee = symbols.lookup<func::FuncOp>(call.getCallee());
          changed |=
              unify(argument, callee.getArgument(use.getOperandNumber()));
        }
    return changed;
  }

  /// One of them is passed for the other: they have one format, that of the
  /// larger blocks where they had two, or none where one had none.
  bool unify(BlockArgument argument, BlockArgument parameter) {
    auto passed = formats.find(argument), taken = formats.find(parameter);
    if (passed == formats.end() && taken == formats.end())
      return false;
    if (passed != formats.end() && taken != formats.end() &&
        passed->second == taken->second)
      return false;
    std::optional<WeightFormat> common;
    if (passed == formats.end() || taken == formats.end())
      common = passed == formats.end() ? taken->second : passed->second;
    else if (passed->second && taken->second)
      common = getCommonFormat(*passed->second, *taken->second);
    formats[argument] = formats[parameter] = common;
    return true;
  }

  SymbolTable symbols;
  llvm::SetVector<BlockArgument> arguments;
  llvm::DenseMap<func::FuncOp, SmallVector<func::CallOp>> calls;
  llvm::DenseMap<BlockArgument, std::optional<WeightFormat>> formats;
};
} // namespace

//===----------------------------------------------------------------------===//
// Rewriting
//===----------------------------------------------------------------------===//

namespace {
/// A product with the [N, K] matrix that its right side was before packing, and
/// the format of that one's blocks if it gets some.
struct Product {
  linalg::MatmulOp op;
  int64_t n, k;
  std::optional<WeightFormat> format;
};
} // namespace

static Value castRows(OpBuilder &b, Location loc, Value rows, int64_t columns) {
  auto type = cast<RankedTensorType>(rows.getType());
  auto wanted = RankedTensorType::get({type.getDimSize(0), columns},
                                      type.getElementType());
  if (type == wanted)
    return rows;
  return tensor::CastOp::create(b, loc, wanted, rows);
}

static void replace(linalg::MatmulOp op, OpBuilder &b, Value result) {
  if (result.getType() != op.getResult(0).getType())
    result = tensor::CastOp::create(b, op.getLoc(), op.getResult(0).getType(),
                                    result);
  op.getResult(0).replaceAllUsesWith(result);
  op.erase();
}

/// What a product's input is rounded to where it may be rounded to `most`:
/// panels meet it as it is.
static Type getActivations(OpBuilder &b, Activations most, Product product) {
  auto weight = cast<RankedTensorType>(product.op.getDpsInputs()[1].getType());
  if (most == Activations::F32 || (!product.format && !isTiled(weight)))
    return b.getF32Type();
  if (most == Activations::I8 && product.format)
    return b.getI8Type();
  return b.getBF16Type();
}

/// The kernel of the runtime in place of the product.
static void replaceByKernel(Product product, Activations most) {
  linalg::MatmulOp op = product.op;
  OpBuilder b(op);
  Type activations = getActivations(b, most, product);
  Value x = castRows(b, op.getLoc(), op.getDpsInputs()[0], product.k);
  int64_t rows = cast<RankedTensorType>(x.getType()).getDimSize(0);
  auto type = RankedTensorType::get({rows, product.n}, b.getF32Type());
  WeightFormatAttr format;
  if (product.format)
    format = WeightFormatAttr::get(b.getContext(), *product.format);
  replace(op, b,
          LinearOp::create(b, op.getLoc(), type, x, op.getDpsInputs()[1],
                           format, TypeAttr::get(activations)));
}

static void packArgument(BlockArgument argument,
                         std::optional<WeightFormat> format) {
  auto function = cast<func::FuncOp>(argument.getOwner()->getParentOp());
  auto matrix = cast<RankedTensorType>(argument.getType());
  argument.setType(getPackedType(matrix, format));
  function.setFunctionType(FunctionType::get(
      function.getContext(), function.getBody().getArgumentTypes(),
      function.getResultTypes()));
  auto weight = function.getArgAttrOfType<WeightAttr>(argument.getArgNumber(),
                                                      LLMDialect::kWeightAttr);
  if (weight)
    function.setArgAttr(argument.getArgNumber(), LLMDialect::kWeightAttr,
                        WeightAttr::get(function.getContext(),
                                        weight.getNames(), weight.getAxis(),
                                        matrix.getDimSize(0), format));
}

namespace {
struct PackWeights : llm::impl::PackWeightsBase<PackWeights> {
  using PackWeightsBase::PackWeightsBase;

  void runOnOperation() override {
    PackableArguments packable(getOperation());
    SmallVector<Product> products;
    for (BlockArgument argument : packable.get()) {
      auto matrix = cast<RankedTensorType>(argument.getType());
      std::optional<WeightFormat> format = packable.getFormat(argument);
      for (Operation *user : argument.getUsers())
        if (auto op = dyn_cast<linalg::MatmulOp>(user))
          products.push_back(
              {op, matrix.getDimSize(0), matrix.getDimSize(1), format});
      packArgument(argument, format);
    }
    for (Product product : products)
      replaceByKernel(product, activations);
  }
};
} // namespace
