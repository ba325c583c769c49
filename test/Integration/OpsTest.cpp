//===- OpsTest.cpp - Every op, run against a model of it ------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "CompiledProgram.h"

#include <cmath>

using namespace llm::testing;

//===----------------------------------------------------------------------===//
// Steps, reads and sequences over two layers
//===----------------------------------------------------------------------===//

static const char twoLayers[] = R"mlir(
!kv = !llm.paged_kv_cache<2x2x4xf32>
!ids = tensor<?xi32>
!rows = tensor<?x2x4xf32>
!query = tensor<?x4x4xf32>
!dense = tensor<?x8x2x4xf32>

func.func @step(%c: !kv, %ids: !ids, %cu: !ids, %k0: !rows, %v0: !rows,
                %k1: !rows, %v1: !rows, %q: !query)
    -> (!kv, !ids, !query, !query, tensor<?x4xf32>, !dense, !dense, !dense,
        !dense) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %c0, %step = llm.begin_step %c, %ids, %cu : !kv, !ids, !ids -> !kv
  %positions = llm.positions %step : !ids
  %at0 = llm.at_layer %step[%zero]
  %c1 = llm.append_kv %c0, %k0, %v0 at %at0 : !kv, !rows, !rows -> !kv
  %o0 = llm.paged_attention %q, %c1 at %at0 : !query, !kv -> !query
  %at1 = llm.at_layer %step[%one]
  %c2 = llm.append_kv %c1, %k1, %v1 at %at1 : !kv, !rows, !rows -> !kv
  %o1, %lse = llm.paged_attention %q, %c2 at %at1 {scale = 0.25 : f32}
      : !query, !kv -> !query, tensor<?x4xf32>
  %dk0, %dv0 = llm.lookup_kv %c2 at %at0 : !kv -> !dense, !dense
  %dk1, %dv1 = llm.lookup_kv %c2 at %at1 : !kv -> !dense, !dense
  return %c2, %positions, %o0, %o1, %lse, %dk0, %dv0, %dk1, %dv1
      : !kv, !ids, !query, !query, tensor<?x4xf32>, !dense, !dense, !dense,
        !dense
}

func.func @masks(%c: !kv, %ids: !ids, %cu: !ids, %k: !rows, %v: !rows,
                 %q: !query) -> (!kv, !query, !query, !query) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %c0, %step = llm.begin_step %c, %ids, %cu : !kv, !ids, !ids -> !kv
  %at0 = llm.at_layer %step[%zero]
  %at1 = llm.at_layer %step[%one]
  %c1 = llm.append_kv %c0, %k, %v at %at0 : !kv, !rows, !rows -> !kv
  %c2 = llm.append_kv %c1, %v, %k at %at1 : !kv, !rows, !rows -> !kv
  %capped = llm.paged_attention %q, %c2 at %at0 {softcap = 2.0 : f32}
      : !query, !kv -> !query
  %narrow = llm.paged_attention %q, %c2 at %at0 {window = 2 : i32}
      : !query, !kv -> !query
  %open = llm.paged_attention %q, %c2 at %at0 {causal = false}
      : !query, !kv -> !query
  return %c2, %capped, %narrow, %open : !kv, !query, !query, !query
}

func.func @query(%c: !kv, %ids: !ids)
    -> (!ids, tensor<?x?xi32>, tensor<12xi64>) {
  %lengths = llm.seq_lens %c, %ids : !kv, !ids -> !ids
  %table = llm.block_table %c, %ids : !kv, !ids -> tensor<?x?xi32>
  %stats = llm.kv_stats %c : !kv -> tensor<12xi64>
  return %lengths, %table, %stats : !ids, tensor<?x?xi32>, tensor<12xi64>
}

func.func @fork(%c: !kv, %from: !ids, %to: !ids, %lengths: !ids) -> !kv {
  %c1 = llm.fork_kv %c, %from, %to, %lengths : !kv, !ids, !ids, !ids -> !kv
  return %c1 : !kv
}

func.func @trim(%c: !kv, %ids: !ids, %lengths: !ids) -> !kv {
  %c1 = llm.trim_kv %c, %ids, %lengths : !kv, !ids, !ids -> !kv
  return %c1 : !kv
}

func.func @release(%c: !kv, %ids: !ids) -> !kv {
  %c1 = llm.release_kv %c, %ids : !kv, !ids -> !kv
  return %c1 : !kv
}

