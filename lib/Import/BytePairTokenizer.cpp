//===- BytePairTokenizer.cpp - Byte-level BPE of GGUF files ---------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "BytePairVocabulary.h"
#include "ImportError.h"
#include "MappedFile.h"
#include "PreTokenizer.h"
#include "TokenizerFormats.h"

#include <atomic>
#include <mutex>

using namespace mlir::llm;
using llvm::Error;
using llvm::Expected;
using llvm::StringRef;

namespace {

/// The tokens of a piece, and its bytes that have none.
struct EncodedPiece {
  llvm::SmallVector<int32_t, 4> ids;
  int32_t dropped = 0;
};

/// Pieces met before. Text repeats itself: most pieces are found here.
class PieceCache {
public:
  /// Appends the ids of a known piece; false if it is unknown.
  bool lookUp(StringRef piece, std::vector<int32_t> &ids, int64_t &dropped);
  void add(StringRef piece, EncodedPiece encoded);

private:
  static constexpr size_t mostPieces = 1 << 16;
  static constexpr size_t longestPiece = 64;

  std::mutex mutex;
  llvm::StringMap<EncodedPiece> pieces;
};

class BytePairTokenizer final : public Tokenizer {
public:
  static Expected<std::unique_ptr<Tokenizer>> open(StringRef path);

  BytePairTokenizer(PreTokenizer splitter, BytePairVocabulary vocabulary)
      : splitter(std::move(splitter)), vocabulary(std::move(vocabulary)) {}

  int64_t vocabularySize() const override { return vocabulary.size(); }
  std::vector<int32_t> encode(StringRef text) const override;
  std::string decode(int32_t id, bool) const override {
    return vocabulary.bytesOf(id).str();
  }
  std::optional<int32_t> specialId(StringRef text) const override {
    return vocabulary.findSpecial(text);
  }
  std::optional<int32_t> bos() const override { return bosId; }
  std::optional<int32_t> eos() const override { return eosId; }
  StringRef chatTemplate() const override { return templateText; }
  int64_t numDroppedBytes() const override { return dropped; }

private:
  void readSettings(GGUFReader &reader, bool isLlama3);
  EncodedPiece encodePiece(StringRef piece) const;

  PreTokenizer splitter;
  BytePairVocabulary vocabulary;
  bool ignoresMerges = false; ///< a piece that is a token is that token
  std::optional<int32_t> bosId;
  std::optional<int32_t> eosId;
  std::string templateText;

  mutable PieceCache cache;
  mutable std::atomic<int64_t> dropped = 0;
};

} // namespace

//===----------------------------------------------------------------------===//
// The file
//===----------------------------------------------------------------------===//

Expected<std::unique_ptr<Tokenizer>>
mlir::llm::openBytePairTokenizer(StringRef path) {
  return BytePairTokenizer::open(path);
}

/// The name of the pre-tokenizer; the kind of tokenizer is checked.
static StringRef readKind(GGUFReader &reader) {
  StringRef model = reader.string("tokenizer.ggml.model").value_or("");
  if (model.empty())
    reader.fail("no tokenizer: missing 'tokenizer.ggml.model'");
  else if (model != "gpt2")
    reader.fail("unsupported tokenizer '{0}', expected gpt2 (byte-level BPE)",
                model);
  return reader.string("tokenizer.ggml.pre").value_or("");
}

static constexpr const char *eosKey = "tokenizer.ggml.eos_token_id";

static int32_t readTokenId(GGUFReader &reader, const char *key, int64_t size) {
  int64_t id = reader.requiredInteger(key);
  if (id < 0 || id >= size)
    reader.fail("expected a token id below {0} for '{1}', got {2}", size, key,
                id);
  return int32_t(id);
}

void BytePairTokenizer::readSettings(GGUFReader &reader, bool isLlama3) {
  ignoresMerges = isLlama3;
  templateText = reader.string("tokenizer.chat_template").value_or("").str();
  if (reader.boolean("tokenizer.ggml.add_bos_token").value_or(isLlama3))
    bosId =
        readTokenId(reader, "tokenizer.ggml.bos_token_id", vocabularySize());
  if (reader.has(eosKey))
    eosId = readTokenId(reader, eosKey, vocabularySize());
}

Expected<std::unique_ptr<Tokenizer>> BytePairTokenizer::open(StringRef path) {
  Expected<MappedFile> file = MappedFile::open(path);
  if (!file)
    return file.takeError();
  Expected<GGUF> header = readGGUF(path, file->bytes());
  if (!header)
    return header.takeError();
  GGUFReader reader(*header);
  StringRef kind = readKind(reader);
  if (Error error = reader.takeError())
    return error;
  Expected<PreTokenizer> splitter = PreTokenizer::create(path, kind);
  if (!splitter)
    return splitter.takeError();
  Expected<BytePairVocabulary> vocabulary = BytePairVocabulary::read(reader);
  if (!vocabulary)
    return vocabulary.takeError();
  auto tokenizer = std::make_unique<BytePairTokenizer>(std::move(*splitter),
                                                       std::move(*vocabulary));
  tokenizer->readSettings(reader, kind == "llama-bpe");
  if (Error error = reader.takeError())
    return error;
  return tokenizer;
}

//===----------------------------------------------------------------------===//
// Text to tokens
//===----------------------------------------------------------------------===//

bool PieceCache::lookUp(StringRef piece, std::vector<int32_t> &ids,
                        int64_t &dropped) {
  std::lock_guard<std::mutex> lock(mutex);
  auto known = pieces.find(piece);
  if (known == pieces.end())
    return false;
  llvm::append_range(ids, known->second.ids);
  dropped += known->second.dropped;
  return true;
}

void PieceCache::add(StringRef piece, EncodedPiece encoded) {
  std::lock_guard<std::mutex> lock(mutex);
  if (piece.size() <= longestPiece && pieces.size() < mostPieces)
    pieces.try_emplace(piece, std::move(encoded));
}

EncodedPiece BytePairTokenizer::encodePiece(StringRef piece) const {
  EncodedPiece encoded;
  if (ignoresMerges)
    if (std::optional<int32_t> id = vocabulary.find(piece)) {
      encoded.ids.push_back(*id);
      return encoded;
    }
  for (uint8_t byte : piece.bytes()) {
    int32_t id = vocabulary.ofByte(byte);
    if (id < 0)
      ++encoded.dropped;
    else
      encoded.ids.push_back(id);
  }
  vocabulary.merges().apply(encoded.ids);
  return encoded;
}

std::vector<int32_t> BytePairTokenizer::encode(StringRef text) const {
  std::vector<int32_t> ids;
  int64_t missing = 0;
  splitter.split(text, [&](StringRef piece) {
    if (cache.lookUp(piece, ids, missing))
      return;
    EncodedPiece encoded = encodePiece(piece);
    llvm::append_range(ids, encoded.ids);
    missing += encoded.dropped;
    cache.add(piece, std::move(encoded));
  });
  dropped += missing;
  return ids;
}
