//===- BytePairVocabulary.h - Byte-level tokens -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_BYTEPAIRVOCABULARY_H
#define LLM_LIB_IMPORT_BYTEPAIRVOCABULARY_H

#include "BytePairMerges.h"
#include "GGUF.h"
#include "TokenType.h"

#include <array>

namespace mlir::llm {

/// Byte-level tokens, how they merge, and the special ones, which text never
/// becomes.
class BytePairVocabulary {
public:
  /// Of a GGUF file.
  static ::llvm::Expected<BytePairVocabulary> read(GGUFReader &reader);

  /// Adds the token of the next id.
  void addToken(FirstProblem &problem, ::llvm::StringRef text, TokenType type);
  /// Adds the merge of the next rank; all tokens are there.
  void addMerge(FirstProblem &problem, ::llvm::StringRef left,
                ::llvm::StringRef right);
  /// The same, of "left right".
  void addMerge(FirstProblem &problem, ::llvm::StringRef text);
  /// To be called behind the last token.
  void findByteTokens();

  int64_t size() const { return int64_t(bytes.size()); }
  /// The token of exactly these bytes.
  std::optional<int32_t> find(::llvm::StringRef text) const;
  /// The token, not a special one, that the file spells like this.
  std::optional<int32_t> findWritten(::llvm::StringRef text) const;
  /// The token of a byte; -1 without one.
  int32_t ofByte(uint8_t byte) const { return byteTokens[byte]; }
  /// Empty for a special token and out of range.
  ::llvm::StringRef bytesOf(int32_t id) const;
  std::optional<int32_t> findSpecial(::llvm::StringRef text) const;
  std::vector<std::string> specialTexts() const;
  const BytePairMerges &merges() const { return mergeTable; }

private:
  void readTokens(GGUFReader &reader);
  void readMerges(GGUFReader &reader);

  std::vector<std::string> bytes;     ///< by id
  ::llvm::StringMap<int32_t> written; ///< by the file's spelling
  ::llvm::StringMap<int32_t> byBytes;
  ::llvm::StringMap<int32_t> special;
  std::array<int32_t, 256> byteTokens;
  BytePairMerges mergeTable;
};

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_BYTEPAIRVOCABULARY_H
