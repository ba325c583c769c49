//===- AttentionBitsTest.cpp - What leaves the bits of attention alone ----===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "AttentionProblem.h"

using namespace llm;

namespace {

class AttentionBitsTest : public AttentionLevelTest {};

/// Bits of the rows of sequence i, gaps included, as they were computed.
std::vector<char> takeBits(const Problem &p, size_t i) {
  int64_t bytes = p.tokenStride() * bytesOf(p.c.type);
  std::vector<char> bits(p.out.begin() + p.cuSeqlens[i] * bytes,
                         p.out.begin() + p.cuSeqlens[i + 1] * bytes);
  const char *lse = reinterpret_cast<const char *>(p.lse.data());
  int64_t lseBytes = (p.c.queryHeads + 1) * sizeof(float);
  bits.insert(bits.end(), lse + p.cuSeqlens[i] * lseBytes,
              lse + p.cuSeqlens[i + 1] * lseBytes);
  return bits;
}

std::vector<char> bitsOf(Problem &p, size_t i) {
  p.run();
  return takeBits(p, i);
}

/// With every modifier if there are sinks.
Case bitCase(llm_dtype pages, int32_t sinks = 0) {
  Case c;
  c.sinks = sinks;
  c.window = sinks ? 600 : 0;
  c.alibi = c.headSink = c.sinkQuery = sinks;
  c.queryHeads = 6;
  c.kvHeads = 2;
  c.headDim = 72;
  c.pageType = pages;
  c.sequences = {{1200, 3}};
  return c;
}

/// Few queries with their log-sum-exp, and more without.
std::vector<Case> bitCases() {
  std::vector<Case> cases;
  for (llm_dtype pages : formats)
    for (int32_t sinks : {0, 4})
      for (bool many : {false, true}) {
        cases.push_back(bitCase(pages, sinks));
        cases.back().lse = !many;
        cases.back().sequences = {{1200, many ? 7 : 3}};
      }
  return cases;
}

TEST_P(AttentionBitsTest, SameBitsForAnyNumberOfThreads) {
  for (const Case &c : bitCases()) {
    SCOPED_TRACE(describe(c));
    Problem p(c);
    setNumThreads(1);
    std::vector<char> expected = bitsOf(p, 0);
    for (int32_t threads : {2, 3, 8, 16}) {
      setNumThreads(threads);
      EXPECT_EQ(bitsOf(p, 0), expected) << threads << " threads";
    }
  }
}

TEST_P(AttentionBitsTest, SameBitsForAnyBlockSize) {
  for (Case c : bitCases()) {
    SCOPED_TRACE(describe(c));
    Problem base(c);
    std::vector<char> expected = bitsOf(base, 0);
    for (int32_t block : {1, 5, 32, 64, 2000}) {
      c.blockSize = block;
      Problem p(c);
      EXPECT_EQ(bitsOf(p, 0), expected) << "blocks of " << block;
    }
  }
}

TEST_P(AttentionBitsTest, SameBitsInAnyBatch) {
  for (Case c : bitCases()) {
    SCOPED_TRACE(describe(c));
    Problem alone(c);
    std::vector<char> expected = bitsOf(alone, 0);
    c.sequences = {{0, 40}, c.sequences[0], {700, 1}, {3, 1}};
    Problem batch(c);
    EXPECT_EQ(bitsOf(batch, 1), expected);
  }
}

/// All queries of a sequence at once, and the last of them alone.
void expectSameBits(const Case &c, std::initializer_list<int32_t> lasts) {
  Problem whole(c);
  whole.run();
  const Sequence &sequence = c.sequences[0];
  int64_t row = whole.tokenStride() * bytesOf(c.type);
  for (int32_t last : lasts) {
    int32_t first = sequence.queries - last;
    Problem part(c);
    part.firstPosition[0] = sequence.past + first;
    part.cuSeqlens[1] = last;
    for (std::vector<char> *rows : {&part.q, &part.sinkQ})
      rows->erase(rows->begin(), rows->begin() + first * row);
    part.tokens = last;
    part.run();
    EXPECT_TRUE(std::equal(part.out.begin(), part.out.end(),
                           whole.out.begin() + first * row))
        << "from query " << first;
  }
}

/// A prefill and its later chunks; peers: shark-ai#2421
TEST_P(AttentionBitsTest, SameBitsForAnyCutOfManyQueries) {
  for (llm_dtype pages : formats)
    for (llm_dtype type : {LLM_F32, LLM_BF16})
      for (auto [window, sinks] : {std::pair{0, 0}, {33, 0}, {33, 4}})
        for (bool lse : {true, false}) {
          Case c = bitCase(pages, sinks);
          c.type = type;
          c.window = window;
          c.lse = lse;
          c.sequences = {{0, 100}};
          ASSERT_GT(6 * c.queryHeads / c.kvHeads, cpu::kFewRows);
          expectSameBits(c, {99, 63, 36, 6});
        }
}

/// Drafted tokens, and the same tokens one by one.
TEST_P(AttentionBitsTest, SameBitsForAnyCutOfFewQueries) {
  for (llm_dtype pages : formats)
    for (llm_dtype type : {LLM_F32, LLM_BF16})
      for (int32_t window : {0, 33}) {
        Case c = bitCase(pages);
        c.type = type;
        c.window = window;
        c.sequences = {{600, 5}};
        ASSERT_LE(5 * c.queryHeads / c.kvHeads, cpu::kFewRows);
        expectSameBits(c, {4, 3, 2, 1});
      }
}

/// One plan for calls that differ in what a plan depends on.
TEST_P(AttentionBitsTest, SameBitsWithAPlanOfAnotherCall) {
  AttentionPlan plan;
  Case c = bitCase(LLM_F16);
  auto expectSame = [&](const char *what) {
    Problem p(c);
    std::vector<char> expected = bitsOf(p, 0);
    const int64_t row = p.tokenStride() * bytesOf(c.type);
    for (int time : {0, 1}) {
      p.run(&plan);
      EXPECT_EQ(std::vector<char>(p.out.begin(),
                                  p.out.begin() + p.cuSeqlens[1] * row),
                std::vector<char>(expected.begin(),
                                  expected.begin() + p.cuSeqlens[1] * row))
          << what << ", call " << time;
    }
  };
  c.sequences = {{40, 3}};
  expectSame("a short sequence");
  c.sequences = {{3000, 3}};
  expectSame("more keys");
  c.window = 700;
  expectSame("a window");
  c.window = 0;
  c.sequences = {{2900, 103}};
  expectSame("more queries");
  setNumThreads(2);
  expectSame("fewer threads");
  c.sequences.push_back({5000, 1});
  expectSame("more sequences");
  c.kvHeads = 1;
  expectSame("fewer heads");
}

LLM_AT_EVERY_LEVEL(AttentionBitsTest);

/// First positions and cu_seqlens do not say how many keys there are.
TEST_P(AttentionBitsTest, PlanIsForLengths) {
  Case c = bitCase(LLM_F32);
  c.causal = false;
  c.sequences = {{6000, 3}};
  Problem p(c);
  setNumThreads(8); // so that tasks are cut
  std::vector<char> expected = bitsOf(p, 0);
  AttentionPlan plan;
  p.seqLens[0] = 3000;
  p.run(&plan);
  p.seqLens[0] = p.lengthOf(0);
  p.run(&plan);
  EXPECT_EQ(takeBits(p, 0), expected);
}

/// A query that is not finite spoils its row alone, integers or not.
TEST_P(AttentionBitsTest, QueryThatIsNotFinite) {
  for (Case c : bitCases())
    for (float bad : {INFINITY, NAN}) {
      if (c.sinks)
        continue;
      c.sequences[0].past = 1213;
      c.window = 90; // of whole groups, none of which is exact
      SCOPED_TRACE(describe(c));
      Problem p(c);
      p.run();
      auto rowOf = [&](int64_t token, int64_t head) {
        return token * p.tokenStride() + head * p.headStride();
      };
      std::vector<char> before = p.out;
      memcpy(&p.q[rowOf(1, 2) * sizeof(float)], &bad, sizeof(bad));
      p.run();
      const auto *was = reinterpret_cast<const float *>(before.data());
      const auto *is = reinterpret_cast<const float *>(p.out.data());
      for (int64_t token = 0; token < p.tokens; ++token)
        for (int64_t head = 0; head < p.c.queryHeads; ++head)
          for (int64_t i = rowOf(token, head); i < rowOf(token, head) + 72; ++i)
            if (token == 1 && head == 2)
              EXPECT_TRUE(std::isnan(is[i])) << bad;
            else
              EXPECT_EQ(is[i], was[i]) << token << " " << head;
    }
}

} // namespace
