//===- LevelX86V3.cpp - Kernels for CPUs with AVX2 ------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

// Compiled with -march=x86-64-v3: see CMakeLists.txt.
#define LLM_CPU_X86_V3
#define LLM_CPU_NAME "x86-64-v3"
#define LLM_CPU_TABLE x86V3Kernels

#include "Level.inc"
