//===- HandleTest.cpp - Handles, steps and tensors of compiled code -------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "HostCache.h"
#include "Program.h"

#include <cstddef>

using namespace llm;
using namespace llm::testing;

namespace {

/// Runs bodies in calls of a cache of two layers, or of one.
class HandleTest : public ::testing::Test {
protected:
  void fails(Program &p, Program::Body body, llm_code code, int64_t expected,
             int64_t actual) {
    EXPECT_EQ(p.invoke(std::move(body)), code) << p.error.message;
    EXPECT_EQ(p.error.code, code) << p.error.message;
    EXPECT_EQ(p.error.expected, expected) << p.error.message;
    EXPECT_EQ(p.error.actual, actual) << p.error.message;
    EXPECT_EQ(p.error.site, 1) << p.error.message;
  }
  void works(Program &p, Program::Body body) {
    EXPECT_EQ(p.invoke(std::move(body)), LLM_OK) << p.error.message;
  }

  Program one{configOf(1, 4, 16, 4, 64)}, two{configOf(2, 4, 16, 4, 64)};
};

uint64_t beginIn(llm_call *call, const Batch &batch) {
  const BatchTensors tensors(batch);
  uint64_t step = 0;
  EXPECT_EQ(llm_rt_begin_step(call, 0, call->kv[0], &tensors.ids,
                              &tensors.cuSeqlens, &step),
            LLM_OK);
  return step;
}

Tensor i32(std::vector<int32_t> values) { return Tensor(values); }

} // namespace

TEST_F(HandleTest, GarbageIsWrongStateNotACrash) {
  for (uint64_t kv : {uint64_t(0), uint64_t(1), ~uint64_t(0),
                      uint64_t(1) << 32 | 77, uint64_t(0x100000000) * 7}) {
    const Tensor ids = i32({0});
    Tensor out = i32({0});
    fails(
        one,
        [&](llm_call *call) {
          return llm_rt_seq_lens(call, 1, kv, &ids, &out);
        },
        LLM_WRONG_STATE, 1, int64_t(kv));
    int64_t tokens, sequences;
    fails(
        one,
        [&](llm_call *call) {
          return llm_rt_step_size(call, 1, kv, &tokens, &sequences);
        },
        LLM_WRONG_STATE, 1, int64_t(kv));
  }
}

TEST_F(HandleTest, DroppedVersionIsStale) {
  uint64_t copy = 0;
  fails(
      one,
      [&](llm_call *call) {
        EXPECT_EQ(llm_rt_snapshot_kv(call, 1, call->kv[0], &copy), LLM_OK);
        EXPECT_EQ(llm_rt_drop_kv(call, 1, copy), LLM_OK);
        EXPECT_EQ(llm_rt_drop_kv(call, 1, 0), LLM_OK);
        uint64_t reused;
        EXPECT_EQ(llm_rt_snapshot_kv(call, 1, call->kv[0], &reused), LLM_OK);
        EXPECT_NE(reused, copy);
        return llm_rt_drop_kv(call, 1, copy);
      },
      // Slot 1, first generation: the slot after the host's.
      LLM_WRONG_STATE, 1, int64_t(1) << 32 | 1);
  EXPECT_EQ(copy, uint64_t(1) << 32 | 1);
}

TEST_F(HandleTest, HandlesOfAnEarlierCallAreStale) {
  uint64_t kv = 0, step = 0;
  works(one, [&](llm_call *call) {
    kv = call->kv[0];
    step = beginIn(call, {{0}, {{}}});
    return LLM_OK;
  });
  works(one, [&](llm_call *call) {
    int64_t width, n;
    const Tensor ids = i32({0});
    EXPECT_EQ(llm_rt_block_table_width(call, 1, kv, &ids, &width),
              LLM_WRONG_STATE);
    // As many steps as in that call do not make it one of this.
    EXPECT_NE(beginIn(call, {{0}, {{}}}), step);
    EXPECT_EQ(llm_rt_step_size(call, 1, step, &n, &n), LLM_WRONG_STATE);
    return LLM_OK;
  });
}

