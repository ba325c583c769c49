//===- Faults.h - What may fail under a call, for tests ------- -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Each context has one of these, which its caches and models share and ask
// wherever something may be refused or break. A test makes the request of its
// choice fail. What the host's operator new refuses needs no seam: a test
// replaces it. The runtime's clock (Work.h) only counts.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_RUNTIME_FAULTS_H
#define LLM_RUNTIME_FAULTS_H

#include <cstdint>

namespace llm {

enum class Resource {
  Blocks,    ///< of a pool, whether or not there is room
  Workspace, ///< of a call's arena
  Memory,    ///< of a pool or of packed weights
  Kernel,    ///< fails on its device, after it has run
};

class Faults {
public:
  /// The request after `before` more of this kind fails, once; -1: none does.
  void arm(Resource resource, int64_t before) { left(resource) = before; }
  /// Whether that request is still to come.
  bool armed(Resource resource) { return left(resource) >= 0; }

  /// Notes a request. True: it fails.
  bool strikes(Resource resource) {
    int64_t &requests = left(resource);
    return requests >= 0 && requests-- == 0;
  }

private:
  int64_t &left(Resource resource) { return left_[static_cast<int>(resource)]; }

  int64_t left_[4] = {-1, -1, -1, -1};
};

} // namespace llm

#endif // LLM_RUNTIME_FAULTS_H
