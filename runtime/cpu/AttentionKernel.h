//===- AttentionKernel.h - Paged attention with online softmax ---*- C++
//-*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
//   position  0      64     128            512                     seqLen
//   tiles     |------|------|------| ... --|------|------| ... -|---|
//   chunks    |----------------------------|--------------------------- ..
//   blocks    [5   ][0   ][9   ][2   ] ...   (any size, any order)
//
// A task is the rows (queries x heads of one group) that read the same K and V
// head: a key that has been fetched serves all of them. Tile by tile the task
//
//   1. looks its keys up in the block table (one byte offset per key), and
//      widens them to f32 once if there are many rows,
//   2. computes scores, 3. folds them into each row's running maximum m, sum l
//   of exponentials and output o, 4. adds the weighted values to o.
//
// A chunk always starts from an empty state and chunks are merged in order
// (OnlineSoftmax.h), so it does not matter whether one thread computes them all
// or several threads compute one each.
//
// Tiles and chunks stand at fixed positions, and a row's arithmetic is the same
// whatever its neighbours are. Hence the results of a row are the same bits for
// any batch around it, any cut of its queries into chunks, any block size,
// number of threads and order of blocks. Keys that no row of a task sees are
// not touched; keys that a row does not see never enter its arithmetic.
//
// Floor of decode: the bytes of K and V over the read bandwidth. Of prefill:
// 4 * headDim flops for each visible (row, key) pair over the peak of f32 fma;
// scores pay 3 more instructions per headDim / 16 for adding up lanes.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_ATTENTIONKERNEL_H
#define LLM_RUNTIME_CPU_ATTENTIONKERNEL_H

#include "AttentionTile.h"
#include "Kernels.h"
#include "OnlineSoftmax.h"

namespace llm::cpu {
namespace {

//===----------------------------------------------------------------------===//
// Workspace
//===----------------------------------------------------------------------===//

/// Rows from which on widening a tile once is cheaper than at every use.
constexpr int64_t kWidenRows = 8;
constexpr int64_t kWidenDim = 256;
constexpr int64_t kScoreStride = kTileKeys + kKeySlack;

/// What a task computes in: on the stack, because kernels cannot fail.
struct Workspace {
  alignas(64) float q[kMaxTaskFloats];
  alignas(64) float scores[kMaxTaskRows * kScoreStride];
  alignas(64) float wide[kTileKeys * kWidenDim];
  KeyRange visible[kMaxTaskRows]; ///< of each row, in positions
  int64_t offsets[kTileKeys + kKeySlack];
  int64_t wideOffsets[kTileKeys + kKeySlack];
};

/// A task in its workspace.
struct Frame {
  const AttentionTask &task;
  Workspace &work;
  int64_t rows;
  int64_t dim;
  int64_t stride; ///< of rows of q, in floats

