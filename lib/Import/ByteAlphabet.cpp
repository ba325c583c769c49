//===- ByteAlphabet.cpp - Bytes as printable characters -------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ByteAlphabet.h"

#include <array>

using namespace mlir::llm;
using llvm::StringRef;

namespace {

/// All characters lie below U+0144.
constexpr uint32_t numCharacters = 256 + 68;

struct Alphabet {
  std::array<uint16_t, 256> characters = {};
  std::array<int16_t, numCharacters> bytes = {}; ///< -1: stands for none
};

} // namespace

static constexpr bool isPrintable(uint32_t byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) ||
         byte >= 0xae;
}

static constexpr Alphabet makeAlphabet() {
  Alphabet alphabet;
  alphabet.bytes.fill(-1);
  uint16_t next = 256;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    alphabet.characters[byte] = isPrintable(byte) ? byte : next++;
    alphabet.bytes[alphabet.characters[byte]] = int16_t(byte);
  }
  return alphabet;
}

static constexpr Alphabet alphabet = makeAlphabet();

std::string mlir::llm::characterOf(uint8_t byte) {
  uint16_t character = alphabet.characters[byte];
  if (character < 0x80)
    return std::string(1, char(character));
  return {char(0xc0 | character >> 6), char(0x80 | (character & 0x3f))};
}

/// Takes one character of one or two bytes off `text`; -1 if that fails.
static int32_t takeCharacter(StringRef &text) {
  uint8_t lead = text.front();
  text = text.drop_front();
  if (lead < 0x80)
    return lead;
  if ((lead & 0xe0) != 0xc0 || text.empty() || (text.front() & 0xc0) != 0x80)
    return -1;
  int32_t character = (lead & 0x1f) << 6 | (text.front() & 0x3f);
  text = text.drop_front();
  return character;
}

std::optional<std::string> mlir::llm::bytesOf(StringRef text) {
  std::string bytes;
  while (!text.empty()) {
    int32_t character = takeCharacter(text);
    if (character < 0 || character >= int32_t(numCharacters) ||
        alphabet.bytes[character] < 0)
      return std::nullopt;
    bytes += char(alphabet.bytes[character]);
  }
  return bytes;
}
