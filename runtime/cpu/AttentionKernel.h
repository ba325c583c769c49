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
//      transposes them into a panel (AttentionTile.h),
//   2. computes scores, 3. folds them into each row's running maximum m, sum l
//   of exponentials and output o, 4. adds the weighted values to o.
//
// Everything is f32, with one exception: if queries and pages are bf16 and the
// level has dot products of bf16, both products use them, and weights (not
// their sum l) are rounded to bf16.
//
// Sinks and window are two segments of keys, cut where the sinks end even if
// the window begins before: a tile that holds both is computed once for each. A
// row is one number more in a segment, its interval of keys; only sinks may
// have another query.
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
// 4 * headDim flops for each visible (row, key) pair over the peak of f32 fma,
// or of bf16 dot products.
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

constexpr int64_t kMaxLines = 2048;
constexpr int64_t kLineBytes = 64;

/// A task sees sinks, then the other keys.
enum class Segment { None, Sinks, Window };

/// What a task computes in: on the stack, because kernels cannot fail.
struct Workspace {
  alignas(64) float q[kMaxTaskFloats];
  alignas(64) float scores[kMaxTaskRows * kTileKeys];
  alignas(64) float keys[kPanelLanes * kTileKeys];
  alignas(64) float values[kTileKeys * kPanelLanes];
  KeyRange visible[kMaxTaskRows]; ///< of each row, in positions
  int64_t offsets[2][kTileKeys];  ///< of keys, in even and odd tiles
  int64_t located[2] = {-1, -1};  ///< the tiles they belong to
  const llm_tensor *loaded = nullptr; ///< what q is of
  Segment segment = Segment::None;    ///< what `visible` is of
  const char *lines[kMaxLines];   ///< of the tile to come
};

/// A task in its workspace.
struct Frame {
  const AttentionTask &task;
  Workspace &work;
  int64_t rows;
  int64_t dim;
  int64_t stride; ///< of rows of q, in floats

  /// Row `row` of q from `lane` on.
  Rows<const float> q(int64_t row, int64_t lane) const {
    return {work.q + row * stride + lane, stride};
  }
  Rows<float> scores(int64_t row) const {
    return {work.scores + row * kTileKeys, kTileKeys};
  }
  Rows<const float> weights(int64_t row) const {
    return {work.scores + row * kTileKeys, kTileKeys};
  }
  /// What row `row` sees of the tile at `tile`, relative to it.
  KeyRange visible(int64_t row, int64_t tile) const {
    KeyRange keys = work.visible[row];
    int64_t begin = min(max(keys.begin - tile, 0), kTileKeys);
    return {begin, min(max(keys.end - tile, begin), kTileKeys)};
  }
};

/// The query head of the row-th query of a task.
inline int64_t headOf(const AttentionTask &task, int64_t row) {
  return int64_t(task.kvHead) * task.group + row % task.group;
}

/// The row-th query's number in f32 [Hq].
inline float ofHead(const AttentionTask &task, const llm_tensor &numbers,
                    int64_t row) {
  return static_cast<const float *>(
      numbers.data)[headOf(task, row) * numbers.strides[0]];
}

/// Element 0 of the row-th query of a task in q or out, or its lse.
template <typename Byte>
inline Byte *rowOf(const AttentionTask &task, const llm_tensor &tensor,
                   int64_t row, int64_t bytes) {
  int64_t token = task.firstToken + row / task.group;
  return static_cast<Byte *>(tensor.data) +
         (token * tensor.strides[0] + headOf(task, row) * tensor.strides[1]) *
             bytes;
}

/// q as factors, padded with zeros to whole vectors.
template <typename Product, llm_dtype T>
void loadRows(const Frame &f, const llm_tensor &q) {
  constexpr int64_t kStep = kLanes * Product::kDepth;
  for (int64_t row = 0; row < f.rows; ++row) {
    const char *from =
        rowOf<const char>(f.task, q, f.task.rowBegin + row, bytesOf(T));
    float *to = f.work.q + row * f.stride;
    for (int64_t d = 0; d < f.dim; d += kStep, to += kLanes)
      store(to, Product::template lanes<T>(from + d * bytesOf(T),
                                           min(f.dim - d, kStep)));
  }
}

