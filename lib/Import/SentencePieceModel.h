//===- SentencePieceModel.h - tokenizer.model from its facts -*- C++ -*- ===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_SENTENCEPIECEMODEL_H
#define LLM_LIB_IMPORT_SENTENCEPIECEMODEL_H

#include "TokenType.h"

#include "llvm/ADT/StringRef.h"

#include <cstdint>
#include <string>
#include <vector>

namespace mlir::llm {

/// A model of byte-pair encoding that takes text as it is, but for blanks. What
/// no piece has becomes pieces of type Byte, if there are any.
struct SentencePieceModel {
  struct Piece {
    ::llvm::StringRef text;
    float score;
    TokenType type;
  };

  std::vector<Piece> pieces; ///< by id
  bool putsBlankFirst = true;
  bool removesExtraBlanks = false;
};

/// The bytes of sentencepiece.ModelProto.
std::string serialize(const SentencePieceModel &model);

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_SENTENCEPIECEMODEL_H
