//===- BlockAllocator.h - Reference-counted fixed-size blocks - -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_BLOCKALLOCATOR_H
#define LLM_RUNTIME_BLOCKALLOCATOR_H

#include "llm/Runtime/Status.h"

#include <memory>
#include <span>

namespace llm {

/// Hands out the numbers 1 .. total of a fixed set of blocks; what lies behind
/// a number is the caller's. Block 0 is a guard that is never handed out.
///
/// A block has *references* (it is live) and *pins* (an undo log may want it
/// back). It is in exactly one of three states:
///
///   free     no reference, no pin
///   live     referenced, pinned or not
///   pending  pinned only: becomes free when the last pin goes
///
/// so that free + live + pending == total. Taking and giving back a block is
/// O(1); making the allocator touches no per-block memory.
class LLM_API BlockAllocator {
public:
  /// Blocks 1 .. `total`. Throws std::bad_alloc.
  explicit BlockAllocator(int32_t total);

  int32_t total() const { return total_; }
  int32_t numFree() const { return total_ - live_ - pending_; }
  int32_t numLive() const { return live_; }
  int32_t numPending() const { return pending_; }
  int32_t peakLive() const { return peakLive_; }

  /// Fills `out` with blocks that have one reference each, or changes nothing:
  /// LLM_NEVER_FITS if there are fewer in total, LLM_OUT_OF_BLOCKS if there are
  /// fewer free now.
  Status allocate(std::span<int32_t> out);

  /// One more reference to a live or pending block.
  void retain(int32_t block);
  /// One reference less. True if the block is free now.
  bool release(int32_t block);
  /// Keeps a live block from becoming free.
  void pin(int32_t block);
  /// One pin less. True if the block is free now.
  bool unpin(int32_t block);

  /// False for the guard and for every number that is no block.
  bool isLive(int32_t block) const {
    return block > 0 && block <= total_ && blocks_[block].references > 0;
  }
  /// One reference and no pin: its holder may write to it.
  bool isExclusive(int32_t block) const {
    return blocks_[block].references == 1 && blocks_[block].pins == 0;
  }
  int32_t references(int32_t block) const { return blocks_[block].references; }
  int32_t pins(int32_t block) const { return blocks_[block].pins; }

  /// Walks the free list and counts: LLM_INTERNAL if anything disagrees.
  Status checkInvariants() const;

private:
  struct Block {
    int32_t references;
    int32_t pins;
    int32_t nextFree; ///< of a block in the free list; 0 ends it
  };
  struct Free {
    void operator()(Block *blocks) const;
  };

  int32_t take();
  bool settle(int32_t block);

  int32_t total_;
  int32_t untouched_ = 1; ///< blocks from here on were never handed out
  int32_t firstFree_ = 0;
  int32_t live_ = 0;
  int32_t pending_ = 0;
  int32_t peakLive_ = 0;
  std::unique_ptr<Block[], Free> blocks_;
};

} // namespace llm

#endif // LLM_RUNTIME_BLOCKALLOCATOR_H
