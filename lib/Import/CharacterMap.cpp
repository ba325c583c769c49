//===- CharacterMap.cpp - How tokenizer.model rewrites text ---------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A character map is a double array (Darts-clone) and the texts it leads to:
//
//   u32 bytes of the array | u32 units | texts, each with a zero behind it
//
// From the unit at i, the letter c leads to i ^ offset ^ c if the unit there is
// labelled c. A unit with a leaf has the position of its text at i ^ offset.
//
//===----------------------------------------------------------------------===//

#include "CharacterMap.h"
#include "ImportError.h"

#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/Support/Endian.h"

using namespace mlir::llm;
using llvm::Error;
using llvm::StringRef;

//===----------------------------------------------------------------------===//
// Protocol buffers
//===----------------------------------------------------------------------===//

namespace {

/// Takes the fields off a message, one after the other.
class Message {
public:
  explicit Message(StringRef rest) : rest(rest) {}

  /// False at the end and where the message is damaged.
  bool next();
  bool isDamaged() const { return damaged; }
  uint32_t field() const { return number; }
  /// What lies in a field that has a length; else empty.
  StringRef content() const { return bytes; }

private:
  uint64_t varint();
  void skip(uint64_t size);
  void readValue(uint32_t wireType);

  StringRef rest;
  uint32_t number = 0;
  StringRef bytes;
  bool damaged = false;
};

} // namespace

/// Seven bits a byte, the low ones first; the last byte has no high bit.
uint64_t Message::varint() {
  constexpr unsigned mostBits = 64;
  uint64_t value = 0;
  for (unsigned shift = 0; shift < mostBits && !rest.empty(); shift += 7) {
    uint8_t byte = rest.front();
    rest = rest.drop_front();
    value |= uint64_t(byte & 0x7f) << shift;
    if (byte < 0x80)
      return value;
  }
  damaged = true;
  return 0;
}

void Message::skip(uint64_t size) {
  damaged |= size > rest.size();
  bytes = rest.take_front(size);
  rest = rest.drop_front(bytes.size());
}

void Message::readValue(uint32_t wireType) {
  switch (wireType) {
  case 0:
    varint();
    break;
  case 1:
    skip(sizeof(uint64_t));
    break;
  case 2:
    skip(varint());
    break;
  case 5:
    skip(sizeof(uint32_t));
    break;
  default: // groups: no field of the model is one
    damaged = true;
  }
}

bool Message::next() {
  if (rest.empty() || damaged)
    return false;
  auto tag = uint32_t(varint()); // what the library makes of a longer one
  number = tag >> 3;
  bytes = "";
  if (!damaged)
    readValue(tag & 7);
  return !damaged;
}

/// Hands on the content of each field `number` of `message`; false if the
/// message is damaged or `consumer` says so.
static bool forEach(StringRef message, uint32_t number,
                    llvm::function_ref<bool(StringRef)> consumer) {
  Message fields(message);
  while (fields.next())
    if (fields.field() == number && !consumer(fields.content()))
      return false;
  return !fields.isDamaged();
}

//===----------------------------------------------------------------------===//
// Double array
//===----------------------------------------------------------------------===//

namespace {

class DoubleArray {
public:
  DoubleArray(StringRef units, size_t texts) : units(units), texts(texts) {}

  /// No text leads out of the array, nor out of the texts.
  bool isClosed() const;

private:
  static constexpr uint32_t isValue = 1u << 31;
  static constexpr uint32_t hasLeaf = 1u << 8;
  static constexpr uint32_t isFar = 1u << 9;
  static constexpr size_t blockUnits = 256;

  size_t size() const { return units.size() / sizeof(uint32_t); }
  uint32_t unit(size_t index) const {
    return llvm::support::endian::read32le(units.data() +
                                           index * sizeof(uint32_t));
  }
  size_t target(size_t index) const {
    uint32_t value = unit(index);
    return index ^ (size_t(value >> 10) << (value & isFar ? 8 : 0));
  }
  bool isClosed(size_t index) const;

  StringRef units;
  size_t texts;
};

} // namespace

bool DoubleArray::isClosed(size_t index) const {
  // The whole block of the target must be there: any letter may follow.
  if ((target(index) | (blockUnits - 1)) >= size())
    return false;
  return !(unit(index) & hasLeaf) || (unit(target(index)) & ~isValue) < texts;
}

bool DoubleArray::isClosed() const {
  if (units.empty() || units.size() % (blockUnits * sizeof(uint32_t)) != 0)
    return false;
  // No letter is the label of a value, so that only the root may be one.
  for (size_t i = 0; i < size(); ++i)
    if ((i == 0 || !(unit(i) & isValue)) && !isClosed(i))
      return false;
  return true;
}

static bool isCharacterMap(StringRef map) {
  if (map.empty())
    return true;
  if (map.size() < sizeof(uint32_t))
    return false;
  uint32_t size = llvm::support::endian::read32le(map.data());
  map = map.drop_front(sizeof(uint32_t));
  if (size > map.size() || !map.ends_with(StringRef("\0", 1)))
    return false;
  return DoubleArray(map.take_front(size), map.size() - size).isClosed();
}

Error mlir::llm::checkCharacterMaps(StringRef path, StringRef model) {
  constexpr uint32_t normalizers[] = {3, 5}; // and what undoes it
  constexpr uint32_t characterMap = 2;
  auto checkNormalizer = [](StringRef normalizer) {
    return forEach(normalizer, characterMap, isCharacterMap);
  };
  for (uint32_t field : normalizers)
    if (!forEach(model, field, checkNormalizer))
      return importError(path, "invalid SentencePiece model: the character map "
                               "of the normalizer is damaged");
  return Error::success();
}
