//===- CodeGenerator.cpp - From a model module to machine code ------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/CodeGenerator.h"

#include "llm/Transforms/Passes.h"

#include "mlir/ExecutionEngine/OptUtils.h"
#include "mlir/IR/Verifier.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Target/LLVMIR/Dialect/All.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/ExecutionEngine/Orc/CompileUtils.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/TargetParser/Host.h"
#include "llvm/TargetParser/X86TargetParser.h"

using namespace mlir;
using namespace mlir::llm;
using ::llvm::Error;
using ::llvm::Expected;
using ::llvm::MemoryBuffer;
using ::llvm::StringRef;
using ::llvm::orc::JITTargetMachineBuilder;

static constexpr StringRef x86Features[] = {
#define LLM_X86_FEATURE(name) name,
#include "llm/Runtime/CPUFeatures.def"
};

static Error makeError(const ::llvm::Twine &message) {
  return ::llvm::createStringError(::llvm::inconvertibleErrorCode(), message);
}

//===----------------------------------------------------------------------===//
// The CPU
//===----------------------------------------------------------------------===//

/// Code for other kinds of CPU than x86 is for this machine's alone.
static Error unknownCPU(StringRef name, bool isX86) {
  SmallVector<StringRef> known;
  if (isX86)
    ::llvm::X86::fillValidCPUArchList(known, /*Only64Bit=*/true);
  return makeError("expected the CPU to be native" +
                   ::llvm::Twine(isX86 ? " or one of " : "") +
                   ::llvm::join(known, ", ") + ", got '" + name + "'");
}

/// What the CPU has of what code may use.
static Expected<SmallVector<StringRef>> featuresOf(StringRef cpu) {
  ::llvm::StringSet<::llvm::MallocAllocator> has;
  if (cpu == "native") {
    for (const auto &feature : ::llvm::sys::getHostCPUFeatures())
      if (feature.second)
        has.insert(feature.first());
  } else {
    if (::llvm::X86::parseArchX86(cpu, /*Only64Bit=*/true) ==
        ::llvm::X86::CK_None)
      return unknownCPU(cpu, /*isX86=*/true);
    SmallVector<StringRef> features;
    ::llvm::X86::getFeaturesForCPU(cpu, features);
    has.insert_range(features);
  }
  SmallVector<StringRef> used;
  for (StringRef name : x86Features)
    if (has.contains(name))
      used.push_back(name);
  return used;
}

static void initializeLLVM() {
  static bool initialized = [] {
    ::llvm::InitializeNativeTarget();
    ::llvm::InitializeNativeTargetAsmPrinter();
    return true;
  }();
  (void)initialized;
}

Expected<CodeGenerator> CodeGenerator::create(const CompileOptions &options) {
  initializeLLVM();
  auto builder = JITTargetMachineBuilder::detectHost();
  if (!builder)
    return builder.takeError();
  const std::string host = builder->getCPU();
  std::string features;
  if (builder->getTargetTriple().isX86()) {
    auto used = featuresOf(options.cpu);
    if (!used)
      return used.takeError();
    builder->setCPU("x86-64"); // which any has: the rest is said by name
    builder->getFeatures() = ::llvm::SubtargetFeatures();
    for (StringRef feature : *used)
      builder->getFeatures().AddFeature(feature);
    builder->getFeatures().AddFeature("prefer-256-bit", false);
    features = ::llvm::join(*used, ",");
  } else if (options.cpu != "native") {
    return unknownCPU(options.cpu, /*isX86=*/false);
  }
  builder->setRelocationModel(::llvm::Reloc::PIC_); // what ORC links
  builder->setCodeModel(::llvm::CodeModel::Small);
  builder->setCodeGenOptLevel(
      *::llvm::CodeGenOpt::getLevel(std::min(options.optLevel, 3u)));
  builder->getOptions().AllowFPOpFusion = ::llvm::FPOpFusion::Fast;
  CodeGenerator generator(options, std::move(*builder));
  generator.cpuName = options.cpu == "native" ? host : options.cpu;
  generator.features = std::move(features);
  return generator;
}

//===----------------------------------------------------------------------===//
// Lowering
//===----------------------------------------------------------------------===//

/// A lowered module as optimized LLVM IR, and what makes code of it.
struct CodeGenerator::Translation {
  ::llvm::LLVMContext context;
  std::unique_ptr<::llvm::TargetMachine> machine;
  std::unique_ptr<::llvm::Module> module;
};

void CodeGenerator::buildPipeline(OpPassManager &pipeline) const {
  LLMToCPUOptions lowering;
  lowering.activations = options.activations;
  lowering.rowsOfBlock = options.rowsOfBlock;
  lowering.programName = options.name;
  lowering.cpu = cpuName;
  lowering.cpuFeatures = features;
  buildLLMToCPUPipeline(pipeline, lowering);
}

Error CodeGenerator::lower(ModuleOp module) {
  PassManager pipeline(module.getContext());
  buildPipeline(pipeline);
  pipeline.enableVerifier(false); // after each pass; once at the end is enough
  if (failed(pipeline.run(module)) || failed(verify(module)))
    return makeError("the model could not be lowered");
  compiled = cast<DictionaryAttr>(module->removeAttr("llm.program"));
  return Error::success();
}

Error CodeGenerator::translate(ModuleOp module, Translation &to) {
  if (auto error = lower(module))
    return error;
  auto machine = builder.createTargetMachine();
  if (!machine)
    return machine.takeError();
  to.machine = std::move(*machine);
  DialectRegistry registry;
  registerAllToLLVMIRTranslations(registry);
  module.getContext()->appendDialectRegistry(registry);
  to.module = translateModuleToLLVMIR(module, to.context);
  if (!to.module)
    return makeError("the model could not be translated to LLVM IR");
  to.module->setTargetTriple(to.machine->getTargetTriple());
  to.module->setDataLayout(to.machine->createDataLayout());
  for (::llvm::Function &function : *to.module)
    if (!function.isDeclaration()) {
      function.addFnAttr("target-cpu", to.machine->getTargetCPU());
      function.addFnAttr("tune-cpu", cpuName);
      function.addFnAttr("target-features",
                         to.machine->getTargetFeatureString());
      function.addFnAttr("prefer-vector-width", "512");
    }
  auto optimize = makeOptimizingTransformer(options.optLevel, /*sizeLevel=*/0,
                                            to.machine.get());
  return optimize(to.module.get());
}

//===----------------------------------------------------------------------===//
// Results
//===----------------------------------------------------------------------===//

Expected<std::unique_ptr<MemoryBuffer>>
CodeGenerator::compileToObject(ModuleOp module) {
  Translation translation;
  if (auto error = translate(module, translation))
    return std::move(error);
  return ::llvm::orc::SimpleCompiler(*translation.machine)(*translation.module);
}

Expected<std::string> CodeGenerator::compileToIR(ModuleOp module) {
  Translation translation;
  if (auto error = translate(module, translation))
    return std::move(error);
  std::string text;
  ::llvm::raw_string_ostream(text) << *translation.module;
  return text;
}

std::string CodeGenerator::describe() const {
  OpPassManager pipeline(ModuleOp::getOperationName());
  buildPipeline(pipeline);
  std::string text;
  ::llvm::raw_string_ostream os(text);
  pipeline.printAsTextualPipeline(os);
  os << '\0' << builder.getTargetTriple().str() << '\0' << options.optLevel;
  return text;
}
