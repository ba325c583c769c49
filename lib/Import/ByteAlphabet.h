//===- ByteAlphabet.h - Bytes as printable characters -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Byte-level vocabularies are text: each byte of a token is written as one
// character. Printable bytes of Latin-1 stand for themselves, the other 68 for
// U+0100 and up ("Ġ" is the blank).
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_BYTEALPHABET_H
#define LLM_LIB_IMPORT_BYTEALPHABET_H

#include "llvm/ADT/StringRef.h"

#include <cstdint>
#include <optional>
#include <string>

namespace mlir::llm {

/// The character that stands for `byte`, in UTF-8.
std::string characterOf(uint8_t byte);

/// The bytes that `text` stands for; none if it holds any other character.
std::optional<std::string> bytesOf(::llvm::StringRef text);

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_BYTEALPHABET_H
