//===- ProgressLine.h - What takes time now ---------------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_PROGRESSLINE_H
#define LLM_DRIVER_PROGRESSLINE_H

#include "llvm/ADT/Twine.h"
#include "llvm/Support/raw_ostream.h"

namespace mlir::llm {

/// A line on a terminal while it lives; nothing where there is none (null).
class ProgressLine {
public:
  ProgressLine(::llvm::raw_ostream *terminal, const ::llvm::Twine &text)
      : terminal(terminal) {
    if (terminal)
      *terminal << text << " ...";
  }
  ~ProgressLine() {
    if (terminal)
      *terminal << "\r\033[K"; // erases the line
  }
  ProgressLine(const ProgressLine &) = delete;

private:
  ::llvm::raw_ostream *terminal;
};

} // namespace mlir::llm

#endif // LLM_DRIVER_PROGRESSLINE_H
