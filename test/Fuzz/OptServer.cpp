//===- OptServer.cpp - llm-opt for many inputs ----------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What llm-opt does, without its start for every input. For scripts/fuzz-opt:
//
//   a request   the pipeline, a line; the size of the input, a line; the input
//   an answer   1 if llm-opt would have succeeded, else 0; a line
//
// The pipeline is that of --pass-pipeline, or "roundtrip".
//
//===----------------------------------------------------------------------===//

#include "llm/Transforms/Passes.h"

#include "mlir/Conversion/Passes.h"
#include "mlir/Dialect/Bufferization/Transforms/Passes.h"
#include "mlir/Dialect/Linalg/Passes.h"
#include "mlir/Dialect/MemRef/Transforms/Passes.h"
#include "mlir/Dialect/SCF/Transforms/Passes.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassRegistry.h"
#include "mlir/Tools/mlir-opt/MlirOptMain.h"
#include "mlir/Transforms/Passes.h"
#include "llvm/Support/InitLLVM.h"
#include "llvm/Support/MemoryBuffer.h"

#include <iostream>

using namespace mlir;

static void registerPasses() {
  registerTransformsPasses();
  registerConversionPasses();
  registerLinalgPasses();
  registerSCFPasses();
  bufferization::registerBufferizationPasses();
  memref::registerMemRefPasses();
  llm::registerLLMPasses();
  llm::registerLLMPipelines();
}

static bool optimize(DialectRegistry &registry, const std::string &pipeline,
                     llvm::StringRef input) {
  MlirOptMainConfig config = MlirOptMainConfig::createFromCLOptions();
  if (pipeline == "roundtrip")
    config.verifyRoundtrip(true);
  else
    config.setPassPipelineSetupFn([&](PassManager &manager) {
      return parsePassPipeline(pipeline, manager);
    });
  auto buffer = llvm::MemoryBuffer::getMemBufferCopy(input, "input.mlir");
  return succeeded(
      MlirOptMain(llvm::nulls(), std::move(buffer), registry, config));
}

int main(int argc, char **argv) {
  llvm::InitLLVM tellWhereItCrashes(argc, argv);
  DialectRegistry registry;
  llm::registerPipelineDialects(registry);
  registerPasses();
  char noThreads[] = "--mlir-disable-threading";
  char anyDialect[] = "--allow-unregistered-dialect";
  char *options[] = {argv[0], noThreads, anyDialect};
  registerAndParseCLIOptions(std::size(options), options, "llm-opt", registry);
  std::string pipeline, size, input;
  while (std::getline(std::cin, pipeline) && std::getline(std::cin, size)) {
    input.resize(std::stoull(size));
    std::cin.read(input.data(), input.size());
    std::cout << optimize(registry, pipeline, input) << std::endl;
  }
}
