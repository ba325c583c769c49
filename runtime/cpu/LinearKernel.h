//===- LinearKernel.h - Rows times a weight matrix --------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
//   out[row][n] = sum over k of x[row][k] * w[n][k]
//
//   LLM_LAYOUT_TILES32, of bf16
//     panel   32 columns n: K / 32 steps of two tiles
//     tile    16 pairs of k, each of 16 columns: a line is one bf16 pair of
//             each column, 1 KB in all
//   LLM_LAYOUT_PANEL32, of f32, and of bf16 where 32 does not divide K
//     panel   32 columns n: one k after the other, which are lines of two tiles
//
// A tile is an operand of matrix instructions as it lies. Other levels read it
// line by line: both halves become f32 and meet a splat of x, or a pair of x
// meets them in a dot product of bf16. Lines of panels meet x as it is:
//
//   sums[12 rows][32 columns] += line of either tile * splat of each row
//
// With AVX-512 these are 24 accumulators, and 14 loads for 24 products. A dot
// product takes about six cycles and two start in each, so less than 16
// accumulators would wait; the same loop unrolled by the compiler would spill.
// Panels are the outer loop: all rows of a block meet a panel in the caches,
// and meanwhile the next one is asked for, line by line.
//
// Beside tiles, rows of x become factors first (prepareRows). `rounded`
// rounds them to bf16, as w is; then all of f32 that is left out is the
// rounding of sums. Without it they keep all of f32, as three digits where
// matrix instructions multiply them (MatrixTile.h).
//
// Rows have one order of additions where a call has few of them and another one
// where it has many; within each, a row's bits depend on nothing but the row.
//
// Floor of few rows: the bytes of w over the read bandwidth. Of many: 2 * K * N
// flops for each row over the peak of f32 fma, of bf16 dot products, or of AMX.
// On Zen 5, one thread, cold matrices of SmolLM2-135M (bench-linear): of 1 row
// 0.88-0.92 of it, of 4 and 8 0.96-1.0, of 16 0.85-0.93, of 37 0.92-0.95, of
// 128 0.94-0.96, of 512 0.91-0.95 but for 3072 x 576, not measured alone.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_LINEARKERNEL_H
#define LLM_RUNTIME_CPU_LINEARKERNEL_H

#include "MatrixTile.h"

namespace llm::cpu {
namespace {

constexpr int64_t kPairs = kWeightDepth / 2;

/// Vectors of a line.
constexpr int kLineVecs = kWeightTileColumns / kLanes;

inline float *outAt(const LinearTask &task, int64_t row, int64_t column) {
  return static_cast<float *>(task.out->data) + row * task.out->strides[0] +
         column;
}

//===----------------------------------------------------------------------===//
// Vectors
//===----------------------------------------------------------------------===//

/// How the lines of LLM_LAYOUT_TILES32 lie, in bytes: one has a pair of numbers
/// for each column of a tile.
struct TileLines {
  static constexpr int64_t kDepth = 2, kBytes = kLineBytes;
  static constexpr int64_t kLines = kPairs; ///< of a step
  static constexpr int64_t kToLine = kBytes, kToTile = kLines * kToLine;
  static constexpr int64_t kToStep = 2 * kToTile;
};

/// The same of LLM_LAYOUT_PANEL32, where lines of both tiles stand side by side
/// and have one number for each column.
template <llm_dtype T>
struct PanelLines {
  static constexpr int64_t kDepth = 1, kBytes = kWeightTileColumns * bytesOf(T);
  static constexpr int64_t kLines = 32; ///< or what is left
  static constexpr int64_t kToLine = 2 * kBytes, kToTile = kBytes;
  static constexpr int64_t kToStep = kLines * kToLine;
};

/// How a line meets a row: as kParts vectors, of which each meets a factor of
/// its own.
struct SplatProduct : TileLines {
  static constexpr int kParts = 2; ///< of pairs, the first numbers, the second
  static Vec part(int i, const char *line, int vec) {
    UInts pairs = bitsOf(load<LLM_F32>(line + vec * sizeof(Vec)));
    return ofBits(i == 0 ? pairs << 16 : pairs & 0xffff0000);
  }
  static Vec multiply(Vec weights, Vec factor, Vec sum) {
    return fma(factor, weights, sum);
  }
};

#if defined(LLM_CPU_X86_BF16)
struct PairProduct : TileLines {
  static constexpr int kParts = 1;
  static Vec part(int, const char *line, int vec) {
    return load<LLM_F32>(line + vec * sizeof(Vec));
  }
  static Vec multiply(Vec weights, Vec factor, Vec sum) {
    return dot(weights, factor, sum);
  }
};
#endif

template <llm_dtype T>
struct PanelProduct : PanelLines<T> {
  static constexpr int kParts = 1;
  static Vec part(int, const char *line, int vec) {
    return load<T>(line + vec * kLanes * bytesOf(T));
  }
  static Vec multiply(Vec weights, Vec factor, Vec sum) {
    return fma(factor, weights, sum);
  }
};

/// Panels lie one behind the other.
template <typename Product>
inline const char *panelOf(const LinearTask &task, int64_t panel) {
  int64_t lines = 2 * (task.k / Product::kDepth);
  return static_cast<const char *>(task.w) + panel * lines * Product::kBytes;
}

//===----------------------------------------------------------------------===//
// Lines
//===----------------------------------------------------------------------===//

/// Asks for memory, `step` bytes further with each line that is multiplied:
/// many lines at once would delay those that are needed now.
struct LineAhead {
  const char *at;
  int64_t step;