func.func @snapshot(%c: !kv, %ids: !ids)
    -> (!kv, !ids, !ids, tensor<12xi64>, tensor<12xi64>) {
  %copy = llm.snapshot_kv %c : !kv
  %both = llm.kv_stats %copy : !kv -> tensor<12xi64>
  %emptied = llm.release_kv %copy, %ids : !kv, !ids -> !kv
  %of_copy = llm.seq_lens %emptied, %ids : !kv, !ids -> !ids
  %of_host = llm.seq_lens %c, %ids : !kv, !ids -> !ids
  %after = llm.kv_stats %c : !kv -> tensor<12xi64>
  return %c, %of_copy, %of_host, %both, %after
      : !kv, !ids, !ids, tensor<12xi64>, tensor<12xi64>
}
)mlir";

namespace {

class TwoLayersTest : public ::testing::Test {
protected:
  TwoLayersTest() : cache(program, configOf(2, 4, 16, 4, 64)) {}

  Tensor rows(const Batch &batch, int64_t layer, int64_t component) {
    return rowsOf(cache.config, batch.flat(), layer, component);
  }

  /// Small queries: scores stay within [-16, 16].
  static Tensor queriesOf(const Batch &batch) {
    const std::vector<int64_t> tokens = batch.flat();
    Tensor q(LLM_F32, {static_cast<int64_t>(tokens.size()), 4, 4});
    for (int64_t i = 0; i < q.count; ++i)
      q.set(i, valueOf(tokens[i / 16], 0, 2, i / 4 % 4, i % 4) / 4096);
    return q;
  }

  /// One query head of a tensor [T, 4, 4].
  static std::vector<double> lanesOf(Tensor &tensor, int64_t token,
                                     int64_t head) {
    std::vector<double> lanes;
    for (int64_t d = 0; d < 4; ++d)
      lanes.push_back(tensor.get((token * 4 + head) * 4 + d));
    return lanes;
  }

  /// K or V of a head for tokens of a sequence.
  static std::vector<std::vector<double>>
  valuesOf(const std::vector<int64_t> &tokens, int64_t layer, int64_t component,
           int64_t head) {
    std::vector<std::vector<double>> values;
    for (int64_t token : tokens) {
      values.emplace_back();
      for (int64_t d = 0; d < 4; ++d)
        values.back().push_back(valueOf(token, layer, component, head, d));
    }
    return values;
  }

  /// Checks the attention of `batch`, the last tokens of each sequence in
  /// `all`, at one layer.
  void expectAttention(const Batch &batch, const Batch &all, int64_t layer,
                       const Attention &attention, Tensor &output,
                       Tensor *lse = nullptr) {
    Tensor q = queriesOf(batch);
    int64_t token = 0;
    for (size_t row = 0; row < batch.ids.size(); ++row) {
      const std::vector<int64_t> &held = all.tokens[row];
      const int64_t start = held.size() - batch.tokens[row].size();
      for (int64_t position = start;
           position < static_cast<int64_t>(held.size()); ++position, ++token)
        for (int64_t head = 0; head < 4; ++head) {
          const AttentionRow expected =
              attendInDouble(attention, lanesOf(q, token, head), position,
                             valuesOf(held, layer, 0, head / 2),
                             valuesOf(held, layer, 1, head / 2));
          const std::vector<double> actual = lanesOf(output, token, head);
          for (int64_t d = 0; d < 4; ++d)
            EXPECT_NEAR(actual[d], expected.output[d], 1e-3)
                << "token " << token << " head " << head;
          if (lse) {
            EXPECT_NEAR(lse->get(token * 4 + head), expected.lse, 1e-4);
          }
        }
    }
  }

