//===- AttentionKernel.h - Paged attention with online softmax --*- C++ -*-===//
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
// and asks for the memory of the head to come, line by line. AttentionFrame.h
// has step 1 and the memory, and AttentionFloats.h, AttentionGroups.h,
// AttentionIntegers.h and AttentionWords.h have 2 and 4, by what is multiplied.
//
// Everything is f32, but for what the level has dot products for. What is bf16
// in queries and pages is multiplied by those of bf16, and weights (not their
// sum l) are rounded to bf16, as they are beside values of f8, and of i8 for
// many rows (few rows meet keys of f8 as two bf16 each, which is as good as
// f32). Few rows are multiplied with pages of i8 and i4 as integers of two
// bytes (IntegerTile.h, IntegerGroups.h), and many rows with pages of any type
// but f32, unless a log-sum-exp is asked for, as integers of 16 bits
// (WordTile.h). Where it has AMX, many rows are multiplied as sums of bf16
// instead (MatrixTile.h).
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
// of dot products of two bf16 or integers of 16 bits, or of AMX.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_ATTENTIONKERNEL_H
#define LLM_RUNTIME_CPU_ATTENTIONKERNEL_H

#include "AttentionFloats.h"
#include "AttentionGroups.h"
#include "AttentionIntegers.h"
#include "AttentionMatrix.h"
#include "AttentionWords.h"
#include "OnlineSoftmax.h"

