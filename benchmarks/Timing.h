//===- Timing.h - Times held against ceilings -------------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
//   probe | calls | probe | calls | probe ...
//           slice           slice
//
// A slice is judged by the two probes around it. Where they differ by more than
// a fifth the machine changed meanwhile, and where arithmetic is slower than it
// was another program had a core: such a slice says nothing.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_BENCHMARKS_TIMING_H
#define LLM_BENCHMARKS_TIMING_H

#include "Batches.h"

#include <map>

namespace llm {

/// By their names in JSON.
using Counters = std::map<std::string, double>;

/// `quick`: one slice and one pair, each of one call, for tests of the program.
Counters timeCase(const Case &what, bool quick);

/// The time of `what` over that of `reference`, called in turn.
Counters timePair(const Case &what, const Case &reference, bool quick);

Counters timeProbe(Ceiling ceiling, bool quick);

} // namespace llm

#endif // LLM_BENCHMARKS_TIMING_H
