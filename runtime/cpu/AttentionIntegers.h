//===- AttentionIntegers.h - Tiles as integers ------------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Few rows are multiplied with pages of i8 (IntegerTile.h) and of i4
// (IntegerGroups.h) as integers, where the level has dot products of bytes.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_ATTENTIONINTEGERS_H
#define LLM_RUNTIME_CPU_ATTENTIONINTEGERS_H

#include "AttentionFloats.h"
#include "IntegerGroups.h"

namespace llm::cpu {
namespace {

#if defined(LLM_CPU_X86_VNNI)

//===----------------------------------------------------------------------===//
// Pages of i8
//===----------------------------------------------------------------------===//

/// Scores of few rows with K as i8.
inline void scoreIntegers(const Frame &f, int64_t tile, KeyRange keys,
                          const State &) {
  const KVPlane &plane = f.task.pages->k;
  for (int64_t head = 0; head < f.heads; ++head) {
    Keys k = f.keys(plane, f.work.kOffsets, head);
    TileScales scales(f, plane, head, tile, keys);
    Ahead ahead = afterKeys(f, tile, head);
    forRowBlocks<kDigitRows>(f.rowsPerHead, [&](auto n, int64_t row) {
      row += head * f.rowsPerHead;
      for (int64_t key = keys.begin / kLanes * kLanes; key < keys.end;
           key += kLanes)
        scoresOfBytes<n.value>(integersOf(f), row, k, key, scales.of,
                               f.scores(row), ahead);
    });
  }
}

/// The same with V: a value's scale is the weight's, of which the sum has been
/// taken.
inline void weighIntegers(const Frame &f, int64_t tile, KeyRange keys,
                          const State &state) {
  const KVPlane &plane = f.task.pages->v;
  IntegerWeights weights[kFewRows];
  alignas(64) UInts panel[kTileKeys];
  int64_t begin = keys.begin / kDepthOfBytes * kDepthOfBytes;
  for (int64_t head = 0; head < f.heads; ++head) {
    Keys v = f.keys(plane, f.work.vOffsets, head);
    TileScales scales(f, plane, head, tile, keys);
    int64_t first = head * f.rowsPerHead;
    Ahead ahead = afterValues(f, tile, head);
    forRowBlocks<4>(f.rowsPerHead, [&](auto n, int64_t row) {
      setWeights<n.value>(
          weights + row, f.weights(first + row), scales.of,
          [&](int i) { return f.visible(first + row + i, tile); });
    });
    for (int64_t dim = 0; dim < f.dim; dim += kVecBytes) {
      turnValues(v, begin, keys.end, dim, panel);
      forRowBlocks<kDigitRows>(f.rowsPerHead, [&](auto n, int64_t row) {
        weightedBytes<n.value>(
            weights + row, begin, keys.end, panel, min(f.dim - dim, kVecBytes),
            {state.out[first + row] + dim, state.out.stride}, ahead);
      });
    }
  }
}

//===----------------------------------------------------------------------===//
// Pages of i4
//===----------------------------------------------------------------------===//

/// A group of K, as far as a tile's `keys` are in it, which are its last ones
/// or all of them: key i of the tile is row i - first.
struct KeyGroup {
  int64_t block, number, first;
  KeyRange keys;
};

/// Calls fn(group) for those that hold `keys` of the tile at `tile`.
template <typename Fn>
inline void forKeyGroups(const Frame &f, int64_t tile, KeyRange keys, Fn fn) {
  for (int64_t first = keys.begin / kGroupSize * kGroupSize; first < keys.end;
       first += kGroupSize) {
    int64_t size = f.task.pages->blockSize, position = tile + first;
    fn(KeyGroup{f.task.blocks[position / size],
                position % size / kGroupSize,
                first,
                {max(keys.begin, first), min(keys.end, first + kGroupSize)}});
  }
}

/// Byte offsets of its keys; see locate.
inline void locateGroup(const KeyGroup &group, int64_t stride,
                        int64_t *offsets) {
  for (int64_t i = 0; i < kGroupSize; ++i) {
    int64_t key = group.first + i;
    key = min(max(key, group.keys.begin), group.keys.end - 1);
    offsets[group.first + i] = (key - group.first) * stride;
  }
}

/// Scores of few rows with K as i4.
inline void scoreIntegerGroups(const Frame &f, int64_t tile, KeyRange keys,
                               const State &) {
  const KVPlane &plane = f.task.pages->k;
  for (int64_t part = 0; part < f.heads; ++part) {
    Ahead ahead = afterKeys(f, tile, part);
    forKeyGroups(f, tile, keys, [&](const KeyGroup &group) {
      int64_t head = f.task.headBegin + part;
      bool exact = plane.isExact(group.block, group.number);
      Keys k = {exact ? reinterpret_cast<char *>(plane.exactRow(
                            group.block, head, group.number, 0, f.dim))
                      : plane.groupAt(group.block, head, group.number),
                f.work.kOffsets, f.dim};
      locateGroup(group, exact ? f.dim * sizeof(float) : plane.tokenStride,
                  f.work.kOffsets);
      forRowBlocks<kDigitRows>(f.rowsPerHead, [&](auto n, int64_t row) {
        row += part * f.rowsPerHead;
        if (exact)
          return scoresOfFew<FmaProduct, LLM_F32, n.value>(
              f.q(row, 0), k, group.keys, f.scores(row), ahead);
        GroupQuery q[n.value];
        setGroupQueries<n.value>(
            q, f.q(row, 0), f.stride,
            plane.groupParamsAt(group.block, head, group.number), f.dim);
        for (int64_t key = group.keys.begin / kLanes * kLanes;
             key < group.keys.end; key += kLanes)
          scoresOfCodes<n.value>(q, k, key, f.scores(row), ahead);
      });
    });
  }
}

/// Those of a head's channels from `dim` on.
inline void readStripParams(const Frame &f, int64_t head, int64_t tile,
                            KeyRange keys, int64_t dim, StripParams &to) {
  const KVPlane &plane = f.task.pages->v;
  alignas(64) uint32_t params[kTileKeys][kVecGroups] = {};
  int64_t groups = min(groupsOf(f.dim - dim), int64_t(kVecGroups));
  forBlocks(f, tile, keys,
            [&](int64_t block, int64_t slot, int64_t key, int64_t count) {
              const uint32_t *from =
                  plane.paramsAt(block, f.task.headBegin + head, slot, f.dim) +
                  dim / kGroupSize;
              for (int64_t i = 0; i < count; ++i, from += groupsOf(f.dim))
                copyParams(params[key + i], from, groups);
            });
  turnParams(params, to);
}

/// The same with V, kVecCodes channels after the other.
inline void weighIntegerGroups(const Frame &f, int64_t tile, KeyRange keys,
                               const State &state) {
  GroupWeights weights[kFewRows];
  StripParams params;
  alignas(64) UInts panel[2 * kTileKeys];
  int64_t begin = keys.begin / kDepthOfBytes * kDepthOfBytes;
  for (int64_t head = 0; head < f.heads; ++head) {
    Keys v = f.keys(f.task.pages->v, f.work.vOffsets, head);
    int64_t first = head * f.rowsPerHead;
    Ahead ahead = afterValues(f, tile, head);
    for (int64_t dim = 0; dim < f.dim; dim += kVecCodes) {
      readStripParams(f, head, tile, keys, dim, params);
      for (int64_t row = 0; row < f.rowsPerHead; ++row)
        setGroupWeights(weights[row], f.weights(first + row)[0], params,
                        f.visible(first + row, tile));
      turnCodes(v, begin, keys.end, dim, panel);
      Ahead nothing = nothingAhead();
      forRowBlocks<2>(f.rowsPerHead, [&](auto n, int64_t row) {
        weightedCodes<n.value>(weights + row, begin, keys.end, panel,
                               f.dim - dim,
                               {state.out[first + row] + dim, state.out.stride},
                               row ? nothing : ahead);
      });
    }
  }
}

#endif

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_ATTENTIONINTEGERS_H