/// Queries and pages of bf16 are multiplied as they are.
inline bool usesDots(const AttentionTask &task) {
  return kHasDots && task.q->dtype == LLM_BF16 && task.pages->k.dtype == LLM_BF16;
}

inline void loadQueries(const Frame &f, const llm_tensor &q) {
  if (f.work.loaded == &q)
    return;
  f.work.loaded = &q;
  if (usesDots(f.task))
    loadRows<BestProduct, LLM_BF16>(f, q);
  else if (q.dtype == LLM_F32)
    loadRows<FmaProduct, LLM_F32>(f, q);
  else if (q.dtype == LLM_F16)
    loadRows<FmaProduct, LLM_F16>(f, q);
  else
    loadRows<FmaProduct, LLM_BF16>(f, q);
}

/// Lets the rows see one segment of their keys.
inline void enter(const Frame &f, Segment segment) {
  if (f.work.segment == segment)
    return;
  f.work.segment = segment;
  bool sinks = segment == Segment::Sinks;
  const llm_tensor *nearer = f.task.params->sinkQuery;
  loadQueries(f, sinks && nearer ? *nearer : *f.task.q);
  for (int64_t row = 0; row < f.rows; ++row) {
    int64_t number = f.task.rowBegin + row;
    f.work.visible[row] =
        sinks ? visibleSinks(f.task, number) : visibleKeys(f.task, number);
  }
  f.work.located[0] = f.work.located[1] = -1;
}

//===----------------------------------------------------------------------===//
// A tile of keys
//===----------------------------------------------------------------------===//

/// The keys of a tile that some row sees, relative to it.
inline KeyRange keysOf(const Frame &f, int64_t tile) {
  return {f.visible(0, tile).begin, f.visible(f.rows - 1, tile).end};
}

/// Byte offsets of the `keys` of the tile at position `tile`. In the vectors
/// that hold them, the first and the last stand for the others: what those
/// lanes compute is masked, and must not leave the keys.
inline const int64_t *locate(const Frame &f, int64_t tile, KeyRange keys) {
  const KVPages &pages = *f.task.pages;
  int64_t parity = tile / kTileKeys % 2;
  int64_t *offsets = f.work.offsets[parity];
  if (f.work.located[parity] == tile || keys.begin >= keys.end)
    return offsets;
  f.work.located[parity] = tile;
  int64_t block = (tile + keys.begin) / pages.blockSize;
  int64_t slot = (tile + keys.begin) % pages.blockSize;
  for (int64_t key = keys.begin; key < keys.end; ++block, slot = 0) {
    int64_t base = f.task.blocks[block] * pages.k.blockStride +
                   f.task.kvHead * pages.k.headStride;
    for (; slot < pages.blockSize && key < keys.end; ++slot, ++key)
      offsets[key] = base + slot * pages.k.tokenStride;
  }
  // Not offsets[key] = offsets[key - 1]: clang 22 vectorizes that wrongly.
  const int64_t first = offsets[keys.begin], last = offsets[keys.end - 1];
  for (int64_t key = keys.begin; key % kLanes; --key)
    offsets[key - 1] = first;
  for (int64_t key = keys.end; key % kLanes; ++key)
    offsets[key] = last;
  return offsets;
}

/// The lines of K and V of the tile at `tile`, key by key.
template <typename Ahead>
Ahead linesOf(const Frame &f, int64_t tile, int64_t keyBytes) {
  KeyRange keys = keysOf(f, tile);
  const int64_t *offsets = locate(f, tile, keys);
  int64_t lines = (keyBytes + kLineBytes - 1) / kLineBytes;
  int64_t count = min(keys.end - keys.begin, (kMaxLines - 1) / (2 * lines));
  const char **end = f.work.lines;
  const void *bases[] = {f.task.pages->k.data, f.task.pages->v.data};
  for (int64_t key = keys.begin; key < keys.begin + count; ++key)
    for (const void *base : bases) {
      const char *from = static_cast<const char *>(base) + offsets[key];
      for (int64_t i = 0; i < lines; ++i)
        end[i] = from + i * kLineBytes;
      end += lines;
    }
  *end = static_cast<const char *>(f.task.pages->k.data);
  return {f.work.lines, end};
}

