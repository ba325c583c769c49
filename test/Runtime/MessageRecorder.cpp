//===- MessageRecorder.cpp - What the tests make the runtime say ----------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The linker calls this in place of Status::error (its option --wrap). The code
// and the format of each message go to the file LLM_MESSAGES, if it is set:
// scripts/check-diagnostics compares them with the source.
//
//===----------------------------------------------------------------------===//

#include "llm/Runtime/Status.h"

#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <unistd.h>

using namespace llm;

Status realError(llm_code code, int64_t expected, int64_t actual,
                 const char *format,
                 ...) asm("__real__ZN3llm6Status5errorEillPKcz");

Status recordError(llm_code code, int64_t expected, int64_t actual,
                   const char *format,
                   ...) asm("__wrap__ZN3llm6Status5errorEillPKcz");

static int openRecord() {
  const char *path = std::getenv("LLM_MESSAGES");
  return path ? ::open(path, O_WRONLY | O_CREAT | O_APPEND, 0666) : -1;
}

Status recordError(llm_code code, int64_t expected, int64_t actual,
                   const char *format, ...) {
  static const int record = openRecord();
  if (record >= 0)
    ::dprintf(record, "%d: %s\n", code, format);
  char message[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message, sizeof(message), format, arguments);
  va_end(arguments);
  return realError(code, expected, actual, "%s", message);
}
