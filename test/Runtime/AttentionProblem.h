//===- AttentionProblem.h - Attention and its reference ---------*- C++ -*-===//
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

#ifndef LLM_TEST_RUNTIME_ATTENTIONPROBLEM_H
#define LLM_TEST_RUNTIME_ATTENTIONPROBLEM_H

#include "Levels.h"
#include "Parallel.h"
#include "llm/Runtime/AttentionPlan.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <sstream>
#include <string>
#include <vector>

namespace llm {
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
  bool lse = true;         ///< is asked for
  unsigned seed = 1;

  llm_dtype typeOfV() const { return vType < 0 ? pageType : vType; }
};

inline const char *nameOf(llm_dtype type) {
  return type == LLM_F32    ? "f32"
         : type == LLM_F16  ? "f16"
         : type == LLM_BF16 ? "bf16"
         : type == LLM_I8   ? "i8"
         : type == LLM_I4   ? "i4"
                            : "f8E4M3FN";
}

inline std::string describe(const Case &c) {
  std::ostringstream text;
  text << c.queryHeads << "/" << c.kvHeads << "x" << c.headDim << " blocks of "
       << c.blockSize << ", pages " << nameOf(c.pageType) << " and "
       << nameOf(c.typeOfV()) << ", q " << nameOf(c.type) << ", window "
       << c.window << " + " << c.sinks << ", softcap " << c.softcap
       << ", causal " << c.causal << (c.alibi ? ", alibi" : "")
       << (c.headSink ? ", head sink" : "")
       << (c.sinkQuery ? ", sink query" : "") << (c.lse ? ", lse" : "")
       << ", sequences";
  for (Sequence s : c.sequences)
    text << " " << s.past << "+" << s.queries;
  return text.str();
}

/// Whether a sequence of so many queries has few rows at a KV head.
inline bool isFew(const Case &c, int32_t queries) {
  return c.queryHeads / c.kvHeads * queries <= cpu::kFewRows;
}

/// Relative to weights, what rounds them where values of f8 or i8 are
/// multiplied as pairs of bf16: beside more than a few rows, and those of f8
/// beside all where they fill vectors.
inline double roundingOfWeights(const Case &c, int32_t queries) {
  const bool few = isFew(c, queries);
  const bool pairs =
      (c.typeOfV() == LLM_I8 && !few) ||
      (c.typeOfV() == LLM_F8E4M3FN && (!few || c.headDim % 64 == 0));
  const bool dots = !std::strcmp(cpu::kernels().name, "x86-64-v4+bf16+vnni");
  return pairs && dots ? 0x1p-8 : 0;
}

/// Whether many rows meet pages as integers of 16 bits.
inline bool usesWords(const Case &c, int32_t queries) {
  const std::string level = cpu::kernels().name;
  const bool dots = level == "x86-64-v4+bf16+vnni";
  const bool asTheyAre = dots && c.type == LLM_BF16 && c.pageType == LLM_BF16 &&
                         c.typeOfV() == LLM_BF16;
  return (dots || level == "x86-64-v4+vnni") && !isFew(c, queries) && !c.lse &&
         c.headDim <= 256 && c.pageType != LLM_F32 && c.typeOfV() != LLM_F32 &&
         !asTheyAre;
}

inline double tolerance(const Case &c, int32_t queries) {
  // The factors of integers have 16 bits.
  auto isInteger = [](llm_dtype type) {
    return type == LLM_I8 || type == LLM_I4;
  };
  bool integers = isInteger(c.pageType) || isInteger(c.typeOfV());
  double ofResult = c.type == LLM_F32   ? (integers ? 5e-5 : 1e-5)
                    : c.type == LLM_F16 ? 2e-3
                                        : 1.6e-2;
  return ofResult +
         (usesWords(c, queries) ? 0x1p-10 : roundingOfWeights(c, queries));
}

inline bool isQuantized(llm_dtype type) {
  return type == LLM_F8E4M3FN || type == LLM_I8;
}