/// Scores of every row; a block of rows computes what any of its rows sees.
template <typename Product, llm_dtype T, typename Ahead>
void tileScores(const Frame &f, const Keys &k, KeyRange keys, int64_t tile,
                Ahead &ahead) {
  for (int64_t lane = 0; lane * Product::kDepth < f.dim; lane += kPanelLanes) {
    float *panel = f.work.keys;
    int64_t steps =
        packKeys<Product, T>(k, keys, lane * Product::kDepth, panel, ahead);
    forRowBlocks(f.rows, [&](auto n, int64_t row) {
      KeyRange seen = {f.visible(row, tile).begin,
                       f.visible(row + n.value - 1, tile).end};
      if (seen.begin < seen.end)
        scores<Product, n.value>(f.q(row, lane), panel, steps, seen,
                                 f.scores(row), lane > 0, ahead);
    });
  }
}

/// What alibi adds to a row's scores of the tile.
inline Bias biasOf(const Frame &f, int64_t row, int64_t tile) {
  const llm_tensor *slopes = f.task.params->alibi;
  if (!slopes)
    return {0, 0};
  row += f.task.rowBegin;
  return {ofHead(f.task, *slopes, row), float(tile - positionOf(f.task, row))};
}

/// Folds the tile's scores into the state and turns them into weights.
inline void tileSoftmax(const Frame &f, int64_t tile, const State &state) {
  alignas(64) float before[kMaxTaskRows], after[kMaxTaskRows];
  for (int64_t row = 0; row < f.rows; ++row) {
    KeyRange keys = f.visible(row, tile);
    before[row] = after[row] = state.max[row];
    if (keys.begin < keys.end)
      after[row] = transformScores(*f.task.params, biasOf(f, row, tile), keys,
                                   f.scores(row)[0], before[row]);
  }
  for (int64_t row = 0; row < f.rows; row += kLanes) {
    Vec m = load(after + row);
    store(before + row, decay(load(before + row) - finite(m)));
  }
  for (int64_t row = 0; row < f.rows; ++row) {
    KeyRange keys = f.visible(row, tile);
    if (keys.begin < keys.end)
      foldScores(f.scores(row)[0], after[row], before[row], state, row);
  }
}

/// Adds weighted values v(lane of keys, dim), `dims` of them from `dim` on, to
/// every row. The keys that a block's rows have in common are read once; those
/// before and after are added row by row, so every row gets its keys in order,
/// and none that it does not see.
template <typename Product, typename LoadV, typename Ahead>
void addWeighted(const Frame &f, int64_t tile, const State &state, int64_t dim,
                 int64_t dims, LoadV v, Ahead &ahead) {
  auto add = [&](auto n, int64_t row, int64_t begin, int64_t end) {
    if (begin < end)
      weighted<Product, n.value>(f.weights(row), begin, end, v, dims,
                                 {state.out[row] + dim, state.out.stride},
                                 ahead);
  };
  forRowBlocks(f.rows, [&](auto n, int64_t row) {
    int64_t begin = f.visible(row + n.value - 1, tile).begin;
    int64_t end = max(f.visible(row, tile).end, begin);
    for (int i = 0; i < n.value; ++i) {
      KeyRange keys = f.visible(row + i, tile);
      add(Int<1>{}, row + i, keys.begin, min(begin, keys.end));
    }
    add(n, row, begin, end);
    for (int i = 0; i < n.value; ++i)
      add(Int<1>{}, row + i, end, f.visible(row + i, tile).end);
  });
}

/// Values that are whole vectors, and that few rows use, need no panel.
template <typename Product, llm_dtype T, typename Ahead>
void tileWeighted(const Frame &f, const Keys &v, KeyRange keys, int64_t tile,
                  const State &state, Ahead &ahead) {
  if (Product::kDepth == 1 && f.dim % kLanes == 0 &&
      (T == LLM_F32 || f.rows <= kBlockRows))
    return addWeighted<FmaProduct>(
        f, tile, state, 0, f.dim,
        [&](int64_t key, int64_t d) {
          return load<T>(v.base + v.offsets[key] + d * bytesOf(T));
        },
        ahead);
  for (int64_t dim = 0; dim < f.dim; dim += kPanelLanes) {
    float *panel = f.work.values;
    int64_t dims = packValues<Product, T>(v, keys, dim, panel);
    addWeighted<Product>(
        f, tile, state, dim, dims,
        [&](int64_t step, int64_t d) {
          return load(panel + step * kPanelLanes + d);
        },
        ahead);
  }
}

