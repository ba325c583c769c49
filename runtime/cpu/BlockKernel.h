//===- BlockKernel.h - Rows times quantized weights -------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
//   out[row][n] = sum over k of x[row][k] * w[n][k],  w in LLM_LAYOUT_BLOCKS32
//
// Rows of integers meet the weights as they are, drawn in Blocks.h, or, many of
// them, as bytes (IntegerPanels.h). Each 32 numbers of x become integers first,
// once for all panels:
//
//   x[k] ~ scale * q[k],  q in [-127, 127],  scale = the largest |x[k]| / 127
//
//   sum over 32 k of x * w  ~  (scale of w) * scale * (sum of q * weights)
//                              + minimum of w * (scale * sum of q)
//
// Sums of integers are exact and have no order; a block adds one rounding, or
// two with minimums. High nibbles are multiplied in place, as 16 times what
// they are, and shifted once. A row's bits depend on nothing but the row.
//
// Rows of f32 and bf16 meet the weights as LLM_LAYOUT_TILES32, which a thread
// makes of a few panels at a time, in its cache (unpackPanels).
//
// Floor of one row: the bytes of w over the read bandwidth; hot in L2 one core
// of Zen 5 multiplies 120 GB/s of q4_1, three times what memory gives it. Of
// eight: for 16 columns and 32 k of a row 8 dot products of bytes and 3 or 4
// roundings, of which that core starts two a cycle: 700 G operations a second
// at 4 GHz, of which there are 550.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_BLOCKKERNEL_H
#define LLM_RUNTIME_CPU_BLOCKKERNEL_H

#include "AttentionTile.h"
#include "Blocks.h"

namespace llm::cpu {
namespace {

//===----------------------------------------------------------------------===//
// Rows of integers
//===----------------------------------------------------------------------===//

/// 32 numbers of a row of x, times `scale`.
struct IntegerBlock {
  char integers[kWeightDepth];
  float scale;
  float scaledSum; ///< scale * the integers' sum: the factor of minimums
  int32_t start;   ///< what a sum with weights begins with that have no sign
};
static_assert(sizeof(IntegerBlock) == kIntegerBlockFloats * sizeof(float),
              "rows of integers have room for their blocks");

/// kLanes blocks, one after the other and from row to row. Behind the last one
/// of all that one is read again and `spare` is written.
struct LanesOfBlocks {
  const float *from[kLanes];
  IntegerBlock *to[kLanes], spare;

