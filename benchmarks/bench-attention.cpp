//===- bench-attention.cpp - Attention against the machine's ceilings -----===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
//   floor   = max(bytes / bandwidth, operations / rate)
//   ratio   = floor / median time of a call
//   ceiling = the bandwidth or the rate that makes the floor
//
// Every row takes the ceilings that bound it right before and right after its
// calls, with as many threads. The rate is the one of the fastest instruction
// for the pages' format. Calls are cold: each has a batch of its own, from a
// pool that is larger than the last-level cache, with blocks in random order
// and random data.
//
//   bench-attention --benchmark_filter=decode/bf16
//     --benchmark_out=after.json --benchmark_out_format=json
//
//===----------------------------------------------------------------------===//

#include "Ceilings.h"
#include "Commit.h"
#include "Parallel.h"
#include "cpu/Kernels.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <numeric>
#include <random>
#include <sstream>
#include <string>
#include <vector>

using namespace llm;

namespace {

//===----------------------------------------------------------------------===//
// What is measured
//===----------------------------------------------------------------------===//

constexpr int32_t kBlockSize = 16;

enum class Work { Decode, Prefill, Chunk, Append };

/// `queries` new tokens of one sequence behind `past` cached ones.
struct Row {
  Work work;
  llm_dtype type; ///< of the pages; queries are bf16 for bf16, else f32
  int32_t queryHeads, kvHeads, headDim;
  int32_t past, queries;
};

const Row rows[] = {
    {Work::Decode, LLM_F32, 32, 8, 128, 4095, 1},
    {Work::Decode, LLM_F32, 32, 8, 128, 16383, 1},
    {Work::Decode, LLM_F16, 32, 8, 128, 4095, 1},
    {Work::Decode, LLM_F16, 32, 8, 128, 16383, 1},
    {Work::Decode, LLM_BF16, 32, 8, 128, 4095, 1},
    {Work::Decode, LLM_BF16, 32, 8, 128, 16383, 1},
    {Work::Decode, LLM_F16, 9, 3, 64, 4095, 1},
    {Work::Decode, LLM_BF16, 12, 12, 64, 4095, 1},
    {Work::Decode, LLM_BF16, 32, 1, 128, 4095, 1},
    {Work::Prefill, LLM_F32, 32, 8, 128, 0, 512},
    {Work::Prefill, LLM_F32, 32, 8, 128, 0, 2048},
    {Work::Prefill, LLM_BF16, 32, 8, 128, 0, 512},
    {Work::Prefill, LLM_BF16, 32, 8, 128, 0, 2048},
    {Work::Chunk, LLM_F32, 32, 8, 128, 4096, 128},
    {Work::Chunk, LLM_BF16, 32, 8, 128, 4096, 128},
    {Work::Append, LLM_BF16, 8, 8, 128, 0, 2048},
};

int64_t bytesOf(llm_dtype type) { return type == LLM_F32 ? 4 : 2; }

/// As in decode/f16/heads:32x8/dim:128/ctx:4096/threads:2.
std::string nameOf(const Row &row, int threads) {
  const char *works[] = {"decode", "prefill", "chunk", "append"};
  std::ostringstream name;
  name << works[int(row.work)] << "/"
       << (row.type == LLM_F32   ? "f32"
           : row.type == LLM_F16 ? "f16"
                                 : "bf16")
       << "/heads:" << row.queryHeads << "x" << row.kvHeads
       << "/dim:" << row.headDim << "/ctx:" << row.past + row.queries;
  if (row.work == Work::Chunk)
    name << "/new:" << row.queries;
  name << "/threads:" << threads;
  return name.str();
}

/// What a call must read and write.
double bytesOf(const Row &row) {
  double kv = 2.0 * row.kvHeads * row.headDim;
  if (row.work == Work::Append)
    return row.queries * kv * (bytesOf(row.type) + 4); // from f32
  return (row.past + row.queries) * kv * bytesOf(row.type);
}

/// Of the pairs that are not masked: 2 head_dim for a score, 2 for its value.
double operationsOf(const Row &row) {
  double pairs = double(row.queries) * row.past +
                 double(row.queries) * (row.queries + 1) / 2;
  return row.work == Work::Append ? 0
                                  : 4 * pairs * row.headDim * row.queryHeads;
}

//===----------------------------------------------------------------------===//
// Batches
//===----------------------------------------------------------------------===//

/// Memory that lives as long as the program: rows use it one after another.
class Arena {
public:
  char *take(int64_t bytes) {
    if (bytes > size)
      memory = allocate(size = bytes);
    return memory.get();
  }

private:
  Memory memory;
  int64_t size = 0;
};

/// Fills memory with normally distributed numbers: a few, again and again.
char *randomNumbers(Arena &arena, int64_t bytes, llm_dtype type) {
  constexpr int64_t kNumbers = 1000003;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> numbers(kNumbers);
  std::generate(numbers.begin(), numbers.end(), [&] { return normal(random); });
  std::vector<char> typed(kNumbers * bytesOf(type));
  cpu::kernels().convert(typed.data(), type, numbers.data(), LLM_F32, kNumbers);
  char *memory = arena.take(bytes);
  for (int64_t at = 0; at < bytes; at += typed.size())
    std::memcpy(memory + at, typed.data(),
                std::min<int64_t>(typed.size(), bytes - at));
  return memory;
}

/// As many sequences as make the pools cold, called in turn.
class Pool {
public:
  explicit Pool(const Row &row)
      : row(row), length(row.past + row.queries),
        width((length + kBlockSize - 1) / kBlockSize),
        type(row.type == LLM_BF16 && row.work != Work::Append ? LLM_BF16
                                                              : LLM_F32) {
    int64_t bytes = row.headDim * bytesOf(row.type);
    KVPlane plane = {nullptr, row.type, bytes * kBlockSize * row.kvHeads,
                     bytes * kBlockSize, bytes};
    pages = {plane, plane, row.kvHeads, row.headDim, kBlockSize};
    sequences = coldBytes() / (2 * width * plane.blockStride) + 1;
    int64_t poolBytes = sequences * width * plane.blockStride;
    static Arena k, v, queries, outputs;
    pages.k.data = randomNumbers(k, poolBytes, row.type);
    pages.v.data = randomNumbers(v, poolBytes, row.type);
    table.resize(sequences * width);
    std::iota(table.begin(), table.end(), 0);
    std::shuffle(table.begin(), table.end(), std::mt19937(1));
    elements = int64_t(row.queries) * row.queryHeads * row.headDim;
    inputs = row.work == Work::Append ? 2 * sequences : 1; // K and V
    q = randomNumbers(queries, inputs * elements * bytesOf(type), type);
    out = outputs.take(elements * bytesOf(type));
    slots.resize(row.queries);
  }