  /// Runs @step and checks all that it returns. `all` is what the sequences
  /// hold then.
  void step(const Batch &batch, const Batch &all) {
    const auto tokens = static_cast<int64_t>(batch.flat().size());
    const auto sequences = static_cast<int64_t>(batch.ids.size());
    Tensor positions(LLM_I32, {tokens}), o0(LLM_F32, {tokens, 4, 4}), o1 = o0;
    Tensor lse(LLM_F32, {tokens, 4});
    Tensor k0(LLM_F32, {sequences, 8, 2, 4}), v0 = k0, k1 = k0, v1 = k0;
    ASSERT_TRUE(
        program.runs("step", {cache},
                     {Tensor(batch.ids), Tensor(batch.cuSeqlens()),
                      rows(batch, 0, 0), rows(batch, 0, 1), rows(batch, 1, 0),
                      rows(batch, 1, 1), queriesOf(batch)},
                     {positions, o0, o1, lse, k0, v0, k1, v1}));
    expectPositions(batch, all, positions);
    expectAttention(batch, all, 0, {0.5}, o0);
    expectAttention(batch, all, 1, {0.25}, o1, &lse);
    for (int64_t row = 0; row < sequences; ++row) {
      const std::vector<int64_t> &held = all.tokens[row];
      EXPECT_TRUE(cache.holds(batch.ids[row], held));
      EXPECT_TRUE(holdsTokens(k0, 8, held, cache.config, 0, 0, row * 64));
      EXPECT_TRUE(holdsTokens(v0, 8, held, cache.config, 0, 1, row * 64));
      EXPECT_TRUE(holdsTokens(k1, 8, held, cache.config, 1, 0, row * 64));
      EXPECT_TRUE(holdsTokens(v1, 8, held, cache.config, 1, 1, row * 64));
    }
  }

  static void expectPositions(const Batch &batch, const Batch &all,
                              Tensor &positions) {
    int64_t token = 0;
    for (size_t row = 0; row < batch.ids.size(); ++row) {
      const size_t held = all.tokens[row].size();
      for (size_t p = held - batch.tokens[row].size(); p < held; ++p)
        EXPECT_EQ(positions.as<int32_t>()[token++], static_cast<int32_t>(p));
    }
  }

  CompiledProgram program{twoLayers};
  HostCache cache;
};

} // namespace

// peers: llmir/same-layer
TEST_F(TwoLayersTest, RaggedStepsAppendAndAttendAtEachLayer) {
  const Batch prefill = {{2, 0}, {range(0, 6), range(50, 3)}};
  step(prefill, prefill);
  step({{2, 0}, {{6}, {53}}}, {{2, 0}, {range(0, 7), range(50, 4)}});
  step({{0}, {range(54, 4)}}, {{0}, {range(50, 8)}});
}

TEST_F(TwoLayersTest, MasksAndSoftcapChangeTheScores) {
  const Batch batch = {{1, 3}, {range(0, 5), range(9, 7)}};
  Tensor capped(LLM_F32, {12, 4, 4}), narrow = capped, open = capped;
  ASSERT_TRUE(
      program.runs("masks", {cache},
                   {Tensor(batch.ids), Tensor(batch.cuSeqlens()),
                    rows(batch, 0, 0), rows(batch, 0, 1), queriesOf(batch)},
                   {capped, narrow, open}));
  expectAttention(batch, batch, 0, {0.5, 2.0}, capped);
  expectAttention(batch, batch, 0, {0.5, 0, 2}, narrow);
  expectAttention(batch, batch, 0, {0.5, 0, 0, false}, open);
}

TEST_F(TwoLayersTest, QueriesTellLengthsTablesAndStatistics) {
  cache.append(1, range(0, 9));
  cache.append(3, range(20, 2));
  Tensor lengths(LLM_I32, {3}), table(LLM_I32, {3, 3}), stats(LLM_I64, {12});
  const Tensor ids(std::vector<int32_t>{3, 0, 1});
  ASSERT_TRUE(program.runs("query", {cache}, {ids}, {lengths, table, stats}));
  const int32_t *length = lengths.as<int32_t>();
  EXPECT_EQ(std::vector<int32_t>(length, length + 3),
            (std::vector<int32_t>{2, 0, 9}));
  const int32_t *block = table.as<int32_t>();
  EXPECT_GT(block[0], 0);
  for (int i : {1, 2, 3, 4, 5})
    EXPECT_EQ(block[i], -1);
  for (int i : {6, 7, 8})
    EXPECT_GT(block[i], 0);
  const llm_kv_stats expected = cache.stats();
  EXPECT_EQ(std::memcmp(stats.data, &expected, sizeof(expected)), 0);
  EXPECT_EQ(stats.as<int64_t>()[2], 4);   // live blocks
  EXPECT_EQ(stats.as<int64_t>()[11], 11); // appended tokens
}

