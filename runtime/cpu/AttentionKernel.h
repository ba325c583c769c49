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
// A task is some rows (queries x heads of one group) of some KV heads: a key
// that has been fetched serves all rows of its head, and neighbouring heads lie
// side by side in a block, so that few rows read long pieces of memory. Tile by
// tile the task
//
//   1. looks its keys up in the block table (one byte offset per key),
//   2. computes scores, head by head,
//   3. folds them into each row's running maximum m, sum l of exponentials and
//      output o,
//   4. adds the weighted values to o, head by head,
//
// and asks for the memory of the tile to come, line by line.
//
// Everything is f32, with two exceptions where the level has dot products: what
// is bf16 in queries and pages is multiplied by those of bf16, and weights (not
// their sum l) are rounded to bf16; and few rows are multiplied with pages of
// i8 and i4 as integers (IntegerTile.h, IntegerGroups.h).
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
// any batch around it, any block size, number of threads and order of blocks.
// It has one order of additions if a sequence has up to kFewRows rows at a head
// (decode, with or without a few drafted tokens), and another one if it has
// more (prefill): within each, any cut of its queries into calls gives the same
// bits. Keys that no row of a task sees are not touched; keys that a row does
// not see never enter its arithmetic.
//
// Floor of decode: the bytes of K and V over the read bandwidth. Of prefill:
// 4 * headDim flops for each visible (row, key) pair over the peak of f32 fma,
// or of bf16 dot products.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_ATTENTIONKERNEL_H
#define LLM_RUNTIME_CPU_ATTENTIONKERNEL_H

#include "AttentionTile.h"
#include "Groups.h"
#include "IntegerGroups.h"
#include "IntegerTile.h"
#include "Kernels.h"
#include "OnlineSoftmax.h"

