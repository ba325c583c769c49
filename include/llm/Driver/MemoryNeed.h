//===- MemoryNeed.h - Memory before it is taken -----------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_MEMORYNEED_H
#define LLM_DRIVER_MEMORYNEED_H

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <cstdint>
#include <optional>
#include <string>

namespace mlir::llm {

/// What a run is going to take, in bytes.
struct MemoryNeed {
  int64_t weights = 0;   ///< packed
  int64_t cache = 0;     ///< of the blocks that the sequences may fill
  int64_t workspace = 0; ///< activations and logits of a step, estimated

  int64_t total() const { return weights + cache + workspace; }
};

/// "900.0 MiB: weights 500.0 MiB, cache at most 300.0 MiB, workspace about
/// 100.0 MiB".
std::string describe(const MemoryNeed &need);

/// Memory that this process may still take: what the kernel has available
/// (MemAvailable), or what the limits of its control groups (v1 and v2) leave
/// if that is less. Files that are kept in memory do not count. None where the
/// system does not say. `root`: where /proc and /sys are.
std::optional<int64_t> availableMemory(::llvm::StringRef root = "/");

/// Fails with advice where more is needed than there is.
::llvm::Error checkMemory(const MemoryNeed &need,
                          std::optional<int64_t> available);

} // namespace mlir::llm

#endif // LLM_DRIVER_MEMORYNEED_H