TEST_F(HandleTest, HostsCacheOutlivesItsDrop) {
  works(one, [](llm_call *call) {
    EXPECT_EQ(llm_rt_drop_kv(call, 1, call->kv[0]), LLM_OK);
    EXPECT_EQ(llm_rt_drop_kv(call, 1, call->kv[0]), LLM_OK);
    return LLM_OK;
  });
}

TEST_F(HandleTest, SnapshotOfNoVersionIsNoVersion) {
  works(one, [](llm_call *call) {
    uint64_t copy = 7;
    EXPECT_EQ(llm_rt_snapshot_kv(call, 1, 0, &copy), LLM_OK);
    EXPECT_EQ(copy, 0u);
    return LLM_OK;
  });
}

TEST_F(HandleTest, OnlyAHostsObjectIsReplaced) {
  fails(
      one,
      [](llm_call *call) {
        uint64_t copy, other;
        llm_rt_snapshot_kv(call, 1, call->kv[0], &copy);
        llm_rt_snapshot_kv(call, 1, call->kv[0], &other);
        return llm_rt_replace_kv(call, 1, copy, other);
      },
      LLM_WRONG_STATE, 1, 0);
}

TEST_F(HandleTest, StepKnowsItsSizePositionsAndLayers) {
  EXPECT_OK(appendAll(*two.cache->host->version, {{2}, {range(0, 5)}}));
  works(two, [&](llm_call *call) {
    const Batch batch = {{3, 2}, {range(20, 2), range(5, 3)}};
    const uint64_t step = beginIn(call, batch);
    int64_t tokens, sequences;
    EXPECT_EQ(llm_rt_step_size(call, 1, step, &tokens, &sequences), LLM_OK);
    EXPECT_EQ(tokens, 5);
    EXPECT_EQ(sequences, 2);
    Tensor positions(LLM_I32, {5});
    EXPECT_EQ(llm_rt_positions(call, 1, step, &positions), LLM_OK);
    const std::vector<int32_t> expected = {0, 1, 5, 6, 7};
    EXPECT_EQ(std::vector<int32_t>(positions.as<int32_t>(),
                                   positions.as<int32_t>() + 5),
              expected);
    for (uint64_t layer : {0, 1}) {
      uint64_t at;
      EXPECT_EQ(llm_rt_at_layer(call, 1, step, layer, &at), LLM_OK);
      EXPECT_EQ(at >> 48, layer + 1);
      const Tensor rows = rowsOf(two.config, batch.flat(), layer, 0);
      EXPECT_EQ(
          llm_rt_append_kv(call, 1, call->kv[0], at, &rows, &rows, nullptr),
          LLM_OK);
    }
    return LLM_OK;
  });
}

TEST_F(HandleTest, LayersAreChecked) {
  uint64_t at = 0;
  fails(
      two,
      [&](llm_call *call) {
        return llm_rt_at_layer(call, 1, beginIn(call, {{0}, {{}}}), 2, &at);
      },
      LLM_INVALID_ARGUMENT, 2, 2);
  EXPECT_EQ(two.error.layer, 2);
  const Tensor k = rowsOf(two.config, {1}, 0, 0);
  fails(
      two,
      [&](llm_call *call) {
        return llm_rt_append_kv(call, 1, call->kv[0],
                                beginIn(call, {{0}, {{1}}}), &k, &k, nullptr);
      },
      LLM_INVALID_ARGUMENT, 2, 0);
}

TEST_F(HandleTest, DoubleAppendNamesLayerAndSource) {
  const Tensor k = rowsOf(two.config, {1}, 0, 0);
  fails(
      two,
      [&](llm_call *call) {
        uint64_t at;
        llm_rt_at_layer(call, 1, beginIn(call, {{0}, {{1}}}), 1, &at);
        llm_rt_append_kv(call, 1, call->kv[0], at, &k, &k, nullptr);
        return llm_rt_append_kv(call, 1, call->kv[0], at, &k, &k, nullptr);
      },
      LLM_WRONG_STATE, 1, 2);
  EXPECT_EQ(two.error.layer, 1);
  EXPECT_STREQ(two.error.op, "llm.append_kv");
  EXPECT_STREQ(two.error.file, "layer.attn");
}

