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
#include <sys/syscall.h>
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

constexpr int64_t kLine = 512;    ///< bytes that a step of a probe handles
constexpr int64_t kGrain = 16384; ///< steps that a thread does at once

uint64_t sumOf(const Words (&sums)[8]) {
  uint64_t total = 0;
  for (Words sum : sums)
    total += sum[0];
  return total;
}

/// Reads from front to back.
__attribute__((target_clones("arch=x86-64-v4", "default"))) uint64_t
readLinearly(const Words *data, int64_t begin, int64_t end) {
  Words sums[8] = {};
  for (int64_t i = begin; i < end; ++i)
    for (int64_t j = 0; j < 8; ++j)
      sums[j] += data[i * 8 + j];
  return sumOf(sums);
}

/// Reads at four places in turn and asks for memory a kilobyte ahead.
__attribute__((target_clones("arch=x86-64-v4", "default"))) uint64_t
readInStreams(const Words *data, int64_t begin, int64_t end) {
  constexpr int64_t kStreams = 4, kAhead = 1024 / sizeof(Words);
  Words sums[8] = {};
  int64_t part = (end - begin) * 8 / kStreams;
  for (int64_t i = 0; i < part; i += 2)
    for (int64_t j = 0; j < kStreams; ++j) {
      const Words *from = data + begin * 8 + j * part + i;
      __builtin_prefetch(from + kAhead);
      __builtin_prefetch(from + kAhead + 1);
      sums[2 * j] += from[0];
      sums[2 * j + 1] += from[1];
    }
  return sumOf(sums);
}

char *coldMemory() {
  static Memory memory = allocate(coldBytes());
  return memory.get();
}

using Reader = uint64_t (*)(const Words *data, int64_t begin, int64_t end);

double rateOf(Reader read, const char *memory, int64_t bytes) {
  const auto *data = reinterpret_cast<const Words *>(memory);
  std::atomic<uint64_t> total{0};
  double seconds = secondsOf([&] {
    parallelFor(bytes / kLine, kGrain, [&](int64_t begin, int64_t end) {
      total += read(data, begin, end);
    });
  });
  use(total);
  return bytes / seconds;
}

/// Each way has a half of the cold memory, which the other's half evicts.
double readRate() {
  int64_t half = coldBytes() / 2;
  return std::max(rateOf(readLinearly, coldMemory(), half),
                  rateOf(readInStreams, coldMemory() + half, half));
}

using Copier = void (*)(char *to, const char *from, int64_t bytes);

void copyByLibrary(char *to, const char *from, int64_t bytes) {
  std::memcpy(to, from, bytes);
}

#if defined(__x86_64__)
/// Four lines in turn, which are written past the caches: those then need not
/// read what is overwritten.
void copyPastCaches(char *to, const char *from, int64_t bytes) {
  constexpr int64_t kStreams = 4, kAhead = 1024;
  int64_t part = bytes / kStreams;
  for (int64_t i = 0; i < part; i += 64)
    for (int64_t at = i; at < bytes; at += part) {
      __builtin_prefetch(from + at + kAhead);
      for (int64_t j = at; j < at + 64; j += 16)
        _mm_stream_si128(
            reinterpret_cast<__m128i *>(to + j),
            _mm_load_si128(reinterpret_cast<const __m128i *>(from + j)));
    }
  _mm_sfence();
}
#else
constexpr Copier copyPastCaches = copyByLibrary;
#endif

double rateOf(Copier copy, char *memory, int64_t bytes) {
  double seconds = secondsOf([&] {
    parallelFor(bytes / 2, kGrain * kLine, [&](int64_t begin, int64_t end) {
      copy(memory + bytes / 2 + begin, memory + begin, end - begin);
    });
  });
  return bytes / seconds;
}

double copyRate() {
  int64_t half = coldBytes() / 2;
  return std::max(rateOf(copyByLibrary, coldMemory(), half),
                  rateOf(copyPastCaches, coldMemory() + half, half));
}

//===----------------------------------------------------------------------===//
// Arithmetic
//===----------------------------------------------------------------------===//

constexpr int64_t kRounds = 4000000;
constexpr int kChains = 16; ///< enough to fill two pipelines
constexpr int kLanes = 16;

/// Of kRounds, those of a probe of tiles: each has 16 times the products of
/// kChains vectors of pairs.
constexpr double kTileRounds = 0.5;

__attribute__((target_clones("arch=x86-64-v4", "default"))) void multiplyAdd() {
  using Vec = float __attribute__((vector_size(64)));
  Vec acc[kChains] = {}, a = Vec{} + 1.0001f, b = Vec{} + 0.9999f;
  for (int64_t i = 0; i < kRounds; ++i)
    for (Vec &x : acc)
      x = x * a + b;
  use(acc);
}

#if defined(__x86_64__)
bool hasBf16Dots() {
  return __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bf16");
}

bool hasInt8Dots() {
  return __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512vnni");
}

__attribute__((target("avx512f,avx512bf16"))) void multiplyPairs() {
  __m512 acc[kChains] = {};
  auto ones = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3f803f80));
  for (int64_t i = 0; i < kRounds; ++i)
    for (__m512 &x : acc)
      x = _mm512_dpbf16_ps(x, ones, ones);
  use(acc);
}

__attribute__((target("avx512f,avx512vnni"))) void multiplyFours() {
  __m512i acc[kChains] = {}, ones = _mm512_set1_epi8(1);
  for (int64_t i = 0; i < kRounds; ++i)
    for (__m512i &x : acc)
      x = _mm512_dpbusd_epi32(x, ones, ones);
  use(acc);
}

/// AMX, and leave to use it.
bool hasMatrices() {
  constexpr int kRequest = 0x1023, kTileData = 18; // ARCH_REQ_XCOMP_PERM
  return __builtin_cpu_supports("amx-bf16") &&
         syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

/// Four accumulators of 16 x 16 in turn.
__attribute__((target("amx-tile,amx-bf16"))) void multiplyTiles() {
  struct alignas(64) {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } shapes;
  _tile_loadconfig(&shapes);
  for (int64_t i = 0; i < kRounds * kTileRounds; i += 4) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
}
#else
bool hasBf16Dots() { return false; }
bool hasInt8Dots() { return false; }
bool hasMatrices() { return false; }
void multiplyPairs() {}
void multiplyFours() {}
void multiplyTiles() {}
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
    return hasBf16Dots() ? rateOf(multiplyPairs, 2) : 0;
  case Ceiling::Int8Dot:
    return hasInt8Dots() ? rateOf(multiplyFours, 4) : 0;
  case Ceiling::Bf16Matrix: // 16 x 16 x 32 products at once
    return hasMatrices()
               ? rateOf(multiplyTiles, 16 * 16 * 32 / kChains / kLanes) *
                     kTileRounds
               : 0;
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

static int64_t &coldSize() {
  static int64_t bytes =
      std::max<int64_t>(int64_t(512) << 20, 2 * sysconf(_SC_LEVEL3_CACHE_SIZE));
  return bytes;
}

int64_t llm::coldBytes() { return coldSize() / (4 * kLine) * 4 * kLine; }

void llm::setColdBytes(int64_t bytes) { coldSize() = bytes; }
