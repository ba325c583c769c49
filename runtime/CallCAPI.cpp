//===- CallCAPI.cpp - The C ABI of compiled code --------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Batch.h"
#include "Linear.h"
#include "Tensors.h"
#include "Work.h"
#include "cpu/Blocks.h"
#include "cpu/Kernels.h"

#include <algorithm>
#include <cmath>

using namespace llm;

//===----------------------------------------------------------------------===//
// How a function runs
//===----------------------------------------------------------------------===//

/// Runs `body` and keeps its error, if any, in the call.
template <typename Body>
static llm_code run(llm_call *base, int32_t site, const Body &body) {
  Call &call = Call::of(base);
  const Status status = withoutExceptions([&]() -> Status {
    LLM_TRY(call.checkCancelled());
    return body(call);
  });
  return status.ok() ? LLM_OK : call.fail(site, status);
}

/// The same for a function of a cache.
template <typename Body>
static llm_code onCache(llm_call *base, int32_t site, uint64_t kv,
                        const Body &body) {
  return run(base, site, [&](Call &call) -> Status {
    PagedKVCache *version;
    LLM_TRY(call.find(kv, version));
    return body(call, *version);
  });
}

/// A step at a layer: the handle that llm_rt_at_layer makes. A cache of one
/// layer needs none.
static Status findAt(Call &call, uint64_t at, const KVStep *&step,
                     int32_t &layer) {
  const StepTable::Entry *entry;
  LLM_TRY(call.findStep(at, entry));
  step = &entry->step;
  layer = static_cast<int32_t>(at >> 48) - 1;
  if (layer < 0 && entry->layers == 1)
    layer = 0;
  if (layer < 0)
    return Status::error(LLM_INVALID_ARGUMENT, entry->layers, 0,
                         "expected a layer of %d with the step, got none",
                         entry->layers);
  return Status();
}

/// i32 [N] as a span; `scratch` lives in the call.
static Status readIds(const char *name, const llm_tensor *tensor,
                      std::vector<int32_t> &scratch,
                      std::span<const int32_t> &values) {
  LLM_TRY(checkTensor(name, tensor, LLM_I32, {-1}));
  values = readI32(*tensor, scratch);
  return Status();
}

static Status readLengths(Call &call, const llm_tensor *tensor, size_t n,
                          std::span<const int64_t> &values) {
  LLM_TRY(checkTensor("lengths", tensor, LLM_I32, {static_cast<int64_t>(n)}));
  values = widenI32(*tensor, call.lengths);
  return Status();
}

/// Valid sequence ids.
static Status readSequences(Call &call, const PagedKVCache &version,
                            const llm_tensor *tensor,
                            std::span<const int32_t> &ids) {
  LLM_TRY(readIds("seq_ids", tensor, call.ids, ids));
  for (int32_t id : ids)
    LLM_TRY(version.checkSequence(id));
  return Status();
}

