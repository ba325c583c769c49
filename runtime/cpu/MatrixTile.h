//===- MatrixTile.h - Products by matrix instructions -----------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The two products of AttentionTile.h with AMX, which multiplies 16 rows of 32
// bf16 with 32 rows of 16, and adds them to 16 x 16 f32:
//
//             a          b                                        c
//   scores    queries    keys, [pair of dims][key]: a panel       scores
//   weighted  weights    values, [pair of keys][dim]: a panel     outputs
//
// A number that is more than a bf16 is a sum of digits, each a bf16 of what the
// digits before it leave: two have 17 bits or more, three have all of f32. Of
// three digits, products are left out that are as small as f32's rounding.
//
//   operand                               digits
//   bf16; f8E4M3FN and i8 as integers     1
//   f16; others beside those or f16       2
//   f32 pages, and what multiplies them   3
//
// A row's products have one order, whatever the rows beside it are. Keys that a
// row does not see have no weight; beside values that are not finite, such keys
// are taken out of the panel, row by row. Where a row meets infinity, numbers
// are multiplied as they are: a digit of zero would make NaN of it.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_CPU_MATRIXTILE_H
#define LLM_RUNTIME_CPU_MATRIXTILE_H

#include "AttentionTile.h"

namespace llm::cpu {
namespace {

/// From one row of scores to the next, and what one digit of it takes, in
/// floats: weights become digits where their scores were.
#if defined(LLM_CPU_X86_AMX)
constexpr int kMaxDigits = 3;
#else
constexpr int kMaxDigits = 2;
#endif
constexpr int64_t kDigitFloats = kTileKeys / 2;
constexpr int64_t kScoreStride = kMaxDigits * kDigitFloats;

#if defined(LLM_CPU_X86_AMX)

/// Rows of a tile, columns of one of f32, and floats of either.
constexpr int64_t kTileRows = 16;
constexpr int64_t kTileFloats = kTileRows * kLanes;
/// Numbers of a row of a that one instruction multiplies.
constexpr int64_t kMatrixDepth = 32;
/// Rows that a tile of a panel is loaded for.
constexpr int64_t kBlockOfRows = 2 * kTileRows;
/// Panels of longer heads do not fit into the caches.
constexpr int64_t kMaxMatrixDim = 256;

/// Of a task's workspace: a tile may have rows behind the last.
constexpr int64_t kMaxScoreRows = kMaxTaskRows + kTileRows;
constexpr int64_t kMaxQueryFloats =
    (kMaxTaskFloats + kTileRows * kMaxMatrixDim) * kMaxDigits / 2;
constexpr int64_t kMaxKeyFloats = kMaxDigits * kMaxMatrixDim / 2 * kTileKeys;
constexpr int64_t kMaxValueFloats = kMaxKeyFloats;
static_assert(kMaxKeyFloats >= kPanelLanes * kTileKeys);

//===----------------------------------------------------------------------===//
// Tiles
//===----------------------------------------------------------------------===//

/// The thread's tile registers, while it lives: all of 16 rows of 64 bytes.
class MatrixRegisters {
public:
  explicit MatrixRegisters(bool used) : used(used) {
    if (!used)
      return;
    struct alignas(64) {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t bytes[16] = {};
      uint8_t rows[16] = {};
    } shapes;
    for (int i = 0; i < 8; ++i) {
      shapes.bytes[i] = kLineBytes;
      shapes.rows[i] = kTileRows;
    }
    _tile_loadconfig(&shapes);
  }
  ~MatrixRegisters() {
    if (used)
      _tile_release();
  }
  MatrixRegisters(const MatrixRegisters &) = delete;

private:
  const bool used;
};

/// Digits of rows: digit i of step s of a row begins at data + i * digit +
/// s * 64, rows are `row` apart; all in bytes.
struct RowDigits {
  const char *data;
  int64_t row, digit;
  int count;
};

/// Digits of a panel: tile t of digit i of step s, 16 rows of 64 bytes side by
/// side, is number (i * steps + s) * tiles + t.
struct Panel {
  const float *data;
  int64_t steps, tiles;
  int count;

