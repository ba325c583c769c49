//===- AttentionTest.cpp - Paged attention against a dense reference ------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The reference is float64 over dense K and V as the pages hold them (rounded
// to their dtype). Every row of every sequence is compared. All that no query
// may read is NaN: free blocks, slots behind a sequence's end, keys below a
// window, and the table entries of such blocks lead out of the pool.
//
//===----------------------------------------------------------------------===//

#include "Levels.h"
#include "Parallel.h"
#include "llm/Runtime/AttentionPlan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include <sys/mman.h>

using namespace llm;

namespace {

//===----------------------------------------------------------------------===//
// Cases
//===----------------------------------------------------------------------===//

struct Sequence {
  int32_t past;
  int32_t queries;
};

struct Case {
  int32_t queryHeads = 4, kvHeads = 2, headDim = 64, blockSize = 16;
  llm_dtype pageType = LLM_F32, type = LLM_F32;
  llm_dtype vType = -1; ///< of V's pages, if not pageType
  std::vector<Sequence> sequences = {{0, 5}};
  float scale = 0, softcap = 0; ///< scale 0: 1 / sqrt(headDim)
  int32_t window = 0, sinks = 0;
  bool causal = true;
  bool alibi = false, headSink = false, sinkQuery = false;
  bool tokenMajor = false; ///< pages [token][head][dim], not head-major
  unsigned seed = 1;

  llm_dtype typeOfV() const { return vType < 0 ? pageType : vType; }
};

const char *nameOf(llm_dtype type) {
  return type == LLM_F32    ? "f32"
         : type == LLM_F16  ? "f16"
         : type == LLM_BF16 ? "bf16"
         : type == LLM_I8   ? "i8"
                            : "f8E4M3FN";
}

std::string describe(const Case &c) {
  std::ostringstream text;
  text << c.queryHeads << "/" << c.kvHeads << "x" << c.headDim << " blocks of "
       << c.blockSize << ", pages " << nameOf(c.pageType) << " and "
       << nameOf(c.typeOfV()) << ", q " << nameOf(c.type) << ", window "
       << c.window << " + " << c.sinks << ", softcap " << c.softcap
       << ", causal " << c.causal << (c.alibi ? ", alibi" : "")
       << (c.headSink ? ", head sink" : "")
       << (c.sinkQuery ? ", sink query" : "") << ", sequences";
  for (Sequence s : c.sequences)
    text << " " << s.past << "+" << s.queries;
  return text.str();
}

double tolerance(const Case &c) {
  // The factors of i8 have 16 bits.
  bool integers = c.pageType == LLM_I8 || c.typeOfV() == LLM_I8;
  return c.type == LLM_F32   ? (integers ? 5e-5 : 1e-5)
         : c.type == LLM_F16 ? 2e-3
                             : 1.6e-2;
}

bool isQuantized(llm_dtype type) {
  return type == LLM_F8E4M3FN || type == LLM_I8;
}

int64_t bytesOf(llm_dtype type) {
  return type == LLM_F32 ? 4 : isQuantized(type) ? 1 : 2;
}

std::vector<float> toFloat(const void *from, llm_dtype type, int64_t n) {
  std::vector<float> result(n);
  cpu::kernels().convert(result.data(), LLM_F32, from, type, n);
  return result;
}

llm_tensor tensorOf(void *data, llm_dtype type, std::vector<int64_t> sizes,
                    std::vector<int64_t> strides) {
  llm_tensor tensor = {};
  tensor.data = data;
  tensor.dtype = type;
  tensor.rank = static_cast<int32_t>(sizes.size());
  std::copy(sizes.begin(), sizes.end(), tensor.sizes);
  std::copy(strides.begin(), strides.end(), tensor.strides);
  return tensor;
}

//===----------------------------------------------------------------------===//
// A batch with its pool
//===----------------------------------------------------------------------===//

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kUntouched = -77;

/// Inputs of a case and the results of the last run.
struct Problem {
  Case c;
  int64_t tokens = 0;
  std::vector<int32_t> cuSeqlens, firstPosition, seqLens, table;
  int64_t tableStride = 0, numBlocks = 0;
  using Rows = std::vector<std::vector<float>>; ///< [sequence][pos][head][dim]
  Rows keys, values;                            ///< as the pages hold them
  Rows givenKeys, givenValues;
  std::vector<char> kPool, vPool, q, sinkQ, out;
  std::vector<float> queries, sinkQueries, lse;
  std::vector<float> slopes, logits; ///< of head h: at 2h
  KVPages pages = {};