namespace llm::cpu {
namespace {

//===----------------------------------------------------------------------===//
// Workspace
//===----------------------------------------------------------------------===//

constexpr int64_t kMaxRuns = 256;

/// A task sees sinks, then the other keys.
enum class Segment { None, Sinks, Window };

/// What a task computes in: on the stack, because kernels cannot fail.
struct Workspace {
  alignas(64) float q[kMaxTaskFloats];
  alignas(64) float scores[kMaxTaskRows * kTileKeys];
  alignas(64) float keys[kPanelLanes * kTileKeys];
  alignas(64) float values[kTileKeys * kValueLanes];
#if defined(LLM_CPU_X86_VNNI)
  char digits[2 * kMaxTaskFloats]; ///< of q, where K is i8
  float digitSteps[kMaxTaskRows];
  int32_t digitOffsets[kMaxTaskRows];
#endif
  KeyRange visible[kMaxTaskRows]; ///< of each row, in positions
  int64_t kOffsets[kTileKeys], vOffsets[kTileKeys]; ///< of the tile's keys
  /// The memory of the two tiles to come, and which tiles these are.
  Run runs[2][kMaxRuns + 1];
  int64_t found[2] = {-1, -1};
  const llm_tensor *loaded = nullptr; ///< what q is of
  Segment segment = Segment::None;    ///< what `visible` is of
};

struct Frame;
using TileFn = void (*)(const Frame &, int64_t tile, KeyRange keys,
                        const State &state, Ahead &ahead);
using OrderFn = void (*)(const Frame &, const State &state);

/// A task in its workspace. Its rows are those of the first head, then those of
/// the next.
struct Frame {
  const AttentionTask &task;
  Workspace &work;
  int64_t heads;
  int64_t rowsPerHead;
  int64_t rows;
  int64_t dim;
  int64_t stride; ///< of rows of q, in floats
  bool few;       ///< isFew
  TileFn scoreTile;
  TileFn weighTile;
  OrderFn orderOutputs; ///< at the end of a chunk; or null

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
  /// K or V of head `head` of the task.
  Keys keys(const KVPlane &plane, const int64_t *offsets, int64_t head) const {
    return {plane.data + (task.headBegin + head) * plane.headStride, offsets,
            dim};
  }
};

/// Up to kFewRows of the sequence, at a head.
inline bool isFew(const AttentionTask &task) {
  return task.group * task.queries <= kFewRows;
}

/// The number of the task's row `row` in its sequence, and its query head.
inline int64_t numberOf(const AttentionTask &task, int64_t row) {
  return task.rowBegin + row % (task.rowEnd - task.rowBegin);
}
inline int64_t headOf(const AttentionTask &task, int64_t row) {
  int64_t head = task.headBegin + row / (task.rowEnd - task.rowBegin);
  return head * task.group + numberOf(task, row) % task.group;
}

/// What f32 [Hq] has for the task's row `row`.
inline float ofHead(const AttentionTask &task, const llm_tensor &numbers,
                    int64_t row) {
  return static_cast<const float *>(
      numbers.data)[headOf(task, row) * numbers.strides[0]];
}

/// Element 0 of the task's row `row` in q or out, or its lse.
template <typename Byte>
inline Byte *rowOf(const AttentionTask &task, const llm_tensor &tensor,
                   int64_t row, int64_t bytes) {
  int64_t token = task.firstToken + numberOf(task, row) / task.group;
  return static_cast<Byte *>(tensor.data) +
         (token * tensor.strides[0] + headOf(task, row) * tensor.strides[1]) *
             bytes;
}

/// q as factors, padded with zeros.
template <typename Product, llm_dtype T>
void loadRows(const Frame &f, const llm_tensor &q) {
  constexpr int64_t kStep = kLanes * Product::kDepth;
  memset(f.work.q, 0, f.rows * f.stride * sizeof(float));
  for (int64_t row = 0; row < f.rows; ++row) {
    const char *from = rowOf<const char>(f.task, q, row, bytesOf(T));
    float *to = f.work.q + row * f.stride;
    for (int64_t d = 0; d < f.dim; d += kStep, to += kLanes)
      store(to, Product::template lanes<T>(from + d * bytesOf(T),
                                           min(f.dim - d, kStep)));
  }
}

/// The same in the order of loadParts<K>.
template <llm_dtype K>
void orderQueries(const Frame &f) {
  for (int64_t row = 0; row < f.rows; ++row) {
    float *q = f.work.q + row * f.stride, parts[kLoaded<K>];
    for (int64_t d = 0; d < f.dim; d += kLoaded<K>) {
      for (int64_t i = 0; i < kLoaded<K>; ++i)
        parts[partOf<K>(i)] = q[d + i];
      memcpy(q + d, parts, sizeof(parts));
    }
  }
}

#if defined(LLM_CPU_X86_VNNI)
inline bool scoresAreIntegers(const AttentionTask &task) {
  const KVPages &pages = *task.pages;
  return isFew(task) && pages.k.dtype == LLM_I8 && pages.headDim <= kMaxByteDim;
}

inline IntegerQueries integersOf(const Frame &f) {
  return {f.work.digits, f.stride, f.work.digitSteps, f.work.digitOffsets};
}

/// What loadRows has loaded as digits.
inline void setQueries(const Frame &f) {
  for (int64_t head = 0; head < f.heads; ++head)
    forRowBlocks<kDigitRows>(f.rowsPerHead, [&](auto n, int64_t row) {
      row += head * f.rowsPerHead;
      for (int i = 0; i < n.value; ++i)
        setQuery(integersOf(f), f.q(row + i, 0)[0], row, i, n.value);
    });
}
#endif

/// What is bf16 in queries and pages is multiplied as it is.
inline bool usesDots(const AttentionTask &task, const KVPlane &plane) {
  return kHasDots && task.q->dtype == LLM_BF16 && plane.dtype == LLM_BF16;
}

inline void loadQueries(const Frame &f, const llm_tensor &q) {
  if (f.work.loaded == &q)
    return;
  f.work.loaded = &q;
  const KVPlane &k = f.task.pages->k;
  if (usesDots(f.task, k))
    return loadRows<BestProduct, LLM_BF16>(f, q);
  if (q.dtype == LLM_F32)
    loadRows<FmaProduct, LLM_F32>(f, q);
  else if (q.dtype == LLM_F16)
    loadRows<FmaProduct, LLM_F16>(f, q);
  else
    loadRows<FmaProduct, LLM_BF16>(f, q);
  if (f.few && k.dtype == LLM_BF16)
    orderQueries<LLM_BF16>(f);
  if (f.few && k.dtype == LLM_F8E4M3FN && kHasEvenParts<LLM_F8E4M3FN>)
    orderQueries<LLM_F8E4M3FN>(f);
#if defined(LLM_CPU_X86_VNNI)
  if (scoresAreIntegers(f.task))
    setQueries(f);
#endif
}

/// Lets the rows see one segment of their keys.
inline void enter(const Frame &f, Segment segment) {
  if (f.work.segment == segment)
    return;
  f.work.segment = segment;
  f.work.found[0] = f.work.found[1] = -1;
  bool sinks = segment == Segment::Sinks;
  const llm_tensor *nearer = f.task.params->sinkQuery;
  loadQueries(f, sinks && nearer ? *nearer : *f.task.q);
  for (int64_t row = 0; row < f.rows; ++row) {
    int64_t number = numberOf(f.task, row);
    f.work.visible[row] =
        sinks ? visibleSinks(f.task, number) : visibleKeys(f.task, number);
  }
}

//===----------------------------------------------------------------------===//
// Where keys are
//===----------------------------------------------------------------------===//

/// The keys of a tile that some row sees, relative to it.
inline KeyRange keysOf(const Frame &f, int64_t tile) {
  return {f.visible(0, tile).begin, f.visible(f.rows - 1, tile).end};
}

/// Calls fn(block, slot, first key, count) for the blocks that hold `keys` of
/// the tile at position `tile`.
template <typename Fn>
inline void forBlocks(const Frame &f, int64_t tile, KeyRange keys, Fn fn) {
  int64_t size = f.task.pages->blockSize;
  int64_t index = (tile + keys.begin) / size, slot = (tile + keys.begin) % size;
  for (int64_t key = keys.begin; key < keys.end; ++index, slot = 0) {
    int64_t count = min(size - slot, keys.end - key);
    fn(int64_t(f.task.blocks[index]), slot, key, count);
    key += count;
  }
}

/// Byte offsets of `keys` in the first head. In the vectors that hold them, the
/// first and the last stand for the others: what those lanes compute is masked,
/// and must not leave the keys.
inline void locate(const Frame &f, const KVPlane &plane, int64_t tile,
                   KeyRange keys, int64_t *offsets) {
  forBlocks(f, tile, keys,
            [&](int64_t block, int64_t slot, int64_t key, int64_t count) {
              int64_t at = block * plane.blockStride + slot * plane.tokenStride;
              for (int64_t i = 0; i < count; ++i, at += plane.tokenStride)
                offsets[key + i] = at;
            });
  // Not offsets[key] = offsets[key - 1]: clang 22 vectorizes that wrongly.
  const int64_t first = offsets[keys.begin], last = offsets[keys.end - 1];
  for (int64_t key = keys.begin; key % kLanes; --key)
    offsets[key - 1] = first;
  for (int64_t key = keys.end; key % kLanes; ++key)
    offsets[key] = last;
}

/// Calls fn(group, row, key, count) for the groups of K that hold `count`
/// tokens of a block from `slot` on.
template <typename Fn>
inline void forGroups(int64_t slot, int64_t count, Fn fn) {
  for (int64_t key = 0; key < count;) {
    int64_t row = (slot + key) % kGroupSize;
    int64_t rows = min(kGroupSize - row, count - key);
    fn((slot + key) / kGroupSize, row, key, rows);
    key += rows;
  }
}

/// Calls add(begin, bytes) for the memory of `tokens` tokens of LLM_I4.
template <typename Fn>
inline void forGroupRuns(const Frame &f, const KVPlane &plane, int64_t block,
                         int64_t slot, int64_t tokens, Fn add) {
  for (int64_t head = f.task.headBegin; head < f.task.headEnd; ++head) {
    if (plane.params) {
      add(plane.at(block, head, slot), tokens * plane.tokenStride);
      add(reinterpret_cast<char *>(plane.paramsAt(block, head, slot, f.dim)),
          tokens * groupsOf(f.dim) * sizeof(uint32_t));
      continue;
    }
    forGroups(
        slot, tokens, [&](int64_t group, int64_t row, int64_t, int64_t rows) {
          if (plane.isExact(block, group))
            return add(reinterpret_cast<char *>(
                           plane.exactRow(block, head, group, row, f.dim)),
                       rows * f.dim * sizeof(float));
          add(plane.groupAt(block, head, group) + row * plane.tokenStride,
              rows * plane.tokenStride);
          add(reinterpret_cast<char *>(plane.groupParamsAt(block, head, group)),
              f.dim * sizeof(uint32_t));
        });
  }
}

/// Finds the memory of the tile at `tile`, block by block.
inline Run *findRuns(const Frame &f, int64_t tile) {
  int64_t parity = tile / kTileKeys % 2;
  Run *runs = f.work.runs[parity];
  if (f.work.found[parity] == tile)
    return runs;
  f.work.found[parity] = tile;
  int64_t count = 0;
  auto add = [&](const char *begin, int64_t bytes) {
    if (count && runs[count - 1].end == begin)
      runs[count - 1].end += bytes;
    else if (count < kMaxRuns)
      runs[count++] = {begin, begin + bytes};
  };
  auto addPlane = [&](const KVPlane &plane, int64_t block, int64_t slot,
                      int64_t tokens) {
    if (plane.dtype == LLM_I4)
      return forGroupRuns(f, plane, block, slot, tokens, add);
    int64_t bytes = f.dim * bytesOf(plane.dtype);
    for (int64_t head = f.task.headBegin; head < f.task.headEnd; ++head) {
      const char *from = plane.at(block, head, slot);
      if (plane.tokenStride == bytes)
        add(from, tokens * bytes);
      else
        for (int64_t i = 0; i < tokens; ++i)
          add(from + i * plane.tokenStride, bytes);
      if (plane.scales)
        add(reinterpret_cast<char *>(plane.scaleAt(block, head, slot)),
            tokens * sizeof(float));
    }
  };
  forBlocks(f, tile, keysOf(f, tile),
            [&](int64_t block, int64_t slot, int64_t, int64_t tokens) {
              addPlane(f.task.pages->k, block, slot, tokens);
              addPlane(f.task.pages->v, block, slot, tokens);
            });
  runs[count] = {nullptr, nullptr};
  return runs;
}

/// The memory of the next tile, to be asked for line by line; the first line of
/// each piece of the one after it is asked for at once, because its address
/// takes the longest to translate.
inline Ahead aheadOf(const Frame &f, int64_t tile) {
  const Run *next = findRuns(f, tile + kTileKeys);
  for (const Run *run = findRuns(f, tile + 2 * kTileKeys); run->begin; ++run)
    __builtin_prefetch(run->begin, 0, 2);
  return Ahead(next);
}

//===----------------------------------------------------------------------===//
// A tile of keys
//===----------------------------------------------------------------------===//

/// Scores of every row; a block of rows computes what any of its rows sees.
template <typename Product, llm_dtype T>
void scoreTile(const Frame &f, int64_t tile, KeyRange keys, const State &,
               Ahead &ahead) {
  for (int64_t head = 0; head < f.heads; ++head) {
    Keys k = f.keys(f.task.pages->k, f.work.kOffsets, head);
    int64_t first = head * f.rowsPerHead;
    if (f.few) {
      forRowBlocks<4>(f.rowsPerHead, [&](auto n, int64_t row) {
        scoresOfFew<Product, T, n.value>(f.q(first + row, 0), k, keys,
                                         f.scores(first + row), ahead);
      });
      continue;
    }
    for (int64_t lane = 0; lane * Product::kDepth < f.dim;
         lane += kPanelLanes) {
      float *panel = f.work.keys;
      int64_t steps =
          packKeys<Product, T>(k, keys, lane * Product::kDepth, panel, ahead);
      forRowBlocks(f.rowsPerHead, [&](auto n, int64_t row) {
        row += first;
        KeyRange seen = {f.visible(row, tile).begin,
                         f.visible(row + n.value - 1, tile).end};
        if (seen.begin < seen.end)
          scores<Product, n.value>(f.q(row, lane), panel, steps, seen,
                                   f.scores(row), lane > 0);
      });
    }
  }
}

/// What alibi adds to a row's scores of the tile.
inline Bias biasOf(const Frame &f, int64_t row, int64_t tile) {
  const llm_tensor *slopes = f.task.params->alibi;
  if (!slopes)
    return {0, 0};
  int64_t position = positionOf(f.task, numberOf(f.task, row));
  return {ofHead(f.task, *slopes, row), float(tile - position)};
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
      foldScores(*f.task.params, f.scores(row)[0], after[row], before[row],
                 state, row);
  }
}

/// Adds weighted values v(lane of keys, dim), `dims` of them from `dim` on, to
/// every row of a head. The keys that a block's rows have in common are read
/// once; those before and after are added row by row, so every row gets its
/// keys in order, and none that it does not see.
template <typename Product, int LineBytes, typename LoadV>
void addWeighted(const Frame &f, int64_t head, int64_t tile, const State &state,
                 int64_t dim, int64_t dims, LoadV v, Ahead &ahead) {
  auto add = [&](auto n, int64_t row, int64_t begin, int64_t end) {
    if (begin < end)
      weighted<Product, n.value, LineBytes>(
          f.weights(row), begin, end, v, dims,
          {state.out[row] + dim, state.out.stride}, ahead);
  };
  forRowBlocks(f.rowsPerHead, [&](auto n, int64_t row) {
    row += head * f.rowsPerHead;
    KeyRange first = f.visible(row, tile);
    KeyRange last = f.visible(row + n.value - 1, tile);
    int64_t begin = last.begin, end = max(first.end, begin);
    if (first.begin < begin)
      for (int i = 0; i < n.value; ++i) {
        KeyRange keys = f.visible(row + i, tile);
        add(Int<1>{}, row + i, keys.begin, min(begin, keys.end));
      }
    add(n, row, begin, end);
    if (end < last.end)
      for (int i = 0; i < n.value; ++i)
        add(Int<1>{}, row + i, end, f.visible(row + i, tile).end);
  });
}

/// Whether few rows read V in parts: outputs have their order (partOf) until
/// the end of a chunk.
template <typename Product, llm_dtype T>
inline bool hasParts(const Frame &f) {
  return Product::kDepth == 1 && f.few && f.dim % kLoaded<T> == 0;
}

/// Values that are whole vectors, and that few rows use, need no panel.
template <typename Product, llm_dtype T>
void weighTile(const Frame &f, int64_t tile, KeyRange keys, const State &state,
               Ahead &ahead) {
  constexpr int kVecBytes = kLanes * bytesOf(T);
  for (int64_t row = 0; row < f.rows; ++row)
    Product::round(f.scores(row)[0]);
  for (int64_t head = 0; head < f.heads; ++head) {
    Keys v = f.keys(f.task.pages->v, f.work.vOffsets, head);
    if (hasParts<Product, T>(f)) {
      addWeighted<FmaProduct, kVecBytes>(
          f, head, tile, state, 0, f.dim,
          [&](auto width, int64_t key, int64_t d, Vec *x) {
            if constexpr (width.value >= kParts<T>)
              LLM_UNROLL
            for (int i = 0; i < width.value; i += kParts<T>)
              loadParts<FmaProduct, T>(v.at(key, (d + i * kLanes) * bytesOf(T)),
                                       kLoaded<T>, x + i);
          },
          ahead);
      continue;
    }
    if (Product::kDepth == 1 && f.few && f.dim % kLanes == 0) {
      addWeighted<FmaProduct, kVecBytes>(
          f, head, tile, state, 0, f.dim,
          [&](auto width, int64_t key, int64_t d, Vec *x) {
            LLM_UNROLL
            for (int i = 0; i < width.value; ++i)
              x[i] = load<T>(v.at(key, (d + i * kLanes) * bytesOf(T)));
          },
          ahead);
      continue;
    }
    for (int64_t dim = 0; dim < f.dim; dim += kValueLanes) {
      float *panel = f.work.values;
      int64_t dims = packValues<Product, T>(v, keys, dim, panel);
      addWeighted<Product, 0>(
          f, head, tile, state, dim, dims,
          [&](auto width, int64_t step, int64_t d, Vec *x) {
            loadEach<width.value>(panel + step * kValueLanes + d, x);
          },
          ahead);
    }
  }
}

/// Outputs in the order of their dimensions.
template <llm_dtype T>
void orderOutputs(const Frame &f, const State &state) {
  if (!hasParts<FmaProduct, T>(f))
    return;
  float numbers[kLoaded<T>];
  for (int64_t row = 0; row < f.rows; ++row)
    for (int64_t d = 0; d < f.dim; d += kLoaded<T>) {
      float *out = state.out[row] + d;
      for (int64_t i = 0; i < kLoaded<T>; ++i)
        numbers[i] = out[partOf<T>(i)];
      memcpy(out, numbers, sizeof(numbers));
    }
}

/// The scales of a head's keys of the tile, zero outside of `keys`.
struct TileScales {
  alignas(64) float of[kTileKeys] = {};

