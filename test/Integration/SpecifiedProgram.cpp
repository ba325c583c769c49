//===- SpecifiedProgram.cpp - IR text by its specification ----------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "SpecifiedProgram.h"

#include "SpecificationEngine.h"
#include "llm/Transforms/Passes.h"

#include "mlir/ExecutionEngine/CRunnerUtils.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Target/LLVMIR/Dialect/All.h"

#include <gtest/gtest.h>

using namespace llm::testing;

static std::unique_ptr<SpecificationEngine> compile(const char *ir) {
  mlir::DialectRegistry registry;
  mlir::llm::registerPipelineDialects(registry);
  mlir::registerAllToLLVMIRTranslations(registry);
  mlir::MLIRContext context(registry, mlir::MLIRContext::Threading::DISABLED);
  auto module = mlir::parseSourceString<mlir::ModuleOp>(
      ir, mlir::ParserConfig(&context), "test.mlir");
  if (!module)
    return nullptr;
  auto engine = SpecificationEngine::create(*module);
  if (engine)
    return std::move(*engine);
  ADD_FAILURE() << toString(engine.takeError());
  return nullptr;
}

SpecifiedProgram::SpecifiedProgram(const char *ir) : engine(compile(ir)) {
  if (!engine)
    ADD_FAILURE() << "the text does not compile";
}

SpecifiedProgram::~SpecifiedProgram() = default;

std::string SpecifiedProgram::run(const char *entry) {
  using Result = StridedMemRefType<int32_t, 1>;
  Result result;
  auto message = engine->run(entry, [&](void *function) {
    reinterpret_cast<void (*)(Result *)>(function)(&result);
  });
  if (message)
    return *message;
  ADD_FAILURE() << toString(message.takeError());
  return "";
}
