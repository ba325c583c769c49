//===- SpecificationEngine.h - Runs modules by their specification -*- C++ -*-//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A module that is lowered by `llm-to-spec` and run in this process, without
// the runtime. A failed assertion, which prints its text and aborts, leaves the
// program instead of the process.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_TEST_INTEGRATION_SPECIFICATIONENGINE_H
#define LLM_TEST_INTEGRATION_SPECIFICATIONENGINE_H

#include "mlir/IR/BuiltinOps.h"
#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/Support/Error.h"

#include <memory>
#include <string>

namespace mlir {
class ExecutionEngine;
} // namespace mlir

namespace llm::testing {

class SpecificationEngine {
public:
  /// Lowers and compiles, without optimizations. The module may go after it.
  static llvm::Expected<std::unique_ptr<SpecificationEngine>>
  create(mlir::ModuleOp module);
  ~SpecificationEngine();
  SpecificationEngine(const SpecificationEngine &) = delete;

  /// Hands the address of a function with `llvm.emit_c_interface` to `call`,
  /// which owns nothing: an assertion jumps out of it. The assertion's text, or
  /// empty. What the function returned is there until the next run of this
  /// thread.
  llvm::Expected<std::string> run(llvm::StringRef entry,
                                  llvm::function_ref<void(void *)> call);

private:
  explicit SpecificationEngine(std::unique_ptr<mlir::ExecutionEngine> engine);

  std::unique_ptr<mlir::ExecutionEngine> engine;
};

} // namespace llm::testing

#endif // LLM_TEST_INTEGRATION_SPECIFICATIONENGINE_H
