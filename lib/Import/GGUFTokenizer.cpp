//===- GGUFTokenizer.cpp - The tokenizer of a GGUF file -------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "MappedFile.h"
#include "SentencePieceModel.h"
#include "TokenizerFormats.h"

#include <cmath>

using namespace mlir::llm;
using llvm::Error;
using llvm::Expected;
using llvm::StringRef;

using Opened = Expected<std::unique_ptr<Tokenizer>>;

static int32_t readTokenId(GGUFReader &reader, const char *key, int64_t size) {
  int64_t id = reader.requiredInteger(key);
  if (id < 0 || id >= size)
    reader.fail("expected a token id below {0} for '{1}', got {2}", size, key,
                id);
  return int32_t(id);
}

static std::optional<int32_t> readTokenIdIfAny(GGUFReader &reader,
                                               const char *key, int64_t size) {
  if (!reader.has(key))
    return std::nullopt;
  return readTokenId(reader, key, size);
}

static TokenizerSettings readSettings(GGUFReader &reader, int64_t size,
                                      bool addsBos) {
  TokenizerSettings settings;
  settings.chatTemplate =
      reader.string("tokenizer.chat_template").value_or("").str();
  if (reader.boolean("tokenizer.ggml.add_bos_token").value_or(addsBos))
    settings.bosId = readTokenId(reader, "tokenizer.ggml.bos_token_id", size);
  settings.eosId =
      readTokenIdIfAny(reader, "tokenizer.ggml.eos_token_id", size);
  return settings;
}

//===----------------------------------------------------------------------===//
// Byte-level BPE
//===----------------------------------------------------------------------===//

static Opened openBytePair(GGUFReader &reader) {
  StringRef kind = reader.string("tokenizer.ggml.pre").value_or("");
  if (Error error = reader.takeError())
    return error;
  Expected<PreTokenizer> splitter = PreTokenizer::create(reader.path(), kind);
  if (!splitter)
    return splitter.takeError();
  Expected<BytePairVocabulary> vocabulary = BytePairVocabulary::read(reader);
  if (!vocabulary)
    return vocabulary.takeError();
  const bool isLlama3 = kind == "llama-bpe";
  BytePairSettings settings;
  static_cast<TokenizerSettings &>(settings) =
      readSettings(reader, vocabulary->size(), isLlama3);
  settings.ignoresMerges = isLlama3;
  if (Error error = reader.takeError())
    return error;
  return makeBytePairTokenizer(std::move(*splitter), std::move(*vocabulary),
                               std::move(settings));
}

//===----------------------------------------------------------------------===//
// SentencePiece
//===----------------------------------------------------------------------===//

/// Marks of chat templates are never text, even if the file has them as the
/// user's own tokens, which the library would find in text.
static bool isMark(StringRef piece) {
  return piece.starts_with("<|") && piece.ends_with("|>");
}

static void readPieces(GGUFReader &reader, SentencePieceModel &model) {
  constexpr const char *tokensKey = "tokenizer.ggml.tokens";
  constexpr const char *scoresKey = "tokenizer.ggml.scores";
  constexpr const char *typesKey = "tokenizer.ggml.token_type";
  const std::vector<StringRef> *tokens = reader.strings(tokensKey);
  const std::vector<double> *scores = reader.numbers(scoresKey);
  const std::vector<int64_t> *types = reader.integers(typesKey);
  if (!tokens || tokens->size() > INT32_MAX)
    return reader.fail("expected strings in '{0}'", tokensKey);
  if (!scores || scores->size() != tokens->size())
    return reader.fail("expected {0} numbers in '{1}', got {2}", tokens->size(),
                       scoresKey, scores ? scores->size() : 0);
  if (!types || types->size() != tokens->size())
    return reader.fail("{0} tokens, but {1} types in '{2}'", tokens->size(),
                       types ? types->size() : 0, typesKey);
  for (auto [text, score, number] : llvm::zip(*tokens, *scores, *types)) {
    const std::optional<TokenType> type = tokenTypeOf(number);
    if (!type)
      return reader.fail("token '{0}' has unsupported type {1}", text, number);
    if (!std::isfinite(score))
      return reader.fail("token '{0}' has the score {1}", text, score);
    const bool isUsers = type == TokenType::UserDefined;
    model.pieces.push_back(
        {text, float(score),
         isUsers && isMark(text) ? TokenType::Control : *type});
  }
}

/// The library wants one unknown piece, by its type.
static void markUnknown(GGUFReader &reader, SentencePieceModel &model) {
  constexpr const char *key = "tokenizer.ggml.unknown_token_id";
  std::optional<int32_t> id =
      readTokenIdIfAny(reader, key, model.pieces.size());
  if (reader.failed() || !id)
    return;
  auto isUnknown = [](auto &piece) { return piece.type == TokenType::Unknown; };
  auto typed = llvm::find_if(model.pieces, isUnknown);
  if (typed != model.pieces.end() && typed - model.pieces.begin() != *id)
    return reader.fail("'{0}' is {1}, but the type of token {2} says unknown",
                       key, *id, typed - model.pieces.begin());
  model.pieces[*id].type = TokenType::Unknown;
}

static Opened openSentencePiece(GGUFReader &reader) {
  if (reader.has("tokenizer.ggml.precompiled_charsmap"))
    reader.fail("unsupported 'tokenizer.ggml.precompiled_charsmap' of a "
                "SentencePiece tokenizer");
  SentencePieceModel model;
  readPieces(reader, model);
  if (Error error = reader.takeError())
    return error;
  markUnknown(reader, model);
  const int64_t size = model.pieces.size();
  TokenizerSettings settings = readSettings(reader, size, /*addsBos=*/true);
  model.putsBlankFirst =
      reader.boolean("tokenizer.ggml.add_space_prefix").value_or(true);
  model.removesExtraBlanks =
      reader.boolean("tokenizer.ggml.remove_extra_whitespaces").value_or(false);
  if (Error error = reader.takeError())
    return error;
  return makeSentencePieceTokenizer(reader.path(), serialize(model),
                                    std::move(settings));
}

//===----------------------------------------------------------------------===//
// The file
//===----------------------------------------------------------------------===//

Opened mlir::llm::openGGUFTokenizer(StringRef path) {
  Expected<MappedFile> file = MappedFile::open(path);
  if (!file)
    return file.takeError();
  Expected<GGUF> header = readGGUF(path, file->bytes());
  if (!header)
    return header.takeError();
  GGUFReader reader(*header);
  StringRef model = reader.string("tokenizer.ggml.model").value_or("");
  if (model == "gpt2")
    return openBytePair(reader);
  if (model == "llama")
    return openSentencePiece(reader);
  if (model.empty())
    reader.fail("no tokenizer: missing 'tokenizer.ggml.model'");
  else
    reader.fail("unsupported tokenizer '{0}', expected gpt2 (byte-level BPE) "
                "or llama (SentencePiece)",
                model);
  return reader.takeError();
}
