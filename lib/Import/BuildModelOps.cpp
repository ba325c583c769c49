//===- BuildModelOps.cpp - What layers are made of ------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "BuildModelOps.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::llm;

static RankedTensorType tensorType(Value value) {
  return cast<RankedTensorType>(value.getType());
}

ActivationBuilder::ActivationBuilder(func::FuncOp function)
    : ImplicitLocOpBuilder(function.getLoc(), function.getContext()) {
  setInsertionPointToEnd(&function.getBody().front());
  zeroIndex = arith::ConstantIndexOp::create(*this, 0);
  zero = constant(0.0);
}

void ActivationBuilder::setPlace(StringRef name) {
  setLoc(NameLoc::get(getStringAttr(name)));
}

Value ActivationBuilder::sizeOf(Value tensor) {
  return tensor::DimOp::create(*this, tensor, zeroIndex);
}

//===----------------------------------------------------------------------===//
// Layers
//===----------------------------------------------------------------------===//

Value ActivationBuilder::gatherRows(Value table, Value indices) {
  setRowsOf(indices);
  Value init = empty({tensorType(table).getDimSize(1)});
  return loops(indices, init, [&](ValueRange elements) -> Value {
    Value row = arith::IndexCastOp::create(*this, getIndexType(), elements[0]);
    Value column = linalg::IndexOp::create(*this, 1);
    Value value =
        tensor::ExtractOp::create(*this, table, ValueRange{row, column});
    if (value.getType().isF32())
      return value;
    return arith::ExtFOp::create(*this, getF32Type(), value);
  });
}

Value ActivationBuilder::inverseRootMeanSquare(Value x, double epsilon) {
  ArrayRef<int64_t> shape = tensorType(x).getShape().drop_front();
  Value sum =
      loops(x, zeros(shape.drop_back()), [&](ValueRange elements) -> Value {
        Value square = arith::MulFOp::create(*this, elements[0], elements[0]);
        return arith::AddFOp::create(*this, elements[1], square);
      });
  Value size = constant(shape.back());
  Value bias = constant(epsilon);
  return loops({}, sum, [&](ValueRange elements) -> Value {
    Value mean = arith::DivFOp::create(*this, elements[0], size);
    Value biased = arith::AddFOp::create(*this, mean, bias);
    return math::RsqrtOp::create(*this, biased);
  });
}

Value ActivationBuilder::rmsNorm(Value x, Value weight, double epsilon) {
  Value scale = inverseRootMeanSquare(x, epsilon);
  Value init = empty(tensorType(x).getShape().drop_front());
  return loops({x, scale, weight}, init, [&](ValueRange elements) -> Value {
    Value scaled = arith::MulFOp::create(*this, elements[0], elements[1]);
    return arith::MulFOp::create(*this, scaled, elements[2]);
  });
}

Value ActivationBuilder::linear(Value x, Value weight) {
  Value init = zeros({tensorType(weight).getDimSize(0)});
  return linalg::MatmulTransposeBOp::create(*this, getLoc(), init.getType(),
                                            ValueRange{x, weight}, init)
      .getResult(0);
}

Value ActivationBuilder::addToRows(Value x, Value bias) {
  return loops(bias, x, [&](ValueRange elements) -> Value {
    return arith::AddFOp::create(*this, elements[1], elements[0]);
  });
}

Value ActivationBuilder::addTo(Value stream, Value update) {
  return loops(update, stream, [&](ValueRange elements) -> Value {
    return arith::AddFOp::create(*this, elements[1], elements[0]);
  });
}

Value ActivationBuilder::gatedSilu(Value gateUp) {
  int64_t size = tensorType(gateUp).getDimSize(1) / 2;
  Value gate = columns(gateUp, 0, size);
  Value up = columns(gateUp, size, size);
  Value one = constant(1.0);
  return loops({gate, up}, empty({size}), [&](ValueRange elements) -> Value {
    Value negated = arith::NegFOp::create(*this, elements[0]);
    Value power = math::ExpOp::create(*this, negated);
    Value divisor = arith::AddFOp::create(*this, one, power);
    Value silu = arith::DivFOp::create(*this, elements[0], divisor);
    return arith::MulFOp::create(*this, silu, elements[1]);
  });
}

Value ActivationBuilder::heads(Value x, int64_t offset, int64_t heads,
                               int64_t headDim) {
  Value slice = columns(x, offset, heads * headDim);
  SmallVector<OpFoldResult> shape = {rows, getIndexAttr(heads),
                                     getIndexAttr(headDim)};
  SmallVector<ReassociationIndices> groups = {{0}, {1, 2}};
  return tensor::ExpandShapeOp::create(*this, activationType({heads, headDim}),
                                       slice, groups, shape);
}

Value ActivationBuilder::joinHeads(Value x) {
  SmallVector<ReassociationIndices> groups = {{0}, {1, 2}};
  return tensor::CollapseShapeOp::create(*this, x, groups);
}

//===----------------------------------------------------------------------===//
// Tensors
//===----------------------------------------------------------------------===//

RankedTensorType ActivationBuilder::activationType(ArrayRef<int64_t> shape) {
  SmallVector<int64_t> sizes = {ShapedType::kDynamic};
  llvm::append_range(sizes, shape);
  return RankedTensorType::get(sizes, getF32Type());
}

Value ActivationBuilder::constant(double value) {
  return arith::ConstantOp::create(*this, getF32FloatAttr(value));
}

Value ActivationBuilder::empty(ArrayRef<int64_t> shape) {
  return tensor::EmptyOp::create(*this, activationType(shape), rows);
}

Value ActivationBuilder::zeros(ArrayRef<int64_t> shape) {
  return linalg::FillOp::create(*this, zero, empty(shape)).getResult(0);
}

Value ActivationBuilder::columns(Value x, int64_t offset, int64_t size) {
  SmallVector<OpFoldResult> offsets = {getIndexAttr(0), getIndexAttr(offset)};
  SmallVector<OpFoldResult> sizes = {rows, getIndexAttr(size)};
  SmallVector<OpFoldResult> strides(2, getIndexAttr(1));
  return tensor::ExtractSliceOp::create(*this, activationType({size}), x,
                                        offsets, sizes, strides);
}

Value ActivationBuilder::loops(ValueRange inputs, Value init, ScalarBody body) {
  int64_t depth = tensorType(init).getRank();
  for (Value input : inputs)
    depth = std::max(depth, tensorType(input).getRank());

  SmallVector<AffineMap> maps;
  for (Value operand :
       llvm::concat<Value>(llvm::to_vector(inputs), SmallVector<Value>{init})) {
    RankedTensorType type = tensorType(operand);
    bool perColumn = type.getRank() == 1 && !type.isDynamicDim(0);
    AffineMap identity = AffineMap::getMultiDimIdentityMap(depth, getContext());
    maps.push_back(perColumn ? identity.getMinorSubMap(1)
                             : identity.getMajorSubMap(type.getRank()));
  }

  SmallVector<utils::IteratorType> iterators(depth,
                                             utils::IteratorType::parallel);
  if (tensorType(init).getRank() < depth)
    iterators.back() = utils::IteratorType::reduction;

  auto buildBody = [&](OpBuilder &, Location, ValueRange elements) {
    linalg::YieldOp::create(*this, body(elements));
  };
  return linalg::GenericOp::create(*this, init.getType(), inputs, init, maps,
                                   iterators, buildBody)
      .getResult(0);
}
