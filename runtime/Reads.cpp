//===- Reads.cpp - Attention and lookup -----------------------------------===//
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
#include <cmath>
#include <cstring>
#include <utility>

using namespace llm;

//===----------------------------------------------------------------------===//
// Tables
//===----------------------------------------------------------------------===//

/// Fills gather_ for the keys that the layer holds now, `bound` at most.
Status PagedKVCache::gather(std::span<const int32_t> ids, int32_t layer,
                            int64_t bound, const llm_tensor *table,
                            uint64_t step) {
  gather_.seqLens.resize(ids.size());
  for (size_t row = 0; row < ids.size(); ++row)
    gather_.seqLens[row] = static_cast<int32_t>(
        std::min<int64_t>(bound, heldTokens(layer, sequences_[ids[row]])));
  if (table)
    return gatherGiven(ids, layer, *table);
  gatherOwn(ids, step);
  return Status();
}

void PagedKVCache::gatherOwn(std::span<const int32_t> ids, uint64_t step) {
  if (step && gather_.step == step && gather_.epoch == epoch_)
    return;
  size_t width = 1;
  for (int32_t id : ids)
    if (const BlockTable *table = sequences_[id].table)
      width = std::max(width, table->blocks.size());
  gather_.stride = static_cast<int64_t>(width);
  gather_.table.resize(ids.size() * width);
  auto row = gather_.table.begin();
  for (int32_t id : ids) {
    if (const BlockTable *table = sequences_[id].table)
      std::copy(table->blocks.begin(), table->blocks.end(), row);
    row += gather_.stride;
  }
  gather_.step = step;
  gather_.epoch = epoch_;
}

Status PagedKVCache::gatherGiven(std::span<const int32_t> ids, int32_t layer,
                                 const llm_tensor &table) {
  const auto rows = static_cast<int64_t>(ids.size());
  LLM_TRY(checkTensor("block_indices", &table, LLM_I32, {rows, -1}));
  bool counted = false;
  gather_.step = 0;
  gather_.stride = std::max<int64_t>(table.sizes[1], 1);
  gather_.table.resize(rows * gather_.stride);
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t needed = blocksFor(gather_.seqLens[row]);
    if (needed > table.sizes[1])
      return Status::error(LLM_INVALID_ARGUMENT, needed, table.sizes[1],
                           "expected %lld blocks in row %lld of block_indices, "
                           "got %lld",
                           static_cast<long long>(needed),
                           static_cast<long long>(row),
                           static_cast<long long>(table.sizes[1]))
          .ofSequence(ids[row]);
    const auto *from =
        static_cast<const int32_t *>(table.data) + row * table.strides[0];
    const BlockTable *own = sequences_[ids[row]].table;
    for (int64_t i = 0; i < needed; ++i) {
      const int32_t block = from[i * table.strides[1]];
      if (block != own->blocks[i]) {
        if (!std::exchange(counted, true))
          countTokens(layer);
        LLM_TRY(checkGiven(ids[row], block,
                           gather_.seqLens[row] - i * config().block_size));
      }
      gather_.table[row * gather_.stride + i] = block;
    }
  }
  return Status();
}

/// Whether a block can be read for the last `tokens` of a sequence.
Status PagedKVCache::checkGiven(int32_t id, int32_t block,
                                int64_t tokens) const {
  if (block < 1 || block > config().num_blocks ||
      counts_[block].call != countCall_)
    return Status::error(LLM_INVALID_ARGUMENT, config().num_blocks, block,
                         "expected a block of this version, in [1, %lld], "
                         "got %d",
                         static_cast<long long>(config().num_blocks), block)
        .ofSequence(id);
  const int64_t needed = std::min<int64_t>(tokens, config().block_size);
  if (counts_[block].tokens >= needed)
    return Status();
  return Status::error(LLM_INVALID_ARGUMENT, needed, counts_[block].tokens,
                       "expected a block with %lld tokens in block_indices, "
                       "block %d has %d",
                       static_cast<long long>(needed), block,
                       counts_[block].tokens)
      .ofSequence(id);
}

