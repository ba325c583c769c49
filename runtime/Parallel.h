//===- Parallel.h - Loops over threads --------------------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The one place where the runtime knows threads. Two implementations in
// cpu/Parallel.cpp: OpenMP, which compiled models use too, so that both share
// one pool of threads; and a pool of std::thread, for builds without OpenMP
// and for TSan.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_PARALLEL_H
#define LLM_RUNTIME_PARALLEL_H

#include <cstdint>

namespace llm {

/// Threads a loop may use, the calling one included; at least 1.
int32_t numThreads();

/// For loops that start from now on, of which those of compiled code on this
/// thread where both are OpenMP's; n <= 0: one per available core.
void setNumThreads(int32_t n);

namespace detail {
using LoopBody = void (*)(void *context, int64_t begin, int64_t end);
void parallelFor(int64_t n, int64_t grain, LoopBody body, void *context);
} // namespace detail

/// Calls fn(begin, end) on disjoint ranges that cover [0, n), each of `grain`
/// indices except for the last; in any order, from any thread. Returns when all
/// are done. Inside another loop, and for a single range, the caller does it
/// all. Any number of threads may call at the same time; fn must not throw.
template <typename Fn>
void parallelFor(int64_t n, int64_t grain, const Fn &fn) {
  detail::parallelFor(
      n, grain,
      [](void *context, int64_t begin, int64_t end) {
        (*static_cast<const Fn *>(context))(begin, end);
      },
      const_cast<Fn *>(&fn));
}

} // namespace llm

#endif // LLM_RUNTIME_PARALLEL_H