  void operator()() {
    __builtin_prefetch(at);
    at += step;
  }
};

/// So far ahead where a panel is multiplied as it comes from memory.
constexpr int64_t kAheadBytes = 8192;

/// So few rows wait for memory, which is fastest front to back: they take tile
/// by tile. More take lines of both in turn, for enough sums that do not wait
/// for each other.
constexpr int kRowsInOrder = 3;

/// The same factor of NumRows rows. An address of x86 reaches three of them, at
/// none, one and two strides.
template <int NumRows>
class Factors {
public:
  Factors(Rows<const float> x, int64_t row) : stride(x.stride) {
    LLM_UNROLL
    for (int i = 0; i < kBases; ++i)
      bases[i] = x[row + i * kReach];
  }
  const float *operator[](int row) const {
    return bases[row / kReach] + row % kReach * stride;
  }
  void operator+=(int64_t floats) {
    LLM_UNROLL
    for (int i = 0; i < kBases; ++i)
      bases[i] += floats;
  }

private:
  static constexpr int kReach = 3, kBases = (NumRows + kReach - 1) / kReach;
  const float *bases[kBases];
  int64_t stride;
};

/// Sums of NumRows rows and NumTiles tiles of a panel, in registers.
template <typename Product, int NumRows, int NumTiles>
class Sums {
public:
  /// Lines of rows of k numbers, in the tiles from `tile` of a panel on.
  LLM_INLINE void addPanel(int64_t k, Factors<NumRows> factors,
                           const char *tile, LineAhead &ask) {
    constexpr bool kTilesApart = Product::kToLine == Product::kBytes;
    for (int64_t left = k / Product::kDepth; left > 0;
         left -= Product::kLines, tile += Product::kToStep) {
      int64_t count = min(left, Product::kLines);
      if constexpr (kTilesApart && NumRows <= kRowsInOrder) {
        LLM_UNROLL
        for (int i = 0; i < NumTiles; ++i)
          addLines<1>(i, count, factors, tile + i * Product::kToTile, ask);
      } else {
        addLines<NumTiles>(0, count, factors, tile, ask);
      }
      factors += count * Product::kParts;
    }
  }

  Vec at(int row, int i) const {
    return sums[row][i / kLineVecs][i % kLineVecs];
  }

private:
  /// Lines of Count tiles, one of each in turn.
  template <int Count>
  LLM_INLINE void addLines(int first, int64_t lines, Factors<NumRows> factors,
                           const char *line, LineAhead &ask) {
    LLM_NO_UNROLL
    for (; lines > 0; --lines) {
      LLM_UNROLL
      for (int i = 0; i < Count; ++i)
        ask();
      LLM_UNROLL
      for (int part = 0; part < Product::kParts; ++part)
        addPart<Count>(first, factors, part, line);
      factors += Product::kParts;
      line += Product::kToLine;
    }
  }

  template <int Count>
  LLM_INLINE void addPart(int first, const Factors<NumRows> &factors, int part,
                          const char *line) {
    Vec weights[Count][kLineVecs];
    LLM_UNROLL
    for (int i = 0; i < Count; ++i)
      LLM_UNROLL
    for (int j = 0; j < kLineVecs; ++j)
      weights[i][j] = Product::part(part, line + i * Product::kToTile, j);
    LLM_UNROLL
    for (int r = 0; r < NumRows; ++r) {
      Vec factor = splatAt(factors[r] + part);
      LLM_UNROLL
      for (int i = 0; i < Count; ++i)
        LLM_UNROLL
      for (int j = 0; j < kLineVecs; ++j)
        sums[r][first + i][j] =
            Product::multiply(weights[i][j], factor, sums[r][first + i][j]);
    }
  }