static int32_t *elementI32(const llm_tensor &tensor, int64_t i, int64_t j = 0) {
  return static_cast<int32_t *>(tensor.data) + i * tensor.strides[0] +
         (tensor.rank > 1 ? j * tensor.strides[1] : 0);
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

llm_code llm_rt_begin_step(llm_call *call, int32_t site, uint64_t kv,
                           const llm_tensor *seq_ids,
                           const llm_tensor *cu_seqlens, uint64_t *step) {
  return onCache(call, site, kv, [&](Call &c, PagedKVCache &version) -> Status {
    std::span<const int32_t> ids, cu;
    LLM_TRY(readIds("seq_ids", seq_ids, c.ids, ids));
    LLM_TRY(readIds("cu_seqlens", cu_seqlens, c.others, cu));
    StepTable::Entry &entry = c.steps.next();
    LLM_TRY(version.beginStep(ids, cu, entry.step));
    entry.layers = version.config().layers;
    *step = c.steps.accept();
    return Status();
  });
}

llm_code llm_rt_step_size(llm_call *call, int32_t site, uint64_t step,
                          int64_t *tokens, int64_t *sequences) {
  return run(call, site, [&](Call &c) -> Status {
    const StepTable::Entry *entry;
    LLM_TRY(c.findStep(step, entry));
    *tokens = entry->step.numTokens();
    *sequences = entry->step.numSequences();
    return Status();
  });
}

llm_code llm_rt_positions(llm_call *call, int32_t site, uint64_t step,
                          const llm_tensor *out) {
  return run(call, site, [&](Call &c) -> Status {
    const StepTable::Entry *entry;
    LLM_TRY(c.findStep(step, entry));
    const KVStep &s = entry->step;
    LLM_TRY(checkTensor("out", out, LLM_I32, {s.numTokens()}));
    for (int32_t row = 0; row < s.numSequences(); ++row)
      for (int32_t i = 0; i < s.newTokens(row); ++i)
        *elementI32(*out, s.cuSeqlens[row] + i) = s.starts[row] + i;
    return Status();
  });
}

llm_code llm_rt_at_layer(llm_call *call, int32_t site, uint64_t step,
                         int64_t layer, uint64_t *at) {
  return run(call, site, [&](Call &c) -> Status {
    const StepTable::Entry *entry;
    LLM_TRY(c.findStep(step, entry));
    if (layer < 0 || layer >= entry->layers)
      return Status::error(LLM_INVALID_ARGUMENT, entry->layers, layer,
                           "expected a layer below %d, got %lld", entry->layers,
                           static_cast<long long>(layer))
          .atLayer(static_cast<int32_t>(layer));
    *at = (step & 0xffffffffffff) | static_cast<uint64_t>(layer + 1) << 48;
    return Status();
  });
}

//===----------------------------------------------------------------------===//
// Append
//===----------------------------------------------------------------------===//

llm_code llm_rt_append_kv(llm_call *call, int32_t site, uint64_t kv,
                          uint64_t at, const llm_tensor *k, const llm_tensor *v,
                          const llm_extras *extras) {
  return onCache(call, site, kv, [&](Call &c, PagedKVCache &version) -> Status {
    llm_extras known;
    LLM_TRY(readExtras(extras, known));
    if (!at && known.rope_table)
      return Status::error(LLM_INVALID_ARGUMENT, 1, 0,
                           "expected a step for a rope table, got none");
    if (!at)
      return appendBatch(c, version, k, v);
    if (!k || !v)
      return nullArgument("k and v");
    const KVStep *step;
    int32_t layer;
    LLM_TRY(findAt(c, at, step, layer));
    return version.append(*step, layer, *k, *v, known);
  });
}

//===----------------------------------------------------------------------===//
// Attention and lookup
//===----------------------------------------------------------------------===//

llm_code llm_rt_paged_attention(llm_call *call, int32_t site, uint64_t kv,
                                uint64_t at, const llm_tensor *q,
                                const llm_tensor *out, const llm_tensor *lse,
                                const llm_attention_params *params,
                                const llm_extras *extras) {
  const llm_attention_params resolved =
      params ? *params : llm_attention_params{NAN, 0, 0, 1};
  return onCache(call, site, kv, [&](Call &c, PagedKVCache &version) -> Status {
    if (!q || !out)
      return nullArgument("q and out");
    llm_extras known;
    LLM_TRY(readExtras(extras, known));
    if (!at)
      return attendBatch(c, version, *q, resolved, *out, lse, known);
    const KVStep *step;
    int32_t layer;
    LLM_TRY(findAt(c, at, step, layer));
    return version.attention(*step, layer, *q, resolved, *out, lse, known);
  });
}

llm_code llm_rt_lookup_kv(llm_call *call, int32_t site, uint64_t kv,
                          uint64_t at, const llm_tensor *k, const llm_tensor *v,
                          const llm_extras *extras) {
  return onCache(call, site, kv, [&](Call &c, PagedKVCache &version) -> Status {
    if (!k || !v)
      return nullArgument("k and v");
    llm_extras known;
    LLM_TRY(readExtras(extras, known));
    const llm_tensor *table = known.block_indices;
    if (at) {
      const KVStep *step;
      int32_t layer;
      LLM_TRY(findAt(c, at, step, layer));
      return version.lookup(step->ids, layer, *k, *v, table);
    }
    LLM_TRY(checkOneLayer(version));
    LLM_TRY(checkShape("k", k, {-1, -1, -1, -1}));
    return version.lookup(firstIds(c, k->sizes[0]), 0, *k, *v, table);
  });
}

//===----------------------------------------------------------------------===//
// Linear layers
//===----------------------------------------------------------------------===//

/// What a matrix w of `format` consists of, panel by panel.
struct WeightSteps {
  llm_dtype dtype;
  bool inSteps; ///< tiles or blocks of 32 numbers of x, else single ones
  int64_t elements;
};

static Status stepsOf(const llm_tensor *w, llm_file_format format,
                      WeightSteps &steps) {
  constexpr int64_t kColumns = cpu::kWeightPanelColumns;
  if (cpu::isBlockFormat(format))
    steps = {LLM_I8, true, cpu::bytesOfBlock(format)};
  else if (format == LLM_FILE_F32)
    steps = {LLM_F32, false, kColumns};
  else if (format == LLM_FILE_BF16 && w && w->rank == 3 && !isTiled(*w))
    steps = {LLM_BF16, false, kColumns};
  else if (format == LLM_FILE_BF16)
    steps = {LLM_BF16, true, kColumns * cpu::kWeightDepth};
  else
    return Status::error(LLM_UNSUPPORTED, LLM_FILE_BF16, format,
                         "expected w of f32, bf16, q8_0, q4_0 or q4_1, got "
                         "format %d",
                         format);
  return Status();
}

/// w as a matrix of `panels` panels for rows of k numbers.
static Status checkPanels(const llm_tensor *w, const WeightSteps &of,
                          int64_t panels, int64_t k) {
  constexpr int64_t kDepth = cpu::kWeightDepth;
  if (of.inSteps && k % kDepth != 0)
    return Status::error(LLM_INVALID_ARGUMENT, kDepth, k,
                         "expected x with a multiple of %lld columns, got %lld",
                         static_cast<long long>(kDepth),
                         static_cast<long long>(k));
  const int64_t steps = of.inSteps ? k / kDepth : k;
  const int64_t stride = steps * of.elements;
  LLM_TRY(checkTensor("w", w, of.dtype, {panels, steps, of.elements}));
  if (w->strides[2] != 1 || w->strides[1] != of.elements ||
      w->strides[0] != stride)
    return Status::error(LLM_INVALID_ARGUMENT, stride, w->strides[0],
                         "expected contiguous w, got panels %lld elements "
                         "apart instead of %lld",
                         static_cast<long long>(w->strides[0]),
                         static_cast<long long>(stride));
  return Status();
}

static Status checkActivations(llm_file_format format, bool inSteps,
                               llm_dtype activations) {
  const bool blocks = cpu::isBlockFormat(format);
  if (activations == LLM_BF16 && !inSteps)
    return Status::error(LLM_UNSUPPORTED, LLM_F32, activations,
                         "expected activations of f32 beside w in panels, got "
                         "%s",
                         dtypeName(activations));
  if (activations == LLM_F32 || activations == LLM_BF16 ||
      (activations == LLM_I8 && blocks))
    return Status();
  return Status::error(LLM_UNSUPPORTED, LLM_BF16, activations,
                       "expected activations of f32%s bf16%s, got %s",
                       blocks ? "," : " or", blocks ? " or i8" : "",
                       dtypeName(activations));
}

static Status checkLinear(const llm_tensor *x, const llm_tensor *w,
                          llm_file_format format, llm_dtype activations,
                          const llm_tensor *out) {
  LLM_TRY(checkTensor("x", x, LLM_F32, {-1, -1}));
  LLM_TRY(checkRows("x", *x));
  LLM_TRY(checkTensor("out", out, LLM_F32, {x->sizes[0], -1}));
  LLM_TRY(checkRows("out", *out));
  constexpr int64_t kColumns = cpu::kWeightPanelColumns;
  WeightSteps steps = {};
  LLM_TRY(stepsOf(w, format, steps));
  LLM_TRY(checkPanels(w, steps, (out->sizes[1] + kColumns - 1) / kColumns,
                      x->sizes[1]));
  return checkActivations(format, steps.inSteps, activations);
}

/// Weights are counted without the rows that pad them, their bytes with those.
static void countLinear(llm_model_work &work, const llm_tensor &x,
                        const llm_tensor &w, const llm_tensor &out) {
  work.linear_bytes +=
      w.sizes[0] * w.sizes[1] * w.sizes[2] * elementBytes(w.dtype);
  work.linear_flops += 2 * x.sizes[0] * x.sizes[1] * out.sizes[1];
}

llm_code llm_rt_linear(llm_call *call, int32_t site, const llm_tensor *x,
                       const llm_tensor *w, llm_file_format format,
                       llm_dtype activations, const llm_tensor *out) {
  return run(call, site, [&](Call &c) -> Status {
    LLM_TRY(checkLinear(x, w, format, activations, out));
    const Timer timer(c.work.linear_ns);
    linear({*x, *w, *out, format, activations}, c.factors);
    countLinear(c.work, *x, *w, *out);
    return Status();
  });
}

//===----------------------------------------------------------------------===//
// Sequences
//===----------------------------------------------------------------------===//

llm_code llm_rt_fork_kv(llm_call *call, int32_t site, uint64_t kv,
                        const llm_tensor *parents, const llm_tensor *children,
                        const llm_tensor *lengths) {
  return onCache(call, site, kv, [&](Call &c, PagedKVCache &version) -> Status {
    std::span<const int32_t> from, to;
    std::span<const int64_t> tokens;
    LLM_TRY(readIds("parents", parents, c.ids, from));
    const auto n = static_cast<int64_t>(from.size());
    LLM_TRY(checkTensor("children", children, LLM_I32, {n}));
    to = readI32(*children, c.others);
    LLM_TRY(readLengths(c, lengths, from.size(), tokens));
    return version.fork(from, to, tokens);
  });
}

llm_code llm_rt_trim_kv(llm_call *call, int32_t site, uint64_t kv,
                        const llm_tensor *seq_ids, const llm_tensor *lengths) {
  return onCache(call, site, kv, [&](Call &c, PagedKVCache &version) -> Status {
    std::span<const int32_t> ids;
    std::span<const int64_t> tokens;
    LLM_TRY(readIds("seq_ids", seq_ids, c.ids, ids));
    LLM_TRY(readLengths(c, lengths, ids.size(), tokens));
    return version.trim(ids, tokens);
  });
}

llm_code llm_rt_release_kv(llm_call *call, int32_t site, uint64_t kv,
                           const llm_tensor *seq_ids) {
  return onCache(call, site, kv, [&](Call &c, PagedKVCache &version) -> Status {
    std::span<const int32_t> ids;
    LLM_TRY(readIds("seq_ids", seq_ids, c.ids, ids));
    return version.release(ids);
  });
}

llm_code llm_rt_seq_lens(llm_call *call, int32_t site, uint64_t kv,
                         const llm_tensor *seq_ids, const llm_tensor *out) {
  return onCache(call, site, kv, [&](Call &c, PagedKVCache &version) -> Status {
    std::span<const int32_t> ids;
    LLM_TRY(readSequences(c, version, seq_ids, ids));
    LLM_TRY(
        checkTensor("out", out, LLM_I32, {static_cast<int64_t>(ids.size())}));
    for (size_t i = 0; i < ids.size(); ++i)
      *elementI32(*out, i) = version.length(ids[i]);
    return Status();
  });
}

llm_code llm_rt_block_table_width(llm_call *call, int32_t site, uint64_t kv,
                                  const llm_tensor *seq_ids, int64_t *width) {
  return onCache(call, site, kv, [&](Call &c, PagedKVCache &version) -> Status {
    std::span<const int32_t> ids;
    LLM_TRY(readSequences(c, version, seq_ids, ids));
    size_t longest = 0;
    for (int32_t id : ids)
      longest = std::max(longest, version.blocks(id).size());
    *width = static_cast<int64_t>(longest);
    return Status();
  });
}

llm_code llm_rt_block_table(llm_call *call, int32_t site, uint64_t kv,
                            const llm_tensor *seq_ids, const llm_tensor *out) {
  return onCache(call, site, kv, [&](Call &c, PagedKVCache &version) -> Status {
    std::span<const int32_t> ids;
    LLM_TRY(readSequences(c, version, seq_ids, ids));
    const auto rows = static_cast<int64_t>(ids.size());
    LLM_TRY(checkTensor("out", out, LLM_I32, {rows, -1}));
    for (int32_t id : ids) {
      const auto blocks = static_cast<int64_t>(version.blocks(id).size());
      if (blocks > out->sizes[1])
        return Status::error(LLM_INVALID_ARGUMENT, blocks, out->sizes[1],
                             "expected a table of %lld blocks for sequence %d, "
                             "got %lld",
                             static_cast<long long>(blocks), id,
                             static_cast<long long>(out->sizes[1]))
            .ofSequence(id);
    }
    for (int64_t i = 0; i < rows; ++i) {
      const std::span<const int32_t> blocks = version.blocks(ids[i]);
      for (int64_t j = 0; j < out->sizes[1]; ++j)
        *elementI32(*out, i, j) = size_t(j) < blocks.size() ? blocks[j] : -1;
    }
    return Status();
  });
}

//===----------------------------------------------------------------------===//
// Versions
//===----------------------------------------------------------------------===//

llm_code llm_rt_create_kv_cache(llm_call *call, int32_t site,
                                const llm_kv_group_desc *type, int64_t blocks,
                                uint64_t *kv) {
  return run(call, site, [&](Call &c) -> Status {
    llm_kv_config config;
    initConfig(type, config);
    config.num_blocks = blocks;
    std::unique_ptr<PagedKVCache> version;
    LLM_TRY(PagedKVCache::create(config, version, c.faults));
    *kv = c.versions.add(std::move(version));
    return Status();
  });
}

llm_code llm_rt_cast_kv(llm_call *call, int32_t site, uint64_t kv,
                        const llm_kv_group_desc *type) {
  return onCache(call, site, kv, [&](Call &, PagedKVCache &version) {
    return type ? checkType(*type, version.config()) : nullArgument("a type");
  });
}

llm_code llm_rt_kv_stats(llm_call *call, int32_t site, uint64_t kv,
                         const llm_tensor *out) {
  return onCache(call, site, kv, [&](Call &, PagedKVCache &version) -> Status {
    LLM_TRY(checkTensor("out", out, LLM_I64, {LLM_KV_NUM_STATS}));
    const llm_kv_stats stats = version.stats();
    const auto *values = reinterpret_cast<const int64_t *>(&stats);
    for (int64_t i = 0; i < LLM_KV_NUM_STATS; ++i)
      static_cast<int64_t *>(out->data)[i * out->strides[0]] = values[i];
    return Status();
  });
}

llm_code llm_rt_snapshot_kv(llm_call *call, int32_t site, uint64_t kv,
                            uint64_t *copy) {
  if (!kv) {
    *copy = 0;
    return LLM_OK;
  }
  return onCache(call, site, kv, [&](Call &c, PagedKVCache &version) {
    *copy = c.versions.add(version.snapshot());
    return Status();
  });
}

/// A handle of the host's object, or of a version of the call, as asked.
static Status checkOwner(const Call &call, uint64_t kv, bool host) {
  if ((call.versions.findHost(kv) != nullptr) == host)
    return Status();
  return Status::error(LLM_WRONG_STATE, host, !host,
                       host ? "expected the handle of a host's cache, got a "
                              "version of the call"
                            : "expected a version of the call, got the handle "
                              "of a host's cache");
}

llm_code llm_rt_drop_kv(llm_call *call, int32_t site, uint64_t kv) {
  if (!kv)
    return LLM_OK;
  return onCache(call, site, kv, [&](Call &c, PagedKVCache &) -> Status {
    if (!c.versions.findHost(kv)) // which outlives its drop
      c.versions.remove(kv);
    return Status();
  });
}

llm_code llm_rt_replace_kv(llm_call *call, int32_t site, uint64_t host,
                           uint64_t kv) {
  return onCache(call, site, kv, [&](Call &c, PagedKVCache &version) -> Status {
    if (!c.versions.findHost(host)) {
      PagedKVCache *other;
      LLM_TRY(c.find(host, other));
      return checkOwner(c, host, true);
    }
    if (host == kv)
      return Status();
    LLM_TRY(checkOwner(c, kv, false));
    LLM_TRY(c.checkReplacement(host, version));
    c.versions.findHost(host)->replace(c.versions.remove(kv));
    return Status();
  });
}

//===----------------------------------------------------------------------===//
// Workspace and failure
//===----------------------------------------------------------------------===//

llm_code llm_rt_workspace(llm_call *call, int32_t site, int64_t bytes,
                          void **data) {
  return run(call, site, [&](Call &c) -> Status {
    if (bytes < 0)
      return Status::error(LLM_INVALID_ARGUMENT, 0, bytes,
                           "expected 0 or more bytes of workspace, got %lld",
                           static_cast<long long>(bytes));
    void *memory = c.arena.allocate(bytes);
    if (!memory)
      return Status::error(LLM_OUT_OF_MEMORY, bytes, c.arena.capacity(),
                           "no memory for %lld bytes of workspace on top of "
                           "%lld",
                           static_cast<long long>(bytes),
                           static_cast<long long>(c.arena.capacity()));
    *data = memory;
    return Status();
  });
}

llm_code llm_rt_workspace_mark(llm_call *call, int32_t, int64_t *mark) {
  *mark = Call::of(call).arena.mark();
  return LLM_OK;
}

llm_code llm_rt_workspace_release(llm_call *call, int32_t site, int64_t mark) {
  return run(call, site, [&](Call &c) {
    const int64_t top = c.arena.mark();
    if (c.arena.release(mark))
      return Status();
    return Status::error(LLM_INVALID_ARGUMENT, top, mark,
                         "expected a mark of at most %lld, got %lld",
                         static_cast<long long>(top),
                         static_cast<long long>(mark));
  });
}

llm_code llm_rt_check_size(llm_call *call, int32_t site, const char *what,
                           int64_t actual, int64_t expected) {
  return run(call, site, [&](Call &) {
    if (actual == expected)
      return Status();
    return Status::error(LLM_INVALID_ARGUMENT, expected, actual,
                         "expected %s to be %lld, got %lld", what,
                         static_cast<long long>(expected),
                         static_cast<long long>(actual));
  });
}

llm_code llm_rt_fail(llm_call *call, int32_t site, llm_code code,
                     const char *message, int64_t expected, int64_t actual) {
  return Call::of(call).fail(
      site, Status::error(code == LLM_OK ? LLM_INTERNAL : code, expected,
                          actual, "%s", message ? message : "failed"));
}
