//===- Ceilings.h - What the machine can do at best -------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Rates that no kernel exceeds, taken with as many threads as the runtime uses.
// Bandwidth flips within minutes on shared machines: probe right before and
// after what is held against it.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_BENCHMARKS_CEILINGS_H
#define LLM_BENCHMARKS_CEILINGS_H

#include <cstdint>
#include <cstdlib>
#include <memory>

namespace llm {

enum class Ceiling {
  Read,    ///< bytes per second
  Copy,    ///< bytes per second, read and written
  Fma,     ///< operations per second: f32, a product is two
  Bf16Dot, ///< the same in pairs of bf16; 0: the CPU has no such instruction
};

/// One probe: 30 to 100 ms.
double probe(Ceiling ceiling);

struct Free {
  void operator()(char *memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<char[], Free>;

/// Memory in large pages, touched.
Memory allocate(int64_t bytes);

/// More than the last-level cache holds: what is read once per round of this
/// much comes from memory.
int64_t coldBytes();

} // namespace llm

#endif // LLM_BENCHMARKS_CEILINGS_H
