//===- AttentionErrorsTest.cpp - How far attention is from exact ----------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "AttentionProblem.h"

using namespace llm;

namespace {

class AttentionErrorsTest : public AttentionLevelTest {};

/// The square of the distance of two vectors.
template <typename T>
double squaredDistance(const T *a, const std::vector<double> &b) {
  double sum = 0;
  for (size_t d = 0; d < b.size(); ++d)
    sum += std::pow(a[d] - b[d], 2);
  return sum;
}

double squareOf(const std::vector<double> &a) {
  return std::inner_product(a.begin(), a.end(), a.begin(), 0.0);
}

/// The worst row's relative error in the norm of L2.
double worstRow(const Case &c) {
  Problem p(c);
  p.run();
  std::vector<float> out = p.results();
  double worst = 0;
  forRows(c, [&](size_t i, int32_t t, int32_t head) {
    const Row expected = reference(p, i, t, head);
    const double error =
        squaredDistance(&out[p.rowAt(i, t, head)], expected.out);
    worst = std::max(worst, std::sqrt(error / squareOf(expected.out)));
  });
  return worst;
}

/// Results are exact but for f32's rounding, and for the one to their own type:
/// of bf16 alone 1.7e-3, and 2.3e-3 in the worst row. Dot products of bf16
/// round the weights besides, and words all they multiply.
TEST_P(AttentionErrorsTest, RelativeErrors) {
  bool dots = GetParam().name == std::string("x86-64-v4+bf16+vnni");
  for (llm_dtype pages : types)
    for (llm_dtype type : types)
      for (int32_t dim : {64, 80, 96, 128, 256})
        for (int32_t window : {0, 70})
          for (bool lse : {true, false}) {
            Case c;
            c.pageType = pages;
            c.type = type;
            c.headDim = dim;
            c.window = window;
            c.softcap = window ? 3 : 0;
            c.sequences = {{600, 1}, {30, 20}, {130, 4}};
            c.lse = lse;
            SCOPED_TRACE(describe(c));
            double bound = type == LLM_F32             ? 1e-5
                           : type == LLM_F16           ? 5e-4
                           : dots && pages == LLM_BF16 ? 3.5e-3
                                                       : 2.3e-3;
            EXPECT_LE(worstRow(c), bound + (usesWords(c, 20) ? 1e-3 : 0));
          }
}

/// Of results against what was given to quantized pages; and of an exact
/// computation over what the pages hold. Squares, summed over all rows.
struct Errors {
  double kernel = 0, exact = 0, norm = 0;
};

Errors quantizationErrors(const Case &c) {
  Problem p(c);
  p.run();
  std::vector<float> out = p.results();
  Errors errors;
  forRows(c, [&](size_t i, int32_t t, int32_t head) {
    const Row expected = reference(p, i, t, head, /*given=*/true);
    const Row held = reference(p, i, t, head);
    errors.kernel += squaredDistance(&out[p.rowAt(i, t, head)], expected.out);
    errors.exact += squaredDistance(held.out.data(), expected.out);
    errors.norm += squareOf(expected.out);
  });
  return errors;
}

/// Numbers are normally distributed.
TEST_P(AttentionErrorsTest, ErrorsOfQuantization) {
  for (llm_dtype pages : {LLM_F8E4M3FN, LLM_I8, LLM_I4})
    for (int32_t dim : {64, 80, 96, 128, 256})
      for (int32_t window : {0, 70})
        for (bool lse : {true, false}) {
          Case c;
          c.pageType = pages;
          c.headDim = dim;
          c.blockSize = 32;
          c.window = window;
          c.softcap = window ? 3 : 0;
          c.sequences = {{600, 1}, {30, 20}, {130, 4}};
          c.lse = lse;
          SCOPED_TRACE(describe(c));
          const double most = pages == LLM_I8   ? 1e-2
                              : pages == LLM_I4 ? 1e-1
                                                : 4e-2;
          Errors errors = quantizationErrors(c);
          EXPECT_LE(std::sqrt(errors.kernel / errors.norm), most);
          EXPECT_LE(std::sqrt(errors.kernel), 1.1 * std::sqrt(errors.exact));
        }
}

LLM_AT_EVERY_LEVEL(AttentionErrorsTest);

} // namespace