  int64_t floats() const { return count * steps * tiles * kTileFloats; }
  const float *at(int digit, int64_t step, int64_t tile) const {
    return data + ((digit * steps + step) * tiles + tile) * kTileFloats;
  }
};

/// c[row][column] (+)= a * b for NumRows times as many rows as a tile has and
/// NumColumns times as many columns, from tile `tile` of b on. Calls ask() at
/// each step.
template <int NumRows, int NumColumns, typename Ask>
inline void multiplyTiles(const RowDigits &a, const Panel &b, int64_t tile,
                          KeyRange steps, Rows<float> c, bool add, Ask &ask) {
  constexpr int kRow = kTileFloats / kTileRows * sizeof(float);
  const int64_t row = c.stride * int64_t(sizeof(float));
  const int most = a.count == 3 || b.count == 3 ? 3 : 4; // of i + j + 1
  float *lower = c[kTileRows];
  if (add) {
    _tile_loadd(0, c.data, row);
    if constexpr (NumColumns > 1)
      _tile_loadd(1, c.data + kLanes, row);
    if constexpr (NumRows > 1)
      _tile_loadd(2, lower, row);
    if constexpr (NumRows > 1 && NumColumns > 1)
      _tile_loadd(3, lower + kLanes, row);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t step = steps.begin; step < steps.end; ++step) {
    ask();
    for (int i = 0; i < a.count; ++i) {
      const char *from = a.data + i * a.digit + step * kLineBytes;
      _tile_loadd(4, from, a.row);
      if constexpr (NumRows > 1)
        _tile_loadd(5, from + kTileRows * a.row, a.row);
      for (int j = 0; j < b.count && i + j < most; ++j) {
        const float *factor = b.at(j, step, tile);
        _tile_loadd(6, factor, kRow);
        _tile_dpbf16ps(0, 4, 6);
        if constexpr (NumRows > 1)
          _tile_dpbf16ps(2, 5, 6);
        if constexpr (NumColumns > 1) {
          _tile_loadd(7, factor + kTileFloats, kRow);
          _tile_dpbf16ps(1, 4, 7);
        }
        if constexpr (NumRows > 1 && NumColumns > 1)
          _tile_dpbf16ps(3, 5, 7);
      }
    }
  }
  _tile_stored(0, c.data, row);
  if constexpr (NumColumns > 1)
    _tile_stored(1, c.data + kLanes, row);
  if constexpr (NumRows > 1)
    _tile_stored(2, lower, row);
  if constexpr (NumRows > 1 && NumColumns > 1)
    _tile_stored(3, lower + kLanes, row);
}

/// The same for up to kBlockOfRows rows, of which as many are touched as tiles
/// have, and for the tiles [tiles.begin, tiles.end) of b.
template <typename Ask>
inline void multiplyTiles(int64_t rows, const RowDigits &a, const Panel &b,
                          KeyRange tiles, KeyRange steps, Rows<float> c,
                          bool add, Ask &ask) {
  for (int64_t tile = tiles.begin; tile < tiles.end; tile += 2) {
    Rows<float> to = {c.data + tile * kLanes, c.stride};
    bool two = tile + 1 < tiles.end;
    if (rows > kTileRows)
      two ? multiplyTiles<2, 2>(a, b, tile, steps, to, add, ask)
          : multiplyTiles<2, 1>(a, b, tile, steps, to, add, ask);
    else
      two ? multiplyTiles<1, 2>(a, b, tile, steps, to, add, ask)
          : multiplyTiles<1, 1>(a, b, tile, steps, to, add, ask);
  }
}
inline void multiplyTiles(int64_t rows, const RowDigits &a, const Panel &b,
                          KeyRange tiles, KeyRange steps, Rows<float> c,
                          bool add) {
  auto nothing = [] {};
  multiplyTiles(rows, a, b, tiles, steps, c, add, nothing);
}

//===----------------------------------------------------------------------===//
// Digits
//===----------------------------------------------------------------------===//

inline Vec nearestBF16(Vec x) {
  return fromBF16((Halves)_mm512_cvtneps_pbh((__m512)x));
}

/// x, but no more than the largest finite bf16. NaN stays.
inline Vec bounded(Vec x) {
  const Vec most = splat(0x1.fep127f);
  return (Vec)_mm512_max_ps((__m512)-most,
                            _mm512_min_ps((__m512)most, (__m512)x));
}

/// x without its lower 16 bits, which `rest` has.
inline Vec upperBF16(Vec x, Vec &rest) {
  Vec upper = ofBits(bitsOf(x) & 0xffff0000);
  __mmask16 more =
      _mm512_test_epi32_mask((__m512i)x, _mm512_set1_epi32(0xffff));
  rest = (Vec)_mm512_maskz_sub_ps(more, (__m512)x, (__m512)upper);
  return upper;
}

/// x as `Count` digits; one digit is x, which has to be a bf16.
template <int Count>
inline void digitsOf(Vec x, Vec *to) {
  if constexpr (Count == 1) {
    to[0] = x;
  } else if constexpr (Count == 2) {
    to[0] = nearestBF16(bounded(x)); // infinity is in the rest
    to[1] = nearestBF16(x - to[0]);
  } else {
    Vec rest;
    to[0] = upperBF16(x, rest);
    to[1] = upperBF16(rest, to[2]);
  }
}

/// What is in lanes of a panel: the digits of a number in the lower half, those
/// of the next one in the upper half.
template <int Count>
inline void storePairs(float *to, int64_t digit, Vec first, Vec second) {
  Vec a[Count], b[Count];
  digitsOf<Count>(first, a);
  digitsOf<Count>(second, b);
  LLM_UNROLL
  for (int i = 0; i < Count; ++i)
    store(to + i * digit,
          ofBits(bitsOf(a[i]) >> 16 | (bitsOf(b[i]) & 0xffff0000)));
}

/// What is in a row of a: the digits of 2 * kLanes numbers side by side.
template <int Count>
inline void storeRow(float *to, int64_t digit, Vec first, Vec second) {
  Vec a[Count], b[Count];
  digitsOf<Count>(first, a);
  digitsOf<Count>(second, b);
  LLM_UNROLL
  for (int i = 0; i < Count; ++i)
    store(to + i * digit, (Vec)_mm512_cvtne2ps_pbh((__m512)b[i], (__m512)a[i]));
}

/// The same of weights, which have no infinite digit.
template <int Count>
inline void storeWeights(float *to, Vec first, Vec second) {
  if constexpr (Count == 3)
    return storeRow<3>(to, kDigitFloats, first, second);
  __m512i digit = (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
  store(to, (Vec)digit);
  first -= fromBF16((Halves)_mm512_castsi512_si256(digit));
  second -= fromBF16((Halves)_mm512_extracti64x4_epi64(digit, 1));
  store(to + kDigitFloats,
        (Vec)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first));
}

//===----------------------------------------------------------------------===//
// Panels
//===----------------------------------------------------------------------===//

/// K of a tile: rows are pairs of dimensions, columns are keys.
inline Panel keyPanel(const float *data, int64_t dim, int digits) {
  return {data, (dim + kMatrixDepth - 1) / kMatrixDepth, kTileKeys / kLanes,
          digits};
}
/// V: rows are pairs of keys, columns are dimensions.
inline Panel valuePanel(const float *data, int64_t dim, int digits) {
  return {data, kTileKeys / kMatrixDepth, (dim + kLanes - 1) / kLanes, digits};
}

/// The columns that hold `keys`.
template <llm_dtype T, int Count>
void packKeyDigits(const Keys &k, KeyRange keys, float *to, Ahead &ahead) {
  const Panel panel = keyPanel(to, k.dim, Count);
  const int64_t digit = panel.floats() / Count;
  for (int64_t tile = keys.begin / kLanes; tile * kLanes < keys.end; ++tile)
    for (int64_t d = 0; d < panel.steps * kMatrixDepth; d += kTurned<T>) {
      to = const_cast<float *>(panel.at(0, d / kMatrixDepth, tile)) +
           d % kMatrixDepth / 2 * kLanes;
      Vec x[kLanes] = {};
      if (d < k.dim) {
        ahead.ask<kLanes>();
        turnKeys<T>(k, tile * kLanes, d, min(k.dim - d, kTurned<T>), x);
      }
      if constexpr (T == LLM_BF16) {
        LLM_UNROLL
        for (int i = 0; i < kLanes; ++i, to += kLanes)
          store(to, x[i]);
      } else if constexpr (T == LLM_F16) {
        LLM_UNROLL
        for (int i = 0; i < kLanes; ++i, to += kLanes) {
          Vec first, second;
          unpack<T>(x[i], first, second);
          storePairs<Count>(to, digit, first, second);
        }
      } else {
        LLM_UNROLL
        for (int i = 0; i < kLanes; i += 2, to += kLanes)
          storePairs<Count>(to, digit, x[i], x[i + 1]);
      }
    }
}

/// Two rows of up to 2 * kLanes bf16, pair by pair.
inline void storePairs(float *to, Vec first, Vec second, bool both) {
  static const uint16_t order[2][2 * kLanes] = {
      {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
       8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47},
      {16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55,
       24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63}};
  for (int i = 0; i < 1 + both; ++i)
    store(to + i * kTileFloats,
          (Vec)_mm512_permutex2var_epi16(
              (__m512i)first, _mm512_loadu_si512(order[i]), (__m512i)second));
}

/// The steps that hold `keys`; zeros for other keys.
template <llm_dtype T, int Count>
void packValueDigits(const Keys &v, KeyRange keys, float *to, Ahead &ahead) {
  constexpr int64_t kStep = T == LLM_BF16 ? 2 * kLanes : kLanes;
  const Panel panel = valuePanel(to, v.dim, Count);
  const int64_t digit = panel.floats() / Count;
  auto value = [&](int64_t key, int64_t d) {
    if (key < keys.begin || key >= keys.end)
      return Vec{};
    const char *from = v.at(key, d * bytesOf(T));
    if constexpr (T == LLM_BF16)
      return loadPacked<T>(from, min(v.dim - d, kStep));
    else
      return load<T>(from, min(v.dim - d, kStep));
  };
  for (int64_t key = keys.begin / kMatrixDepth * kMatrixDepth;
       key < roundUp(keys.end, kMatrixDepth); key += 2) {
    to = const_cast<float *>(panel.at(0, key / kMatrixDepth, 0)) +
         key % kMatrixDepth / 2 * kLanes;
    for (int64_t d = 0; d < v.dim; d += kStep) {
      if (d * bytesOf(T) % kLineBytes == 0)
        ahead.ask<2>();
      Vec first = value(key, d), second = value(key + 1, d);
      if constexpr (T == LLM_BF16)
        storePairs(to, first, second, d + kLanes < v.dim);
      else
        storePairs<Count>(to, digit, first, second);
      to += kStep / kLanes * kTileFloats;
    }
  }
}

/// The steps of a panel of values that hold `keys`.
inline KeyRange stepsOf(KeyRange keys) {
  return {keys.begin / kMatrixDepth,
          (keys.end + kMatrixDepth - 1) / kMatrixDepth};
}

/// Whether a panel of values has neither NaN nor infinity at `keys`: of two
/// digits, the second has what is infinite.
inline bool isFinite(const Panel &v, KeyRange keys) {
  const __m512i exponent = _mm512_set1_epi16(0x7f80);
  const int digit = v.count == 2 ? 1 : 0;
  KeyRange steps = stepsOf(keys);
  __mmask32 special = 0;
  for (const float *x = v.at(digit, steps.begin, 0);
       x < v.at(digit, steps.end, 0); x += kLanes)
    special |= _mm512_cmpeq_epi16_mask(
        _mm512_and_si512((__m512i)load(x), exponent), exponent);
  return special == 0;
}

/// A panel of values with nothing but `keys`.
inline Panel copyKeys(float *to, const Panel &v, KeyRange keys) {
  Panel copy = v;
  copy.data = to;
  memset(to, 0, v.floats() * sizeof(float));
  for (int i = 0; i < v.count; ++i)
    for (int64_t key = keys.begin; key < keys.end; ++key)
      for (int64_t tile = 0; tile < v.tiles; ++tile) {
        const float *from =
            v.at(i, key / kMatrixDepth, tile) + key % kMatrixDepth / 2 * kLanes;
        UInts mask = UInts{} + (key % 2 ? 0xffff0000 : 0xffff);
        float *row = to + (from - v.data);
        store(row, ofBits((bitsOf(load(from)) & mask) | bitsOf(load(row))));
      }
  return copy;
}

#else
constexpr int64_t kMaxScoreRows = kMaxTaskRows;
constexpr int64_t kMaxQueryFloats = kMaxTaskFloats;
constexpr int64_t kMaxKeyFloats = kPanelLanes * kTileKeys;
constexpr int64_t kMaxValueFloats = kTileKeys / 2 * kPanelLanes;
#endif // LLM_CPU_X86_AMX

} // namespace
} // namespace llm::cpu

#endif // LLM_RUNTIME_CPU_MATRIXTILE_H
