//===- Invariants.cpp - What must always hold -----------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "KVPool.h"
#include "llm/Runtime/PagedKVCache.h"

#include <algorithm>
#include <functional>

using namespace llm;

static Status broken(const char *what, int64_t number, int64_t expected,
                     int64_t actual) {
  return Status::error(
      LLM_INTERNAL, expected, actual, "%s %lld: expected %lld, got %lld", what,
      static_cast<long long>(number), static_cast<long long>(expected),
      static_cast<long long>(actual));
}

Status PagedKVCache::checkInvariants() const {
  LLM_TRY(pool_->blocks().checkInvariants());
  LLM_TRY(pool_->checkExact());
  const size_t numbers = static_cast<size_t>(config().num_blocks) + 1;
  std::vector<int32_t> references(numbers), pins(numbers);
  std::vector<const BlockTable *> holders; // a table for each sequence of it
  for (const PagedKVCache *version : pool_->versions) {
    LLM_TRY(version->checkSequences());
    for (const Sequence &sequence : version->sequences_)
      if (sequence.table)
        holders.push_back(sequence.table);
    for (const Undo &undo : version->undo_) {
      if (undo.tail >= 0)
        ++pins[undo.tail];
      if (undo.saved)
        for (int32_t block : undo.saved->blocks)
          ++pins[block];
    }
  }
  std::sort(holders.begin(), holders.end(), std::less<>());
  for (auto first = holders.begin(), next = first; first != holders.end();
       first = next) {
    const BlockTable *table = *first;
    next = std::upper_bound(first, holders.end(), table, std::less<>());
    if (table->references != next - first)
      return broken("holders of a table with blocks", table->blocks.size(),
                    next - first, table->references);
    for (int32_t block : table->blocks)
      ++references[block];
  }
  for (int32_t block = 1; block <= config().num_blocks; ++block) {
    if (references[block] != pool_->blocks().references(block))
      return broken("references to block", block, references[block],
                    pool_->blocks().references(block));
    if (pins[block] != pool_->blocks().pins(block))
      return broken("pins of block", block, pins[block],
                    pool_->blocks().pins(block));
  }
  return Status();
}

/// The blocks of a sequence are blocks of the pool, and distinct.
static Status checkBlocks(int32_t id, std::vector<int32_t> blocks,
                          int64_t most) {
  std::sort(blocks.begin(), blocks.end());
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (blocks[i] < 1 || blocks[i] > most)
      return broken("block of sequence", id, most, blocks[i]);
    if (i && blocks[i] == blocks[i - 1])
      return broken("block of sequence that is in it twice", id, 1, 2);
  }
  return Status();
}

/// Each sequence has as many blocks as its tokens need, all of them distinct.
Status PagedKVCache::checkSequences() const {
  for (int32_t id = 0; id < config().max_sequences; ++id) {
    const Sequence &sequence = sequences_[id];
    const bool inStep = running_.id && sequence.step == running_.id;
    int32_t tokens = sequence.length;
    if (inStep)
      tokens = endInStep(id);
    const auto blocks = static_cast<int64_t>(
        sequence.table ? sequence.table->blocks.size() : 0);
    if (blocks != blocksFor(tokens) || (sequence.table && !blocks))
      return broken("blocks of sequence", id, blocksFor(tokens), blocks);
    if (sequence.start > sequence.length ||
        (!running_.id && sequence.start != sequence.length))
      return broken("start of sequence", id, sequence.length, sequence.start);
    if (sequence.table)
      LLM_TRY(checkBlocks(id, sequence.table->blocks, config().num_blocks));
  }
  return Status();
}

/// Tokens for which the running step has taken blocks.
int32_t PagedKVCache::endInStep(int32_t id) const {
  const auto row = std::find(running_.ids.begin(), running_.ids.end(), id) -
                   running_.ids.begin();
  return running_.starts[row] + running_.newTokens(static_cast<int32_t>(row));
}
