//===- LLMToLinalgControlFlow.cpp - What upstream does not convert 1:N ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "LLMToLinalg.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/UB/IR/UBOps.h"

using namespace mlir;
using namespace mlir::llm;
using namespace mlir::llm::spec;

namespace {
struct ConvertSelect : OpConversionPattern<arith::SelectOp> {
  using OpConversionPattern::OpConversionPattern;

  LogicalResult
  matchAndRewrite(arith::SelectOp op, OneToNOpAdaptor adaptor,
                  ConversionPatternRewriter &rewriter) const override {
    SmallVector<Value> parts;
    for (auto [a, b] :
         llvm::zip_equal(adaptor.getTrueValue(), adaptor.getFalseValue()))
      parts.push_back(arith::SelectOp::create(
          rewriter, op.getLoc(), adaptor.getCondition().front(), a, b));
    rewriter.replaceOpWithMultiple(op, {parts});
    return success();
  }
};

/// Nobody reads a poisoned version: its tensors hold no element where they may.
struct ConvertPoison : OpConversionPattern<ub::PoisonOp> {
  using OpConversionPattern::OpConversionPattern;

  LogicalResult
  matchAndRewrite(ub::PoisonOp op, OneToNOpAdaptor,
                  ConversionPatternRewriter &rewriter) const override {
    SmallVector<Type> types;
    if (failed(getTypeConverter()->convertType(op.getType(), types)))
      return failure();
    SmallVector<Value> parts;
    for (Type type : types)
      parts.push_back(createPart(rewriter, op.getLoc(), type));
    rewriter.replaceOpWithMultiple(op, {parts});
    return success();
  }

private:
  static Value createPart(OpBuilder &b, Location loc, Type type) {
    auto tensor = dyn_cast<RankedTensorType>(type);
    if (!tensor)
      return ub::PoisonOp::create(b, loc, type);
    Value zero = arith::ConstantIndexOp::create(b, loc, 0);
    SmallVector<Value> sizes(tensor.getNumDynamicDims(), zero);
    return tensor::EmptyOp::create(b, loc, tensor, sizes);
  }
};

struct ConvertExecuteRegion : OpConversionPattern<scf::ExecuteRegionOp> {
  using OpConversionPattern::OpConversionPattern;

  LogicalResult
  matchAndRewrite(scf::ExecuteRegionOp op, OneToNOpAdaptor,
                  ConversionPatternRewriter &rewriter) const override {
    SmallVector<SmallVector<Type>> types(op.getNumResults());
    for (auto [result, parts] : llvm::zip_equal(op.getResultTypes(), types))
      if (failed(getTypeConverter()->convertType(result, parts)))
        return failure();
    SmallVector<Type> flat;
    for (ArrayRef<Type> parts : types)
      flat.append(parts.begin(), parts.end());
    auto converted = scf::ExecuteRegionOp::create(rewriter, op.getLoc(), flat);
    rewriter.inlineRegionBefore(op.getRegion(), converted.getRegion(),
                                converted.getRegion().end());
    if (failed(rewriter.convertRegionTypes(&converted.getRegion(),
                                           *getTypeConverter())))
      return failure();
    SmallVector<ValueRange> results;
    ValueRange rest = converted.getResults();
    for (ArrayRef<Type> parts : types) {
      results.push_back(rest.take_front(parts.size()));
      rest = rest.drop_front(parts.size());
    }
    rewriter.replaceOpWithMultiple(op, results);
    return success();
  }
};
} // namespace

void spec::populateControlFlowPatterns(const TypeConverter &converter,
                                       RewritePatternSet &patterns,
                                       ConversionTarget &target) {
  patterns.add<ConvertSelect, ConvertPoison, ConvertExecuteRegion>(
      converter, patterns.getContext());
  // Upstream takes a yield for legal unless it knows the op around it.
  target.addDynamicallyLegalOp<scf::YieldOp>(
      [&](scf::YieldOp op) { return converter.isLegal(op); });
}
