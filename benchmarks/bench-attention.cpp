//===- bench-attention.cpp - Attention against the machine's ceilings -----===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
//   bench-attention [--smoke] [options of Google Benchmark]
//   bench-attention --benchmark_filter=decode/bf16 --benchmark_out=after.json
//   bench-attention --compare before.json after.json
//
// README.md says what the rows and their figures mean.
//
//===----------------------------------------------------------------------===//

#include "Commit.h"
#include "Compare.h"
#include "Parallel.h"
#include "Timing.h"
#include "llm/Runtime/CAPI.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <optional>
#include <random>
#include <string_view>

using namespace llm;

namespace {

//===----------------------------------------------------------------------===//
// What is measured
//===----------------------------------------------------------------------===//

const Format f32 = {"f32", LLM_F32, LLM_F32, Ceiling::Fma};
// Integers of 16 bits are multiplied as fast as bf16.
const Format f16 = {"f16", LLM_F16, LLM_F32, Ceiling::Bf16Dot};
const Format bf16 = {"bf16", LLM_BF16, LLM_BF16, Ceiling::Bf16Dot};

const Format i8 = {"i8", LLM_F16, LLM_F32, Ceiling::Int8Dot, LLM_KV_STORAGE_I8};
const Format i4 = {"i4",
                   LLM_F16,
                   LLM_F32,
                   Ceiling::Int8Dot,
                   LLM_KV_STORAGE_I4,
                   LLM_KV_STORAGE_I4,
                   /*blockSize=*/32};
const Format f8 = {"f8", LLM_F16, LLM_F32, Ceiling::Bf16Dot,
                   LLM_KV_STORAGE_F8E4M3FN};

const Heads grouped = {32, 8, 128}; // Llama
const Heads small = {9, 3, 64};     // SmolLM2
const Heads multi = {12, 12, 64};
const Heads single = {32, 1, 128};

std::vector<Sequence> decode(int32_t context) { return {{context - 1, 1}}; }

int64_t tokensOf(const std::vector<Sequence> &sequences) {
  int64_t tokens = 0;
  for (const Sequence &sequence : sequences)
    tokens += sequence.length();
  return tokens;
}

/// A step of 16 users: contexts of 64 to 8192 tokens, lognormal.
std::vector<Sequence> ragged() {
  std::mt19937 random(1);
  std::lognormal_distribution<double> length(std::log(1024), 1);
  std::vector<Sequence> sequences;
  while (sequences.size() < 16) {
    int32_t tokens = static_cast<int32_t>(length(random));
    if (tokens >= 64 && tokens <= 8192)
      sequences.push_back({tokens - 1, 1});
  }
  return sequences;
}

/// As many tokens in sequences of one length, but for the remainder.
std::vector<Sequence> uniform() {
  int32_t tokens = tokensOf(ragged());
  std::vector<Sequence> sequences(16, {tokens / 16 - 1, 1});
  sequences.back().past += tokens % 16;
  return sequences;
}

/// Two prompts arrive while eight users read on.
std::vector<Sequence> mixed() {
  std::vector<Sequence> sequences(8, {2047, 1});
  sequences.insert(sequences.begin() + 4, {0, 512});
  sequences.push_back({512, 256});
  return sequences;
}

/// One line of the report: a case, or a pair of them.
struct Row {
  std::string name;
  Case what;
  std::optional<Case> reference = {};
};

/// As in decode/f16/heads:32x8/dim:128/ctx:4096.
Row row(std::string work, const Case &what) {
  const Heads &heads = what.heads;
  const Sequence &first = what.sequences.front();
  std::string name = work + "/" + what.format.name +
                     "/heads:" + std::to_string(heads.queries) + "x" +
                     std::to_string(heads.kv) +
                     "/dim:" + std::to_string(heads.dim);
  if (what.sequences.size() > 1)
    name += "/batch:" + std::to_string(what.sequences.size());
  name += "/ctx:" + std::to_string(tokensOf(what.sequences));
  if (first.past && first.queries > 1)
    name += "/new:" + std::to_string(first.queries);
  return {name, what};
}

/// pair/CHANGE/...: the time of `what` over that of `reference`.
Row pair(const std::string &change, const Case &what, const Case &reference) {
  return {row("pair/" + change, what).name, what, reference};
}

/// Rows of one shape follow each other: they share its pool.
std::vector<Row> allRows() {
  std::vector<Row> rows;
  for (const Format &format : {f32, f16, bf16, i8, i4, f8})
    for (int32_t context : {1024, 4096, 16384})
      rows.push_back(row("decode", {format, grouped, decode(context)}));
  for (const Format &format : {i8, i4, f8})
    rows.push_back(pair(std::string(format.name) + "-over-f16",
                        {format, grouped, decode(4096)},
                        {f16, grouped, decode(4096)}));
  for (const Format &format : {f32, bf16}) {
    for (int32_t queries : {512, 2048})
      rows.push_back(row("prefill", {format, grouped, {{0, queries}}}));
    rows.push_back(row("chunk", {format, grouped, {{4096, 128}}}));
  }
  rows.push_back(row("mixed", {bf16, grouped, mixed()}));
  rows.push_back(row("ragged", {bf16, grouped, ragged()}));
  rows.push_back(row("uniform", {bf16, grouped, uniform()}));
  rows.push_back(pair("uniform-over-ragged", {bf16, grouped, uniform()},
                      {bf16, grouped, ragged()}));

  Case usual = {bf16, grouped, decode(4096)};
  Case larger = usual, sequential = usual, smaller = usual;
  larger.blockSize = 256;
  sequential.order = Order::Sequential;
  smaller.smallPools = true;
  rows.push_back(pair("random-over-sequential", usual, sequential));
  rows.push_back(pair("block16-over-block256", usual, larger));
  rows.push_back(pair("pool64-over-pool1", usual, smaller));

  Case append = {bf16, {8, 8, 128}, {{0, 2048}}, Work::Append};
  rows.push_back(row("append", append));
  rows.push_back(row("decode", {f16, small, decode(4096)}));
  rows.push_back(row("decode", {bf16, multi, decode(4096)}));
  rows.push_back(row("decode", {bf16, single, decode(4096)}));
  return rows;
}

//===----------------------------------------------------------------------===//
// Rows in Google Benchmark
//===----------------------------------------------------------------------===//

/// One iteration, which takes its own time.
void run(benchmark::State &state, int threads, const auto &measure) {
  setNumThreads(threads);
  for (auto _ : state) {
    Counters counters = measure();
    state.SetIterationTime(counters["median"]);
    for (auto [name, value] : counters)
      state.counters[name] = value;
    if (counters["noisy"])
      state.SetLabel("noisy");
  }
  state.counters["threads"] = threads;
  setNumThreads(0);
}

void add(const std::string &name, int threads, const auto &measure) {
  benchmark::RegisterBenchmark(
      (name + "/threads:" + std::to_string(threads)).c_str(),
      [=](benchmark::State &state) { run(state, threads, measure); })
      ->UseManualTime()
      ->Iterations(1)
      ->Unit(benchmark::kMicrosecond);
}

void addCeilings(int threads, bool quick) {
  std::pair<const char *, Ceiling> ceilings[] = {
      {"read", Ceiling::Read},       {"copy", Ceiling::Copy},
      {"fma", Ceiling::Fma},         {"bf16dot", Ceiling::Bf16Dot},
      {"int8dot", Ceiling::Int8Dot}, {"bf16matrix", Ceiling::Bf16Matrix}};
  for (auto [name, ceiling] : ceilings)
    add("ceiling/" + std::string(name), threads,
        [=, ceiling = ceiling] { return timeProbe(ceiling, quick); });
}

void addRow(const Row &row, int threads, bool quick) {
  add(row.name, threads, [=] {
    return row.reference ? timePair(row.what, *row.reference, quick)
                         : timeCase(row.what, quick);
  });
}

void addAll(bool quick) {
  std::vector<int> threads;
  for (int i = 1; i <= numThreads(); i *= 2)
    threads.push_back(i);
  for (int n : threads)
    addCeilings(n, quick);
  for (const Row &row : allRows())
    for (int n : threads)
      addRow(row, n, quick);
}

//===----------------------------------------------------------------------===//
// Output
//===----------------------------------------------------------------------===//

/// What /proc/cpuinfo says of `key`.
std::string cpuInfo(const std::string &key) {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(key))
      return line.substr(line.find(':') + 2);
  return "unknown";
}

