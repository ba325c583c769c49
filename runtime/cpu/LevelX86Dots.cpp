//===- LevelX86Dots.cpp - Kernels for CPUs with AVX-512, VNNI and bf16 --===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

// Compiled with -march=x86-64-v4 -mavx512bf16 -mavx512vbmi -mavx512vnni: see
// CMakeLists.txt.
#define LLM_CPU_X86_V4
#define LLM_CPU_X86_BF16
#define LLM_CPU_X86_VNNI
#define LLM_CPU_NAME "x86-64-v4+bf16+vnni"
#define LLM_CPU_TABLE x86DotsKernels

#include "Level.inc"