TEST_F(HandleTest, BatchWithoutAStep) {
  // K and V of [B = 2, S = 3]: sequences 0 and 1.
  works(one, [&](llm_call *call) {
    Tensor k = rowsOf(one.config, range(0, 6), 0, 0);
    Tensor v = rowsOf(one.config, range(0, 6), 0, 1);
    Tensor batchK(LLM_F32, {2, 3, 2, 4}), batchV = batchK;
    batchK.bytes = k.bytes;
    batchV.bytes = v.bytes;
    batchK.data = batchK.bytes.data();
    batchV.data = batchV.bytes.data();
    EXPECT_EQ(
        llm_rt_append_kv(call, 1, call->kv[0], 0, &batchK, &batchV, nullptr),
        LLM_OK);
    // The last query of each row, all weights equal: the mean of V.
    Tensor q(LLM_F32, {2, 1, 2, 4}), out = q, lse(LLM_F32, {2, 1, 2});
    EXPECT_EQ(llm_rt_paged_attention(call, 1, call->kv[0], 0, &q, &out, &lse,
                                     nullptr, nullptr),
              LLM_OK);
    for (int64_t b = 0; b < 2; ++b) {
      double mean = 0;
      for (int64_t token : range(3 * b, 3))
        mean += valueOf(token, 0, 1, 1, 2) / 3;
      EXPECT_NEAR(out.get(b * 8 + 6), mean, 1e-4);
      EXPECT_NEAR(lse.get(b * 2), std::log(3.0), 1e-5);
    }
    Tensor dense(LLM_F32, {2, 4, 2, 4}), denseV = dense;
    EXPECT_EQ(
        llm_rt_lookup_kv(call, 1, call->kv[0], 0, &dense, &denseV, nullptr),
        LLM_OK);
    EXPECT_EQ(dense.get((1 * 4 + 2) * 8 + 3), valueOf(5, 0, 0, 0, 3));
    EXPECT_EQ(dense.get((1 * 4 + 3) * 8 + 3), 0);
    return LLM_OK;
  });
  EXPECT_TRUE(holds(*one.cache->host->version, 1, range(3, 3)));
}

TEST_F(HandleTest, QueriesOfABatchEndWithTheirOwnSequences) {
  works(one, [&](llm_call *call) {
    const std::vector<std::vector<int64_t>> tokens = {range(0, 3), range(3, 5)};
    const Batch batch = {{0, 1}, tokens};
    EXPECT_EQ(stepInCall(call, call->kv[0], batch, one.config), LLM_OK);
    Tensor q(LLM_F32, {2, 1, 2, 4}), out = q;
    EXPECT_EQ(llm_rt_paged_attention(call, 1, call->kv[0], 0, &q, &out, nullptr,
                                     nullptr, nullptr),
              LLM_OK);
    for (int64_t b = 0; b < 2; ++b) {
      double mean = 0;
      for (int64_t token : tokens[b])
        mean += valueOf(token, 0, 1, 1, 2) / double(tokens[b].size());
      EXPECT_NEAR(out.get(b * 8 + 6), mean, 1e-4);
    }
    return LLM_OK;
  });
}

