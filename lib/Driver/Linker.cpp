//===- Linker.cpp - Shared libraries of compiled models -------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/Linker.h"

#include "llm/Runtime/CAPI.h"

#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FileUtilities.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Program.h"
#include "llvm/Support/raw_ostream.h"

#include <dlfcn.h>

using llvm::Error;
using llvm::Expected;
using llvm::StringRef;
namespace fs = llvm::sys::fs;

static Error makeError(std::error_code code, const llvm::Twine &what) {
  return llvm::createStringError(code, what + ": " +
                                           StringRef(code.message()).lower());
}

static Expected<std::string> findLinker() {
  for (StringRef name : {"ld.lld-22", "ld.lld"})
    if (auto found = llvm::sys::findProgramByName(name))
      return *found;
  return llvm::createStringError(
      "expected the linker ld.lld-22 on the path (Debian's package lld-22), "
      "found none; an object (-o model.o) needs no linker");
}

/// The file of the runtime in this process, which has it loaded.
static std::string findRuntime() {
  Dl_info info = {};
  dladdr(reinterpret_cast<const void *>(&llm_abi_version), &info);
  return info.dli_fname;
}

/// An empty file that is gone when `remover` dies.
static Error createTemporary(StringRef suffix, llvm::SmallString<128> &path,
                             llvm::FileRemover &remover) {
  if (auto code = fs::createTemporaryFile("llm-link", suffix, path))
    return makeError(code, "a temporary file");
  remover.setFile(path);
  return Error::success();
}

/// Runs the linker. Its messages are the error's.
static Error run(StringRef linker, llvm::ArrayRef<StringRef> arguments) {
  llvm::SmallString<128> log;
  llvm::FileRemover remover;
  if (Error error = createTemporary("log", log, remover))
    return error;
  std::string message;
  const int status = llvm::sys::ExecuteAndWait(
      linker, arguments, std::nullopt,
      {StringRef(), StringRef(log), StringRef(log)},
      /*SecondsToWait=*/0, /*MemoryLimit=*/0, &message);
  if (status == 0)
    return Error::success();
  if (auto text = llvm::MemoryBuffer::getFile(log))
    message += (*text)->getBuffer().trim();
  return llvm::createStringError(linker + " failed: " + message);
}

Error mlir::llm::linkLibrary(StringRef object, StringRef path) {
  Expected<std::string> linker = findLinker();
  if (!linker)
    return linker.takeError();
  llvm::SmallString<128> objectPath, library;
  llvm::FileRemover objectRemover;
  if (Error error = createTemporary("o", objectPath, objectRemover))
    return error;
  std::error_code failed;
  llvm::raw_fd_ostream os(objectPath, failed);
  os << object;
  os.close();
  if (auto code = failed ? failed : os.error()) {
    os.clear_error();
    return makeError(code, objectPath);
  }
  if (auto code = fs::createUniqueFile(path + ".%%%%%%", library))
    return makeError(code, path);
  llvm::FileRemover libraryRemover(library);
  if (Error error = run(*linker, {*linker, "-shared", "--build-id", "-soname",
                                  llvm::sys::path::filename(path), "-o",
                                  library, objectPath, findRuntime()}))
    return error;
  if (auto code = fs::rename(library, path))
    return makeError(code, path);
  libraryRemover.releaseFile();
  return Error::success();
}
