//===- Attention.h - The kernels over pages ---------------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What a kernel sees of a cache: tables and strides, never an object. Callers
// have validated everything; kernels cannot fail.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_ATTENTION_H
#define LLM_RUNTIME_ATTENTION_H

#include "llm/Runtime/CAPI.h"

#include <cstdint>

namespace llm {

/// The largest head_dim that kernels take: their workspace has a fixed size,
/// which is why they cannot fail.
constexpr int32_t kMaxHeadDim = 8192;

/// Numbers of LLM_I4 that share a minimum and a step: channels of one token of
/// V, tokens of one channel of K.
constexpr int64_t kGroupSize = 32;

/// Groups of n numbers.
constexpr int64_t groupsOf(int64_t n) {
  return (n + kGroupSize - 1) / kGroupSize;
}

/// Bytes of the codes of n channels: byte j of a group's 16 holds channel j in
/// its lower and channel j + 16 in its upper half.
constexpr int64_t codeBytes(int64_t n) { return groupsOf(n) * kGroupSize / 2; }

/// The groups of K that are held as they were appended, beside the pages of one
/// layer. Strides are in bytes.
struct ExactGroups {
  char *rows = nullptr;    ///< f32 [group][head][row][channel]
  uint8_t *held = nullptr; ///< [group]: nonzero: it is exact
  int64_t blockGroups = 0; ///< groups of one block
  int64_t groupStride = 0;
};

/// K or V of one layer. All strides are in bytes; a token's head_dim elements
/// are contiguous.
struct KVPlane {
  char *data;
  llm_dtype dtype; ///< f32, f16, bf16, or a quantized type
  int64_t blockStride;
  int64_t headStride;
  int64_t tokenStride; ///< of K of LLM_I4: within a group
  /// The scales of LLM_F8E4M3FN and LLM_I8, f32: those of a head's tokens are
  /// side by side.
  char *scales = nullptr;
  int64_t scaleHeadStride = 0;
  /// Two bf16 for each group of LLM_I4, the minimum in the lower half and the
  /// step in the upper one. Of V: those of a head's tokens lie side by side.
  char *params = nullptr;
  /// K of LLM_I4: codes [row][byte], then params [channel].
  int64_t groupStride = 0;
  ExactGroups exact = {};

