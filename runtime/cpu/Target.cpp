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
bool supportsX86V4() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") &&
         __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bf16");
}
#endif

/// The named level, or the best one.
const KernelTable *find(const char *name) {
  if (name && !std::strcmp(name, baselineKernels.name))
    return &baselineKernels;
#if defined(LLM_CPU_HAS_X86_V4)
  if (supportsX86V4())
    return &x86V4Kernels;
#endif
  return &baselineKernels;
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
