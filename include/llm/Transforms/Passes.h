//===- Passes.h - Passes and pipelines --------------------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_TRANSFORMS_PASSES_H
#define LLM_TRANSFORMS_PASSES_H

#include "llm/IR/LLM.h"
#include "llm/Transforms/Activations.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Pass/Pass.h"
#include "mlir/Pass/PassOptions.h"

namespace mlir::llm {

#define GEN_PASS_DECL
#include "llm/Transforms/Passes.h.inc"

#define GEN_PASS_REGISTRATION
#include "llm/Transforms/Passes.h.inc"

/// Options of the pipeline `llm-to-cpu`.
struct LLMToCPUOptions : public PassPipelineOptions<LLMToCPUOptions> {
  Option<bool> strict{
      *this, "strict",
      ::llvm::cl::desc("Report an error where a cache would be copied."),
      ::llvm::cl::init(false)};
  Option<Activations> activations{
      *this, "activations",
      ::llvm::cl::desc("What linear layers may round their input to."),
      ::llvm::cl::values(clEnumValN(Activations::F32, "f32", ""),
                         clEnumValN(Activations::BF16, "bf16", ""),
                         clEnumValN(Activations::I8, "i8", "")),
      ::llvm::cl::init(Activations::I8)};
  Option<int64_t> rowsOfBlock{
      *this, "rows-of-block",
      ::llvm::cl::desc(
          "The most rows that go through a chain of ops together."),
      ::llvm::cl::init(128)};
  Option<std::string> programName{
      *this, "program-name", ::llvm::cl::desc("Name of the exported program."),
      ::llvm::cl::init("")};
  Option<std::string> cpu{
      *this, "cpu",
      ::llvm::cl::desc("The CPU that the program will be compiled for."),
      ::llvm::cl::init("")};
  Option<std::string> cpuFeatures{
      *this, "cpu-features",
      ::llvm::cl::desc("What it needs of a CPU, of CPUFeatures.def."),
      ::llvm::cl::init("")};
};

/// From a model over cache values to the LLVM dialect, for one CPU.
void buildLLMToCPUPipeline(OpPassManager &manager,
                           const LLMToCPUOptions &options);

/// The same input by way of the specification, for stock `mlir-runner` or an
/// execution engine: no runtime of ours is needed. Nothing frees the buffers.
void buildLLMToSpecPipeline(OpPassManager &manager);

void registerLLMPipelines();

/// The dialects and interfaces of a pipeline's input and of all its stages.
void registerPipelineDialects(DialectRegistry &registry);

} // namespace mlir::llm

#endif // LLM_TRANSFORMS_PASSES_H
