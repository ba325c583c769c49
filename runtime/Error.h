//===- Error.h - From a status to the caller's llm_error ------ -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_ERROR_H
#define LLM_RUNTIME_ERROR_H

#include "llm/Runtime/Status.h"

#include <new>
#include <stdexcept>

namespace llm {

/// Fills as much of `error` as the caller's version of it has; null is allowed.
/// `program` may be null, `site` -1. Returns the code.
llm_code report(const Status &status, llm_error *error,
                const llm_program *program = nullptr, int32_t site = -1);

/// What a host function returns for a null argument.
Status nullArgument(const char *name);

/// `n` elements at `data`, as a host gives them.
template <typename T>
Status checkArray(const char *name, const T *data, int32_t n) {
  if (n < 0)
    return Status::error(LLM_INVALID_ARGUMENT, 0, n,
                         "expected 0 or more %s, got %d", name, n);
  return n && !data ? nullArgument(name) : Status();
}

/// Runs `body` and turns exhausted memory into a status: no exception crosses
/// the ABI.
template <typename Body>
Status withoutExceptions(const Body &body) {
  try {
    return body();
  } catch (const std::bad_alloc &) {
  } catch (const std::length_error &) {
  }
  return Status::error(LLM_OUT_OF_MEMORY, 1, 0,
                       "the memory of the host is exhausted");
}

} // namespace llm

#endif // LLM_RUNTIME_ERROR_H