/// Counts the layer's tokens in each of this version's blocks, for checkGiven.
void PagedKVCache::countTokens(int32_t layer) {
  counts_.resize(config().num_blocks + 1);
  ++countCall_;
  for (const Sequence &sequence : sequences_) {
    if (!sequence.table)
      continue;
    int32_t left = heldTokens(layer, sequence);
    for (int32_t block : sequence.table->blocks) {
      BlockCount &count = counts_[block];
      const int32_t tokens = std::min(left, config().block_size);
      count.tokens =
          count.call == countCall_ ? std::max(count.tokens, tokens) : tokens;
      count.call = countCall_;
      left -= tokens;
    }
  }
}

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

static AttentionParams resolveParams(const llm_attention_params &params,
                                     const llm_extras &extras,
                                     const llm_kv_config &config) {
  AttentionParams resolved;
  resolved.scale = std::isnan(params.scale)
                       ? 1.0f / std::sqrt(static_cast<float>(config.head_dim))
                       : params.scale;
  resolved.softcap = params.softcap;
  resolved.window = params.window;
  if (config.window && (!params.window || config.window < params.window))
    resolved.window = config.window;
  resolved.causal = params.causal != 0;
  resolved.sinks = config.sinks;
  resolved.alibi = extras.alibi;
  resolved.headSink = extras.head_sink;
  resolved.sinkQuery = extras.sink_query;
  return resolved;
}

Status PagedKVCache::checkQueries(const KVRows &rows, const llm_tensor &q,
                                  const llm_attention_params &params,
                                  const llm_tensor &out,
                                  const llm_tensor *lse) const {
  const int64_t tokens = rows.cuSeqlens.back();
  LLM_TRY(checkFloats("q", &q, {tokens, -1, config().head_dim}));
  const int64_t heads = q.sizes[1];
  if (heads < 1 || heads % config().kv_heads)
    return Status::error(LLM_INVALID_ARGUMENT, config().kv_heads, heads,
                         "expected a multiple of %d query heads, got %lld",
                         config().kv_heads, static_cast<long long>(heads));
  LLM_TRY(
      checkTensor("out", &out, q.dtype, {tokens, heads, config().head_dim}));
  LLM_TRY(checkRows("out", out));
  if (lse)
    LLM_TRY(checkTensor("lse", lse, LLM_F32, {tokens, heads}));
  if (params.window < 0)
    return Status::error(LLM_INVALID_ARGUMENT, 0, params.window,
                         "expected a window of at least 0, got %d",
                         params.window);
  if (!(params.softcap >= 0) || std::isinf(params.softcap))
    return Status::error(LLM_INVALID_ARGUMENT, 0, 0,
                         "expected a finite softcap of at least 0, got %g",
                         params.softcap);
  return Status();
}

/// q has been checked.
Status PagedKVCache::checkModifiers(const llm_tensor &q,
                                    const llm_extras &extras) const {
  const int64_t heads = q.sizes[1];
  if (extras.alibi)
    LLM_TRY(checkTensor("alibi", extras.alibi, LLM_F32, {heads}));
  if (extras.head_sink)
    LLM_TRY(checkTensor("head_sink", extras.head_sink, LLM_F32, {heads}));
  if (!extras.sink_query)
    return Status();
  if (!config().sinks)
    return Status::error(LLM_INVALID_ARGUMENT, 1, 0,
                         "expected a cache with sinks for sink_query, got 0 "
                         "sinks");
  LLM_TRY(checkTensor("sink_query", extras.sink_query, q.dtype,
                      {q.sizes[0], heads, q.sizes[2]}));
  return checkRows("sink_query", *extras.sink_query);
}

Status PagedKVCache::attention(const KVStep &step, int32_t layer,
                               const llm_tensor &q,
                               const llm_attention_params &params,
                               const llm_tensor &out, const llm_tensor *lse,
                               const llm_extras &extras) {
  LLM_TRY(checkStep(step, layer));
  const KVRows rows = {running_.ids, running_.cuSeqlens, running_.starts};
  return attend(rows, running_.id, layer, q, params, out, lse, extras);
}