  Rows<const float> q(int64_t row) const {
    return {work.q + row * stride, stride};
  }
  Rows<float> scores(int64_t row) const {
    return {work.scores + row * kScoreStride, kScoreStride};
  }
  Rows<const float> weights(int64_t row) const {
    return {work.scores + row * kScoreStride, kScoreStride};
  }
  /// What row `row` sees of the tile at `tile`, relative to it.
  KeyRange visible(int64_t row, int64_t tile) const {
    KeyRange keys = work.visible[row];
    int64_t begin = min(max(keys.begin - tile, 0), kTileKeys);
    return {begin, min(max(keys.end - tile, begin), kTileKeys)};
  }
};

/// Element 0 of the row-th query of a task in q or out, or its lse.
template <typename Byte>
inline Byte *rowOf(const AttentionTask &task, const llm_tensor &tensor,
                   int64_t row, int64_t bytes) {
  int64_t token = task.firstToken + row / task.group;
  int64_t head = int64_t(task.kvHead) * task.group + row % task.group;
  return static_cast<Byte *>(tensor.data) +
         (token * tensor.strides[0] + head * tensor.strides[1]) * bytes;
}

/// q in f32, padded with zeros to whole vectors.
template <llm_dtype T>
void loadQueries(const Frame &f) {
  for (int64_t row = 0; row < f.rows; ++row) {
    const char *from =
        rowOf<const char>(f.task, *f.task.q, f.task.rowBegin + row, bytesOf(T));
    float *to = f.work.q + row * f.stride;
    for (int64_t d = 0; d < f.stride; d += kLanes)
      store(to + d,
            load<T>(from + d * bytesOf(T), min(max(f.dim - d, 0), kLanes)));
  }
}

inline void begin(const Frame &f) {
  if (f.task.q->dtype == LLM_F32)
    loadQueries<LLM_F32>(f);
  else if (f.task.q->dtype == LLM_F16)
    loadQueries<LLM_F16>(f);
  else
    loadQueries<LLM_BF16>(f);
  for (int64_t row = 0; row < f.rows; ++row)
    f.work.visible[row] = visibleKeys(f.task, f.task.rowBegin + row);
  memset(f.work.scores, 0, f.rows * kScoreStride * sizeof(float));
}

//===----------------------------------------------------------------------===//
// A tile of keys
//===----------------------------------------------------------------------===//

/// Byte offsets of the keys [begin, end) of the tile at position `tile`. The
/// last one is repeated: scores reads ahead, and must not leave the keys.
inline void locate(const Frame &f, int64_t tile, KeyRange keys) {
  const KVPages &pages = *f.task.pages;
  int64_t block = (tile + keys.begin) / pages.blockSize;
  int64_t slot = (tile + keys.begin) % pages.blockSize;
  for (int64_t key = keys.begin; key < keys.end; ++block, slot = 0) {
    int64_t base = f.task.blocks[block] * pages.blockStride +
                   f.task.kvHead * pages.headStride;
    for (; slot < pages.blockSize && key < keys.end; ++slot, ++key)
      f.work.offsets[key] = base + slot * pages.tokenStride;
  }
  for (int i = 0; i < kKeySlack; ++i)
    f.work.offsets[keys.end + i] = f.work.offsets[keys.end - 1];
}

/// The tile's keys of `from` as f32 in the workspace.
template <llm_dtype T>
Keys widenTile(const Frame &f, const Keys &from, KeyRange keys) {
  for (int64_t key = keys.begin; key < keys.end; ++key) {
    const char *row = from.base + from.offsets[key];
    float *to = f.work.wide + key * f.stride;
    f.work.wideOffsets[key] = key * f.stride * sizeof(float);
    for (int64_t d = 0; d < f.dim; d += kLanes)
      store(to + d, load<T>(row + d * bytesOf(T), min(f.dim - d, kLanes)));
  }
  for (int i = 0; i < kKeySlack; ++i)
    f.work.wideOffsets[keys.end + i] = f.work.wideOffsets[keys.end - 1];
  return {reinterpret_cast<const char *>(f.work.wide), f.work.wideOffsets,
          f.dim};
}

/// Scores of every row; a block of rows computes what any of its rows sees.
template <llm_dtype T>
void tileScores(const Frame &f, const Keys &k, int64_t tile) {
  forRowBlocks(f.rows, [&](auto n, int64_t row) {
    KeyRange first = f.visible(row, tile);
    KeyRange last = f.visible(row + n.value - 1, tile);
    scores<T, n.value>(f.q(row), k, first.begin, last.end, f.scores(row));
  });
}

/// Weighted values of every row. The keys that a block's rows have in common
/// are read once; those before and after are added row by row, so every row
/// gets its keys in order, and none that it does not see.
template <llm_dtype T>
void tileWeighted(const Frame &f, const Keys &v, int64_t tile,
                  const State &state) {
  auto addAlone = [&](int64_t row, int64_t begin, int64_t end) {
    if (begin < end)
      weighted<T, 1>(f.weights(row), v, begin, end,
                     {state.out[row], state.out.stride});
  };
  forRowBlocks(f.rows, [&](auto n, int64_t row) {
    int64_t begin = f.visible(row + n.value - 1, tile).begin;
    int64_t end = max(f.visible(row, tile).end, begin);
    for (int i = 0; i < n.value; ++i) {
      KeyRange keys = f.visible(row + i, tile);
      addAlone(row + i, keys.begin, min(begin, keys.end));
    }
    if (begin < end)
      weighted<T, n.value>(f.weights(row), v, begin, end,
                           {state.out[row], state.out.stride});
    for (int i = 0; i < n.value; ++i)
      addAlone(row + i, end, f.visible(row + i, tile).end);
  });
}

inline void tileSoftmax(const Frame &f, int64_t tile, const State &state) {
  for (int64_t row = 0; row < f.rows; ++row) {
    KeyRange keys = f.visible(row, tile);
    if (keys.begin < keys.end)
      foldScores(*f.task.params, keys, f.scores(row)[0], state, row);
  }
}

/// Asks for a tile's values while its scores are computed: between scattered
/// blocks the hardware's prefetcher has to start anew each time.
inline void prefetch(const Keys &keys, KeyRange range, int64_t bytes) {
  for (int64_t key = range.begin; key < range.end; ++key)
    for (int64_t at = 0; at < bytes; at += 64)
      __builtin_prefetch(keys.base + keys.offsets[key] + at, 0, 2);
}

/// The whole of a tile of pages of type T.
template <llm_dtype T>
void attendTile(const Frame &f, int64_t tile, const State &state) {
  KeyRange keys = {f.visible(0, tile).begin, f.visible(f.rows - 1, tile).end};
  if (keys.begin >= keys.end)
    return;
  locate(f, tile, keys);
  const KVPages &pages = *f.task.pages;
  Keys k = {static_cast<const char *>(pages.k), f.work.offsets, f.dim};
  Keys v = {static_cast<const char *>(pages.v), f.work.offsets, f.dim};
  prefetch(v, keys, f.dim * bytesOf(T));
  if (T != LLM_F32 && f.rows > kWidenRows && f.stride <= kWidenDim) {
    tileScores<LLM_F32>(f, widenTile<T>(f, k, keys), tile);
    tileSoftmax(f, tile, state);
    tileWeighted<LLM_F32>(f, widenTile<T>(f, v, keys), tile, state);
  } else {
    tileScores<T>(f, k, tile);
    tileSoftmax(f, tile, state);
    tileWeighted<T>(f, v, tile, state);
  }
}

//===----------------------------------------------------------------------===//
// A task
//===----------------------------------------------------------------------===//

template <llm_dtype T>
void attendTiles(const Frame &f, int64_t chunk, const State &state) {
  for (int64_t i = 0; i < kChunkKeys; i += kTileKeys)
    attendTile<T>(f, chunk * kChunkKeys + i, state);
}

inline void computeChunk(const Frame &f, int64_t chunk, const State &state) {
  clear(state, f.rows);
  if (f.task.pages->dtype == LLM_F32)
    attendTiles<LLM_F32>(f, chunk, state);
  else if (f.task.pages->dtype == LLM_F16)
    attendTiles<LLM_F16>(f, chunk, state);
  else
    attendTiles<LLM_BF16>(f, chunk, state);
}

/// out = o / l, rounded to out's type.
template <llm_dtype T>
void writeOut(const AttentionTask &task, const State &state) {
  int64_t dim = task.pages->headDim;
  for (int64_t row = 0; row < task.rowEnd - task.rowBegin; ++row) {
    char *to = rowOf<char>(task, *task.out, task.rowBegin + row, bytesOf(T));
    float sum = state.sum[row];
    for (int64_t d = 0; d < dim; d += kLanes) {
      Vec value = load(state.out[row] + d) / (sum == 0 ? 1 : sum);
      store<T>(to + d * bytesOf(T), value, min(dim - d, kLanes));
    }
  }
}

inline void writeLse(const AttentionTask &task, const State &state) {
  for (int64_t row = 0; row < task.rowEnd - task.rowBegin; ++row) {
    float sum = state.sum[row];
    float lse = sum == 0 ? -kInfinity : state.max[row] + __builtin_logf(sum);
    memcpy(rowOf<char>(task, *task.lse, task.rowBegin + row, sizeof(float)),
           &lse, sizeof(float));
  }
}

inline void finish(const AttentionTask &task, const State &state) {
  if (task.out->dtype == LLM_F32)
    writeOut<LLM_F32>(task, state);
  else if (task.out->dtype == LLM_F16)
    writeOut<LLM_F16>(task, state);
  else
    writeOut<LLM_BF16>(task, state);
  if (task.lse)
    writeLse(task, state);
}

inline int64_t rowsOf(const AttentionTask &task) {
  return task.rowEnd - task.rowBegin;
}

inline Frame frameOf(const AttentionTask &task, Workspace &work) {
  int64_t dim = task.pages->headDim;
  Frame f = {task, work, rowsOf(task), dim, roundUp(dim, kDimAlign)};
  begin(f);
  return f;
}

constexpr int64_t kStateFloats = kMaxTaskFloats + 2 * kMaxTaskRows;

void attend(const AttentionTask &task) {
  Workspace work;
  alignas(64) float buffers[2][kStateFloats];
  Frame f = frameOf(task, work);
  State total = stateAt(buffers[0], f.rows, f.dim);
  State part = stateAt(buffers[1], f.rows, f.dim);
  clear(total, f.rows);
  KeyRange chunks = chunksOf(visibleKeys(task));
  for (int64_t chunk = chunks.begin; chunk < chunks.end; ++chunk) {
    computeChunk(f, chunk, part);
    merge(total, part, f.rows);
  }
  finish(task, total);
}

void attendChunk(const AttentionTask &task, int64_t chunk, float *state) {
  Workspace work;
  Frame f = frameOf(task, work);
  computeChunk(f, chunk, stateAt(state, f.rows, f.dim));
}

void mergeChunks(const AttentionTask &task, const float *states, int64_t stride,
                 int64_t count) {
  alignas(64) float buffer[kStateFloats];
  int64_t rows = rowsOf(task), dim = task.pages->headDim;
  State total = stateAt(buffer, rows, dim);
  clear(total, rows);
  for (int64_t i = 0; i < count; ++i) {
    const float *state = states + i * stride;
    merge(total, stateAt(const_cast<float *>(state), rows, dim), rows);
  }
  finish(task, total);
}

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_ATTENTIONKERNEL_H
