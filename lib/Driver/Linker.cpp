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
  const StringRef llvmFolder = "/usr/lib/llvm-22/bin"; // Debian's
  for (StringRef name : {"ld.lld-22", "ld.lld"}) {
    if (auto found = llvm::sys::findProgramByName(name))
      return *found;
    if (auto found = llvm::sys::findProgramByName(name, llvmFolder))
      return *found;
  }
  return llvm::createStringError(
      "expected the linker ld.lld-22 on the path (Debian's package lld-22), "
      "found none; an object (-o model.o) needs no linker");
}

/// The file of the runtime in this process.
static Expected<std::string> findRuntime() {
  Dl_info info;
  if (!dladdr(reinterpret_cast<const void *>(&llm_abi_version), &info))
    return llvm::createStringError("the runtime library was not found");
  return info.dli_fname;
}

/// Runs the linker. Its messages are the error's.
static Error run(StringRef linker, llvm::ArrayRef<StringRef> arguments) {
  llvm::SmallString<128> log;
  if (auto code = fs::createTemporaryFile("llm-link", "log", log))
    return makeError(code, "a temporary file");
  const llvm::FileRemover remover(log);
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
  Expected<std::string> linker = findLinker(), runtime = findRuntime();
  if (!linker || !runtime)
    return llvm::joinErrors(linker.takeError(), runtime.takeError());
  int descriptor;
  llvm::SmallString<128> objectPath, library;
  if (auto code =
          fs::createTemporaryFile("llm-model", "o", descriptor, objectPath))
    return makeError(code, "a temporary file");
  const llvm::FileRemover objectRemover(objectPath);
  llvm::raw_fd_ostream os(descriptor, /*shouldClose=*/true);
  os << object;
  os.close();
  if (auto code = os.error()) {
    os.clear_error();
    return makeError(code, objectPath);
  }
  if (auto code = fs::createUniqueFile(path + ".%%%%%%", library))
    return makeError(code, path);
  llvm::FileRemover libraryRemover(library);
  if (Error error = run(*linker, {*linker, "-shared", "--build-id", "-soname",
                                  llvm::sys::path::filename(path), "-o",
                                  library, objectPath, *runtime}))
    return error;
  if (auto code = fs::rename(library, path))
    return makeError(code, path);
  libraryRemover.releaseFile();
  return Error::success();
}
