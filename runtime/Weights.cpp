//===- Weights.cpp - From a file's formats to packed weights --------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Packing goes by tiles of 32 rows and 256 columns, which are f32 on the stack:
//
//        256 columns of one source
//   r0  [ w w w w ... ]    PLAIN:   row by row to packed[r][c ..]
//   r1  [ w w w w ... ]    PANEL32: column by column to
//   ..                              packed[r / 32][c ..][0 .. 31],
//   r31 [ w w w w ... ]             one contiguous piece of the tile's panel
//                          TILES32: pair of columns by pair to
//                                   packed[r / 32][c / 32][r / 16 % 2]
//                                         [c / 2 % 16][r % 16][c % 2]
//
// BLOCKS32 takes blocks of 32 rows (cpu/Blocks.h), as the file has them or
// after FileBlocks.h has converted them.
//
// Rows beyond the last are zeros. A tile never crosses sources along a row, so
// the block formats are always cut at whole blocks, of at most 256 weights.
//
//===----------------------------------------------------------------------===//

#include "Weights.h"

#include "FileBlocks.h"
#include "FileFormats.h"
#include "Parallel.h"
#include "cpu/Blocks.h"
#include "cpu/Kernels.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>

using namespace llm;

//===----------------------------------------------------------------------===//
// Packing
//===----------------------------------------------------------------------===//

namespace {

constexpr int64_t kTileRows = 32, kTileCols = kSuperBlock;
using Tile = std::array<std::array<float, kTileCols>, kTileRows>;

struct Matrix {
  int64_t rows, cols;
};

Matrix matrixOf(const int64_t *sizes, int32_t rank) {
  return rank == 1 ? Matrix{1, sizes[0]} : Matrix{sizes[0], sizes[1]};
}

/// One call of packWeight.
struct Packing {
  const llm_weight_desc &desc;
  const llm_weight_source *sources;
  uint8_t *packed;
  Matrix shape;
  bool sideBySide;            ///< sources stand beside each other, not on top
  std::atomic<float> &beyond; ///< the largest number that f16 should hold

