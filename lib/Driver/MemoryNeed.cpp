//===- MemoryNeed.cpp - Memory before it is taken -------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/MemoryNeed.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/Twine.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"

#include <algorithm>

using namespace mlir::llm;
using llvm::Error;
using llvm::StringRef;

static std::string megabytes(int64_t bytes) {
  return llvm::formatv("{0:f1} MiB", double(bytes) / (1 << 20));
}

std::string mlir::llm::describe(const MemoryNeed &need) {
  return llvm::formatv("{0}: weights {1}, cache at most {2}, workspace about "
                       "{3}",
                       megabytes(need.total()), megabytes(need.weights),
                       megabytes(need.cache), megabytes(need.workspace));
}

//===----------------------------------------------------------------------===//
// What there is
//===----------------------------------------------------------------------===//

/// A file of the kernel's, which has no size; empty without one.
static std::string readSystemFile(const llvm::Twine &path) {
  auto buffer = llvm::MemoryBuffer::getFileAsStream(path);
  return buffer ? (*buffer)->getBuffer().str() : "";
}

/// The number behind `name` at the start of a line.
static std::optional<int64_t> numberAfter(StringRef text, StringRef name) {
  while (!text.empty()) {
    auto [line, rest] = text.split('\n');
    int64_t value = 0;
    if (line.consume_front(name) && !line.ltrim().consumeInteger(10, value))
      return value;
    text = rest;
  }
  return std::nullopt;
}

static std::optional<int64_t> readNumber(const llvm::Twine &path) {
  return numberAfter(readSystemFile(path), "");
}

static void takeLeast(std::optional<int64_t> &least,
                      std::optional<int64_t> value) {
  if (value)
    least = std::min(*value, least.value_or(*value));
}

namespace {
/// The names of files in the folder of a control group.
struct GroupFiles {
  const char *limit, *usage;
};
} // namespace

static constexpr GroupFiles v1Files = {"/memory.limit_in_bytes",
                                       "/memory.usage_in_bytes"};
static constexpr GroupFiles v2Files = {"/memory.max", "/memory.current"};

/// What the limit of one group leaves. Pages of files count as used, but the
/// kernel drops them where others need the memory.
static std::optional<int64_t> leftInGroup(const std::string &folder,
                                          const GroupFiles &files) {
  const auto limit = readNumber(folder + files.limit);
  const auto usage = readNumber(folder + files.usage);
  if (!limit || !usage)
    return std::nullopt;
  const std::string statistics = readSystemFile(folder + "/memory.stat");
  const int64_t dropped =
      numberAfter(statistics, "inactive_file ").value_or(0) +
      numberAfter(statistics, "active_file ").value_or(0);
  return std::max<int64_t>(0, *limit - std::max<int64_t>(0, *usage - dropped));
}

/// The least that a group and those around it leave. Inside a container the
/// path may be that of the host: the groups that are not there have no limit.
static std::optional<int64_t> leftInGroups(const std::string &mount,
                                           StringRef path,
                                           const GroupFiles &files) {
  std::optional<int64_t> least = leftInGroup(mount, files);
  for (; path.size() > 1; path = llvm::sys::path::parent_path(path))
    takeLeast(least, leftInGroup(mount + path.str(), files));
  return least;
}

std::optional<int64_t> mlir::llm::availableMemory(StringRef root) {
  const std::string base = root.rtrim('/').str();
  std::optional<int64_t> least =
      numberAfter(readSystemFile(base + "/proc/meminfo"), "MemAvailable:");
  if (least)
    *least *= 1024;
  const std::string groups = readSystemFile(base + "/proc/self/cgroup");
  const std::string mount = base + "/sys/fs/cgroup";
  // Lines like "0::/user.slice" (v2) and "4:cpu,memory:/user.slice" (v1).
  for (StringRef line : llvm::split(StringRef(groups), '\n')) {
    auto [controllers, path] = line.split(':').second.split(':');
    if (line.starts_with("0::"))
      takeLeast(least, leftInGroups(mount, path, v2Files));
    else if (llvm::is_contained(llvm::split(controllers, ','), "memory"))
      takeLeast(least, leftInGroups(mount + "/memory", path, v1Files));
  }
  return least;
}

//===----------------------------------------------------------------------===//
// The comparison
//===----------------------------------------------------------------------===//

Error mlir::llm::checkMemory(const MemoryNeed &need,
                             std::optional<int64_t> available) {
  if (!available || need.total() <= *available)
    return Error::success();
  std::string advice = "try a smaller --ctx or -n, fewer --pool-blocks, or "
                       "--cache-dtype i8";
  if (need.weights + need.workspace > *available)
    advice = "a smaller cache does not help: try a smaller model, "
             "or --weights-as native";
  return llvm::createStringError(
      "not enough memory: expected to need " + describe(need) + ", but " +
      megabytes(*available) + " are available (" + advice + ")");
}
