//===- ErrorMessage.h - Errors as strings to compare ------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_TEST_DRIVER_ERRORMESSAGE_H
#define LLM_TEST_DRIVER_ERRORMESSAGE_H

#include "llvm/Support/Error.h"

#include <string>

namespace mlir::llm {

/// The message of an error; empty for success.
inline std::string messageOf(::llvm::Error error) {
  return ::llvm::toString(std::move(error));
}

template <typename T>
std::string messageOf(::llvm::Expected<T> value) {
  return messageOf(value.takeError());
}

} // namespace mlir::llm

#endif // LLM_TEST_DRIVER_ERRORMESSAGE_H