  explicit Problem(const Case &c) : c(c) {
    layOut();
    fill();
  }

  int32_t lengthOf(size_t i) const {
    return c.sequences[i].past + c.sequences[i].queries;
  }

  // Strides of q and out leave gaps between heads and between tokens.
  int64_t headStride() const { return c.headDim + 3; }
  int64_t tokenStride() const { return c.queryHeads * headStride() + 5; }

  void layOut() {
    cuSeqlens = {0};
    for (size_t i = 0; i < c.sequences.size(); ++i) {
      firstPosition.push_back(c.sequences[i].past);
      seqLens.push_back(lengthOf(i));
      cuSeqlens.push_back(cuSeqlens.back() + c.sequences[i].queries);
      int64_t blocks = (lengthOf(i) + c.blockSize - 1) / c.blockSize;
      tableStride = std::max<int64_t>(tableStride, blocks + 1);
      numBlocks += blocks + 1; // and a free one
    }
    tokens = cuSeqlens.back();
    permuteBlocks();
    pages.kvHeads = c.kvHeads;
    pages.headDim = c.headDim;
    pages.blockSize = c.blockSize;
    pages.k = layOut(c.pageType);
    pages.v = layOut(c.typeOfV());
  }

  /// Scales come after all heads of a block.
  KVPlane layOut(llm_dtype type) const {
    int64_t row = c.headDim * bytesOf(type);
    KVPlane plane = {nullptr, type, row * c.kvHeads * c.blockSize + 64,
                     c.tokenMajor ? row : row * c.blockSize,
                     c.tokenMajor ? row * c.kvHeads : row};
    if (isQuantized(type)) {
      plane.scaleHeadStride = c.blockSize * 4;
      plane.blockStride = scalesAt(plane) + c.kvHeads * plane.scaleHeadStride;
    }
    return plane;
  }

  /// Of the first head in a block.
  int64_t scalesAt(const KVPlane &plane) const {
    return (int64_t(c.headDim) * c.kvHeads * c.blockSize *
                bytesOf(plane.dtype) +
            3) /
           4 * 4;
  }

  void permuteBlocks() {
    std::vector<int32_t> order(numBlocks);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(c.seed));
    table.assign(tableStride * c.sequences.size(), -1);
    size_t next = 0;
    for (size_t i = 0; i < c.sequences.size(); ++i)
      for (int32_t at = 0; at < lengthOf(i); at += c.blockSize)
        table[i * tableStride + at / c.blockSize] = order[next++];
  }

  /// The first position that a query of sequence i sees behind the sinks.
  int32_t firstVisible(size_t i) const {
    return c.window ? std::max(0, c.sequences[i].past + 1 - c.window) : 0;
  }

  void fill() {
    fillPool(kPool, pages.k);
    fillPool(vPool, pages.v);
    for (size_t i = 0; i < c.sequences.size(); ++i)
      fillSequence(i);
    fillQueries();
  }

  /// 0x7fff is a NaN as f16, bf16 and two of them as f32: as scales, too.
  void fillPool(std::vector<char> &pool, KVPlane &plane) const {
    pool.resize(numBlocks * plane.blockStride);
    for (size_t i = 0; i < pool.size(); ++i)
      pool[i] = static_cast<char>(i % 2 ? 0x7f : 0xff);
    plane.data = pool.data();
    if (isQuantized(plane.dtype))
      plane.scales = pool.data() + scalesAt(plane);
  }

