//===- LLMToLinalg.cpp - The specification as a conversion ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "LLMToLinalg.h"

#include "llm/Transforms/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/ControlFlow/IR/ControlFlowOps.h"
#include "mlir/Dialect/ControlFlow/Transforms/StructuralTypeConversions.h"
#include "mlir/Dialect/Func/Transforms/FuncConversions.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/SCF/Transforms/Patterns.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Transforms/RegionUtils.h"
#include "llvm/ADT/SetVector.h"

namespace mlir::llm {
#define GEN_PASS_DEF_CONVERTLLMTOLINALG
#include "llm/Transforms/Passes.h.inc"
} // namespace mlir::llm

using namespace mlir;
using namespace mlir::llm;
using namespace mlir::llm::spec;

//===----------------------------------------------------------------------===//
// Types
//===----------------------------------------------------------------------===//

/// Sizes are dynamic whatever the type says: the functions of the specification
/// take any, and bufferization is quick where no cast is in the way.
static void appendCacheParts(MLIRContext *context,
                             SmallVectorImpl<Type> &parts) {
  Type f32 = Float32Type::get(context);
  Type i32 = IntegerType::get(context, 32), i64 = IntegerType::get(context, 64);
  auto tensor = [](int64_t rank, Type element) {
    return RankedTensorType::get(
        SmallVector<int64_t>(rank, ShapedType::kDynamic), element);
  };
  Type content = tensor(5, f32);
  parts.append({content, content, tensor(2, i32), tensor(1, i32),
                tensor(3, i32), tensor(1, i64), tensor(1, i64), i64, i32, i32,
                i32, i32, i32, i32});
}

static void appendStepParts(MLIRContext *context,
                            SmallVectorImpl<Type> &parts) {
  Type ids = RankedTensorType::get({ShapedType::kDynamic},
                                   IntegerType::get(context, 32));
  Type index = IndexType::get(context);
  parts.append({ids, ids, ids, IntegerType::get(context, 64), index, index});
}

void spec::addPartTypes(TypeConverter &converter) {
  converter.addConversion([](Type type) { return type; });
  converter.addConversion(
      [](PagedKVCacheType type, SmallVectorImpl<Type> &parts) {
        appendCacheParts(type.getContext(), parts);
        return success();
      });
  converter.addConversion([](KVStepType type, SmallVectorImpl<Type> &parts) {
    appendStepParts(type.getContext(), parts);
    return success();
  });
}

int32_t spec::getElementCode(Type elementType) {
  return isa<Float32Type>(elementType)   ? 0
         : isa<Float16Type>(elementType) ? 1
                                         : 2;
}

int32_t spec::getStorageCode(Type format) {
  if (!format)
    return 0;
  return format.isInteger(4) ? 3 : format.isInteger(8) ? 2 : 1;
}

Version Version::unpack(ValueRange p) {
  return {p[0], p[1], p[2], p[3],  p[4],  p[5],  p[6],
          p[7], p[8], p[9], p[10], p[11], p[12], p[13]};
}

SmallVector<Value> Version::pack() const {
  return {k,       v,     cur,      next,     pos,       appended, members,
          running, dtype, kStorage, vStorage, blockSize, window,   sinks};
}

Step Step::unpack(ValueRange p) { return {p[0], p[1], p[2], p[3], p[4], p[5]}; }

SmallVector<Value> Step::pack() const {
  return {ids, cuSeqlens, starts, number, layers, layer};
}

//===----------------------------------------------------------------------===//
// The functions of the specification
//===----------------------------------------------------------------------===//

/// A part declares what it calls of another one.
static void moveDefinitions(ModuleOp from, ModuleOp to) {
  for (Operation &op : llvm::make_early_inc_range(*from.getBody())) {
    auto function = dyn_cast<func::FuncOp>(op);
    if (!function || !function.isDeclaration())
      op.moveBefore(to.getBody(), to.getBody()->end());
  }
}

FailureOr<Specification> Specification::load(ModuleOp module) {
  for (Operation &op : *module.getBody())
    if (auto symbol = dyn_cast<SymbolOpInterface>(op))
      if (symbol.getName().starts_with(prefix))
        return op.emitOpError() << "has a name that begins with '" << prefix
                                << "', as only the specification's may";
  OwningOpRef<ModuleOp> library = ModuleOp::create(module.getLoc());
  for (const char *text : specificationTexts) {
    OwningOpRef<ModuleOp> part = parseSourceString<ModuleOp>(
        text, module.getContext(), "Specification.mlir");
    if (!part)
      return failure();
    moveDefinitions(*part, *library);
  }
  return Specification(std::move(library));
}

func::FuncOp Specification::get(StringRef name) const {
  return cast<func::FuncOp>(SymbolTable::lookupSymbolIn(
      *library, StringAttr::get((*library).getContext(), prefix + name)));
}

