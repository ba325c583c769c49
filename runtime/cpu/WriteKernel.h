//===- WriteKernel.h - Rows of tokens into pages ----------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
//   k [T, Hkv, D]     token t, head h  -->  block slot / blockSize of head h,
//                                           token slot % blockSize
//
// Each (token, head) is one contiguous row at both ends: a conversion with one
// rounding, a quantization or a copy; K may rotate on the way, in L1.
//
// A store reads the line that it changes, unless it is a streaming one, which
// writes whole lines past the caches. That is for long prompts: what a decode
// step writes is read at once. Rows of K and V, of the first and of the second
// half of the tokens, come in turn: four streams to read, whose lines are asked
// for ahead. Floor: bytes read plus bytes written over the bandwidth of copies.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_WRITEKERNEL_H
#define LLM_RUNTIME_CPU_WRITEKERNEL_H

#include "Groups.h"
#include "Quantize.h"

namespace llm::cpu {
namespace {

//===----------------------------------------------------------------------===//
// Conversion
//===----------------------------------------------------------------------===//

template <llm_dtype To, llm_dtype From>
void convertAs(char *to, const char *from, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    store<To>(to + i * bytesOf(To), load<From>(from + i * bytesOf(From)));
  if (i < n)
    store<To>(to + i * bytesOf(To), load<From>(from + i * bytesOf(From), n - i),
              n - i);
}

template <llm_dtype To>
void convertTo(char *to, const char *from, llm_dtype fromType, int64_t n) {
  if (fromType == LLM_F32)
    convertAs<To, LLM_F32>(to, from, n);
  else if (fromType == LLM_F16)
    convertAs<To, LLM_F16>(to, from, n);
  else
    convertAs<To, LLM_BF16>(to, from, n);
}

/// One type to itself is a copy: not even a NaN changes.
void convert(void *to, llm_dtype toType, const void *from, llm_dtype fromType,
             int64_t n) {
  char *out = static_cast<char *>(to);
  const char *in = static_cast<const char *>(from);
  if (n == 0)
    return; // pointers may be null
  if (toType == fromType)
    memcpy(to, from, n * bytesOf(toType));
  else if (toType == LLM_F32)
    convertTo<LLM_F32>(out, in, fromType, n);
  else if (toType == LLM_F16)
    convertTo<LLM_F16>(out, in, fromType, n);
  else
    convertTo<LLM_BF16>(out, in, fromType, n);
}

//===----------------------------------------------------------------------===//
// Rotation
//===----------------------------------------------------------------------===//

/// Lanes i * step and i * step + apart are pair i.
template <int64_t step>
void rotatePairs(float *__restrict out, const float *__restrict x,
                 const float *__restrict angles, int64_t pairs, int64_t apart) {
  for (int64_t i = 0; i < pairs; ++i) {
    float a = x[i * step], b = x[i * step + apart];
    float cosine = angles[i], sine = angles[pairs + i];
    out[i * step] = a * cosine - b * sine;
    out[i * step + apart] = a * sine + b * cosine;
  }
}

void rotate(float *out, const float *x, const float *angles, int64_t n,
            bool adjacent) {
  if (adjacent)
    rotatePairs<2>(out, x, angles, n / 2, 1);
  else
    rotatePairs<1>(out, x, angles, n / 2, n / 2);
}

//===----------------------------------------------------------------------===//
// Past the caches
//===----------------------------------------------------------------------===//

/// As many elements as fill a vector, as type To.
template <llm_dtype To, llm_dtype From>
inline Vec convertPacked(const char *from) {
  if constexpr (To == From || To == LLM_F32)
    return To == From ? load<LLM_F32>(from) : load<From>(from);
  else
    return join(Memory<To>::round(load<From>(from)),
                Memory<To>::round(load<From>(from + kLanes * bytesOf(From))));
}

/// A row of whole lines, while as many bytes at `next` are fetched.
template <llm_dtype To, llm_dtype From>
void streamAs(char *to, const char *from, const char *next, int64_t n) {
  constexpr int64_t kStep = sizeof(Vec) / bytesOf(To);
  for (int64_t i = 0; i < n; i += kStep) {
    for (int64_t j = 0; j < kStep * bytesOf(From); j += kLineBytes)
      __builtin_prefetch(next + i * bytesOf(From) + j);
    storeStreaming(to + i * bytesOf(To),
                   convertPacked<To, From>(from + i * bytesOf(From)));
  }
}

using Streamer = void (*)(char *to, const char *from, const char *next,
                          int64_t n);

template <llm_dtype To>
Streamer streamerTo(llm_dtype fromType) {
  return fromType == LLM_F32   ? streamAs<To, LLM_F32>
         : fromType == LLM_F16 ? streamAs<To, LLM_F16>
                               : streamAs<To, LLM_BF16>;
}

/// Null where a row of n elements is quantized, or is not whole lines.
Streamer streamerOf(const KVPlane &to, llm_dtype fromType, int64_t n) {
  if (to.scales || to.params ||
      (reinterpret_cast<uintptr_t>(to.data) | to.blockStride | to.headStride |
       to.tokenStride | n * bytesOf(to.dtype)) %
          kLineBytes)
    return nullptr;
  return to.dtype == LLM_F32   ? streamerTo<LLM_F32>(fromType)
         : to.dtype == LLM_F16 ? streamerTo<LLM_F16>(fromType)
                               : streamerTo<LLM_BF16>(fromType);
}

//===----------------------------------------------------------------------===//
// Tokens
//===----------------------------------------------------------------------===//

/// Where a token goes; nowhere: block -1.
struct Place {
  int64_t token, block, offset;
};

Place placeOf(const WriteTask &task, int64_t token) {
  const int64_t size = task.pages->blockSize;
  if (token >= task.tokenEnd || task.slots[token] < 0)
    return {token, -1, 0};
  return {token, task.slots[token] / size, task.slots[token] % size};
}

/// The tokens of K, or of V, on their way.
class Writer {
public:
  Writer(const WriteTask &task, const KVPlane &to, const llm_tensor &from,
         const Rope *rope)
      : to(to), from(from), rope(rope), headDim(task.pages->headDim),
        stream(task.streaming ? streamerOf(to, from.dtype, headDim) : nullptr) {
    // Two rows of f32; where other data are between tokens, the next token.
    bool dense = from.strides[0] == task.pages->kvHeads * from.strides[1];
    ahead = dense ? 1024 : from.strides[0] * bytesOf(from.dtype);
  }