TEST_F(TwoLayersTest, ForkSharesUntilSomebodyWrites) {
  cache.append(0, range(0, 6));
  ASSERT_TRUE(program.runs("fork", {cache},
                           {Tensor(std::vector<int32_t>{0, 0}),
                            Tensor(std::vector<int32_t>{1, 2}),
                            Tensor(std::vector<int32_t>{6, 3})}));
  EXPECT_TRUE(cache.holds(1, range(0, 6)));
  EXPECT_TRUE(cache.holds(2, range(0, 3)));
  EXPECT_EQ(cache.stats().live_blocks, 2);
  step({{1}, {{70}}}, {{1}, {{0, 1, 2, 3, 4, 5, 70}}});
  EXPECT_TRUE(cache.holds(0, range(0, 6)));
  EXPECT_TRUE(cache.holds(2, range(0, 3)));
  EXPECT_EQ(cache.stats().cow_blocks, 1);
}

TEST_F(TwoLayersTest, TrimCutsAndReleaseEmpties) {
  cache.append(0, range(0, 6));
  cache.append(3, range(10, 9));
  ASSERT_TRUE(program.runs("trim", {cache},
                           {Tensor(std::vector<int32_t>{3, 0}),
                            Tensor(std::vector<int32_t>{4, 5})}));
  EXPECT_TRUE(cache.holds(0, range(0, 5)));
  EXPECT_TRUE(cache.holds(3, range(10, 4)));
  step({{0}, {{90}}}, {{0}, {{0, 1, 2, 3, 4, 90}}});
  ASSERT_TRUE(program.runs("release", {cache},
                           {Tensor(std::vector<int32_t>{0, 3, 1})}));
  EXPECT_EQ(cache.length(0), 0);
  EXPECT_EQ(cache.length(3), 0);
  EXPECT_EQ(cache.stats().free_blocks, 16);
}

TEST_F(TwoLayersTest, SnapshotIsIndependentAndDroppedAtItsEnd) {
  cache.append(0, range(0, 6));
  Tensor ofCopy(LLM_I32, {1}), ofHost = ofCopy, both(LLM_I64, {12});
  Tensor after = both;
  ASSERT_TRUE(program.runs("snapshot", {cache},
                           {Tensor(std::vector<int32_t>{0})},
                           {ofCopy, ofHost, both, after}));
  EXPECT_EQ(ofCopy.as<int32_t>()[0], 0);
  EXPECT_EQ(ofHost.as<int32_t>()[0], 6);
  EXPECT_EQ(both.as<int64_t>()[6], 2); // versions
  EXPECT_EQ(after.as<int64_t>()[6], 1);
  EXPECT_TRUE(cache.holds(0, range(0, 6)));
  EXPECT_EQ(cache.stats().snapshots, 1);
}

//===----------------------------------------------------------------------===//
// One layer without steps; creation and casts
//===----------------------------------------------------------------------===//

static const char oneLayer[] = R"mlir(
!own = !llm.paged_kv_cache<1x2x4xf32, block_size = 4, max_seq_len = 16,
                           max_sequences = 2>
!rows = tensor<2x3x2x4xf32>
!dense = tensor<2x4x2x4xf32>

func.func private @fill(%c: !own, %k: !rows, %v: !rows)
    -> (!dense, !dense, tensor<12xi64>) {
  %c1 = llm.append_kv %c, %k, %v : !own, !rows, !rows -> !own
  %dk, %dv = llm.lookup_kv %c1 : !own -> !dense, !dense
  %stats = llm.kv_stats %c1 : !own -> tensor<12xi64>
  return %dk, %dv, %stats : !dense, !dense, tensor<12xi64>
}

func.func @create_paged(%k: !rows, %v: !rows)
    -> (!dense, !dense, tensor<12xi64>) {
  %blocks = arith.constant 5 : index
  %c = llm.create_kv_cache blocks(%blocks) : !own
  %dk, %dv, %stats = func.call @fill(%c, %k, %v)
      : (!own, !rows, !rows) -> (!dense, !dense, tensor<12xi64>)
  return %dk, %dv, %stats : !dense, !dense, tensor<12xi64>
}

func.func @create_static(%k: !rows, %v: !rows)
    -> (!dense, !dense, tensor<12xi64>) {
  %c = llm.create_kv_cache {strategy = #llm.kv_strategy<static>} : !own
  %dk, %dv, %stats = func.call @fill(%c, %k, %v)
      : (!own, !rows, !rows) -> (!dense, !dense, tensor<12xi64>)
  return %dk, %dv, %stats : !dense, !dense, tensor<12xi64>
}

func.func @cast(%c: !llm.paged_kv_cache, %k: !rows, %v: !rows)
    -> !llm.paged_kv_cache {
  %known = llm.cast_kv %c : !llm.paged_kv_cache -> !own // the cast
  %c1 = llm.append_kv %known, %k, %v : !own, !rows, !rows -> !own
  %bare = llm.cast_kv %c1 : !own -> !llm.paged_kv_cache
  return %bare : !llm.paged_kv_cache
}

func.func @attend(%q: tensor<2x3x2x4xf32>, %c: !own)
    -> (tensor<2x3x2x4xf32>, tensor<2x3x2xf32>) {
  %o, %lse = llm.paged_attention %q, %c
      : tensor<2x3x2x4xf32>, !own -> tensor<2x3x2x4xf32>, tensor<2x3x2xf32>
  return %o, %lse : tensor<2x3x2x4xf32>, tensor<2x3x2xf32>
}
)mlir";