void Specification::importInto(ModuleOp module) const {
  SetVector<Operation *> needed;
  // SymbolTable::getSymbolUses gives up at regions of unregistered ops.
  auto collect = [&](Operation *user) {
    user->walk([&](Operation *op) {
      op->getAttrDictionary().walk([&](SymbolRefAttr symbol) {
        if (Operation *definition = SymbolTable::lookupSymbolIn(
                *library, symbol.getRootReference()))
          needed.insert(definition);
      });
    });
  };
  collect(module);
  for (size_t i = 0; i < needed.size(); ++i)
    collect(needed[i]);
  OpBuilder b = OpBuilder::atBlockEnd(module.getBody());
  for (Operation &op : *(*library).getBody())
    if (needed.contains(&op))
      b.clone(op);
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

/// Fails at what has no specification.
static LogicalResult checkOp(Operation *op) {
  auto isHandle = [](Type type) { return isa<KVHandleType>(type); };
  if (llvm::any_of(op->getOperandTypes(), isHandle) ||
      llvm::any_of(op->getResultTypes(), isHandle))
    return op->emitOpError("works on a handle; the specification is over cache "
                           "values, before --llm-materialize-cache");
  if (isa<CheckSizeOp, CallArgumentOp>(op))
    return op->emitOpError("belongs to the exported call, of which the "
                           "specification knows nothing");
  if (isa<KVStatsOp>(op))
    return op->emitOpError("has no specification: it reads what happened to "
                           "the pool, not the value");
  if (isa<LinearOp>(op))
    return op->emitOpError("is a packed product, which the specification has "
                           "as linalg, before --llm-pack-weights");
  if (isa<RopeOp, RopeTableOp>(op))
    return op->emitOpError("must be decomposed first; run "
                           "--llm-decompose-rope");
  return success();
}

/// One-Shot Bufferize 22.1.8 forgets the second operands of a conditional
/// branch with one destination: they get a block of their own.
static void separateBranches(ModuleOp module) {
  IRRewriter rewriter(module.getContext());
  module.walk([&](cf::CondBranchOp branch) {
    if (branch.getTrueDest() != branch.getFalseDest() ||
        branch.getFalseDestOperands().empty())
      return;
    SmallVector<Value> operands(branch.getFalseDestOperands());
    Block *between = rewriter.createBlock(branch.getFalseDest());
    cf::BranchOp::create(rewriter, branch.getLoc(), branch.getFalseDest(),
                         operands);
    branch.getFalseDestOperandsMutable().clear();
    branch->setSuccessor(between, 1);
  });
}

namespace {
struct ConvertLLMToLinalg
    : llm::impl::ConvertLLMToLinalgBase<ConvertLLMToLinalg> {
  void runOnOperation() override {
    if (failed(convert(getOperation())))
      signalPassFailure();
  }

private:
  LogicalResult convert(ModuleOp module) {
    FailureOr<Specification> specification = Specification::load(module);
    if (failed(specification) || failed(checkOps(module)))
      return failure();
    TypeConverter converter;
    addPartTypes(converter);
    prepareFunctions(module);
    if (failed(convertOps(module, converter, *specification)))
      return failure();
    separateBranches(module);
    specification->importInto(module);
    return success();
  }

  static LogicalResult checkOps(ModuleOp module) {
    WalkResult result = module.walk([](Operation *op) {
      return failed(checkOp(op)) ? WalkResult::interrupt()
                                 : WalkResult::advance();
    });
    return failure(result.wasInterrupted());
  }

  /// Attributes of arguments and results are for the exported call, and no
  /// pattern reaches the arguments of dead blocks.
  static void prepareFunctions(ModuleOp module) {
    IRRewriter rewriter(module.getContext());
    for (auto function : module.getOps<func::FuncOp>()) {
      function.removeArgAttrsAttr();
      function.removeResAttrsAttr();
      (void)eraseUnreachableBlocks(rewriter, function->getRegions());
    }
  }

  LogicalResult convertOps(ModuleOp module, const TypeConverter &converter,
                           const Specification &specification) {
    ConversionTarget target(getContext());
    RewritePatternSet patterns(&getContext());
    target.addIllegalDialect<LLMDialect>();
    // The arguments of other blocks are converted with their branches.
    target.addDynamicallyLegalOp<func::FuncOp>([&](func::FuncOp function) {
      return converter.isSignatureLegal(function.getFunctionType());
    });
    target.markUnknownOpDynamicallyLegal(
        [&](Operation *op) { return converter.isLegal(op); });
    scf::populateSCFStructuralTypeConversionsAndLegality(converter, patterns,
                                                         target);
    cf::populateCFStructuralTypeConversionsAndLegality(converter, patterns,
                                                       target);
    populateFunctionOpInterfaceTypeConversionPattern<func::FuncOp>(patterns,
                                                                   converter);
    populateCallOpTypeConversionPattern(patterns, converter);
    populateReturnOpTypeConversionPattern(patterns, converter);
    populateControlFlowPatterns(converter, patterns, target);
    populateOpPatterns(converter, specification, patterns);
    return applyPartialConversion(module, target, std::move(patterns));
  }
};
} // namespace
