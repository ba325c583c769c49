//===- IntegerPanels.h - Many rows times quantized weights ------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What BlockKernel.h computes, bit for bit, for rows enough that a weight is
// worth a byte: some blocks of a panel become lines of bytes and scales of f32
// in the first-level cache, once for all rows,
//
//   32 scales | 32 minimums | 8 lines of columns 0-15 | 8 lines of 16-31
//
// and rows meet them five at a time, a line and four bytes of each row:
//
//   products[5 rows][32 columns] += dot(line, splat of four bytes)
//   sums[5 rows][32 columns] += scale * scale of the row * products
//
// With AVX-512 these are 20 accumulators, and 7 loads for 10 dot products; six
// rows would be slower. Where K is longer than the blocks that are bytes at a
// time, sums wait in out. While rows meet some blocks, the next ones are asked
// for a few lines at a time: what is unpacked at once would wait for memory.
//
// Floor: for 16 columns and 32 k of a row 8 dot products of bytes, one product
// of scales and one fma, or two with minimums. All of them take the same two
// ports of Zen 5, so that of its peak of dot products, 1,000 G operations a
// second, 0.80 can be had, or 0.73 with minimums. Measured with 512 rows of
// 576 and hot weights: q4_0 0.76, q8_0 0.75, q4_1 0.69; to make the rows
// integers takes 4.7 ns for 32 numbers more. Without dot products of bytes
// integers are as fast as bf16 (AVX2) or up to 1.4 times as fast.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_INTEGERPANELS_H
#define LLM_RUNTIME_CPU_INTEGERPANELS_H

#include "BlockKernel.h"
#include "LinearKernel.h"

namespace llm::cpu {
namespace {

/// Vectors of columns of a panel, and of those that have sums at a time.
constexpr int kPanelVecs = kWeightPanelColumns / kLanes;
constexpr int kByteVecs = kLanes == 16 ? 2 : 1;
/// Rows that have: their sums and what they need fill the registers.
constexpr int kByteRows = kLanes == 4 ? 4 : 5;

/// Blocks of a panel that become bytes together: beside the integers of some
/// rows they fit into 48 KB.
constexpr int64_t kByteBlocks = 24;

/// The least rows that are worth it where weights come from memory.
constexpr int64_t kRowsOfBytes = 12;

/// 32 weights of each column of a panel.
struct ByteBlock {
  Vec scales[kPanelVecs], minimums[kPanelVecs];
  UInts weights[kPanelVecs][kQuadsOfBlock];
};

template <llm_file_format Format>
inline void unpackBytes(const char *block, ByteBlock &to) {
  LLM_UNROLL
  for (int v = 0; v < kPanelVecs; ++v) {
    const BlockColumns<Format> columns(block, v * kLanes);
    to.scales[v] = columns.scale;
    if constexpr (hasMinimums(Format))
      to.minimums[v] = columns.minimum;
    LLM_UNROLL
    for (int i = 0; i < kQuadsOfBlock; ++i)
      to.weights[v][i] = hasNibbles(Format) && i >= kQuadsOfBlock / 2
                             ? columns.weights[i] >> 4
                             : columns.weights[i];
  }
}

/// Sums of NumRows rows and kByteVecs vectors of columns, in registers.
template <llm_file_format Format, int NumRows>
class ByteSums {
public:
  LLM_INLINE void read(Rows<const float> out) {
    forEach([&](int r, int v) { sums[r][v] = load(out[r] + v * kLanes); });
  }

  LLM_INLINE void write(Rows<float> out) const {
    forEach([&](int r, int v) { store(out[r] + v * kLanes, sums[r][v]); });
  }

  /// Of the first row x is a block; those of the others are `stride` apart.
  LLM_INLINE void add(const IntegerBlock *x, int64_t stride,
                      const ByteBlock &block, int firstVec) {
    Ints products[NumRows][kByteVecs];
    forEach(
        [&](int r, int v) { products[r][v] = Ints{} + x[r * stride].start; });
    LLM_UNROLL
    for (int i = 0; i < kQuadsOfBlock; ++i)
      forEach([&](int r, int v) {
        products[r][v] = dotBytes(block.weights[firstVec + v][i],
                                  splatBytes(x[r * stride].integers + 4 * i),
                                  products[r][v]);
      });
    forEach([&](int r, int v) {
      sums[r][v] = addScaled<Format>(products[r][v], x[r * stride],
                                     block.scales[firstVec + v],
                                     block.minimums[firstVec + v], sums[r][v]);
    });
  }

private:
  template <typename Fn>
  LLM_INLINE static void forEach(Fn fn) {
    LLM_UNROLL
    for (int r = 0; r < NumRows; ++r)
      LLM_UNROLL
    for (int v = 0; v < kByteVecs; ++v)
      fn(r, v);
  }

