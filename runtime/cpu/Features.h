//===- Features.h - What compiled models need of this CPU -------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_FEATURES_H
#define LLM_RUNTIME_CPU_FEATURES_H

#include <string>

namespace llm::cpu {

/// Of features of CPUFeatures.def, separated by commas, those that this CPU or
/// its system lacks, and those that are unknown.
std::string missingFeatures(const char *features);

} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_FEATURES_H
