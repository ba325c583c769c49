//===- Attention.cpp - Attention calls, cut into tasks --------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
//   call  = sequences x KV heads x tiles of rows     (a task:
//   AttentionKernel.h)
//
// Tasks run in parallel. When there are too few of them for the threads (long
// contexts, few sequences), each is cut further, into its chunks of keys: their
// states are computed in parallel and merged in order. A task that does all of
// its chunks merges them in the same order, so the cut changes no bit.
//
//===----------------------------------------------------------------------===//

#include "../Parallel.h"
#include "Kernels.h"

#include <algorithm>
#include <memory>
#include <new>

using namespace llm;
using namespace llm::cpu;

namespace {

/// The most that chunk states may take; beyond it tasks stay whole.
constexpr int64_t kMaxSplitFloats = int64_t(1) << 24;

/// All tasks of a call, numbered sequence by sequence, then head by head, then
/// tile by tile: tiles of one head find its keys in the cache.
class Call {
public:
  Call(const KVPages &pages, const BatchView &batch,
       const AttentionParams &params, const llm_tensor &q,
       const llm_tensor &out, const llm_tensor *lse)
      : pages(pages), batch(batch), params(params), q(q), out(out), lse(lse),
        group(static_cast<int32_t>(q.sizes[1] / pages.kvHeads)),
        tileRows(rowsOfTile(pages.headDim)) {
    for (int32_t i = 0; i < batch.numSequences; ++i) {
      tasks += numTasks(i);
      maxRows = std::max(maxRows, std::min(numRows(i), tileRows));
    }
  }

  void run() const;

private:
  static int64_t rowsOfTile(int64_t headDim) {
    int64_t stride = (headDim + 15) / 16 * 16;
    return std::clamp<int64_t>(kMaxTaskFloats / stride, 1, kMaxTaskRows);
  }
  int64_t numRows(int32_t sequence) const {
    return int64_t(batch.cuSeqlens[sequence + 1] - batch.cuSeqlens[sequence]) *
           group;
  }
  int64_t numTasks(int32_t sequence) const {
    return (numRows(sequence) + tileRows - 1) / tileRows * pages.kvHeads;
  }

  AttentionTask task(int32_t sequence, int64_t index) const;
  template <typename Fn>
  void forTasks(int64_t begin, int64_t end, const Fn &fn) const;
  bool runSplit() const;
  int64_t maxChunks() const;

  const KVPages &pages;
  const BatchView &batch;
  const AttentionParams &params;
  const llm_tensor &q;
  const llm_tensor &out;
  const llm_tensor *lse;
  int32_t group;
  int64_t tileRows;
  int64_t tasks = 0;
  int64_t maxRows = 0; ///< of a task
};

/// Task `index` of a sequence.
AttentionTask Call::task(int32_t sequence, int64_t index) const {
  int64_t tiles = numTasks(sequence) / pages.kvHeads;
  int64_t begin = index % tiles * tileRows;
  return {.pages = &pages,
          .params = &params,
          .q = &q,
          .out = &out,
          .lse = lse,
          .blocks = batch.blockTable + sequence * batch.tableStride,
          .firstToken = batch.cuSeqlens[sequence],
          .firstPosition = batch.firstPosition[sequence],
          .seqLen = batch.seqLens[sequence],
          .rowBegin = begin,
          .rowEnd = std::min(begin + tileRows, numRows(sequence)),
          .kvHead = static_cast<int32_t>(index / tiles),
          .group = group};
}

/// fn(number, task) for the tasks [begin, end) of the call.
template <typename Fn>
void Call::forTasks(int64_t begin, int64_t end, const Fn &fn) const {
  int64_t first = 0;
  for (int32_t i = 0; i < batch.numSequences && first < end; ++i) {
    int64_t last = first + numTasks(i);
    for (int64_t t = std::max(begin, first); t < std::min(end, last); ++t)
      fn(t, task(i, t - first));
    first = last;
  }
}

/// Chunks of the task that has most.
int64_t Call::maxChunks() const {
  int64_t result = 0;
  forTasks(0, tasks, [&](int64_t, const AttentionTask &task) {
    result = std::max(result, chunksOf(task).count());
  });
  return result;
}

/// Computes chunks in parallel and then merges them. False if there is nothing
/// to cut, or no memory for it: nothing has happened then.
bool Call::runSplit() const {
  const KernelTable &table = kernels();
  int64_t chunks = maxChunks();
  int64_t stateFloats = table.stateFloats(maxRows, pages.headDim);
  if (chunks < 2 || tasks * chunks > kMaxSplitFloats / stateFloats)
    return false;
  std::unique_ptr<float[]> states(
      new (std::nothrow) float[tasks * chunks * stateFloats]);
  if (!states)
    return false;
  auto stateOf = [&](int64_t number, int64_t chunk) {
    return states.get() + (number * chunks + chunk) * stateFloats;
  };
  parallelFor(tasks * chunks, 1, [&](int64_t item, int64_t) {
    int64_t number = item / chunks, chunk = item % chunks;
    forTasks(number, number + 1, [&](int64_t, const AttentionTask &task) {
      const TaskChunks all = chunksOf(task);
      if (chunk < all.count())
        table.attendChunk(task, all[chunk], stateOf(number, chunk));
    });
  });
  forTasks(0, tasks, [&](int64_t number, const AttentionTask &task) {
    table.mergeChunks(task, stateOf(number, 0), stateFloats,
                      chunksOf(task).count());
  });
  return true;
}

void Call::run() const {
  int64_t threads = numThreads();
  if (threads > 1 && tasks < 2 * threads && runSplit())
    return;
  // Finding a range's first task takes a walk over the sequences: few ranges.
  int64_t grain = std::max<int64_t>(1, tasks / (16 * threads));
  parallelFor(tasks, grain, [&](int64_t begin, int64_t end) {
    forTasks(begin, end, [](int64_t, const AttentionTask &task) {
      kernels().attend(task);
    });
  });
}

} // namespace

void llm::pagedAttention(const KVPages &pages, const BatchView &batch,
                         const AttentionParams &params, const llm_tensor &q,
                         const llm_tensor &out, const llm_tensor *lse) {
  Call(pages, batch, params, q, out, lse).run();
}
