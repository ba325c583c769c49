//===- Compiler.cpp - From a model module to native code ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/Compiler.h"
#include "llm/Transforms/Passes.h"

#include "mlir/ExecutionEngine/OptUtils.h"
#include "mlir/IR/Verifier.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Target/LLVMIR/Dialect/All.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/ExecutionEngine/Orc/LLJIT.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/TargetParser/Host.h"

using namespace mlir;
using namespace mlir::llm;

static ::llvm::Error makeError(const ::llvm::Twine &message) {
  return ::llvm::createStringError(::llvm::inconvertibleErrorCode(), message);
}

/// This machine's CPU with all its vector registers, multiply-adds contracted.
static ::llvm::Expected<::llvm::orc::JITTargetMachineBuilder>
createTargetBuilder(CompileOptions options) {
  static bool initialized = [] {
    ::llvm::InitializeNativeTarget();
    ::llvm::InitializeNativeTargetAsmPrinter();
    return true;
  }();
  (void)initialized;
  auto builder = ::llvm::orc::JITTargetMachineBuilder::detectHost();
  if (!builder)
    return builder.takeError();
  builder->setCodeGenOptLevel(
      *::llvm::CodeGenOpt::getLevel(std::min(options.optLevel, 3u)));
  builder->getOptions().AllowFPOpFusion = ::llvm::FPOpFusion::Fast;
  builder->getFeatures().AddFeature("prefer-256-bit", false);
  return builder;
}

static ::llvm::Error lower(ModuleOp module) {
  PassManager manager(module.getContext());
  buildLLMToCPUPipeline(manager, LLMToCPUOptions());
  manager.enableVerifier(false); // after each pass; once at the end is enough
  if (failed(manager.run(module)) || failed(verify(module)))
    return makeError("the model could not be lowered");
  return ::llvm::Error::success();
}

/// LLVM IR of the lowered module, optimized for `machine`.
static ::llvm::Expected<::llvm::orc::ThreadSafeModule>
translate(ModuleOp module, ::llvm::TargetMachine &machine,
          CompileOptions options) {
  auto context = std::make_unique<::llvm::LLVMContext>();
  std::unique_ptr<::llvm::Module> translated =
      translateModuleToLLVMIR(module, *context);
  if (!translated)
    return makeError("the model could not be translated to LLVM IR");
  translated->setTargetTriple(machine.getTargetTriple());
  translated->setDataLayout(machine.createDataLayout());
  for (::llvm::Function &function : *translated)
    if (!function.isDeclaration()) {
      function.addFnAttr("target-cpu", machine.getTargetCPU());
      function.addFnAttr("target-features", machine.getTargetFeatureString());
      function.addFnAttr("prefer-vector-width", "512");
    }
  auto optimize =
      makeOptimizingTransformer(options.optLevel, /*sizeLevel=*/0, &machine);
  if (auto error = optimize(translated.get()))
    return std::move(error);
  return ::llvm::orc::ThreadSafeModule(std::move(translated),
                                       std::move(context));
}

/// A JIT that finds the runtime, libomp and libm in this process.
static ::llvm::Expected<std::unique_ptr<::llvm::orc::LLJIT>>
createJIT(::llvm::orc::JITTargetMachineBuilder target) {
  auto jit = ::llvm::orc::LLJITBuilder()
                 .setJITTargetMachineBuilder(std::move(target))
                 .create();
  if (!jit)
    return jit.takeError();
  char prefix = (*jit)->getDataLayout().getGlobalPrefix();
  auto process =
      ::llvm::orc::DynamicLibrarySearchGenerator::GetForCurrentProcess(prefix);
  if (!process)
    return process.takeError();
  (*jit)->getMainJITDylib().addGenerator(std::move(*process));
  return jit;
}

::llvm::Expected<std::unique_ptr<CompiledModel>>
CompiledModel::compile(ModuleOp module, CompileOptions options) {
  std::string name = module.getSymName().value_or("model").str();
  if (auto error = lower(module))
    return std::move(error);
  DialectRegistry registry;
  registerAllToLLVMIRTranslations(registry);
  module.getContext()->appendDialectRegistry(registry);
  auto target = createTargetBuilder(options);
  if (!target)
    return target.takeError();
  auto machine = target->createTargetMachine();
  if (!machine)
    return machine.takeError();
  auto translated = translate(module, **machine, options);
  if (!translated)
    return translated.takeError();
  auto jit = createJIT(std::move(*target));
  if (!jit)
    return jit.takeError();
  if (auto error = (*jit)->addIRModule(std::move(*translated)))
    return std::move(error);
  auto getter = (*jit)->lookup(name + "_program");
  if (!getter)
    return getter.takeError();
  const llm_program *program = getter->toPtr<const llm_program *()>()();
  return std::unique_ptr<CompiledModel>(
      new CompiledModel(std::move(*jit), program));
}

CompiledModel::CompiledModel(std::unique_ptr<::llvm::orc::LLJIT> jit,
                             const llm_program *descriptor)
    : jit(std::move(jit)), descriptor(descriptor) {}

CompiledModel::~CompiledModel() = default;
