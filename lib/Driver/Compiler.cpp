//===- Compiler.cpp - From a model module to native code ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/Compiler.h"

#include "llm/Driver/BuildIds.h"
#include "llm/Driver/ObjectCache.h"
#include "llm/Transforms/Passes.h"

#include "mlir/ExecutionEngine/OptUtils.h"
#include "mlir/IR/Verifier.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Target/LLVMIR/Dialect/All.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/ExecutionEngine/Orc/CompileUtils.h"
#include "llvm/ExecutionEngine/Orc/LLJIT.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/TargetParser/Host.h"

using namespace mlir;
using namespace mlir::llm;
using ::llvm::Error;
using ::llvm::Expected;
using ::llvm::MemoryBuffer;
using ::llvm::orc::JITTargetMachineBuilder;

static Error makeError(const ::llvm::Twine &message) {
  return ::llvm::createStringError(::llvm::inconvertibleErrorCode(), message);
}

/// The CPU with all its vector registers, multiply-adds contracted.
static Expected<JITTargetMachineBuilder>
createTargetBuilder(const CompileOptions &options) {
  static bool initialized = [] {
    ::llvm::InitializeNativeTarget();
    ::llvm::InitializeNativeTargetAsmPrinter();
    return true;
  }();
  (void)initialized;
  auto builder = JITTargetMachineBuilder::detectHost();
  if (!builder)
    return builder.takeError();
  if (!options.cpu.empty()) {
    builder->setCPU(options.cpu);
    builder->getFeatures() = ::llvm::SubtargetFeatures();
  }
  builder->setRelocationModel(::llvm::Reloc::PIC_); // what ORC links
  builder->setCodeModel(::llvm::CodeModel::Small);
  builder->setCodeGenOptLevel(
      *::llvm::CodeGenOpt::getLevel(std::min(options.optLevel, 3u)));
  builder->getOptions().AllowFPOpFusion = ::llvm::FPOpFusion::Fast;
  builder->getFeatures().AddFeature("prefer-256-bit", false);
  return builder;
}

//===----------------------------------------------------------------------===//
// To an object
//===----------------------------------------------------------------------===//

static Error lower(ModuleOp module, PassManager &pipeline) {
  pipeline.enableVerifier(false); // after each pass; once at the end is enough
  if (failed(pipeline.run(module)) || failed(verify(module)))
    return makeError("the model could not be lowered");
  return Error::success();
}

/// LLVM IR of the lowered module, optimized for `machine`.
static Expected<std::unique_ptr<::llvm::Module>>
translate(ModuleOp module, ::llvm::LLVMContext &context,
          ::llvm::TargetMachine &machine, const CompileOptions &options) {
  DialectRegistry registry;
  registerAllToLLVMIRTranslations(registry);
  module.getContext()->appendDialectRegistry(registry);
  std::unique_ptr<::llvm::Module> translated =
      translateModuleToLLVMIR(module, context);
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
  return translated;
}

static Expected<std::unique_ptr<MemoryBuffer>>
compileToObject(ModuleOp module, PassManager &pipeline,
                JITTargetMachineBuilder &target,
                const CompileOptions &options) {
  if (auto error = lower(module, pipeline))
    return std::move(error);
  auto machine = target.createTargetMachine();
  if (!machine)
    return machine.takeError();
  ::llvm::LLVMContext context;
  auto translated = translate(module, context, **machine, options);
  if (!translated)
    return translated.takeError();
  return ::llvm::orc::SimpleCompiler(**machine)(**translated);
}

//===----------------------------------------------------------------------===//
// Into this process
//===----------------------------------------------------------------------===//

