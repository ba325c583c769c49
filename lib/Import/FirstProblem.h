//===- FirstProblem.h - An error kept until it is asked for -----*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_FIRSTPROBLEM_H
#define LLM_LIB_IMPORT_FIRSTPROBLEM_H

#include "ImportError.h"

#include <string>

namespace mlir::llm {

/// Base of readers of many fields: they go on after a problem, with neutral
/// values, and are asked once, at the end.
class FirstProblem {
public:
  explicit FirstProblem(::llvm::StringRef path) : filePath(path.str()) {}
  FirstProblem(const FirstProblem &) = delete;
  FirstProblem &operator=(const FirstProblem &) = delete;
  ~FirstProblem() { ::llvm::consumeError(std::move(problem)); }

  const std::string &path() const { return filePath; }
  bool failed() { return static_cast<bool>(problem); }

  template <typename... Args>
  void fail(const char *format, Args &&...args) {
    fail(importError(filePath, format, std::forward<Args>(args)...));
  }
  void fail(::llvm::Error error) {
    if (failed())
      ::llvm::consumeError(std::move(error));
    else
      problem = std::move(error);
  }

  ::llvm::Error takeError() { return std::move(problem); }

private:
  std::string filePath;
  ::llvm::Error problem = ::llvm::Error::success();
};

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_FIRSTPROBLEM_H
