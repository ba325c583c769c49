//===- AttentionGroups.h - Tiles of groups as f32 ---------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Pages of i4 (Groups.h) are unpacked, some channels of a head after the other,
// and then multiplied as any f32.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_ATTENTIONGROUPS_H
#define LLM_RUNTIME_CPU_ATTENTIONGROUPS_H

#include "AttentionFloats.h"

namespace llm::cpu {
namespace {

/// Of a tile as f32: row `key` is `dims` channels from `dim` on of that key.
struct Unpacked {
  int64_t head, dim, dims;
  float *rows;
  int64_t stride; ///< of rows, in floats

  float *row(int64_t key) const { return rows + key * stride; }
  /// Asks for as many lines as a key's codes take in K and V.
  void ask(Ahead &ahead) const {
    for (int64_t i = 0; i < dims; i += kLineBytes)
      ahead.ask<1>();
  }
};

inline void unpackKeys(const Frame &f, int64_t tile, KeyRange keys,
                       const Unpacked &to, Ahead &ahead) {
  const KVPlane &k = f.task.pages->k;
  int64_t head = f.task.headBegin + to.head;
  auto unpack = [&](int64_t block, int64_t group, int64_t row, int64_t key) {
    if (k.isExact(block, group))
      memcpy(to.row(key), k.exactRow(block, head, group, row, f.dim) + to.dim,
             to.dims * sizeof(float));
    else
      readTokens(to.row(key),
                 reinterpret_cast<uint8_t *>(k.groupAt(block, head, group)) +
                     row * k.tokenStride + codeBytes(to.dim),
                 k.groupParamsAt(block, head, group) + to.dim, to.dims);
    to.ask(ahead);
  };
  forBlocks(f, tile, keys,
            [&](int64_t block, int64_t slot, int64_t key, int64_t count) {
              for (int64_t i = 0; i < count; ++i)
                unpack(block, (slot + i) / kGroupSize, (slot + i) % kGroupSize,
                       key + i);
            });
}

inline void unpackValues(const Frame &f, int64_t tile, KeyRange keys,
                         const Unpacked &to, Ahead &ahead) {
  const KVPlane &v = f.task.pages->v;
  int64_t head = f.task.headBegin + to.head;
  forBlocks(f, tile, keys,
            [&](int64_t block, int64_t slot, int64_t key, int64_t count) {
              for (int64_t i = 0; i < count; ++i) {
                readChannels(
                    to.row(key + i),
                    reinterpret_cast<uint8_t *>(v.at(block, head, slot + i)) +
                        codeBytes(to.dim),
                    v.paramsAt(block, head, slot + i, f.dim) + groupsOf(to.dim),
                    to.dims);
                to.ask(ahead);
              }
            });
}

/// Calls fn(Unpacked) for `lanes` channels of a head after the other, which are
/// to be unpacked at `rows`.
template <typename Fn>
inline void forUnpacked(const Frame &f, float *rows, int64_t lanes, Fn fn) {
  for (int64_t head = 0; head < f.heads; ++head)
    for (int64_t dim = 0; dim < f.dim; dim += lanes)
      fn(Unpacked{head, dim, min(f.dim - dim, lanes), rows, lanes});
}

/// Byte offsets of `keys` in rows that are so many floats apart; see locate.
inline void locateUnpacked(KeyRange keys, int64_t stride, int64_t *offsets) {
  for (int64_t key = keys.begin / kLanes * kLanes;
       key < roundUp(keys.end, kLanes); ++key)
    offsets[key] = min(max(key, keys.begin), keys.end - 1) * stride *
                   int64_t(sizeof(float));
}

/// A tile's keys as f32, then scores as of any other f32. Of few rows, which
/// need no panel of keys, in its place.
inline void scoreGroups(const Frame &f, int64_t tile, KeyRange keys,
                        const State &) {
  bool few = f.few && f.dim <= kPanelLanes;
  float *rows = few ? f.work.keys : f.work.values;
  int64_t lanes = few ? kPanelLanes : kValueLanes;
  locateUnpacked(keys, lanes, f.work.kOffsets);
  forUnpacked(f, rows, lanes, [&](const Unpacked &part) {
    Ahead ahead = afterKeys(f, tile, part.head);
    unpackKeys(f, tile, keys, part, ahead);
    Ahead nothing = nothingAhead();
    Keys k = {reinterpret_cast<const char *>(rows), f.work.kOffsets, part.dims};
    int64_t first = part.head * f.rowsPerHead;
    if (few)
      return forRowBlocks<4>(f.rowsPerHead, [&](auto n, int64_t row) {
        scoresOfFew<FmaProduct, LLM_F32, n.value>(
            f.q(first + row, 0), k, keys, f.scores(first + row), nothing);
      });
    int64_t steps = packKeys<FmaProduct, LLM_F32>(k, keys, 0, f.work.keys);
    scorePanel<FmaProduct>(f, part.head, tile, part.dim, steps, 0, nothing);
  });
}

inline void weighGroups(const Frame &f, int64_t tile, KeyRange keys,
                        const State &state) {
  forUnpacked(f, f.work.values, kValueLanes, [&](const Unpacked &part) {
    Ahead ahead = afterValues(f, tile, part.head);
    unpackValues(f, tile, keys, part, ahead);
    Ahead nothing = nothingAhead();
    weighPanel<FmaProduct>(f, part.head, tile, state, part.dim,
                           roundUp(part.dims, kLanes), 0, nothing);
  });
}

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_ATTENTIONGROUPS_H