  /// Token `token` of KV head `head` in block `block`.
  char *at(int64_t block, int64_t head, int64_t token) const {
    return data + block * blockStride + head * headStride + token * tokenStride;
  }
  /// Its scale.
  float *scaleAt(int64_t block, int64_t head, int64_t token) const {
    return reinterpret_cast<float *>(scales + block * blockStride +
                                     head * scaleHeadStride) +
           token;
  }
  /// The params of a token's groups: V of LLM_I4.
  uint32_t *paramsAt(int64_t block, int64_t head, int64_t token,
                     int64_t headDim) const {
    return reinterpret_cast<uint32_t *>(params + block * blockStride +
                                        head * headStride) +
           token * groupsOf(headDim);
  }
  /// Group `group` of a block: K of LLM_I4. Its codes, then its params.
  char *groupAt(int64_t block, int64_t head, int64_t group) const {
    return data + block * blockStride + head * headStride + group * groupStride;
  }
  uint32_t *groupParamsAt(int64_t block, int64_t head, int64_t group) const {
    return reinterpret_cast<uint32_t *>(groupAt(block, head, group) +
                                        kGroupSize * tokenStride);
  }
  /// The same group's rows, if it is exact.
  bool isExact(int64_t block, int64_t group) const {
    return exact.held[block * exact.blockGroups + group];
  }
  float *exactRow(int64_t block, int64_t head, int64_t group, int64_t row,
                  int64_t headDim) const {
    return reinterpret_cast<float *>(exact.rows +
                                     (block * exact.blockGroups + group) *
                                         exact.groupStride) +
           (head * kGroupSize + row) * headDim;
  }
};

/// One layer's pages of K and V.
struct KVPages {
  KVPlane k, v;
  int32_t kvHeads;
  int32_t headDim;
  int32_t blockSize; ///< tokens of one block
};

/// The ragged batch of one attention call. Row i owns queries
/// cuSeqlens[i] .. cuSeqlens[i + 1] - 1; its first query is at position
/// firstPosition[i] and it may read keys 0 .. seqLens[i] - 1.
struct BatchView {
  int32_t numSequences;
  const int32_t *cuSeqlens;     ///< [B + 1]
  const int32_t *firstPosition; ///< [B]
  const int32_t *seqLens;       ///< [B]
  const int32_t *blockTable;    ///< [B, tableStride]
  int64_t tableStride;          ///< in entries
};

/// A query at position p sees the keys j of its row with j < seqLens[i] and
/// (!causal or j <= p) and (window == 0 or j > p - window or j < sinks).
struct AttentionParams {
  float scale;
  float softcap;  ///< 0: none; else s -> softcap * tanh(s / softcap)
  int32_t window; ///< 0: none
  bool causal;
  int32_t sinks = 0;                     ///< 0 without a window
  const llm_tensor *alibi = nullptr;     ///< f32 [Hq]: s -> s + alibi * (j - p)
  const llm_tensor *headSink = nullptr;  ///< f32 [Hq]: a logit without a value
  const llm_tensor *sinkQuery = nullptr; ///< like q, in its place for j < sinks
};

struct KeyRange {
  int64_t begin, end;
};

/// The end of the keys that a query at `position` sees of `seqLen`.
static inline int64_t visibleEnd(const AttentionParams &params,
                                 int64_t position, int64_t seqLen) {
  return params.causal && position + 1 < seqLen ? position + 1 : seqLen;
}

/// The sinks that it sees; the other keys are visibleKeys. The ends of both
/// intervals grow with the position.
static inline KeyRange visibleSinks(const AttentionParams &params,
                                    int64_t position, int64_t seqLen) {
  int64_t end = visibleEnd(params, position, seqLen);
  return {0, params.sinks < end ? params.sinks : end};
}

static inline KeyRange visibleKeys(const AttentionParams &params,
                                   int64_t position, int64_t seqLen) {
  int64_t end = visibleEnd(params, position, seqLen);
  int64_t begin = params.window ? position + 1 - params.window : 0;
  begin = begin < params.sinks ? params.sinks : begin;
  begin = begin < seqLen ? begin : seqLen;
  return {begin, begin < end ? end : begin};
}

class AttentionPlan;

/// out = softmax(scale q k^T + masks) v over the pages, accumulated in f32.
/// Without lse, CPUs with VNNI round more than 16 query rows of a KV head, and
/// pages that are not f32, to 16 bits with a step for each row: the relative
/// error (L2) is some 3e-4, and with lse that of f32.
/// q, out: [T, Hq, D] strided, one dtype (f32, f16, bf16), last dimension
/// contiguous. lse: null or f32 [T, Hq] strided. A row without a visible key
/// gets out = 0, lse = -inf; masked slots are never read. plan: null, or what
/// is passed to every layer of a step (AttentionPlan.h).
void pagedAttention(const KVPages &pages, const BatchView &batch,
                    const AttentionParams &params, const llm_tensor &q,
                    const llm_tensor &out, const llm_tensor *lse,
                    AttentionPlan *plan = nullptr);

/// How K rotates by position: llm_extras in CAPI.h.
struct Rope {
  const llm_tensor *table; ///< f32 [T, D], rows contiguous
  bool adjacent;
};

/// Writes token t of k and v ([T, Hkv, D] strided; f32, f16 or bf16; last
/// dimension contiguous) to slot slotMapping[t] = block * blockSize + offset,
/// rounded once to the pages' dtype (nearest even), or quantized as
/// #llm.kv_storage defines; -1 skips the token. With a rope k is f32 and
/// rotated first. K of LLM_I4 is left to writeGroups.
void writeKV(const KVPages &pages, const int64_t *slotMapping,
             const llm_tensor &k, const llm_tensor &v,
             const Rope *rope = nullptr);

/// Tokens of a batch that follow one another in one group of K of LLM_I4.
struct GroupWrite {
  int32_t block;
  int32_t group;        ///< of the block
  int32_t begin, count; ///< rows of the group
  int32_t token;        ///< the first one's number in the batch
  bool completes;       ///< the group is quantized now
  /// Whose tokens these are, and the position of the group's first row.
  int32_t sequence, position;
};

/// Writes their rows as they are, after those that the group holds, or
/// quantizes the group that they complete. A group with rows before `begin` is
/// exact, and the caller says of it afterwards that it no longer is.
void writeGroups(const KVPages &pages, const GroupWrite *groups, int64_t count,
                 const llm_tensor &k, const Rope *rope = nullptr);

/// Makes rows [0, rows) of a quantized group exact: what they read as.
void reopenGroup(const KVPages &pages, int64_t block, int64_t group,
                 int64_t rows);

/// Reads the `headDim` elements of one token and head, rounded once to `type`:
/// f32, f16 or bf16.
void readRow(const KVPlane &plane, int64_t block, int64_t head, int64_t token,
             int64_t headDim, void *to, llm_dtype type);
/// The part of it for LLM_I4.
void readGroups(const KVPlane &plane, int64_t block, int64_t head,
                int64_t token, int64_t headDim, void *to, llm_dtype type);

} // namespace llm

#endif // LLM_RUNTIME_ATTENTION_H
