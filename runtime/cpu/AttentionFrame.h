//===- AttentionFrame.h - What a task of attention computes in --*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A task copies its queries into the workspace once, as the factors that its
// tiles multiply, and knows of each row which keys it sees. Tile by tile it
// looks up where the keys are, and which memory the tiles to come are in.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_ATTENTIONFRAME_H
#define LLM_RUNTIME_CPU_ATTENTIONFRAME_H

#include "AttentionTile.h"
#include "Groups.h"
#include "IntegerTile.h"
#include "Kernels.h"
#include "MatrixTile.h"
#include "WordTile.h"

namespace llm::cpu {
namespace {

//===----------------------------------------------------------------------===//
// Workspace
//===----------------------------------------------------------------------===//

/// A task sees sinks, then the other keys.
enum class Segment { None, Sinks, Window };

/// What a task computes in: on the stack, because kernels cannot fail.
struct Workspace {
  alignas(64) float q[kMaxQueryFloats];
  alignas(64) float scores[kMaxScoreRows * kScoreStride];
  alignas(64) float keys[kMaxKeyFloats];
  alignas(64) float values[kMaxValueFloats];
#if defined(LLM_CPU_X86_VNNI)
  char digits[2 * kMaxTaskFloats]; ///< of q, where K is i8
  float digitSteps[kMaxTaskRows];
  int32_t digitOffsets[kMaxTaskRows];
  float qSteps[kMaxTaskRows]; ///< where q is words
#endif
  KeyRange visible[kMaxTaskRows]; ///< of each row, in positions
  KeyRange seenByAll;             ///< of them
  int64_t kOffsets[kTileKeys], vOffsets[kTileKeys]; ///< of the tile's keys
  /// Where the first head's keys of two tiles lie, which tiles these are, and
  /// where its values of this one lie.
  Runs kRuns[2];
  int64_t found[2] = {-1, -1};
  Runs vRuns;
  const llm_tensor *loaded = nullptr; ///< what q is of
  Segment segment = Segment::None;    ///< what `visible` is of
};

struct Frame;
using TileFn = void (*)(const Frame &, int64_t tile, KeyRange keys,
                        const State &state);
using OrderFn = void (*)(const Frame &, const State &state);

/// How a tile of one plane is computed, as K and as V.
struct TileFns {
  TileFn score, weigh;
  OrderFn orderOutputs = nullptr;
};

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

/// Rows of q lie far apart: so many before one is read it is asked for.
constexpr int64_t kRowsAhead = 8;

/// Asks for what is read behind row `row`.
template <llm_dtype T>
void askForRow(const Frame &f, const llm_tensor &q, int64_t row) {
  const char *later = rowOf<const char>(
      f.task, q, min(row + kRowsAhead, f.rows - 1), bytesOf(T));
  for (int64_t i = 0; i < f.dim * bytesOf(T); i += kLineBytes)
    __builtin_prefetch(later + i);
}

/// q as factors, padded with zeros.
template <typename Product, llm_dtype T>
void loadRows(const Frame &f, const llm_tensor &q) {
  constexpr int64_t kStep = kLanes * Product::kDepth;
  memset(f.work.q, 0, f.rows * f.stride * sizeof(float));
  for (int64_t row = 0; row < f.rows; ++row) {
    const char *from = rowOf<const char>(f.task, q, row, bytesOf(T));
    askForRow<T>(f, q, row);
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

/// The same for keys of f8, which few rows multiply by BestProduct.
inline void orderF8Queries(const Frame &f) {
#if defined(LLM_CPU_X86_BF16)
  for (int64_t row = 0; row < f.rows; ++row)
    for (float *q = f.work.q + row * f.stride, *end = q + f.stride; q < end;
         q += kLoaded<LLM_F8E4M3FN>)
      splitPairs(q, q);
#else
  if (kHasEvenParts<LLM_F8E4M3FN>)
    orderQueries<LLM_F8E4M3FN>(f);
#endif
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

/// Queries and keys of bf16 are multiplied as they are.
inline bool scoresAreDots(const AttentionTask &task) {
  return kHasDots && task.q->dtype == LLM_BF16 &&
         task.pages->k.dtype == LLM_BF16;
}

/// And their values, with weights rounded to bf16. So are values of f8, and of
/// i8 that are not multiplied as integers, which are bf16 without a loss: their
/// own rounding is far above that of weights.
inline bool valuesAreDots(const AttentionTask &task) {
  const KVPages &pages = *task.pages;
  switch (pages.v.dtype) {
  case LLM_BF16:
    return kHasDots && task.q->dtype == LLM_BF16;
  case LLM_F8E4M3FN:
    return kHasDots &&
           (!isFew(task) || pages.headDim % kLoaded<LLM_F8E4M3FN> == 0);
  case LLM_I8:
    return kHasDots && !isFew(task);
  default:
    return false;
  }
}

#if defined(LLM_CPU_X86_VNNI)
/// Many rows meet pages that are not f32 as words, unless all is bf16 that is
/// multiplied as it is. A log-sum-exp is to be more exact than their scores.
inline bool usesWords(const AttentionTask &task) {
  const llm_dtype k = task.pages->k.dtype, v = task.pages->v.dtype;
  return !isFew(task) && task.pages->headDim <= kMaxWordDim && !task.lse &&
         k != LLM_F32 && v != LLM_F32 &&
         !(scoresAreDots(task) && v == LLM_BF16);
}

template <llm_dtype T>
void loadRowWords(const Frame &f, const llm_tensor &q) {
  for (int64_t row = 0; row < f.rows; ++row) {
    askForRow<T>(f, q, row);
    f.work.qSteps[row] =
        storeRowWords<T>(rowOf<const char>(f.task, q, row, bytesOf(T)), f.dim,
                         f.work.q + row * f.stride);
  }
}
#endif

#if defined(LLM_CPU_X86_AMX)
/// Many rows fill the registers of matrix instructions.
inline bool usesMatrices(const AttentionTask &task) {
  return !isFew(task) && task.pages->headDim <= kMaxMatrixDim;
}

/// Digits of queries of this type beside a plane of K.
inline int digitsBeside(const KVPlane &plane, llm_dtype type) {
  if (type == LLM_BF16)
    return 1;
  return plane.dtype == LLM_F32 && type == LLM_F32 ? 3 : 2;
}

/// Floats from one digit of a row of q to the next, and from row to row.
inline int64_t queryDigit(const Frame &f) { return f.stride / 2; }
inline int64_t digitStride(const Frame &f) {
  return kMaxDigits * queryDigit(f);
}

/// From row `row` of q on.
inline RowDigits queriesAt(const Frame &f, int64_t row) {
  const KVPlane &k = f.task.pages->k;
  int64_t stride = digitStride(f);
  return {reinterpret_cast<const char *>(f.work.q + row * stride), 4 * stride,
          4 * queryDigit(f), digitsBeside(k, f.work.loaded->dtype)};
}

template <llm_dtype T, int Count>
void loadQueryDigits(const Frame &f, const llm_tensor &q) {
  int64_t stride = digitStride(f);
  for (int64_t row = 0; row < f.rows; ++row) {
    const char *from = rowOf<const char>(f.task, q, row, bytesOf(T));
    for (int64_t d = 0; d < f.stride; d += kMatrixDepth) {
      auto part = [&](int64_t at) {
        int64_t n = min(max(f.dim - at, 0), kLanes);
        return n ? load<T>(from + at * bytesOf(T), n) : Vec{};
      };
      storeRow<Count>(f.work.q + row * stride + d / 2, queryDigit(f), part(d),
                      part(d + kLanes));
    }
  }
}

inline void loadMatrixQueries(const Frame &f, const llm_tensor &q) {
  if (q.dtype == LLM_BF16)
    loadQueryDigits<LLM_BF16, 1>(f, q);
  else if (q.dtype == LLM_F16)
    loadQueryDigits<LLM_F16, 2>(f, q);
  else if (f.task.pages->k.dtype == LLM_F32)
    loadQueryDigits<LLM_F32, 3>(f, q);
  else
    loadQueryDigits<LLM_F32, 2>(f, q);
}
#endif

inline void loadQueries(const Frame &f, const llm_tensor &q) {
  if (f.work.loaded == &q)
    return;
  f.work.loaded = &q;
#if defined(LLM_CPU_X86_AMX)
  if (usesMatrices(f.task))
    return loadMatrixQueries(f, q);
#endif
#if defined(LLM_CPU_X86_VNNI)
  if (usesWords(f.task))
    return q.dtype == LLM_F32   ? loadRowWords<LLM_F32>(f, q)
           : q.dtype == LLM_F16 ? loadRowWords<LLM_F16>(f, q)
                                : loadRowWords<LLM_BF16>(f, q);
#endif
  const KVPlane &k = f.task.pages->k;
  if (scoresAreDots(f.task))
    return loadRows<BestProduct, LLM_BF16>(f, q);
  if (q.dtype == LLM_F32)
    loadRows<FmaProduct, LLM_F32>(f, q);
  else if (q.dtype == LLM_F16)
    loadRows<FmaProduct, LLM_F16>(f, q);
  else
    loadRows<FmaProduct, LLM_BF16>(f, q);
  if (f.few && k.dtype == LLM_BF16)
    orderQueries<LLM_BF16>(f);
  if (f.few && k.dtype == LLM_F8E4M3FN)
    orderF8Queries(f);
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
  KeyRange all = {0, INT64_MAX};
  for (int64_t row = 0; row < f.rows; ++row) {
    int64_t number = numberOf(f.task, row);
    KeyRange keys =
        sinks ? visibleSinks(f.task, number) : visibleKeys(f.task, number);
    f.work.visible[row] = keys;
    all = {max(all.begin, keys.begin), min(all.end, keys.end)};
  }
  f.work.seenByAll = all;
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

/// Calls add(begin, bytes, step) for the memory of `tokens` tokens of LLM_I4.
template <typename Fn>
inline void forGroupRuns(const Frame &f, const KVPlane &plane, int64_t block,
                         int64_t slot, int64_t tokens, Fn add) {
  int64_t head = f.task.headBegin;
  if (plane.params)
    return add(plane.at(block, head, slot), tokens * plane.tokenStride,
               plane.headStride);
  forGroups(
      slot, tokens, [&](int64_t group, int64_t row, int64_t, int64_t rows) {
        if (plane.isExact(block, group))
          return add(reinterpret_cast<char *>(
                         plane.exactRow(block, head, group, row, f.dim)),
                     rows * f.dim * sizeof(float),
                     kGroupSize * f.dim * sizeof(float));
        add(plane.groupAt(block, head, group) + row * plane.tokenStride,
            rows * plane.tokenStride, plane.headStride);
        add(reinterpret_cast<char *>(plane.groupParamsAt(block, head, group)),
            f.dim * sizeof(uint32_t), plane.headStride);
      });
}

/// Finds where the keys of a tile lie, block by block.
inline void findRuns(const Frame &f, const KVPlane &plane, int64_t tile,
                     Runs &to) {
  constexpr int64_t kMostBytes = 4096; // the hardware stops at pages
  Run *runs = to.of;
  int64_t count = 0, total = 0;
  auto add = [&](const char *begin, int64_t bytes, int64_t step) {
    total += bytes;
    if (count && runs[count - 1].end == begin && runs[count - 1].step == step)
      runs[count - 1].end += bytes;
    else if (count < Runs::kMost)
      runs[count++] = {begin, begin + bytes, step};
  };
  const int64_t bytes = f.dim * bytesOf(plane.dtype);
  const KeyRange keys = keysOf(f, tile);
  forBlocks(f, tile, keys,
            [&](int64_t block, int64_t slot, int64_t, int64_t tokens) {
              if (plane.dtype == LLM_I4)
                return forGroupRuns(f, plane, block, slot, tokens, add);
              const char *from = plane.at(block, f.task.headBegin, slot);
              if (plane.tokenStride == bytes)
                return add(from, tokens * bytes, plane.headStride);
              for (int64_t i = 0; i < tokens; ++i)
                add(from + i * plane.tokenStride, bytes, plane.headStride);
            });
  if (plane.params)
    forBlocks(f, tile, keys,
              [&](int64_t block, int64_t slot, int64_t, int64_t tokens) {
                add(reinterpret_cast<char *>(
                        plane.paramsAt(block, f.task.headBegin, slot, f.dim)),
                    tokens * groupsOf(f.dim) * sizeof(uint32_t),
                    plane.headStride);
              });
  if (plane.scales)
    forBlocks(f, tile, keys,
              [&](int64_t block, int64_t slot, int64_t, int64_t tokens) {
                add(reinterpret_cast<char *>(
                        plane.scaleAt(block, f.task.headBegin, slot)),
                    tokens * sizeof(float), plane.scaleHeadStride);
              });
  runs[count] = {nullptr, nullptr, 0};
  to.piece = min(roundUp(total, Ahead::kStreams * kLineBytes) / Ahead::kStreams,
                 kMostBytes);
}

/// Where the first head's keys of the tile at `tile` lie.
inline const Runs &keyRuns(const Frame &f, int64_t tile) {
  int64_t parity = tile / kTileKeys % 2;
  Runs &runs = f.work.kRuns[parity];
  if (f.work.found[parity] != tile)
    findRuns(f, f.task.pages->k, tile, runs);
  f.work.found[parity] = tile;
  return runs;
}

/// What is read after a head's keys of a tile: the next head's, or values.
inline Ahead afterKeys(const Frame &f, int64_t tile, int64_t head) {
  return head + 1 < f.heads ? Ahead(keyRuns(f, tile), head + 1)
                            : Ahead(f.work.vRuns, 0);
}

/// What is read after its values: the next head's, or keys of the next tile.
inline Ahead afterValues(const Frame &f, int64_t tile, int64_t head) {
  return head + 1 < f.heads ? Ahead(f.work.vRuns, head + 1)
                            : Ahead(keyRuns(f, tile + kTileKeys), 0);
}

/// What there is nothing to ask for with.
inline Ahead nothingAhead() {
  static const Runs none = {};
  return Ahead(none, 0);
}

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_ATTENTIONFRAME_H
