//===- LinearKernel.h - Rows times a weight matrix --------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
//   out[row][n] = sum over k of x[row][k] * w[n][k],  w in LLM_LAYOUT_TILES32
//
//   panel     32 columns n: K / 32 steps of two tiles
//   tile      16 pairs of k, each of 16 columns: a line is one bf16 pair of
//             each column, 1 KB in all
//
// A tile is an operand of matrix instructions as it lies. Other levels read it
// line by line: both halves become f32 and meet a splat of x, or a pair of x
// meets them in a dot product of bf16.
//
// Rows of x become factors first, once for all panels (prepareRows). `rounded`
// rounds them to bf16, as w is; then all of f32 that is left out is the
// rounding of sums. Without it they keep all of f32, as three digits where
// matrix instructions multiply them (MatrixTile.h).
//
// Rows have one order of additions where a call has few of them and another one
// where it has many; within each, a row's bits depend on nothing but the row.
//
// Floor of few rows: the bytes of w over the read bandwidth. Of many: 2 * K * N
// flops for each row over the peak of f32 fma, of bf16 dot products, or of AMX.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_LINEARKERNEL_H
#define LLM_RUNTIME_CPU_LINEARKERNEL_H

#include "MatrixTile.h"

namespace llm::cpu {
namespace {

constexpr int64_t kPairs = kWeightDepth / 2;
constexpr int64_t kWeightTile = kPairs * kWeightTileColumns; ///< in floats

/// Vectors of a line.
constexpr int kLineVecs = kWeightTileColumns / kLanes;

/// Tile `tile` of the first step; those of the next one are two tiles behind.
inline const float *tileOf(const LinearTask &task, int64_t tile) {
  int64_t panel = task.k / kWeightDepth * 2 * kWeightTile;
  return static_cast<const float *>(task.w) + tile / 2 * panel +
         tile % 2 * kWeightTile;
}

inline float *outAt(const LinearTask &task, int64_t row, int64_t column) {
  return static_cast<float *>(task.out->data) + row * task.out->strides[0] +
         column;
}

//===----------------------------------------------------------------------===//
// Vectors
//===----------------------------------------------------------------------===//

/// How a line meets a row.
struct SplatProduct {
  static constexpr int64_t kRowFloats = 2; ///< of a pair
  static Vec multiply(UInts line, const float *x, Vec sum) {
    sum = fma(splatAt(x), ofBits(line << 16), sum);
    return fma(splatAt(x + 1), ofBits(line & 0xffff0000), sum);
  }
};

#if defined(LLM_CPU_X86_BF16)
struct PairProduct {
  static constexpr int64_t kRowFloats = 1;
  static Vec multiply(UInts line, const float *x, Vec sum) {
    return dot(ofBits(line), splatAt(x), sum);
  }
};
#endif

/// So far ahead memory is asked for, in each tile.
constexpr int64_t kAheadFloats = 1024 / sizeof(float);

/// NumRows rows of factors and the NumTiles tiles from `tile` on.
template <typename Product, int NumRows, int NumTiles>
inline void multiplyLines(const LinearTask &task, Rows<const float> x,
                          int64_t row, int64_t tile) {
  Vec acc[NumRows][NumTiles][kLineVecs] = {};
  const float *tiles[NumTiles];
  LLM_UNROLL
  for (int i = 0; i < NumTiles; ++i)
    tiles[i] = tileOf(task, tile + i);
  for (int64_t step = 0; step < task.k / kWeightDepth; ++step) {
    const float *factors = x[row] + step * kPairs * Product::kRowFloats;
    LLM_NO_UNROLL
    for (int64_t line = 0; line < kWeightTile; line += kWeightTileColumns) {
      LLM_UNROLL
      for (int i = 0; i < NumTiles; ++i) {
        __builtin_prefetch(tiles[i] + line + kAheadFloats);
        LLM_UNROLL
        for (int j = 0; j < kLineVecs; ++j) {
          UInts weights = bitsOf(load(tiles[i] + line + j * kLanes));
          LLM_UNROLL
          for (int r = 0; r < NumRows; ++r)
            acc[r][i][j] = Product::multiply(weights, factors + r * x.stride,
                                             acc[r][i][j]);
        }
      }
      factors += Product::kRowFloats;
    }
    LLM_UNROLL
    for (int i = 0; i < NumTiles; ++i)
      tiles[i] += 2 * kWeightTile;
  }
  LLM_UNROLL
  for (int r = 0; r < NumRows; ++r)
    LLM_UNROLL
  for (int i = 0; i < NumTiles * kLineVecs; ++i) {
    int64_t column = tile * kWeightTileColumns + i * kLanes;
    if (column < task.columns)
      store<LLM_F32>(outAt(task, row + r, column),
                     acc[r][i / kLineVecs][i % kLineVecs],
                     min(task.columns - column, kLanes));
  }
}

/// Accumulators that fit the registers beside factors.
constexpr int kSums = kLanes == 16 ? 16 : 8;
constexpr int kLineRows = kSums / 2 / kLineVecs > 1 ? kSums / 2 / kLineVecs : 1;

template <int NumRows>
constexpr int tilesBeside() {
  int tiles = kSums / (NumRows * kLineVecs);
  return tiles >= 4 ? 4 : tiles >= 2 ? 2 : 1;
}

template <typename Product>
void multiplyLines(const LinearTask &task, const float *factors, KeyRange rows,
                   KeyRange panels) {
  Rows<const float> x = {factors, task.k / 2 * Product::kRowFloats};
  forRowBlocks<kLineRows>(
      rows.end,
      [&](auto count, int64_t row) {
        constexpr int kTiles = tilesBeside<count.value>();
        int64_t tile = 2 * panels.begin, end = 2 * panels.end;
        for (; tile + kTiles <= end; tile += kTiles)
          multiplyLines<Product, count.value, kTiles>(task, x, row, tile);
        for (; tile < end; ++tile)
          multiplyLines<Product, count.value, 1>(task, x, row, tile);
      },
      rows.begin);
}

inline const float *rowOfX(const LinearTask &task, int64_t row) {
  return static_cast<const float *>(task.x->data) + row * task.x->strides[0];
}

/// Factors of SplatProduct.
inline void widenRows(const LinearTask &task, float *factors, KeyRange rows) {
  for (int64_t row = rows.begin; row < rows.end; ++row)
    for (int64_t d = 0; d < task.k; d += kLanes) {
      Vec x = load(rowOfX(task, row) + d);
      store(factors + row * task.k + d, task.rounded ? fromBF16(toBF16(x)) : x);
    }
}

#if defined(LLM_CPU_X86_BF16)
/// Factors of PairProduct.
inline void roundRows(const LinearTask &task, float *factors, KeyRange rows) {
  for (int64_t row = rows.begin; row < rows.end; ++row)
    for (int64_t d = 0; d < task.k; d += kLanes)
      store<LLM_BF16>(reinterpret_cast<char *>(factors + row * task.k / 2) +
                          2 * d,
                      load(rowOfX(task, row) + d));
}
#endif

//===----------------------------------------------------------------------===//
// Matrix instructions
//===----------------------------------------------------------------------===//

#if defined(LLM_CPU_X86_AMX)

/// Few rows leave tiles empty, and wait for memory anyway.
inline bool usesMatrices(const LinearTask &task) {
  return task.x->sizes[0] > kFewLinearRows;
}

inline int digitsOf(const LinearTask &task) { return task.rounded ? 1 : 3; }

inline RowDigits digitsAt(const LinearTask &task, const float *factors,
                          int64_t row) {
  int64_t digit = 2 * task.k, count = digitsOf(task);
  return {reinterpret_cast<const char *>(factors) + row * count * digit,
          count * digit, digit, int(count)};
}

template <int Count>
inline void splitRows(const LinearTask &task, float *factors, KeyRange rows) {
  for (int64_t row = rows.begin; row < rows.end; ++row)
    for (int64_t d = 0; d < task.k; d += kMatrixDepth) {
      Vec first = load(rowOfX(task, row) + d);
      Vec second = load(rowOfX(task, row) + d + kLanes);
      storeRow<Count>(factors + row * Count * task.k / 2 + d / 2, task.k / 2,
                      first, second);
    }
}

/// Asks for a panel in `calls` calls.
class PanelAhead {
public:
  PanelAhead(const float *begin, const float *end, int64_t calls)
      : at(begin), end(end), step(roundUp(end - begin, 16 * calls) / calls) {}
  void operator()() {
    const float *stop = at + step < end ? at + step : end;
    for (; at < stop; at += kLineBytes / sizeof(float))
      __builtin_prefetch(at, 0, 2);
  }

private:
  const float *at, *end;
  int64_t step;
};

/// Up to kBlockOfRows rows and a panel.
template <typename Ask>
inline void multiplyBlock(const LinearTask &task, const float *factors,
                          int64_t row, int64_t rows, int64_t panel, Ask &ask) {
  constexpr int64_t kColumns = kWeightPanelColumns;
  alignas(64) float sums[kBlockOfRows * kColumns];
  Panel w = {tileOf(task, 2 * panel), task.k / kMatrixDepth, 2, 1};
  int64_t column = panel * kColumns;
  int64_t columns = min(task.columns - column, kColumns);
  bool inPlace = rows % kTileRows == 0 && columns == kColumns;
  Rows<float> to = {sums, kColumns};
  if (inPlace)
    to = {outAt(task, row, column), task.out->strides[0]};
  multiplyTiles(rows, digitsAt(task, factors, row), w, {0, 2}, {0, w.steps}, to,
                false, ask);
  if (!inPlace)
    for (int64_t r = 0; r < rows; ++r)
      memcpy(outAt(task, row + r, column), to[r], columns * sizeof(float));
}

inline void multiplyMatrices(const LinearTask &task, const float *factors,
                             KeyRange rows, KeyRange panels) {
  MatrixRegisters registers(true);
  const int64_t panelFloats = task.k / kWeightDepth * 2 * kWeightTile;
  const int64_t blocks =
      (rows.end - rows.begin + kBlockOfRows - 1) / kBlockOfRows;
  for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
    const float *next = tileOf(task, 2 * panel + 2);
    bool last = (panel + 1) * kWeightPanelColumns >= task.columns;
    PanelAhead ahead(next, last ? next : next + panelFloats,
                     max(blocks * (task.k / kMatrixDepth), 1));
    for (int64_t row = rows.begin; row < rows.end; row += kBlockOfRows)
      multiplyBlock(task, factors, row, min(rows.end - row, kBlockOfRows),
                    panel, ahead);
  }
}

#endif // LLM_CPU_X86_AMX

//===----------------------------------------------------------------------===//
// The kernels
//===----------------------------------------------------------------------===//

int64_t floatsOfFactors(const LinearTask &task) {
  int64_t rows = task.x->sizes[0];
#if defined(LLM_CPU_X86_AMX)
  if (usesMatrices(task)) // a tile may have rows behind the last
    return roundUp(rows, kTileRows) * digitsOf(task) * task.k / 2;
#endif
  return rows * task.k;
}

void prepareRows(const LinearTask &task, float *factors, KeyRange rows) {
#if defined(LLM_CPU_X86_AMX)
  if (usesMatrices(task))
    return task.rounded ? splitRows<1>(task, factors, rows)
                        : splitRows<3>(task, factors, rows);
#endif
#if defined(LLM_CPU_X86_BF16)
  if (task.rounded)
    return roundRows(task, factors, rows);
#endif
  widenRows(task, factors, rows);
}

void multiplyRows(const LinearTask &task, const float *factors, KeyRange rows,
                  KeyRange panels) {
#if defined(LLM_CPU_X86_AMX)
  if (usesMatrices(task))
    return multiplyMatrices(task, factors, rows, panels);
#endif
#if defined(LLM_CPU_X86_BF16)
  if (task.rounded)
    return multiplyLines<PairProduct>(task, factors, rows, panels);
#endif
  multiplyLines<SplatProduct>(task, factors, rows, panels);
}

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_LINEARKERNEL_H