namespace llm::cpu {
namespace {

//===----------------------------------------------------------------------===//
// A tile
//===----------------------------------------------------------------------===//

/// What alibi adds to a row's scores of the tile.
inline Bias biasOf(const Frame &f, int64_t row, int64_t tile) {
  const llm_tensor *slopes = f.task.params->alibi;
  if (!slopes)
    return {0, 0};
  int64_t position = positionOf(f.task, numberOf(f.task, row));
  return {ofHead(f.task, *slopes, row), float(tile - position)};
}

/// Folds the tile's scores of some rows into the state and turns them into
/// weights, factors of the product.
template <typename Product>
void tileSoftmax(const Frame &f, int64_t tile, int64_t begin, int64_t end,
                 const State &state) {
  const AttentionParams &params = *f.task.params;
  bool whole = f.work.seenByAll.begin <= tile &&
               tile + kTileKeys <= f.work.seenByAll.end;
  for (int64_t row = begin; row < end && !isPlain(params); ++row)
    scaleScores(params, biasOf(f, row, tile), f.scores(row)[0]);
  for (int64_t row = begin; row < end && !whole; ++row)
    maskScores(f.visible(row, tile), f.scores(row)[0]);
  for (int64_t row = begin; row < end; row += kLanes)
    foldScores<Product>(
        factorOf(params), [&](int64_t i) { return f.scores(row)[i]; }, state,
        row, min(end - row, kLanes));
}

#if defined(LLM_CPU_X86_AMX)
inline void attendMatrixTile(const Frame &f, int64_t tile, KeyRange keys,
                             const State &state) {
  const KVPlane &k = f.task.pages->k, &v = f.task.pages->v;
  for (int64_t head = 0; head < f.heads; ++head) {
    packKeyPanel(f, head, tile, keys);
    packValuePanel(f, head, tile, keys);
    TileScales kScales(f, k, head, tile, k.scales ? keys : KeyRange{0, 0});
    TileScales vScales(f, v, head, tile, v.scales ? keys : KeyRange{0, 0});
    Panel kPanel = keyPanel(f.work.keys, f.dim, planeDigits(k.dtype));
    Panel vPanel = valuePanel(f.work.values, f.dim, planeDigits(v.dtype));
    bool finite = isFinite(vPanel, keys);
    for (int64_t i = 0; i < f.rowsPerHead; i += kBlockOfRows) {
      Block b = {head * f.rowsPerHead + i,
                 min(f.rowsPerHead - i, kBlockOfRows),
                 tile,
                 kPanel,
                 vPanel,
                 k.scales ? kScales.of : nullptr,
                 v.scales ? vScales.of : nullptr,
                 finite};
      if (KeyRange seen = keysOf(f, b); seen.begin >= seen.end)
        continue;
      scoreBlock(f, b, head);
      tileSoftmax<FmaProduct>(f, tile, b.row, b.row + b.rows, state);
      weighBlock(f, b, state);
    }
  }
}
#endif

#if defined(LLM_CPU_X86_VNNI)
inline void attendWordTile(const Frame &f, int64_t tile, KeyRange keys,
                           const State &state) {
  const KVPages &pages = *f.task.pages;
  alignas(64) float unpacked[2][kTileKeys * kMaxWordDim];
  auto planeOf = [&](const KVPlane &plane, int64_t *offsets, int64_t head,
                     const float *rows) -> WordPlane {
    const TileScales scales(f, plane, head, tile,
                            plane.scales ? keys : KeyRange{0, 0});
    if (plane.dtype != LLM_I4)
      return {f.keys(plane, offsets, head), plane.dtype, scales};
    locateUnpacked(keys, kMaxWordDim, offsets);
    return {{reinterpret_cast<const char *>(rows), offsets, f.dim},
            LLM_F32,
            scales};
  };
  for (int64_t head = 0; head < f.heads; ++head) {
    WordPlane k = planeOf(pages.k, f.work.kOffsets, head, unpacked[0]);
    WordPlane v = planeOf(pages.v, f.work.vOffsets, head, unpacked[1]);
    packKeyWords(f, tile, head, keys, k, unpacked[0]);
    packValueWords(f, tile, head, keys, v, unpacked[1]);
    for (int64_t i = 0; i < f.rowsPerHead; i += kRowsOfWords) {
      const WordBlock b = {head * f.rowsPerHead + i,
                           min(f.rowsPerHead - i, kRowsOfWords), tile, k, v};
      if (KeyRange seen = b.seen(f, b.row, b.rows); seen.begin >= seen.end)
        continue;
      scoreWords(f, b);
      tileSoftmax<FmaProduct>(f, tile, b.row, b.row + b.rows, state);
      weighWords(f, b, state);
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
  findRuns(f, f.task.pages->v, tile, f.work.vRuns);
#if defined(LLM_CPU_X86_AMX)
  if (usesMatrices(f.task))
    return attendMatrixTile(f, tile, keys, state);
#endif
#if defined(LLM_CPU_X86_VNNI)
  if (usesWords(f.task))
    return attendWordTile(f, tile, keys, state);
#endif
  f.scoreTile(f, tile, keys, state);
  if (valuesAreDots(f.task) && !f.task.pages->v.scales) // which come first
    tileSoftmax<BestProduct>(f, tile, 0, f.rows, state);
  else
    tileSoftmax<FmaProduct>(f, tile, 0, f.rows, state);
  f.weighTile(f, tile, keys, state);
}

//===----------------------------------------------------------------------===//
// A task
//===----------------------------------------------------------------------===//

template <typename Product>
TileFns floatFns(llm_dtype type) {
  switch (type) {
  case LLM_F32:
    return {scoreTile<FmaProduct, LLM_F32>, weighTile<FmaProduct, LLM_F32>};
  case LLM_F16:
    return {scoreTile<FmaProduct, LLM_F16>, weighTile<FmaProduct, LLM_F16>};
  case LLM_BF16:
    return {scoreTile<Product, LLM_BF16>, weighTile<Product, LLM_BF16>,
            orderOutputs<Product, LLM_BF16>};
  case LLM_F8E4M3FN:
    return {scoreQuantized<BestProduct, LLM_F8E4M3FN>,
            weighQuantized<Product, LLM_F8E4M3FN>,
            kHasEvenParts<LLM_F8E4M3FN> ? orderOutputs<Product, LLM_F8E4M3FN>
                                        : nullptr};
  default:
    return {scoreQuantized<FmaProduct, LLM_I8>,
            weighQuantized<Product, LLM_I8>};
  }
}

inline TileFns tileFnsOf([[maybe_unused]] const AttentionTask &task,
                         const KVPlane &plane, bool dots) {
#if defined(LLM_CPU_X86_VNNI)
  if (plane.dtype == LLM_I8 && isFew(task))
    return {scoresAreIntegers(task) ? scoreIntegers
                                    : scoreQuantized<FmaProduct, LLM_I8>,
            weighIntegers};
  if (plane.dtype == LLM_I4 && isFew(task))
    return {task.pages->headDim <= kMaxByteDim ? scoreIntegerGroups
                                               : scoreGroups,
            weighIntegerGroups};
#endif
  if (dots)
    return floatFns<BestProduct>(plane.dtype);
  if (plane.dtype == LLM_I4)
    return {scoreGroups, weighGroups};
  return floatFns<FmaProduct>(plane.dtype);
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
  TileFns k = tileFnsOf(task, task.pages->k, scoresAreDots(task));
  TileFns v = tileFnsOf(task, task.pages->v, valuesAreDots(task));
  return {task,
          work,
          task.headEnd - task.headBegin,
          task.rowEnd - task.rowBegin,
          rowsOf(task),
          dim,
          strideOfQueries(dim),
          isFew(task),
          k.score,
          v.weigh,
          v.orderOutputs};
}

constexpr int64_t kStateFloats = kMaxTaskFloats + 2 * kMaxTaskRows;

void attend(const AttentionTask &task) {
#if defined(LLM_CPU_X86_AMX)
  MatrixRegisters registers(usesMatrices(task));
#endif
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
#if defined(LLM_CPU_X86_AMX)
  MatrixRegisters registers(usesMatrices(task));
#endif
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