TEST_F(HandleTest, BatchWithStridedRowsNeedsNoCopyByTheCaller) {
  works(one, [&](llm_call *call) {
    // Rows of [B = 2, S = 2] in a tensor of S = 3.
    Tensor k = rowsOf(one.config, range(0, 6), 0, 0);
    Tensor v = rowsOf(one.config, range(0, 6), 0, 1);
    const auto view = [](const Tensor &rows) {
      llm_tensor t = rows;
      t.rank = 4;
      const int64_t sizes[] = {2, 2, 2, 4}, strides[] = {24, 8, 4, 1};
      std::copy_n(sizes, 4, t.sizes);
      std::copy_n(strides, 4, t.strides);
      return t;
    };
    const llm_tensor keys = view(k), values = view(v);
    EXPECT_EQ(
        llm_rt_append_kv(call, 1, call->kv[0], 0, &keys, &values, nullptr),
        LLM_OK);
    Tensor q(LLM_F32, {6, 2, 4}), out = q;
    std::fill_n(out.as<float>(), 48, 7.0f);
    const llm_tensor queries = view(q), result = view(out);
    EXPECT_EQ(llm_rt_paged_attention(call, 1, call->kv[0], 0, &queries, &result,
                                     nullptr, nullptr, nullptr),
              LLM_OK);
    EXPECT_EQ(out.get(24), valueOf(3, 0, 1, 0, 0));
    EXPECT_EQ(out.get(16), 7.0f) << "between the rows";
    return LLM_OK;
  });
  EXPECT_TRUE(holds(*one.cache->host->version, 0, {0, 1}));
  EXPECT_TRUE(holds(*one.cache->host->version, 1, {3, 4}));
}

/// The first token of each sequence is its sink, and all that a query sees for
/// which it is near. A caller whose struct ends before sink_query has none.
TEST_F(HandleTest, BatchTakesAStridedQueryForSinks) {
  llm_kv_config config = configOf(1, 4, 16, 4, 64);
  config.window = config.sinks = 1;
  Program sinks(config);
  works(sinks, [&](llm_call *call) {
    const Batch batch = {{0, 1}, {range(0, 3), range(3, 5)}};
    EXPECT_EQ(stepInCall(call, call->kv[0], batch, config), LLM_OK);
    Tensor q(LLM_F32, {2, 2, 2, 4}), out = q, rows(LLM_F32, {2, 3, 2, 4});
    std::fill_n(rows.as<float>(), 48, NAN);
    for (int64_t i = 0; i < 32; ++i)
      rows.set(i / 16 * 24 + i % 16,
               valueOf(i / 16 * 3, 0, 0, i / 4 % 2, i % 4));
    llm_tensor nearer = rows;
    nearer.sizes[1] = 2;
    llm_extras extras = {};
    extras.struct_size = sizeof(llm_extras);
    extras.sink_query = &nearer;
    const auto attend = [&] {
      return llm_rt_paged_attention(call, 1, call->kv[0], 0, &q, &out, nullptr,
                                    nullptr, &extras);
    };
    EXPECT_EQ(attend(), LLM_OK);
    for (int64_t i = 0; i < 32; ++i)
      EXPECT_EQ(out.get(i), valueOf(i / 16 * 3, 0, 1, i / 4 % 2, i % 4)) << i;
    extras.struct_size = offsetof(llm_extras, alibi);
    EXPECT_EQ(attend(), LLM_OK);
    EXPECT_EQ(out.get(0),
              (valueOf(0, 0, 1, 0, 0) + valueOf(1, 0, 1, 0, 0)) / 2);
    return LLM_OK;
  });
}

TEST_F(HandleTest, ExtrasSayTheirSize) {
  for (uint32_t size : {uint32_t(8), uint32_t(sizeof(llm_extras) + 8)})
    fails(
        one,
        [&](llm_call *call) {
          const Tensor q(LLM_F32, {1, 1, 2, 4});
          llm_extras extras = {};
          extras.struct_size = size;
          return llm_rt_paged_attention(call, 1, call->kv[0], 0, &q, &q,
                                        nullptr, nullptr, &extras);
        },
        LLM_INVALID_ARGUMENT, sizeof(llm_extras), size);
}

TEST_F(HandleTest, BatchWithoutAStepIsChecked) {
  const Tensor k(LLM_F32, {1, 1, 2, 4}), q(LLM_F32, {1, 2, 2, 4});
  const auto append = [&](llm_call *call) {
    return llm_rt_append_kv(call, 1, call->kv[0], 0, &k, &k, nullptr);
  };
  fails(two, append, LLM_INVALID_ARGUMENT, 1, 2);
  fails(
      one,
      [&](llm_call *call) {
        append(call);
        return llm_rt_paged_attention(call, 1, call->kv[0], 0, &q, &q, nullptr,
                                      nullptr, nullptr);
      },
      LLM_INVALID_ARGUMENT, 1, 2);
  const Tensor five(LLM_F32, {5, 1, 2, 4});
  fails(
      one,
      [&](llm_call *call) {
        return llm_rt_append_kv(call, 1, call->kv[0], 0, &five, &five, nullptr);
      },
      LLM_INVALID_ARGUMENT, 4, 4);
}

