//===- Levels.h - Tests that run at every CPU level -------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A level that this CPU does not run is skipped.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_TEST_RUNTIME_LEVELS_H
#define LLM_TEST_RUNTIME_LEVELS_H

#include "cpu/Kernels.h"
#include "llm/Runtime/Status.h"

#include <gtest/gtest.h>

#include <ostream>

namespace llm {

struct CpuLevel {
  const char *name;
  const char *testName;
};

constexpr CpuLevel cpuLevels[] = {{"baseline", "Baseline"},
                                  {"x86-64-v3", "X86V3"},
                                  {"x86-64-v4", "X86V4"},
                                  {"x86-64-v4+vnni", "X86Vnni"},
                                  {"x86-64-v4+bf16+vnni", "X86Dots"},
                                  {"x86-64-v4+amx", "X86Matrix"}};

inline void PrintTo(const CpuLevel &level, std::ostream *os) {
  *os << level.name;
}

class LevelTest : public ::testing::TestWithParam<CpuLevel> {
protected:
  void SetUp() override {
    if (Status status = cpu::selectKernels(GetParam().name); !status.ok())
      GTEST_SKIP() << status.message();
  }
  void TearDown() override { EXPECT_TRUE(cpu::selectKernels(nullptr).ok()); }
};

/// Runs the tests of a suite that derives from LevelTest.
#define LLM_AT_EVERY_LEVEL(SUITE)                                              \
  INSTANTIATE_TEST_SUITE_P(                                                    \
      Levels, SUITE, ::testing::ValuesIn(::llm::cpuLevels),                    \
      [](const auto &info) { return info.param.testName; })

} // namespace llm

#endif // LLM_TEST_RUNTIME_LEVELS_H
