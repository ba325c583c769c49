//===- CodeGenerator.h - From a model module to machine code ----*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_CODEGENERATOR_H
#define LLM_DRIVER_CODEGENERATOR_H

#include "llm/Driver/BuildIds.h"
#include "llm/Transforms/Activations.h"

#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/BuiltinOps.h"
#include "llvm/ExecutionEngine/Orc/JITTargetMachineBuilder.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/MemoryBuffer.h"

#include <memory>
#include <string>

namespace mlir {
class OpPassManager;
} // namespace mlir

namespace mlir::llm {

struct CompileOptions {
  /// How much LLVM optimizes: 0 to 3. Tests of many programs want none of it.
  unsigned optLevel = 3;
  /// What linear layers may round their input to.
  Activations activations = Activations::I8;
  /// The most rows that go through a chain of ops together, which threads
  /// share.
  int64_t rowsOfBlock = 64;
  /// LLVM's name of the CPU to compile for; "native": this machine's.
  std::string cpu = "native";
  /// The program's name; empty: the module's, or else "model".
  std::string name = "";

  // Of `CompiledModel::compile` alone.
  /// Where an `ObjectCache` keeps compiled code; empty: nowhere.
  std::string cacheFolder = "";
  /// What only code of the same build may be read for; empty: none.
  std::string build = loadedBuildIds();
};

/// Lowers a module by the pipeline `llm-to-cpu` and compiles it for one CPU, of
/// which it uses what CPUFeatures.def lists: all of its vector registers,
/// multiply-adds contracted. A module is compiled once: lowering changes it.
class CodeGenerator {
public:
  /// Fails when LLVM knows no such CPU.
  static ::llvm::Expected<CodeGenerator> create(const CompileOptions &options);

  /// Diagnostics of the passes go to the context's handler and the error says
  /// which stage failed.
  ::llvm::Expected<std::unique_ptr<::llvm::MemoryBuffer>>
  compileToObject(ModuleOp module);
  /// The optimized LLVM IR, as text.
  ::llvm::Expected<std::string> compileToIR(ModuleOp module);

  /// What decides about the code beside the module, as text: the passes and
  /// their options, the CPU and how LLVM optimizes.
  std::string describe() const;

  const ::llvm::orc::JITTargetMachineBuilder &target() const { return builder; }

  /// Of the module compiled last, `llm.program` (see `llm-emit-program`).
  DictionaryAttr program() const { return compiled; }

private:
  CodeGenerator(const CompileOptions &options,
                ::llvm::orc::JITTargetMachineBuilder builder)
      : options(options), builder(std::move(builder)) {}

  void buildPipeline(OpPassManager &pipeline) const;
  ::llvm::Error lower(ModuleOp module);
  struct Translation;
  ::llvm::Error translate(ModuleOp module, Translation &to);

  CompileOptions options;
  ::llvm::orc::JITTargetMachineBuilder builder;
  std::string cpuName, features; ///< as the program says them
  DictionaryAttr compiled;
};

} // namespace mlir::llm

#endif // LLM_DRIVER_CODEGENERATOR_H
