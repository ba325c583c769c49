//===- SpecificationEngine.cpp - Runs modules by their specification ------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "SpecificationEngine.h"

#include "llm/Transforms/Passes.h"

#include "mlir/ExecutionEngine/ExecutionEngine.h"
#include "mlir/Pass/PassManager.h"
#include "llvm/ExecutionEngine/Orc/JITTargetMachineBuilder.h"
#include "llvm/Support/Allocator.h"
#include "llvm/Support/TargetSelect.h"

#include <csetjmp>

using namespace llm::testing;

//===----------------------------------------------------------------------===//
// What compiled code calls
//===----------------------------------------------------------------------===//

static thread_local jmp_buf leave;
static thread_local std::string message;
/// The specification frees nothing: its memory ends with the run.
static thread_local llvm::BumpPtrAllocatorImpl<llvm::MallocAllocator, 1 << 20>
    memory;

static int keepMessage(const char *text) {
  message = text;
  return 0;
}

[[noreturn]] static void leaveProgram() { longjmp(leave, 1); }

static void *allocate(size_t bytes) { return memory.Allocate(bytes, 64); }

static llvm::orc::SymbolMap
replaceSymbols(llvm::orc::MangleAndInterner intern) {
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

//===----------------------------------------------------------------------===//
// SpecificationEngine
//===----------------------------------------------------------------------===//

/// The engine asks its options for no level once it has made a machine.
static llvm::Expected<std::unique_ptr<llvm::TargetMachine>> makeMachine() {
  llvm::InitializeNativeTarget();
  llvm::InitializeNativeTargetAsmPrinter();
  auto builder = llvm::orc::JITTargetMachineBuilder::detectHost();
  if (!builder)
    return builder.takeError();
  builder->setCodeGenOptLevel(llvm::CodeGenOptLevel::None);
  return builder->createTargetMachine();
}

llvm::Expected<std::unique_ptr<SpecificationEngine>>
SpecificationEngine::create(mlir::ModuleOp module) {
  mlir::PassManager manager(module.getContext());
  mlir::llm::buildLLMToSpecPipeline(manager);
  manager.enableVerifier(false);
  if (failed(manager.run(module)))
    return llvm::createStringError("the specification could not be lowered");
  auto machine = makeMachine();
  if (!machine)
    return machine.takeError();
  mlir::ExecutionEngineOptions options;
  const llvm::StringRef libraries[] = {LLM_RUNNER_UTILS};
  options.sharedLibPaths = libraries;
  auto engine =
      mlir::ExecutionEngine::create(module, options, std::move(*machine));
  if (!engine)
    return engine.takeError();
  (*engine)->registerSymbols(replaceSymbols);
  return std::unique_ptr<SpecificationEngine>(
      new SpecificationEngine(std::move(*engine)));
}

SpecificationEngine::SpecificationEngine(
    std::unique_ptr<mlir::ExecutionEngine> engine)
    : engine(std::move(engine)) {}

SpecificationEngine::~SpecificationEngine() = default;

llvm::Expected<std::string>
SpecificationEngine::run(llvm::StringRef entry,
                         llvm::function_ref<void(void *)> call) {
  auto address = engine->lookup(("_mlir_ciface_" + entry).str());
  if (!address)
    return address.takeError();
  void *function = *address;
  memory.Reset();
  message.clear();
  if (setjmp(leave) == 0)
    call(function);
  return message;
}
