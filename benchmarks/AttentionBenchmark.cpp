//===- AttentionBenchmark.cpp - Attention against the machine's ceilings --===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Decode is bound by reading K and V: its figure is bytes per second, to be
// held against ReadCeiling, which reads as many bytes with as many threads in
// the same run. Prefill is bound by f32 fma: its figure is flops per second (4
// * head_dim per visible pair), to be held against FmaCeiling. PoolSize decodes
// the same tokens from ever larger pools: its time must not grow.
//
// Bandwidth flips within minutes on shared machines. Interleave and take
// medians:
//   AttentionBenchmark --benchmark_repetitions=5
//     --benchmark_enable_random_interleaving=true
//     --benchmark_report_aggregates_only=true
//
//===----------------------------------------------------------------------===//

#include "Parallel.h"
#include "cpu/Kernels.h"

#include <benchmark/benchmark.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include <sys/mman.h>

using namespace llm;

namespace {

//===----------------------------------------------------------------------===//
// Ceilings
//===----------------------------------------------------------------------===//

constexpr int64_t kCeilingBytes = int64_t(512) << 20;
using Words = uint64_t __attribute__((vector_size(64)));

void readCeiling(benchmark::State &state) {
  static std::vector<Words> data(kCeilingBytes / sizeof(Words), Words{} + 1);
  constexpr int64_t kGrain = 16384;
  std::atomic<uint64_t> total{0};
  for (auto _ : state)
    parallelFor(data.size() / 8, kGrain, [&](int64_t begin, int64_t end) {
      Words sums[8] = {};
      for (int64_t i = begin; i < end; ++i)
        for (int64_t j = 0; j < 8; ++j)
          sums[j] += data[i * 8 + j];
      for (Words sum : sums)
        total += sum[0];
    });
  benchmark::DoNotOptimize(total.load());
  state.SetBytesProcessed(state.iterations() * kCeilingBytes);
}
BENCHMARK(readCeiling)->Name("ReadCeiling")->UseRealTime();

/// Enough independent products to fill two pipelines, on every thread.
__attribute__((target_clones("arch=x86-64-v4", "default"))) float
multiplyAdd(int64_t n) {
  using Vec = float __attribute__((vector_size(64)));
  Vec acc[12] = {}, a = Vec{} + 1.0001f, b = Vec{} + 0.9999f;
  for (int64_t i = 0; i < n; ++i)
    for (Vec &x : acc)
      x = x * a + b;
  float result = 0;
  for (Vec &x : acc)
    result += x[0];
  return result;
}

void fmaCeiling(benchmark::State &state) {
  constexpr int64_t kRounds = 1000000;
  int32_t threads = numThreads();
  for (auto _ : state)
    parallelFor(threads, 1, [&](int64_t, int64_t) {
      benchmark::DoNotOptimize(multiplyAdd(kRounds));
    });
  state.counters["flops"] = benchmark::Counter(
      double(state.iterations()) * threads * kRounds * 12 * 16 * 2,
      benchmark::Counter::kIsRate);
}
BENCHMARK(fmaCeiling)->Name("FmaCeiling")->UseRealTime();

//===----------------------------------------------------------------------===//
// Batches
//===----------------------------------------------------------------------===//

constexpr int32_t kBlockSize = 16;

int64_t bytesOf(llm_dtype type) { return type == LLM_F32 ? 4 : 2; }

struct Shape {
  int32_t queryHeads, kvHeads, headDim;
  int32_t sequences, past, queries;
};

/// A batch of equal sequences whose blocks are strewn over a pool.
struct Batch {
  Shape shape;
  KVPages pages = {};
  int64_t poolBytes;
  std::vector<int32_t> cuSeqlens = {0}, positions, lengths, table;
  std::vector<float> q, out;

