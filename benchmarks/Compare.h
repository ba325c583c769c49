//===- Compare.h - Two runs side by side ------------------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_BENCHMARKS_COMPARE_H
#define LLM_BENCHMARKS_COMPARE_H

#include <iosfwd>
#include <string>

namespace llm {

/// Prints the rows of two files that bench-attention wrote. Returns an exit
/// status: 1 after an error, which is about a file and not about a figure.
int compare(const std::string &before, const std::string &after,
            std::ostream &out, std::ostream &errors);

} // namespace llm

#endif // LLM_BENCHMARKS_COMPARE_H
