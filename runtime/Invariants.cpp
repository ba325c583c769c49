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
#include <map>
#include <set>

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
  std::map<const BlockTable *, int32_t> holders;
  std::map<int32_t, int32_t> pins;
  for (const PagedKVCache *version : pool_->versions) {
    LLM_TRY(version->checkSequences());
    for (const Sequence &sequence : version->sequences_)
      if (sequence.table)
        ++holders[sequence.table];
    for (const Undo &undo : version->undo_) {
      if (undo.tail >= 0)
        ++pins[undo.tail];
      if (undo.saved)
        for (int32_t block : undo.saved->blocks)
          ++pins[block];
    }
  }
  std::map<int32_t, int32_t> references;
  for (const auto &[table, count] : holders) {
    if (table->references != count)
      return broken("holders of a table with blocks", table->blocks.size(),
                    count, table->references);
    for (int32_t block : table->blocks)
      ++references[block];
  }
  for (int32_t block = 1; block <= config().num_blocks; ++block) {
    const auto counted = references.find(block), pinned = pins.find(block);
    const int32_t held = counted == references.end() ? 0 : counted->second;
    const int32_t kept = pinned == pins.end() ? 0 : pinned->second;
    if (held != pool_->blocks().references(block))
      return broken("references to block", block, held,
                    pool_->blocks().references(block));
    if (kept != pool_->blocks().pins(block))
      return broken("pins of block", block, kept, pool_->blocks().pins(block));
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
    if (sequence.table) {
      const std::set<int32_t> distinct(sequence.table->blocks.begin(),
                                       sequence.table->blocks.end());
      if (static_cast<int64_t>(distinct.size()) != blocks)
        return broken("distinct blocks of sequence", id, blocks,
                      static_cast<int64_t>(distinct.size()));
    }
  }
  return Status();
}

/// Tokens for which the running step has taken blocks.
int32_t PagedKVCache::endInStep(int32_t id) const {
  const auto row = std::find(running_.ids.begin(), running_.ids.end(), id) -
                   running_.ids.begin();
  return running_.starts[row] + running_.newTokens(static_cast<int32_t>(row));
}
