//===- SpecifiedProgram.h - IR text by its specification -------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The other meaning of IR text: lowered by `llm-to-spec` and run in this
// process, without the runtime.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_TEST_INTEGRATION_SPECIFIEDPROGRAM_H
#define LLM_TEST_INTEGRATION_SPECIFIEDPROGRAM_H

#include <memory>
#include <string>

namespace llm::testing {

class SpecificationEngine;

class SpecifiedProgram {
public:
  explicit SpecifiedProgram(const char *ir);
  ~SpecifiedProgram();
  SpecifiedProgram(const SpecifiedProgram &) = delete;

  /// Runs a function of no arguments that returns one tensor<?xi32>, with
  /// `llvm.emit_c_interface`. The text of the assertion that failed; empty if
  /// none did.
  std::string run(const char *entry);

private:
  std::unique_ptr<SpecificationEngine> engine;
};

} // namespace llm::testing

#endif // LLM_TEST_INTEGRATION_SPECIFIEDPROGRAM_H
