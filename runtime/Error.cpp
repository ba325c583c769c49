//===- Error.cpp - From a status to the caller's llm_error ----------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Error.h"

#include <algorithm>
#include <cstring>

using namespace llm;

llm_code llm::report(const Status &status, llm_error *error,
                     const llm_program *program, int32_t site) {
  if (status.ok() || !error)
    return status.code();
  llm_error full = LLM_ERROR_INIT;
  full.struct_size = error->struct_size;
  full.code = status.code();
  full.layer = status.layer();
  full.sequence = status.sequence();
  full.expected = status.expected();
  full.actual = status.actual();
  std::memcpy(full.message, status.message(), sizeof(full.message));
  if (program && site >= 0 && site < program->num_sites) {
    const llm_site &source = program->sites[site];
    full.site = site;
    full.op = source.op;
    full.file = source.file;
    full.line = source.line;
    full.column = source.column;
  }
  std::memcpy(error, &full,
              std::min<size_t>(error->struct_size, sizeof(llm_error)));
  return status.code();
}

Status llm::nullArgument(const char *name) {
  return Status::error(LLM_INVALID_ARGUMENT, 1, 0, "expected %s, got null",
                       name);
}
