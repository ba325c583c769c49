//===- ObjectCache.cpp - Compiled code that later runs find ---------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/ObjectCache.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/ScopeExit.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/BLAKE3.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/raw_ostream.h"

#include <cstdlib>
#include <vector>

using namespace mlir::llm;
using llvm::Error;
using llvm::Expected;
using llvm::MemoryBuffer;
using llvm::StringRef;
namespace fs = llvm::sys::fs;

static constexpr StringRef mark = "llm.o 1\n";
static constexpr size_t digestBytes = 32, keyDigits = 2 * digestBytes;

static std::string digest(StringRef text) {
  const auto bytes =
      llvm::BLAKE3::hash<digestBytes>(llvm::arrayRefFromStringRef(text));
  return std::string(bytes.begin(), bytes.end());
}

//===----------------------------------------------------------------------===//
// Names
//===----------------------------------------------------------------------===//

static std::string join(StringRef folder, const llvm::Twine &name) {
  llvm::SmallString<128> path(folder);
  llvm::sys::path::append(path, name);
  return std::string(path);
}

Expected<std::string> ObjectCache::userFolder() {
  auto folder = [](const char *variable) -> StringRef {
    const char *value = std::getenv(variable);
    return value && llvm::sys::path::is_absolute(value) ? value : "";
  };
  if (StringRef caches = folder("XDG_CACHE_HOME"); !caches.empty())
    return join(caches, "llm");
  if (StringRef home = folder("HOME"); !home.empty())
    return join(home, ".cache/llm");
  return llvm::createStringError(
      "neither XDG_CACHE_HOME nor HOME is an absolute path");
}

std::string ObjectCache::keyOf(StringRef inputs) {
  return llvm::toHex(digest(inputs), /*LowerCase=*/true);
}

std::string ObjectCache::pathOf(StringRef key) const {
  return join(folder, key + ".o");
}

/// Whether a file is an entry, or what an interrupted write left of one.
static bool isOurs(StringRef name) {
  return name.size() > keyDigits && name.substr(keyDigits).starts_with(".o") &&
         llvm::all_of(name.take_front(keyDigits), llvm::isHexDigit);
}

//===----------------------------------------------------------------------===//
// Entries
//===----------------------------------------------------------------------===//

static std::string seal(StringRef object, StringRef key) {
  std::string entry = (object + key).str();
  entry += digest(entry);
  entry += mark;
  return entry;
}

/// The object of a sound entry of this key, else nothing.
static StringRef unseal(StringRef entry, StringRef key) {
  if (!entry.consume_back(mark) || entry.size() < digestBytes)
    return {};
  const StringRef checksum = entry.take_back(digestBytes);
  entry = entry.drop_back(digestBytes);
  if (digest(entry) != checksum || !entry.consume_back(key))
    return {};
  return entry;
}

std::unique_ptr<MemoryBuffer> ObjectCache::read(StringRef key) const {
  Expected<fs::file_t> file = fs::openNativeFileForRead(pathOf(key));
  if (!file) {
    consumeError(file.takeError());
    return nullptr;
  }
  llvm::scope_exit close([&] { fs::closeFile(*file); });
  // Volatile: read rather than mapped, so that nobody can cut it under us.
  auto entry = MemoryBuffer::getOpenFile(*file, key, /*FileSize=*/-1,
                                         /*RequiresNullTerminator=*/false,
                                         /*IsVolatile=*/true);
  if (!entry)
    return nullptr;
  const StringRef object = unseal((*entry)->getBuffer(), key);
  if (object.empty())
    return nullptr;
  (void)fs::setLastAccessAndModificationTime(*file,
                                             std::chrono::system_clock::now());
  return MemoryBuffer::getMemBufferCopy(object, key);
}

//===----------------------------------------------------------------------===//
// Writing
//===----------------------------------------------------------------------===//

static Error fileError(StringRef path, std::error_code code) {
  return llvm::createStringError(code, path + ": " +
                                           StringRef(code.message()).lower());
}

static std::error_code writeAndClose(int file, StringRef content) {
  llvm::raw_fd_ostream os(file, /*shouldClose=*/true);
  os << content;
  os.close();
  const std::error_code code = os.error();
  os.clear_error();
  return code;
}

/// Writes a file whole or not at all.
static std::error_code writeWhole(const std::string &path, StringRef content) {
  std::string temporary = path + "-XXXXXX";
  const int file = mkstemp(temporary.data());
  if (file < 0)
    return llvm::errnoAsErrorCode();
  std::error_code code = writeAndClose(file, content);
  if (!code)
    code = fs::rename(temporary, path);
  if (code)
    (void)fs::remove(temporary);
  return code;
}

void ObjectCache::removeOldest() const {
  std::vector<std::pair<llvm::sys::TimePoint<>, std::string>> entries;
  std::error_code code;
  for (fs::directory_iterator file(folder, code), end; file != end && !code;
       file.increment(code))
    if (isOurs(llvm::sys::path::filename(file->path())))
      if (auto status = file->status())
        entries.push_back({status->getLastModificationTime(), file->path()});
  llvm::sort(entries);
  const size_t surplus = std::max(entries.size(), mostEntries) - mostEntries;
  for (const auto &[time, path] : llvm::ArrayRef(entries).take_front(surplus))
    (void)fs::remove(path);
}

Error ObjectCache::write(StringRef key, StringRef object) const {
  if (std::error_code code = fs::create_directories(
          folder, /*IgnoreExisting=*/true, fs::owner_all))
    return fileError(folder, code);
  const std::string path = pathOf(key);
  if (std::error_code code = writeWhole(path, seal(object, key)))
    return fileError(path, code);
  removeOldest();
  return Error::success();
}
