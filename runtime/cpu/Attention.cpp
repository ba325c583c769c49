//===- Attention.cpp - Attention calls, cut into tasks --------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
//   call  = sequences x groups of KV heads x tiles of rows  (a task:
//   AttentionKernel.h)
//   piece = a task, or some of its chunks
//
// A plan cuts a call into pieces of about the same work: a task that is too
// large for that is cut into runs of its chunks of keys, whose states are
// merged in order, by the thread that computes the last one. A task that does
// all of its chunks merges them in the same order, so the cut changes no bit.
// Threads draw pieces, the largest first.
//
//===----------------------------------------------------------------------===//

#include "llm/Runtime/AttentionPlan.h"

#include "../Parallel.h"
#include "Kernels.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <new>
#include <vector>

using namespace llm;
using namespace llm::cpu;

namespace {

/// The most that chunk states may take; beyond it tasks stay whole.
constexpr int64_t kMaxSplitFloats = int64_t(1) << 24;

/// The most that the keys and values of a task's tile should take, which stay
/// in the second-level cache: heads side by side make long pieces of memory,
/// and of 16 to 256 KB more was faster.
constexpr int64_t kTileBytes = 256 << 10;

/// Less work than this, in units of costOf, is not worth a thread.
constexpr int64_t kLeastCost = 16384;

/// A call of less work, in units of costOf times head_dim, takes one thread as
/// long as several: about 5 us.
constexpr int64_t kLeastShared = 65536;

/// A call: its operands, and the tasks that they make.
struct Call {
  const KVPages &pages;
  const BatchView &batch;
  const AttentionParams &params;
  const llm_tensor &q;
  const llm_tensor &out;
  const llm_tensor *lse;

  int32_t group() const {
    return static_cast<int32_t>(q.sizes[1] / pages.kvHeads);
  }
  int64_t numQueries(int32_t sequence) const {
    return batch.cuSeqlens[sequence + 1] - batch.cuSeqlens[sequence];
  }
  AttentionTask task(int32_t sequence, int64_t headBegin, int64_t headEnd,
                     int64_t rowBegin, int64_t rowEnd) const {
    return {.pages = &pages,
            .params = &params,
            .q = &q,
            .out = &out,
            .lse = lse,
            .blocks = batch.blockTable + sequence * batch.tableStride,
            .firstToken = batch.cuSeqlens[sequence],
            .firstPosition = batch.firstPosition[sequence],
            .queries = numQueries(sequence),
            .seqLen = batch.seqLens[sequence],
            .rowBegin = rowBegin,
            .rowEnd = rowEnd,
            .headBegin = headBegin,
            .headEnd = headEnd,
            .group = group()};
  }
  template <typename Fn>
  void forTasks(int64_t heads, const Fn &fn) const;
};

/// Rows of all heads that fit into a task.
int64_t rowsOfTask(int64_t headDim) {
  return std::clamp<int64_t>(kMaxTaskFloats / strideOfQueries(headDim), 1,
                             kMaxTaskRows);
}

/// Calls fn(task) for every task; of few rows, a task has up to `heads` heads.
template <typename Fn>
void Call::forTasks(int64_t heads, const Fn &fn) const {
  const int64_t fit = rowsOfTask(pages.headDim);
  for (int32_t i = 0; i < batch.numSequences; ++i) {
    const int64_t rows = numQueries(i) * group();
    const int64_t step =
        rows ? std::clamp<int64_t>(std::min(heads, fit / rows), 1, heads) : 1;
    for (int64_t row = 0; row < rows; row += fit)
      for (int64_t head = 0; head < pages.kvHeads; head += step)
        fn(i, task(i, head, std::min<int64_t>(head + step, pages.kvHeads), row,
                   std::min(row + fit, rows)));
  }
}

/// Keys that some row sees.
int64_t numKeys(const AttentionTask &task) {
  return visibleSinks(task, task.rowEnd - 1).end +
         visibleKeys(task, task.rowEnd - 1).end -
         visibleKeys(task, task.rowBegin).begin;
}

/// Products, and memory at the price of 8 rows of them.
int64_t costOf(const AttentionTask &task) {
  return numKeys(task) * (task.headEnd - task.headBegin) *
         (task.rowEnd - task.rowBegin + 8);
}

int64_t stateFloatsOf(const AttentionTask &task) {
  return kernels().stateFloats((task.rowEnd - task.rowBegin) *
                                   (task.headEnd - task.headBegin),
                               task.pages->headDim);
}

/// Numbers of a token and head.
int64_t rowBytes(const KVPlane &plane, int64_t headDim) {
  return plane.dtype == LLM_I4 ? codeBytes(headDim)
                               : headDim * bytesOf(plane.dtype);
}

/// Heads side by side in a task of few rows: as many as memory likes, unless
/// threads would lack tasks.
int64_t headsOfTask(const Call &call, int64_t threads) {
  const KVPages &pages = call.pages;
  const int64_t bytes =
      rowBytes(pages.k, pages.headDim) + rowBytes(pages.v, pages.headDim);
  int64_t chunks = 0;
  for (int32_t i = 0; i < call.batch.numSequences; ++i)
    chunks += (call.batch.seqLens[i] + kChunkKeys - 1) / kChunkKeys;
  const int64_t memory = std::max<int64_t>(kTileBytes / (kTileKeys * bytes), 1);
  const int64_t shared = std::max<int64_t>(pages.kvHeads * chunks / threads, 1);
  return std::min<int64_t>({memory, shared, pages.kvHeads});
}

} // namespace

