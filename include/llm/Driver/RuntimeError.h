//===- RuntimeError.h - Errors of the C ABI as llvm::Error ------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_RUNTIMEERROR_H
#define LLM_DRIVER_RUNTIMEERROR_H

#include "llm/Runtime/CAPI.h"

#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/Support/Error.h"

#include <string>

namespace mlir::llm {

/// What a function of the C ABI reported. Owns its strings: it may outlive the
/// program that `op` and `file` of an `llm_error` belong to.
class RuntimeError : public ::llvm::ErrorInfo<RuntimeError> {
public:
  static char ID;

  explicit RuntimeError(const llm_error &error);

  llm_code code() const { return errorCode; }

  /// The sequence that the error is about, -1 if none.
  int32_t sequence() const { return errorSequence; }

  /// True when the step would do without `sequence()`: it did not get its
  /// blocks, and nothing has changed.
  bool isOutOfBlocks() const;

  /// "llm.begin_step at forward: out of blocks: ...": op, where, numbers.
  void log(::llvm::raw_ostream &os) const override;

  std::error_code convertToErrorCode() const override;

private:
  llm_code errorCode;
  int32_t errorSequence;
  std::string place;
  std::string text;
};

/// Calls a function of the C ABI with an `llm_error` to fill.
::llvm::Error
callRuntime(::llvm::function_ref<llm_code(llm_error *error)> function);

} // namespace mlir::llm

#endif // LLM_DRIVER_RUNTIMEERROR_H