  void write(const Place &place, int64_t head) {
    const char *row = static_cast<const char *>(from.data) +
                      (place.token * from.strides[0] + head * from.strides[1]) *
                          bytesOf(from.dtype);
    const char *values = rope ? rotateRow(row, place.token) : row;
    char *page = to.at(place.block, head, place.offset);
    if (stream)
      stream(page, values, row + ahead, headDim);
    else if (to.params)
      quantizeChannels(reinterpret_cast<uint8_t *>(page),
                       to.paramsAt(place.block, head, place.offset, headDim),
                       values, from.dtype, headDim);
    else if (to.scales)
      *to.scaleAt(place.block, head, place.offset) =
          quantize(page, to.dtype, values, from.dtype, headDim);
    else
      convert(page, to.dtype, values, from.dtype, headDim);
  }

private:
  const char *rotateRow(const char *row, int64_t token) {
    const auto *angles = static_cast<const float *>(rope->table->data) +
                         token * rope->table->strides[0];
    rotate(rotated, reinterpret_cast<const float *>(row), angles, headDim,
           rope->adjacent);
    return reinterpret_cast<const char *>(rotated);
  }

  const KVPlane &to;
  const llm_tensor &from;
  const Rope *rope; ///< or null
  int64_t headDim;
  Streamer stream; ///< or null
  int64_t ahead;   ///< bytes from a row to the one that is fetched
  float rotated[kMaxHeadDim];
};

void writeTokens(const WriteTask &task) {
  Writer k(task, task.pages->k, *task.k, task.rope);
  Writer v(task, task.pages->v, *task.v, nullptr);
  const int64_t tokens = task.tokenEnd - task.tokenBegin;
  const int64_t part = task.streaming ? (tokens + 1) / 2 : tokens;
  for (int64_t i = task.tokenBegin; i < task.tokenBegin + part; ++i) {
    const Place places[] = {placeOf(task, i), placeOf(task, i + part)};
    for (int64_t head = 0; head < task.pages->kvHeads; ++head)
      for (const Place &place : places)
        if (place.block >= 0) {
          if (!task.pages->k.groupStride) // writeGroups
            k.write(place, head);
          v.write(place, head);
        }
  }
  if (task.streaming)
    fenceStreaming(); // before another thread reads
}

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_WRITEKERNEL_H