TEST_F(HandleTest, SequencesAreForkedTrimmedAndReleased) {
  works(two, [&](llm_call *call) {
    const uint64_t kv = call->kv[0];
    stepInCall(call, kv, {{0}, {range(0, 6)}}, two.config);
    const Tensor parents = i32({0, 0}), children = i32({2, 3}),
                 lengths = i32({6, 2}), one = i32({0}), cut = i32({5});
    EXPECT_EQ(llm_rt_fork_kv(call, 1, kv, &parents, &children, &lengths),
              LLM_OK);
    EXPECT_EQ(llm_rt_trim_kv(call, 1, kv, &one, &cut), LLM_OK);
    const Tensor all = i32({3, 2, 1, 0});
    Tensor lens(LLM_I32, {4}), table(LLM_I32, {4, 3});
    EXPECT_EQ(llm_rt_seq_lens(call, 1, kv, &all, &lens), LLM_OK);
    EXPECT_EQ(lens.as<int32_t>()[0], 2);
    EXPECT_EQ(lens.as<int32_t>()[1], 6);
    EXPECT_EQ(lens.as<int32_t>()[2], 0);
    EXPECT_EQ(lens.as<int32_t>()[3], 5);
    int64_t width;
    EXPECT_EQ(llm_rt_block_table_width(call, 1, kv, &all, &width), LLM_OK);
    EXPECT_EQ(width, 2);
    EXPECT_EQ(llm_rt_block_table(call, 1, kv, &all, &table), LLM_OK);
    const int32_t *rows = table.as<int32_t>();
    EXPECT_EQ(rows[0], rows[3]) << "shared";
    EXPECT_EQ(rows[1], -1);
    EXPECT_EQ(rows[5], -1);
    EXPECT_EQ(rows[6], -1);
    EXPECT_EQ(llm_rt_release_kv(call, 1, kv, &all), LLM_OK);
    Tensor stats(LLM_I64, {LLM_KV_NUM_STATS});
    EXPECT_EQ(llm_rt_kv_stats(call, 1, kv, &stats), LLM_OK);
    EXPECT_EQ(stats.as<int64_t>()[0], 16);
    EXPECT_EQ(stats.as<int64_t>()[1], 16);
    return LLM_OK;
  });
}

TEST_F(HandleTest, TensorsAreChecked) {
  const Tensor ids = i32({0}), wide(LLM_I64, {1}), pair = i32({0, 1}),
               far = i32({4});
  Tensor out = i32({0});
  const auto lens = [&](const Tensor &in, const Tensor &to) {
    return [&](llm_call *call) {
      return llm_rt_seq_lens(call, 1, call->kv[0], &in, &to);
    };
  };
  fails(one, lens(wide, out), LLM_INVALID_ARGUMENT, LLM_I32, LLM_I64);
  fails(one, lens(pair, out), LLM_INVALID_ARGUMENT, 2, 1);
  fails(one, lens(far, out), LLM_INVALID_ARGUMENT, 4, 4);
  EXPECT_EQ(one.error.sequence, 4);
  fails(
      one,
      [&](llm_call *call) {
        stepInCall(call, call->kv[0], {{0}, {range(0, 5)}}, one.config);
        const Tensor narrow(LLM_I32, {1, 1});
        return llm_rt_block_table(call, 1, call->kv[0], &ids, &narrow);
      },
      LLM_INVALID_ARGUMENT, 2, 1);
  fails(
      one,
      [&](llm_call *call) {
        return llm_rt_fork_kv(call, 1, call->kv[0], &pair, &ids, &pair);
      },
      LLM_INVALID_ARGUMENT, 2, 1);
}

