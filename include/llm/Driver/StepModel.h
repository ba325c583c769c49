//===- StepModel.h - A model that runs ragged steps -------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_STEPMODEL_H
#define LLM_DRIVER_STEPMODEL_H

#include "llm/Runtime/CAPI.h"

#include "llvm/ADT/ArrayRef.h"
#include "llvm/Support/Error.h"

#include <cstdint>

namespace mlir::llm {

/// What one sequence brings to a step.
struct StepPart {
  int32_t sequence;
  ::llvm::ArrayRef<int32_t> tokens;
  /// How many of the last tokens give a row of logits.
  int64_t rows = 0;
};

/// A language model with a cache of sequences, as the drivers see it: what
/// `Session` is with a compiled model, and what tests fake.
class StepModel {
public:
  virtual ~StepModel() = default;

  virtual int64_t vocabularySize() const = 0;

  /// Tokens that a sequence can hold.
  virtual int64_t contextLength() const = 0;

  /// Appends the tokens of every part (distinct sequences) in one ragged batch.
  /// Returns the rows asked for, part after part: [rows, vocabulary], valid
  /// until the next step. On an error nothing has changed; a `RuntimeError`
  /// names the sequence that did not fit.
  virtual ::llvm::Expected<::llvm::ArrayRef<float>>
  step(::llvm::ArrayRef<StepPart> parts) = 0;

  /// Makes the empty sequence `child` share all tokens of `parent`.
  virtual ::llvm::Error fork(int32_t parent, int32_t child) = 0;

  /// Empties a sequence and gives its blocks back.
  virtual ::llvm::Error release(int32_t sequence) = 0;

  /// What all steps so far have cost the cache.
  virtual ::llvm::Expected<llm_kv_work> work() const = 0;

  /// And what their products with weights have.
  virtual ::llvm::Expected<llm_model_work> linearWork() const = 0;
};

} // namespace mlir::llm

#endif // LLM_DRIVER_STEPMODEL_H
