//===- AttentionTest.cpp - Paged attention against a dense reference ------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "AttentionProblem.h"

#include <sys/mman.h>

using namespace llm;

namespace {

class AttentionTest : public AttentionLevelTest {};

TEST_P(AttentionTest, HeadDimsAndBlockSizes) {
  for (int32_t dim : {1, 3, 16, 17, 40, 64, 72, 96, 100, 128, 256, 257, 512})
    for (int32_t block : {1, 3, 16, 64, 100}) {
      Case c;
      c.headDim = dim;
      c.blockSize = block;
      c.pageType = formats[(dim + block) % 5];
      c.sequences = {{70, 1}, {0, 9}, {130, 4}};
      check(c);
    }
}

TEST_P(AttentionTest, HeadDimsAndBlockSizesOfGroups) {
  for (int32_t dim : {1, 3, 16, 17, 40, 64, 72, 96, 100, 128, 256, 257, 512})
    for (int32_t block : {32, 96, 256}) {
      Case c;
      c.headDim = dim;
      c.blockSize = block;
      c.pageType = LLM_I4;
      c.sequences = {{70, 1}, {0, 9}, {130, 4}, {5, 40}};
      check(c);
    }
}

TEST_P(AttentionTest, EveryPairOfTypes) {
  for (llm_dtype pages : types)
    for (llm_dtype type : types)
      for (int32_t dim : {37, 64}) {
        Case c;
        c.pageType = pages;
        c.type = type;
        c.headDim = dim;
        c.sequences = {{100, 1}, {0, 20}, {63, 2}};
        check(c);
      }
}

TEST_P(AttentionTest, EveryPairOfFormats) {
  for (llm_dtype k : formats)
    for (llm_dtype v : formats)
      for (llm_dtype type : types) {
        Case c;
        c.pageType = k;
        c.vType = v;
        c.type = type;
        c.headDim = 72;
        c.sequences = {{100, 1}, {0, 20}, {63, 2}};
        check(c);
      }
}

TEST_P(AttentionTest, HeadGroups) {
  for (auto [queryHeads, kvHeads] : {std::pair{1, 1},
                                     {4, 4},
                                     {9, 3},
                                     {32, 8},
                                     {5, 1},
                                     {14, 2},
                                     {71, 1},
                                     {130, 1}})
    for (llm_dtype pages : {LLM_F32, LLM_BF16, LLM_I8, LLM_I4}) {
      Case c;
      c.blockSize = 32;
      c.queryHeads = queryHeads;
      c.kvHeads = kvHeads;
      c.headDim = 32;
      c.pageType = pages;
      c.sequences = {{90, 1}, {10, 7}};
      check(c);
    }
}

TEST_P(AttentionTest, WindowsAndSoftcaps) {
  for (int32_t window : {0, 1, 5, 64, 100, 1000})
    for (float softcap : {0.0f, 2.0f, 50.0f})
      for (bool causal : {true, false}) {
        Case c;
        c.window = window;
        c.softcap = softcap;
        c.causal = causal;
        c.headDim = 48;
        c.queryHeads = 3;
        c.kvHeads = 3;
        c.pageType = LLM_F16;
        c.sequences = {{200, 1}, {0, 70}, {150, 13}};
        check(c);
      }
}

/// A window that covers the sinks, that ends beside them, in their tile, in
/// their chunk, and far behind; sinks of a part of a tile, of tiles, of chunks.
TEST_P(AttentionTest, SinksBesideAWindow) {
  for (int32_t sinks : {1, 4, 64, 70, 600})
    for (int32_t window : {1, 5, 70, 700}) {
      Case c;
      c.window = window;
      c.sinks = sinks;
      c.headDim = 40;
      c.pageType = formats[(sinks + window / 5) % 6];
      c.sequences = {{1300, 1}, {0, 12}, {sinks + window - 3, 6}, {90, 3}};
      check(c);
      c.sinkQuery = true;
      check(c);
    }
}

TEST_P(AttentionTest, EveryCombinationOfModifiers) {
  for (int bits = 0; bits < 64; ++bits)
    for (llm_dtype type : {LLM_F32, LLM_BF16, LLM_I4}) {
      Case c;
      c.alibi = bits & 1;
      c.headSink = bits & 2;
      c.sinkQuery = bits & 4;
      c.softcap = bits & 8 ? 2 : 0;
      c.window = bits & 16 ? 33 : 0;
      c.sinks = c.window ? 4 : 0;
      c.sinkQuery &= c.sinks > 0;
      c.causal = !(bits & 32);
      c.pageType = type;
      c.type = type == LLM_I4 ? LLM_F32 : type;
      c.blockSize = 32;
      c.sequences = {{150, 1}, {0, 11}, {60, 3}, {2, 2}};
      check(c);
    }
}

/// Prefill of many rows, and decode that threads share.
TEST_P(AttentionTest, ModifiersOfManyRowsAndOfManyChunks) {
  for (llm_dtype pages : formats)
    for (int32_t window : {0, 1100}) {
      Case c;
      c.window = window;
      c.sinks = window ? 70 : 0;
      c.sinkQuery = window;
      c.alibi = c.headSink = true;
      c.pageType = pages;
      c.headDim = 80;
      c.queryHeads = 6;
      c.sequences = {{2500, 1}};
      check(c);
      c.sequences = {{0, 150}, {1200, 40}};
      check(c);
    }
}

TEST_P(AttentionTest, PrefillOverManyTilesAndChunks) {
  for (llm_dtype pages : formats) {
    Case c;
    c.headDim = 80;
    c.queryHeads = 2;
    c.kvHeads = 1;
    c.pageType = pages;
    c.sequences = {{0, 150}, {500, 37}, {1000, 65}};
    check(c);
  }
}

/// A chunk ends at 512: the first rows of a task see keys before it alone, the
/// last ones behind it.
TEST_P(AttentionTest, RowsThatSeeNothingOfAChunk) {
  for (int32_t threads : {1, 4}) {
    setNumThreads(threads);
    Case c;
    c.headDim = 16;
    c.window = 5;
    c.sequences = {{490, 30}};
    check(c);
  }
}

TEST_P(AttentionTest, LongDecodeIsSplitOverThreads) {
  for (llm_dtype pages : formats)
    for (int32_t window : {0, 1100}) {
      Case c;
      c.queryHeads = 4;
      c.kvHeads = 1;
      c.pageType = pages;
      c.window = window;
      c.sequences = {{2500, 1}};
      check(c);
    }
}

TEST_P(AttentionTest, LargestHeadDim) {
  Case c;
  c.headDim = kMaxHeadDim;
  c.queryHeads = 2;
  c.kvHeads = 1;
  c.sequences = {{66, 2}};
  check(c);
}

TEST_P(AttentionTest, TokenMajorPages) {
  Case c;
  c.tokenMajor = true;
  c.sequences = {{100, 3}};
  check(c);
}

/// One key, or the head's logit, has all of the weight.
TEST_P(AttentionTest, HugeScoresDoNotOverflow) {
  for (float scale : {300.0f, 1e12f, 1e30f, -1e30f})
    for (int bits = 0; bits < 8; ++bits) {
      Case c;
      c.scale = scale;
      c.alibi = bits & 1;
      c.headSink = bits & 2;
      c.sequences = {{bits & 4 ? 40 : 1200, 3}};
      SCOPED_TRACE(describe(c));
      Problem p(c);
      p.run();
      std::vector<float> out = p.results();
      for (int32_t head = 0; head < c.queryHeads; ++head) {
        Row expected = reference(p, 0, 1, head);
        ASSERT_NEAR(p.lse[c.queryHeads + 1 + head] / expected.lse, 1, 1e-6);
        const float *row = &out[p.tokenStride() + head * p.headStride()];
        for (int32_t d = 0; d < c.headDim; ++d)
          ASSERT_NEAR(row[d], expected.out[d], 1e-3);
      }
    }
}

/// The largest scale that there is; only scores of zero do not overflow.
TEST_P(AttentionTest, LargestScale) {
  Case c;
  c.scale = std::numeric_limits<float>::max();
  c.sequences = {{100, 3}};
  Problem p(c);
  std::fill(p.q.begin(), p.q.end(), 0);
  std::fill(p.queries.begin(), p.queries.end(), 0.0f);
  p.run();
  for (int32_t head = 0; head < c.queryHeads; ++head)
    if (!checkRow(p, p.results(), 0, 2, head))
      return;
}

/// A whole tile of them, and some of the next one.
TEST_P(AttentionTest, KeysThatScoreMinusInfinity) {
  for (auto [type, queries] : {std::pair{LLM_F32, 3},
                               {LLM_F16, 3},
                               {LLM_BF16, 3},
                               {LLM_F32, 20},
                               {LLM_F16, 20},
                               {LLM_BF16, 20}}) {
    Case c;
    c.type = c.pageType = type;
    c.sequences = {{100, queries}};
    SCOPED_TRACE(describe(c));
    Problem p(c);
    for (int64_t row = 0; row < c.sequences[0].queries; ++row)
      for (int32_t head = 0; head < c.queryHeads; ++head) {
        int64_t at = row * p.tokenStride() + head * p.headStride();
        p.queries[at] = 1;
        cpu::kernels().convert(p.q.data() + at * bytesOf(type), type,
                               &p.queries[at], LLM_F32, 1);
      }
    for (int32_t at = 0; at < 70; ++at)
      for (int32_t head = 0; head < c.kvHeads; ++head) {
        p.keys[0][(int64_t(at) * c.kvHeads + head) * c.headDim] = -INFINITY;
        p.writeRow(p.pages.k, p.keys[0], 0, at, head);
      }
    for (bool lse : {true, false}) {
      p.c.lse = lse;
      p.run();
      for (int32_t head = 0; head < c.queryHeads; ++head)
        if (!checkRow(p, p.results(), 0, 1, head))
          return;
    }
  }
}

/// At dimension 0 of a key that every query sees.
TEST_P(AttentionTest, InfiniteValuesGiveInfinity) {
  for (llm_dtype type : types)
    for (auto [queries, lse] : {std::pair{3, true}, {20, true}, {20, false}}) {
      Case c;
      c.type = c.pageType = type;
      c.sequences = {{100, queries}};
      c.lse = lse;
      SCOPED_TRACE(describe(c));
      Problem p(c);
      for (int32_t head = 0; head < c.kvHeads; ++head) {
        p.values[0][(int64_t(30) * c.kvHeads + head) * c.headDim] = -INFINITY;
        p.writeRow(p.pages.v, p.values[0], 0, 30, head);
      }
      p.run();
      std::vector<float> out = p.results();
      for (int32_t t = 0; t < queries; ++t)
        for (int32_t head = 0; head < c.queryHeads; ++head) {
          int64_t at = t * p.tokenStride() + head * p.headStride();
          ASSERT_EQ(out[at], -INFINITY) << "query " << t;
          ASSERT_TRUE(std::isfinite(out[at + 1])) << "query " << t;
        }
    }
}

/// Rows of a sequence of length 0, which have this lse.
template <typename Fn>
void expectNothing(const Case &c, const Fn &lse) {
  Problem p(c);
  p.seqLens[0] = 0;
  p.run();
  for (int32_t head = 0; head < c.queryHeads; ++head) {
    EXPECT_FLOAT_EQ(p.lse[head], lse(p, head));
    for (int32_t d = 0; d < c.headDim; ++d)
      EXPECT_EQ(p.results()[head * p.headStride() + d], 0);
  }
}

TEST_P(AttentionTest, RowWithoutKeysIsZero) {
  Case c;
  c.sequences = {{3, 2}};
  expectNothing(c, [](const Problem &, int32_t) { return -INFINITY; });
}

/// Numbers of a query, of keys or of values whose integers of 16 bits would
/// have no step: too large, or too small. Results are as exact as others.
TEST_P(AttentionTest, NumbersFarFromOne) {
  enum What { Query, Keys, Values };
  for (What what : {Query, Keys, Values})
    for (llm_dtype pages : {LLM_BF16, LLM_F8E4M3FN, LLM_I8})
      for (float factor : {0x1p70f, 0x1p-70f, 0x1p110f, 0x1p-110f}) {
        Case c;
        c.pageType = pages;
        c.lse = false;
        c.scale = what == Values ? 0 : 0.1f / factor;
        c.sequences = {{100, 20}};
        SCOPED_TRACE(describe(c));
        Problem p(c);
        for (float &x : what == Query  ? p.queries
                        : what == Keys ? p.keys[0]
                                       : p.values[0])
          x *= factor;
        memcpy(p.q.data(), p.queries.data(), p.q.size());
        for (int32_t at = 0; at < p.lengthOf(0); ++at)
          for (int32_t head = 0; head < c.kvHeads; ++head) {
            p.writeRow(p.pages.k, p.keys[0], 0, at, head);
            p.writeRow(p.pages.v, p.values[0], 0, at, head);
          }
        p.run();
        std::vector<float> out = p.results();
        forRows(c, [&](size_t i, int32_t t, int32_t head) {
          const Row expected = reference(p, i, t, head);
          const double unit = what == Values ? factor : 1;
          for (int32_t d = 0; d < c.headDim; ++d)
            ASSERT_NEAR(out[p.rowAt(i, t, head) + d] / unit,
                        expected.out[d] / unit, 2e-3);
        });
      }
}

/// Products of queries and keys that point the same way, or the opposite one,
/// are the largest that numbers of their length can have.
TEST_P(AttentionTest, QueriesAlongKeys) {
  for (llm_dtype pages : formats)
    for (int32_t dim : {1, 64, 256}) {
      Case c;
      c.pageType = pages;
      c.headDim = dim;
      c.scale = 1.0f / float(dim);
      c.lse = false;
      c.sequences = {{32, 32}};
      Problem p(c);
      std::fill(p.queries.begin(), p.queries.end(), 3.0f);
      memcpy(p.q.data(), p.queries.data(), p.q.size());
      for (int32_t at = 0; at < p.lengthOf(0); ++at)
        std::fill_n(&p.keys[0][at * c.kvHeads * dim], c.kvHeads * dim,
                    at % 3 ? 2.0f : -2.0f);
      for (int32_t at = 0; at < p.lengthOf(0); ++at)
        for (int32_t head = 0; head < c.kvHeads; ++head)
          if (pages != LLM_I4)
            p.writeRow(p.pages.k, p.keys[0], 0, at, head);
          else if (at % 32 == 0 && head == 0)
            p.writeGroup(0, at);
      p.run();
      SCOPED_TRACE(describe(c));
      std::vector<float> out = p.results();
      forRows(c, [&](size_t i, int32_t t, int32_t head) {
        if (!::testing::Test::HasFailure())
          checkRow(p, out, i, t, head);
      });
    }
}

/// A head's logit is all that such a row has.
TEST_P(AttentionTest, RowWithoutKeysHasItsHeadsLogit) {
  Case c;
  c.headSink = true;
  c.sequences = {{3, 2}};
  expectNothing(
      c, [](const Problem &p, int32_t head) { return p.logits[2 * head]; });
}

TEST_P(AttentionTest, EmptyBatchAndSequenceWithoutQueries) {
  Case c;
  c.sequences = {};
  check(c);
  c.sequences = {{20, 0}, {30, 2}, {5, 0}};
  check(c);
}

/// What is not finite at a position of K and V reaches the queries that see it,
/// and leaves the others as they are.
template <typename Fn>
void expectReach(const Case &c, int32_t position, float poison,
                 const Fn &sees) {
  if (c.lse) {
    Case without = c;
    without.lse = false;
    expectReach(without, position, poison, sees);
  }
  SCOPED_TRACE(describe(c));
  Problem p(c);
  p.run();
  std::vector<float> before = p.results();
  std::fill_n(&p.keys[0][position * c.kvHeads * c.headDim],
              c.kvHeads * c.headDim, poison);
  for (int32_t h = 0; h < c.kvHeads; ++h) {
    p.writeRow(p.pages.k, p.keys[0], 0, position, h);
    p.writeRow(p.pages.v, p.keys[0], 0, position, h);
  }
  p.run();
  std::vector<float> after = p.results();
  for (int32_t t = 0; t < p.tokens; ++t)
    for (int32_t h = 0; h < c.queryHeads; ++h) {
      int64_t at = t * p.tokenStride() + h * p.headStride();
      ASSERT_EQ(!std::isfinite(after[at]), sees(t)) << "query " << t;
      ASSERT_TRUE(sees(t) || after[at] == before[at]) << "query " << t;
    }
}

/// A query must not be reached by what it does not see, even if other rows of
/// its tile see it: what is not finite at one position, without and with a
/// window.
/// peers: shark-ai#833, vllm#35138, vllm#39146, tt-metal#45193
TEST_P(AttentionTest, UnseenTokensCannotReachAQuery) {
  constexpr int32_t kPast = 40, kPoisoned = 52;
  struct {
    llm_dtype type;
    float poison;
  } const poisons[] = {{LLM_F32, kNaN},      {LLM_F16, kNaN},
                       {LLM_BF16, kNaN},     {LLM_F32, HUGE_VALF},
                       {LLM_F16, HUGE_VALF}, {LLM_I8, kNaN},
                       {LLM_F8E4M3FN, kNaN}};
  for (int32_t kvHeads : {1, 4})
    for (auto [type, poison] : poisons) {
      int32_t window = type == LLM_F32 ? 0 : 5;
      Case c;
      c.kvHeads = kvHeads;
      c.window = window;
      c.pageType = type;
      c.sequences = {{kPast, 20}};
      expectReach(c, kPoisoned, poison, [=](int32_t t) {
        return kPast + t >= kPoisoned &&
               (!window || kPast + t - window < kPoisoned);
      });
    }
}

/// All rows see all of the last tile, which is short; the first query alone
/// sees, in the tile before, what is not finite behind as many keys.
TEST_P(AttentionTest, TokensOfATileCannotReachTheNext) {
  for (llm_dtype type : types) {
    Case c;
    c.causal = false;
    c.window = 20;
    c.pageType = type;
    c.sequences = {{50, 20}};
    expectReach(c, 31, kNaN, [](int32_t t) { return t == 0; });
  }
}

/// K and V of a pool of 6 GB of address space; block `block` is 3 GB into it.
/// peers: flashinfer#3130, vllm#47671
TEST_P(AttentionTest, OffsetsBeyondTwoGigabytes) {
  constexpr int64_t kBytes = int64_t(6) << 30;
  void *pool = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(pool, MAP_FAILED);
  constexpr int32_t kDim = 64, kBlock = 16;
  constexpr int64_t kBlockBytes = kBlock * kDim * 4;
  KVPlane k = {static_cast<char *>(pool), LLM_F32, kBlockBytes, kBlockBytes,
               kDim * 4};
  KVPlane v = k;
  v.data += kBytes / 2;
  KVPages pages = {k, v, 1, kDim, kBlock};
  int32_t block = static_cast<int32_t>((kBytes / 2 - 65536) / kBlockBytes);
  ASSERT_GT(block * kBlockBytes, int64_t(1) << 31);
  std::vector<float> row(kDim);
  std::iota(row.begin(), row.end(), 1.0f);
  llm_tensor kv = tensorOf(row.data(), LLM_F32, {1, 1, kDim}, {kDim, kDim, 1});
  int64_t slot = int64_t(block) * kBlock;
  writeKV(pages, &slot, kv, kv);
  int32_t cuSeqlens[] = {0, 1}, position = 0, length = 1;
  BatchView batch = {1, cuSeqlens, &position, &length, &block, 1};
  std::vector<float> result(kDim);
  llm_tensor out =
      tensorOf(result.data(), LLM_F32, {1, 1, kDim}, {kDim, kDim, 1});
  pagedAttention(pages, batch, {1, 0, 0, true}, kv, out, nullptr);
  EXPECT_EQ(result, row);
  munmap(pool, kBytes);
}

LLM_AT_EVERY_LEVEL(AttentionTest);

} // namespace