TEST_F(HandleTest, TypesAreChecked) {
  llm_kv_group_desc type = {};
  const auto cast = [&](llm_call *call) {
    return llm_rt_cast_kv(call, 1, call->kv[0], &type);
  };
  type.dtype = -1;
  works(one, cast);
  // What is unknown has no storage to differ in.
  type.k_storage = LLM_KV_STORAGE_I8;
  works(one, cast);
  type.dtype = LLM_F32;
  const auto differs = [&](int32_t storage, const char *message) {
    fails(one, cast, LLM_INVALID_ARGUMENT, storage, LLM_KV_STORAGE_DTYPE);
    EXPECT_STREQ(one.error.message, message);
  };
  differs(LLM_KV_STORAGE_I8,
          "expected K of the cache to be stored as i8, got f32");
  type.k_storage = LLM_KV_STORAGE_DTYPE;
  type.v_storage = LLM_KV_STORAGE_F8E4M3FN;
  differs(LLM_KV_STORAGE_F8E4M3FN,
          "expected V of the cache to be stored as f8E4M3FN, got f32");
  type.v_storage = LLM_KV_STORAGE_DTYPE;
  works(one, cast);
  type.block_size = 8;
  fails(one, cast, LLM_INVALID_ARGUMENT, 8, 4);
  uint64_t kv = 42;
  fails(
      one,
      [&](llm_call *call) {
        return llm_rt_create_kv_cache(call, 1, &type, 1, &kv);
      },
      LLM_INVALID_ARGUMENT, 1, 0);
  EXPECT_EQ(kv, 42u) << "written only on success";
}

TEST_F(HandleTest, SizesAndFailuresAreReported) {
  fails(
      one,
      [](llm_call *call) {
        EXPECT_EQ(llm_rt_check_size(call, 1, "rows", 3, 3), LLM_OK);
        return llm_rt_check_size(call, 1, "rows", 3, 4);
      },
      LLM_INVALID_ARGUMENT, 4, 3);
  EXPECT_STREQ(one.error.message, "expected rows to be 4, got 3");
  fails(
      one,
      [](llm_call *call) {
        return llm_rt_fail(call, 1, LLM_UNSUPPORTED, "no such kernel", 5, 6);
      },
      LLM_UNSUPPORTED, 5, 6);
  EXPECT_STREQ(one.error.message, "no such kernel");
  EXPECT_EQ(one.invoke([](llm_call *) { return LLM_NEVER_FITS; }),
            LLM_NEVER_FITS);
  EXPECT_EQ(one.error.site, -1);
}

TEST_F(HandleTest, LinearChecksItsOperands) {
  std::vector<float> x(2 * 64), out(2 * 40);
  std::vector<uint16_t> tiles(2 * 2 * 1024, 0x3f80);
  const llm_tensor rows = {x.data(), LLM_F32, 2, {2, 64}, {64, 1}};
  const llm_tensor weight = {
      tiles.data(), LLM_BF16, 3, {2, 2, 1024}, {2048, 1024, 1}};
  const llm_tensor result = {out.data(), LLM_F32, 2, {2, 40}, {40, 1}};
  std::fill(x.begin(), x.end(), 0.5f);
  works(one, [&](llm_call *call) {
    return llm_rt_linear(call, 1, &rows, &weight, LLM_FILE_BF16, LLM_BF16,
                         &result);
  });
  EXPECT_EQ(out, std::vector<float>(2 * 40, 32));

  const auto refused = [&](llm_tensor a, llm_tensor b, llm_dtype activations,
                           llm_tensor c, llm_code code, int64_t expected,
                           int64_t got) {
    fails(
        one,
        [&](llm_call *call) {
          return llm_rt_linear(call, 1, &a, &b, LLM_FILE_BF16, activations, &c);
        },
        code, expected, got);
  };
  llm_tensor other = rows;
  other.sizes[1] = 63;
  refused(other, weight, LLM_F32, result, LLM_INVALID_ARGUMENT, 32, 63);
  EXPECT_STREQ(one.error.message,
               "expected x with a multiple of 32 columns, got 63");
  other = result;
  other.sizes[0] = 1;
  refused(rows, weight, LLM_F32, other, LLM_INVALID_ARGUMENT, 2, 1);
  other = weight;
  other.sizes[1] = 1;
  refused(rows, other, LLM_F32, result, LLM_INVALID_ARGUMENT, 2, 1);
  other = weight;
  other.strides[0] = 1024;
  refused(rows, other, LLM_F32, result, LLM_INVALID_ARGUMENT, 2048, 1024);
  EXPECT_STREQ(one.error.message, "expected contiguous w, got panels 1024 "
                                  "elements apart instead of 2048");
  refused(rows, weight, LLM_F16, result, LLM_UNSUPPORTED, LLM_BF16, LLM_F16);
  EXPECT_STREQ(one.error.message,
               "expected activations of f32 or bf16, got f16");
}

