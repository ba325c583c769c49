//===- DecodeTest.cpp - Decoding copies nothing, whatever the pool --------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "CompiledProgram.h"

#include <algorithm>
#include <array>
#include <chrono>

using namespace llm::testing;

// 100 steps of one sequence. What a layer returns is the next one's query.
static const char text[] = R"mlir(
!kv = !llm.paged_kv_cache<2x4x64xf32>
!token = tensor<1x4x64xf32>
!query = tensor<1x16x64xf32>

func.func @decode(%c: !kv, %k: !token, %v: !token, %q: !query)
    -> (!kv, !query) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %steps = arith.constant 100 : index
  %ids = arith.constant dense<0> : tensor<1xi32>
  %cu = arith.constant dense<[0, 1]> : tensor<2xi32>
  %end:2 = scf.for %i = %zero to %steps step %one
      iter_args(%c0 = %c, %q0 = %q) -> (!kv, !query) {
    %c1, %step = llm.begin_step %c0, %ids, %cu
        : !kv, tensor<1xi32>, tensor<2xi32> -> !kv
    %at0 = llm.at_layer %step[%zero]
    %c2 = llm.append_kv %c1, %k, %v at %at0 : !kv, !token, !token -> !kv
    %q1 = llm.paged_attention %q0, %c2 at %at0 : !query, !kv -> !query
    %at1 = llm.at_layer %step[%one]
    %c3 = llm.append_kv %c2, %v, %k at %at1 : !kv, !token, !token -> !kv
    %q2 = llm.paged_attention %q1, %c3 at %at1 : !query, !kv -> !query
    scf.yield %c3, %q2 : !kv, !query
  }
  return %end#0, %end#1 : !kv, !query
}
)mlir";

namespace {

class DecodeTest : public ::testing::Test {
protected:
  static constexpr int64_t prompt = 1000, steps = 100;

  /// Just enough blocks of 16 tokens, or a multiple.
  static llm_kv_config config(int64_t poolFactor) {
    llm_kv_config config =
        configOf(2, 16, poolFactor * ((prompt + steps + 15) / 16), 1, 4096);
    config.kv_heads = 4;
    config.head_dim = 64;
    config.poison = 0;
    return config;
  }

  /// 100 steps after the prompt; their time in seconds.
  double decode(const HostCache &cache) {
    const int32_t id = 0;
    EXPECT_EQ(llm_kv_trim(cache, &id, &prompt, 1, nullptr), LLM_OK);
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_TRUE(program.runs("decode", {cache}, {token, token, query}, {out}));
    const std::chrono::duration<double> time =
        std::chrono::steady_clock::now() - begin;
    EXPECT_EQ(cache.length(0), prompt + steps);
    return time.count();
  }

  static void expectNoCopies(const HostCache &cache) {
    const llm_kv_stats stats = cache.stats();
    EXPECT_EQ(stats.copied_bytes, 0);
    EXPECT_EQ(stats.cow_blocks, 0);
    EXPECT_EQ(stats.table_copies, 0);
    EXPECT_EQ(stats.snapshots, 0);
  }

  /// How much longer `large` takes: the median of neighbouring runs.
  double medianRatio(const HostCache &small, const HostCache &large) {
    std::array<double, 7> ratios;
    for (double &ratio : ratios) {
      const double base = decode(small);
      ratio = decode(large) / base;
    }
    std::sort(ratios.begin(), ratios.end());
    return ratios[ratios.size() / 2];
  }

  CompiledProgram program{text};
  Tensor token{LLM_F32, {1, 4, 64}}, query{LLM_F32, {1, 16, 64}}, out = query;
};

} // namespace

TEST_F(DecodeTest, HundredStepsCopyNothingAtAnyPoolSize) {
  for (int64_t factor : {1, 64}) {
    HostCache cache(program, config(factor));
    cache.append(0, range(0, prompt));
    decode(cache);
    expectNoCopies(cache);
  }
}

// peers: tt-xla#4197, hip-ep#753, onnxruntime#28352
TEST_F(DecodeTest, TimeDoesNotGrowWithThePool) {
  HostCache small(program, config(1)), large(program, config(64));
  small.append(0, range(0, prompt));
  large.append(0, range(0, prompt));
  decode(small);
  decode(large);
  double ratio = 2;
  for (int attempt = 0; attempt < 3 && ratio > 1.1; ++attempt)
    ratio = medianRatio(small, large);
  EXPECT_LE(ratio, 1.1);
  expectNoCopies(small);
  expectNoCopies(large);
}
