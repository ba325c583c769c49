//===- Compiler.h - From a model module to native code -----------*- C++
//-*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_COMPILER_H
#define LLM_DRIVER_COMPILER_H

#include "llm/Runtime/CAPI.h"

#include "mlir/IR/BuiltinOps.h"
#include "llvm/Support/Error.h"

#include <memory>

namespace llvm::orc {
class LLJIT;
} // namespace llvm::orc

namespace mlir::llm {

/// How much LLVM optimizes: 0 to 3. Tests of many programs want none of it.
struct CompileOptions {
  unsigned optLevel = 3;
};

/// A model as native code in this process. Owns the program's memory.
class CompiledModel {
public:
  /// Runs the pipeline `llm-to-cpu` on `module` (which it changes), compiles
  /// for this machine's CPU and loads the result. Diagnostics of the passes go
  /// to the context's handler and the error says which stage failed.
  static ::llvm::Expected<std::unique_ptr<CompiledModel>>
  compile(ModuleOp module, CompileOptions options = {});

  const llm_program &program() const { return *descriptor; }

  ~CompiledModel();

private:
  CompiledModel(std::unique_ptr<::llvm::orc::LLJIT> jit,
                const llm_program *descriptor);

  std::unique_ptr<::llvm::orc::LLJIT> jit;
  const llm_program *descriptor;
};

} // namespace mlir::llm

#endif // LLM_DRIVER_COMPILER_H