  /// Data depends on the sequence's own seed, not on its place in the batch.
  void fillSequence(size_t i) {
    std::mt19937 random(c.seed + 1000 * c.sequences[i].past);
    std::normal_distribution<float> normal;
    int64_t n = int64_t(lengthOf(i)) * c.kvHeads * c.headDim;
    for (auto *to : {&keys, &values}) {
      to->emplace_back(n);
      for (float &x : to->back())
        x = normal(random);
    }
    givenKeys.push_back(keys[i]);
    givenValues.push_back(values[i]);
    for (int32_t at = 0; at < lengthOf(i); ++at)
      for (int32_t h = 0; h < c.kvHeads; ++h)
        if (at < c.sinks || at >= firstVisible(i)) {
          writeRow(pages.k, keys[i], i, at, h);
          writeRow(pages.v, values[i], i, at, h);
        }
    for (int32_t at = (c.sinks + c.blockSize - 1) / c.blockSize;
         at < firstVisible(i) / c.blockSize; ++at)
      table[i * tableStride + at] = -1000000; // given back: leads nowhere
  }

  /// Rounds a row into its page, and back to what the reference reads.
  void writeRow(const KVPlane &plane, std::vector<float> &from, size_t i,
                int32_t at, int32_t head) {
    float *row = &from[(int64_t(at) * c.kvHeads + head) * c.headDim];
    int32_t block = table[i * tableStride + at / c.blockSize];
    char *to = plane.at(block, head, at % c.blockSize);
    if (isQuantized(plane.dtype))
      *plane.scaleAt(block, head, at % c.blockSize) =
          cpu::kernels().quantize(to, plane.dtype, row, LLM_F32, c.headDim);
    else
      cpu::kernels().convert(to, plane.dtype, row, LLM_F32, c.headDim);
    readRow(plane, block, head, at % c.blockSize, c.headDim, row, LLM_F32);
  }

  void fillQueries() {
    fillRows(c.seed, q, queries);
    fillRows(c.seed + 5, sinkQ, sinkQueries);
    std::mt19937 random(c.seed);
    std::normal_distribution<float> normal;
    slopes.assign(2 * c.queryHeads, kNaN);
    logits.assign(2 * c.queryHeads, kNaN);
    for (int32_t h = 0; h < c.queryHeads; ++h) {
      slopes[2 * h] = float(h + 1) / float(8 * c.queryHeads);
      logits[2 * h] = h == 1 ? -INFINITY : 3 * normal(random);
    }
  }

  /// Rows like q's, and as the kernel reads them.
  void fillRows(unsigned seed, std::vector<char> &rows,
                std::vector<float> &read) const {
    std::vector<float> data(tokens * tokenStride(), kNaN);
    for (size_t i = 0; i < c.sequences.size(); ++i) {
      for (int32_t t = 0; t < c.sequences[i].queries; ++t) {
        std::mt19937 random(seed + 17 * (c.sequences[i].past + t));
        std::normal_distribution<float> normal;
        float *row = &data[(cuSeqlens[i] + t) * tokenStride()];
        for (int32_t h = 0; h < c.queryHeads; ++h)
          for (int32_t d = 0; d < c.headDim; ++d)
            row[h * headStride() + d] = normal(random);
      }
    }
    rows.resize(data.size() * bytesOf(c.type));
    cpu::kernels().convert(rows.data(), c.type, data.data(), LLM_F32,
                           data.size());
    read = toFloat(rows.data(), c.type, data.size());
  }

  float scale() const {
    return c.scale != 0 ? c.scale : 1 / std::sqrt(float(c.headDim));
  }

