//===- SearchTest.cpp - Beam search and speculation from the examples -----===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The programs are examples/*.mlir. Each is compared with a search over plain
// vectors of tokens, and with the snapshots and copies that such a search
// needs.
//
//===----------------------------------------------------------------------===//

#include "CompiledProgram.h"

#include <cmath>
#include <fstream>
#include <sstream>

using namespace llm::testing;

static std::string readExample(const std::string &name) {
  std::ifstream file(LLM_EXAMPLES_DIR "/" + name);
  EXPECT_TRUE(file) << name;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

//===----------------------------------------------------------------------===//
// Beam search
//===----------------------------------------------------------------------===//

namespace {

/// A row of two lanes for each of the two tokens.
using Table = std::array<std::array<double, 2>, 2>;

struct Beam {
  std::vector<int> tokens; ///< those in the cache
  int last = 0;            ///< the one to append
  double score = 0;
};

class BeamSearch {
public:
  BeamSearch(const Table &k, const Table &v, const Table &q)
      : k_(k), v_(v), q_(q) {}

  /// The beams after `steps`, the best first.
  std::vector<Beam> run(int steps) {
    std::vector<Beam> beams(2);
    beams[1].score = -INFINITY;
    for (int i = 0; i < steps; ++i)
      step(beams);
    return beams;
  }

  int shared = 0;           ///< steps after which both beams go on from one
  double margin = INFINITY; ///< between scores that were compared

private:
  struct Candidate {
    int beam, token;
    double score;
  };

  void step(std::vector<Beam> &beams) {
    std::vector<Candidate> candidates;
    for (int beam : {0, 1}) {
      beams[beam].tokens.push_back(beams[beam].last);
      const auto gains = attend(beams[beam].tokens);
      for (int token : {0, 1})
        candidates.push_back({beam, token, beams[beam].score + gains[token]});
    }
    std::sort(candidates.begin(), candidates.end(),
              [](auto &a, auto &b) { return a.score > b.score; });
    for (size_t i = 0; i + 1 < 3 && std::isfinite(candidates[i + 1].score); ++i)
      margin = std::min(margin, candidates[i].score - candidates[i + 1].score);
    shared += candidates[0].beam == candidates[1].beam;
    std::vector<Beam> next;
    for (size_t i : {0, 1}) {
      next.push_back(beams[candidates[i].beam]);
      next.back().last = candidates[i].token;
      next.back().score = candidates[i].score;
    }
    beams = std::move(next);
  }

  std::array<double, 2> attend(const std::vector<int> &tokens) const {
    const auto &query = q_[tokens.back()];
    std::array<double, 2> sum = {};
    double total = 0;
    for (int token : tokens) {
      const double score = query[0] * k_[token][0] + query[1] * k_[token][1];
      const double weight = std::exp(score / std::sqrt(2.0));
      total += weight;
      for (int lane : {0, 1})
        sum[lane] += weight * v_[token][lane];
    }
    return {sum[0] / total, sum[1] / total};
  }

  const Table k_, v_, q_;
};

Tensor tensorOf(const Table &table) {
  Tensor tensor(LLM_F32, {2, 1, 2});
  for (int i = 0; i < 4; ++i)
    tensor.set(i, table[i / 2][i % 2]);
  return tensor;
}

/// Numbers that depend on the seed, in steps of 1/64.
Table randomTable(int seed) {
  Table table;
  for (int i = 0; i < 4; ++i)
    table[i / 2][i % 2] = valueOf(seed, 0, 0, 0, i) / 64;
  return table;
}

} // namespace

TEST(SearchTest, BeamSearchTakesTheForksItNeeds) {
  CompiledProgram program(readExample("beam_search.mlir").c_str());
  llm_kv_config config = configOf(1, 4, 40, 1, 64);
  config.kv_heads = 1;
  config.head_dim = 2;
  int apart = 0, shared = 0;
  for (int seed = 0; seed < 20; ++seed) {
    const Table k = randomTable(3 * seed), v = randomTable(3 * seed + 1),
                q = randomTable(3 * seed + 2);
    BeamSearch search(k, v, q);
    const std::vector<Beam> expected = search.run(16);
    ASSERT_GT(search.margin, 1e-4) << "seed " << seed << " hangs by a thread";
    HostCache best(program, config);
    Tensor scores(LLM_F32, {2});
    ASSERT_TRUE(program.runs("beam_search", {best},
                             {tensorOf(k), tensorOf(v), tensorOf(q)},
                             {scores}));
    for (size_t beam : {0, 1})
      EXPECT_NEAR(scores.get(beam), expected[beam].score, 1e-3);
    ASSERT_EQ(best.length(0), 16);
    Tensor keys(LLM_F32, {1, 16, 1, 2}), values = keys;
    const int32_t id = 0;
    ASSERT_EQ(llm_kv_lookup(best, 0, &id, 1, &keys, &values, nullptr), LLM_OK);
    for (int i = 0; i < 32; ++i)
      EXPECT_EQ(keys.get(i), k[expected[0].tokens[i / 2]][i % 2]);
    // One to begin with, and one where both beams go on from the same.
    EXPECT_EQ(best.stats().snapshots, 1 + search.shared) << "seed " << seed;
    shared += search.shared;
    apart += 16 - search.shared;
  }
  EXPECT_GT(apart, 20);
  EXPECT_GT(shared, 20);
}

//===----------------------------------------------------------------------===//
// Speculation
//===----------------------------------------------------------------------===//

TEST(SearchTest, RollingBackCopiesNothing) {
  CompiledProgram program(readExample("speculation.mlir").c_str());
  const llm_kv_config config = configOf(1, 4, 16, 1, 64);
  HostCache cache(program, config);
  const std::vector<int64_t> prompt = range(100, 5), drafts = range(0, 24);
  cache.append(0, prompt);
  Tensor keys = rowsOf(config, drafts, 0, 0),
         values = rowsOf(config, drafts, 0, 1), out = keys;
  for (int call = 0; call < 2; ++call)
    ASSERT_TRUE(
        program.runs("speculate", {cache}, {keys, values, keys}, {out}));
  std::vector<int64_t> kept = prompt;
  for (int call = 0; call < 2; ++call)
    for (int64_t token : drafts)
      if (token % 4 < 2)
        kept.push_back(token);
  EXPECT_TRUE(cache.holds(0, kept));
  const llm_kv_stats stats = cache.stats();
  EXPECT_EQ(stats.snapshots, 0);
  EXPECT_EQ(stats.cow_blocks, 0);
  EXPECT_EQ(stats.copied_bytes, 0);
  EXPECT_EQ(stats.table_copies, 0);
}
