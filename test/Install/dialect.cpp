//===- dialect.cpp - A compiler that speaks our dialect -------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Parses the file that it is given and lowers it, with what is installed alone.
//
//===----------------------------------------------------------------------===//

#include "llm/IR/LLM.h"
#include "llm/Transforms/Passes.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Pass/PassManager.h"

int main(int argc, char **argv) {
  if (argc != 2)
    return 2;
  mlir::DialectRegistry registry;
  mlir::llm::registerPipelineDialects(registry);
  mlir::MLIRContext context(registry);
  auto module = mlir::parseSourceFile<mlir::ModuleOp>(argv[1], &context);
  if (!module)
    return 1;
  int appends = 0;
  module->walk([&](mlir::llm::AppendKVOp) { ++appends; });
  mlir::PassManager pipeline(&context);
  mlir::llm::buildLLMToCPUPipeline(pipeline, mlir::llm::LLMToCPUOptions());
  return appends == 1 && mlir::succeeded(pipeline.run(*module)) ? 0 : 1;
}