  void run(AttentionPlan *plan = nullptr) {
    std::vector<float> blank(tokens * tokenStride(), kUntouched);
    out.resize(q.size());
    cpu::kernels().convert(out.data(), c.type, blank.data(), LLM_F32,
                           blank.size());
    lse.assign(tokens * (c.queryHeads + 1), kUntouched);
    std::vector<int64_t> sizes = {tokens, c.queryHeads, c.headDim};
    std::vector<int64_t> strides = {tokenStride(), headStride(), 1};
    llm_tensor qTensor = tensorOf(q.data(), c.type, sizes, strides);
    llm_tensor outTensor = tensorOf(out.data(), c.type, sizes, strides);
    llm_tensor lseTensor = tensorOf(lse.data(), LLM_F32, {tokens, c.queryHeads},
                                    {c.queryHeads + 1, 1});
    BatchView batch = {static_cast<int32_t>(c.sequences.size()),
                       cuSeqlens.data(),
                       firstPosition.data(),
                       seqLens.data(),
                       table.data(),
                       tableStride};
    llm_tensor sinkQTensor = tensorOf(sinkQ.data(), c.type, sizes, strides);
    llm_tensor alibi = tensorOf(slopes.data(), LLM_F32, {c.queryHeads}, {2});
    llm_tensor headSink = tensorOf(logits.data(), LLM_F32, {c.queryHeads}, {2});
    AttentionParams params = {scale(), c.softcap, c.window, c.causal};
    params.sinks = c.sinks;
    params.alibi = c.alibi ? &alibi : nullptr;
    params.headSink = c.headSink ? &headSink : nullptr;
    params.sinkQuery = c.sinkQuery ? &sinkQTensor : nullptr;
    pagedAttention(pages, batch, params, qTensor, outTensor, &lseTensor, plan);
  }

  std::vector<float> results() const {
    return toFloat(out.data(), c.type, tokens * tokenStride());
  }
};

//===----------------------------------------------------------------------===//
// The reference
//===----------------------------------------------------------------------===//

struct Row {
  std::vector<double> out;
  double lse;
  double maxValue; ///< largest |V| it sees: what tolerances refer to
};

/// Over what the pages hold, or over what was `given` to them.
Row reference(const Problem &p, size_t i, int32_t t, int32_t head,
              bool given = false) {
  const Case &c = p.c;
  const std::vector<float> &keys = (given ? p.givenKeys : p.keys)[i];
  const std::vector<float> &values = (given ? p.givenValues : p.values)[i];
  int64_t position = c.sequences[i].past + t;
  int32_t kvHead = head / (c.queryHeads / c.kvHeads);
  const int64_t query =
      (p.cuSeqlens[i] + t) * p.tokenStride() + head * p.headStride();
  auto rowOf = [&](const std::vector<float> &from, int64_t at) {
    return &from[(at * c.kvHeads + kvHead) * c.headDim];
  };
  auto visible = [&](int64_t at) {
    return (!c.causal || at <= position) &&
           (!c.window || at > position - c.window || at < c.sinks);
  };
  std::vector<double> scores(p.seqLens[i]);
  double top = -INFINITY, sum = 0;
  for (int64_t at = 0; at < p.seqLens[i]; ++at) {
    if (!visible(at))
      continue;
    const float *k = rowOf(keys, at);
    const bool nearer = c.sinkQuery && at < c.sinks;
    const float *q = &(nearer ? p.sinkQueries : p.queries)[query];
    double s = std::inner_product(q, q + c.headDim, k, 0.0) * p.scale();
    scores[at] = c.softcap ? c.softcap * std::tanh(s / c.softcap) : s;
    if (c.alibi)
      scores[at] += p.slopes[2 * head] * double(at - position);
    top = std::max(top, scores[at]);
  }
  const double logit = c.headSink ? p.logits[2 * head] : -INFINITY;
  top = std::max(top, logit);
  Row row = {std::vector<double>(c.headDim), -INFINITY, 1};
  if (!std::isinf(logit))
    sum = std::exp(logit - top);
  for (int64_t at = 0; at < p.seqLens[i]; ++at)
    if (visible(at))
      sum += std::exp(scores[at] - top);
  for (int64_t at = 0; at < p.seqLens[i]; ++at) {
    if (!visible(at))
      continue;
    const float *v = rowOf(values, at);
    for (int32_t d = 0; d < c.headDim; ++d) {
      row.out[d] += std::exp(scores[at] - top) / sum * v[d];
      row.maxValue = std::max<double>(row.maxValue, std::abs(v[d]));
    }
  }
  if (sum > 0)
    row.lse = top + std::log(sum);
  return row;
}

