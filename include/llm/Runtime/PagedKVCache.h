//===- PagedKVCache.h - One version of a paged KV cache ------- -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A cache value of the IR is a *version* here: an independent state over a pool
// of blocks that several versions share. Who wants to keep the past takes a
// snapshot first; nothing else is ever copied before somebody writes to it.
//
//   version  sequences     block tables (shared)      blocks (counted, shared)
//   --------------------------------------------------------------------------
//   a        0: len 40 --> [3 7 9] --------------+--> 3 7 9
//            1: len 35 --> [3 7 12] -------------+--> 3 7 12     fork of a:0
//   b        0: len 40 --> the table of a:0                    snapshot of a
//
// One table per sequence serves all layers. Only the holder of the one
// reference to a block writes to it; another one gets a copy of the rows that
// are in use (copy-on-write). Full blocks are thus never written again.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_PAGEDKVCACHE_H
#define LLM_RUNTIME_PAGEDKVCACHE_H

#include "llm/Runtime/AttentionPlan.h"
#include "llm/Runtime/Status.h"

#include <memory>
#include <span>
#include <vector>

namespace llm {

class Faults;
class KVPool;

/// Which sequences and tokens a step concerns: plain data, independent of the
/// life of the cache it came from. Row i appends tokens
/// cuSeqlens[i] .. cuSeqlens[i + 1] - 1 to sequence ids[i] at position
/// starts[i].
struct KVStep {
  uint64_t id = 0; ///< unique in the process; 0: none
  std::vector<int32_t> ids;
  std::vector<int32_t> cuSeqlens;
  std::vector<int32_t> starts;

  int32_t numSequences() const { return static_cast<int32_t>(ids.size()); }
  int32_t numTokens() const { return cuSeqlens.empty() ? 0 : cuSeqlens.back(); }
  int32_t newTokens(int32_t row) const {
    return cuSeqlens[row + 1] - cuSeqlens[row];
  }
};

/// Queries of a batch: row i owns queries cuSeqlens[i] .. cuSeqlens[i + 1] - 1
/// of sequence ids[i], the first of them at position starts[i].
struct KVRows {
  std::span<const int32_t> ids;
  std::span<const int32_t> cuSeqlens;
  std::span<const int32_t> starts;
};

/// One version. Not thread-safe. A function that returns an error has changed
/// nothing; one that throws std::bad_alloc leaves valid objects, and an open
/// transaction can still be aborted to get the state of before.
class LLM_API PagedKVCache {
public:
  /// Checks the configuration (LLM_INVALID_ARGUMENT) and reserves the pool
  /// (LLM_OUT_OF_MEMORY). `faults` are for tests.
  static Status create(const llm_kv_config &config,
                       std::unique_ptr<PagedKVCache> &cache,
                       std::shared_ptr<Faults> faults = nullptr);
  ~PagedKVCache();
  PagedKVCache(const PagedKVCache &) = delete;
  PagedKVCache &operator=(const PagedKVCache &) = delete;

  /// An independent version with the same content, a running step included.
  std::unique_ptr<PagedKVCache> snapshot() const;

  /// The configuration, `num_blocks` resolved.
  const llm_kv_config &config() const;
  const std::shared_ptr<KVPool> &pool() const { return pool_; }
  llm_kv_stats stats() const;

  //===--- Steps ----------------------------------------------------------===//

  /// Ends the running step and begins another one. Takes every block that the
  /// step needs at any layer, copies of shared tails included, or fails for the
  /// batch as a whole: LLM_NEVER_FITS or LLM_OUT_OF_BLOCKS name the first
  /// sequence that does not fit.
  Status beginStep(std::span<const int32_t> ids,
                   std::span<const int32_t> cuSeqlens, KVStep &step);
  /// What beginStep would say to these numbers of new tokens.
  Status checkRoom(std::span<const int32_t> ids,
                   std::span<const int64_t> newTokens);
  /// LLM_WRONG_STATE names the first layer that holds tokens but was not
  /// appended in the running step; without a step there is nothing to end.
  Status endStep();