TEST_F(HandleTest, TheModelKnowsWhatProductsCost) {
  std::vector<float> x(2 * 5, 0.5f), out(2 * 40), panels(2 * 5 * 32, 2);
  const llm_tensor rows = {x.data(), LLM_F32, 2, {2, 5}, {5, 1}};
  const llm_tensor weight = {
      panels.data(), LLM_F32, 3, {2, 5, 32}, {160, 32, 1}};
  const llm_tensor result = {out.data(), LLM_F32, 2, {2, 40}, {40, 1}};
  llm_model_work work = {};
  for (int64_t times : {1, 2}) {
    works(one, [&](llm_call *call) {
      return llm_rt_linear(call, 1, &rows, &weight, LLM_FILE_F32, LLM_F32,
                           &result);
    });
    const int64_t before = work.linear_ns;
    ASSERT_EQ(llm_model_get_work(one.model, &work, nullptr), LLM_OK);
    EXPECT_GT(work.linear_ns, before);
    EXPECT_EQ(work.linear_bytes, times * 2 * 5 * 32 * 4);
    EXPECT_EQ(work.linear_flops, times * 2 * 2 * 5 * 40);
  }
  EXPECT_EQ(llm_model_get_work(one.model, nullptr, nullptr),
            LLM_INVALID_ARGUMENT);
  EXPECT_EQ(llm_model_get_work(nullptr, &work, nullptr), LLM_INVALID_ARGUMENT);
}

TEST_F(HandleTest, LinearTakesPanels) {
  std::vector<float> x(2 * 5, 0.5f), out(2 * 40), panels(2 * 5 * 32, 2);
  const llm_tensor rows = {x.data(), LLM_F32, 2, {2, 5}, {5, 1}};
  const llm_tensor weight = {
      panels.data(), LLM_F32, 3, {2, 5, 32}, {160, 32, 1}};
  const llm_tensor result = {out.data(), LLM_F32, 2, {2, 40}, {40, 1}};
  works(one, [&](llm_call *call) {
    return llm_rt_linear(call, 1, &rows, &weight, LLM_FILE_F32, LLM_F32,
                         &result);
  });
  EXPECT_EQ(out, std::vector<float>(2 * 40, 5));
  fails(
      one,
      [&](llm_call *call) {
        return llm_rt_linear(call, 1, &rows, &weight, LLM_FILE_F32, LLM_BF16,
                             &result);
      },
      LLM_UNSUPPORTED, LLM_F32, LLM_BF16);
  EXPECT_STREQ(one.error.message,
               "expected activations of f32 beside w in panels, got bf16");
}