inline int64_t bytesOf(llm_dtype type) {
  return type == LLM_F32 ? 4 : isQuantized(type) ? 1 : 2;
}

inline std::vector<float> toFloat(const void *from, llm_dtype type, int64_t n) {
  std::vector<float> result(n);
  cpu::kernels().convert(result.data(), LLM_F32, from, type, n);
  return result;
}

inline llm_tensor tensorOf(void *data, llm_dtype type,
                           std::vector<int64_t> sizes,
                           std::vector<int64_t> strides) {
  llm_tensor tensor = {};
  tensor.data = data;
  tensor.dtype = type;
  tensor.rank = static_cast<int32_t>(sizes.size());
  std::copy(sizes.begin(), sizes.end(), tensor.sizes);
  std::copy(strides.begin(), strides.end(), tensor.strides);
  return tensor;
}

constexpr llm_dtype types[] = {LLM_F32, LLM_F16, LLM_BF16};
constexpr llm_dtype formats[] = {LLM_F32,      LLM_F16, LLM_BF16,
                                 LLM_F8E4M3FN, LLM_I8,  LLM_I4};

/// Calls fn(sequence, query, head) for every row of a case.
template <typename Fn>
void forRows(const Case &c, const Fn &fn) {
  for (size_t i = 0; i < c.sequences.size(); ++i)
    for (int32_t t = 0; t < c.sequences[i].queries; ++t)
      for (int32_t head = 0; head < c.queryHeads; ++head)
        fn(i, t, head);
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
  std::vector<float> exactRows;      ///< of groups of K
  std::vector<uint8_t> exact;        ///< [block][group]: it is exact
  KVPages pages = {};

  explicit Problem(const Case &given) : c(given) {
    if (c.pageType == LLM_I4) // whole groups of tokens
      c.blockSize = (c.blockSize + 31) / 32 * 32;
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
    pages.k = c.pageType == LLM_I4 ? layOutTokenGroups() : layOut(c.pageType);
    pages.v =
        c.typeOfV() == LLM_I4 ? layOutChannelGroups() : layOut(c.typeOfV());
  }

  /// K of i4: groups of tokens, and exact ones beside them.
  KVPlane layOutTokenGroups() {
    KVPlane plane = {nullptr, LLM_I4, 0, 0, codeBytes(c.headDim)};
    plane.groupStride = 32 * plane.tokenStride + 4 * c.headDim;
    plane.headStride = plane.groupStride * (c.blockSize / 32);
    plane.blockStride = plane.headStride * c.kvHeads + 64;
    const int64_t groups = numBlocks * (c.blockSize / 32);
    exact.assign(groups, 0);
    exactRows.assign(groups * c.kvHeads * 32 * c.headDim, kNaN);
    plane.exact = {reinterpret_cast<char *>(exactRows.data()), exact.data(),
                   c.blockSize / 32, int64_t(4) * c.kvHeads * 32 * c.headDim};
    return plane;
  }

  /// V of i4: the params of a head follow its codes.
  KVPlane layOutChannelGroups() const {
    KVPlane plane = {nullptr, LLM_I4, 0, 0, codeBytes(c.headDim)};
    plane.headStride =
        (plane.tokenStride + 4 * groupsOf(c.headDim)) * c.blockSize;
    plane.blockStride = plane.headStride * c.kvHeads + 64;
    return plane;
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
    if (plane.dtype == LLM_I4 && !plane.groupStride)
      plane.params = pool.data() + plane.tokenStride * c.blockSize;
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
          if (!pages.k.groupStride)
            writeRow(pages.k, keys[i], i, at, h);
          writeRow(pages.v, values[i], i, at, h);
        }
    for (int32_t at = 0; at < lengthOf(i) && pages.k.groupStride; at += 32)
      if (at < c.sinks || at + 32 > firstVisible(i))
        writeGroup(i, at);
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
    else if (plane.params)
      cpu::kernels().quantizeChannels(
          reinterpret_cast<uint8_t *>(to),
          plane.paramsAt(block, head, at % c.blockSize, c.headDim), row,
          LLM_F32, c.headDim);
    else
      cpu::kernels().convert(to, plane.dtype, row, LLM_F32, c.headDim);
    readRow(plane, block, head, at % c.blockSize, c.headDim, row, LLM_F32);
  }

  /// The same for the keys of a group: the first group of a sequence and what
  /// is no whole group are exact, and so is one group of five.
  void writeGroup(size_t i, int32_t at) {
    const int32_t block = table[i * tableStride + at / c.blockSize];
    const int32_t group = at % c.blockSize / 32, row = c.kvHeads * c.headDim;
    const int32_t end = std::min(at + 32, lengthOf(i));
    const bool stays = at == 0 || end - at < 32 || at / 32 % 5 == 4;
    exact[block * (c.blockSize / 32) + group] = stays;
    for (int32_t head = 0; head < c.kvHeads; ++head) {
      float *first = &keys[i][int64_t(at) * row + head * c.headDim];
      if (!stays)
        cpu::kernels().quantizeTokens(
            reinterpret_cast<uint8_t *>(pages.k.groupAt(block, head, group)),
            pages.k.tokenStride, pages.k.groupParamsAt(block, head, group),
            first, row, c.headDim);
      for (int32_t t = at; t < end; ++t) {
        float *key = first + int64_t(t - at) * row;
        if (stays)
          std::copy_n(key, c.headDim,
                      pages.k.exactRow(block, head, group, t - at, c.headDim));
        readRow(pages.k, block, head, t % c.blockSize, c.headDim, key, LLM_F32);
      }
    }
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
    pagedAttention(pages, batch, params, qTensor, outTensor,
                   c.lse ? &lseTensor : nullptr, plan);
  }

  /// Where a row of results begins.
  int64_t rowAt(size_t i, int32_t t, int32_t head) const {
    return (cuSeqlens[i] + t) * tokenStride() + head * headStride();
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
inline Row reference(const Problem &p, size_t i, int32_t t, int32_t head,
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
inline bool checkRow(const Problem &p, const std::vector<float> &out, size_t i,
                     int32_t t, int32_t head) {
  Row expected = reference(p, i, t, head);
  int64_t token = p.cuSeqlens[i] + t;
  double lse = p.lse[token * (p.c.queryHeads + 1) + head];
  if (!p.c.lse)
    expected.lse = kUntouched;
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
  EXPECT_LE(worst, tolerance(p.c, p.c.sequences[i].queries) * expected.maxValue)
      << "out of sequence " << i << " query " << t << " head " << head;
  return !::testing::Test::HasFailure();
}

/// What lies between the rows of out and of lse is as it was.
inline void checkGaps(const Problem &p, const std::vector<float> &out) {
  for (int64_t token = 0; token < p.tokens; ++token) {
    for (int64_t i = 0; i < p.tokenStride(); ++i) {
      bool gap = i / p.headStride() >= p.c.queryHeads ||
                 i % p.headStride() >= p.c.headDim;
      ASSERT_EQ(out[token * p.tokenStride() + i] == kUntouched, gap);
    }
    ASSERT_EQ(p.lse[token * (p.c.queryHeads + 1) + p.c.queryHeads], kUntouched);
  }
}

/// With a log-sum-exp, and without one.
inline void check(const Case &c) {
  Problem p(c);
  for (bool lse : {true, false}) {
    p.c.lse = lse;
    SCOPED_TRACE(describe(p.c));
    p.run();
    std::vector<float> out = p.results();
    checkGaps(p, out);
    forRows(c, [&](size_t i, int32_t t, int32_t head) {
      if (!::testing::Test::HasFailure())
        checkRow(p, out, i, t, head);
    });
  }
}

//===----------------------------------------------------------------------===//
// Tests
//===----------------------------------------------------------------------===//

/// Several threads at each level.
class AttentionLevelTest : public LevelTest {
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

} // namespace
} // namespace llm

#endif // LLM_TEST_RUNTIME_ATTENTIONPROBLEM_H