  void packRows(int64_t row) const;

private:
  struct SourceRow {
    llm_file_format format;
    const uint8_t *data;
  };
  SourceRow rowOf(int64_t row, int64_t source) const;
  void packTiles(int64_t row, int64_t source, int64_t firstCol) const;
  void packBlocks(int64_t row, int64_t source, int64_t firstCol) const;
  void packRowOfBlocks(const SourceRow &from, int64_t row, int64_t cols,
                       uint8_t *to) const;
  void readTile(int64_t row, int64_t source, int64_t col, int64_t n,
                Tile &tile) const;
  void writePlain(const Tile &tile, int64_t row, int64_t col, int64_t n) const;
  void writePanel(const Tile &tile, int64_t row, int64_t col, int64_t n) const;
  void writeTiles(const Tile &tile, int64_t row, int64_t col, int64_t n) const;
  void write(int64_t index, const float *from, int64_t n) const;
  int64_t rowsFrom(int64_t row) const {
    return std::min(kTileRows, shape.rows - row);
  }
};

/// Row `row` of the weight, in a source if they stand side by side, else in the
/// source that has the row.
Packing::SourceRow Packing::rowOf(int64_t row, int64_t source) const {
  const llm_weight_source *from = sources + source;
  while (!sideBySide && row >= matrixOf(from->sizes, from->rank).rows)
    row -= matrixOf(from->sizes, from->rank).rows, ++from;
  int64_t cols = matrixOf(from->sizes, from->rank).cols;
  return {from->format, static_cast<const uint8_t *>(from->data) +
                            row * llm_file_row_bytes(from->format, cols)};
}

/// `n` columns of rows row .. row + 31.
void Packing::readTile(int64_t row, int64_t source, int64_t col, int64_t n,
                       Tile &tile) const {
  for (int64_t r = 0; r < rowsFrom(row); ++r) {
    SourceRow from = rowOf(row + r, source);
    dequantize(from.format, from.data + llm_file_row_bytes(from.format, col), n,
               tile[r].data());
  }
}

void Packing::write(int64_t index, const float *from, int64_t n) const {
  int64_t bytes = desc.dtype == LLM_F32 ? 4 : 2;
  cpu::kernels().convert(packed + index * bytes, desc.dtype, from, LLM_F32, n);
}

void Packing::writePlain(const Tile &tile, int64_t row, int64_t col,
                         int64_t n) const {
  for (int64_t r = 0; r < rowsFrom(row); ++r)
    write((row + r) * shape.cols + col, tile[r].data(), n);
}

void Packing::writePanel(const Tile &tile, int64_t row, int64_t col,
                         int64_t n) const {
  std::array<float, kTileRows * kTileCols> turned;
  for (int64_t c = 0; c < n; ++c)
    for (int64_t r = 0; r < kTileRows; ++r)
      turned[c * kTileRows + r] = r < rowsFrom(row) ? tile[r][c] : 0;
  write(row * shape.cols + col * kTileRows, turned.data(), n * kTileRows);
}

void Packing::writeTiles(const Tile &tile, int64_t row, int64_t col,
                         int64_t n) const {
  constexpr int64_t kColumns = cpu::kWeightTileColumns;
  uint16_t *panel = reinterpret_cast<uint16_t *>(packed) + row * shape.cols;
  for (int64_t r = 0; r < kTileRows; ++r) {
    std::array<uint16_t, kTileCols> weights = {};
    if (r < rowsFrom(row))
      cpu::kernels().convert(weights.data(), LLM_BF16, tile[r].data(), LLM_F32,
                             n);
    for (int64_t i = 0; i < n; ++i) {
      int64_t c = col + i;
      int64_t at = (c / cpu::kWeightDepth * 2 + r / kColumns) *
                       cpu::kWeightDepth * kColumns +
                   c % cpu::kWeightDepth / 2 * 2 * kColumns + r % kColumns * 2 +
                   c % 2;
      panel[at] = weights[i];
    }
  }
}

/// The tiles of rows row .. row + 31 that one source (or, on top of each other,
/// every source) fills; its column 0 is column `firstCol` of the weight.
void Packing::packTiles(int64_t row, int64_t source, int64_t firstCol) const {
  int64_t cols = matrixOf(sources[source].sizes, sources[source].rank).cols;
  Tile tile;
  for (int64_t col = 0; col < cols; col += kTileCols) {
    int64_t n = std::min(kTileCols, cols - col);
    readTile(row, source, col, n, tile);
    if (desc.layout == LLM_LAYOUT_PANEL32)
      writePanel(tile, row, firstCol + col, n);
    else if (desc.layout == LLM_LAYOUT_TILES32)
      writeTiles(tile, row, firstCol + col, n);
    else
      writePlain(tile, row, firstCol + col, n);
  }
}

/// Bytes of a block of q8_0 in a file.
constexpr int64_t kLargestBlock = 34;

void keepLargest(std::atomic<float> &largest, float value) {
  float seen = largest.load(std::memory_order_relaxed);
  while (value > seen &&
         !largest.compare_exchange_weak(seen, value, std::memory_order_relaxed))
    ;
}

/// A block of a row of the file as row `r` of a block of 32 rows: whole groups
/// of four bytes move, and those without nibbles lose their sign.
void writeBlock(llm_file_format format, const uint8_t *from, int64_t r,
                uint8_t *to) {
  constexpr int64_t kTileColumns = cpu::kWeightTileColumns;
  const int64_t lines = cpu::linesOf(format);
  std::memcpy(to + 2 * r, from, 2);
  from += 2;
  if (cpu::hasMinimums(format)) {
    std::memcpy(to + cpu::kBlockScaleBytes + 2 * r, from, 2);
    from += 2;
  }
  to += cpu::linesAt(format) + r / kTileColumns * lines * cpu::kBlockLineBytes +
        r % kTileColumns * 4;
  const uint32_t signs = cpu::hasNibbles(format) ? 0 : 0x80808080;
  for (int64_t line = 0; line < lines; ++line) {
    uint32_t four;
    std::memcpy(&four, from + 4 * line, 4);
    four ^= signs;
    std::memcpy(to + line * cpu::kBlockLineBytes, &four, 4);
  }
}

/// A row of a source as row `row` of the blocks at `to`.
void Packing::packRowOfBlocks(const SourceRow &from, int64_t row, int64_t cols,
                              uint8_t *to) const {
  const int64_t fileBytes = llm_file_row_bytes(desc.format, kQuantBlock);
  std::array<uint8_t, kTileCols / kQuantBlock * kLargestBlock> blocks;
  for (int64_t col = 0; col < cols; col += kTileCols) {
    const int64_t n = std::min(kTileCols, cols - col);
    keepLargest(beyond,
                convertBlocks(from.format,
                              from.data + llm_file_row_bytes(from.format, col),
                              n, desc.format, blocks.data()));
    for (int64_t block = 0; block < n / kQuantBlock; ++block) {
      writeBlock(desc.format, blocks.data() + block * fileBytes, row, to);
      to += cpu::bytesOfBlock(desc.format);
    }
  }
}

/// The blocks of rows row .. row + 31, as packTiles.
void Packing::packBlocks(int64_t row, int64_t source, int64_t firstCol) const {
  const int64_t bytes = cpu::bytesOfBlock(desc.format);
  const int64_t cols =
      matrixOf(sources[source].sizes, sources[source].rank).cols;
  uint8_t *to = packed + (row / kTileRows * (shape.cols / kQuantBlock) +
                          firstCol / kQuantBlock) *
                             bytes;
  if (rowsFrom(row) < kTileRows)
    std::memset(to, 0, cols / kQuantBlock * bytes);
  for (int64_t r = 0; r < rowsFrom(row); ++r)
    packRowOfBlocks(rowOf(row + r, source), r, cols, to);
}

void Packing::packRows(int64_t row) const {
  int64_t col = 0;
  for (int64_t i = 0; i < (sideBySide ? desc.num_names : 1); ++i) {
    if (desc.layout == LLM_LAYOUT_BLOCKS32)
      packBlocks(row, i, col);
    else
      packTiles(row, i, col);
    col += matrixOf(sources[i].sizes, sources[i].rank).cols;
  }
}

} // namespace

int64_t llm::packedBytes(const llm_weight_desc &desc) {
  Matrix shape = matrixOf(desc.sizes, desc.rank);
  if (desc.layout != LLM_LAYOUT_PLAIN)
    shape.rows = (shape.rows + kTileRows - 1) / kTileRows * kTileRows;
  if (desc.layout == LLM_LAYOUT_BLOCKS32)
    return shape.rows / kTileRows * (shape.cols / kQuantBlock) *
           cpu::bytesOfBlock(desc.format);
  return shape.rows * shape.cols * (desc.dtype == LLM_F32 ? 4 : 2);
}

float llm::packWeight(const llm_weight_desc &desc,
                      const llm_weight_source *sources, void *packed) {
  std::atomic<float> beyond = 0;
  Packing packing{desc,
                  sources,
                  static_cast<uint8_t *>(packed),
                  matrixOf(desc.sizes, desc.rank),
                  desc.rank == 1 || desc.axis == 1,
                  beyond};
  int64_t tiles = (packing.shape.rows + kTileRows - 1) / kTileRows;
  parallelFor(tiles, 1, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile)
      packing.packRows(tile * kTileRows);
  });
  return beyond;
}
