//===- WriteKVTest.cpp - Tokens on their way into pages -------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Rows must hold the same bytes whether they are written past the caches or
// not, and nothing else may change.
//
//===----------------------------------------------------------------------===//

#include "Levels.h"

#include <cmath>
#include <cstring>
#include <numeric>
#include <sstream>
#include <utility>
#include <vector>

using namespace llm;

namespace {

constexpr llm_dtype types[] = {LLM_F32, LLM_F16, LLM_BF16};

enum class Pairs { None, Halves, Adjacent }; ///< of lanes that rotate

struct Case {
  llm_dtype kPages, vPages, type;
  int32_t headDim;
  int64_t shift = 0;      ///< of the pages from the begin of a line, in bytes
  int64_t fromShift = 0;  ///< of the rows
  int64_t gap = 0;        ///< elements between the rows of two tokens
  bool headMajor = false; ///< rows are [head][token][dim]
  Pairs pairs = Pairs::None;

  llm_dtype kType() const { return pairs == Pairs::None ? type : LLM_F32; }
};

constexpr int64_t kTokens = 7, kBlockSize = 4, kBlocks = 3, kHeads = 3;
constexpr int64_t slots[kTokens] = {5, -1, 11, 2, 6, -1, 7};

struct alignas(64) Line {
  char bytes[64];
};

int64_t linesOf(int64_t bytes) { return (bytes + 63) / 64; }

//===----------------------------------------------------------------------===//
// Pages
//===----------------------------------------------------------------------===//

int64_t rowBytes(const Case &c, llm_dtype type) {
  return c.headDim * cpu::bytesOf(type);
}

/// Of K or V in a block: rows, and scales behind them.
int64_t planeLines(const Case &c, llm_dtype type) {
  return linesOf(kHeads * kBlockSize * rowBytes(c, type)) +
         linesOf(kHeads * kBlockSize * sizeof(float));
}

int64_t blockLines(const Case &c) {
  return planeLines(c, c.kPages) + planeLines(c, c.vPages);
}

KVPlane planeAt(const Case &c, llm_dtype type, char *data) {
  const int64_t row = rowBytes(c, type);
  KVPlane plane = {data, type, blockLines(c) * 64, row * kBlockSize, row};
  if (cpu::isQuantized(type)) {
    plane.scales = data + linesOf(kHeads * kBlockSize * row) * 64;
    plane.scaleHeadStride = kBlockSize * sizeof(float);
  }
  return plane;
}

KVPages pagesAt(const Case &c, char *data) {
  return {planeAt(c, c.kPages, data),
          planeAt(c, c.vPages, data + planeLines(c, c.kPages) * 64), kHeads,
          c.headDim, kBlockSize};
}

//===----------------------------------------------------------------------===//
// Rows
//===----------------------------------------------------------------------===//

/// Rows that hold numbers from `first` on, and a NaN.
llm_tensor rowsOf(const Case &c, llm_dtype type, std::vector<char> &data,
                  float first) {
  const int64_t row = c.headDim * kHeads + c.gap;
  std::vector<float> numbers(kTokens * row);
  std::iota(numbers.begin(), numbers.end(), first);
  numbers[3] = NAN;
  data.resize(numbers.size() * 4 + c.fromShift);
  cpu::kernels().convert(data.data() + c.fromShift, type, numbers.data(),
                         LLM_F32, numbers.size());
  llm_tensor rows = {data.data() + c.fromShift,
                     type,
                     3,
                     {kTokens, kHeads, c.headDim},
                     {row, c.headDim, 1}};
  if (c.headMajor) {
    rows.strides[0] = c.headDim;
    rows.strides[1] = c.headDim * kTokens;
  }
  return rows;
}

const char *rowOf(const llm_tensor &from, int64_t token, int64_t head) {
  return static_cast<const char *>(from.data) +
         (token * from.strides[0] + head * from.strides[1]) *
             cpu::bytesOf(from.dtype);
}

/// A row, rotated by the angles of its token if there are some.
std::vector<char> readRow(const Case &c, const llm_tensor &from, int64_t token,
                          int64_t head, const float *angles) {
  const char *row = rowOf(from, token, head);
  std::vector<char> result(row, row + rowBytes(c, from.dtype));
  if (angles)
    cpu::kernels().rotate(reinterpret_cast<float *>(result.data()),
                          reinterpret_cast<const float *>(row),
                          angles + token * c.headDim, c.headDim,
                          c.pairs == Pairs::Adjacent);
  return result;
}

/// Row by row, by the functions that other tests check.
void writeRows(const Case &c, const KVPlane &to, const llm_tensor &from,
               const float *angles) {
  for (int64_t token = 0; token < kTokens; ++token)
    for (int64_t head = 0; slots[token] >= 0 && head < kHeads; ++head) {
      const int64_t block = slots[token] / kBlockSize;
      const int64_t offset = slots[token] % kBlockSize;
      const std::vector<char> row = readRow(c, from, token, head, angles);
      char *page = to.at(block, head, offset);
      if (to.scales)
        *to.scaleAt(block, head, offset) = cpu::kernels().quantize(
            page, to.dtype, row.data(), from.dtype, c.headDim);
      else
        cpu::kernels().convert(page, to.dtype, row.data(), from.dtype,
                               c.headDim);
    }
}

void expectSameBytes(const Case &c) {
  std::vector<char> kData, vData;
  const llm_tensor k = rowsOf(c, c.kType(), kData, 0.3f);
  const llm_tensor v = rowsOf(c, c.type, vData, -100.7f);
  std::vector<float> angles(kTokens * c.headDim);
  for (size_t i = 0; i < angles.size(); ++i)
    angles[i] = std::cos(static_cast<float>(i));
  const llm_tensor table = {
      angles.data(), LLM_F32, 2, {kTokens, c.headDim}, {c.headDim, 1}};
  const Rope rope = {&table, c.pairs == Pairs::Adjacent};
  const bool rotates = c.pairs != Pairs::None;

  std::vector<Line> expected(kBlocks * blockLines(c) + 1, Line{});
  std::vector<Line> written[2] = {expected, expected};
  const KVPages reference = pagesAt(c, expected[0].bytes + c.shift);
  writeRows(c, reference.k, k, rotates ? angles.data() : nullptr);
  writeRows(c, reference.v, v, nullptr);
  for (bool streaming : {false, true}) {
    const KVPages pages = pagesAt(c, written[streaming][0].bytes + c.shift);
    const auto write = [&](int64_t begin, int64_t end) {
      cpu::kernels().writeTokens({&pages, slots, &k, &v,
                                  rotates ? &rope : nullptr, begin, end,
                                  streaming});
    };
    write(0, 2);
    write(2, kTokens);
    std::ostringstream text;
    text << "pages of types " << c.kPages << " and " << c.vPages << " at "
         << c.shift << ", rows of " << c.headDim << " of type " << c.type
         << " at " << c.fromShift << ", gap " << c.gap
         << (rotates ? ", rotated" : "") << (streaming ? ", streaming" : "");
    EXPECT_EQ(std::memcmp(written[streaming].data(), expected.data(),
                          expected.size() * sizeof(Line)),
              0)
        << text.str();
  }
}

//===----------------------------------------------------------------------===//
// Tests
//===----------------------------------------------------------------------===//

class WriteKVTest : public LevelTest {};

TEST_P(WriteKVTest, StreamsWhatItWouldStore) {
  for (llm_dtype pages : types)
    for (llm_dtype type : types)
      for (int32_t headDim : {5, 32, 80, 128})
        for (int64_t shift : {0, 16})
          for (int64_t fromShift : {0, 4})
            expectSameBytes({.kPages = pages,
                             .vPages = pages,
                             .type = type,
                             .headDim = headDim,
                             .shift = shift,
                             .fromShift = fromShift,
                             .gap = shift ? 40 : 0});
}

TEST_P(WriteKVTest, StreamsRowsOfOneHeadBehindEachOther) {
  for (llm_dtype pages : types)
    for (llm_dtype type : types)
      expectSameBytes({.kPages = pages,
                       .vPages = pages,
                       .type = type,
                       .headDim = 64,
                       .headMajor = true});
}

TEST_P(WriteKVTest, StreamsRotatedKeys) {
  for (llm_dtype pages : types)
    for (llm_dtype type : types)
      for (int32_t headDim : {6, 64, 80})
        for (Pairs pairs : {Pairs::Halves, Pairs::Adjacent})
          expectSameBytes({.kPages = pages,
                           .vPages = pages,
                           .type = type,
                           .headDim = headDim,
                           .gap = 24,
                           .pairs = pairs});
}

/// Quantized ones are stored; the others may be streamed.
TEST_P(WriteKVTest, StreamsOneOfKAndV) {
  for (llm_dtype quantized : {LLM_F8E4M3FN, LLM_I8})
    for (llm_dtype type : types)
      for (int32_t headDim : {5, 64, 128})
        for (Pairs pairs : {Pairs::None, Pairs::Halves}) {
          if (pairs != Pairs::None && headDim % 2)
            continue;
          Case c = {.kPages = quantized,
                    .vPages = quantized,
                    .type = type,
                    .headDim = headDim,
                    .pairs = pairs};
          expectSameBytes(c);
          c.vPages = LLM_BF16;
          expectSameBytes(c);
          std::swap(c.kPages, c.vPages);
          expectSameBytes(c);
        }
}

/// A prompt of 2 MB, on all threads, against its tokens one by one.
TEST_P(WriteKVTest, StreamsLongPrompts) {
  constexpr int64_t kPrompt = 519, kDim = 128, kBlock = 16, kKV = 8;
  constexpr int64_t kRow = kDim * 2, kPage = kKV * kBlock * kRow;
  std::vector<float> data(kPrompt * kKV * kDim);
  std::iota(data.begin(), data.end(), -7.3f);
  std::vector<int64_t> to(kPrompt);
  for (int64_t token = 0; token < kPrompt; ++token)
    to[token] = token % 5 ? token * 7 % kPrompt : -1;
  std::vector<Line> once(2 * (kPrompt / kBlock + 1) * kPage / 64, Line{});
  std::vector<Line> oneByOne = once;
  const auto write = [&](std::vector<Line> &lines, int64_t token, int64_t n) {
    const KVPlane k = {lines[0].bytes, LLM_BF16, 2 * kPage, kRow * kBlock,
                       kRow};
    KVPages pages = {k, k, kKV, kDim, kBlock};
    pages.v.data += kPage;
    const llm_tensor rows = {&data[token * kKV * kDim],
                             LLM_F32,
                             3,
                             {n, kKV, kDim},
                             {kKV * kDim, kDim, 1}};
    writeKV(pages, &to[token], rows, rows);
  };
  write(once, 0, kPrompt);
  for (int64_t token = 0; token < kPrompt; ++token)
    write(oneByOne, token, 1);
  EXPECT_EQ(std::memcmp(once.data(), oneByOne.data(), once.size() * 64), 0);
}

/// Padding goes nowhere: page 0, where slot 0 is, stays as it was.
/// peers: shark-ai#826
TEST_P(WriteKVTest, ConvertsOnceAndSkipsPadding) {
  for (llm_dtype pageType : types)
    for (llm_dtype type : types) {
      constexpr int32_t kKV = 2, kDim = 5, kBlock = 3, kCount = 4;
      std::vector<float> data(kCount * kKV * kDim);
      std::iota(data.begin(), data.end(), 0.3f);
      std::vector<char> k(data.size() * 4),
          pool(2 * 4 * kKV * kBlock * kDim * 4, 0);
      cpu::kernels().convert(k.data(), type, data.data(), LLM_F32, data.size());
      int64_t row = kDim * cpu::bytesOf(pageType);
      KVPlane plane = {pool.data(), pageType, row * kKV * kBlock, row * kBlock,
                       row};
      KVPages pages = {plane, plane, kKV, kDim, kBlock};
      pages.v.data += pool.size() / 2;
      int64_t to[] = {4, -1, 11, 6};
      llm_tensor kv = {
          k.data(), type, 3, {kCount, kKV, kDim}, {kKV * kDim, kDim, 1}};
      writeKV(pages, to, kv, kv);
      std::vector<char> expected(pool.size(), 0);
      for (int half : {0, 1})
        for (int t : {0, 2, 3})
          for (int h = 0; h < kKV; ++h)
            cpu::kernels().convert(
                &expected[half * pool.size() / 2 +
                          (plane.at(to[t] / kBlock, h, to[t] % kBlock) -
                           plane.data)],
                pageType, k.data() + (t * kKV + h) * kDim * cpu::bytesOf(type),
                type, kDim);
      EXPECT_EQ(pool, expected) << "type " << pageType << " from " << type;
    }
}

LLM_AT_EVERY_LEVEL(WriteKVTest);

} // namespace
