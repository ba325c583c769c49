//===- Compiler.cpp - From a model module to native code ---===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/Compiler.h"

#include "llm/Driver/ObjectCache.h"

#include "llvm/ExecutionEngine/Orc/LLJIT.h"
#include "llvm/Object/ELFObjectFile.h"
#include "llvm/Support/DynamicLibrary.h"

using namespace mlir;
using namespace mlir::llm;
using ::llvm::Error;
using ::llvm::Expected;
using ::llvm::MemoryBuffer;
using ::llvm::orc::JITTargetMachineBuilder;

static Error makeError(const ::llvm::Twine &message) {
  return ::llvm::createStringError(::llvm::inconvertibleErrorCode(), message);
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
// From a shared library
//===----------------------------------------------------------------------===//

/// The one symbol NAME_program that a shared library exports.
static Expected<std::string> findProgram(const std::string &path) {
  auto binary = ::llvm::object::ObjectFile::createObjectFile(path);
  if (!binary)
    return binary.takeError();
  auto *elf = dyn_cast<::llvm::object::ELFObjectFileBase>(binary->getBinary());
  SmallVector<std::string> programs;
  if (elf)
    for (::llvm::object::ELFSymbolRef symbol :
         elf->getDynamicSymbolIterators()) {
      auto name = symbol.getName();
      auto flags = symbol.getFlags();
      if (!name || !flags) {
        consumeError(name.takeError());
        consumeError(flags.takeError());
        continue;
      }
      if (name->ends_with("_program") &&
          !(*flags & ::llvm::object::SymbolRef::SF_Undefined))
        programs.push_back(name->str());
    }
  if (programs.size() == 1)
    return programs.front();
  return makeError("expected a shared library that exports one "
                   "program, got " +
                   ::llvm::Twine(programs.size()) + " symbols *_program");
}

Expected<std::unique_ptr<CompiledModel>>
CompiledModel::open(const std::string &path) {
  auto symbol = findProgram(path);
  if (!symbol)
    return makeError(path + ": " +
                     StringRef(toString(symbol.takeError())).lower());
  // With a slash the system searches no other folders for it.
  const std::string file = StringRef(path).contains('/') ? path : "./" + path;
  std::string message;
  auto library =
      ::llvm::sys::DynamicLibrary::getPermanentLibrary(file.c_str(), &message);
  if (!library.isValid())
    return makeError(message);
  auto *getter = reinterpret_cast<const llm_program *(*)()>(
      library.getAddressOfSymbol(symbol->c_str()));
  return std::unique_ptr<CompiledModel>(new CompiledModel(nullptr, getter()));
}

//===----------------------------------------------------------------------===//
// The cache
//===----------------------------------------------------------------------===//

/// A key of all that decides about the code: the module, with the locations
/// that its errors name, the generator and the build of this compiler, MLIR and
/// LLVM. The ABI's version is part of that build.
static std::string keyOf(ModuleOp module, const CodeGenerator &generator,
                         const CompileOptions &options) {
  std::string inputs;
  ::llvm::raw_string_ostream os(inputs);
  module->print(os, OpPrintingFlags().printGenericOpForm().enableDebugInfo());
  os << generator.describe() << '\0' << options.build;
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
  auto generator = CodeGenerator::create(options);
  if (!generator)
    return generator.takeError();
  const JITTargetMachineBuilder &target = generator->target();
  if (options.cacheFolder.empty() || options.build.empty())
    return load(generator->compileToObject(module), target, symbol);

  const ObjectCache cache(options.cacheFolder);
  const std::string key = keyOf(module, *generator, options);
  if (auto kept = loadKept(cache, key, target, symbol))
    return kept;
  auto object = generator->compileToObject(module);
  if (!object)
    return object.takeError();
  std::string remark = keep(cache, key, (*object)->getBuffer());
  auto compiled = load(std::move(*object), target, symbol);
  if (compiled)
    (*compiled)->remark = std::move(remark);
  return compiled;
}

CompiledModel::CompiledModel(std::unique_ptr<::llvm::orc::LLJIT> jit,
                             const llm_program *descriptor)
    : jit(std::move(jit)), descriptor(descriptor) {}

CompiledModel::~CompiledModel() = default;
