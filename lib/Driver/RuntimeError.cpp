//===- RuntimeError.cpp - Errors of the C ABI as llvm::Error --------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/RuntimeError.h"

#include "llvm/Support/raw_ostream.h"

using namespace mlir::llm;

char RuntimeError::ID = 0;

/// "llm.begin_step at model.mlir:12:3", or nothing outside a program.
static std::string describePlace(const llm_error &error) {
  if (!error.op)
    return "";
  std::string place = error.op;
  if (error.file)
    place += std::string(" at ") + error.file;
  if (error.file && error.line > 0)
    place +=
        ":" + std::to_string(error.line) + ":" + std::to_string(error.column);
  return place;
}

RuntimeError::RuntimeError(const llm_error &error)
    : errorCode(error.code), errorSequence(error.sequence),
      place(describePlace(error)), text(error.message) {}

bool RuntimeError::isOutOfBlocks() const {
  return errorSequence >= 0 &&
         (errorCode == LLM_OUT_OF_BLOCKS || errorCode == LLM_NEVER_FITS);
}

void RuntimeError::log(llvm::raw_ostream &os) const {
  if (!place.empty())
    os << place << ": ";
  os << llm_code_name(errorCode) << ": " << text;
}

std::error_code RuntimeError::convertToErrorCode() const {
  return llvm::inconvertibleErrorCode();
}

llvm::Error mlir::llm::callRuntime(
    llvm::function_ref<llm_code(llm_error *error)> function) {
  llm_error error = LLM_ERROR_INIT;
  if (function(&error) == LLM_OK)
    return llvm::Error::success();
  return llvm::make_error<RuntimeError>(error);
}
