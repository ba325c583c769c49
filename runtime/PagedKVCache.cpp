//===- PagedKVCache.cpp - Versions, tables and sequences ------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Runtime/PagedKVCache.h"

#include "KVPool.h"

#include <algorithm>
#include <cassert>

using namespace llm;

//===----------------------------------------------------------------------===//
// Versions
//===----------------------------------------------------------------------===//

Status PagedKVCache::create(const llm_kv_config &config,
                            std::unique_ptr<PagedKVCache> &cache,
                            std::shared_ptr<Faults> faults) {
  std::shared_ptr<KVPool> pool;
  if (!faults)
    faults = std::make_shared<Faults>();
  LLM_TRY(KVPool::create(config, std::move(faults), pool));
  cache.reset(new PagedKVCache(std::move(pool)));
  return Status();
}

PagedKVCache::PagedKVCache(std::shared_ptr<KVPool> pool)
    : pool_(std::move(pool)), sequences_(pool_->config().max_sequences),
      everAppended_(pool_->config().layers), appended_(pool_->config().layers) {
  // Beginning a transaction must not need memory.
  firstAppends_.reserve(everAppended_.size());
  pool_->versions.push_back(this);
}

PagedKVCache::~PagedKVCache() {
  if (logging_)
    commitTransaction();
  for (Sequence &sequence : sequences_)
    dropTable(sequence.table);
  std::erase(pool_->versions, this);
}

std::unique_ptr<PagedKVCache> PagedKVCache::snapshot() const {
  std::unique_ptr<PagedKVCache> copy(new PagedKVCache(pool_));
  copy->everAppended_ = everAppended_;
  copy->appended_ = appended_;
  copy->running_ = running_;
  copy->disturbed_ = disturbed_;
  copy->sequences_ = sequences_;
  for (Sequence &sequence : copy->sequences_) {
    sequence.undo = -1;
    if (sequence.table)
      ++sequence.table->references;
  }
  copy->visit_ = visit_;
  ++pool_->history.snapshots;
  return copy;
}

const llm_kv_config &PagedKVCache::config() const { return pool_->config(); }

llm_kv_stats PagedKVCache::stats() const { return pool_->stats(); }

//===----------------------------------------------------------------------===//
// Tables
//===----------------------------------------------------------------------===//

int32_t PagedKVCache::blocksFor(int64_t tokens) const {
  const int64_t size = config().block_size;
  return static_cast<int32_t>((tokens + size - 1) / size);
}

std::span<const int32_t> PagedKVCache::blocks(int32_t id) const {
  const Sequence &sequence = sequences_[id];
  if (!sequence.table)
    return {};
  return std::span(sequence.table->blocks).first(blocksFor(sequence.length));
}

/// May rows of this block be written where they are?
bool PagedKVCache::isWritable(const Sequence &sequence, int64_t index) const {
  return sequence.table->references == 1 &&
         pool_->blocks().isExclusive(sequence.table->blocks[index]);
}

/// A table of the first `count` blocks of another one, sharing them.
PagedKVCache::BlockTable *PagedKVCache::shareBlocks(const BlockTable &table,
                                                    int32_t count) const {
  auto copy = std::make_unique<BlockTable>();
  copy->blocks.assign(table.blocks.begin(), table.blocks.begin() + count);
  for (int32_t block : copy->blocks)
    pool_->retain(block);
  return copy.release();
}

/// Makes the table one that only this version holds.
void PagedKVCache::ownTable(Sequence &sequence) {
  if (!sequence.table) {
    sequence.table = new BlockTable;
    return;
  }
  if (sequence.table->references == 1)
    return;
  const auto count = static_cast<int32_t>(sequence.table->blocks.size());
  BlockTable *copy = shareBlocks(*sequence.table, count);
  --sequence.table->references;
  sequence.table = copy;
  ++pool_->history.table_copies;
}

/// Cuts a table to its first `count` blocks.
void PagedKVCache::shrink(Sequence &sequence, int32_t count) {
  if (!sequence.table)
    return;
  ++epoch_;
  if (count > 0 && sequence.table->references > 1) {
    BlockTable *prefix = shareBlocks(*sequence.table, count);
    --sequence.table->references;
    sequence.table = prefix;
    ++pool_->history.table_copies;
    return;
  }
  truncate(sequence, count);
}

/// The part of `shrink` that needs no memory: the table is gone or owned.
void PagedKVCache::truncate(Sequence &sequence, int32_t count) noexcept {
  if (!sequence.table)
    return;
  if (count == 0) {
    dropTable(sequence.table);
    sequence.table = nullptr;
    return;
  }
  std::vector<int32_t> &blocks = sequence.table->blocks;
  assert(sequence.table->references == 1 || blocks.size() == size_t(count));
  for (; blocks.size() > size_t(count); blocks.pop_back())
    pool_->release(blocks.back());
}

void PagedKVCache::dropTable(BlockTable *table) noexcept {
  if (!table || --table->references > 0)
    return;
  for (int32_t block : table->blocks)
    pool_->release(block);
  delete table;
}

