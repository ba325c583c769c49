//===- IntegerAttentionTest.cpp - Few rows over pages of i8 ---------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Where factors may be integers (IntegerTile.h), at every level: against
// float64 over the same codes and scales, and at the ends of f32.
//
//===----------------------------------------------------------------------===//

#include "Levels.h"

#include "llm/Runtime/Attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

using namespace llm;

namespace {

constexpr int32_t kBlockSize = 16;

/// One sequence of one KV head, whose last tokens are the queries.
struct Sequence {
  int32_t dim, group, queries, keys;
  std::vector<int8_t> k, v;            ///< [keys, dim]
  std::vector<float> kScales, vScales; ///< [keys]
  std::vector<float> q;                ///< [queries, group, dim]

  Sequence(int32_t dim, int32_t group, int32_t queries, int32_t keys)
      : dim(dim), group(group), queries(queries), keys(keys) {
    std::mt19937 random(dim + keys);
    std::uniform_int_distribution<int> code(-127, 127);
    std::uniform_real_distribution<float> scale(0.5f / 127, 2.0f / 127);
    std::normal_distribution<float> normal;
    for (int32_t i = 0; i < keys * dim; ++i) {
      k.push_back(static_cast<int8_t>(code(random)));
      v.push_back(static_cast<int8_t>(code(random)));
    }
    for (int32_t i = 0; i < keys; ++i) {
      kScales.push_back(scale(random));
      vScales.push_back(scale(random));
    }
    for (int32_t i = 0; i < queries * group * dim; ++i)
      q.push_back(normal(random));
  }

  /// Row r of the queries, head by head, in float64.
  std::vector<double> exact(int32_t row) const {
    int32_t visible = keys - queries + row / group + 1;
    std::vector<double> scores(visible), out(dim);
    double top = -INFINITY, sum = 0;
    for (int32_t j = 0; j < visible; ++j) {
      for (int32_t d = 0; d < dim; ++d)
        scores[j] += double(q[row * dim + d]) * k[j * dim + d];
      scores[j] *= kScales[j] / std::sqrt(double(dim));
      top = std::max(top, scores[j]);
    }
    for (int32_t j = 0; j < visible; ++j) {
      double p = std::exp(scores[j] - top);
      sum += p;
      for (int32_t d = 0; d < dim; ++d)
        out[d] += p * vScales[j] * v[j * dim + d];
    }
    for (double &x : out)
      x /= sum;
    return out;
  }

  /// [queries, group, dim], by the kernel in use.
  std::vector<float> attend() const {
    const int64_t blocks = (keys + kBlockSize - 1) / kBlockSize;
    const int64_t page = kBlockSize * (dim + 4);
    std::vector<char> memory(blocks * 2 * page, char(0x7f));
    KVPlane plane = {memory.data(), LLM_I8,
                     2 * page,      page,
                     dim,           memory.data() + int64_t(kBlockSize) * dim,
                     page};
    KVPages pages = {plane, plane, 1, dim, kBlockSize};
    pages.v.data += page;
    pages.v.scales += page;
    std::vector<int32_t> table;
    for (int32_t i = 0; i < blocks; ++i)
      table.push_back(static_cast<int32_t>(blocks) - 1 - i);
    auto fill = [&](const KVPlane &to, const std::vector<int8_t> &codes,
                    const std::vector<float> &scales) {
      for (int32_t j = 0; j < keys; ++j) {
        int32_t block = table[j / kBlockSize], slot = j % kBlockSize;
        memcpy(to.at(block, 0, slot), &codes[j * dim], dim);
        memcpy(to.scaleAt(block, 0, slot), &scales[j], sizeof(float));
      }
    };
    fill(pages.k, k, kScales);
    fill(pages.v, v, vScales);
    std::vector<float> out(q.size());
    llm_tensor queryTensor = {const_cast<float *>(q.data()),
                              LLM_F32,
                              3,
                              {queries, group, dim},
                              {int64_t(group) * dim, dim, 1}};
    llm_tensor outTensor = queryTensor;
    outTensor.data = out.data();
    const int32_t bounds[] = {0, queries}, first = keys - queries;
    AttentionParams params = {1 / std::sqrt(float(dim)), 0, 0, true};
    pagedAttention(pages, {1, bounds, &first, &keys, table.data(), blocks},
                   params, queryTensor, outTensor, nullptr);
    return out;
  }

