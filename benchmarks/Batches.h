//===- Batches.h - Calls of attention to be timed ---------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Every call is cold: it has a batch of its own, from pools that together are
// larger than the last-level cache. Pools are the product's (KVPool), filled
// with random tokens by its own append.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_BENCHMARKS_BATCHES_H
#define LLM_BENCHMARKS_BATCHES_H

#include "Ceilings.h"
#include "llm/Runtime/AttentionPlan.h"

#include <memory>
#include <string>
#include <vector>

namespace llm {

/// What pages hold.
struct Format {
  const char *name;
  llm_dtype dtype;   ///< of pages that are not quantized
  llm_dtype queries; ///< and outputs; appended tokens are f32
  Ceiling dots;      ///< the fastest instruction for it, beside f32 fma
  llm_kv_storage k = LLM_KV_STORAGE_DTYPE, v = k;
  int32_t blockSize = 16; ///< unless a case says another
};

struct Heads {
  int32_t queries, kv, dim;
};

/// `queries` new tokens behind `past` cached ones.
struct Sequence {
  int32_t past, queries;
  int32_t length() const { return past + queries; }
};

enum class Work { Attention, Append };
enum class Order { Random, Sequential };

/// A call: what it does, on which batch, and how that lies in memory.
struct Case {
  Format format;
  Heads heads;
  std::vector<Sequence> sequences;
  Work work = Work::Attention;
  int32_t blockSize = format.blockSize;
  Order order = Order::Random; ///< of the blocks in the pool
  bool smallPools = false;     ///< one for each batch, not one for all
};

class Pool;

/// A group of K of LLM_I4 that is not quantized, and how many tokens it holds.
struct ExactGroup {
  int32_t block, group, rows;
};

/// As many batches of one case as make it cold, called in turn.
class Batches {
public:
  explicit Batches(const Case &what);

  /// Goes to the next batch.
  void next();
  void call();

  /// What a call must read and write: whole pages, as far as they hold tokens,
  /// and exact groups in place of theirs.
  double bytes() const;
  /// Of the pairs that are not masked: 2 head_dim for a score, 2 for its value.
  double operations() const;

private:
  void fillTable();
  void fillSlots();
  void writeExactGroups();
  const KVPages &pages() const;
  /// Of the batch, as the cache has them: the first group of a sequence and the
  /// last one, while it is not complete.
  std::vector<ExactGroup> exactGroups() const;
  llm_tensor tensor(char *data, int32_t heads, llm_dtype type) const;
  int64_t tokens() const { return cuSeqlens.back(); }

  const Case what;
  std::vector<int32_t> cuSeqlens, firstPosition, lengths;
  int64_t width = 0;   ///< entries of a sequence in the table
  int32_t blocks = 0;  ///< of a batch
  int64_t batches = 0; ///< in all pools together
  int64_t at = 0;
  std::shared_ptr<Pool> pool;
  std::vector<int32_t> order; ///< the numbers of all blocks of a pool
  std::vector<int32_t> table;
  std::vector<int64_t> slots; ///< of the tokens to append
  char *inputs, *output;
  AttentionPlan plan; ///< of every call, as of the layers of a step
};

} // namespace llm

#endif // LLM_BENCHMARKS_BATCHES_H
