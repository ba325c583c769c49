//===- TextFile.cpp - Whole files in and out ------------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/TextFile.h"

#include "llvm/Support/MemoryBuffer.h"

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