TEST_F(HandleTest, LinearChecksItsBlocks) {
  std::vector<float> x(2 * 64, 0.5f), out(2 * 40);
  std::vector<uint8_t> blocks(2 * 2 * 640);
  for (size_t i = 0; i < blocks.size(); i += 640)
    std::memset(&blocks[i + 128], 0x11, 512); // weights of 1
  for (size_t i = 0; i < blocks.size(); i += 640)
    for (size_t row = 0; row < 32; ++row)
      blocks[i + 2 * row + 1] = 0x3c; // scales of 1
  const llm_tensor rows = {x.data(), LLM_F32, 2, {2, 64}, {64, 1}};
  const llm_tensor weight = {
      blocks.data(), LLM_I8, 3, {2, 2, 640}, {1280, 640, 1}};
  const llm_tensor result = {out.data(), LLM_F32, 2, {2, 40}, {40, 1}};
  for (llm_dtype activations : {LLM_I8, LLM_BF16, LLM_F32}) {
    std::fill(out.begin(), out.end(), 0.0f);
    works(one, [&](llm_call *call) {
      return llm_rt_linear(call, 1, &rows, &weight, LLM_FILE_Q4_1, activations,
                           &result);
    });
    for (float number : out)
      EXPECT_NEAR(number, 32, 1e-5);
  }

  const auto refused = [&](llm_tensor w, llm_file_format format,
                           llm_dtype activations, llm_code code,
                           int64_t expected, int64_t got) {
    fails(
        one,
        [&](llm_call *call) {
          return llm_rt_linear(call, 1, &rows, &w, format, activations,
                               &result);
        },
        code, expected, got);
  };
  refused(weight, LLM_FILE_Q8_0, LLM_I8, LLM_INVALID_ARGUMENT, 1088, 640);
  refused(weight, LLM_FILE_F16, LLM_I8, LLM_UNSUPPORTED, LLM_FILE_BF16,
          LLM_FILE_F16);
  EXPECT_STREQ(one.error.message,
               "expected w of f32, bf16, q8_0, q4_0 or q4_1, got format 1");
  llm_tensor other = weight;
  other.dtype = LLM_BF16;
  refused(other, LLM_FILE_Q4_1, LLM_I8, LLM_INVALID_ARGUMENT, LLM_I8, LLM_BF16);
  other = weight;
  other.strides[1] = 641;
  refused(other, LLM_FILE_Q4_1, LLM_I8, LLM_INVALID_ARGUMENT, 1280, 1280);
  refused(weight, LLM_FILE_Q4_1, LLM_F16, LLM_UNSUPPORTED, LLM_BF16, LLM_F16);
  EXPECT_STREQ(one.error.message,
               "expected activations of f32, bf16 or i8, got f16");
}

TEST_F(HandleTest, WorkspaceIsAlignedAndReleased) {
  void *first = nullptr;
  for (int round = 0; round < 3; ++round)
    works(one, [&](llm_call *call) {
      void *a, *b, *c;
      int64_t mark;
      EXPECT_EQ(llm_rt_workspace(call, 1, 100, &a), LLM_OK);
      EXPECT_EQ(llm_rt_workspace_mark(call, 1, &mark), LLM_OK);
      EXPECT_EQ(llm_rt_workspace(call, 1, 1 << 20, &b), LLM_OK);
      std::memset(b, 1, 1 << 20);
      EXPECT_EQ(llm_rt_workspace_release(call, 1, mark), LLM_OK);
      EXPECT_EQ(llm_rt_workspace(call, 1, 0, &c), LLM_OK);
      for (void *p : {a, b, c})
        EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % 64, 0u);
      EXPECT_NE(c, nullptr);
      EXPECT_GE(static_cast<char *>(c) - static_cast<char *>(a), 128);
      if (round == 1)
        first = a;
      if (round == 2) {
        EXPECT_EQ(a, first) << "one chunk, kept";
      }
      return LLM_OK;
    });
}

TEST_F(HandleTest, WorkspaceErrors) {
  void *data = this;
  fails(
      one, [&](llm_call *call) { return llm_rt_workspace(call, 1, -1, &data); },
      LLM_INVALID_ARGUMENT, 0, -1);
  fails(
      one,
      [&](llm_call *call) {
        return llm_rt_workspace(call, 1, INT64_MAX, &data);
      },
      LLM_OUT_OF_MEMORY, INT64_MAX, 0);
  EXPECT_EQ(data, this);
  fails(
      one,
      [&](llm_call *call) { return llm_rt_workspace_release(call, 1, 64); },
      LLM_INVALID_ARGUMENT, 0, 64);
}
