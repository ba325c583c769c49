//===- Target.cpp - Which kernels this CPU runs ---------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One switch, when the library is loaded: the best level that the CPU runs, or
// the one that the environment variable LLM_CPU_TARGET names. A library has
// nobody to tell of a wrong name when it is loaded: llm_context_create does.
//
//===----------------------------------------------------------------------===//

#include "Kernels.h"
#include "llm/Runtime/Status.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#if defined(LLM_CPU_HAS_X86)
#include <sys/syscall.h>
#include <unistd.h>
#endif

using namespace llm;
using namespace llm::cpu;

namespace {

#if defined(LLM_CPU_HAS_X86)
bool hasV3() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("x86-64-v3");
}
bool hasV4() { return hasV3() && __builtin_cpu_supports("x86-64-v4"); }
bool hasVnni() { return hasV4() && __builtin_cpu_supports("avx512vnni"); }
/// And tables of bytes, which every CPU with these has but Cooper Lake.
bool hasDots() {
  return hasVnni() && __builtin_cpu_supports("avx512bf16") &&
         __builtin_cpu_supports("avx512vbmi");
}

/// AMX, and leave to use its registers: Linux gives a process room for them
/// where it asks.
bool hasMatrices() {
  constexpr int kRequest = 0x1023, kTileData = 18; // ARCH_REQ_XCOMP_PERM
  return hasDots() && __builtin_cpu_supports("amx-bf16") &&
         __builtin_cpu_supports("amx-int8") &&
         syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

/// AMD's dot products of bf16 do twice the work of f32 fma per second, Intel's
/// half of it (measured: 67 and 133 GFLOP/s on one core shared by two
/// programs).
bool hasFastDots() { return hasDots() && __builtin_cpu_is("amd"); }
#endif

bool always() { return true; }

/// From the least to the best.
const struct Level {
  const KernelTable *table;
  bool (*runs)();
  bool (*preferred)();
} levels[] = {
    {&baselineKernels, always, always},
#if defined(LLM_CPU_HAS_X86)
    {&x86V3Kernels, hasV3, hasV3},
    {&x86V4Kernels, hasV4, hasV4},
    {&x86VnniKernels, hasVnni, hasVnni},
    {&x86DotsKernels, hasDots, hasFastDots},
    {&x86MatrixKernels, hasMatrices, hasMatrices},
#endif
};

/// The level of that name that this CPU runs, or null.
const KernelTable *levelNamed(const char *name) {
  for (const Level &level : levels)
    if (!std::strcmp(name, level.table->name) && level.runs())
      return level.table;
  return nullptr;
}

const KernelTable *bestLevel() {
  const KernelTable *best = nullptr;
  for (const Level &level : levels)
    if (level.preferred())
      best = level.table;
  return best;
}

Status unknownLevel(const char *name) {
  char names[128] = "";
  for (const Level &level : levels)
    if (level.runs()) {
      size_t length = std::strlen(names);
      std::snprintf(names + length, sizeof(names) - length, "%s%s",
                    length ? ", " : "", level.table->name);
    }
  return Status::error(LLM_INVALID_ARGUMENT, 0, 0,
                       "expected LLM_CPU_TARGET to name a level that this CPU "
                       "runs (%s), got '%.40s'",
                       names, name);
}

std::atomic<const KernelTable *> selected{&baselineKernels};
const Status loaded = selectKernels(std::getenv("LLM_CPU_TARGET"));

} // namespace

const KernelTable &llm::cpu::kernels() {
  return *selected.load(std::memory_order_relaxed);
}

Status llm::cpu::selectKernels(const char *name) {
  bool named = name && *name;
  const KernelTable *found = named ? levelNamed(name) : bestLevel();
  selected.store(found ? found : bestLevel(), std::memory_order_relaxed);
  return found ? Status() : unknownLevel(name);
}

const Status &llm::cpu::selectedAtLoad() { return loaded; }

extern "C" const char *llm_cpu_target(void) { return kernels().name; }
