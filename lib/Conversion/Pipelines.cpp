//===- Pipelines.cpp - The way of a model to native code ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Transforms/Passes.h"

#include "mlir/Conversion/Passes.h"
#include "mlir/Dialect/Affine/Transforms/Passes.h"
#include "mlir/Dialect/Arith/Transforms/Passes.h"
#include "mlir/Dialect/Bufferization/Transforms/Passes.h"
#include "mlir/Dialect/Linalg/Passes.h"
#include "mlir/Dialect/MemRef/Transforms/Passes.h"
#include "mlir/Dialect/SCF/Transforms/Passes.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassRegistry.h"
#include "mlir/Transforms/Passes.h"

using namespace mlir;
using namespace mlir::llm;

static void addCleanup(OpPassManager &manager) {
  manager.addPass(createCanonicalizerPass());
  manager.addPass(createCSEPass());
}

/// After pass `after`, ops or dialects `gone` and types `goneTypes` must be.
static void addCheck(OpPassManager &manager, StringRef after,
                     ArrayRef<std::string> gone,
                     ArrayRef<std::string> goneTypes = {}) {
  CheckPipelineOptions options;
  options.after = after.str();
  options.gone.assign(gone.begin(), gone.end());
  options.goneTypes.assign(goneTypes.begin(), goneTypes.end());
  manager.addPass(createCheckPipeline(options));
}

/// Rewrites what One-Shot Bufferize gets wrong.
static void addBeforeBufferization(OpPassManager &manager) {
  manager.addNestedPass<func::FuncOp>(createSwitchToIf());
  manager.addNestedPass<func::FuncOp>(createCopyWhileYields());
  manager.addNestedPass<func::FuncOp>(createCopyReturns());
}

static void addBufferization(OpPassManager &manager) {
  bufferization::OneShotBufferizePassOptions options;
  options.bufferizeFunctionBoundaries = true;
  options.allowReturnAllocsFromLoops = true; // the arena outlives the turn
  options.functionBoundaryTypeConversion =
      bufferization::LayoutMapOption::IdentityLayoutMap;
  addBeforeBufferization(manager);
  manager.addPass(bufferization::createEmptyTensorEliminationPass());
  manager.addPass(bufferization::createOneShotBufferizePass(options));
  manager.addPass(createCanonicalizerPass()); // loops yield no buffers then
  manager.addPass(bufferization::createDropEquivalentBufferResultsPass());
  manager.addPass(createCSEPass()); // a copy of a view onto itself folds then
  addCleanup(manager);
}

/// Loops, parallel ones over OpenMP, then branches.
static void addControlFlowLowering(OpPassManager &manager) {
  manager.addPass(createForallToParallelLoopPass());
  manager.addNestedPass<func::FuncOp>(createConvertLinalgToLoopsPass());
  manager.addPass(createConvertSCFToOpenMPPass());
  addCleanup(manager); // inlines memref.alloca_scope, which hold no alloca
  manager.addNestedPass<func::FuncOp>(createConvertVectorToSCFPass(
      VectorTransferToSCFOptions().enableFullUnroll()));
  manager.addPass(memref::createExpandStridedMetadataPass());
  manager.addPass(createLowerAffinePass());
  manager.addPass(createSCFToControlFlowPass());
}

static void addLLVMLowering(OpPassManager &manager) {
  manager.addNestedPass<func::FuncOp>(createExpandExp());
  manager.addNestedPass<func::FuncOp>(createConvertMathToLLVMPass());
  manager.addPass(createConvertMathToLibmPass());
  manager.addPass(createConvertVectorToLLVMPass());
  manager.addPass(createConvertOpenMPToLLVMPass());
  manager.addPass(createConvertToLLVMPass());
  manager.addPass(createReconcileUnrealizedCastsPass());
}

