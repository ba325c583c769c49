//===- SentencePieceModel.cpp - tokenizer.model from its facts ------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
//   ModelProto     { repeated SentencePiece pieces = 1;
//                    TrainerSpec trainer_spec = 2;
//                    NormalizerSpec normalizer_spec = 3; }
//   SentencePiece  { string piece = 1; float score = 2; Type type = 3; }
//   TrainerSpec    { ModelType model_type = 3; bool byte_fallback = 35; }
//   NormalizerSpec { string name = 1; bool add_dummy_prefix = 3;
//                    bool remove_extra_whitespaces = 4; }
//
// Bos and eos are what our caller says: the library needs to know of neither.
//
//===----------------------------------------------------------------------===//

#include "SentencePieceModel.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/LEB128.h"
#include "llvm/Support/raw_ostream.h"

using namespace mlir::llm;
using llvm::StringRef;

namespace {

/// Writes the fields of a message.
class MessageWriter {
public:
  MessageWriter &number(unsigned field, uint64_t value) {
    key(field, /*wireType=*/0);
    llvm::encodeULEB128(value, stream);
    return *this;
  }
  MessageWriter &string(unsigned field, StringRef value) {
    key(field, /*wireType=*/2);
    llvm::encodeULEB128(value.size(), stream);
    stream << value;
    return *this;
  }
  MessageWriter &real(unsigned field, float value) {
    key(field, /*wireType=*/5);
    char bytes[sizeof(float)];
    llvm::support::endian::write32le(bytes, llvm::bit_cast<uint32_t>(value));
    stream << StringRef(bytes, sizeof(bytes));
    return *this;
  }
  std::string take() { return std::move(bytes); }

private:
  void key(unsigned field, unsigned wireType) {
    llvm::encodeULEB128(field << 3 | wireType, stream);
  }

  std::string bytes;
  llvm::raw_string_ostream stream{bytes};
};

constexpr uint64_t bytePairEncoding = 2; ///< of TrainerSpec.ModelType

} // namespace

std::string mlir::llm::serialize(const SentencePieceModel &model) {
  MessageWriter file;
  for (const auto &[text, score, type] : model.pieces)
    file.string(1, MessageWriter()
                       .string(1, text)
                       .real(2, score)
                       .number(3, uint64_t(type))
                       .take());
  const bool hasBytes = llvm::any_of(model.pieces, [](const auto &piece) {
    return piece.type == TokenType::Byte;
  });
  file.string(
      2,
      MessageWriter().number(3, bytePairEncoding).number(35, hasBytes).take());
  file.string(3, MessageWriter()
                     .string(1, "identity")
                     .number(3, model.putsBlankFirst)
                     .number(4, model.removesExtraBlanks)
                     .take());
  return file.take();
}
