//===- Target.cpp - Which kernels this CPU runs ---------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One switch, when the library is loaded: the best level that the CPU supports,
// or the one that the environment variable LLM_CPU_TARGET names.
//
//===----------------------------------------------------------------------===//

#include "Kernels.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

using namespace llm;
using namespace llm::cpu;

namespace {

#if defined(LLM_CPU_HAS_X86_V4)
bool hasV4() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") &&
         __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}

bool hasBF16() { return hasV4() && __builtin_cpu_supports("avx512bf16"); }

/// AMD's dot products do twice the work of f32 fma per second, Intel's half of
/// it (measured: 67 and 133 GFLOP/s on one core shared by two programs).
bool hasFastBF16() { return hasBF16() && __builtin_cpu_is("amd"); }
#endif

bool always() { return true; }

/// From the least to the best.
const struct Level {
  const KernelTable *table;
  bool (*runs)();
  bool (*preferred)();
} levels[] = {
    {&baselineKernels, always, always},
#if defined(LLM_CPU_HAS_X86_V4)
    {&x86V4Kernels, hasV4, hasV4},
    {&x86BF16Kernels, hasBF16, hasFastBF16},
#endif
};

/// The named level, or the best one.
const KernelTable *find(const char *name) {
  const KernelTable *best = nullptr;
  for (const Level &level : levels) {
    if (name && !std::strcmp(name, level.table->name) && level.runs())
      return level.table;
    if (level.preferred())
      best = level.table;
  }
  return best;
}

std::atomic<const KernelTable *> selected{find(std::getenv("LLM_CPU_TARGET"))};

} // namespace

const KernelTable &llm::cpu::kernels() {
  return *selected.load(std::memory_order_relaxed);
}

const KernelTable &llm::cpu::selectKernels(const char *name) {
  selected.store(find(name), std::memory_order_relaxed);
  return kernels();
}

extern "C" const char *llm_cpu_target(void) { return kernels().name; }
