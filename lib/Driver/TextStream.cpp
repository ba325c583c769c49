//===- TextStream.cpp - Text as it is generated ---------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/TextStream.h"

#include <algorithm>

using namespace mlir::llm;
using llvm::StringRef;

/// Bytes of the character that starts with `lead`; 1 where none starts.
static size_t characterLength(unsigned char lead) {
  if (lead >= 0xc2 && lead < 0xe0)
    return 2;
  if (lead >= 0xe0 && lead < 0xf0)
    return 3;
  return lead >= 0xf0 && lead < 0xf5 ? 4 : 1;
}

size_t mlir::llm::completeUTF8Length(StringRef text) {
  const size_t longest = std::min<size_t>(text.size(), 3);
  for (size_t tail = 1; tail <= longest; ++tail) {
    const unsigned char byte = text[text.size() - tail];
    if (characterLength(byte) > tail)
      return text.size() - tail;
    if ((byte & 0xc0) != 0x80) // not inside a character
      break;
  }
  return text.size();
}

void TextStream::write(StringRef bytes) {
  empty &= bytes.empty();
  held += bytes;
  const size_t complete = completeUTF8Length(held);
  os << StringRef(held).take_front(complete);
  os.flush();
  held.erase(0, complete);
}

void TextStream::finish() {
  if (!empty)
    os << held << '\n';
  os.flush();
  held.clear();
  empty = true;
}