namespace {

class OneLayerTest : public ::testing::Test {
protected:
  const llm_kv_config config = configOf(1, 4, 8, 2, 16);

  /// Tokens 0, 1, 2 of sequence 0 and 3, 4, 5 of sequence 1.
  Tensor rows(int64_t component) {
    Tensor flat = rowsOf(config, range(0, 6), 0, component);
    Tensor rows(LLM_F32, {2, 3, 2, 4});
    std::memcpy(rows.data, flat.data, rows.count * sizeof(float));
    return rows;
  }

  void creates(const char *entry, int64_t totalBlocks) {
    Tensor k(LLM_F32, {2, 4, 2, 4}), v = k, stats(LLM_I64, {12});
    ASSERT_TRUE(program.runs(entry, {}, {rows(0), rows(1)}, {k, v, stats}));
    for (int64_t row : {0, 1}) {
      const auto tokens = range(row * 3, 3);
      EXPECT_TRUE(holdsTokens(k, 4, tokens, config, 0, 0, row * 32));
      EXPECT_TRUE(holdsTokens(v, 4, tokens, config, 0, 1, row * 32));
    }
    EXPECT_EQ(stats.as<int64_t>()[0], totalBlocks);
    EXPECT_EQ(stats.as<int64_t>()[2], 2); // live blocks
    EXPECT_EQ(stats.as<int64_t>()[6], 1); // versions
  }

  CompiledProgram program{oneLayer};
};

} // namespace

TEST_F(OneLayerTest, CreatedCacheHasTheBlocksItAskedFor) {
  creates("create_paged", 5);
}

TEST_F(OneLayerTest, StaticCacheHasRoomForEverySequence) {
  creates("create_static", 2 * 4);
}

// peers: openvino#38112
TEST_F(OneLayerTest, CastKeepsTheContent) {
  HostCache cache(program, config);
  ASSERT_TRUE(program.runs("cast", {cache}, {rows(0), rows(1)}));
  EXPECT_TRUE(cache.holds(0, range(0, 3)));
  EXPECT_TRUE(cache.holds(1, range(3, 3)));
  EXPECT_EQ(cache.stats().snapshots, 0);
}

TEST_F(OneLayerTest, CastToAnotherTypeFails) {
  llm_kv_config other = config;
  other.block_size = 8;
  HostCache cache(program, other);
  EXPECT_EQ(program.invoke("cast", {cache}, {rows(0), rows(1)}),
            LLM_INVALID_ARGUMENT);
  EXPECT_STREQ(program.error.op, "llm.cast_kv");
  EXPECT_EQ(program.error.line, program.lineOf("// the cast"));
  EXPECT_EQ(program.error.expected, 4);
  EXPECT_EQ(program.error.actual, 8);
}

TEST_F(OneLayerTest, QueriesWithoutAStepAreTheLastPositions) {
  HostCache cache(program, config);
  cache.append(0, range(0, 5));
  cache.append(1, range(5, 3));
  Tensor q(LLM_F32, {2, 3, 2, 4}), o = q, lse(LLM_F32, {2, 3, 2});
  for (int64_t i = 0; i < q.count; ++i)
    q.set(i, valueOf(i, 0, 2, 0, 0) / 4096);
  ASSERT_TRUE(program.runs("attend", {cache}, {q}, {o, lse}));
  for (int64_t i = 0; i < 12; ++i) { // row, query, head
    const int64_t row = i / 6, head = i % 2;
    const auto held = row ? range(5, 3) : range(0, 5);
    std::vector<double> query;
    std::vector<std::vector<double>> keys(held.size()), values = keys;
    for (int64_t d = 0; d < 4; ++d) {
      query.push_back(q.get(i * 4 + d));
      for (size_t t = 0; t < held.size(); ++t) {
        keys[t].push_back(valueOf(held[t], 0, 0, head, d));
        values[t].push_back(valueOf(held[t], 0, 1, head, d));
      }
    }
    const int64_t position = held.size() - 3 + i / 2 % 3;
    const AttentionRow expected =
        attendInDouble({0.5}, query, position, keys, values);
    for (int64_t d = 0; d < 4; ++d)
      EXPECT_NEAR(o.get(i * 4 + d), expected.output[d], 1e-3);
    EXPECT_NEAR(lse.get(i), expected.lse, 1e-4);
  }
}