  /// Row `row` of `out` is exact to `tolerance` of the largest value.
  void expectRow(const std::vector<float> &out, int32_t row,
                 double tolerance = 5e-5) const {
    std::vector<double> expected = exact(row);
    double largest = 0;
    for (float scale : vScales)
      largest = std::max(largest, 127.0 * scale);
    for (int32_t d = 0; d < dim; ++d)
      ASSERT_NEAR(out[row * dim + d], expected[d], tolerance * largest)
          << "row " << row << " dim " << d << " of " << dim;
  }
};

class IntegerAttentionTest : public LevelTest {};
LLM_AT_EVERY_LEVEL(IntegerAttentionTest);

TEST_P(IntegerAttentionTest, AnyRowsAndDims) {
  for (int32_t dim : {1, 5, 16, 64, 80, 512, 520})
    for (int32_t group : {1, 2, 3, 4, 7, 16})
      for (int32_t keys : {1, 17, 63, 600}) {
        SCOPED_TRACE(testing::Message() << group << " rows, " << keys);
        Sequence s(dim, group, 1, keys);
        std::vector<float> out = s.attend();
        for (int32_t row = 0; row < group; ++row)
          ASSERT_NO_FATAL_FAILURE(s.expectRow(out, row));
      }
}

TEST_P(IntegerAttentionTest, LongestSumsFit) {
  for (int sign : {1, -1}) {
    Sequence s(512, 4, 1, 3);
    for (int8_t &code : s.k)
      code = 127;
    for (float &x : s.q)
      x = 3.0f * sign;
    s.expectRow(s.attend(), 0);
    s.k[1] = -127; // and one key that differs
    s.expectRow(s.attend(), 3);
  }
}

TEST_P(IntegerAttentionTest, QueryThatIsNotFiniteSpoilsItsRowAlone) {
  for (float bad : {INFINITY, -INFINITY, NAN}) {
    Sequence s(80, 4, 1, 100);
    std::vector<float> before = s.attend();
    s.q[2 * 80 + 7] = bad;
    std::vector<float> after = s.attend();
    for (int32_t i = 0; i < 4 * 80; ++i)
      if (i / 80 == 2)
        EXPECT_TRUE(std::isnan(after[i])) << i;
      else
        EXPECT_EQ(after[i], before[i]) << i;
  }
}

TEST_P(IntegerAttentionTest, ScaleThatIsNotFiniteSpoilsThoseThatSeeIt) {
  Sequence s(64, 2, 3, 70);
  std::vector<float> before = s.attend();
  s.vScales[68] = NAN; // which the last two of three queries see
  std::vector<float> after = s.attend();
  for (int32_t i = 0; i < 6 * 64; ++i)
    if (i < 2 * 64)
      EXPECT_EQ(after[i], before[i]) << i;
    else
      EXPECT_TRUE(std::isnan(after[i])) << i;
}

TEST_P(IntegerAttentionTest, SmallNumbersKeepTheirDigits) {
  Sequence s(64, 4, 1, 200);
  for (float &scale : s.vScales)
    scale *= 1e-33f;
  for (int32_t d = 0; d < 64; ++d) {
    s.q[d] = 0;
    s.q[64 + d] *= 1e-38f;
    s.q[128 + d] *= 1e-12f;
  }
  std::vector<float> out = s.attend();
  for (int32_t row = 0; row < 4; ++row)
    s.expectRow(out, row);
}

} // namespace
