//===- MappedFile.h - A file's bytes, read on demand -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_MAPPEDFILE_H
#define LLM_LIB_IMPORT_MAPPEDFILE_H

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/FileSystem.h"

namespace mlir::llm {

/// A regular file in memory, read-only. The bytes keep their address when the
/// object is moved.
class MappedFile {
public:
  static ::llvm::Expected<MappedFile> open(::llvm::StringRef path);

  ::llvm::StringRef bytes() const { return {region.data(), region.size()}; }

  /// Lets the system forget the pages; they are read again on demand.
  void release() const { region.dontNeed(); }

private:
  explicit MappedFile(::llvm::sys::fs::mapped_file_region region)
      : region(std::move(region)) {}

  mutable ::llvm::sys::fs::mapped_file_region region;
};

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_MAPPEDFILE_H
