//===- Ceilings.h - What the machine can do at best -------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Rates that no kernel exceeds, taken with as many threads as the runtime uses.
// Memory is read and copied in several ways, of which the fastest counts.
// Bandwidth flips within seconds on shared machines: probe right before and
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
  Read,       ///< bytes per second
  Copy,       ///< bytes per second, read and written
  Fma,        ///< operations per second: f32, a product is two
  Bf16Dot,    ///< the same in pairs of bf16; 0: the CPU has no such instruction
  Int8Dot,    ///< the same in fours of int8
  Bf16Matrix, ///< tiles of bf16 (AMX); 0: the CPU has no such instruction
};

/// One probe: 10 to 100 ms.
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

/// Makes it this much instead, before anything has asked: for tests of the
/// program, whose figures then mean nothing.
void setColdBytes(int64_t bytes);

} // namespace llm

#endif // LLM_BENCHMARKS_CEILINGS_H
