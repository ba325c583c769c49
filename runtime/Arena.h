//===- Arena.h - Memory of a call ----------------------------- -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_ARENA_H
#define LLM_RUNTIME_ARENA_H

#include "Faults.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace llm {

/// A stack of memory in chunks, kept from call to call: after the first call of
/// a kind the arena is one chunk of the right size and never allocates again.
///
/// A mark is a position in the sequence of all chunks. Every chunk behind the
/// current one is unused.
class Arena {
public:
  static constexpr int64_t alignment = 64;

  explicit Arena(Faults &faults) : faults_(faults) {}

  /// `bytes` >= 0, aligned; null if the host's memory is exhausted. Zero bytes
  /// have an address too.
  void *allocate(int64_t bytes);

  int64_t mark() const { return top_; }
  /// Gives back what was taken since; false for a mark that is not one.
  bool release(int64_t mark);
  /// Gives back everything and makes one chunk of many.
  void reset();

  /// Bytes that the arena holds.
  int64_t capacity() const;

private:
  struct Free {
    void operator()(char *memory) const;
  };
  struct Chunk {
    std::unique_ptr<char, Free> memory;
    int64_t begin; ///< position of its first byte
    int64_t size;
  };

  bool addChunk(int64_t bytes);

  Faults &faults_;
  std::vector<Chunk> chunks_;
  size_t current_ = 0; ///< the chunk of `top_`
  int64_t top_ = 0;
};

} // namespace llm

#endif // LLM_RUNTIME_ARENA_H