  TileScales(const Frame &f, const KVPlane &plane, int64_t head, int64_t tile,
             KeyRange keys) {
    forBlocks(f, tile, keys,
              [&](int64_t block, int64_t slot, int64_t key, int64_t count) {
                memcpy(of + key,
                       plane.scaleAt(block, f.task.headBegin + head, slot),
                       count * sizeof(float));
              });
  }
};

/// Multiplies what a head's rows have of the tile with the scales of its keys,
/// and with `unit`.
inline void scaleTile(const Frame &f, const KVPlane &plane, int64_t head,
                      int64_t tile, KeyRange keys, float unit) {
  TileScales scales(f, plane, head, tile, keys);
  for (int64_t i = 0; i < kTileKeys; i += kLanes)
    store(scales.of + i, load(scales.of + i) * unit);
  int64_t first = head * f.rowsPerHead;
  for (int64_t row = first; row < first + f.rowsPerHead; ++row) {
    float *s = f.scores(row)[0];
    for (int64_t i = keys.begin / kLanes * kLanes; i < keys.end; i += kLanes)
      store(s + i, load(s + i) * load(scales.of + i));
  }
}

/// Quantized numbers are multiplied as they are: a key's scale is the score's.
template <llm_dtype T>
void scoreQuantized(const Frame &f, int64_t tile, KeyRange keys,
                    const State &state, Ahead &ahead) {
  scoreTile<FmaProduct, T>(f, tile, keys, state, ahead);
  for (int64_t head = 0; head < f.heads; ++head)
    scaleTile(f, f.task.pages->k, head, tile, keys, f.few ? kPartUnit<T> : 1);
}

/// A value's scale is the weight's, of which the sum has been taken.
template <llm_dtype T>
void weighQuantized(const Frame &f, int64_t tile, KeyRange keys,
                    const State &state, Ahead &ahead) {
  for (int64_t head = 0; head < f.heads; ++head)
    scaleTile(f, f.task.pages->v, head, tile, keys,
              hasParts<FmaProduct, T>(f) ? kPartUnit<T> : 1);
  weighTile<FmaProduct, T>(f, tile, keys, state, ahead);
}

#if defined(LLM_CPU_X86_VNNI)
/// Scores of few rows with K as i8.
inline void scoreIntegers(const Frame &f, int64_t tile, KeyRange keys,
                          const State &, Ahead &ahead) {
  const KVPlane &plane = f.task.pages->k;
  for (int64_t head = 0; head < f.heads; ++head) {
    Keys k = f.keys(plane, f.work.kOffsets, head);
    TileScales scales(f, plane, head, tile, keys);
    forRowBlocks<kDigitRows>(f.rowsPerHead, [&](auto n, int64_t row) {
      row += head * f.rowsPerHead;
      for (int64_t key = keys.begin / kLanes * kLanes; key < keys.end;
           key += kLanes)
        scoresOfBytes<n.value>(integersOf(f), row, k, key, scales.of,
                               f.scores(row), ahead);
    });
  }
}

/// The same with V: a value's scale is the weight's, of which the sum has been
/// taken.
inline void weighIntegers(const Frame &f, int64_t tile, KeyRange keys,
                          const State &state, Ahead &ahead) {
  const KVPlane &plane = f.task.pages->v;
  IntegerWeights weights[kFewRows];
  alignas(64) UInts panel[kTileKeys];
  int64_t begin = keys.begin / kDepthOfBytes * kDepthOfBytes;
  for (int64_t head = 0; head < f.heads; ++head) {
    Keys v = f.keys(plane, f.work.vOffsets, head);
    TileScales scales(f, plane, head, tile, keys);
    int64_t first = head * f.rowsPerHead;
    for (int64_t row = 0; row < f.rowsPerHead; ++row)
      setWeights(weights[row], f.scores(first + row)[0], scales.of,
                 f.visible(first + row, tile));
    for (int64_t dim = 0; dim < f.dim; dim += kVecBytes) {
      turnValues(v, begin, keys.end, dim, panel);
      forRowBlocks<kDigitRows>(f.rowsPerHead, [&](auto n, int64_t row) {
        weightedBytes<n.value>(
            weights + row, begin, keys.end, panel, min(f.dim - dim, kVecBytes),
            {state.out[first + row] + dim, state.out.stride}, ahead);
      });
    }
  }
}
#endif

//===----------------------------------------------------------------------===//
// A tile of groups
//===----------------------------------------------------------------------===//

/// Of a tile as f32: row `key` is `dims` channels from `dim` on of that key.
struct Unpacked {
  int64_t head, dim, dims;
  float *rows;
  int64_t stride; ///< of rows, in floats