void addContext() {
  benchmark::AddCustomContext("machine", cpuInfo("model name"));
  benchmark::AddCustomContext("target", llm_cpu_target());
  benchmark::AddCustomContext("commit", LLM_COMMIT);
}

/// JSON whose rows are named as they were added, without how they are timed,
/// and whose threads are those of a call.
class JSONRows : public benchmark::JSONReporter {
public:
  void ReportRuns(const std::vector<Run> &runs) override {
    std::vector<Run> plain = runs;
    for (Run &run : plain) {
      run.run_name.iterations.clear();
      run.run_name.time_type.clear();
      run.threads = static_cast<int64_t>(run.counters["threads"]);
      run.counters.erase("threads");
    }
    JSONReporter::ReportRuns(plain);
  }
};

/// A line for each row.
class Table : public benchmark::BenchmarkReporter {
public:
  bool ReportContext(const Context &) override {
    std::printf("%s, %s, commit %s\n", cpuInfo("model name").c_str(),
                llm_cpu_target(), LLM_COMMIT);
    std::printf("%-58s %10s %7s %8s %8s %8s %6s\n", "", "us", "spread", "GB/s",
                "GFLOP/s", "ceiling", "ratio");
    return true;
  }

  void ReportRuns(const std::vector<Run> &runs) override {
    for (const Run &run : runs)
      print(run);
    std::fflush(stdout);
  }

private:
  static void print(const Run &run) {
    auto value = [&](const char *name) {
      auto found = run.counters.find(name);
      return found == run.counters.end() ? 0.0 : double(found->second);
    };
    bool pair = run.counters.count("pair_ratio");
    std::printf("%-58s %10.1f %7.3f %8.2f %8.1f %8.2f %6.3f %s\n",
                run.run_name.function_name.c_str(), value("median") * 1e6,
                value("spread"), value("bytes_per_second") * 1e-9,
                value("flops") * 1e-9, value("ceiling") * 1e-9,
                value(pair ? "pair_ratio" : "ratio"), run.report_label.c_str());
  }
};

/// Takes `option` out of the arguments. True: it was there.
bool take(int &argc, char **argv, std::string_view option) {
  char **end = std::remove(argv + 1, argv + argc, option);
  bool found = end != argv + argc;
  argc = static_cast<int>(end - argv);
  return found;
}

bool writesFile(int argc, char **argv) {
  return std::any_of(argv + 1, argv + argc, [](std::string_view argument) {
    return argument.starts_with("--benchmark_out=");
  });
}

} // namespace

int main(int argc, char **argv) {
  if (argc > 1 && argv[1] == std::string_view("--compare")) {
    if (argc == 4)
      return compare(argv[2], argv[3], std::cout, std::cerr);
    std::cerr << "usage: bench-attention --compare BEFORE.json AFTER.json\n";
    return 1;
  }
  bool smoke = take(argc, argv, "--smoke");
  if (smoke)
    setColdBytes(int64_t(128) << 20);
  addAll(smoke);
  addContext();
  bool file = writesFile(argc, argv);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv))
    return 1;
  Table table;
  JSONRows rows;
  benchmark::RunSpecifiedBenchmarks(&table, file ? &rows : nullptr);
  return 0;
}
