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

/// Bytes of an element; -1 for a number that is no dtype.
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
  void copyRows(int32_t layer, int32_t from, int32_t to, int32_t rows);

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

  KVPool(const llm_kv_config &config, std::shared_ptr<Faults> faults,
         Mapping memory);
  char *block(int32_t layer, int32_t number) const;
  void poison(int32_t number);

  llm_kv_config config_;
  std::shared_ptr<Faults> faults_;
  Mapping memory_;
  int64_t blockStride_; ///< bytes of one block at one layer, K and V
  BlockAllocator blocks_;
};

} // namespace llm

#endif // LLM_RUNTIME_KVPOOL_H