void mlir::llm::buildLLMToCPUPipeline(OpPassManager &manager,
                                      const LLMToCPUOptions &options) {
  // Values of caches and tensors.
  addCleanup(manager);
  manager.addNestedPass<func::FuncOp>(createFuseRope());
  manager.addPass(createDecomposeRope());
  addCheck(manager, "llm-decompose-rope", {"llm.rope", "llm.rope_table"});
  PackWeightsOptions packing;
  packing.activations = options.activations;
  manager.addPass(createPackWeights(packing));
  manager.addNestedPass<func::FuncOp>(createSplitSums());
  BlockRowsOptions blocks;
  blocks.rows = options.rowsOfBlock;
  manager.addNestedPass<func::FuncOp>(createBlockRows(blocks));

  // Handles; the exported call.
  MaterializeCacheOptions materialize;
  materialize.strict = options.strict;
  manager.addPass(createMaterializeCache(materialize));
  addCheck(manager, "llm-materialize-cache", {}, {"cache"});
  manager.addPass(createExportEntry());
  manager.addPass(createConvertLLMToRuntime());
  addCheck(manager, "convert-llm-to-runtime", {"llm"}, {"handle", "step"});

  // Buffers.
  addCleanup(manager);
  addBufferization(manager);
  addCheck(manager, "one-shot-bufferize", {"tensor", "bufferization"},
           {"tensor"});
  manager.addNestedPass<func::FuncOp>(createParallelizeRows());
  manager.addPass(createPlanWorkspace());
  addCheck(manager, "llm-plan-workspace",
           {"memref.alloc", "memref.dealloc", "memref.copy"});

  // Branches, with an exit for every call that can fail.
  addControlFlowLowering(manager);
  addCheck(manager, "convert-scf-to-cf", {"scf", "affine", "linalg"});
  manager.addPass(createPropagateStatus());

  // LLVM and the program's description.
  addLLVMLowering(manager);
  EmitProgramOptions program;
  program.programName = options.programName;
  program.cpu = options.cpu;
  program.cpuFeatures = options.cpuFeatures;
  manager.addPass(createEmitProgram(program));
  addCheck(manager, "llm-to-cpu",
           {"func", "arith", "math", "memref", "vector", "cf",
            "builtin.unrealized_conversion_cast"});
}

//===----------------------------------------------------------------------===//
// llm-to-spec
//===----------------------------------------------------------------------===//

void mlir::llm::buildLLMToSpecPipeline(OpPassManager &manager) {
  manager.addPass(createDecomposeRope());
  manager.addPass(createConvertLLMToLinalg());
  addCheck(manager, "convert-llm-to-linalg", {"llm"}, {"cache", "step"});
  addCleanup(manager);
  addBeforeBufferization(manager);
  bufferization::OneShotBufferizePassOptions bufferize;
  bufferize.bufferizeFunctionBoundaries = true;
  bufferize.allowReturnAllocsFromLoops = true;
  bufferize.functionBoundaryTypeConversion =
      bufferization::LayoutMapOption::IdentityLayoutMap;
  manager.addPass(bufferization::createOneShotBufferizePass(bufferize));
  addCheck(manager, "one-shot-bufferize", {"tensor"}, {"tensor"});

  manager.addNestedPass<func::FuncOp>(createConvertLinalgToLoopsPass());
  manager.addPass(createSCFToControlFlowPass());
  manager.addPass(memref::createExpandStridedMetadataPass());
  manager.addPass(createLowerAffinePass());
  arith::ArithExpandOpsPassOptions expand;
  expand.includeBf16 = true; // what the CPU has may flush subnormals
  manager.addPass(arith::createArithExpandOpsPass(expand));
  manager.addPass(createConvertMathToLibmPass());
  manager.addPass(createConvertToLLVMPass());
  manager.addPass(createReconcileUnrealizedCastsPass());
  manager.addPass(createCSEPass()); // halves what calls take apart and put
  manager.addPass(createCanonicalizerPass()); // together again
}

//===----------------------------------------------------------------------===//
// Registration
//===----------------------------------------------------------------------===//

void mlir::llm::registerLLMPipelines() {
  PassPipelineRegistration<LLMToCPUOptions>(
      "llm-to-cpu", "From a model over cache values to the LLVM dialect.",
      buildLLMToCPUPipeline);
  PassPipelineRegistration<>(
      "llm-to-spec",
      "From a model over cache values to the LLVM dialect, by the "
      "specification.",
      buildLLMToSpecPipeline);
}
