//===- Gate.h - One writer or many probes --------------------- -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Who does not get in is told so at once; only a writer waits, and only for
// probes to leave, which is soon.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_GATE_H
#define LLM_RUNTIME_GATE_H

#include <atomic>
#include <cstdint>
#include <thread>

namespace llm {

class Gate {
public:
  /// False if another writer is inside.
  bool tryWrite() {
    if (state_.fetch_or(writer, std::memory_order_acquire) & writer)
      return false;
    while (state_.load(std::memory_order_acquire) != writer)
      std::this_thread::yield();
    return true;
  }
  /// Waits for another writer, too: for an end, which cannot report LLM_BUSY.
  void write() {
    while (!tryWrite())
      std::this_thread::yield();
  }
  void endWrite() { state_.fetch_and(~writer, std::memory_order_release); }

  /// False if a writer is inside.
  bool tryProbe() {
    if (!(state_.fetch_add(1, std::memory_order_acquire) & writer))
      return true;
    endProbe();
    return false;
  }
  void endProbe() { state_.fetch_sub(1, std::memory_order_release); }

private:
  static constexpr uint32_t writer = uint32_t(1) << 31;
  std::atomic<uint32_t> state_ = 0; ///< and the number of probes
};

} // namespace llm

#endif // LLM_RUNTIME_GATE_H
