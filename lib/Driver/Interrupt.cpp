//===- Interrupt.cpp - Ctrl-C ---------------------------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/Interrupt.h"

#include <csignal>

static volatile std::sig_atomic_t interrupted = 0;

void mlir::llm::noteInterrupts() {
  struct sigaction action = {};
  action.sa_handler = [](int) { interrupted = 1; };
  // Once; and what waits for input does not go on waiting.
  action.sa_flags = SA_RESETHAND;
  sigaction(SIGINT, &action, nullptr);
}

bool mlir::llm::wasInterrupted() { return interrupted; }
