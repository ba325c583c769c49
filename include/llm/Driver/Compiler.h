//===- Compiler.h - From a model module to native code ----------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_COMPILER_H
#define LLM_DRIVER_COMPILER_H

#include "llm/Driver/BuildIds.h"
#include "llm/Runtime/CAPI.h"
#include "llm/Transforms/Activations.h"

#include "mlir/IR/BuiltinOps.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/MemoryBuffer.h"

#include <memory>
#include <string>

namespace llvm::orc {
class JITTargetMachineBuilder;
class LLJIT;
} // namespace llvm::orc

namespace mlir::llm {

class ObjectCache;

struct CompileOptions {
  /// How much LLVM optimizes: 0 to 3. Tests of many programs want none of it.
  unsigned optLevel = 3;
  /// What linear layers may round their input to.
  Activations activations = Activations::I8;
  /// The most rows that go through a chain of ops together, which threads
  /// share.
  int64_t rowsOfBlock = 64;
  /// LLVM's name of the CPU to compile for; empty: this machine's.
  std::string cpu = "";
  /// Where an `ObjectCache` keeps compiled code; empty: nowhere.
  std::string cacheFolder = "";
  /// What only code of the same build may be read for; empty: none.
  std::string build = loadedBuildIds();
};

/// A model as native code in this process. Owns the program's memory.
class CompiledModel {
public:
  /// Runs the pipeline `llm-to-cpu` on `module` (which it changes), compiles
  /// for this machine's CPU and loads the result; or loads what an earlier call
  /// kept of the same module, for the same CPU, by the same build of this code.
  /// Diagnostics of the passes go to the context's handler and the error says
  /// which stage failed. A cache that does not work is no error.
  static ::llvm::Expected<std::unique_ptr<CompiledModel>>
  compile(ModuleOp module, const CompileOptions &options = {});

  const llm_program &program() const { return *descriptor; }

  /// Whether the code came from the cache.
  bool isCached() const { return cached; }
  /// What became of the code: which file it is from or in, or why in none.
  ::llvm::StringRef cacheRemark() const { return remark; }

  ~CompiledModel();

private:
  CompiledModel(std::unique_ptr<::llvm::orc::LLJIT> jit,
                const llm_program *descriptor);

  static ::llvm::Expected<std::unique_ptr<CompiledModel>>
  load(::llvm::Expected<std::unique_ptr<::llvm::MemoryBuffer>> object,
       const ::llvm::orc::JITTargetMachineBuilder &target,
       ::llvm::StringRef symbol);

  /// What a sound entry of the cache holds, or null.
  static std::unique_ptr<CompiledModel>
  loadKept(const ObjectCache &cache, ::llvm::StringRef key,
           const ::llvm::orc::JITTargetMachineBuilder &target,
           ::llvm::StringRef symbol);

  std::unique_ptr<::llvm::orc::LLJIT> jit;
  const llm_program *descriptor;
  bool cached = false;
  std::string remark;
};

} // namespace mlir::llm

#endif // LLM_DRIVER_COMPILER_H