  /// k, v: [T, Hkv, D], f32, f16 or bf16. LLM_WRONG_STATE for a step that is
  /// not the running one and for a second append at a layer. A rope table makes
  /// k, of f32 then, rotate first.
  Status append(const KVStep &step, int32_t layer, const llm_tensor &k,
                const llm_tensor &v, const llm_extras &extras = {});
  /// q, out: [T, Hq, D]; lse: null or f32 [T, Hq]. Rows see the keys which the
  /// layer holds now. A given block table is read instead of the cache's;
  /// LLM_INVALID_ARGUMENT names the first block that is not of this version or
  /// does not hold the tokens that are read of it.
  Status attention(const KVStep &step, int32_t layer, const llm_tensor &q,
                   const llm_attention_params &params, const llm_tensor &out,
                   const llm_tensor *lse, const llm_extras &extras = {});
  /// The same for queries that belong to no step.
  Status attention(const KVRows &rows, int32_t layer, const llm_tensor &q,
                   const llm_attention_params &params, const llm_tensor &out,
                   const llm_tensor *lse, const llm_extras &extras = {});
  /// k, v: [B, C, Hkv, D] of the cache's dtype: the first min(C, length) tokens
  /// of each sequence, then zeros.
  Status lookup(std::span<const int32_t> ids, int32_t layer,
                const llm_tensor &k, const llm_tensor &v,
                const llm_tensor *table = nullptr);

  //===--- Sequences ------------------------------------------------------===//

  /// children[i], empty and distinct, shares the first lengths[i] tokens of
  /// parents[i].
  Status fork(std::span<const int32_t> parents,
              std::span<const int32_t> children,
              std::span<const int64_t> lengths);
  Status trim(std::span<const int32_t> ids, std::span<const int64_t> lengths);
  Status release(std::span<const int32_t> ids);
  /// The lowest sequence without tokens; LLM_WRONG_STATE if there is none.
  Status firstEmptySequence(int32_t &id) const;

  /// LLM_INVALID_ARGUMENT unless `id` is in [0, max_sequences).
  Status checkSequence(int64_t id) const;
  /// Tokens of a valid sequence: those of the layer that is furthest.
  int32_t length(int32_t id) const { return sequences_[id].length; }
  /// The blocks of its tokens.
  std::span<const int32_t> blocks(int32_t id) const;

  //===--- Transactions ---------------------------------------------------===//
  // Only of versions that outlive a failed call. What a transaction logs is two
  // numbers per appended sequence, and the table of a trimmed or released one.

  void beginTransaction() noexcept;
  void commitTransaction() noexcept;
  /// Everything is as it was at begin. Versions made since must be gone.
  void abortTransaction() noexcept;

  /// Verifies this version, the pool and all versions on it.
  Status checkInvariants() const;

private:
  /// A node shared by the versions that agree on a sequence; holds one
  /// reference to each of its blocks.
  struct BlockTable {
    int32_t references = 1;
    std::vector<int32_t> blocks;
  };
  /// `start` and `length` differ only inside a step: layers which were appended
  /// in it hold `length` tokens, the others `start`.
  struct Sequence {
    BlockTable *table = nullptr; ///< null: no blocks
    int32_t start = 0;
    int32_t length = 0;
    int32_t undo = -1;  ///< index of its entry in undo_
    uint64_t step = 0;  ///< the step that it takes part in
    uint64_t visit = 0; ///< finds an id that is given twice
  };
  /// How to get back to a sequence at the begin of the transaction. Slots
  /// beyond `length` are dead by contract, so appending in place needs no more
  /// than the numbers.
  struct Undo {
    int32_t sequence;
    int32_t length;
    int32_t blocks;
    int32_t tail = -1;           ///< pinned: the last block before its copy
    BlockTable *saved = nullptr; ///< pinned: the whole table before a cut
  };
  /// What kernels need of the running step, valid for one state of the tables.
  struct Plan {
    uint64_t step = 0;
    uint64_t epoch = 0;
    std::vector<int64_t> slots;     ///< [T]
    std::vector<GroupWrite> groups; ///< where K is LLM_I4
  };
  /// A group of K that was exact before this transaction quantized it. Its rows
  /// are still there.
  struct Quantized {
    int32_t sequence, position;
    int32_t layer, block, group;
  };
  /// A shared partial block that a row of a batch will have copied.
  struct LostTail {
    int32_t block;
    bool released; ///< the row's table was the version's own
    bool pinned;   ///< by the undo log, once it is copied
  };
  /// The most tokens that a sequence holds in a block, at the time of `call`.
  struct BlockCount {
    uint64_t call = 0;
    int32_t tokens = 0;
  };
  /// A table [B, stride] of physical blocks, and the keys each row may read.
  struct Gather {
    int64_t stride = 0;
    std::vector<int32_t> table;
    std::vector<int32_t> seqLens;
    uint64_t step = 0;
    uint64_t epoch = 0;
  };

  explicit PagedKVCache(std::shared_ptr<KVPool> pool);

  int32_t blocksFor(int64_t tokens) const;
  int32_t heldTokens(int32_t layer, const Sequence &sequence) const;
  Status checkLayer(int32_t layer) const;
  Status checkDistinct(std::span<const int32_t> ids);
  Status checkStep(const KVStep &step, int32_t layer) const;