  Vec sums[NumRows][NumTiles][kLineVecs] = {};
};

/// NumRows rows of factors and the NumTiles tiles from `tile` on, which are of
/// one panel.
template <typename Product, int NumRows, int NumTiles>
inline void multiplyTiles(const LinearTask &task, Rows<const float> x,
                          int64_t row, int64_t tile, LineAhead &ask) {
  LineAhead here = ask; // in registers
  constexpr int64_t kColumns = NumTiles * kWeightTileColumns;
  const int64_t column = tile * kWeightTileColumns;
  Sums<Product, NumRows, NumTiles> sums;
  sums.addPanel(task.k, {x, row},
                panelOf<Product>(task, tile / 2) + tile % 2 * Product::kToTile,
                here);
  ask = here;
  const int64_t columns = min(task.columns - column, kColumns);
  float narrow[NumRows * kColumns];
  Rows<float> to = {narrow, kColumns};
  if (columns == kColumns)
    to = {outAt(task, row, column), task.out->strides[0]};
  const bool streaming = task.streaming && columns == kColumns;
  LLM_UNROLL
  for (int r = 0; r < NumRows; ++r)
    LLM_UNROLL
  for (int i = 0; i < NumTiles * kLineVecs; ++i)
    streaming ? storeStreaming(to[r] + i * kLanes, sums.at(r, i))
              : store(to[r] + i * kLanes, sums.at(r, i));
  for (int r = 0; columns < kColumns && columns > 0 && r < NumRows; ++r)
    memcpy(outAt(task, row + r, column), to[r], columns * sizeof(float));
}

/// Sums that fill the registers, beside a line of each tile and a factor, and
/// the rows that have them together with all columns of a panel or, of small
/// registers, of a tile.
constexpr int kSums = kBlockRows * kBlockVecs;
constexpr int kLineRows = kSums / kLineVecs / (kLineVecs > 1 ? 1 : 2);

/// Some rows and all columns of a panel.
template <typename Product>
inline void multiplyPanel(const LinearTask &task, Rows<const float> x,
                          KeyRange rows, int64_t panel, LineAhead &ask) {
  withCount<kLineRows>(rows.end - rows.begin, [&](auto count) {
    constexpr int kTiles = 2 * count.value * kLineVecs <= kSums ? 2 : 1;
    for (int64_t tile = 2 * panel; tile < 2 * panel + 2; tile += kTiles)
      multiplyTiles<Product, count.value, kTiles>(task, x, rows.begin, tile,
                                                  ask);
  });
}

/// Rows in blocks, as even as can be, which meet at one panel after another, so
/// that it comes from memory once: asked for by the one block as it goes, or,
/// while several multiply the panel before, by all of them.
template <typename Product>
void multiplyLines(const LinearTask &task, Rows<const float> x, KeyRange rows,
                   KeyRange panels) {
  const int64_t count = rows.end - rows.begin;
  const int64_t blocks = (count + kLineRows - 1) / kLineRows;
  constexpr int64_t kLine = Product::kBytes;
  LineAhead ask = {panelOf<Product>(task, panels.begin) + kAheadBytes, kLine};
  for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
    const bool first = panel == panels.begin, last = panel + 1 == panels.end;
    for (int64_t block = 0; block < blocks; ++block) {
      if (blocks > 1 && block == first) // nobody asked for the first panel
        ask = {panelOf<Product>(task, panel + 1),
               last ? 0 : (kLine - 1) / (blocks - first) + 1};
      multiplyPanel<Product>(task, x,
                             {rows.begin + count * block / blocks,
                              rows.begin + count * (block + 1) / blocks},
                             panel, ask);
    }
  }
  if (task.streaming)
    fenceStreaming();
}

//===----------------------------------------------------------------------===//
// Factors
//===----------------------------------------------------------------------===//

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

constexpr int64_t kWeightTile = kPairs * kWeightTileColumns; ///< in floats

/// Tile `tile` of the first step; those of the next one are two tiles behind.
inline const float *tileOf(const LinearTask &task, int64_t tile) {
  int64_t panel = task.k / kWeightDepth * 2 * kWeightTile;
  return static_cast<const float *>(task.w) + tile / 2 * panel +
         tile % 2 * kWeightTile;
}

/// Few rows leave tiles empty, and wait for memory anyway.
inline bool usesMatrices(const LinearTask &task) {
  return task.tiled && task.x->sizes[0] > kFewLinearRows;
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
  if (!task.tiled) // x as it is
    return 0;
#if defined(LLM_CPU_X86_AMX)
  if (usesMatrices(task)) // a tile may have rows behind the last
    return roundUp(rows, kTileRows) * digitsOf(task) * task.k / 2;
#endif
  return rows * task.k;
}

void prepareRows(const LinearTask &task, float *factors, KeyRange rows) {
  if (!task.tiled)
    return;
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
  if (!task.tiled) {
    Rows<const float> x = {rowOfX(task, 0), task.x->strides[0]};
    return task.type == LLM_F32
               ? multiplyLines<PanelProduct<LLM_F32>>(task, x, rows, panels)
               : multiplyLines<PanelProduct<LLM_BF16>>(task, x, rows, panels);
  }
#if defined(LLM_CPU_X86_AMX)
  if (usesMatrices(task))
    return multiplyMatrices(task, factors, rows, panels);
#endif
#if defined(LLM_CPU_X86_BF16)
  if (task.rounded)
    return multiplyLines<PairProduct>(task, {factors, task.k / 2}, rows,
                                      panels);
#endif
  multiplyLines<SplatProduct>(task, {factors, task.k}, rows, panels);
}

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_LINEARKERNEL_H