//===----------------------------------------------------------------------===//
// Plans
//===----------------------------------------------------------------------===//

namespace {

/// What a plan depends on.
struct Key {
  std::vector<int32_t> batch; ///< cu_seqlens, positions, lengths
  std::array<int64_t, 9> shape;
  bool operator==(const Key &) const = default;
};

Key keyOf(const Call &call, int64_t threads) {
  const BatchView &batch = call.batch;
  const int32_t n = batch.numSequences;
  Key key;
  key.batch.assign(batch.cuSeqlens, batch.cuSeqlens + n + 1);
  key.batch.insert(key.batch.end(), batch.firstPosition,
                   batch.firstPosition + n);
  key.batch.insert(key.batch.end(), batch.seqLens, batch.seqLens + n);
  key.shape = {threads,
               call.group(),
               call.pages.kvHeads,
               call.pages.headDim,
               call.params.window,
               call.params.sinks,
               call.params.causal,
               call.pages.k.dtype,
               call.pages.v.dtype};
  return key;
}

/// A task without its operands, or some of its chunks.
struct Piece {
  int32_t sequence;
  int64_t headBegin, headEnd, rowBegin, rowEnd;
  KeyRange chunks; ///< of chunksOf(task), by number
  int64_t cut;     ///< number of its task among those that are cut, or -1
  int64_t states;  ///< where the states of the chunks begin
  int64_t cost;

  AttentionTask task(const Call &call) const {
    return call.task(sequence, headBegin, headEnd, rowBegin, rowEnd);
  }
};

} // namespace

struct AttentionPlan::Work {
  /// A task that was cut.
  struct Cut {
    Piece whole;
    int64_t pieces;
    int64_t left; ///< pieces that this call has yet to compute
  };

  Key key;
  std::vector<Piece> pieces;
  std::vector<Cut> cuts;
  std::vector<float> states;
  int64_t grain; ///< pieces that a thread draws at once

  void fit(const Call &call);
  void run(const Call &call);

private:
  void planTasks(const Call &call, int64_t threads);
  void cutTasks(const Call &call, int64_t threads);
  void compute(const Call &call, const Piece &piece);
};

void AttentionPlan::Work::fit(const Call &call) {
  const int64_t threads = numThreads();
  Key next = keyOf(call, threads);
  if (next == key)
    return;
  key = {};
  planTasks(call, threads);
  cutTasks(call, threads);
  std::sort(pieces.begin(), pieces.end(),
            [](const Piece &a, const Piece &b) { return a.cost > b.cost; });
  key = std::move(next);
}

