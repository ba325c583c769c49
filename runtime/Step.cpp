//===- Step.cpp - Steps: taking blocks and appending ----------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "KVPool.h"
#include "Tensors.h"
#include "Work.h"
#include "llm/Runtime/PagedKVCache.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <utility>

using namespace llm;

/// Tokens that a layer holds of a sequence now.
int32_t PagedKVCache::heldTokens(int32_t layer,
                                 const Sequence &sequence) const {
  if (!everAppended_[layer])
    return 0;
  return appended_[layer] ? sequence.length : sequence.start;
}

Status PagedKVCache::checkLayer(int32_t layer) const {
  if (layer >= 0 && layer < config().layers)
    return Status();
  return Status::error(LLM_INVALID_ARGUMENT, config().layers, layer,
                       "expected a layer below %d, got %d", config().layers,
                       layer)
      .atLayer(layer);
}

//===----------------------------------------------------------------------===//
// Begin
//===----------------------------------------------------------------------===//

/// Unique in the process: a step of another pool is told from one of this.
static uint64_t takeStepId() {
  static std::atomic<uint64_t> last = 0;
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

Status PagedKVCache::beginStep(std::span<const int32_t> ids,
                               std::span<const int32_t> cuSeqlens,
                               KVStep &step) {
  LLM_TRY(checkStepEnd());
  LLM_TRY(checkBatch(ids, cuSeqlens));
  const int64_t before = pool_->blocks().numFree() + unusedBlocks();
  int64_t free = before;
  lostTails_.clear();
  for (size_t i = 0; i < ids.size(); ++i)
    LLM_TRY(checkRow(ids[i], cuSeqlens[i + 1] - cuSeqlens[i], free));
  finishStep();
  step.ids.assign(ids.begin(), ids.end());
  step.cuSeqlens.assign(cuSeqlens.begin(), cuSeqlens.end());
  step.starts.clear();
  for (int32_t id : ids)
    step.starts.push_back(sequences_[id].length);
  step.id = takeStepId();
  LLM_TRY(reserve(step, before - free));
  running_ = step;
  for (int32_t id : ids)
    sequences_[id].step = step.id;
  return Status();
}

Status PagedKVCache::checkRoom(std::span<const int32_t> ids,
                               std::span<const int64_t> newTokens) {
  LLM_TRY(checkDistinct(ids));
  lostTails_.clear();
  int64_t free = pool_->blocks().numFree() + unusedBlocks();
  for (size_t i = 0; i < ids.size(); ++i) {
    if (newTokens[i] < 0)
      return Status::error(LLM_INVALID_ARGUMENT, 0, newTokens[i],
                           "expected 0 or more new tokens, got %lld",
                           static_cast<long long>(newTokens[i]))
          .ofSequence(ids[i]);
    LLM_TRY(checkRow(ids[i], newTokens[i], free));
  }
  return Status();
}

Status PagedKVCache::checkBatch(std::span<const int32_t> ids,
                                std::span<const int32_t> cuSeqlens) {
  if (cuSeqlens.size() != ids.size() + 1)
    return Status::error(LLM_INVALID_ARGUMENT, ids.size() + 1, cuSeqlens.size(),
                         "expected cu_seqlens of %zu elements, got %zu",
                         ids.size() + 1, cuSeqlens.size());
  if (cuSeqlens[0] != 0)
    return Status::error(LLM_INVALID_ARGUMENT, 0, cuSeqlens[0],
                         "expected cu_seqlens to start with 0, got %d",
                         cuSeqlens[0]);
  for (size_t i = 0; i < ids.size(); ++i)
    if (cuSeqlens[i + 1] < cuSeqlens[i])
      return Status::error(LLM_INVALID_ARGUMENT, cuSeqlens[i], cuSeqlens[i + 1],
                           "expected cu_seqlens not to decrease, got %d after "
                           "%d",
                           cuSeqlens[i + 1], cuSeqlens[i])
          .ofSequence(ids[i]);
  return checkDistinct(ids);
}

/// Blocks of the running step that no token uses: its end frees them.
int64_t PagedKVCache::unusedBlocks() const {
  if (!running_.id)
    return 0;
  int64_t unused = 0;
  for (int32_t id : running_.ids) {
    const Sequence &sequence = sequences_[id];
    if (!sequence.table || sequence.table->references > 1)
      continue;
    const std::vector<int32_t> &blocks = sequence.table->blocks;
    for (size_t i = blocksFor(sequence.length); i < blocks.size(); ++i)
      unused += pool_->blocks().references(blocks[i]) == 1 &&
                pool_->blocks().pins(blocks[i]) == 0;
  }
  return unused;
}

/// Whether a row fits into what the rows before it left of the pool.
Status PagedKVCache::checkRow(int32_t id, int64_t newTokens, int64_t &free) {
  const Sequence &sequence = sequences_[id];
  int64_t length;
  if (__builtin_add_overflow(int64_t(sequence.length), newTokens, &length))
    length = INT64_MAX;
  if (length > config().max_seq_len)
    return Status::error(LLM_NEVER_FITS, config().max_seq_len, length,
                         "expected at most max_seq_len = %lld tokens in "
                         "sequence %d, got %lld",
                         static_cast<long long>(config().max_seq_len), id,
                         static_cast<long long>(length))
        .ofSequence(id);
  if (blocksFor(length) > config().num_blocks)
    return Status::error(LLM_NEVER_FITS, blocksFor(length), config().num_blocks,
                         "sequence %d needs %d blocks, the pool has %lld", id,
                         blocksFor(length),
                         static_cast<long long>(config().num_blocks))
        .ofSequence(id);
  const int32_t needed = blocksNeeded(sequence, newTokens);
  if (needed > free)
    return Status::error(LLM_OUT_OF_BLOCKS, needed, free,
                         "sequence %d needs %d more blocks, %lld are free", id,
                         needed, static_cast<long long>(free))
        .ofSequence(id);
  free -= needed;
  return Status();
}

/// Blocks to take for tokens at the end of a sequence, a copy of a shared
/// partial tail included. Of n rows that share a tail the last may keep it.
int32_t PagedKVCache::blocksNeeded(const Sequence &sequence,
                                   int64_t newTokens) {
  if (newTokens == 0)
    return 0;
  const int32_t held = blocksFor(sequence.length);
  const bool partial = sequence.length % config().block_size != 0;
  const bool copied = partial && losesTail(sequence);
  return blocksFor(sequence.length + newTokens) - held + copied;
}

/// Whether the partial tail will have to be copied, given the rows before. A
/// table of its own is one more reference to the tail; its copy is one less.
bool PagedKVCache::losesTail(const Sequence &sequence) {
  const int32_t tail = sequence.table->blocks.back();
  const bool sharedTable = sequence.table->references > 1;
  int32_t references = pool_->blocks().references(tail) + sharedTable;
  bool pinned = pool_->blocks().pins(tail) > 0;
  for (const LostTail &lost : lostTails_)
    if (lost.block == tail) {
      references -= lost.released;
      pinned |= lost.pinned;
    }
  if (references == 1 && !pinned)
    return false;
  const auto last = static_cast<int64_t>(sequence.table->blocks.size()) - 1;
  lostTails_.push_back(
      {tail, !sharedTable, logging_ && logsTail(sequence, last)});
  return true;
}

/// Takes blocks into fresh_ for tables that `prepare` gets ready, all or none.
template <typename Prepare>
Status PagedKVCache::takeBlocks(int64_t n, const Prepare &prepare) {
  fresh_.resize(n);
  LLM_TRY(pool_->allocate(fresh_));
  try {
    prepare();
  } catch (...) {
    for (auto block = fresh_.rbegin(); block != fresh_.rend(); ++block)
      pool_->release(*block);
    throw;
  }
  return Status();
}

/// Takes the blocks of all rows, and the memory that becoming the running step
/// needs.
Status PagedKVCache::reserve(const KVStep &step, int64_t blocks) {
  LLM_TRY(takeBlocks(blocks, [&] {
    running_.ids.reserve(step.ids.size());
    running_.starts.reserve(step.starts.size());
    running_.cuSeqlens.reserve(step.cuSeqlens.size());
    growTables(step);
  }));
  ++epoch_;
  placeBlocks(step);
  return Status();
}

void PagedKVCache::growTables(const KVStep &step) try {
  for (int32_t row = 0; row < step.numSequences(); ++row) {
    touch(step.ids[row]);
    if (step.newTokens(row) == 0)
      continue;
    Sequence &sequence = sequences_[step.ids[row]];
    ownTable(sequence);
    const int32_t target = blocksFor(step.starts[row] + step.newTokens(row));
    if (sequence.table->blocks.capacity() < size_t(target))
      sequence.table->blocks.reserve(std::max(2 * target, 16));
  }
} catch (...) {
  dropEmptyTables(step.ids);
  throw;
}

/// A sequence without tokens has no table.
void PagedKVCache::dropEmptyTables(std::span<const int32_t> ids) noexcept {
  for (int32_t id : ids)
    if (BlockTable *&table = sequences_[id].table;
        table && table->blocks.empty())
      delete std::exchange(table, nullptr);
}

void PagedKVCache::placeBlocks(const KVStep &step) noexcept {
  auto next = fresh_.begin();
  for (int32_t row = 0; row < step.numSequences(); ++row) {
    if (step.newTokens(row) == 0)
      continue;
    Sequence &sequence = sequences_[step.ids[row]];
    std::vector<int32_t> &blocks = sequence.table->blocks;
    const auto held = static_cast<int64_t>(blocks.size());
    if (step.starts[row] % config().block_size &&
        !isWritable(sequence, held - 1))
      copyBlock(sequence, held - 1, *next++);
    const int32_t target = blocksFor(step.starts[row] + step.newTokens(row));
    while (blocks.size() < size_t(target))
      blocks.push_back(*next++);
  }
  assert(next == fresh_.end());
}

//===----------------------------------------------------------------------===//
// Append
//===----------------------------------------------------------------------===//

Status PagedKVCache::append(const KVStep &step, int32_t layer,
                            const llm_tensor &k, const llm_tensor &v,
                            const llm_extras &extras) {
  const Timer timer(pool_->work.append_ns);
  if (extras.rope_table)
    if (Status status = checkRope(k, extras); !status.ok())
      return status.atLayer(layer);
  LLM_TRY(checkAppend(step, layer, k, v));
  LLM_TRY(makeWritable());
  preparePlan();
  const Rope rope = {extras.rope_table,
                     extras.rope_pairing == LLM_ROPE_ADJACENT};
  writeTokens(layer, k, v, rope.table ? &rope : nullptr);
  pool_->work.append_bytes += running_.numTokens() * pool_->tokenBytes();
  LLM_TRY(pool_->checkKernel("write").atLayer(layer));
  advance(layer);
  return Status();
}

Status PagedKVCache::checkStep(const KVStep &step, int32_t layer) const {
  LLM_TRY(checkLayer(layer));
  if (step.id && step.id == running_.id)
    return Status();
  return Status::error(LLM_WRONG_STATE, static_cast<int64_t>(running_.id),
                       static_cast<int64_t>(step.id),
                       "expected the running step (%llu) of this version, got "
                       "step %llu",
                       static_cast<unsigned long long>(running_.id),
                       static_cast<unsigned long long>(step.id))
      .atLayer(layer);
}

Status PagedKVCache::checkRope(const llm_tensor &k,
                               const llm_extras &extras) const {
  const int32_t headDim = config().head_dim;
  if (headDim % 2)
    return Status::error(LLM_INVALID_ARGUMENT, headDim + 1, headDim,
                         "expected an even head_dim for a rope table, got %d",
                         headDim);
  if (extras.rope_pairing < 0 || extras.rope_pairing > LLM_ROPE_ADJACENT)
    return Status::error(
        LLM_INVALID_ARGUMENT, LLM_ROPE_ADJACENT, extras.rope_pairing,
        "expected a rope pairing of 0 or 1, got %d", extras.rope_pairing);
  LLM_TRY(checkTensor("k", &k, LLM_F32, {-1, -1, headDim}));
  LLM_TRY(checkTensor("rope_table", extras.rope_table, LLM_F32,
                      {k.sizes[0], headDim}));
  return checkRows("rope_table", *extras.rope_table);
}

Status PagedKVCache::checkAppend(const KVStep &step, int32_t layer,
                                 const llm_tensor &k,
                                 const llm_tensor &v) const {
  LLM_TRY(checkStep(step, layer));
  if (disturbed_)
    LLM_TRY(checkUndisturbed(layer));
  if (appended_[layer])
    return Status::error(LLM_WRONG_STATE, 1, 2,
                         "expected 1 append at layer %d in a step, got 2",
                         layer)
        .atLayer(layer);
  const int32_t tokens = running_.numTokens();
  const llm_kv_config &c = config();
  for (const auto &[name, tensor] : {std::pair("k", &k), std::pair("v", &v)})
    if (Status status =
            checkFloats(name, tensor, {tokens, c.kv_heads, c.head_dim});
        !status.ok())
      return status.atLayer(layer);
  return everAppended_[layer] ? Status() : checkFirstAppend(layer);
}

/// A sequence that was cut or forked onto inside the step has another end now.
Status PagedKVCache::checkUndisturbed(int32_t layer) const {
  for (int32_t row = 0; row < running_.numSequences(); ++row) {
    const int32_t id = running_.ids[row];
    if (sequences_[id].step != running_.id)
      return Status::error(LLM_WRONG_STATE, running_.starts[row],
                           sequences_[id].length,
                           "sequence %d changed inside the step, which began "
                           "at %d tokens: it holds %d",
                           id, running_.starts[row], sequences_[id].length)
          .ofSequence(id)
          .atLayer(layer);
  }
  return Status();
}

/// A layer that starts late would lack the tokens that others hold.
Status PagedKVCache::checkFirstAppend(int32_t layer) const {
  for (size_t id = 0; id < sequences_.size(); ++id) {
    const Sequence &s = sequences_[id];
    const int32_t held = s.step == running_.id ? s.start : s.length;
    if (held)
      return Status::error(LLM_WRONG_STATE, held, 0,
                           "expected %d tokens of sequence %zu at layer %d, "
                           "which was never appended to: it holds 0",
                           held, id, layer)
          .ofSequence(static_cast<int32_t>(id))
          .atLayer(layer);
  }
  return Status();
}

/// Blocks that came to be shared since the step began (a snapshot or fork in
/// the middle of it) are copied before they are written.
Status PagedKVCache::makeWritable() {
  int64_t shared = 0;
  const auto forEachShared = [&](auto &&visit) {
    for (int32_t row = 0; row < running_.numSequences(); ++row) {
      Sequence &sequence = sequences_[running_.ids[row]];
      if (running_.newTokens(row) == 0)
        continue;
      const auto end = static_cast<int64_t>(sequence.table->blocks.size());
      for (int64_t i = running_.starts[row] / config().block_size; i < end; ++i)
        if (!isWritable(sequence, i))
          visit(sequence, i);
    }
  };
  forEachShared([&](Sequence &, int64_t) { ++shared; });
  if (!shared)
    return Status();
  if (shared > pool_->blocks().numFree())
    return Status::error(LLM_OUT_OF_BLOCKS, shared, pool_->blocks().numFree(),
                         "copies of shared blocks need %lld more, %d are free",
                         static_cast<long long>(shared),
                         pool_->blocks().numFree());
  LLM_TRY(takeBlocks(shared, [&] {
    for (int32_t id : running_.ids)
      if (sequences_[id].table)
        ownTable(sequences_[id]);
  }));
  auto next = fresh_.begin();
  forEachShared([&](Sequence &s, int64_t i) { copyBlock(s, i, *next++); });
  // Rows that shared a block with each other need one copy less than counted.
  for (; next != fresh_.end(); ++next)
    pool_->release(*next);
  ++epoch_;
  return Status();
}

/// The slot of each token of the running step.
void PagedKVCache::preparePlan() {
  if (plan_.step == running_.id && plan_.epoch == epoch_)
    return;
  const int64_t size = config().block_size;
  plan_.slots.resize(running_.numTokens());
  auto slot = plan_.slots.begin();
  for (int32_t row = 0; row < running_.numSequences(); ++row) {
    const Sequence &sequence = sequences_[running_.ids[row]];
    const int64_t start = running_.starts[row];
    for (int64_t p = start; p < start + running_.newTokens(row); ++p)
      *slot++ = sequence.table->blocks[p / size] * size + p % size;
  }
  plan_.groups.clear();
  if (config().k_storage == LLM_KV_STORAGE_I4)
    for (int32_t row = 0; row < running_.numSequences(); ++row)
      planGroups(row);
  plan_.step = running_.id;
  plan_.epoch = epoch_;
}

/// The groups of K that a row's tokens go into.
void PagedKVCache::planGroups(int32_t row) {
  const int32_t size = config().block_size, id = running_.ids[row];
  const int32_t start = running_.starts[row];
  const int32_t end = start + running_.newTokens(row);
  for (int32_t p = start; p < end;) {
    const auto begin = static_cast<int32_t>(p % kGroupSize);
    const int32_t first = p - begin;
    const auto next = static_cast<int32_t>(
        std::min<int64_t>(end, int64_t(first) + kGroupSize));
    plan_.groups.push_back(
        {.block = sequences_[id].table->blocks[p / size],
         .group = static_cast<int32_t>(p % size / kGroupSize),
         .begin = begin,
         .count = next - p,
         .token = running_.cuSeqlens[row] + p - start,
         .completes = first > 0 && next - first == kGroupSize,
         .sequence = id,
         .position = first});
    p = next;
  }
}

void PagedKVCache::writeTokens(int32_t layer, const llm_tensor &k,
                               const llm_tensor &v, const Rope *rope) {
  const KVPages pages = pool_->pages(layer);
  openGroups(layer);
  writeKV(pages, plan_.slots.data(), k, v, rope);
  writeGroups(pages, plan_.groups.data(),
              static_cast<int64_t>(plan_.groups.size()), k, rope);
  closeGroups(layer);
}

/// Makes every group exact that will be so, and those that are completed.
void PagedKVCache::openGroups(int32_t layer) {
  // Nothing is changed before this needs memory.
  if (const size_t most = quantized_.size() + plan_.groups.size();
      logging_ && quantized_.capacity() < most)
    quantized_.reserve(2 * most);
  for (const GroupWrite &write : plan_.groups)
    openGroup(layer, write);
}

void PagedKVCache::openGroup(int32_t layer, const GroupWrite &write) {
  const auto forget = [&](int32_t group) {
    if (!pool_->isExact(layer, write.block, group))
      return;
    pool_->endExact(layer, write.block, group);
    pool_->giveBack(layer, write.block, group);
  };
  // What a sequence held behind its end before it was cut.
  for (int32_t group = write.group + 1;
       group < config().block_size / kGroupSize; ++group)
    forget(group);
  if (write.completes && write.begin == 0)
    return forget(write.group);
  if (pool_->isExact(layer, write.block, write.group))
    return;
  pool_->makeExact(layer, write.block, write.group);
  if (write.begin)
    reopenGroup(pool_->pages(layer), write.block, write.group, write.begin);
}

/// What was completed is quantized now. A transaction keeps its rows.
void PagedKVCache::closeGroups(int32_t layer) {
  for (const GroupWrite &write : plan_.groups) {
    if (!write.completes || write.begin == 0)
      continue;
    pool_->endExact(layer, write.block, write.group);
    if (logging_)
      quantized_.push_back(
          {write.sequence, write.position, layer, write.block, write.group});
    else
      pool_->giveBack(layer, write.block, write.group);
  }
}

/// The layer holds the step's tokens from here on.
void PagedKVCache::advance(int32_t layer) {
  if (!everAppended_[layer] && logging_)
    firstAppends_.push_back(layer);
  everAppended_[layer] = true;
  appended_[layer] = true;
  for (int32_t row = 0; row < running_.numSequences(); ++row)
    sequences_[running_.ids[row]].length =
        running_.starts[row] + running_.newTokens(row);
}

//===----------------------------------------------------------------------===//
// End
//===----------------------------------------------------------------------===//

Status PagedKVCache::endStep() {
  LLM_TRY(checkStepEnd());
  finishStep();
  return Status();
}

Status PagedKVCache::checkStepEnd() const {
  if (!running_.id)
    return Status();
  for (int32_t layer = 0; layer < config().layers; ++layer)
    if (everAppended_[layer] && !appended_[layer])
      LLM_TRY(checkLayerEnd(layer));
  return Status();
}

Status PagedKVCache::checkLayerEnd(int32_t layer) const {
  for (int32_t row = 0; row < running_.numSequences(); ++row) {
    const int32_t id = running_.ids[row];
    const Sequence &sequence = sequences_[id];
    const int32_t expected =
        sequence.step == running_.id
            ? running_.starts[row] + running_.newTokens(row)
            : sequence.length;
    if (sequence.start < expected)
      return Status::error(LLM_WRONG_STATE, expected, sequence.start,
                           "expected %d tokens of sequence %d at layer %d at "
                           "the end of a step, got %d",
                           expected, id, layer, sequence.start)
          .ofSequence(id)
          .atLayer(layer);
  }
  return Status();
}

void PagedKVCache::finishStep() {
  if (!running_.id)
    return;
  for (int32_t id : running_.ids) {
    Sequence &sequence = sequences_[id];
    if (sequence.table &&
        sequence.table->blocks.size() > size_t(blocksFor(sequence.length)))
      shrink(sequence, blocksFor(sequence.length));
    if (sequence.step == running_.id)
      pool_->history.appended_tokens += sequence.length - sequence.start;
    sequence.start = sequence.length;
    sequence.step = 0;
  }
  std::fill(appended_.begin(), appended_.end(), false);
  running_.id = 0;
  disturbed_ = false;
}
