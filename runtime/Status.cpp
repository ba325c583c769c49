//===- Status.cpp - Failure by value --------------------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Runtime/Status.h"

#include <cstdio>

using namespace llm;

Status Status::error(llm_code code, int64_t expected, int64_t actual,
                     const char *format, ...) {
  Status status;
  status.code_ = code;
  status.expected_ = expected;
  status.actual_ = actual;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(status.message_, sizeof(status.message_), format, arguments);
  va_end(arguments);
  return status;
}

Status Status::atLayer(int32_t layer) const {
  Status status = *this;
  status.layer_ = layer;
  return status;
}

Status Status::ofSequence(int32_t sequence) const {
  Status status = *this;
  status.sequence_ = sequence;
  return status;
}

const char *llm_code_name(llm_code code) {
  static const char *const names[] = {
      "ok",          "invalid argument", "not found",      "out of blocks",
      "never fits",  "out of memory",    "wrong state",    "busy",
      "unsupported", "abi mismatch",     "internal error", "device error",
      "cancelled"};
  constexpr llm_code count = sizeof(names) / sizeof(names[0]);
  return code >= 0 && code < count ? names[code] : "unknown code";
}

uint32_t llm_abi_version(void) { return LLM_ABI_VERSION; }