  LanesOfBlocks(const BlockTask &task, float *factors, KeyRange blocks) {
    const int64_t steps = task.k / kWeightDepth;
    int64_t row = blocks.begin / steps, step = blocks.begin % steps;
    auto *first = reinterpret_cast<IntegerBlock *>(factors) + blocks.begin;
    const int64_t count = blocks.end - blocks.begin;
    for (int64_t i = 0; i < kLanes; ++i) {
      from[i] = static_cast<const float *>(task.x->data) +
                row * task.x->strides[0] + step * kWeightDepth;
      to[i] = i < count ? first + i : &spare;
      if (i + 1 < count && ++step == steps)
        ++row, step = 0;
    }
  }
};

/// The largest magnitude of each block; infinity where one is not finite.
inline Vec largestOf(const LanesOfBlocks &blocks) {
  Vec largest[kLanes];
  LLM_UNROLL
  for (int i = 0; i < kLanes; ++i) {
    UInts most = {};
    for (int64_t d = 0; d < kWeightDepth; d += kLanes) {
      UInts magnitude = bitsOf(load(blocks.from[i] + d)) & 0x7fffffff;
      most = magnitude > most ? magnitude : most;
    }
    largest[slotOf(i)] = magnitudesOf(most);
  }
  return mergedLanes<Maximum>(largest);
}

/// Writes each block's numbers times its factor as integers, and returns the
/// sums of these.
inline Vec roundBlocks(const LanesOfBlocks &blocks, const float *factors) {
  constexpr float kRound = 12582912; // 1.5 * 2^23, whose last bit is 1
  Vec sums[kLanes];
  LLM_UNROLL
  for (int i = 0; i < kLanes; ++i) {
    Vec sum = {}, factor = splat(factors[i]);
    for (int64_t d = 0; d < kWeightDepth; d += kLanes) {
      Vec rounded = load(blocks.from[i] + d) * factor + kRound;
      Bytes bytes = __builtin_convertvector(bitsOf(rounded), Bytes);
      memcpy(blocks.to[i]->integers + d, &bytes, sizeof(bytes));
      sum += rounded - kRound;
    }
    sums[slotOf(i)] = sum;
  }
  return mergedLanes<Sum>(sums);
}

/// Where the largest number is below 2^-100 all are zeros; where one is not
/// finite the scale is NaN.
inline void quantizeBlocks(const LanesOfBlocks &blocks,
                           llm_file_format format) {
  constexpr float kMost = kLargest<LLM_I8>;
  const Vec largest = largestOf(blocks);
  float factors[kLanes], scales[kLanes], scaledSums[kLanes];
  int32_t starts[kLanes];
  store(factors, largest > 0x1p-100f ? kMost / largest : Vec{});
  const Vec sums = roundBlocks(blocks, factors);
  Vec scale = largest > 0x1p-100f ? largest / kMost : Vec{};
  scale = largest < kInfinity ? scale : splat(__builtin_nanf(""));
  store(scales, scale);
  store(scaledSums, scale * sums);
  const Ints start = __builtin_convertvector(sums, Ints) * -zeroOf(format);
  memcpy(starts, &start, sizeof(start));
  LLM_UNROLL
  for (int i = 0; i < kLanes; ++i) {
    blocks.to[i]->scale = scales[i];
    blocks.to[i]->scaledSum = scaledSums[i];
    blocks.to[i]->start = starts[i];
  }
}

void prepareIntegers(const BlockTask &task, float *factors, KeyRange rows) {
  const int64_t steps = task.k / kWeightDepth, end = rows.end * steps;
  for (int64_t block = rows.begin * steps; block < end; block += kLanes)
    quantizeBlocks({task, factors, {block, min(block + kLanes, end)}},
                   task.format);
}

//===----------------------------------------------------------------------===//
// Products of integers
//===----------------------------------------------------------------------===//

/// Vectors of columns whose sums are in registers beside those of so many rows.
/// With more than one, compilers keep the splats of all rows for the next.
constexpr int blockVecsBeside(int rows) {
  return kLanes == 16 && rows <= 2 ? 2 : 1;
}
/// The most rows.
constexpr int kRowsOfIntegers = kLanes == 4 ? 4 : 8;
/// Four numbers each, of a block of a row.
constexpr int kQuadsOfBlock = kWeightDepth / 4;

/// So far ahead of its use a line is asked for.
constexpr int64_t kBlocksAheadBytes = 8192;

/// sum + a block's products with numbers of a row.
template <llm_file_format Format>
inline Vec addScaled(Ints products, const IntegerBlock &x, Vec scale,
                     Vec minimum, Vec sum) {
  sum =
      fma(__builtin_convertvector(products, Vec), scale * splat(x.scale), sum);
  if constexpr (hasMinimums(Format))
    sum = fma(minimum, splat(x.scaledSum), sum);
  return sum;
}

/// kLanes columns of a block, from `column` on.
template <llm_file_format Format>
struct BlockColumns {
  Vec scale, minimum;
  UInts weights[kQuadsOfBlock]; ///< high nibbles stay where they are

