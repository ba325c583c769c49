//===- Arena.cpp - Memory of a call ---------------------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Arena.h"

#include <algorithm>
#include <cstdlib>
#include <sys/mman.h>

using namespace llm;

static constexpr int64_t kLargePage = int64_t(2) << 20;

/// What the rows of a prompt need is written for the first time in its first
/// step, and a fault for each small page of it takes as long as norms do.
static char *allocateChunk(int64_t bytes) {
  const bool large = bytes >= 2 * kLargePage;
  const int64_t unit = large ? kLargePage : Arena::alignment;
  const int64_t rounded = (bytes + unit - 1) / unit * unit;
  auto *memory = static_cast<char *>(std::aligned_alloc(unit, rounded));
#if defined(MADV_HUGEPAGE)
  if (memory && large)
    madvise(memory, rounded, MADV_HUGEPAGE); // where the system has some
#endif
  return memory;
}

void Arena::Free::operator()(char *memory) const { std::free(memory); }

int64_t Arena::capacity() const {
  return chunks_.empty() ? 0 : chunks_.back().begin + chunks_.back().size;
}

void *Arena::allocate(int64_t bytes) {
  constexpr int64_t most = INT64_MAX / 4;
  if (bytes > most || faults_.strikes(Resource::Workspace))
    return nullptr;
  const int64_t rounded =
      (std::max<int64_t>(bytes, 1) + alignment - 1) / alignment * alignment;
  if (chunks_.empty() ||
      top_ + rounded > chunks_[current_].begin + chunks_[current_].size)
    if (!addChunk(rounded))
      return nullptr;
  Chunk &chunk = chunks_[current_];
  void *memory = chunk.memory.get() + (top_ - chunk.begin);
  top_ += rounded;
  return memory;
}

/// Moves on to a chunk of at least this size; the next one if it is.
bool Arena::addChunk(int64_t bytes) {
  const size_t next = chunks_.empty() ? 0 : current_ + 1;
  if (next == chunks_.size() || chunks_[next].size < bytes) {
    chunks_.resize(next);
    const int64_t begin = capacity();
    const int64_t size =
        std::max({bytes, int64_t(1) << 16, begin / alignment * alignment});
    std::unique_ptr<char, Free> memory(allocateChunk(size));
    if (!memory)
      return false;
    chunks_.push_back({std::move(memory), begin, size});
  }
  current_ = next;
  top_ = chunks_[next].begin;
  return true;
}

bool Arena::release(int64_t mark) {
  if (mark < 0 || mark > top_ || mark % alignment)
    return false;
  while (current_ > 0 && mark < chunks_[current_].begin)
    --current_;
  top_ = mark;
  return true;
}

void Arena::reset() {
  const int64_t total = capacity();
  current_ = 0;
  top_ = 0;
  if (chunks_.size() <= 1)
    return;
  chunks_.clear();
  addChunk(total);
}