  Vec sums[NumRows][kByteVecs] = {};
};

/// Lines of the blocks to come that some rows ask for beside a block: the least
/// rows that there may be ask for a whole one.
template <llm_file_format Format>
constexpr int64_t kLinesAsked =
    1 +
    (bytesOfBlock(Format) / kBlockLineBytes - 1) / (kRowsOfBytes / kByteRows);

/// Some blocks of a panel as bytes: those of x from `begin` on.
struct BytesOfPanel {
  const ByteBlock *blocks;
  int64_t panel, begin, end;
};

/// NumRows rows and the columns of a panel from vector `vec` on, of which out
/// has all.
template <llm_file_format Format, int NumRows>
LLM_INLINE void multiplyBytes(const BlockTask &task, const IntegerBlock *x,
                              const BytesOfPanel &bytes, int vec,
                              Rows<float> out, LineAhead &ask) {
  constexpr int64_t kLines = kLinesAsked<Format>;
  LineAhead here = ask; // in registers
  ByteSums<Format, NumRows> sums;
  if (bytes.begin > 0)
    sums.read({out.data, out.stride});
  const ByteBlock *block = bytes.blocks;
  const int64_t steps = task.k / kWeightDepth;
  LLM_NO_UNROLL
  for (int64_t step = bytes.begin; step < bytes.end; ++step) {
    LLM_UNROLL
    for (int64_t i = 0; i < kLines; ++i)
      here();
    sums.add(x + step, steps, *block++, vec);
  }
  ask = here;
  sums.write(out);
}

/// The same where out may end within those columns.
template <llm_file_format Format, int NumRows>
inline void multiplyColumns(const BlockTask &task, const float *factors,
                            int64_t row, const BytesOfPanel &bytes, int vec,
                            LineAhead &ask) {
  constexpr int64_t kColumns = kByteVecs * kLanes;
  const int64_t first = bytes.panel * kWeightPanelColumns + vec * kLanes;
  const int64_t columns = min(task.columns - first, kColumns);
  const Rows<float> out = {static_cast<float *>(task.out->data) +
                               row * task.out->strides[0] + first,
                           task.out->strides[0]};
  const IntegerBlock *x = reinterpret_cast<const IntegerBlock *>(factors) +
                          row * (task.k / kWeightDepth);
  float narrow[NumRows * kColumns];
  Rows<float> to = columns == kColumns ? out : Rows<float>{narrow, kColumns};
  auto copy = [&](Rows<float> from, Rows<float> into) {
    for (int r = 0; columns < kColumns && columns > 0 && r < NumRows; ++r)
      memcpy(into[r], from[r], columns * sizeof(float));
  };
  if (columns < kColumns)
    memset(narrow, 0, sizeof(narrow));
  copy(out, to);
  multiplyBytes<Format, NumRows>(task, x, bytes, vec, to, ask);
  copy(to, out);
}

template <llm_file_format Format>
void multiplyByBytes(const BlockTask &task, const float *factors, KeyRange rows,
                     KeyRange panels) {
  ByteBlock blocks[kByteBlocks];
  constexpr int64_t kBytes = bytesOfBlock(Format);
  const int64_t steps = task.k / kWeightDepth;
  const int64_t parts = (steps + kByteBlocks - 1) / kByteBlocks;
  const int64_t tiles = (rows.end - rows.begin + kByteRows - 1) / kByteRows *
                        (kPanelVecs / kByteVecs);
  const int64_t asked = 1 + kBytes / (tiles * kLinesAsked<Format>);
  for (int64_t panel = panels.begin; panel < panels.end; ++panel)
    for (int64_t part = 0; part < parts; ++part) {
      const BytesOfPanel bytes = {blocks, panel, steps * part / parts,
                                  steps * (part + 1) / parts};
      const char *panelBlocks = panelOf<Format>(task, panel);
      for (int64_t step = bytes.begin; step < bytes.end; ++step)
        unpackBytes<Format>(panelBlocks + step * kBytes,
                            blocks[step - bytes.begin]);
      const bool last = panel + 1 == panels.end && part + 1 == parts;
      LineAhead ask = {panelBlocks + bytes.end * kBytes, last ? 0 : asked};
      forRowBlocks<kByteRows>(
          rows.end,
          [&](auto count, int64_t row) {
            for (int vec = 0; vec < kPanelVecs; vec += kByteVecs)
              multiplyColumns<Format, count.value>(task, factors, row, bytes,
                                                   vec, ask);
          },
          rows.begin);
    }
}

/// More rows are faster as bf16 where there are matrix instructions for it.
#if defined(LLM_CPU_X86_AMX)
constexpr int64_t kIntegerRows = 32;
#else
constexpr int64_t kIntegerRows = INT64_MAX;
#endif

template <llm_file_format Format>
void multiplyAs(const BlockTask &task, const float *factors, KeyRange rows,
                KeyRange panels) {
  if (rows.end - rows.begin < kRowsOfBytes)
    return multiplyPanels<Format>(task, factors, rows, panels);
  multiplyByBytes<Format>(task, factors, rows, panels);
}

void multiplyIntegers(const BlockTask &task, const float *factors,
                      KeyRange rows, KeyRange panels) {
  if (task.format == LLM_FILE_Q8_0)
    return multiplyAs<LLM_FILE_Q8_0>(task, factors, rows, panels);
  if (task.format == LLM_FILE_Q4_0)
    return multiplyAs<LLM_FILE_Q4_0>(task, factors, rows, panels);
  multiplyAs<LLM_FILE_Q4_1>(task, factors, rows, panels);
}

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_INTEGERPANELS_H
