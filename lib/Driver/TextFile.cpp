//===- TextFile.cpp - Whole files in and out ------------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/TextFile.h"

#include "llvm/ADT/ScopeExit.h"
#include "llvm/Support/MemoryBuffer.h"

#include <cstdio>
#include <cstdlib>
#include <unistd.h>

using namespace mlir::llm;
using llvm::Error;
using llvm::Expected;
using llvm::StringRef;

static Error fileError(StringRef path, std::error_code code) {
  return llvm::createStringError(code, path + ": " +
                                           StringRef(code.message()).lower());
}

Expected<std::string> mlir::llm::readFile(StringRef path) {
  auto buffer = llvm::MemoryBuffer::getFile(path);
  if (!buffer)
    return fileError(path, buffer.getError());
  return (*buffer)->getBuffer().str();
}

Expected<std::string> mlir::llm::readInput() {
  auto buffer = llvm::MemoryBuffer::getSTDIN();
  if (!buffer)
    return fileError("standard input", buffer.getError());
  return (*buffer)->getBuffer().str();
}

std::optional<std::string> mlir::llm::readLine() {
  const bool isTerminal = isatty(STDIN_FILENO);
  if (isTerminal)
    llvm::errs() << "> ";
  char *bytes = nullptr;
  size_t capacity = 0;
  const ssize_t length = getline(&bytes, &capacity, stdin);
  llvm::scope_exit release([&] { std::free(bytes); });
  if (length < 0) {
    if (isTerminal)
      llvm::errs() << '\n';
    return std::nullopt;
  }
  StringRef line(bytes, length);
  line.consume_back("\n");
  line.consume_back("\r");
  return line.str();
}

Error mlir::llm::checkOutput() {
  llvm::outs().flush();
  const std::error_code code = llvm::outs().error();
  if (!code)
    return Error::success();
  llvm::outs().clear_error();
  return fileError("standard output", code);
}

Error mlir::llm::writeFile(
    StringRef path, llvm::function_ref<Error(llvm::raw_ostream &)> write) {
  std::error_code code;
  llvm::raw_fd_ostream os(path, code);
  if (code)
    return fileError(path, code);
  if (Error error = write(os))
    return error;
  os.close();
  if (std::error_code written = os.error()) {
    os.clear_error();
    return fileError(path, written);
  }
  return Error::success();
}