/// One row of the results against the reference. False: stop.
bool checkRow(const Problem &p, const std::vector<float> &out, size_t i,
              int32_t t, int32_t head) {
  Row expected = reference(p, i, t, head);
  int64_t token = p.cuSeqlens[i] + t;
  double lse = p.lse[token * (p.c.queryHeads + 1) + head];
  double error = std::isinf(expected.lse) ? lse != expected.lse
                                          : std::abs(lse - expected.lse);
  EXPECT_LE(error, 1e-4) << "lse of sequence " << i << " query " << t
                         << " head " << head << ": " << lse << ", expected "
                         << expected.lse;
  const float *row =
      &out[token * p.tokenStride() + int64_t(head) * p.headStride()];
  double worst = 0;
  for (int32_t d = 0; d < p.c.headDim; ++d) {
    double difference = std::abs(row[d] - expected.out[d]);
    worst = difference <= worst ? worst : difference; // keeps NaN
  }
  EXPECT_LE(worst, tolerance(p.c) * expected.maxValue)
      << "out of sequence " << i << " query " << t << " head " << head;
  return !testing::Test::HasFailure();
}

/// What lies between the rows of out and of lse is as it was.
void checkGaps(const Problem &p, const std::vector<float> &out) {
  for (int64_t token = 0; token < p.tokens; ++token) {
    for (int64_t i = 0; i < p.tokenStride(); ++i) {
      bool gap = i / p.headStride() >= p.c.queryHeads ||
                 i % p.headStride() >= p.c.headDim;
      ASSERT_EQ(out[token * p.tokenStride() + i] == kUntouched, gap);
    }
    ASSERT_EQ(p.lse[token * (p.c.queryHeads + 1) + p.c.queryHeads], kUntouched);
  }
}

void check(const Case &c) {
  SCOPED_TRACE(describe(c));
  Problem p(c);
  p.run();
  std::vector<float> out = p.results();
  checkGaps(p, out);
  for (size_t i = 0; i < c.sequences.size(); ++i)
    for (int32_t t = 0; t < c.sequences[i].queries; ++t)
      for (int32_t head = 0; head < c.queryHeads; ++head)
        if (!checkRow(p, out, i, t, head))
          return;
}

//===----------------------------------------------------------------------===//
// Against the reference, at every level
//===----------------------------------------------------------------------===//

class AttentionTest : public LevelTest {
protected:
  void SetUp() override {
    LevelTest::SetUp();
    setNumThreads(4);
  }
  void TearDown() override {
    LevelTest::TearDown();
    setNumThreads(0);
  }
};

constexpr llm_dtype types[] = {LLM_F32, LLM_F16, LLM_BF16};
constexpr llm_dtype formats[] = {LLM_F32, LLM_F16, LLM_BF16, LLM_F8E4M3FN,
                                 LLM_I8};

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

/// The worst row's relative error in the norm of L2.
double worstRow(const Case &c) {
  Problem p(c);
  p.run();
  std::vector<float> out = p.results();
  double worst = 0;
  for (size_t i = 0; i < c.sequences.size(); ++i)
    for (int32_t t = 0; t < c.sequences[i].queries; ++t)
      for (int32_t head = 0; head < c.queryHeads; ++head) {
        Row expected = reference(p, i, t, head);
        const float *row = &out[(p.cuSeqlens[i] + t) * p.tokenStride() +
                                head * p.headStride()];
        double error = 0, norm = 0;
        for (int32_t d = 0; d < c.headDim; ++d) {
          error += std::pow(row[d] - expected.out[d], 2);
          norm += std::pow(expected.out[d], 2);
        }
        worst = std::max(worst, std::sqrt(error / norm));
      }
  return worst;
}

