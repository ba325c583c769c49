//===- Kernels.h - The table of kernels of one CPU level --------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Level.inc is compiled once per level, and each of these files exports one
// symbol: its table. Target.cpp picks a table when the library is loaded.
//
//   LevelBaseline.cpp --+
//   LevelX86V3.cpp    --+                       +-- Attention.cpp
//   LevelX86V4.cpp    --+-- KernelTable, kernels() -- WriteKV.cpp
//   LevelX86Vnni.cpp  --+                       +-- Weights.cpp
//   LevelX86Dots.cpp  --+
//   LevelX86Matrix.cpp--+
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_KERNELS_H
#define LLM_RUNTIME_CPU_KERNELS_H

#include "llm/Runtime/Attention.h"

#include <stdint.h>

namespace llm {
class Status;
}

namespace llm::cpu {

/// Formats that have scales. Static, as everything that levels share.
static constexpr bool isQuantized(llm_dtype type) {
  return type == LLM_F8E4M3FN || type == LLM_I8;
}

/// Of one element; LLM_I4 has none.
static constexpr int64_t bytesOf(llm_dtype type) {
  return type == LLM_F32 ? 4 : isQuantized(type) ? 1 : 2;
}

/// Keys are folded into a row's softmax in tiles, and tiles in chunks, both at
/// fixed positions of the sequence: see AttentionKernel.h.
constexpr int64_t kTileKeys = 64;
constexpr int64_t kChunkKeys = 8 * kTileKeys;

/// So few rows of a sequence read a key that it is not turned for them.
constexpr int64_t kFewRows = 16;

/// Bounds of a task's rows over all of its heads: the kernel's workspace has a
/// fixed size.
constexpr int64_t kMaxTaskRows = 384;
constexpr int64_t kMaxTaskFloats = 6 * kMaxHeadDim;

/// Floats from one row of queries to the next in the workspace.
static constexpr int64_t strideOfQueries(int64_t headDim) {
  return (headDim + 63) / 64 * 64;
}

/// Some rows of one sequence at the KV heads [headBegin, headEnd). Row r of a
/// head is the query r / group at query head head * group + r % group: the rows
/// that read the same keys.
struct AttentionTask {
  const KVPages *pages;
  const AttentionParams *params;
  const llm_tensor *q;
  const llm_tensor *out;
  const llm_tensor *lse; ///< or null
  const int32_t *blocks; ///< the sequence's blocks
  int64_t firstToken;    ///< index in the batch of the sequence's first query
  int64_t firstPosition; ///< its position
  int64_t queries;       ///< of the sequence in this call
  int64_t seqLen;
  int64_t rowBegin, rowEnd;
  int64_t headBegin, headEnd;
  int32_t group; ///< query heads of one KV head
};

/// The position of row `row` of a task's sequence.
static inline int64_t positionOf(const AttentionTask &task, int64_t row) {
  return task.firstPosition + row / task.group;
}

/// The sinks that row `row` of a task's sequence sees, and the other keys.
static inline KeyRange visibleSinks(const AttentionTask &task, int64_t row) {
  return visibleSinks(*task.params, positionOf(task, row), task.seqLen);
}
static inline KeyRange visibleKeys(const AttentionTask &task, int64_t row) {
  return visibleKeys(*task.params, positionOf(task, row), task.seqLen);
}

/// The chunks of kChunkKeys positions whose keys some row of a task sees:
/// first those that hold sinks alone, then those of the window.
struct TaskChunks {
  int64_t sinks;
  KeyRange window;