void AttentionPlan::Work::planTasks(const Call &call, int64_t threads) {
  pieces.clear();
  const int64_t heads = headsOfTask(call, threads);
  call.forTasks(heads, [&](int32_t sequence, const AttentionTask &task) {
    pieces.push_back({sequence,
                      task.headBegin,
                      task.headEnd,
                      task.rowBegin,
                      task.rowEnd,
                      {0, chunksOf(task).count()},
                      -1,
                      0,
                      costOf(task)});
  });
}

/// Cuts tasks with more than half of a thread's share.
void AttentionPlan::Work::cutTasks(const Call &call, int64_t threads) {
  cuts.clear();
  int64_t cost = 0, floats = 0;
  for (const Piece &task : pieces)
    cost += task.cost;
  const int64_t share = std::max(cost / (2 * threads), kLeastCost);
  for (size_t i = 0, tasks = pieces.size(); i < tasks && threads > 1; ++i) {
    Piece whole = pieces[i];
    const int64_t chunks = whole.chunks.end;
    const int64_t count = std::min((whole.cost + share - 1) / share, chunks);
    const int64_t size = stateFloatsOf(whole.task(call));
    if (count < 2 || floats + chunks * size > kMaxSplitFloats)
      continue;
    whole.cut = static_cast<int64_t>(cuts.size());
    whole.states = floats;
    floats += chunks * size;
    cuts.push_back({whole, count, 0});
    for (int64_t n = 0; n < count; ++n) {
      const int64_t first = chunks * n / count;
      Piece piece = whole;
      piece.chunks = {first, chunks * (n + 1) / count};
      piece.states = whole.states + first * size;
      piece.cost = whole.cost / count;
      n ? pieces.push_back(piece) : void(pieces[i] = piece);
    }
  }
  states.resize(floats);
  const bool shared = cost * call.pages.headDim >= kLeastShared;
  grain = shared ? 1 : static_cast<int64_t>(pieces.size());
}

void AttentionPlan::Work::run(const Call &call) {
  for (Cut &cut : cuts)
    cut.left = cut.pieces;
  parallelFor(pieces.size(), grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      compute(call, pieces[i]);
  });
}

void AttentionPlan::Work::compute(const Call &call, const Piece &piece) {
  const KernelTable &table = kernels();
  const AttentionTask task = piece.task(call);
  if (piece.cut < 0)
    return table.attend(task);
  const int64_t size = stateFloatsOf(task);
  table.attendChunks(task, piece.chunks, &states[piece.states], size);
  Cut &cut = cuts[piece.cut];
  if (std::atomic_ref(cut.left).fetch_sub(1) == 1)
    table.mergeChunks(task, &states[cut.whole.states], size,
                      cut.whole.chunks.end);
}

AttentionPlan::AttentionPlan() = default;
AttentionPlan::~AttentionPlan() = default;
AttentionPlan::AttentionPlan(AttentionPlan &&) noexcept = default;
AttentionPlan &AttentionPlan::operator=(AttentionPlan &&) noexcept = default;

void llm::pagedAttention(const KVPages &pages, const BatchView &batch,
                         const AttentionParams &params, const llm_tensor &q,
                         const llm_tensor &out, const llm_tensor *lse,
                         AttentionPlan *plan) {
  const Call call = {pages, batch, params, q, out, lse};
  AttentionPlan own;
  std::unique_ptr<AttentionPlan::Work> &work = (plan ? plan : &own)->work;
  try {
    if (!work)
      work = std::make_unique<AttentionPlan::Work>();
    work->fit(call);
  } catch (const std::bad_alloc &) { // then without a plan
    call.forTasks(
        1, [](int32_t, const AttentionTask &task) { kernels().attend(task); });
    return;
  }
  work->run(call);
}
