//===- Batch.cpp - Operations of compiled code without a step -------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Batch.h"
#include "Tensors.h"

#include <optional>

using namespace llm;

//===----------------------------------------------------------------------===//
// Shapes
//===----------------------------------------------------------------------===//

Status llm::checkOneLayer(const PagedKVCache &version) {
  const int32_t layers = version.config().layers;
  if (layers == 1)
    return Status();
  return Status::error(LLM_INVALID_ARGUMENT, 1, layers,
                       "expected a cache of 1 layer without a step, got %d",
                       layers);
}

std::span<const int32_t> llm::firstIds(Call &call, int64_t n) {
  call.ids.resize(n);
  for (int64_t i = 0; i < n; ++i)
    call.ids[i] = static_cast<int32_t>(i);
  return call.ids;
}

/// 0, s, 2s .. n * s.
static Status evenSplit(Call &call, int64_t n, int64_t s,
                        std::span<const int32_t> &cuSeqlens) {
  if (n >= INT32_MAX || (s > 0 && n > INT32_MAX / s))
    return Status::error(LLM_INVALID_ARGUMENT, INT32_MAX, n,
                         "expected at most %d tokens in a batch, got %lld "
                         "sequences of %lld",
                         INT32_MAX, static_cast<long long>(n),
                         static_cast<long long>(s));
  call.others.resize(n + 1);
  for (int64_t i = 0; i <= n; ++i)
    call.others[i] = static_cast<int32_t>(i * s);
  cuSeqlens = call.others;
  return Status();
}

namespace {

/// A [B, S, ...] tensor as [B * S, ...]: itself where its strides allow it,
/// else a copy in the call's arena.
class Collapsed {
public:
  Collapsed(Arena &arena, const llm_tensor &tensor)
      : original_(tensor), view_(tensor) {
    if (collapseBatch(view_))
      return;
    dense_ = packed(arena, tensor);
    view_ = dense_;
    collapseBatch(view_);
    if (dense_.data)
      copyElements(original_, dense_);
  }

  Status check() const {
    if (!dense_.rank || dense_.data)
      return Status();
    return Status::error(LLM_OUT_OF_MEMORY, 1, 0,
                         "no memory for a dense copy of a strided batch");
  }
  const llm_tensor &view() const { return view_; }
  /// An output's elements go where the caller wants them.
  void writeBack() const {
    if (dense_.rank)
      copyElements(dense_, original_);
  }

private:
  static llm_tensor packed(Arena &arena, const llm_tensor &tensor) {
    llm_tensor dense = tensor;
    int64_t elements = 1;
    for (int32_t i = tensor.rank - 1; i >= 0; --i) {
      dense.strides[i] = elements;
      elements *= tensor.sizes[i];
    }
    dense.data = arena.allocate(elements * elementBytes(tensor.dtype));
    return dense;
  }

  llm_tensor original_;
  llm_tensor view_;
  llm_tensor dense_ = {};
};

/// Gives the arena back what dense copies took.
class ArenaScope {
public:
  explicit ArenaScope(Arena &arena) : arena_(arena), mark_(arena.mark()) {}
  ~ArenaScope() { arena_.release(mark_); }

private:
  Arena &arena_;
  int64_t mark_;
};

} // namespace

//===----------------------------------------------------------------------===//
// Operations
//===----------------------------------------------------------------------===//

Status llm::appendBatch(Call &call, PagedKVCache &version, const llm_tensor *k,
                        const llm_tensor *v) {
  const llm_kv_config &c = version.config();
  LLM_TRY(checkOneLayer(version));
  LLM_TRY(checkFloats("k", k, {-1, -1, c.kv_heads, c.head_dim}));
  LLM_TRY(
      checkFloats("v", v, {k->sizes[0], k->sizes[1], c.kv_heads, c.head_dim}));
  std::span<const int32_t> cuSeqlens;
  LLM_TRY(evenSplit(call, k->sizes[0], k->sizes[1], cuSeqlens));
  const ArenaScope scope(call.arena);
  const Collapsed keys(call.arena, *k), values(call.arena, *v);
  LLM_TRY(keys.check());
  LLM_TRY(values.check());
  KVStep &step = call.steps.next().step;
  LLM_TRY(version.beginStep(firstIds(call, k->sizes[0]), cuSeqlens, step));
  return version.append(step, 0, keys.view(), values.view());
}

/// The position of the first of `queries` tokens at the end of each sequence.
static Status lastPositions(const PagedKVCache &version,
                            std::span<const int32_t> ids, int64_t queries,
                            std::vector<int32_t> &starts) {
  starts.clear();
  for (int32_t id : ids) {
    LLM_TRY(version.checkSequence(id));
    if (queries > version.length(id))
      return Status::error(LLM_INVALID_ARGUMENT, version.length(id), queries,
                           "expected at most %d queries of sequence %d, got "
                           "%lld",
                           version.length(id), id,
                           static_cast<long long>(queries))
          .ofSequence(id);
    starts.push_back(static_cast<int32_t>(version.length(id) - queries));
  }
  return Status();
}

Status llm::attendBatch(Call &call, PagedKVCache &version, const llm_tensor &q,
                        const llm_attention_params &params,
                        const llm_tensor &out, const llm_tensor *lse,
                        const llm_extras &extras) {
  LLM_TRY(checkOneLayer(version));
  LLM_TRY(checkFloats("q", &q, {-1, -1, -1, version.config().head_dim}));
  const int64_t rows = q.sizes[0], queries = q.sizes[1], heads = q.sizes[2];
  LLM_TRY(checkFloats("out", &out, {rows, queries, heads, q.sizes[3]}));
  if (lse)
    LLM_TRY(checkTensor("lse", lse, LLM_F32, {rows, queries, heads}));
  if (extras.sink_query)
    LLM_TRY(checkTensor("sink_query", extras.sink_query, q.dtype,
                        {rows, queries, heads, q.sizes[3]}));
  KVRows batch;
  LLM_TRY(evenSplit(call, rows, queries, batch.cuSeqlens));
  batch.ids = firstIds(call, rows);
  std::vector<int32_t> &starts = call.steps.next().step.starts;
  LLM_TRY(lastPositions(version, batch.ids, queries, starts));
  batch.starts = starts;

  const ArenaScope scope(call.arena);
  const Collapsed from(call.arena, q), to(call.arena, out);
  std::optional<Collapsed> sums, nearer;
  if (lse)
    LLM_TRY(sums.emplace(call.arena, *lse).check());
  llm_extras collapsed = extras;
  if (extras.sink_query) {
    LLM_TRY(nearer.emplace(call.arena, *extras.sink_query).check());
    collapsed.sink_query = &nearer->view();
  }
  LLM_TRY(from.check());
  LLM_TRY(to.check());
  LLM_TRY(version.attention(batch, 0, from.view(), params, to.view(),
                            sums ? &sums->view() : nullptr, collapsed));
  to.writeBack();
  if (sums)
    sums->writeBack();
  return Status();
}
