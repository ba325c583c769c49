//===- TokenizerFormats.h - What Tokenizer::open chooses from -*- C++ -*- ===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_TOKENIZERFORMATS_H
#define LLM_LIB_IMPORT_TOKENIZERFORMATS_H

#include "BytePairVocabulary.h"
#include "PreTokenizer.h"
#include "llm/Import/Tokenizer.h"

namespace mlir::llm {

/// What files say beside the vocabulary.
struct TokenizerSettings {
  std::optional<int32_t> bosId; ///< only where every text begins with it
  std::optional<int32_t> eosId;
  std::string chatTemplate;
};

/// What files of byte-level BPE say beside that.
struct BytePairSettings : TokenizerSettings {
  bool ignoresMerges = false; ///< a piece that is a token is that token
  bool composes = false;      ///< text into normalization form C first
  /// What a byte without a token becomes; without one it is dropped.
  std::optional<int32_t> unknownId;
  bool joinsUnknown = false; ///< neighbours of these become one
};

std::unique_ptr<Tokenizer> makeBytePairTokenizer(PreTokenizer splitter,
                                                 BytePairVocabulary vocabulary,
                                                 BytePairSettings settings);

/// From the bytes of a SentencePiece model. `path` is for messages.
::llvm::Expected<std::unique_ptr<Tokenizer>>
makeSentencePieceTokenizer(::llvm::StringRef path, ::llvm::StringRef model,
                           TokenizerSettings settings);

/// tokenizer.model of a Hugging Face directory.
::llvm::Expected<std::unique_ptr<Tokenizer>>
openSentencePieceTokenizer(::llvm::StringRef directory);

/// tokenizer.json of a Hugging Face directory: byte-level BPE.
::llvm::Expected<std::unique_ptr<Tokenizer>>
openTokenizerJSON(::llvm::StringRef directory);

/// The byte-level BPE or the SentencePiece model of a GGUF file.
::llvm::Expected<std::unique_ptr<Tokenizer>>
openGGUFTokenizer(::llvm::StringRef path);

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_TOKENIZERFORMATS_H