/// Copy-on-write: the rows in use move to `copy`, which takes the block's place
/// in the (owned) table.
void PagedKVCache::copyBlock(Sequence &sequence, int64_t index,
                             int32_t copy) noexcept {
  int32_t &entry = sequence.table->blocks[index];
  const int64_t first = index * config().block_size;
  bool copied = false;
  for (int32_t layer = 0; layer < config().layers; ++layer) {
    const int64_t rows = std::clamp<int64_t>(
        heldTokens(layer, sequence) - first, 0, config().block_size);
    pool_->copyRows(layer, entry, copy, static_cast<int32_t>(rows));
    copied |= rows > 0;
  }
  pool_->history.cow_blocks += copied;
  if (sequence.undo >= 0 && logsTail(sequence, index)) {
    undo_[sequence.undo].tail = entry;
    pool_->pin(entry);
  }
  pool_->release(entry);
  entry = copy;
}

//===----------------------------------------------------------------------===//
// Sequences
//===----------------------------------------------------------------------===//

Status PagedKVCache::checkSequence(int64_t id) const {
  if (id >= 0 && id < config().max_sequences)
    return Status();
  return Status::error(LLM_INVALID_ARGUMENT, config().max_sequences, id,
                       "expected a sequence id below max_sequences = %d, got "
                       "%lld",
                       config().max_sequences, static_cast<long long>(id))
      .ofSequence(static_cast<int32_t>(id));
}

Status PagedKVCache::checkDistinct(std::span<const int32_t> ids) {
  ++visit_;
  for (int32_t id : ids) {
    LLM_TRY(checkSequence(id));
    if (sequences_[id].visit == visit_)
      return Status::error(LLM_INVALID_ARGUMENT, 1, 2,
                           "expected sequence %d once, got it twice", id)
          .ofSequence(id);
    sequences_[id].visit = visit_;
  }
  return Status();
}

Status PagedKVCache::firstEmptySequence(int32_t &id) const {
  const auto empty = std::find_if(sequences_.begin(), sequences_.end(),
                                  [](const Sequence &s) { return !s.table; });
  if (empty == sequences_.end())
    return Status::error(LLM_WRONG_STATE, 1, 0,
                         "expected an empty sequence, all %d hold tokens",
                         config().max_sequences);
  id = static_cast<int32_t>(empty - sequences_.begin());
  return Status();
}

/// What changes a sequence of the running step takes it out: it can no longer
/// be appended to in this step.
void PagedKVCache::leaveStep(Sequence &sequence) {
  if (running_.id && sequence.step == running_.id)
    disturbed_ = true;
  sequence.step = 0;
}

Status PagedKVCache::fork(std::span<const int32_t> parents,
                          std::span<const int32_t> children,
                          std::span<const int64_t> lengths) {
  LLM_TRY(checkDistinct(children));
  for (size_t i = 0; i < children.size(); ++i)
    LLM_TRY(checkFork(parents[i], children[i], lengths[i]));
  for (size_t i = 0; i < children.size(); ++i) {
    Sequence &child = sequences_[children[i]];
    leaveStep(child);
    if (lengths[i] == 0)
      continue;
    touch(children[i]);
    child.table =
        shareBlocks(*sequences_[parents[i]].table, blocksFor(lengths[i]));
    child.start = child.length = static_cast<int32_t>(lengths[i]);
  }
  ++epoch_;
  return Status();
}

Status PagedKVCache::checkFork(int32_t parent, int32_t child,
                               int64_t length) const {
  LLM_TRY(checkSequence(parent));
  const Sequence &from = sequences_[parent];
  if (sequences_[child].table)
    return Status::error(LLM_WRONG_STATE, 0, sequences_[child].length,
                         "expected sequence %d to be empty, it holds %d tokens",
                         child, sequences_[child].length)
        .ofSequence(child);
  if (length < 0 || length > from.length)
    return Status::error(LLM_INVALID_ARGUMENT, from.length, length,
                         "expected at most %d tokens of sequence %d, got %lld",
                         from.length, parent, static_cast<long long>(length))
        .ofSequence(parent);
  for (int32_t layer = 0; layer < config().layers; ++layer)
    if (everAppended_[layer] && heldTokens(layer, from) < length)
      return Status::error(LLM_WRONG_STATE, length, from.start,
                           "expected %lld tokens of sequence %d at layer %d, "
                           "its step has appended %d so far",
                           static_cast<long long>(length), parent, layer,
                           from.start)
          .ofSequence(parent)
          .atLayer(layer);
  return Status();
}

Status PagedKVCache::trim(std::span<const int32_t> ids,
                          std::span<const int64_t> lengths) {
  LLM_TRY(checkDistinct(ids));
  for (size_t i = 0; i < ids.size(); ++i) {
    const int64_t length = sequences_[ids[i]].length;
    if (lengths[i] < 0 || lengths[i] > length)
      return Status::error(LLM_INVALID_ARGUMENT, length, lengths[i],
                           "expected at most the %lld tokens of sequence %d, "
                           "got %lld",
                           static_cast<long long>(length), ids[i],
                           static_cast<long long>(lengths[i]))
          .ofSequence(ids[i]);
  }
  for (size_t i = 0; i < ids.size(); ++i)
    if (lengths[i] < sequences_[ids[i]].length)
      cut(ids[i], static_cast<int32_t>(lengths[i]));
  return Status();
}

Status PagedKVCache::release(std::span<const int32_t> ids) {
  for (int32_t id : ids)
    LLM_TRY(checkSequence(id));
  for (int32_t id : ids)
    cut(id, 0);
  return Status();
}

void PagedKVCache::cut(int32_t id, int32_t length) {
  Sequence &sequence = sequences_[id];
  touchAndSave(id, length);
  leaveStep(sequence);
  shrink(sequence, blocksFor(length));
  sequence.length = length;
  sequence.start = std::min(sequence.start, length);
}
