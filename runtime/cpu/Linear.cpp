//===- Linear.cpp - Products with weights, cut into tasks -----------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Rows of x become factors where w is in tiles. Of few rows each thread takes
// strips of columns. Of many it takes blocks of rows and does all columns of
// them: their factors stay in its second-level cache, and no one waits between.
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

/// Strips of columns for each thread, so that one that is late has less to do;
/// not more, since nobody asks for the first panel of a strip ahead.
static constexpr int64_t kStripsOfThread = 4, kLeastStripPanels = 2;

/// The most rows of a block, of which there are as many for each thread, and
/// the least rows of a thread that are worth blocks of their own.
static constexpr int64_t kBlockRows = 128, kLeastRows = 32;

/// An out of more would only evict what the caches have: its lines are written
/// long before they are read again.
static constexpr int64_t kCachedBytes = int64_t(4) << 20;

/// Rows of less are prepared by one thread.
static constexpr int64_t kPreparedFloats = 16384;

static constexpr int64_t divideUp(int64_t n, int64_t by) {
  return (n + by - 1) / by;
}

static int64_t stripPanels(int64_t panels) {
  const int64_t threads = numThreads();
  return threads == 1 ? panels
                      : std::max(kLeastStripPanels,
                                 divideUp(panels, kStripsOfThread * threads));
}

static void multiplyByColumns(const LinearTask &task, float *factors,
                              int64_t panels) {
  const KernelTable &table = kernels();
  const int64_t rows = task.x->sizes[0];
  parallelFor(rows, 1 + kPreparedFloats / (task.k + 1),
              [&](int64_t begin, int64_t end) {
                table.prepareRows(task, factors, {begin, end});
              });
  parallelFor(panels, stripPanels(panels), [&](int64_t begin, int64_t end) {
    for (int64_t row = 0; row < rows; row += kBlockRows)
      table.multiplyRows(task, factors, {row, std::min(row + kBlockRows, rows)},
                         {begin, end});
  });
}

static void multiplyByRows(const LinearTask &task, float *factors,
                           int64_t panels) {
  const KernelTable &table = kernels();
  const int64_t rows = task.x->sizes[0], threads = numThreads();
  const int64_t blocks = divideUp(rows, kBlockRows * threads) * threads;
  const int64_t grain =
      divideUp(divideUp(rows, blocks), kLeastRows) * kLeastRows;
  parallelFor(rows, grain, [&](int64_t begin, int64_t end) {
    table.prepareRows(task, factors, {begin, end});
    table.multiplyRows(task, factors, {begin, end}, {0, panels});
  });
}

static bool isStreamed(const llm_tensor &out) {
  constexpr int64_t kLine = 64, kFloats = kLine / sizeof(float);
  return out.sizes[0] * out.sizes[1] > kCachedBytes / int64_t(sizeof(float)) &&
         reinterpret_cast<uintptr_t>(out.data) % kLine == 0 &&
         out.strides[0] % kFloats == 0;
}

static void clear(const llm_tensor &out) {
  float *row = static_cast<float *>(out.data);
  for (int64_t i = 0; i < out.sizes[0]; ++i)
    std::fill_n(row + i * out.strides[0], out.sizes[1], 0.0f);
}

float *llm::scratchOf(std::vector<float> &factors, int64_t floats) {
  // Vectors do not need to be aligned to a line but are faster.
  constexpr int64_t kLine = 16;
  const size_t needed = floats + kLine;
  if (factors.size() < needed) {
    factors.clear(); // so that nothing of it is copied
    factors.resize(needed);
  }
  auto address = reinterpret_cast<uintptr_t>(factors.data());
  return factors.data() + (kLine - address / sizeof(float) % kLine);
}

void llm::linear(const LinearOperands &operands, std::vector<float> &factors) {
  if (operands.x.sizes[1] == 0) // then w has no address to read from
    return clear(operands.out);
  if (isBlockFormat(operands.format))
    return linearOfBlocks(operands, factors);
  const LinearTask task = {.x = &operands.x,
                           .out = &operands.out,
                           .w = operands.w.data,
                           .k = operands.x.sizes[1],
                           .columns = operands.out.sizes[1],
                           .rounded = operands.activations == LLM_BF16,
                           .streaming = isStreamed(operands.out),
                           .type = operands.w.dtype,
                           .tiled = isTiled(operands.w)};
  const int64_t rows = operands.x.sizes[0];
  float *aligned = scratchOf(factors, kernels().floatsOfFactors(task));

  const int64_t panels = divideUp(task.columns, kWeightPanelColumns);
  if (rows >= numThreads() * kLeastRows)
    return multiplyByRows(task, aligned, panels);
  multiplyByColumns(task, aligned, panels);
}