/// A JIT that finds the runtime, libomp and libm in this process.
static Expected<std::unique_ptr<::llvm::orc::LLJIT>>
createJIT(JITTargetMachineBuilder target) {
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

Expected<std::unique_ptr<CompiledModel>>
CompiledModel::load(Expected<std::unique_ptr<MemoryBuffer>> object,
                    const JITTargetMachineBuilder &target,
                    ::llvm::StringRef symbol) {
  if (!object)
    return object.takeError();
  auto jit = createJIT(target);
  if (!jit)
    return jit.takeError();
  if (auto error = (*jit)->addObjectFile(std::move(*object)))
    return std::move(error);
  auto getter = (*jit)->lookup(symbol);
  if (!getter)
    return getter.takeError();
  const llm_program *program = getter->toPtr<const llm_program *()>()();
  return std::unique_ptr<CompiledModel>(
      new CompiledModel(std::move(*jit), program));
}

//===----------------------------------------------------------------------===//
// The cache
//===----------------------------------------------------------------------===//

/// A key of all that decides about the code: the module, with the locations
/// that its errors name, the passes and their options, the CPU, and the build
/// of this compiler, MLIR and LLVM. The ABI's version is part of that build.
static std::string keyOf(ModuleOp module, PassManager &pipeline,
                         JITTargetMachineBuilder &target,
                         const CompileOptions &options) {
  std::string inputs;
  ::llvm::raw_string_ostream os(inputs);
  module->print(os, OpPrintingFlags().printGenericOpForm().enableDebugInfo());
  pipeline.printAsTextualPipeline(os);
  for (const std::string &part :
       {target.getTargetTriple().str(), target.getCPU(),
        target.getFeatures().getString(), std::to_string(options.optLevel),
        options.build})
    os << '\0' << part;
  return ObjectCache::keyOf(inputs);
}

std::unique_ptr<CompiledModel>
CompiledModel::loadKept(const ObjectCache &cache, ::llvm::StringRef key,
                        const JITTargetMachineBuilder &target,
                        ::llvm::StringRef symbol) {
  std::unique_ptr<MemoryBuffer> object = cache.read(key);
  if (!object)
    return nullptr;
  auto loaded = load(std::move(object), target, symbol);
  if (!loaded) { // as good as damaged
    consumeError(loaded.takeError());
    return nullptr;
  }
  (*loaded)->cached = true;
  (*loaded)->remark = "read from " + cache.pathOf(key);
  return std::move(*loaded);
}

/// Keeps an object. Says where, or why it did not.
static std::string keep(const ObjectCache &cache, ::llvm::StringRef key,
                        ::llvm::StringRef object) {
  if (auto error = cache.write(key, object))
    return "not kept: " + toString(std::move(error));
  return "kept in " + cache.pathOf(key);
}

//===----------------------------------------------------------------------===//
// The whole
//===----------------------------------------------------------------------===//

Expected<std::unique_ptr<CompiledModel>>
CompiledModel::compile(ModuleOp module, const CompileOptions &options) {
  const std::string symbol =
      module.getSymName().value_or("model").str() + "_program";
  auto target = createTargetBuilder(options);
  if (!target)
    return target.takeError();
  PassManager pipeline(module.getContext());
  LLMToCPUOptions lowering;
  lowering.activations = options.activations;
  lowering.rowsOfBlock = options.rowsOfBlock;
  buildLLMToCPUPipeline(pipeline, lowering);
  if (options.cacheFolder.empty() || options.build.empty())
    return load(compileToObject(module, pipeline, *target, options), *target,
                symbol);

  const ObjectCache cache(options.cacheFolder);
  const std::string key = keyOf(module, pipeline, *target, options);
  if (auto kept = loadKept(cache, key, *target, symbol))
    return kept;
  auto object = compileToObject(module, pipeline, *target, options);
  if (!object)
    return object.takeError();
  std::string remark = keep(cache, key, (*object)->getBuffer());
  auto compiled = load(std::move(*object), *target, symbol);
  if (compiled)
    (*compiled)->remark = std::move(remark);
  return compiled;
}

CompiledModel::CompiledModel(std::unique_ptr<::llvm::orc::LLJIT> jit,
                             const llm_program *descriptor)
    : jit(std::move(jit)), descriptor(descriptor) {}

CompiledModel::~CompiledModel() = default;