  BlockColumns(const char *block, int64_t column)
      : scale(load<LLM_F16>(block + 2 * column)), minimum() {
    if constexpr (hasMinimums(Format))
      minimum = load<LLM_F16>(block + kBlockScaleBytes + 2 * column);
    const char *lines = linesOfColumn(block, column);
    constexpr int64_t kLines = linesOf(Format);
    LLM_UNROLL
    for (int i = 0; i < kLines; ++i) {
      UInts line = bitsOf(
          load(reinterpret_cast<const float *>(lines + i * kBlockLineBytes)));
      if constexpr (hasNibbles(Format)) {
        weights[i] = line & 0x0f0f0f0f;
        weights[kQuadsOfBlock / 2 + i] = line & 0xf0f0f0f0;
      } else {
        weights[i] = line;
      }
    }
  }

  static const char *linesOfColumn(const char *block, int64_t column) {
    return block + linesAt(Format) +
           column / kWeightTileColumns * linesOf(Format) * kBlockLineBytes +
           column % kWeightTileColumns * 4;
  }

  /// sum + the products with numbers of a row.
  Vec multiply(const IntegerBlock &x, Vec sum) const {
    auto four = [&](int i) { return splatBytes(x.integers + 4 * i); };
    Ints low = {}, high = {};
    if constexpr (zeroOf(Format) != 0)
      low += x.start;
    LLM_UNROLL
    for (int i = 0; i < kQuadsOfBlock / 2; ++i) {
      low = dotBytes(weights[i], four(i), low);
      high = dotBytes(weights[kQuadsOfBlock / 2 + i],
                      four(kQuadsOfBlock / 2 + i), high);
    }
    Ints products = low + (hasNibbles(Format) ? high >> 4 : high);
    return addScaled<Format>(products, x, scale, minimum, sum);
  }
};

/// Blocks of a panel, one below the other.
template <llm_file_format Format>
inline const char *panelOf(const BlockTask &task, int64_t panel) {
  return static_cast<const char *>(task.w) +
         panel * (task.k / kWeightDepth) * bytesOfBlock(Format);
}

/// NumRows rows and the columns of a panel from `first` on that sums are for.
/// Asks for the blocks to come.
template <llm_file_format Format, int NumRows>
inline void multiplyColumns(const BlockTask &task, const float *factors,
                            int64_t row, int64_t panel, int64_t first,
                            bool ask) {
  constexpr int kVecs = blockVecsBeside(NumRows);
  Vec acc[kVecs][NumRows] = {};
  const int64_t steps = task.k / kWeightDepth;
  const IntegerBlock *x =
      reinterpret_cast<const IntegerBlock *>(factors) + row * steps;
  const char *block = panelOf<Format>(task, panel);
  LLM_NO_UNROLL
  for (int64_t step = 0; step < steps; ++step, ++x) {
    if (ask) {
      constexpr int64_t kBytes = bytesOfBlock(Format);
      LLM_UNROLL
      for (int64_t i = 0; i < kBytes; i += kBlockLineBytes)
        __builtin_prefetch(block + kBlocksAheadBytes + i);
    }
    LLM_UNROLL
    for (int v = 0; v < kVecs; ++v) {
      BlockColumns<Format> columns(block, first + v * kLanes);
      LLM_UNROLL
      for (int r = 0; r < NumRows; ++r)
        acc[v][r] = columns.multiply(x[r * steps], acc[v][r]);
    }
    block += bytesOfBlock(Format);
  }
  for (int v = 0; v < kVecs; ++v)
    for (int r = 0; r < NumRows; ++r) {
      int64_t column = panel * kWeightPanelColumns + first + v * kLanes;
      if (column < task.columns)
        store<LLM_F32>(static_cast<float *>(task.out->data) +
                           (row + r) * task.out->strides[0] + column,
                       acc[v][r], min(task.columns - column, kLanes));
    }
}

template <llm_file_format Format>
void multiplyPanels(const BlockTask &task, const float *factors, KeyRange rows,
                    KeyRange panels) {
  for (int64_t panel = panels.begin; panel < panels.end; ++panel)
    forRowBlocks<kRowsOfIntegers>(
        rows.end,
        [&](auto count, int64_t row) {
          for (int64_t first = 0; first < kWeightPanelColumns;
               first += blockVecsBeside(count.value) * kLanes)
            multiplyColumns<Format, count.value>(
                task, factors, row, panel, first,
                row == rows.begin && first == 0);
        },
        rows.begin);
}

//===----------------------------------------------------------------------===//
// Panels as tiles of bf16
//===----------------------------------------------------------------------===//

/// Columns of a block as f32, one after the other.
template <llm_file_format Format>
struct BlockNumbers {
  Vec scale, minimum;

