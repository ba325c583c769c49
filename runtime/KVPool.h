//===- KVPool.h - The memory that versions share -------------- -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_KVPOOL_H
#define LLM_RUNTIME_KVPOOL_H

#include "Faults.h"
#include "Gate.h"
#include "llm/Runtime/Attention.h"
#include "llm/Runtime/BlockAllocator.h"

#include <memory>
#include <vector>

namespace llm {

class PagedKVCache;

/// Checks a configuration and resolves `num_blocks`; `bytes` is the size of the
/// pool, guard block included.
Status resolveConfig(const llm_kv_config &config, llm_kv_config &resolved,
                     int64_t &bytes);

/// Bytes of an element; -1 for LLM_I4 and for a number that is no dtype.
int64_t elementBytes(llm_dtype dtype);

/// The format of what a cache of `dtype` stores.
llm_dtype storedType(llm_dtype dtype, llm_kv_storage storage);

/// Blocks of K and V for all layers, with their reference counts:
///
///   layer 0: block 0 (guard) | block 1            | block 2 ...
///                              K heads | V heads
///                              page of a head: [token][dim], then scales
///                              [token] of what is quantized, f32
///   layer 1: ...
///
/// LLM_I4 has params in place of scales: V [token][group of channels], and a
/// page of K is groups of tokens, each codes [row][channel], params [channel].
/// The rows of groups of K that are exact (#llm.kv_storage) stand in a mapping
/// beside the pool, [layer][block][group][head][row][channel] of f32, of which
/// only what they take is memory: a sequence has two such groups or one.
///
/// Heads are major because a kernel reads all tokens of one head. The memory is
/// reserved, not touched: a page costs nothing until a token arrives, and then
/// itself, or 2 MB where a layer has 4 MB or more and a block at most 1 MB.
class KVPool {
public:
  static Status create(const llm_kv_config &config,
                       std::shared_ptr<Faults> faults,
                       std::shared_ptr<KVPool> &pool);
  KVPool(const KVPool &) = delete;
  KVPool &operator=(const KVPool &) = delete;

  const llm_kv_config &config() const { return config_; }
  KVPages pages(int32_t layer) const;

  Status allocate(std::span<int32_t> out);
  void retain(int32_t block) { blocks_.retain(block); }
  void release(int32_t block) noexcept;
  void pin(int32_t block) { blocks_.pin(block); }
  void unpin(int32_t block) noexcept;
  const BlockAllocator &blocks() const { return blocks_; }

  /// Copies the first `rows` tokens of a block at one layer, and counts them.
  /// A group of K goes as a whole.
  void copyRows(int32_t layer, int32_t from, int32_t to, int32_t rows);

  //===--- Exact groups of K of LLM_I4 ------------------------------------===//

  bool isExact(int32_t layer, int32_t block, int32_t group) const {
    return exact_ && held_[groupNumber(layer, block, group)];
  }
  void makeExact(int32_t layer, int32_t block, int32_t group) noexcept;
  /// What it holds lies in its page. Its rows stay until they are given back.
  void endExact(int32_t layer, int32_t block, int32_t group) noexcept;
  /// It is exact again, with the rows it had.
  void bringBack(int32_t layer, int32_t block, int32_t group) noexcept;
  /// Gives back the memory of a group that is not exact.
  void giveBack(int32_t layer, int32_t block, int32_t group) noexcept;
  /// LLM_INTERNAL if a free block has an exact group.
  Status checkExact() const;

  /// To be asked after a kernel has run: LLM_DEVICE if it failed, which
  /// poisons the pool, since nobody knows what it wrote.
  Status checkKernel(const char *name);

  llm_kv_stats stats() const;
  /// Of K and V of one token at one layer.
  int64_t tokenBytes() const { return blockStride_ / config_.block_size; }

  Gate gate;
  std::vector<PagedKVCache *> versions;
  /// A host's step is open: nothing else may change what is on this pool.
  bool stepOpen = false;
  /// An invariant is broken or a device has failed: nothing works any more.
  Status failure;
  /// The counters of llm_kv_stats that only ever grow.
  llm_kv_stats history = {};
  llm_kv_work work = {};

private:
  struct Unmap {
    int64_t bytes;
    void operator()(char *memory) const;
  };
  using Mapping = std::unique_ptr<char, Unmap>;

  struct Free {
    void operator()(uint8_t *memory) const;
  };

  KVPool(const llm_kv_config &config, std::shared_ptr<Faults> faults,
         Mapping memory);
  static Mapping reserve(int64_t bytes);
  Status reserveExact(Faults &faults);
  char *block(int32_t layer, int32_t number) const;
  void poison(int32_t number);
  void leave(int32_t number) noexcept;
  int64_t groupNumber(int32_t layer, int32_t block, int32_t group) const;
  void copyPlane(const KVPlane &plane, int32_t from, int32_t to, int32_t rows);
  void copyGroups(int32_t layer, int32_t from, int32_t to, int32_t rows);

  llm_kv_config config_;
  std::shared_ptr<Faults> faults_;
  Mapping memory_;
  int64_t blockStride_; ///< bytes of one block at one layer, K and V
  BlockAllocator blocks_;
  Mapping exact_{nullptr, Unmap{0}};      ///< null unless K is LLM_I4
  std::unique_ptr<uint8_t[], Free> held_; ///< [layer][block][group]
  int64_t groupStride_ = 0;               ///< bytes of one group in exact_
};

} // namespace llm

#endif // LLM_RUNTIME_KVPOOL_H
