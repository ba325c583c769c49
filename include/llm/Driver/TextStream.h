//===- TextStream.h - Text as it is generated -------------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_TEXTSTREAM_H
#define LLM_DRIVER_TEXTSTREAM_H

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/raw_ostream.h"

#include <string>

namespace mlir::llm {

/// Bytes of `text` up to the last character that may still be incomplete: a
/// UTF-8 sequence at the end of which bytes are missing.
size_t completeUTF8Length(::llvm::StringRef text);

/// Prints bytes as they come, but a character only when it is complete.
class TextStream {
public:
  explicit TextStream(::llvm::raw_ostream &os) : os(os) {}

  void write(::llvm::StringRef bytes);

  /// Prints what was held back, and ends the line if there is one.
  void finish();

private:
  ::llvm::raw_ostream &os;
  std::string held; ///< an incomplete character, at most 3 bytes
  bool empty = true;
};

} // namespace mlir::llm

#endif // LLM_DRIVER_TEXTSTREAM_H
