//===- SpecifiedProgram.cpp - IR text by its specification ----------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "SpecifiedProgram.h"

#include "llm/Transforms/Passes.h"

#include "mlir/ExecutionEngine/CRunnerUtils.h"
#include "mlir/ExecutionEngine/ExecutionEngine.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Target/LLVMIR/Dialect/All.h"
#include "llvm/Support/TargetSelect.h"

#include <gtest/gtest.h>

#include <csetjmp>
#include <cstdlib>
#include <memory>
#include <vector>

using namespace llm::testing;

//===----------------------------------------------------------------------===//
// Assertions
//===----------------------------------------------------------------------===//

namespace {
/// Where a failed assertion goes instead of ending the process.
thread_local jmp_buf leave;
thread_local std::string message;

int keepMessage(const char *text) {
  message = text;
  return 0;
}

[[noreturn]] void leaveProgram() { longjmp(leave, 1); }

/// The specification frees nothing: its memory ends with the run.
thread_local std::vector<std::unique_ptr<void, decltype(&std::free)>> memory;

void *allocate(size_t bytes) {
  return memory.emplace_back(std::malloc(bytes), &std::free).get();
}

llvm::orc::SymbolMap replaceSymbols(llvm::orc::MangleAndInterner intern) {
  const auto address = [](auto *function) {
    return llvm::orc::ExecutorSymbolDef(
        llvm::orc::ExecutorAddr::fromPtr(function),
        llvm::JITSymbolFlags::Exported);
  };
  llvm::orc::SymbolMap symbols;
  symbols[intern("puts")] = address(&keepMessage);
  symbols[intern("abort")] = address(&leaveProgram);
  symbols[intern("malloc")] = address(&allocate);
  return symbols;
}
} // namespace

//===----------------------------------------------------------------------===//
// SpecifiedProgram
//===----------------------------------------------------------------------===//

struct SpecifiedProgram::Code {
  std::unique_ptr<mlir::ExecutionEngine> engine;
};

static std::unique_ptr<mlir::ExecutionEngine> compile(const char *ir) {
  llvm::InitializeNativeTarget();
  llvm::InitializeNativeTargetAsmPrinter();
  mlir::DialectRegistry registry;
  mlir::llm::registerPipelineDialects(registry);
  mlir::registerAllToLLVMIRTranslations(registry);
  mlir::MLIRContext context(registry, mlir::MLIRContext::Threading::DISABLED);
  auto module = mlir::parseSourceString<mlir::ModuleOp>(
      ir, mlir::ParserConfig(&context), "test.mlir");
  if (!module)
    return nullptr;
  mlir::PassManager manager(&context);
  mlir::llm::buildLLMToSpecPipeline(manager);
  if (failed(manager.run(*module)))
    return nullptr;
  mlir::ExecutionEngineOptions options;
  const llvm::StringRef libraries[] = {LLM_RUNNER_UTILS};
  options.sharedLibPaths = libraries;
  options.jitCodeGenOptLevel = llvm::CodeGenOptLevel::None;
  auto engine = mlir::ExecutionEngine::create(*module, options);
  if (!engine) {
    ADD_FAILURE() << toString(engine.takeError());
    return nullptr;
  }
  (*engine)->registerSymbols(replaceSymbols);
  return std::move(*engine);
}

SpecifiedProgram::SpecifiedProgram(const char *ir)
    : code(std::make_unique<Code>()) {
  code->engine = compile(ir);
  if (!code->engine)
    ADD_FAILURE() << "the text does not compile";
}

SpecifiedProgram::~SpecifiedProgram() = default;

std::string SpecifiedProgram::run(const char *entry) {
  auto address = code->engine->lookup(std::string("_mlir_ciface_") + entry);
  if (!address) {
    ADD_FAILURE() << toString(address.takeError());
    return "";
  }
  using Result = StridedMemRefType<int32_t, 1>;
  auto function = reinterpret_cast<void (*)(Result *)>(*address);
  Result result;
  message.clear();
  if (setjmp(leave) == 0)
    function(&result);
  memory.clear();
  return message;
}
