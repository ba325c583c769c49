//===- LevelX86Matrix.cpp - Kernels for CPUs with AMX ---------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

// Compiled with -march=x86-64-v4 -mavx512bf16 -mavx512vnni -mamx-tile -mamx-bf16
// -mamx-int8: see CMakeLists.txt. The dot products of bf16 of these CPUs are
// slower than f32 fma.
#define LLM_CPU_X86_V4
#define LLM_CPU_X86_VNNI
#define LLM_CPU_X86_AMX
#define LLM_CPU_NAME "x86-64-v4+amx"
#define LLM_CPU_TABLE x86MatrixKernels

#include "Level.inc"