template <typename Product, llm_dtype T, int PerStep>
void attendKeys(const Frame &f, int64_t tile, KeyRange keys,
                const State &state) {
  const char *k = static_cast<const char *>(f.task.pages->k.data);
  const char *v = static_cast<const char *>(f.task.pages->v.data);
  const int64_t *offsets = locate(f, tile, keys);
  auto ahead = linesOf<Ahead<PerStep>>(f, tile + kTileKeys, f.dim * bytesOf(T));
  tileScores<Product, T>(f, {k, offsets, f.dim}, keys, tile, ahead);
  tileSoftmax(f, tile, state);
  for (int64_t row = 0; row < f.rows; ++row)
    Product::round(f.scores(row)[0]);
  tileWeighted<Product, T>(f, {v, offsets, f.dim}, keys, tile, state, ahead);
}

/// The whole of a tile of pages of type T.
template <typename Product, llm_dtype T>
void attendTile(const Frame &f, int64_t tile, const State &state) {
  KeyRange keys = keysOf(f, tile);
  if (keys.begin >= keys.end)
    return;
  if (f.rows <= kBlockRows)
    attendKeys<Product, T, bytesOf(T) / 2>(f, tile, keys, state);
  else
    attendKeys<Product, T, 0>(f, tile, keys, state);
}

//===----------------------------------------------------------------------===//
// A task
//===----------------------------------------------------------------------===//

template <typename Product, llm_dtype T>
void attendTiles(const Frame &f, int64_t chunk, const State &state) {
  for (int64_t i = 0; i < kChunkKeys; i += kTileKeys)
    attendTile<Product, T>(f, chunk * kChunkKeys + i, state);
}

/// Folds the keys of a chunk that belong to one segment into the state.
inline void attendSegment(const Frame &f, Segment segment, int64_t chunk,
                          const State &state) {
  enter(f, segment);
  if (usesDots(f.task))
    attendTiles<BestProduct, LLM_BF16>(f, chunk, state);
  else if (f.task.pages->k.dtype == LLM_F32)
    attendTiles<FmaProduct, LLM_F32>(f, chunk, state);
  else if (f.task.pages->k.dtype == LLM_F16)
    attendTiles<FmaProduct, LLM_F16>(f, chunk, state);
  else
    attendTiles<FmaProduct, LLM_BF16>(f, chunk, state);
}

inline void computeChunk(const Frame &f, int64_t chunk, const State &state) {
  clear(state, f.rows);
  if (chunk * kChunkKeys < visibleSinks(f.task, f.task.rowEnd - 1).end)
    attendSegment(f, Segment::Sinks, chunk, state);
  if (chunk >= visibleKeys(f.task, f.task.rowBegin).begin / kChunkKeys)
    attendSegment(f, Segment::Window, chunk, state);
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
  if (const llm_tensor *logits = task.params->headSink)
    for (int64_t row = 0; row < task.rowEnd - task.rowBegin; ++row)
      foldLogit(ofHead(task, *logits, task.rowBegin + row), state, row);
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
  return {task, work, rowsOf(task), dim, roundUp(dim, kDimAlign)};
}

constexpr int64_t kStateFloats = kMaxTaskFloats + 2 * kMaxTaskRows;

void attend(const AttentionTask &task) {
  Workspace work;
  alignas(64) float buffers[2][kStateFloats];
  Frame f = frameOf(task, work);
  State total = stateAt(buffers[0], f.rows, f.dim);
  State part = stateAt(buffers[1], f.rows, f.dim);
  clear(total, f.rows);
  TaskChunks chunks = chunksOf(task);
  for (int64_t i = 0; i < chunks.count(); ++i) {
    computeChunk(f, chunks[i], part);
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
