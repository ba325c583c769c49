//===- Status.h - Failure by value ---------------------------- -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_STATUS_H
#define LLM_RUNTIME_STATUS_H

#include "llm/Runtime/CAPI.h"

#include <cstdarg>
#include <cstdint>

namespace llm {

/// The outcome of an operation: LLM_OK, or a code of CAPI.h with a message
/// (lower case, no full stop, both values in it) and the numbers themselves.
/// Never allocates, so that it can report that memory is exhausted.
class [[nodiscard, gnu::visibility("default")]] Status {
public:
  /// Success.
  Status() { message_[0] = '\0'; }

  /// A failure; `format` is printf's and is cut at 255 characters.
  [[gnu::format(printf, 4, 5)]] static Status error(llm_code code,
                                                    int64_t expected,
                                                    int64_t actual,
                                                    const char *format, ...);

  bool ok() const { return code_ == LLM_OK; }
  llm_code code() const { return code_; }
  const char *message() const { return message_; }
  /// What was allowed or needed.
  int64_t expected() const { return expected_; }
  /// What was found.
  int64_t actual() const { return actual_; }
  /// Layer concerned, -1 if none.
  int32_t layer() const { return layer_; }
  /// Sequence concerned, -1 if none.
  int32_t sequence() const { return sequence_; }

  /// The same status, said of a layer.
  Status atLayer(int32_t layer) const;
  /// The same status, said of a sequence.
  Status ofSequence(int32_t sequence) const;

private:
  llm_code code_ = LLM_OK;
  int32_t layer_ = -1;
  int32_t sequence_ = -1;
  int64_t expected_ = 0;
  int64_t actual_ = 0;
  char message_[sizeof(llm_error::message)];
};

} // namespace llm

/// Returns the status of `expression` from the calling function unless it is
/// LLM_OK.
#define LLM_TRY(expression)                                                    \
  if (::llm::Status status_ = (expression); !status_.ok())                     \
  return status_

#endif // LLM_RUNTIME_STATUS_H