  BlockNumbers(const char *block, int64_t column)
      : scale(load<LLM_F16>(block + 2 * column)), minimum() {
    if constexpr (hasMinimums(Format))
      minimum = load<LLM_F16>(block + kBlockScaleBytes + 2 * column);
  }

  /// The weight whose bits start at bit `shift` of each lane of a line. The
  /// product is exact.
  Vec at(UInts line, int shift) const {
    constexpr uint32_t kMask = hasNibbles(Format) ? 15 : 255;
    Ints weight = (Ints)(line >> shift & kMask) - zeroOf(Format);
    Vec number = __builtin_convertvector(weight, Vec);
    return hasMinimums(Format) ? fma(scale, number, minimum) : scale * number;
  }
  /// That one and the one behind it, as a pair of bf16.
  UInts pairAt(UInts line, int shift) const {
    return pairBF16(at(line, shift), at(line, shift + 8));
  }
};

/// kLanes columns of a block, into the tile of 16 pairs that they are in.
template <llm_file_format Format>
inline void unpackColumns(const char *block, int64_t column, float *tile) {
  BlockNumbers<Format> numbers(block, column);
  const char *lines = BlockColumns<Format>::linesOfColumn(block, column);
  float *to = tile + column % kWeightTileColumns;
  auto write = [&](int64_t pair, UInts both) {
    store(to + pair * kWeightTileColumns, ofBits(both));
  };
  constexpr int64_t kLines = linesOf(Format);
  LLM_UNROLL
  for (int i = 0; i < kLines; ++i) {
    const char *from = lines + i * kBlockLineBytes;
    __builtin_prefetch(from + kBlocksAheadBytes);
    UInts line = bitsOf(load(reinterpret_cast<const float *>(from)));
    write(2 * i, numbers.pairAt(line, 0));
    write(2 * i + 1, numbers.pairAt(line, 16));
    if constexpr (hasNibbles(Format)) {
      write(kQuadsOfBlock + 2 * i, numbers.pairAt(line, 4));
      write(kQuadsOfBlock + 2 * i + 1, numbers.pairAt(line, 20));
    }
  }
}

template <llm_file_format Format>
void unpackAs(const BlockTask &task, float *tiles, KeyRange panels) {
  constexpr int64_t kTile = kWeightDepth / 2 * kWeightTileColumns;
  for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
    const char *block = panelOf<Format>(task, panel);
    for (int64_t step = 0; step < task.k / kWeightDepth; ++step) {
      for (int64_t column = 0; column < kWeightPanelColumns; column += kLanes)
        unpackColumns<Format>(block, column,
                              tiles + column / kWeightTileColumns * kTile);
      block += bytesOfBlock(Format);
      tiles += 2 * kTile;
    }
  }
}

void unpackPanels(const BlockTask &task, float *tiles, KeyRange panels) {
  if (task.format == LLM_FILE_Q8_0)
    return unpackAs<LLM_FILE_Q8_0>(task, tiles, panels);
  if (task.format == LLM_FILE_Q4_0)
    return unpackAs<LLM_FILE_Q4_0>(task, tiles, panels);
  unpackAs<LLM_FILE_Q4_1>(task, tiles, panels);
}

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_BLOCKKERNEL_H