//===----------------------------------------------------------------------===//
// Rotary position embedding
//===----------------------------------------------------------------------===//

static const char ropes[] = R"mlir(
func.func @half(%x: tensor<?x3x6xf32>, %p: tensor<?xi32>) -> tensor<?x3x6xf32> {
  %t = llm.rope_table %p {inv_freq = array<f32: 1.0, 0.25, 0.015625>}
      : tensor<?xi32> -> tensor<?x6xf32>
  %y = llm.rope %x, %t {pairing = #llm.rope_pairing<half>}
      : tensor<?x3x6xf32>, tensor<?x6xf32>
  return %y : tensor<?x3x6xf32>
}

func.func @adjacent(%x: tensor<?x3x6xf32>, %p: tensor<?xi32>)
    -> tensor<?x3x6xf32> {
  %t = llm.rope_table %p {inv_freq = array<f32: 1.0, 0.25, 0.015625>}
      : tensor<?xi32> -> tensor<?x6xf32>
  %y = llm.rope %x, %t {pairing = #llm.rope_pairing<adjacent>}
      : tensor<?x3x6xf32>, tensor<?x6xf32>
  return %y : tensor<?x3x6xf32>
}
)mlir";

/// Lanes i * stride and i * stride + apart are a pair.
static void expectRope(const char *entry, int64_t stride, int64_t apart) {
  CompiledProgram program(ropes);
  const std::vector<int32_t> positions = {0, 1, 7, 300};
  const double frequencies[] = {1.0, 0.25, 0.015625};
  Tensor x(LLM_F32, {4, 3, 6}), y = x;
  for (int64_t i = 0; i < x.count; ++i)
    x.set(i, valueOf(i, 0, 0, 0, 0) / 128);
  ASSERT_TRUE(program.runs(entry, {}, {x, Tensor(positions)}, {y}));
  for (int64_t row = 0; row < 12; ++row)
    for (int64_t i = 0; i < 3; ++i) {
      const double angle = positions[row / 3] * frequencies[i];
      const int64_t a = row * 6 + i * stride, b = a + apart;
      EXPECT_NEAR(y.get(a),
                  x.get(a) * std::cos(angle) - x.get(b) * std::sin(angle),
                  1e-6);
      EXPECT_NEAR(y.get(b),
                  x.get(b) * std::cos(angle) + x.get(a) * std::sin(angle),
                  1e-6);
    }
}

TEST(RopeTest, HalvesRotateTogether) { expectRope("half", 1, 3); }

TEST(RopeTest, NeighboursRotateTogether) { expectRope("adjacent", 2, 1); }

//===----------------------------------------------------------------------===//
// Weights
//===----------------------------------------------------------------------===//

static const char weights[] = R"mlir(
#rows = affine_map<(m, n, k) -> (m, k)>
#transposed = affine_map<(m, n, k) -> (n, k)>
#result = affine_map<(m, n, k) -> (m, n)>

func.func @linear(%x: tensor<?x5xf32>,
                  %w: tensor<40x5xf32> {llm.weight = #llm.weight<["a", "b"]>},
                  %bias: tensor<40xf32> {llm.weight = #llm.weight<["bias"]>})
    -> (tensor<?x40xf32>, tensor<40xf32>) {
  %i = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %t = tensor.dim %x, %i : tensor<?x5xf32>
  %empty = tensor.empty(%t) : tensor<?x40xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x40xf32>)
      -> tensor<?x40xf32>
  %y = linalg.matmul indexing_maps = [#rows, #transposed, #result]
      ins(%x, %w : tensor<?x5xf32>, tensor<40x5xf32>)
      outs(%init : tensor<?x40xf32>) -> tensor<?x40xf32>
  return %y, %bias : tensor<?x40xf32>, tensor<40xf32>
}
)mlir";

TEST(WeightsTest, PackedAndPlainWeightsReachTheEntry) {
  std::vector<float> matrix(200), bias(40);
  for (int64_t i = 0; i < 200; ++i)
    matrix[i] = valueOf(i, 0, 0, 0, 0);
  for (int64_t i = 0; i < 40; ++i)
    bias[i] = valueOf(i, 1, 0, 0, 0);
  CompiledProgram program(
      weights, {{"a", {30, 5}, {matrix.begin(), matrix.begin() + 150}},
                {"b", {10, 5}, {matrix.begin() + 150, matrix.end()}},
                {"bias", {40}, bias}});
  EXPECT_EQ(program.descriptor().weights[0].layout, LLM_LAYOUT_PANEL32);
  Tensor x(LLM_F32, {11, 5}), y(LLM_F32, {11, 40}), copy(LLM_F32, {40});
  for (int64_t i = 0; i < x.count; ++i)
    x.set(i, valueOf(i, 2, 0, 0, 0));
  ASSERT_TRUE(program.runs("linear", {}, {x}, {y, copy}));
  for (int64_t i = 0; i < y.count; ++i) {
    float expected = 0; // integers: exact
    for (int64_t k = 0; k < 5; ++k)
      expected += x.get(i / 40 * 5 + k) * matrix[i % 40 * 5 + k];
    EXPECT_EQ(y.get(i), expected);
  }
  for (int64_t i = 0; i < 40; ++i)
    EXPECT_EQ(copy.get(i), bias[i]);
}

static const char tiles[] = R"mlir(
#rows = affine_map<(m, n, k) -> (m, k)>
#transposed = affine_map<(m, n, k) -> (n, k)>
#result = affine_map<(m, n, k) -> (m, n)>

func.func @linear(%x: tensor<?x64xf32>,
                  %w: tensor<40x64xbf16> {llm.weight = #llm.weight<["a", "b"]>})
    -> tensor<?x40xf32> {
  %i = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %t = tensor.dim %x, %i : tensor<?x64xf32>
  %empty = tensor.empty(%t) : tensor<?x40xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x40xf32>)
      -> tensor<?x40xf32>
  %y = linalg.matmul indexing_maps = [#rows, #transposed, #result]
      ins(%x, %w : tensor<?x64xf32>, tensor<40x64xbf16>)
      outs(%init : tensor<?x40xf32>) -> tensor<?x40xf32>
  return %y : tensor<?x40xf32>
}
)mlir";

TEST(WeightsTest, TilesReachTheKernel) {
  std::vector<float> matrix(40 * 64);
  for (int64_t i = 0; i < 40 * 64; ++i)
    matrix[i] = static_cast<float>(i * 7 % 23 - 11); // exact as bf16
  CompiledProgram program(
      tiles, {{"a", {30, 64}, {matrix.begin(), matrix.begin() + 30 * 64}},
              {"b", {10, 64}, {matrix.begin() + 30 * 64, matrix.end()}}});
  EXPECT_EQ(program.descriptor().weights[0].layout, LLM_LAYOUT_TILES32);
  EXPECT_EQ(program.descriptor().weights[0].sizes[1], 64);
  for (int64_t rows : {3, 21}) {
    Tensor x(LLM_F32, {rows, 64}), y(LLM_F32, {rows, 40});
    for (int64_t i = 0; i < x.count; ++i)
      x.set(i, static_cast<float>(i * 5 % 31 - 15));
    ASSERT_TRUE(program.runs("linear", {}, {x}, {y}));
    for (int64_t i = 0; i < y.count; ++i) {
      float expected = 0; // integers: exact
      for (int64_t k = 0; k < 64; ++k)
        expected += x.get(i / 40 * 64 + k) * matrix[i % 40 * 64 + k];
      EXPECT_EQ(y.get(i), expected);
    }
  }
}

static const char exponentials[] = R"mlir(
#same = affine_map<(i) -> (i)>

func.func @exp(%x: tensor<?xf32>) -> tensor<?xf32> {
  %i = arith.constant 0 : index
  %n = tensor.dim %x, %i : tensor<?xf32>
  %empty = tensor.empty(%n) : tensor<?xf32>
  %y = linalg.generic {indexing_maps = [#same, #same],
                       iterator_types = ["parallel"]}
      ins(%x : tensor<?xf32>) outs(%empty : tensor<?xf32>) {
    ^bb0(%a: f32, %b: f32):
      %e = math.exp %a : f32
      linalg.yield %e : f32
  } -> tensor<?xf32>
  return %y : tensor<?xf32>
}
)mlir";

TEST(ExpTest, IsAsGoodAsF32) {
  CompiledProgram program(exponentials, {});
  constexpr int64_t kCount = 20003;
  Tensor x(LLM_F32, {kCount}), y(LLM_F32, {kCount});
  for (int64_t i = 0; i < kCount; ++i)
    x.set(i, -87 + 175.0f * i / kCount);
  const float special[] = {0, -0.0f, 89, -200, INFINITY, -INFINITY, NAN};
  for (size_t i = 0; i < std::size(special); ++i)
    x.set(i, special[i]);
  ASSERT_TRUE(program.runs("exp", {}, {x}, {y}));
  const float expected[] = {1, 1, INFINITY, 0, INFINITY, 0};
  for (size_t i = 0; i < std::size(expected); ++i)
    EXPECT_EQ(y.get(i), expected[i]) << special[i];
  EXPECT_TRUE(std::isnan(y.get(6)));
  for (int64_t i = std::size(special); i < kCount; ++i) {
    double exact = std::exp(double(x.get(i)));
    ASSERT_LE(std::abs(y.get(i) - exact), 2.5e-7 * exact) << x.get(i);
  }
}

static const char blocks[] = R"mlir(
#rows = affine_map<(m, n, k) -> (m, k)>
#transposed = affine_map<(m, n, k) -> (n, k)>
#result = affine_map<(m, n, k) -> (m, n)>

func.func @linear(%x: tensor<?x64xf32>,
                  %w: tensor<40x64xf32> {llm.weight = #llm.weight<["a", "b"], format = q8_0>})
    -> tensor<?x40xf32> {
  %i = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %t = tensor.dim %x, %i : tensor<?x64xf32>
  %empty = tensor.empty(%t) : tensor<?x40xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x40xf32>)
      -> tensor<?x40xf32>
  %y = linalg.matmul indexing_maps = [#rows, #transposed, #result]
      ins(%x, %w : tensor<?x64xf32>, tensor<40x64xf32>)
      outs(%init : tensor<?x40xf32>) -> tensor<?x40xf32>
  return %y : tensor<?x40xf32>
}
)mlir";

/// Rows of `matrix` as blocks of q8_0 whose scales are 1.
static std::vector<uint8_t> asBlocks(const std::vector<int8_t> &matrix) {
  std::vector<uint8_t> result;
  for (size_t block = 0; block < matrix.size(); block += 32) {
    result.insert(result.end(), {0x00, 0x3c});
    result.insert(result.end(), matrix.begin() + block,
                  matrix.begin() + block + 32);
  }
  return result;
}

TEST(WeightsTest, BlocksReachTheKernel) {
  std::vector<int8_t> first(30 * 64), second(10 * 64);
  for (int64_t i = 0; i < 30 * 64; ++i)
    first[i] = static_cast<int8_t>(i * 7 % 23 - 11);
  for (int64_t i = 0; i < 10 * 64; ++i)
    second[i] = static_cast<int8_t>(i * 5 % 19 - 9);
  CompiledProgram program(
      blocks, {{"a", {30, 64}, {}, LLM_FILE_Q8_0, asBlocks(first)},
               {"b", {10, 64}, {}, LLM_FILE_Q8_0, asBlocks(second)}});
  const llm_weight_desc &weight = program.descriptor().weights[0];
  EXPECT_EQ(weight.layout, LLM_LAYOUT_BLOCKS32);
  EXPECT_EQ(weight.format, LLM_FILE_Q8_0);
  EXPECT_EQ(weight.dtype, LLM_I8);
  EXPECT_EQ(weight.sizes[0], 40);
  EXPECT_EQ(weight.sizes[1], 64);
  for (int64_t rows : {3, 21}) {
    Tensor x(LLM_F32, {rows, 64}), y(LLM_F32, {rows, 40});
    for (int64_t i = 0; i < x.count;
         ++i) // a block's largest is 127: no rounding
      x.set(i, i % 32 == 0 ? 127.0f : static_cast<float>(i * 5 % 31 - 15));
    ASSERT_TRUE(program.runs("linear", {}, {x}, {y}));
    for (int64_t i = 0; i < y.count; ++i) {
      const int64_t column = i % 40;
      const int8_t *row =
          column < 30 ? &first[column * 64] : &second[(column - 30) * 64];
      float expected = 0; // integers: exact
      for (int64_t k = 0; k < 64; ++k)
        expected += x.get(i / 40 * 64 + k) * row[k];
      EXPECT_EQ(y.get(i), expected);
    }
  }
}