/// Results are exact but for f32's rounding, and for the one to their own type:
/// of bf16 alone 1.7e-3, and 2.3e-3 in the worst row. Dot products of bf16
/// round the weights besides.
TEST_P(AttentionTest, RelativeErrors) {
  bool dots = GetParam().name == std::string("x86-64-v4+bf16+vnni");
  for (llm_dtype pages : types)
    for (llm_dtype type : types)
      for (int32_t dim : {64, 80, 96, 128, 256})
        for (int32_t window : {0, 70}) {
          Case c;
          c.pageType = pages;
          c.type = type;
          c.headDim = dim;
          c.window = window;
          c.softcap = window ? 3 : 0;
          c.sequences = {{600, 1}, {30, 20}, {130, 4}};
          SCOPED_TRACE(describe(c));
          double bound = type == LLM_F32             ? 1e-5
                         : type == LLM_F16           ? 5e-4
                         : dots && pages == LLM_BF16 ? 3.5e-3
                                                     : 2.3e-3;
          EXPECT_LE(worstRow(c), bound);
        }
}

/// Of results against what was given to quantized pages; and of an exact
/// computation over what the pages hold. Squares, summed over all rows.
struct Errors {
  double kernel = 0, exact = 0, norm = 0;
};

Errors quantizationErrors(const Case &c) {
  Problem p(c);
  p.run();
  std::vector<float> out = p.results();
  Errors errors;
  for (size_t i = 0; i < c.sequences.size(); ++i)
    for (int32_t t = 0; t < c.sequences[i].queries; ++t)
      for (int32_t head = 0; head < c.queryHeads; ++head) {
        Row expected = reference(p, i, t, head, /*given=*/true);
        Row held = reference(p, i, t, head);
        const float *row = &out[(p.cuSeqlens[i] + t) * p.tokenStride() +
                                head * p.headStride()];
        for (int32_t d = 0; d < c.headDim; ++d) {
          errors.kernel += std::pow(row[d] - expected.out[d], 2);
          errors.exact += std::pow(held.out[d] - expected.out[d], 2);
          errors.norm += std::pow(expected.out[d], 2);
        }
      }
  return errors;
}

