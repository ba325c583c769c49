//===- RunReportTest.cpp - The shape of the JSON object -------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/RunReport.h"

#include <gtest/gtest.h>

using namespace mlir::llm;
namespace json = llvm::json;

static std::vector<std::string> keysOf(const json::Object &object) {
  std::vector<std::string> keys;
  for (const auto &entry : object)
    keys.push_back(entry.first.str());
  llvm::sort(keys);
  return keys;
}

using Keys = std::vector<std::string>;

static RunReport generationReport() {
  RunReport report;
  report.loadSeconds = 0.5;
  report.packSeconds = 0.25;
  report.weightsAs = "native";
  report.activations = "int8";
  report.matrices = {
      {1000, 625, {{"q4_K", {"q4_1", "q8_0"}}, {"q8_0", {"q8_0"}}}},
      {200, 125, {{"q8_0", {"q8_0"}}}}};
  report.packedBytes = 4800;
  report.compileSeconds = 2;
  report.compileCPUSeconds = 1.5;
  report.compileCached = true;
  report.prefill = {
      100,
      0.25,
      2,
      {25'000'000, 50'000'000, 100'000'000, 200'000'000, 400'000'000},
      {75'000'000, 150'000'000, 750'000'000}};
  report.decode = {10,
                   0.5,
                   10,
                   {50'000, 100'000, 50'000'000, 1'500'000'000, 500'000'000},
                   {200'000'000, 4'000'000'000, 2'000'000'000}};
  report.peakRSSBytes = 12345;
  report.cache.peak_live_blocks = 7;
  report.config.block_size = 16;
  report.cache.block_bytes = 16 * 1088;
  report.sequences = {{{{1, 2}, {3, 4}, ""}, "text"},
                      {{{5}, {}, "out of blocks"}, "caf\xc3"}};
  return report;
}

TEST(RunReportTest, generation) {
  const json::Object object = toJSON(generationReport());
  EXPECT_EQ(keysOf(object),
            Keys({"cache", "cache_dtype", "compile_cached", "compile_cpu_s",
                  "compile_s", "decode", "kv_bytes_per_token",
                  "kv_exact_bytes_per_sequence", "load_s", "pack_s",
                  "peak_rss_bytes", "prefill", "sequences", "weights"}));
  EXPECT_EQ(object.getNumber("load_s"), 0.5);
  EXPECT_EQ(object.getNumber("pack_s"), 0.25);
  EXPECT_EQ(object.getNumber("compile_s"), 2);
  EXPECT_EQ(object.getNumber("compile_cpu_s"), 1.5);
  EXPECT_EQ(object.getBoolean("compile_cached"), true);
  EXPECT_EQ(object.getInteger("peak_rss_bytes"), 12345);
  EXPECT_EQ(object.getString("cache_dtype"), "f32");
  EXPECT_EQ(object.getNumber("kv_bytes_per_token"), 1088);
  EXPECT_EQ(object.getObject("cache")->getInteger("peak_live_blocks"), 7);
  EXPECT_EQ(object.getObject("cache")->size(), size_t(LLM_KV_NUM_STATS));
}

TEST(RunReportTest, phases) {
  const json::Object object = toJSON(generationReport());
  EXPECT_EQ(*object.getObject("prefill"),
            json::Object({{"tokens", 100},
                          {"seconds", 0.25},
                          {"tokens_per_second", 400.0},
                          {"steps", 2},
                          {"linear", json::Object({{"seconds", 0.075},
                                                   {"bytes", 150'000'000},
                                                   {"flops", 750'000'000}})},
                          {"attention", json::Object({{"seconds", 0.1},
                                                      {"bytes", 200'000'000},
                                                      {"flops", 400'000'000}})},
                          {"append", json::Object({{"seconds", 0.025},
                                                   {"bytes", 50'000'000}})}}));
  EXPECT_EQ(object.getObject("decode")->getNumber("tokens_per_second"), 20);
  EXPECT_EQ(Phase().tokensPerSecond(), 0);
}

TEST(RunReportTest, weights) {
  const json::Object object = toJSON(generationReport());
  EXPECT_EQ(
      *object.getObject("weights"),
      json::Object(
          {{"as", "native"},
           {"activations", "int8"},
           {"packed_bytes", 4800},
           {"layers",
            json::Object({{"parameters", 1000},
                          {"file_bytes", 625},
                          {"file_formats", json::Array{"q4_K", "q8_0"}},
                          {"packed_formats",
                           json::Object({{"q4_K", json::Array{"q4_1", "q8_0"}},
                                         {"q8_0", json::Array{"q8_0"}}})}})},
           {"head",
            json::Object({{"parameters", 200},
                          {"file_bytes", 125},
                          {"file_formats", json::Array{"q8_0"}},
                          {"packed_formats",
                           json::Object({{"q8_0", json::Array{"q8_0"}}})}})}}));
}

TEST(RunReportTest, sequences) {
  const json::Object object = toJSON(generationReport());
  const json::Array &sequences = *object.getArray("sequences");
  ASSERT_EQ(sequences.size(), 2u);
  EXPECT_EQ(*sequences[0].getAsObject(),
            json::Object({{"prompt_ids", json::Array{1, 2}},
                          {"ids", json::Array{3, 4}},
                          {"text", "text"}}));
  EXPECT_EQ(*sequences[1].getAsObject(),
            json::Object({{"prompt_ids", json::Array{5}},
                          {"ids", json::Array{}},
                          {"text", "caf\xef\xbf\xbd"},
                          {"error", "out of blocks"}}));
}

TEST(RunReportTest, score) {
  RunReport report;
  report.config.block_size = 1;
  report.score = Score{4, 2.0};
  const json::Object object = toJSON(report);
  EXPECT_EQ(keysOf(object),
            Keys({"cache", "cache_dtype", "compile_cached", "compile_cpu_s",
                  "compile_s", "decode", "kv_bytes_per_token",
                  "kv_exact_bytes_per_sequence", "load_s", "nll", "pack_s",
                  "peak_rss_bytes", "ppl", "prefill", "tokens", "weights"}));
  EXPECT_EQ(object.getInteger("tokens"), 4);
  EXPECT_EQ(object.getNumber("nll"), 0.5);
  EXPECT_NEAR(*object.getNumber("ppl"), 1.6487212707, 1e-9);
}

TEST(RunReportTest, summary) {
  RunReport report = generationReport();
  report.config.dtype = LLM_F16;
  report.config.k_storage = LLM_KV_STORAGE_I8;
  report.cache.total_blocks = 256;
  report.cache.block_bytes = 1 << 20;
  report.cache.appended_tokens = 109;
  std::string text;
  llvm::raw_string_ostream os(text);
  printSummary(report, os);
  EXPECT_EQ(text,
            "load 0.50 s, compile 2.00 s (cached), peak memory 0.0 MiB\n"
            "weights native (in the file: layers q4_K packed as q4_1 and q8_0, "
            "q8_0, head q8_0), activations int8, 0.0 MiB packed\n"
            "prefill 100 tokens in 0.25 s (400.0 tokens/s), decode 10 tokens "
            "in 0.50 s (20.0 tokens/s)\n"
            "prefill linear 0.075 s (30.0%, 37.500 ms a step, 2.0 GB/s, 10.0 "
            "GFLOP/s), attention 0.100 s (40.0%, 50.000 ms a step, 2.0 GB/s, "
            "4.0 GFLOP/s), append 0.025 s (10.0%, 2.0 GB/s), rest 0.050 s "
            "(20.0%, 25.000 ms a step)\n"
            "decode linear 0.200 s (40.0%, 20.000 ms a step, 20.0 GB/s, 10.0 "
            "GFLOP/s), attention 0.050 s (10.0%, 5.000 ms a step, 30.0 GB/s, "
            "10.0 GFLOP/s), append 0.000 s (0.0%, 2.0 GB/s), rest 0.250 s "
            "(50.0%, 24.995 ms a step)\n"
            "cache 109 tokens appended, at most 7 of 256 blocks of 16 tokens "
            "live (7.0 MiB), 0 blocks (0.0 MiB) copied on write\n"
            "cache dtype i8:f16, 65536 bytes of K and V per token\n");
}

TEST(RunReportTest, exactGroups) {
  RunReport report = generationReport();
  report.config.k_storage = report.config.v_storage = LLM_KV_STORAGE_I4;
  report.config.layers = 30;
  report.config.kv_heads = 3;
  report.config.head_dim = 64;
  report.cache.block_bytes = 1 << 20;
  std::string text;
  llvm::raw_string_ostream os(text);
  printSummary(report, os);
  EXPECT_NE(text.find("cache dtype i4, 65536 bytes of K and V per token, "
                      "1474560 of exact K per sequence\n"),
            std::string::npos)
      << text;
  EXPECT_EQ(toJSON(report).getInteger("kv_exact_bytes_per_sequence"), 1474560);
  report.config.k_storage = LLM_KV_STORAGE_I8;
  EXPECT_EQ(exactBytesPerSequence(report.config), 0);
}

TEST(RunReportTest, formats) {
  llm_kv_config config = {};
  config.dtype = LLM_BF16;
  EXPECT_EQ(describeFormats(config), "bf16");
  config.v_storage = LLM_KV_STORAGE_F8E4M3FN;
  EXPECT_EQ(describeFormats(config), "bf16:f8");
  config.k_storage = LLM_KV_STORAGE_F8E4M3FN;
  EXPECT_EQ(describeFormats(config), "f8");
}

TEST(RunReportTest, turns) {
  const RunReport report = generationReport();
  EXPECT_EQ(describeTurn(3, report.prefill, report.decode, 110, 4096),
            "turn 3: prefill 100 tokens in 0.25 s (400.0 tokens/s), decode 10 "
            "tokens in 0.50 s (20.0 tokens/s), 110 of 4096 tokens of the "
            "context");
}

TEST(RunReportTest, phasesAddUp) {
  const RunReport report = generationReport();
  Phase sum = report.prefill;
  sum += report.decode;
  EXPECT_EQ(sum.tokens, 110);
  EXPECT_EQ(sum.seconds, 0.75);
  EXPECT_EQ(sum.steps, 12);
  EXPECT_EQ(sum.work.append_ns, 25'050'000);
  EXPECT_EQ(sum.work.append_bytes, 50'100'000);
  EXPECT_EQ(sum.work.attention_ns, 150'000'000);
  EXPECT_EQ(sum.work.attention_bytes, 1'700'000'000);
  EXPECT_EQ(sum.work.attention_flops, 900'000'000);
  EXPECT_EQ(sum.linear.linear_ns, 275'000'000);
  EXPECT_EQ(sum.linear.linear_bytes, 4'150'000'000);
  EXPECT_EQ(sum.linear.linear_flops, 2'750'000'000);
}

TEST(RunReportTest, phasesThatWereNotAreNotSummed) {
  std::string text;
  llvm::raw_string_ostream os(text);
  printSummary(RunReport(), os);
  EXPECT_EQ(text.find("attention"), std::string::npos) << text;
  EXPECT_EQ(text.find("cached"), std::string::npos) << text;
}

TEST(RunReportTest, peakMemoryIsPlausible) {
  EXPECT_GT(peakRSSBytes(), 1 << 20);
  EXPECT_LT(peakRSSBytes(), int64_t(1) << 40);
}