  // Steps.
  Status checkStepEnd() const;
  void finishStep();
  Status checkBatch(std::span<const int32_t> ids,
                    std::span<const int32_t> cuSeqlens);
  Status checkLayerEnd(int32_t layer) const;
  Status checkRow(int32_t id, int64_t newTokens, int64_t &free);
  int64_t unusedBlocks() const;
  int32_t blocksNeeded(const Sequence &sequence, int64_t newTokens);
  bool losesTail(const Sequence &sequence);
  template <typename Prepare>
  Status takeBlocks(int64_t n, const Prepare &prepare);
  Status reserve(const KVStep &step, int64_t blocks);
  void growTables(const KVStep &step);
  void dropEmptyTables(std::span<const int32_t> ids) noexcept;
  void placeBlocks(const KVStep &step) noexcept;
  Status checkAppend(const KVStep &step, int32_t layer, const llm_tensor &k,
                     const llm_tensor &v) const;
  Status checkRope(const llm_tensor &k, const llm_extras &extras) const;
  Status checkUndisturbed(int32_t layer) const;
  Status checkFirstAppend(int32_t layer) const;
  Status makeWritable();
  void preparePlan();
  void planGroups(int32_t row);
  void writeTokens(int32_t layer, const llm_tensor &k, const llm_tensor &v,
                   const Rope *rope);
  void openGroups(int32_t layer);
  void openGroup(int32_t layer, const GroupWrite &write);
  void closeGroups(int32_t layer);
  void advance(int32_t layer);

  // Reads.
  Status checkQueries(const KVRows &rows, const llm_tensor &q,
                      const llm_attention_params &params, const llm_tensor &out,
                      const llm_tensor *lse) const;
  Status checkModifiers(const llm_tensor &q, const llm_extras &extras) const;
  Status attend(const KVRows &rows, uint64_t step, int32_t layer,
                const llm_tensor &q, const llm_attention_params &params,
                const llm_tensor &out, const llm_tensor *lse,
                const llm_extras &extras);
  Status gather(std::span<const int32_t> ids, int32_t layer, int64_t bound,
                const llm_tensor *table, uint64_t step);
  void gatherOwn(std::span<const int32_t> ids, uint64_t step);
  Status gatherGiven(std::span<const int32_t> ids, int32_t layer,
                     const llm_tensor &table);
  Status checkGiven(int32_t id, int32_t block, int64_t tokens) const;
  void countTokens(int32_t layer);

  // Tables.
  bool isWritable(const Sequence &sequence, int64_t index) const;
  BlockTable *shareBlocks(const BlockTable &table, int32_t count) const;
  void ownTable(Sequence &sequence);
  void shrink(Sequence &sequence, int32_t count);
  void truncate(Sequence &sequence, int32_t count) noexcept;
  void dropTable(BlockTable *table) noexcept;
  void copyBlock(Sequence &sequence, int64_t index, int32_t copy) noexcept;

  // Sequences.
  void leaveStep(Sequence &sequence);
  Status checkFork(int32_t parent, int32_t child, int64_t length) const;
  void cut(int32_t id, int32_t length);

  // Undo.
  bool logsTail(const Sequence &sequence, int64_t index) const;
  void touch(int32_t id);
  void touchAndSave(int32_t id, int32_t keep);
  void restore(Undo &undo) noexcept;
  void forget(Undo &undo) noexcept;
  int32_t untouchedEnd(const Undo &undo) const;
  bool bringBack(const Quantized &group) noexcept;

  Status checkSequences() const;
  int32_t endInStep(int32_t id) const;

  std::shared_ptr<KVPool> pool_;
  std::vector<Sequence> sequences_;
  std::vector<char> everAppended_; ///< [layers]
  std::vector<char> appended_;     ///< [layers], in the running step
  KVStep running_;
  bool disturbed_ = false; ///< a sequence of the running step was cut or forked
  uint64_t epoch_ = 1;     ///< counts the changes of tables
  uint64_t visit_ = 0;

  bool logging_ = false;
  std::vector<Undo> undo_;
  std::vector<int32_t> firstAppends_; ///< layers, in this transaction
  std::vector<Quantized> quantized_;
  int64_t tokensAtBegin_ = 0; ///< of the pool's statistics

  Plan plan_;
  Gather gather_;
  AttentionPlan attentionPlan_;
  std::vector<int32_t> fresh_; ///< scratch: blocks just taken
  std::vector<LostTail> lostTails_;
  std::vector<BlockCount> counts_; ///< [num_blocks + 1], by countTokens
  uint64_t countCall_ = 0;
};

} // namespace llm

#endif // LLM_RUNTIME_PAGEDKVCACHE_H