/// Numbers are normally distributed.
TEST_P(AttentionTest, ErrorsOfQuantization) {
  for (llm_dtype pages : {LLM_F8E4M3FN, LLM_I8})
    for (int32_t dim : {64, 80, 96, 128, 256})
      for (int32_t window : {0, 70}) {
        Case c;
        c.pageType = pages;
        c.headDim = dim;
        c.window = window;
        c.softcap = window ? 3 : 0;
        c.sequences = {{600, 1}, {30, 20}, {130, 4}};
        SCOPED_TRACE(describe(c));
        Errors errors = quantizationErrors(c);
        EXPECT_LE(std::sqrt(errors.kernel / errors.norm),
                  pages == LLM_I8 ? 1e-2 : 4e-2);
        EXPECT_LE(std::sqrt(errors.kernel), 1.1 * std::sqrt(errors.exact));
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
    for (llm_dtype pages : {LLM_F32, LLM_BF16, LLM_I8}) {
      Case c;
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
      c.pageType = formats[(sinks + window / 5) % 5];
      c.sequences = {{1300, 1}, {0, 12}, {sinks + window - 3, 6}, {90, 3}};
      check(c);
      c.sinkQuery = true;
      check(c);
    }
}

TEST_P(AttentionTest, EveryCombinationOfModifiers) {
  for (int bits = 0; bits < 64; ++bits)
    for (llm_dtype type : {LLM_F32, LLM_BF16}) {
      Case c;
      c.alibi = bits & 1;
      c.headSink = bits & 2;
      c.sinkQuery = bits & 4;
      c.softcap = bits & 8 ? 2 : 0;
      c.window = bits & 16 ? 33 : 0;
      c.sinks = c.window ? 4 : 0;
      c.sinkQuery &= c.sinks > 0;
      c.causal = !(bits & 32);
      c.type = c.pageType = type;
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

/// A head's logit is all that such a row has.
TEST_P(AttentionTest, RowWithoutKeysHasItsHeadsLogit) {
  Case c;
  c.headSink = true;
  c.sequences = {{3, 2}};
  Problem p(c);
  p.seqLens[0] = 0;
  p.run();
  for (int32_t head = 0; head < c.queryHeads; ++head) {
    EXPECT_FLOAT_EQ(p.lse[head], p.logits[2 * head]);
    for (int32_t d = 0; d < c.headDim; ++d)
      EXPECT_EQ(p.results()[head * p.headStride() + d], 0);
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
  for (llm_dtype type : types) {
    Case c;
    c.type = c.pageType = type;
    c.sequences = {{100, 3}};
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
    p.run();
    for (int32_t head = 0; head < c.queryHeads; ++head)
      if (!checkRow(p, p.results(), 0, 1, head))
        return;
  }
}

TEST_P(AttentionTest, RowWithoutKeysIsZero) {
  Case c;
  c.sequences = {{3, 2}};
  Problem p(c);
  p.seqLens[0] = 0;
  p.run();
  for (int32_t head = 0; head < c.queryHeads; ++head) {
    EXPECT_EQ(p.lse[head], -INFINITY);
    for (int32_t d = 0; d < c.headDim; ++d)
      EXPECT_EQ(p.results()[head * p.headStride() + d], 0);
  }
}

TEST_P(AttentionTest, EmptyBatchAndSequenceWithoutQueries) {
  Case c;
  c.sequences = {};
  check(c);
  c.sequences = {{20, 0}, {30, 2}, {5, 0}};
  check(c);
}

/// A query must not be reached by what it does not see, even if other rows of
/// its tile see it: a NaN at one position, without and with a window.
/// peers: shark-ai#833, vllm#35138, vllm#39146, tt-metal#45193
TEST_P(AttentionTest, UnseenTokensCannotReachAQuery) {
  constexpr int32_t kPast = 40, kPoisoned = 52;
  for (int32_t kvHeads : {1, 4})
    for (int32_t window : {0, 5}) {
      Case c;
      c.kvHeads = kvHeads;
      c.window = window;
      c.pageType = window ? LLM_I8 : LLM_F32;
      c.sequences = {{kPast, 20}};
      Problem p(c);
      p.run();
      std::vector<float> before = p.results();
      std::fill_n(&p.keys[0][kPoisoned * kvHeads * c.headDim],
                  kvHeads * c.headDim, kNaN);
      for (int32_t h = 0; h < kvHeads; ++h) {
        p.writeRow(p.pages.k, p.keys[0], 0, kPoisoned, h);
        p.writeRow(p.pages.v, p.keys[0], 0, kPoisoned, h);
      }
      p.run();
      std::vector<float> after = p.results();
      for (int32_t t = 0; t < p.tokens; ++t)
        for (int32_t h = 0; h < c.queryHeads; ++h) {
          int64_t at = t * p.tokenStride() + h * p.headStride();
          bool seen = kPast + t >= kPoisoned &&
                      (!window || kPast + t - window < kPoisoned);
          ASSERT_EQ(std::isnan(after[at]), seen) << "query " << t;
          ASSERT_TRUE(seen || after[at] == before[at]) << "query " << t;
        }
    }
}

//===----------------------------------------------------------------------===//
// The same bits
//===----------------------------------------------------------------------===//

/// Bits of the rows of sequence i, gaps included.
std::vector<char> bitsOf(Problem &p, size_t i) {
  p.run();
  int64_t bytes = p.tokenStride() * bytesOf(p.c.type);
  std::vector<char> bits(p.out.begin() + p.cuSeqlens[i] * bytes,
                         p.out.begin() + p.cuSeqlens[i + 1] * bytes);
  const char *lse = reinterpret_cast<const char *>(p.lse.data());
  int64_t lseBytes = (p.c.queryHeads + 1) * sizeof(float);
  bits.insert(bits.end(), lse + p.cuSeqlens[i] * lseBytes,
              lse + p.cuSeqlens[i + 1] * lseBytes);
  return bits;
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

TEST_P(AttentionTest, SameBitsForAnyNumberOfThreads) {
  for (llm_dtype pages : formats)
    for (int32_t sinks : {0, 4}) {
      Problem p(bitCase(pages, sinks));
      setNumThreads(1);
      std::vector<char> expected = bitsOf(p, 0);
      for (int32_t threads : {2, 3, 8, 16}) {
        setNumThreads(threads);
        EXPECT_EQ(bitsOf(p, 0), expected) << threads << " threads";
      }
    }
}

TEST_P(AttentionTest, SameBitsForAnyBlockSize) {
  for (llm_dtype pages : formats)
    for (int32_t sinks : {0, 4}) {
      Case c = bitCase(pages, sinks);
      Problem base(c);
      std::vector<char> expected = bitsOf(base, 0);
      for (int32_t block : {1, 5, 32, 64, 2000}) {
        c.blockSize = block;
        Problem p(c);
        EXPECT_EQ(bitsOf(p, 0), expected) << "blocks of " << block;
      }
    }
}

TEST_P(AttentionTest, SameBitsInAnyBatch) {
  for (llm_dtype pages : formats)
    for (int32_t sinks : {0, 4}) {
      Case c = bitCase(pages, sinks);
      Problem alone(c);
      std::vector<char> expected = bitsOf(alone, 0);
      c.sequences = {{0, 40}, {1200, 3}, {700, 1}, {3, 1}};
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
TEST_P(AttentionTest, SameBitsForAnyCutOfManyQueries) {
  for (llm_dtype pages : formats)
    for (auto [window, sinks] : {std::pair{0, 0}, {33, 0}, {33, 4}}) {
      Case c = bitCase(pages, sinks);
      c.window = window;
      c.sequences = {{0, 100}};
      ASSERT_GT(6 * c.queryHeads / c.kvHeads, cpu::kFewRows);
      expectSameBits(c, {99, 63, 36, 6});
    }
}

/// Drafted tokens, and the same tokens one by one.
TEST_P(AttentionTest, SameBitsForAnyCutOfFewQueries) {
  for (llm_dtype pages : formats)
    for (int32_t window : {0, 33}) {
      Case c = bitCase(pages);
      c.window = window;
      c.sequences = {{600, 5}};
      ASSERT_LE(5 * c.queryHeads / c.kvHeads, cpu::kFewRows);
      expectSameBits(c, {4, 3, 2, 1});
    }
}

/// One plan for calls that differ in what a plan depends on.
TEST_P(AttentionTest, SameBitsWithAPlanOfAnotherCall) {
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

//===----------------------------------------------------------------------===//
// Addresses
//===----------------------------------------------------------------------===//

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

/// Padding goes nowhere: page 0, where slot 0 is, stays as it was.
/// peers: shark-ai#826
TEST_P(AttentionTest, WriteKVConvertsOnceAndSkipsPadding) {
  for (llm_dtype pageType : types)
    for (llm_dtype type : types) {
      constexpr int32_t kHeads = 2, kDim = 5, kBlock = 3, kTokens = 4;
      std::vector<float> data(kTokens * kHeads * kDim);
      std::iota(data.begin(), data.end(), 0.3f);
      std::vector<char> k(data.size() * 4),
          pool(2 * 4 * kHeads * kBlock * kDim * 4, 0);
      cpu::kernels().convert(k.data(), type, data.data(), LLM_F32, data.size());
      int64_t row = kDim * bytesOf(pageType);
      KVPlane plane = {pool.data(), pageType, row * kHeads * kBlock,
                       row * kBlock, row};
      KVPages pages = {plane, plane, kHeads, kDim, kBlock};
      pages.v.data += pool.size() / 2;
      int64_t slots[] = {4, -1, 11, 6};
      llm_tensor kv = tensorOf(k.data(), type, {kTokens, kHeads, kDim},
                               {kHeads * kDim, kDim, 1});
      writeKV(pages, slots, kv, kv);
      std::vector<char> expected(pool.size(), 0);
      for (int half : {0, 1})
        for (int t : {0, 2, 3})
          for (int h = 0; h < kHeads; ++h)
            cpu::kernels().convert(
                &expected[half * pool.size() / 2 +
                          (plane.at(slots[t] / kBlock, h, slots[t] % kBlock) -
                           plane.data)],
                pageType, k.data() + (t * kHeads + h) * kDim * bytesOf(type),
                type, kDim);
      EXPECT_EQ(pool, expected) << nameOf(pageType) << " from " << nameOf(type);
    }
}

LLM_AT_EVERY_LEVEL(AttentionTest);

} // namespace