Status PagedKVCache::attention(const KVRows &rows, int32_t layer,
                               const llm_tensor &q,
                               const llm_attention_params &params,
                               const llm_tensor &out, const llm_tensor *lse,
                               const llm_extras &extras) {
  LLM_TRY(checkLayer(layer));
  for (int32_t id : rows.ids)
    LLM_TRY(checkSequence(id));
  return attend(rows, 0, layer, q, params, out, lse, extras);
}

Status PagedKVCache::attend(const KVRows &rows, uint64_t step, int32_t layer,
                            const llm_tensor &q,
                            const llm_attention_params &params,
                            const llm_tensor &out, const llm_tensor *lse,
                            const llm_extras &extras) {
  const Timer timer(pool_->work.attention_ns);
  Status status = checkQueries(rows, q, params, out, lse);
  if (status.ok())
    status = checkModifiers(q, extras);
  if (status.ok())
    status = gather(rows.ids, layer, INT32_MAX, extras.block_indices, step);
  if (!status.ok())
    return status.atLayer(layer);
  const BatchView batch = {static_cast<int32_t>(rows.ids.size()),
                           rows.cuSeqlens.data(),
                           rows.starts.data(),
                           gather_.seqLens.data(),
                           gather_.table.data(),
                           gather_.stride};
  const AttentionParams resolved = resolveParams(params, extras, config());
  pagedAttention(pool_->pages(layer), batch, resolved, q, out, lse,
                 &attentionPlan_);
  const VisibleKeys visible = countVisibleKeys(batch, resolved);
  pool_->work.attention_bytes += visible.keys * pool_->tokenBytes();
  pool_->work.attention_flops +=
      4 * visible.pairs * q.sizes[1] * config().head_dim;
  return pool_->checkKernel("attention").atLayer(layer);
}

//===----------------------------------------------------------------------===//
// Lookup
//===----------------------------------------------------------------------===//

namespace {

/// Copies one component (K or V) of one row into a dense [C, Hkv, D] tensor.
struct RowCopy {
  const KVPages &pages;
  const int32_t *table;
  int64_t length;

  void operator()(const KVPlane &plane, const llm_tensor &out) const {
    const int64_t size = elementBytes(out.dtype);
    for (int64_t token = 0; token < out.sizes[0]; ++token)
      for (int64_t head = 0; head < pages.kvHeads; ++head) {
        char *to = static_cast<char *>(out.data) +
                   (token * out.strides[0] + head * out.strides[1]) * size;
        if (token < length)
          readRow(plane, table[token / pages.blockSize], head,
                  token % pages.blockSize, pages.headDim, to, out.dtype);
        else
          std::memset(to, 0, pages.headDim * size);
      }
  }
};

} // namespace

Status PagedKVCache::lookup(std::span<const int32_t> ids, int32_t layer,
                            const llm_tensor &k, const llm_tensor &v,
                            const llm_tensor *table) {
  LLM_TRY(checkLayer(layer));
  for (int32_t id : ids)
    LLM_TRY(checkSequence(id));
  const llm_kv_config &c = config();
  const auto rows = static_cast<int64_t>(ids.size());
  LLM_TRY(checkTensor("k", &k, c.dtype, {rows, -1, c.kv_heads, c.head_dim}));
  LLM_TRY(checkTensor("v", &v, c.dtype,
                      {rows, k.sizes[1], c.kv_heads, c.head_dim}));
  LLM_TRY(checkRows("k", k));
  LLM_TRY(checkRows("v", v));
  LLM_TRY(gather(ids, layer, k.sizes[1], table, 0));
  const KVPages pages = pool_->pages(layer);
  for (int64_t row = 0; row < rows; ++row) {
    const RowCopy copy = {pages, gather_.table.data() + row * gather_.stride,
                          gather_.seqLens[row]};
    copy(pages.k, indexFirst(k, row));
    copy(pages.v, indexFirst(v, row));
  }
  return Status();
}