  Batch(Shape shape, llm_dtype type, int64_t poolFactor = 1) : shape(shape) {
    int64_t row = shape.headDim * bytesOf(type);
    int64_t width = (shape.past + shape.queries + kBlockSize - 1) / kBlockSize;
    int64_t blocks = width * shape.sequences * poolFactor;
    pages = {nullptr,
             nullptr,
             type,
             shape.kvHeads,
             shape.headDim,
             kBlockSize,
             row * kBlockSize * shape.kvHeads,
             row * kBlockSize,
             row};
    poolBytes = blocks * pages.blockStride;
    for (void **pool : {&pages.k, &pages.v})
      *pool = mmap(nullptr, poolBytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (int64_t i = 0; i < width * shape.sequences; ++i)
      addBlock(static_cast<int32_t>(i * 7919 % (width * shape.sequences) *
                                    poolFactor));
    for (int32_t i = 0; i < shape.sequences; ++i) {
      cuSeqlens.push_back(cuSeqlens.back() + shape.queries);
      positions.push_back(shape.past);
      lengths.push_back(shape.past + shape.queries);
    }
    q.assign(int64_t(cuSeqlens.back()) * shape.queryHeads * shape.headDim,
             0.01f);
    out.resize(q.size());
  }
  Batch(const Batch &) = delete;
  ~Batch() {
    munmap(pages.k, poolBytes);
    munmap(pages.v, poolBytes);
  }

  /// The next block of the table, with data that is no zero page.
  void addBlock(int32_t block) {
    table.push_back(block);
    for (void *pool : {pages.k, pages.v})
      std::memset(static_cast<char *>(pool) + block * pages.blockStride, 0x2c,
                  pages.blockStride);
  }

  llm_tensor tensor(std::vector<float> &data) const {
    int64_t stride = int64_t(shape.queryHeads) * shape.headDim;
    return {data.data(),
            LLM_F32,
            3,
            {cuSeqlens.back(), shape.queryHeads, shape.headDim},
            {stride, shape.headDim, 1}};
  }

  void attend() {
    BatchView view = {
        shape.sequences,  cuSeqlens.data(),
        positions.data(), lengths.data(),
        table.data(),     static_cast<int64_t>(table.size()) / shape.sequences};
    AttentionParams params = {1 / std::sqrt(float(shape.headDim)), 0, 0, true};
    pagedAttention(pages, view, params, tensor(q), tensor(out), nullptr);
  }

  int64_t bytesRead() const {
    return int64_t(shape.sequences) * lengths[0] * shape.kvHeads *
           shape.headDim * bytesOf(pages.dtype) * 2;
  }

  double flops() const {
    double pairs = double(shape.queries) * shape.past +
                   double(shape.queries) * (shape.queries + 1) / 2;
    return 4 * pairs * shape.headDim * shape.queryHeads * shape.sequences;
  }
};

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

void decode(benchmark::State &state, Shape shape, llm_dtype type) {
  Batch batch(shape, type);
  for (auto _ : state)
    batch.attend();
  state.SetBytesProcessed(state.iterations() * batch.bytesRead());
}

void prefill(benchmark::State &state, Shape shape, llm_dtype type) {
  Batch batch(shape, type);
  for (auto _ : state)
    batch.attend();
  state.counters["flops"] = benchmark::Counter(
      state.iterations() * batch.flops(), benchmark::Counter::kIsRate);
}

#define SHAPES(FUNCTION, LABEL, ...)                                           \
  BENCHMARK_CAPTURE(FUNCTION, LABEL##_f32, {__VA_ARGS__}, LLM_F32)             \
      ->UseRealTime();                                                         \
  BENCHMARK_CAPTURE(FUNCTION, LABEL##_f16, {__VA_ARGS__}, LLM_F16)             \
      ->UseRealTime();                                                         \
  BENCHMARK_CAPTURE(FUNCTION, LABEL##_bf16, {__VA_ARGS__}, LLM_BF16)           \
      ->UseRealTime()

SHAPES(decode, 32x8x128_16seqs_at_4k, 32, 8, 128, 16, 4095, 1);
SHAPES(decode, 9x3x64_64seqs_at_4k, 9, 3, 64, 64, 4095, 1);
SHAPES(decode, 32x8x128_1seq_at_64k, 32, 8, 128, 1, 65535, 1);
SHAPES(decode, 8x8x64_32seqs_at_4k, 8, 8, 64, 32, 4095, 1);
SHAPES(prefill, 32x8x128_1k, 32, 8, 128, 1, 0, 1024);
SHAPES(prefill, 9x3x64_2k, 9, 3, 64, 1, 0, 2048);

void poolSize(benchmark::State &state) {
  Batch batch({9, 3, 64, 16, 1023, 1}, LLM_F16, state.range(0));
  for (auto _ : state)
    batch.attend();
  state.counters["pool"] =
      benchmark::Counter(2.0 * batch.poolBytes, benchmark::Counter::kDefaults,
                         benchmark::Counter::kIs1024);
}
BENCHMARK(poolSize)
    ->Name("PoolSize")
    ->RangeMultiplier(4)
    ->Range(1, 256)
    ->UseRealTime();

} // namespace

BENCHMARK_MAIN();
