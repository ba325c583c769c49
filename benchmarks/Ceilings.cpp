//===- Ceilings.cpp - What the machine can do at best ---------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Ceilings.h"

#include "Parallel.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include <sys/mman.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

using namespace llm;

namespace {

using Words = uint64_t __attribute__((vector_size(64)));

/// Keeps the compiler from dropping what nobody reads.
template <typename T>
void use(const T &value) {
  asm volatile("" : : "r"(&value) : "memory");
}

template <typename Fn>
double secondsOf(const Fn &fn) {
  auto begin = std::chrono::steady_clock::now();
  fn();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin)
      .count();
}

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

constexpr int64_t kLine = 512; ///< bytes that a step of a probe handles

__attribute__((target_clones("arch=x86-64-v4", "default"))) uint64_t
sumOf(const Words *data, int64_t begin, int64_t end) {
  Words sums[8] = {};
  for (int64_t i = begin; i < end; ++i)
    for (int64_t j = 0; j < 8; ++j)
      sums[j] += data[i * 8 + j];
  uint64_t total = 0;
  for (Words sum : sums)
    total += sum[0];
  return total;
}

char *coldMemory() {
  static Memory memory = allocate(coldBytes());
  return memory.get();
}

double readRate() {
  const auto *data = reinterpret_cast<const Words *>(coldMemory());
  std::atomic<uint64_t> total{0};
  double seconds = secondsOf([&] {
    parallelFor(coldBytes() / kLine, 16384, [&](int64_t begin, int64_t end) {
      total += sumOf(data, begin, end);
    });
  });
  use(total);
  return coldBytes() / seconds;
}

double copyRate() {
  char *memory = coldMemory();
  int64_t half = coldBytes() / 2;
  double seconds = secondsOf([&] {
    parallelFor(half, 16384 * kLine, [&](int64_t begin, int64_t end) {
      std::memcpy(memory + half + begin, memory + begin, end - begin);
    });
  });
  return 2 * half / seconds;
}

//===----------------------------------------------------------------------===//
// Arithmetic
//===----------------------------------------------------------------------===//

constexpr int64_t kRounds = 4000000;
constexpr int kChains = 16; ///< enough to fill two pipelines
constexpr int kLanes = 16;

__attribute__((target_clones("arch=x86-64-v4", "default"))) void multiplyAdd() {
  using Vec = float __attribute__((vector_size(64)));
  Vec acc[kChains] = {}, a = Vec{} + 1.0001f, b = Vec{} + 0.9999f;
  for (int64_t i = 0; i < kRounds; ++i)
    for (Vec &x : acc)
      x = x * a + b;
  use(acc);
}

#if defined(__x86_64__)
bool hasDots() {
  return __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bf16");
}

__attribute__((target("avx512f,avx512bf16"))) void multiplyPairs() {
  __m512 acc[kChains] = {};
  auto ones = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3f803f80));
  for (int64_t i = 0; i < kRounds; ++i)
    for (__m512 &x : acc)
      x = _mm512_dpbf16_ps(x, ones, ones);
  use(acc);
}
#else
bool hasDots() { return false; }
void multiplyPairs() {}
#endif

/// Operations per second of `fn` on every thread at once.
double rateOf(void (*fn)(), int products) {
  int32_t threads = numThreads();
  double seconds = secondsOf(
      [&] { parallelFor(threads, 1, [&](int64_t, int64_t) { fn(); }); });
  return 2.0 * products * threads * kRounds * kChains * kLanes / seconds;
}

} // namespace

double llm::probe(Ceiling ceiling) {
  switch (ceiling) {
  case Ceiling::Read:
    return readRate();
  case Ceiling::Copy:
    return copyRate();
  case Ceiling::Fma:
    return rateOf(multiplyAdd, 1);
  case Ceiling::Bf16Dot:
    return hasDots() ? rateOf(multiplyPairs, 2) : 0;
  }
  return 0;
}

Memory llm::allocate(int64_t bytes) {
  constexpr int64_t kPage = int64_t(2) << 20;
  bytes = (bytes + kPage - 1) / kPage * kPage;
  char *memory = static_cast<char *>(std::aligned_alloc(kPage, bytes));
  madvise(memory, bytes, MADV_HUGEPAGE);
  std::memset(memory, 1, bytes);
  return Memory(memory);
}

int64_t llm::coldBytes() {
  static const int64_t bytes =
      std::max<int64_t>(int64_t(512) << 20, 2 * sysconf(_SC_LEVEL3_CACHE_SIZE));
  return bytes / (2 * kLine) * 2 * kLine;
}
