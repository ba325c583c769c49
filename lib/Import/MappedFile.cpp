//===- MappedFile.cpp - A file's bytes, read on demand --------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "MappedFile.h"
#include "ImportError.h"

#include "llvm/ADT/ScopeExit.h"

using namespace mlir::llm;
using llvm::Expected;
using llvm::StringRef;
namespace fs = llvm::sys::fs;

/// Maps an open file. `path` is for messages.
static Expected<fs::mapped_file_region> map(StringRef path, fs::file_t file) {
  fs::file_status status;
  if (std::error_code code = fs::status(file, status))
    return importError(path, "{0}", StringRef(code.message()).lower());
  if (!fs::is_regular_file(status))
    return importError(path, "expected a regular file");
  if (status.getSize() == 0)
    return importError(path, "the file is empty");
  std::error_code code;
  fs::mapped_file_region region(file, fs::mapped_file_region::readonly,
                                status.getSize(), 0, code);
  if (code)
    return importError(path, "{0}", StringRef(code.message()).lower());
  return region;
}

Expected<MappedFile> MappedFile::open(StringRef path) {
  Expected<fs::file_t> file = fs::openNativeFileForRead(path);
  if (!file)
    return importError(path, "{0}",
                       StringRef(llvm::toString(file.takeError())).lower());
  llvm::scope_exit close([&] { static_cast<void>(fs::closeFile(*file)); });
  Expected<fs::mapped_file_region> region = map(path, *file);
  if (!region)
    return region.takeError();
  return MappedFile(std::move(*region));
}
