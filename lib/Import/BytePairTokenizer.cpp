//===- BytePairTokenizer.cpp - Byte-level BPE -----------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Composition.h"
#include "TokenizerFormats.h"

#include <atomic>
#include <mutex>

using namespace mlir::llm;
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
  BytePairTokenizer(PreTokenizer splitter, BytePairVocabulary vocabulary,
                    BytePairSettings settings)
      : splitter(std::move(splitter)), vocabulary(std::move(vocabulary)),
        settings(std::move(settings)) {}

  int64_t vocabularySize() const override { return vocabulary.size(); }
  std::vector<int32_t> encode(StringRef text) const override;
  std::string decode(int32_t id, bool) const override {
    return vocabulary.bytesOf(id).str();
  }
  std::optional<int32_t> specialId(StringRef text) const override {
    return vocabulary.findSpecial(text);
  }
  std::vector<std::string> specialTexts() const override {
    return vocabulary.specialTexts();
  }
  std::optional<int32_t> bos() const override { return settings.bosId; }
  std::optional<int32_t> eos() const override { return settings.eosId; }
  StringRef chatTemplate() const override { return settings.chatTemplate; }
  int64_t numDroppedBytes() const override { return dropped; }

private:
  EncodedPiece encodePiece(StringRef piece) const;
  void encodeUnknown(EncodedPiece &encoded) const;

  PreTokenizer splitter;
  BytePairVocabulary vocabulary;
  BytePairSettings settings;

  mutable PieceCache cache;
  mutable std::atomic<int64_t> dropped = 0;
};

} // namespace

std::unique_ptr<Tokenizer>
mlir::llm::makeBytePairTokenizer(PreTokenizer splitter,
                                 BytePairVocabulary vocabulary,
                                 BytePairSettings settings) {
  return std::make_unique<BytePairTokenizer>(
      std::move(splitter), std::move(vocabulary), std::move(settings));
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

void BytePairTokenizer::encodeUnknown(EncodedPiece &encoded) const {
  if (!settings.unknownId)
    ++encoded.dropped;
  else if (!settings.joinsUnknown || encoded.ids.empty() ||
           encoded.ids.back() != *settings.unknownId)
    encoded.ids.push_back(*settings.unknownId);
}

EncodedPiece BytePairTokenizer::encodePiece(StringRef piece) const {
  EncodedPiece encoded;
  if (settings.ignoresMerges)
    if (std::optional<int32_t> id = vocabulary.find(piece)) {
      encoded.ids.push_back(*id);
      return encoded;
    }
  for (uint8_t byte : piece.bytes()) {
    int32_t id = vocabulary.ofByte(byte);
    if (id < 0)
      encodeUnknown(encoded);
    else
      encoded.ids.push_back(id);
  }
  vocabulary.merges().apply(encoded.ids);
  return encoded;
}

std::vector<int32_t> BytePairTokenizer::encode(StringRef text) const {
  std::vector<int32_t> ids;
  int64_t missing = 0;
  std::string composed;
  if (settings.composes)
    text = composed = compose(text);
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
