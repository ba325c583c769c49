//===- Tokenizer.h - Text to tokens and back -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_IMPORT_TOKENIZER_H
#define LLM_IMPORT_TOKENIZER_H

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace mlir::llm {

class Tokenizer {
public:
  /// The tokenizer of a GGUF file (byte-level BPE with the pre-tokenizers
  /// smollm, gpt-2, llama-bpe and qwen2; SentencePiece) or of a Hugging Face
  /// directory (tokenizer.model, SentencePiece; else tokenizer.json, byte-level
  /// BPE that splits as one of these). Anything else is refused by name.
  static ::llvm::Expected<std::unique_ptr<Tokenizer>>
  open(::llvm::StringRef path);

  virtual ~Tokenizer();

  virtual int64_t vocabularySize() const = 0;

  /// Ids of `text`, any bytes. Never makes a special token and adds none.
  virtual std::vector<int32_t> encode(::llvm::StringRef text) const = 0;

  /// Bytes of one token, as it stands behind others; nothing for special ones
  /// and for ids out of range. `isFirst`: it begins the text (SentencePiece
  /// drops the blank that it put there).
  virtual std::string decode(int32_t id, bool isFirst = false) const = 0;

  /// The id of a special token by its text ("<|im_start|>").
  virtual std::optional<int32_t> specialId(::llvm::StringRef text) const = 0;

  /// The texts of all special tokens.
  virtual std::vector<std::string> specialTexts() const = 0;

  /// The token that begins every text; none where the model wants none.
  virtual std::optional<int32_t> bos() const = 0;

  /// The token that ends a text, if the file names one.
  virtual std::optional<int32_t> eos() const { return std::nullopt; }

  /// The text of the file's chat template; empty without one.
  virtual ::llvm::StringRef chatTemplate() const = 0;

  /// Bytes that had no token and were dropped, since this was made.
  virtual int64_t numDroppedBytes() const { return 0; }
};

} // namespace mlir::llm

#endif // LLM_IMPORT_TOKENIZER_H
