//===- LevelBaseline.cpp - Kernels for any CPU of the target --------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#define LLM_CPU_NAME "baseline"
#define LLM_CPU_TABLE baselineKernels

#include "Level.inc"
