//===- Features.cpp - What compiled models need of this CPU ---------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Features.h"

#include <algorithm>
#include <string_view>

using namespace llm;

static bool hasFeature([[maybe_unused]] std::string_view name) {
#if defined(LLM_CPU_HAS_X86)
#define LLM_X86_FEATURE(feature)                                               \
  if (name == feature)                                                         \
    return __builtin_cpu_supports(feature);
#include "llm/Runtime/CPUFeatures.def"
#endif
  return false;
}

std::string cpu::missingFeatures(const char *features) {
#if defined(LLM_CPU_HAS_X86)
  __builtin_cpu_init();
#endif
  std::string missing;
  std::string_view rest = features;
  while (!rest.empty()) {
    const std::string_view name = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(name.size() + 1, rest.size()));
    if (!hasFeature(name))
      missing.append(missing.empty() ? "" : ", ").append(name);
  }
  return missing;
}
