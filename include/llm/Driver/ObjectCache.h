//===- ObjectCache.h - Compiled code that later runs find -------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_OBJECTCACHE_H
#define LLM_DRIVER_OBJECTCACHE_H

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/MemoryBuffer.h"

#include <memory>
#include <string>

namespace mlir::llm {

/// Object files in a folder, `KEY.o`, each named by what it was made from.
///
/// Behind the object an entry holds its key, a checksum of both and a mark, so
/// one that was cut short, damaged or renamed is no entry. Entries come into
/// being whole, by a rename: processes share a folder without locks. The folder
/// holds `mostEntries`: a write removes those that went unused for longest, by
/// the time of modification, which a read renews.
class ObjectCache {
public:
  static constexpr size_t mostEntries = 32;

  /// The user's: `$XDG_CACHE_HOME/llm`, or else `$HOME/.cache/llm`.
  static ::llvm::Expected<std::string> userFolder();

  /// The key of what `inputs` describe: 64 hexadecimal digits.
  static std::string keyOf(::llvm::StringRef inputs);

  /// The first write makes the folder.
  explicit ObjectCache(std::string folder) : folder(std::move(folder)) {}

  std::string pathOf(::llvm::StringRef key) const;

  /// The object that was kept under `key`, or null where no sound one is.
  std::unique_ptr<::llvm::MemoryBuffer> read(::llvm::StringRef key) const;

  /// Keeps an object, in place of whatever was under `key`.
  ::llvm::Error write(::llvm::StringRef key, ::llvm::StringRef object) const;

private:
  void removeOldest() const;

  std::string folder;
};

} // namespace mlir::llm

#endif // LLM_DRIVER_OBJECTCACHE_H
