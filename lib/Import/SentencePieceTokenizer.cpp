//===- SentencePieceTokenizer.cpp - SentencePiece -------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "CharacterMap.h"
#include "ImportError.h"
#include "MappedFile.h"
#include "TokenizerConfig.h"
#include "TokenizerFormats.h"

#include "llvm/ADT/StringExtras.h"

#include <sentencepiece_processor.h>

using namespace mlir::llm;
using llvm::Error;
using llvm::Expected;
using llvm::StringRef;

/// U+2581, which stands for a blank inside a piece.
static constexpr StringRef blankMark = "\xe2\x96\x81";

namespace {

class SentencePieceTokenizer final : public Tokenizer {
public:
  Error load(StringRef path, StringRef bytes);

  TokenizerSettings settings;

  int64_t vocabularySize() const override { return model.GetPieceSize(); }
  std::vector<int32_t> encode(StringRef text) const override;
  std::string decode(int32_t id, bool isFirst) const override;
  std::optional<int32_t> specialId(StringRef text) const override;
  std::vector<std::string> specialTexts() const override;
  std::optional<int32_t> bos() const override { return settings.bosId; }
  std::optional<int32_t> eos() const override { return settings.eosId; }
  StringRef chatTemplate() const override { return settings.chatTemplate; }

private:
  bool isSpecial(int32_t id) const {
    return model.IsControl(id) || model.IsUnknown(id);
  }

  sentencepiece::SentencePieceProcessor model;
  bool putsBlankFirst = false;
};

} // namespace

//===----------------------------------------------------------------------===//
// Files
//===----------------------------------------------------------------------===//

/// What the library says against the model. It throws what its trie refuses.
static std::optional<std::string>
load(sentencepiece::SentencePieceProcessor &model, StringRef bytes) {
  try {
    auto status = model.LoadFromSerializedProto(bytes);
    if (status.ok())
      return std::nullopt;
    return status.message();
  } catch (const std::exception &exception) {
    return exception.what();
  }
}

Error SentencePieceTokenizer::load(StringRef path, StringRef bytes) {
  if (Error error = checkCharacterMaps(path, bytes))
    return error;
  if (std::optional<std::string> problem = ::load(model, bytes))
    return importError(path, "invalid SentencePiece model: {0}", *problem);
  if (model.bos_id() >= 0)
    settings.bosId = model.bos_id();
  if (model.eos_id() >= 0)
    settings.eosId = model.eos_id();
  std::vector<std::string> pieces;
  if (model.Encode("a", &pieces).ok() && !pieces.empty())
    putsBlankFirst = StringRef(pieces.front()).starts_with(blankMark);
  return Error::success();
}

Expected<std::unique_ptr<Tokenizer>>
mlir::llm::makeSentencePieceTokenizer(StringRef path, StringRef model,
                                      TokenizerSettings settings) {
  auto tokenizer = std::make_unique<SentencePieceTokenizer>();
  if (Error error = tokenizer->load(path, model))
    return error;
  tokenizer->settings = std::move(settings);
  return tokenizer;
}

Expected<std::unique_ptr<Tokenizer>>
mlir::llm::openSentencePieceTokenizer(StringRef directory) {
  std::string path = pathIn(directory, "tokenizer.model");
  Expected<MappedFile> file = MappedFile::open(path);
  if (!file)
    return file.takeError();
  auto tokenizer = std::make_unique<SentencePieceTokenizer>();
  if (Error error = tokenizer->load(path, file->bytes()))
    return error;
  Expected<TokenizerConfig> config = readTokenizerConfig(directory);
  if (!config)
    return config.takeError();
  if (!config->addsBos.value_or(true))
    tokenizer->settings.bosId = std::nullopt;
  tokenizer->settings.chatTemplate = std::move(config->chatTemplate);
  return tokenizer;
}

//===----------------------------------------------------------------------===//
// Text
//===----------------------------------------------------------------------===//

std::vector<int32_t> SentencePieceTokenizer::encode(StringRef text) const {
  std::vector<int> ids;
  // A loaded model encodes any text: there is no failure to hand on.
  if (!model.Encode(text, &ids).ok())
    ids.clear();
  return ids;
}

/// The byte of a piece like <0x0A>.
static char byteOf(StringRef piece) {
  unsigned value = 0;
  piece.drop_front(3).drop_back(1).getAsInteger(16, value);
  return char(value);
}

std::string SentencePieceTokenizer::decode(int32_t id, bool isFirst) const {
  if (id < 0 || id >= vocabularySize() || isSpecial(id) || model.IsUnused(id))
    return "";
  StringRef piece = model.IdToPiece(id);
  if (model.IsByte(id))
    return std::string(1, byteOf(piece));
  if (isFirst && putsBlankFirst)
    piece.consume_front(blankMark);
  llvm::SmallVector<StringRef> words;
  piece.split(words, blankMark);
  return llvm::join(words, " ");
}

std::optional<int32_t> SentencePieceTokenizer::specialId(StringRef text) const {
  int32_t id = model.PieceToId(text);
  if (!isSpecial(id) || model.IdToPiece(id) != text)
    return std::nullopt;
  return id;
}

std::vector<std::string> SentencePieceTokenizer::specialTexts() const {
  std::vector<std::string> texts;
  for (int32_t id = 0, size = model.GetPieceSize(); id != size; ++id)
    if (isSpecial(id))
      texts.push_back(model.IdToPiece(id));
  return texts;
}