  /// The call on the next sequence, prepared.
  void next() {
    at = (at + 1) % sequences;
    for (int32_t i = 0; i < row.queries && row.work == Work::Append; ++i)
      slots[i] = int64_t(table[at * width + i / kBlockSize]) * kBlockSize +
                 i % kBlockSize;
  }

  void call() {
    auto input = [&](int64_t i) {
      return tensor(q + i % inputs * elements * bytesOf(type));
    };
    if (row.work == Work::Append)
      return writeKV(pages, slots.data(), input(2 * at), input(2 * at + 1));
    int32_t cuSeqlens[] = {0, row.queries};
    BatchView batch = {1,       cuSeqlens,          &row.past,
                       &length, &table[at * width], width};
    AttentionParams params = {1 / std::sqrt(float(row.headDim)), 0, 0, true};
    pagedAttention(pages, batch, params, input(0), tensor(out), nullptr);
  }

private:
  llm_tensor tensor(void *data) const {
    return {data,
            type,
            3,
            {row.queries, row.queryHeads, row.headDim},
            {int64_t(row.queryHeads) * row.headDim, row.headDim, 1}};
  }

  const Row &row;
  const int32_t length;
  const int64_t width; ///< blocks of a sequence
  const llm_dtype type;
  KVPages pages = {};
  int64_t sequences, elements, inputs, at = 0;
  char *q, *out;
  std::vector<int32_t> table;
  std::vector<int64_t> slots;
};

//===----------------------------------------------------------------------===//
// Rows
//===----------------------------------------------------------------------===//

/// The ceilings that bound a row.
struct Bounds {
  double bandwidth, rate;

