//===- BytePairVocabulary.h - The tokens of a GGUF file -*- C++ -*-===//
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

#include <array>

namespace mlir::llm {

/// Byte-level tokens, how they merge, and the special ones, which text never
/// becomes.
class BytePairVocabulary {
public:
  static ::llvm::Expected<BytePairVocabulary> read(GGUFReader &reader);

  int64_t size() const { return int64_t(bytes.size()); }
  /// The token of exactly these bytes.
  std::optional<int32_t> find(::llvm::StringRef text) const;
  /// The token of a byte; -1 without one.
  int32_t ofByte(uint8_t byte) const { return byteTokens[byte]; }
  /// Empty for a special token and out of range.
  ::llvm::StringRef bytesOf(int32_t id) const;
  std::optional<int32_t> findSpecial(::llvm::StringRef text) const;
  const BytePairMerges &merges() const { return mergeTable; }

private:
  void addToken(GGUFReader &reader, ::llvm::StringRef text, int64_t type);
  void addMerge(GGUFReader &reader, ::llvm::StringRef text);
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
