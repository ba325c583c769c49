//===- Compiler.h - From a model module to native code ----------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_COMPILER_H
#define LLM_DRIVER_COMPILER_H

#include "llm/Driver/CodeGenerator.h"
#include "llm/Runtime/CAPI.h"

#include <memory>
#include <string>

namespace llvm::orc {
class LLJIT;
} // namespace llvm::orc

namespace mlir::llm {

class ObjectCache;

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

  /// Loads a shared library that `llm-compile` made. Fails when the file is
  /// none, or exports no program or several.
  static ::llvm::Expected<std::unique_ptr<CompiledModel>>
  open(const std::string &path);

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
