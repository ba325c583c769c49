//===- GroupOracle.h - What a group of i4 reads as -------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// #llm.kv_storage once more, number by number: bf16 by searching through all of
// them, codes by comparing distances, and sums in double.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_TEST_RUNTIME_GROUPORACLE_H
#define LLM_TEST_RUNTIME_GROUPORACLE_H

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

namespace llm::testing {

inline float ofBF16(uint32_t bits) { return std::bit_cast<float>(bits << 16); }

/// All finite bf16 in ascending order, with one zero, between the infinities.
inline const std::vector<float> &allBF16() {
  static const std::vector<float> all = [] {
    std::vector<float> numbers;
    for (uint32_t bits = 0xff80; bits > 0x8000; --bits)
      numbers.push_back(ofBF16(bits));
    for (uint32_t bits = 0; bits <= 0x7f80; ++bits)
      numbers.push_back(ofBF16(bits));
    return numbers;
  }();
  return all;
}

inline float bf16Below(float x) {
  return *--std::upper_bound(allBF16().begin(), allBF16().end(), x);
}
inline float bf16Above(float x) {
  return *std::lower_bound(allBF16().begin(), allBF16().end(), x);
}

struct GroupOracle {
  float minimum = NAN, step = 0;

  explicit GroupOracle(const std::vector<float> &group) {
    if (!std::all_of(group.begin(), group.end(),
                     [](float x) { return std::isfinite(x); }))
      return;
    const auto [least, most] = std::minmax_element(group.begin(), group.end());
    const float low = bf16Below(*least);
    const float exact = (*most - low) / 15;
    if (!std::isfinite(exact) || std::isinf(15 * bf16Above(exact)))
      return;
    minimum = low;
    step = bf16Above(exact);
  }

  int code(float x) const {
    if (!(step > 0))
      return 0;
    const double steps = (x - minimum) / step;
    int best = 0;
    for (int code = 1; code < 16; ++code) {
      const double distance = std::abs(steps - code);
      const double least = std::abs(steps - best);
      if (distance < least || (distance == least && code % 2 == 0))
        best = code;
    }
    return best;
  }

  float read(float x) const {
    return static_cast<float>(double(code(x)) * double(step) + double(minimum));
  }
};

} // namespace llm::testing

#endif // LLM_TEST_RUNTIME_GROUPORACLE_H