  explicit Bounds(const Row &row)
      : bandwidth(
            probe(row.work == Work::Append ? Ceiling::Copy : Ceiling::Read)),
        rate(probe(Ceiling::Fma)) {
    if (row.type == LLM_BF16)
      rate = std::max(rate, probe(Ceiling::Bf16Dot));
  }
};

double quantile(std::vector<double> sorted, double q) {
  std::sort(sorted.begin(), sorted.end());
  return sorted[static_cast<size_t>(q * (sorted.size() - 1))];
}

void report(benchmark::State &state, const Row &row, double bandwidth,
            double rate, const std::vector<double> &seconds) {
  double bytes = bytesOf(row), operations = operationsOf(row);
  double median = quantile(seconds, 0.5);
  double floor = std::max(bytes / bandwidth, operations / rate);
  state.counters["bytes"] = bytes;
  state.counters["operations"] = operations;
  state.counters["bytes_per_second"] = bytes / median;
  state.counters["flops"] = operations / median;
  state.counters["median"] = median;
  state.counters["spread"] =
      (quantile(seconds, 0.9) - quantile(seconds, 0.1)) / median;
  state.counters["floor"] = floor;
  state.counters["ceiling"] = bytes / bandwidth == floor ? bandwidth : rate;
  state.counters["ratio"] = floor / median;
}

void runRow(benchmark::State &state, const Row &row, int threads) {
  setNumThreads(threads);
  Pool pool(row);
  pool.call(); // threads start
  Bounds before(row);
  std::vector<double> seconds;
  for (auto _ : state) {
    pool.next();
    auto begin = std::chrono::steady_clock::now();
    pool.call();
    auto end = std::chrono::steady_clock::now();
    seconds.push_back(std::chrono::duration<double>(end - begin).count());
  }
  Bounds after(row);
  report(state, row, (before.bandwidth + after.bandwidth) / 2,
         (before.rate + after.rate) / 2, seconds);
  setNumThreads(0);
}

void runProbe(benchmark::State &state, Ceiling ceiling, int threads) {
  setNumThreads(threads);
  std::vector<double> rates;
  for (auto _ : state)
    rates.push_back(probe(ceiling));
  state.counters["ceiling"] = quantile(rates, 0.5);
  state.counters["spread"] =
      (quantile(rates, 0.9) - quantile(rates, 0.1)) / quantile(rates, 0.5);
  setNumThreads(0);
}

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

void registerRows(int threads) {
  std::string suffix = "/threads:" + std::to_string(threads);
  std::pair<const char *, Ceiling> ceilings[] = {{"read", Ceiling::Read},
                                                 {"copy", Ceiling::Copy},
                                                 {"fma", Ceiling::Fma},
                                                 {"bf16dot", Ceiling::Bf16Dot}};
  for (auto [name, ceiling] : ceilings)
    benchmark::RegisterBenchmark(
        ("ceiling/" + std::string(name) + suffix).c_str(), runProbe, ceiling,
        threads);
  for (const Row &row : rows)
    benchmark::RegisterBenchmark(nameOf(row, threads).c_str(), runRow, row,
                                 threads)
        ->Unit(benchmark::kMicrosecond);
}

} // namespace

int main(int argc, char **argv) {
  for (int threads = 1; threads <= numThreads(); threads *= 2)
    registerRows(threads);
  addContext();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv))
    return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