  float *row(int64_t key) const { return rows + key * stride; }
  /// Asks for as many lines as a key's codes take in K and V.
  void ask(Ahead &ahead) const {
    for (int64_t i = 0; i < dims; i += kLineBytes)
      ahead.ask<1>();
  }
};

inline void unpackKeys(const Frame &f, int64_t tile, KeyRange keys,
                       const Unpacked &to, Ahead &ahead) {
  const KVPlane &k = f.task.pages->k;
  int64_t head = f.task.headBegin + to.head;
  auto unpack = [&](int64_t block, int64_t group, int64_t row, int64_t key) {
    if (k.isExact(block, group))
      memcpy(to.row(key), k.exactRow(block, head, group, row, f.dim) + to.dim,
             to.dims * sizeof(float));
    else
      readTokens(to.row(key),
                 reinterpret_cast<uint8_t *>(k.groupAt(block, head, group)) +
                     row * k.tokenStride + codeBytes(to.dim),
                 k.groupParamsAt(block, head, group) + to.dim, to.dims);
    to.ask(ahead);
  };
  forBlocks(f, tile, keys,
            [&](int64_t block, int64_t slot, int64_t key, int64_t count) {
              for (int64_t i = 0; i < count; ++i)
                unpack(block, (slot + i) / kGroupSize, (slot + i) % kGroupSize,
                       key + i);
            });
}

inline void unpackValues(const Frame &f, int64_t tile, KeyRange keys,
                         const Unpacked &to, Ahead &ahead) {
  const KVPlane &v = f.task.pages->v;
  int64_t head = f.task.headBegin + to.head;
  forBlocks(f, tile, keys,
            [&](int64_t block, int64_t slot, int64_t key, int64_t count) {
              for (int64_t i = 0; i < count; ++i) {
                readChannels(
                    to.row(key + i),
                    reinterpret_cast<uint8_t *>(v.at(block, head, slot + i)) +
                        codeBytes(to.dim),
                    v.paramsAt(block, head, slot + i, f.dim) + groupsOf(to.dim),
                    to.dims);
                to.ask(ahead);
              }
            });
}

/// Calls fn(Unpacked) for `lanes` channels of a head after the other, which are
/// to be unpacked at `rows`.
template <typename Fn>
inline void forUnpacked(const Frame &f, float *rows, int64_t lanes, Fn fn) {
  for (int64_t head = 0; head < f.heads; ++head)
    for (int64_t dim = 0; dim < f.dim; dim += lanes)
      fn(Unpacked{head, dim, min(f.dim - dim, lanes), rows, lanes});
}

/// Byte offsets of `keys` in rows that are so many floats apart; see locate.
inline void locateUnpacked(KeyRange keys, int64_t stride, int64_t *offsets) {
  for (int64_t key = keys.begin / kLanes * kLanes;
       key < roundUp(keys.end, kLanes); ++key)
    offsets[key] = min(max(key, keys.begin), keys.end - 1) * stride *
                   int64_t(sizeof(float));
}

/// What there is nothing to ask for with.
inline Ahead nothingAhead() {
  static const Run none = {nullptr, nullptr};
  return Ahead(&none);
}

/// A tile's keys as f32, then scores as of any other f32. Of few rows, which
/// need no panel of keys, in its place.
inline void scoreGroups(const Frame &f, int64_t tile, KeyRange keys,
                        const State &, Ahead &ahead) {
  bool few = f.few && f.dim <= kPanelLanes;
  float *rows = few ? f.work.keys : f.work.values;
  int64_t lanes = few ? kPanelLanes : kValueLanes;
  locateUnpacked(keys, lanes, f.work.kOffsets);
  forUnpacked(f, rows, lanes, [&](const Unpacked &part) {
    unpackKeys(f, tile, keys, part, ahead);
    Ahead nothing = nothingAhead();
    Keys k = {reinterpret_cast<const char *>(rows), f.work.kOffsets, part.dims};
    int64_t first = part.head * f.rowsPerHead;
    if (few)
      return forRowBlocks<4>(f.rowsPerHead, [&](auto n, int64_t row) {
        scoresOfFew<FmaProduct, LLM_F32, n.value>(
            f.q(first + row, 0), k, keys, f.scores(first + row), nothing);
      });
    float *panel = f.work.keys;
    int64_t steps = packKeys<FmaProduct, LLM_F32>(k, keys, 0, panel, nothing);
    forRowBlocks(f.rowsPerHead, [&](auto n, int64_t row) {
      row += first;
      KeyRange seen = {f.visible(row, tile).begin,
                       f.visible(row + n.value - 1, tile).end};
      if (seen.begin < seen.end)
        scores<FmaProduct, n.value>(f.q(row, part.dim), panel, steps, seen,
                                    f.scores(row), part.dim > 0);
    });
  });
}

inline void weighGroups(const Frame &f, int64_t tile, KeyRange keys,
                        const State &state, Ahead &ahead) {
  forUnpacked(f, f.work.values, kValueLanes, [&](const Unpacked &part) {
    unpackValues(f, tile, keys, part, ahead);
    Ahead nothing = nothingAhead();
    addWeighted<FmaProduct, 0>(
        f, part.head, tile, state, part.dim, roundUp(part.dims, kLanes),
        [&](auto width, int64_t key, int64_t d, Vec *x) {
          loadEach<width.value>(part.row(key) + d, x);
        },
        nothing);
  });
}

#if defined(LLM_CPU_X86_VNNI)
/// A group of K, as far as a tile's `keys` are in it, which are its last ones
/// or all of them: key i of the tile is row i - first.
struct KeyGroup {
  int64_t block, number, first;
  KeyRange keys;
};

/// Calls fn(group) for those that hold `keys` of the tile at `tile`.
template <typename Fn>
inline void forKeyGroups(const Frame &f, int64_t tile, KeyRange keys, Fn fn) {
  for (int64_t first = keys.begin / kGroupSize * kGroupSize; first < keys.end;
       first += kGroupSize) {
    int64_t size = f.task.pages->blockSize, position = tile + first;
    fn(KeyGroup{f.task.blocks[position / size],
                position % size / kGroupSize,
                first,
                {max(keys.begin, first), min(keys.end, first + kGroupSize)}});
  }
}

/// Byte offsets of its keys; see locate.
inline void locateGroup(const KeyGroup &group, int64_t stride,
                        int64_t *offsets) {
  for (int64_t i = 0; i < kGroupSize; ++i) {
    int64_t key = group.first + i;
    key = min(max(key, group.keys.begin), group.keys.end - 1);
    offsets[group.first + i] = (key - group.first) * stride;
  }
}

/// Scores of few rows with K as i4.
inline void scoreIntegerGroups(const Frame &f, int64_t tile, KeyRange keys,
                               const State &, Ahead &ahead) {
  const KVPlane &plane = f.task.pages->k;
  for (int64_t part = 0; part < f.heads; ++part)
    forKeyGroups(f, tile, keys, [&](const KeyGroup &group) {
      int64_t head = f.task.headBegin + part;
      bool exact = plane.isExact(group.block, group.number);
      Keys k = {exact ? reinterpret_cast<char *>(plane.exactRow(
                            group.block, head, group.number, 0, f.dim))
                      : plane.groupAt(group.block, head, group.number),
                f.work.kOffsets, f.dim};
      locateGroup(group, exact ? f.dim * sizeof(float) : plane.tokenStride,
                  f.work.kOffsets);
      forRowBlocks<kDigitRows>(f.rowsPerHead, [&](auto n, int64_t row) {
        row += part * f.rowsPerHead;
        if (exact)
          return scoresOfFew<FmaProduct, LLM_F32, n.value>(
              f.q(row, 0), k, group.keys, f.scores(row), ahead);
        GroupQuery q[n.value];
        for (int i = 0; i < n.value; ++i)
          setGroupQuery(q[i], f.q(row + i, 0)[0], f.stride,
                        plane.groupParamsAt(group.block, head, group.number),
                        f.dim);
        for (int64_t key = group.keys.begin / kLanes * kLanes;
             key < group.keys.end; key += kLanes)
          scoresOfCodes<n.value>(q, k, key, f.scores(row), ahead);
      });
    });
}

/// Those of a head's channels from `dim` on.
inline void readStripParams(const Frame &f, int64_t head, int64_t tile,
                            KeyRange keys, int64_t dim, StripParams &to) {
  const KVPlane &plane = f.task.pages->v;
  alignas(64) uint32_t params[kTileKeys][kVecGroups] = {};
  int64_t groups = min(groupsOf(f.dim - dim), int64_t(kVecGroups));
  forBlocks(f, tile, keys,
            [&](int64_t block, int64_t slot, int64_t key, int64_t count) {
              const uint32_t *from =
                  plane.paramsAt(block, f.task.headBegin + head, slot, f.dim) +
                  dim / kGroupSize;
              for (int64_t i = 0; i < count; ++i, from += groupsOf(f.dim))
                copyParams(params[key + i], from, groups);
            });
  turnParams(params, to);
}

/// The same with V, kVecCodes channels after the other.
inline void weighIntegerGroups(const Frame &f, int64_t tile, KeyRange keys,
                               const State &state, Ahead &ahead) {
  GroupWeights weights[kFewRows];
  StripParams params;
  alignas(64) UInts panel[2 * kTileKeys];
  int64_t begin = keys.begin / kDepthOfBytes * kDepthOfBytes;
  for (int64_t head = 0; head < f.heads; ++head) {
    Keys v = f.keys(f.task.pages->v, f.work.vOffsets, head);
    int64_t first = head * f.rowsPerHead;
    for (int64_t dim = 0; dim < f.dim; dim += kVecCodes) {
      readStripParams(f, head, tile, keys, dim, params);
      for (int64_t row = 0; row < f.rowsPerHead; ++row)
        setGroupWeights(weights[row], f.weights(first + row)[0], params,
                        f.visible(first + row, tile));
      turnCodes(v, begin, keys.end, dim, panel);
      Ahead nothing = nothingAhead();
      forRowBlocks<2>(f.rowsPerHead, [&](auto n, int64_t row) {
        weightedCodes<n.value>(weights + row, begin, keys.end, panel,
                               f.dim - dim,
                               {state.out[first + row] + dim, state.out.stride},
                               row ? nothing : ahead);
      });
    }
  }
}
#endif

inline void attendTile(const Frame &f, int64_t tile, const State &state) {
  KeyRange keys = keysOf(f, tile);
  if (keys.begin >= keys.end)
    return;
  if (f.task.pages->k.dtype != LLM_I4)
    locate(f, f.task.pages->k, tile, keys, f.work.kOffsets);
  locate(f, f.task.pages->v, tile, keys, f.work.vOffsets);
  Ahead ahead = aheadOf(f, tile);
  f.scoreTile(f, tile, keys, state, ahead);
  tileSoftmax(f, tile, state);
  f.weighTile(f, tile, keys, state, ahead);
}

//===----------------------------------------------------------------------===//
// A task
//===----------------------------------------------------------------------===//

/// How a tile of one plane is computed, as K and as V.
struct TileFns {
  TileFn score, weigh;
  OrderFn orderOutputs = nullptr;
};

inline TileFns tileFnsOf(const AttentionTask &task, const KVPlane &plane) {
#if defined(LLM_CPU_X86_VNNI)
  if (plane.dtype == LLM_I8 && isFew(task))
    return {scoresAreIntegers(task) ? scoreIntegers : scoreQuantized<LLM_I8>,
            weighIntegers};
  if (plane.dtype == LLM_I4 && isFew(task))
    return {task.pages->headDim <= kMaxByteDim ? scoreIntegerGroups
                                               : scoreGroups,
            weighIntegerGroups};
#endif
  if (usesDots(task, plane))
    return {scoreTile<BestProduct, LLM_BF16>, weighTile<BestProduct, LLM_BF16>};
  switch (plane.dtype) {
  case LLM_F32:
    return {scoreTile<FmaProduct, LLM_F32>, weighTile<FmaProduct, LLM_F32>};
  case LLM_F16:
    return {scoreTile<FmaProduct, LLM_F16>, weighTile<FmaProduct, LLM_F16>};
  case LLM_BF16:
    return {scoreTile<FmaProduct, LLM_BF16>, weighTile<FmaProduct, LLM_BF16>,
            orderOutputs<LLM_BF16>};
  case LLM_F8E4M3FN:
    return {scoreQuantized<LLM_F8E4M3FN>, weighQuantized<LLM_F8E4M3FN>,
            kHasEvenParts<LLM_F8E4M3FN> ? orderOutputs<LLM_F8E4M3FN> : nullptr};
  case LLM_I4:
    return {scoreGroups, weighGroups};
  default:
    return {scoreQuantized<LLM_I8>, weighQuantized<LLM_I8>};
  }
}

/// Folds the keys of a chunk that belong to one segment into the state.
inline void attendSegment(const Frame &f, Segment segment, int64_t chunk,
                          const State &state) {
  enter(f, segment);
  for (int64_t i = 0; i < kChunkKeys; i += kTileKeys)
    attendTile(f, chunk * kChunkKeys + i, state);
}

inline int64_t rowsOf(const AttentionTask &task) {
  return (task.rowEnd - task.rowBegin) * (task.headEnd - task.headBegin);
}

inline void computeChunk(const Frame &f, int64_t chunk, const State &state) {
  clear(state, f.rows);
  if (chunk * kChunkKeys < visibleSinks(f.task, f.task.rowEnd - 1).end)
    attendSegment(f, Segment::Sinks, chunk, state);
  if (chunk >= visibleKeys(f.task, f.task.rowBegin).begin / kChunkKeys)
    attendSegment(f, Segment::Window, chunk, state);
  if (f.orderOutputs)
    f.orderOutputs(f, state);
}

/// out = o / l, rounded to out's type.
template <llm_dtype T>
void writeOut(const AttentionTask &task, const State &state) {
  int64_t dim = task.pages->headDim;
  for (int64_t row = 0; row < rowsOf(task); ++row) {
    char *to = rowOf<char>(task, *task.out, row, bytesOf(T));
    float factor = state.sum[row] == 0 ? 0 : 1 / state.sum[row];
    for (int64_t d = 0; d < dim; d += kLanes)
      store<T>(to + d * bytesOf(T), load(state.out[row] + d) * factor,
               min(dim - d, kLanes));
  }
}

inline void writeLse(const AttentionTask &task, const State &state) {
  for (int64_t row = 0; row < rowsOf(task); ++row) {
    float sum = state.sum[row];
    float lse = sum == 0 ? -kInfinity
                         : float(state.max[row] * kLn2 + __builtin_logf(sum));
    memcpy(rowOf<char>(task, *task.lse, row, sizeof(float)), &lse,
           sizeof(float));
  }
}

inline void finish(const AttentionTask &task, const State &state) {
  if (const llm_tensor *logits = task.params->headSink)
    for (int64_t row = 0; row < rowsOf(task); ++row)
      foldLogit(ofHead(task, *logits, row), state, row);
  if (task.out->dtype == LLM_F32)
    writeOut<LLM_F32>(task, state);
  else if (task.out->dtype == LLM_F16)
    writeOut<LLM_F16>(task, state);
  else
    writeOut<LLM_BF16>(task, state);
  if (task.lse)
    writeLse(task, state);
}

inline Frame frameOf(const AttentionTask &task, Workspace &work) {
  int64_t dim = task.pages->headDim;
  return {task,
          work,
          task.headEnd - task.headBegin,
          task.rowEnd - task.rowBegin,
          rowsOf(task),
          dim,
          strideOfQueries(dim),
          isFew(task),
          tileFnsOf(task, task.pages->k).score,
          tileFnsOf(task, task.pages->v).weigh,
          tileFnsOf(task, task.pages->v).orderOutputs};
}

constexpr int64_t kStateFloats = kMaxTaskFloats + 2 * kMaxTaskRows;

void attend(const AttentionTask &task) {
  Workspace work;
  alignas(64) float buffers[2][kStateFloats];
  Frame f = frameOf(task, work);
  State total = stateAt(buffers[0], f.rows, f.dim);
  State part = stateAt(buffers[1], f.rows, f.dim);
  TaskChunks chunks = chunksOf(task);
  if (chunks.count() == 0)
    clear(total, f.rows);
  for (int64_t i = 0; i < chunks.count(); ++i) {
    computeChunk(f, chunks[i], i ? part : total);
    if (i)
      merge(total, part, f.rows);
  }
  finish(task, total);
}

void attendChunks(const AttentionTask &task, KeyRange chunks, float *states,
                  int64_t stride) {
  Workspace work;
  Frame f = frameOf(task, work);
  TaskChunks all = chunksOf(task);
  for (int64_t i = chunks.begin; i < chunks.end; ++i) {
    computeChunk(f, all[i], stateAt(states, f.rows, f.dim));
    states += stride;
  }
}

void mergeChunks(const AttentionTask &task, const float *states, int64_t stride,
                 int64_t count) {
  alignas(64) float buffer[kStateFloats];
  int64_t rows = rowsOf(task), dim = task.pages->headDim;
  memcpy(buffer, states, stateFloats(rows, dim) * sizeof(float));
  State total = stateAt(buffer, rows, dim);
  for (int64_t i = 1; i < count; ++i) {
    const float *state = states + i * stride;
    merge(total, stateAt(const_cast<float *>(state), rows, dim), rows);
  }
  finish(task, total);
}

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_ATTENTIONKERNEL_H
