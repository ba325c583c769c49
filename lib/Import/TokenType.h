//===- TokenType.h - What kind of token it is -------------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_TOKENTYPE_H
#define LLM_LIB_IMPORT_TOKENTYPE_H

#include <cstdint>
#include <optional>

namespace mlir::llm {

/// As tokenizer.ggml.token_type and ModelProto.SentencePiece.Type count.
enum class TokenType : uint8_t {
  Normal = 1,
  Unknown = 2,
  Control = 3,
  UserDefined = 4,
  Unused = 5,
  Byte = 6,
};

/// The type of this number, if there is one.
inline std::optional<TokenType> tokenTypeOf(int64_t number) {
  if (number < int64_t(TokenType::Normal) || number > int64_t(TokenType::Byte))
    return std::nullopt;
  return TokenType(number);
}

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_TOKENTYPE_H
