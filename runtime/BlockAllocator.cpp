//===- BlockAllocator.cpp - Reference-counted fixed-size blocks -----------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Runtime/BlockAllocator.h"

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <new>

using namespace llm;

void BlockAllocator::Free::operator()(Block *blocks) const {
  std::free(blocks);
}

// calloc instead of a vector: zero pages of a huge pool cost nothing until
// their blocks are used.
BlockAllocator::BlockAllocator(int32_t total)
    : total_(total), blocks_(static_cast<Block *>(
                         std::calloc(int64_t(total) + 1, sizeof(Block)))) {
  if (!blocks_)
    throw std::bad_alloc();
}

Status BlockAllocator::allocate(std::span<int32_t> out) {
  const int64_t wanted = static_cast<int64_t>(out.size());
  if (wanted > total_)
    return Status::error(LLM_NEVER_FITS, wanted, total_,
                         "%lld blocks never fit: the pool has %d",
                         static_cast<long long>(wanted), total_);
  if (wanted > numFree())
    return Status::error(LLM_OUT_OF_BLOCKS, wanted, numFree(),
                         "needs %lld blocks, %d are free",
                         static_cast<long long>(wanted), numFree());
  for (int32_t &block : out)
    block = take();
  live_ += static_cast<int32_t>(wanted);
  peakLive_ = std::max(peakLive_, live_);
  return Status();
}

/// The block given back last comes first: its memory is still in the cache.
int32_t BlockAllocator::take() {
  int32_t block = firstFree_;
  if (block)
    firstFree_ = blocks_[block].nextFree;
  else
    block = untouched_++;
  blocks_[block].references = 1;
  return block;
}

void BlockAllocator::retain(int32_t block) {
  Block &b = blocks_[block];
  assert(b.references > 0 || b.pins > 0);
  if (b.references++ == 0) {
    --pending_;
    ++live_;
  }
}

bool BlockAllocator::release(int32_t block) {
  Block &b = blocks_[block];
  assert(b.references > 0);
  if (--b.references > 0)
    return false;
  --live_;
  ++pending_;
  return settle(block);
}

void BlockAllocator::pin(int32_t block) {
  assert(blocks_[block].references > 0);
  ++blocks_[block].pins;
}

bool BlockAllocator::unpin(int32_t block) {
  assert(blocks_[block].pins > 0);
  --blocks_[block].pins;
  return blocks_[block].references == 0 && settle(block);
}

/// Moves an unreferenced block from pending to free once nothing pins it.
bool BlockAllocator::settle(int32_t block) {
  Block &b = blocks_[block];
  if (b.pins > 0)
    return false;
  --pending_;
  b.nextFree = firstFree_;
  firstFree_ = block;
  return true;
}

Status BlockAllocator::checkInvariants() const {
  int64_t live = 0, pending = 0;
  for (int32_t block = 1; block < untouched_; ++block) {
    live += blocks_[block].references > 0;
    pending += blocks_[block].references == 0 && blocks_[block].pins > 0;
  }
  int64_t free = total_ - (untouched_ - 1);
  for (int32_t block = firstFree_; block; block = blocks_[block].nextFree) {
    if (blocks_[block].references || blocks_[block].pins || ++free > total_)
      return Status::error(LLM_INTERNAL, 0, blocks_[block].references,
                           "block %d is in the free list with %d references",
                           block, blocks_[block].references);
  }
  if (blocks_[0].references || blocks_[0].pins)
    return Status::error(LLM_INTERNAL, 0, blocks_[0].references,
                         "the guard block has %d references, expected 0",
                         blocks_[0].references);
  if (live != live_ || pending != pending_)
    return Status::error(LLM_INTERNAL, live + pending, live_ + pending_,
                         "counted %lld live and pending blocks, found %d",
                         static_cast<long long>(live + pending),
                         live_ + pending_);
  if (free + live + pending != total_)
    return Status::error(LLM_INTERNAL, total_, free + live + pending,
                         "free, live and pending blocks make %lld, expected %d",
                         static_cast<long long>(free + live + pending), total_);
  return Status();
}
