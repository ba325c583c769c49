//===- LinearBlocks.cpp - Products with quantized weights -----------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Where there are many rows a thread has a block of them and all strips of
// panels, else some strips and all rows. Rows become integers, where these are
// allowed, and meet the blocks. Otherwise a thread makes tiles of a strip of
// blocks, in its own part of the scratch, and multiplies its rows with those.
// The cut changes no bit.
//
//===----------------------------------------------------------------------===//

#include "../Linear.h"

#include "../Parallel.h"
#include "Blocks.h"
#include "Kernels.h"

#include <algorithm>

using namespace llm;
using namespace llm::cpu;

/// Panels of a strip.
static constexpr int64_t kStripPanels = 2;

/// The most rows that a strip is unpacked for, and the least rows of a
/// thread that are worth tiles of their own.
static constexpr int64_t kMostRows = 256, kLeastRows = 32;

static constexpr int64_t kLineFloats = 16;

static constexpr int64_t divideUp(int64_t n, int64_t by) {
  return (n + by - 1) / by;
}

static constexpr int64_t roundUp(int64_t n, int64_t to) {
  return divideUp(n, to) * to;
}

/// Rows that are prepared together; those of fewer numbers by one thread.
static constexpr int64_t rowsToPrepare(int64_t k) {
  constexpr int64_t kNumbers = 16384;
  return 1 + kNumbers / k;
}

/// The rows of a range where each thread has ranges of its own, else 0.
static int64_t rowsOfThread(int64_t rows) {
  const int64_t threads = numThreads();
  return rows < threads * kLeastRows
             ? 0
             : std::min(kMostRows,
                        roundUp(divideUp(rows, threads), kLeastRows));
}

/// The panels of a range of all rows: several ranges for each thread, so that
/// one that is late has less to do, but not more, since nobody asks for the
/// first panel of a range ahead.
static int64_t panelsOfRange(int64_t panels) {
  constexpr int64_t kRangesOfThread = 4;
  const int64_t threads = numThreads();
  return threads == 1 ? panels
                      : std::max(kStripPanels,
                                 divideUp(panels, kRangesOfThread * threads));
}

static void multiplyIntegers(const BlockTask &task, float *factors) {
  const KernelTable &table = kernels();
  const int64_t rows = task.x->sizes[0];
  const int64_t panels = divideUp(task.columns, kWeightPanelColumns);
  if (const int64_t grain = rowsOfThread(rows))
    return parallelFor(rows, grain, [&](int64_t begin, int64_t end) {
      table.prepareIntegers(task, factors, {begin, end});
      table.multiplyIntegers(task, factors, {begin, end}, {0, panels});
    });
  parallelFor(rows, rowsToPrepare(task.k), [&](int64_t begin, int64_t end) {
    table.prepareIntegers(task, factors, {begin, end});
  });
  parallelFor(panels, panelsOfRange(panels), [&](int64_t begin, int64_t end) {
    table.multiplyIntegers(task, factors, {0, rows}, {begin, end});
  });
}

namespace {

/// A product over tiles that threads make of strips.
struct TiledProduct {
  const BlockTask &blocks;
  LinearTask task; ///< its weight and columns are those of a strip
  const float *factors;

  void multiply(KeyRange rows, KeyRange panels, float *tiles) const {
    for (int64_t panel = panels.begin; panel < panels.end;
         panel += kStripPanels)
      multiplyStrip(rows, {panel, std::min(panel + kStripPanels, panels.end)},
                    tiles);
  }

private:
  void multiplyStrip(KeyRange rows, KeyRange panels, float *tiles) const {
    const int64_t column = panels.begin * kWeightPanelColumns;
    llm_tensor out = *blocks.out;
    out.data = static_cast<float *>(out.data) + column;
    LinearTask strip = task;
    strip.out = &out;
    strip.w = tiles;
    strip.columns = blocks.columns - column;
    kernels().unpackPanels(blocks, tiles, panels);
    kernels().multiplyRows(strip, factors, rows,
                           {0, panels.end - panels.begin});
  }
};

} // namespace

static void multiplyTiles(const BlockTask &blocks, bool rounded,
                          std::vector<float> &scratch) {
  const LinearTask task = {.x = blocks.x,
                           .out = blocks.out,
                           .w = nullptr,
                           .k = blocks.k,
                           .columns = blocks.columns,
                           .rounded = rounded,
                           .streaming = false,
                           .type = LLM_BF16,
                           .tiled = true};
  const KernelTable &table = kernels();
  const int64_t rows = blocks.x->sizes[0];
  const int64_t panels = divideUp(blocks.columns, kWeightPanelColumns);
  const int64_t ownRows = rowsOfThread(rows);
  const bool byRows = ownRows > 0;
  // A range has tiles of its own, so there are no more of them than it takes.
  const int64_t grain =
      byRows ? ownRows : roundUp(divideUp(panels, numThreads()), kStripPanels);
  const int64_t ranges = divideUp(byRows ? rows : panels, grain);
  const int64_t tileFloats = kStripPanels * kWeightPanelColumns * blocks.k / 2;
  const int64_t factorFloats =
      roundUp(table.floatsOfFactors(task), kLineFloats);
  float *factors = scratchOf(scratch, factorFloats + ranges * tileFloats);
  const auto tilesOf = [&](int64_t begin) {
    return factors + factorFloats + begin / grain * tileFloats;
  };

  const TiledProduct product = {blocks, task, factors};
  if (byRows)
    return parallelFor(rows, grain, [&](int64_t begin, int64_t end) {
      table.prepareRows(task, factors, {begin, end});
      product.multiply({begin, end}, {0, panels}, tilesOf(begin));
    });
  parallelFor(rows, rowsToPrepare(blocks.k), [&](int64_t begin, int64_t end) {
    table.prepareRows(task, factors, {begin, end});
  });
  parallelFor(panels, grain, [&](int64_t begin, int64_t end) {
    product.multiply({0, rows}, {begin, end}, tilesOf(begin));
  });
}

void llm::linearOfBlocks(const LinearOperands &operands,
                         std::vector<float> &scratch) {
  const BlockTask task = {&operands.x,         &operands.out,
                          operands.w.data,     operands.format,
                          operands.x.sizes[1], operands.out.sizes[1]};
  const int64_t rows = operands.x.sizes[0];
  if (operands.activations == LLM_I8 && rows <= kernels().integerRows)
    return multiplyIntegers(
        task,
        scratchOf(scratch, rows * task.k / kWeightDepth * kIntegerBlockFloats));
  multiplyTiles(task, operands.activations != LLM_F32, scratch);
}
