//===- Undo.cpp - Transactions of a version -------------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// An undo log holds pins, not references: a pinned block is neither free nor
// writable, so what a transaction has let go is still there when it is aborted,
// and copy-on-write keeps everybody's hands off it. Aborting and committing
// take no memory. The price: of rows that share a partial tail with one that
// the log pins, all copy it, where the last could have written behind it.
//
// A group of K that is completed is quantized where it is (LLM_I4). Its exact
// rows stay beside it until the transaction ends, and no token of it is written
// again: who cuts into it gets the table saved, and then a copy.
//
//===----------------------------------------------------------------------===//

#include "KVPool.h"
#include "llm/Runtime/PagedKVCache.h"

#include <algorithm>
#include <cassert>

using namespace llm;

void PagedKVCache::beginTransaction() noexcept {
  assert(!logging_ && !running_.id && undo_.empty());
  tokensAtBegin_ = pool_->history.appended_tokens;
  logging_ = true;
}

void PagedKVCache::commitTransaction() noexcept {
  for (Undo &undo : undo_)
    forget(undo);
  for (const Quantized &group : quantized_)
    if (!pool_->isExact(group.layer, group.block, group.group))
      pool_->giveBack(group.layer, group.block, group.group);
  undo_.clear();
  firstAppends_.clear();
  quantized_.clear();
  logging_ = false;
}

void PagedKVCache::abortTransaction() noexcept {
  for (Undo &undo : undo_)
    restore(undo);
  for (int32_t layer : firstAppends_)
    everAppended_[layer] = false;
  for (const Quantized &group : quantized_)
    if (!bringBack(group) &&
        !pool_->isExact(group.layer, group.block, group.group))
      pool_->giveBack(group.layer, group.block, group.group);
  quantized_.clear();
  std::fill(appended_.begin(), appended_.end(), false);
  running_.id = 0;
  disturbed_ = false;
  ++epoch_;
  undo_.clear();
  firstAppends_.clear();
  pool_->history.appended_tokens = tokensAtBegin_;
  logging_ = false;
}

/// To be called before the first change of a sequence.
void PagedKVCache::touch(int32_t id) {
  Sequence &sequence = sequences_[id];
  if (!logging_ || sequence.undo >= 0)
    return;
  const auto blocks =
      sequence.table ? static_cast<int32_t>(sequence.table->blocks.size()) : 0;
  undo_.push_back({id, sequence.length, blocks});
  sequence.undo = static_cast<int32_t>(undo_.size() - 1);
}

/// Is this block of a sequence one that aborting puts back by itself?
bool PagedKVCache::logsTail(const Sequence &sequence, int64_t index) const {
  if (sequence.undo < 0)
    return index == static_cast<int64_t>(sequence.table->blocks.size()) - 1;
  const Undo &undo = undo_[sequence.undo];
  return !undo.saved && undo.tail < 0 && index == undo.blocks - 1;
}

/// To be called before a sequence is cut to `keep` tokens: if that cuts into
/// what was there at begin, its slots may be reused, so the table is saved.
void PagedKVCache::touchAndSave(int32_t id, int32_t keep) {
  touch(id);
  Sequence &sequence = sequences_[id];
  if (sequence.undo < 0)
    return;
  Undo &undo = undo_[sequence.undo];
  if (undo.saved || keep >= untouchedEnd(undo))
    return;
  auto saved = std::make_unique<BlockTable>();
  const auto first = sequence.table->blocks.begin();
  saved->blocks.assign(first, first + undo.blocks);
  for (int32_t block : saved->blocks)
    pool_->pin(block);
  if (undo.tail >= 0) {
    pool_->unpin(saved->blocks.back());
    saved->blocks.back() = undo.tail;
    undo.tail = -1;
  }
  undo.saved = saved.release();
}

/// Tokens of a sequence that must not be written again before the transaction
/// ends: those at its begin, and those with which it has completed a group.
int32_t PagedKVCache::untouchedEnd(const Undo &undo) const {
  if (config().k_storage != LLM_KV_STORAGE_I4 || undo.length <= kGroupSize)
    return undo.length;
  const int64_t end = groupsOf(undo.length) * kGroupSize;
  return sequences_[undo.sequence].length < end ? undo.length
                                                : static_cast<int32_t>(end);
}

/// Makes a group exact again if its sequence, restored, had tokens in it.
bool PagedKVCache::bringBack(const Quantized &group) noexcept {
  const Sequence &sequence = sequences_[group.sequence];
  if (sequence.length <= group.position)
    return false;
  const std::vector<int32_t> &blocks = sequence.table->blocks;
  if (blocks[group.position / config().block_size] != group.block)
    return false;
  pool_->bringBack(group.layer, group.block, group.group);
  return true;
}

void PagedKVCache::restore(Undo &undo) noexcept {
  Sequence &sequence = sequences_[undo.sequence];
  if (undo.saved) {
    for (int32_t block : undo.saved->blocks) {
      pool_->retain(block);
      pool_->unpin(block);
    }
    dropTable(sequence.table);
    sequence.table = undo.saved;
  } else {
    truncate(sequence, undo.blocks);
    if (undo.tail >= 0) {
      pool_->retain(undo.tail);
      pool_->unpin(undo.tail);
      std::swap(sequence.table->blocks.back(), undo.tail);
      pool_->release(undo.tail);
    }
  }
  sequence.start = sequence.length = undo.length;
  sequence.undo = -1;
  sequence.step = 0;
}

void PagedKVCache::forget(Undo &undo) noexcept {
  sequences_[undo.sequence].undo = -1;
  if (undo.tail >= 0)
    pool_->unpin(undo.tail);
  if (!undo.saved)
    return;
  for (int32_t block : undo.saved->blocks)
    pool_->unpin(block);
  delete undo.saved;
}