  int64_t count() const { return sinks + window.end - window.begin; }
  int64_t operator[](int64_t i) const {
    return i < sinks ? i : i - sinks + window.begin;
  }
};

static inline TaskChunks chunksOf(const AttentionTask &task) {
  auto chunks = [](int64_t keys) {
    return (keys + kChunkKeys - 1) / kChunkKeys;
  };
  int64_t first = visibleKeys(task, task.rowBegin).begin / kChunkKeys;
  int64_t sinks = chunks(visibleSinks(task, task.rowEnd - 1).end);
  int64_t end = chunks(visibleKeys(task, task.rowEnd - 1).end);
  return {sinks < first ? sinks : first, {first, end}};
}

/// The tokens [tokenBegin, tokenEnd) of k and v, and the slot of each token of
/// both or -1.
struct WriteTask {
  const KVPages *pages;
  const int64_t *slots;
  const llm_tensor *k;
  const llm_tensor *v;
  const Rope *rope; ///< or null
  int64_t tokenBegin, tokenEnd;
  bool streaming; ///< past the caches, where rows are whole lines
};

/// LLM_LAYOUT_TILES32: columns of out and numbers of a row that a tile has;
/// columns of a panel there and in LLM_LAYOUT_PANEL32.
constexpr int64_t kWeightTileColumns = 16, kWeightDepth = 32;
constexpr int64_t kWeightPanelColumns = 2 * kWeightTileColumns;

/// A call of so few rows reads weights as fast as memory gives them.
constexpr int64_t kFewLinearRows = 8;

/// out = x times a weight matrix.
struct LinearTask {
  const llm_tensor *x;   ///< f32 [M, k]
  const llm_tensor *out; ///< f32 [M, columns]
  const void *w;
  int64_t k; ///< a multiple of kWeightDepth where w is tiled
  int64_t columns;
  bool rounded;   ///< x is rounded to bf16 first
  bool streaming; ///< out goes past the caches: its rows begin at lines
  llm_dtype type; ///< of w: LLM_F32 or LLM_BF16
  bool tiled;     ///< w is in LLM_LAYOUT_TILES32, else in LLM_LAYOUT_PANEL32
};

/// out = x times a weight matrix of quantized blocks: see Blocks.h.
struct BlockTask {
  const llm_tensor *x;   ///< f32 [M, k]
  const llm_tensor *out; ///< f32 [M, columns]
  const void *w;
  llm_file_format format;
  int64_t k; ///< a multiple of kWeightDepth
  int64_t columns;
};

/// What 32 numbers of a row of x take as integers.
constexpr int64_t kIntegerBlockFloats = kWeightDepth / 4 + 3;

struct KernelTable {
  const char *name;
  /// A whole task: every chunk, merged, written to `out` and `lse`.
  void (*attend)(const AttentionTask &task);
  /// Some of chunksOf(task), each as `stateFloats` floats, `stride` apart.
  void (*attendChunks)(const AttentionTask &task, KeyRange chunks,
                       float *states, int64_t stride);
  /// Merges the states of the task's chunks, `stride` floats apart, and writes
  /// what `attend` would have written, bit for bit.
  void (*mergeChunks)(const AttentionTask &task, const float *states,
                      int64_t stride, int64_t count);
  int64_t (*stateFloats)(int64_t rows, int64_t headDim);
  /// Writes the rows of a task into their slots.
  void (*writeTokens)(const WriteTask &task);
  /// n elements from one of f32, f16, bf16 to another, rounded once.
  void (*convert)(void *to, llm_dtype toType, const void *from,
                  llm_dtype fromType, int64_t n);
  /// One row of n lanes by a row of a rope table; out is not x.
  void (*rotate)(float *out, const float *x, const float *angles, int64_t n,
                 bool adjacent);
  /// A row of n elements of f32, f16 or bf16 as f8E4M3FN or i8, and the scale.
  float (*quantize)(void *to, llm_dtype toType, const void *from,
                    llm_dtype fromType, int64_t n);
  /// Such a row times its scale as f32, f16 or bf16, rounded once.
  void (*dequantize)(void *to, llm_dtype toType, const void *from,
                     llm_dtype fromType, float scale, int64_t n);
  /// LLM_I4 (Groups.h): n channels of 32 rows, `stride` floats apart, and of
  /// one row. Codes of a row are codeBytes(n) bytes, those of the next one
  /// begin codeStride bytes later.
  void (*quantizeTokens)(uint8_t *codes, int64_t codeStride, uint32_t *params,
                         const float *rows, int64_t stride, int64_t n);
  void (*quantizeChannels)(uint8_t *codes, uint32_t *params, const void *from,
                           llm_dtype fromType, int64_t n);
  /// A row of n channels, with params for each or for each group of them.
  void (*readTokens)(float *to, const uint8_t *codes, const uint32_t *params,
                     int64_t n);
  void (*readChannels)(float *to, const uint8_t *codes, const uint32_t *params,
                       int64_t n);
  /// What prepareRows writes of all rows, in floats.
  int64_t (*floatsOfFactors)(const LinearTask &task);
  /// Rows of x as the factors that multiplyRows reads.
  void (*prepareRows)(const LinearTask &task, float *factors, KeyRange rows);
  /// Columns 32 * panels.begin to 32 * panels.end of some rows of out.
  void (*multiplyRows)(const LinearTask &task, const float *factors,
                       KeyRange rows, KeyRange panels);
  /// The most rows that are multiplied as integers, where these are allowed.
  int64_t integerRows;
  /// Rows of x as the integers that multiplyIntegers reads: of each row,
  /// kIntegerBlockFloats for each kWeightDepth columns.
  void (*prepareIntegers)(const BlockTask &task, float *factors, KeyRange rows);
  /// multiplyRows with integers for factors.
  void (*multiplyIntegers)(const BlockTask &task, const float *factors,
                           KeyRange rows, KeyRange panels);
  /// Panels of blocks as LLM_LAYOUT_TILES32, rounded to bf16.
  void (*unpackPanels)(const BlockTask &task, float *tiles, KeyRange panels);
  /// exp, 2^x as weights need it, and tanh, for the tests of their accuracy.
  void (*exp)(float *x, int64_t n);
  void (*decay)(float *x, int64_t n);
  void (*tanh)(float *x, int64_t n);
};

extern const KernelTable baselineKernels;
extern const KernelTable x86V3Kernels;
extern const KernelTable x86V4Kernels;
extern const KernelTable x86VnniKernels;
extern const KernelTable x86DotsKernels;
extern const KernelTable x86MatrixKernels;

/// The table in use.
const KernelTable &kernels();

/// Switches to the named level ("baseline"); null or "": the best. A name that
/// is unknown, or whose level this CPU does not run, is an error that lists
/// those it runs, and gets the best. Not while a kernel runs.
Status selectKernels(const char *name);

/// What came of LLM_CPU_TARGET when the library was loaded.
const Status &selectedAtLoad();

} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_KERNELS_H
