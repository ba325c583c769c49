//===- CompilerTest.cpp - Modules that are no models ----------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ErrorMessage.h"

#include "llm/Driver/Compiler.h"
#include "llm/Transforms/Passes.h"

#include "mlir/Parser/Parser.h"
#include <gtest/gtest.h>

using namespace mlir;
using namespace mlir::llm;

/// What is wrong with the text as a model.
static std::string failureOf(const char *ir) {
  DialectRegistry registry;
  registerPipelineDialects(registry);
  MLIRContext context(registry, MLIRContext::Threading::DISABLED);
  context.allowUnregisteredDialects();
  ScopedDiagnosticHandler quiet(&context, [](Diagnostic &) {});
  auto module = parseSourceString<ModuleOp>(ir, &context);
  return module ? messageOf(CompiledModel::compile(*module)) : "no module";
}

TEST(CompilerTest, SaysThatLoweringFailed) {
  EXPECT_EQ(failureOf("func.func @entry(%buffer: memref<4xf32>) { return }"),
            "the model could not be lowered");
}

TEST(CompilerTest, SaysThatTranslationFailed) {
  EXPECT_EQ(
      failureOf(R"(func.func @entry() { "other.op"() : () -> () return })"),
      "the model could not be translated to LLVM IR");
}
