//===- Composition.cpp - Equivalent texts made equal ----------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Unicode Standard Annex #15: characters are taken apart for good, marks behind
// a character are sorted by their class, and neighbours become one again where
// no mark of the same or a lower class stands between.
//
//===----------------------------------------------------------------------===//

#include "Composition.h"

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/ConvertUTF.h"

#include <algorithm>
#include <tuple>
#include <vector>

using namespace mlir::llm;
using llvm::StringRef;

namespace {

using Pair = std::pair<uint32_t, uint32_t>;

struct Equivalences {
  llvm::DenseMap<uint32_t, Pair> apart;
  llvm::DenseMap<Pair, uint32_t> together;
  llvm::DenseMap<uint32_t, uint8_t> classes;

  Equivalences();
};

/// Hangul syllables are numbered by their letters: a leading one, a vowel, and
/// one of 27 trailing ones or none.
constexpr uint32_t firstSyllable = 0xac00, firstLeading = 0x1100,
                   firstVowel = 0x1161, noTrailing = 0x11a7;
constexpr uint32_t numLeading = 19, numVowels = 21, numTrailing = 28;
constexpr uint32_t numSyllables = numLeading * numVowels * numTrailing;

} // namespace

static constexpr uint32_t pairs[][3] = {
#define PAIR(whole, first, second) {whole, first, second},
#include "Composition.inc"
};
static constexpr uint32_t splits[][3] = {
#define SPLIT(whole, first, second) {whole, first, second},
#include "Composition.inc"
};
static constexpr uint32_t classRanges[][3] = {
#define CLASS(first, last, number) {first, last, number},
#include "Composition.inc"
};

Equivalences::Equivalences() {
  for (auto [whole, first, second] : pairs) {
    apart[whole] = {first, second};
    together[{first, second}] = whole;
  }
  for (auto [whole, first, second] : splits)
    apart[whole] = {first, second};
  for (auto [first, last, number] : classRanges)
    for (uint32_t code = first; code <= last; ++code)
      classes[code] = number;
}

static const Equivalences &equivalences() {
  static const Equivalences tables;
  return tables;
}

static uint8_t classOf(uint32_t code) {
  return equivalences().classes.lookup(code);
}

/// Appends what `code` consists of.
static void takeApart(uint32_t code, std::vector<uint32_t> &codes) {
  if (uint32_t index = code - firstSyllable; index < numSyllables) {
    codes.push_back(firstLeading + index / (numVowels * numTrailing));
    codes.push_back(firstVowel + index / numTrailing % numVowels);
    if (uint32_t trailing = index % numTrailing)
      codes.push_back(noTrailing + trailing);
    return;
  }
  auto parts = equivalences().apart.find(code);
  if (parts == equivalences().apart.end()) {
    codes.push_back(code);
    return;
  }
  takeApart(parts->second.first, codes);
  if (parts->second.second)
    codes.push_back(parts->second.second);
}

/// Marks of one class stay in order.
static void sortMarks(llvm::MutableArrayRef<uint32_t> marks) {
  std::vector<std::tuple<uint8_t, size_t, uint32_t>> keyed;
  for (auto [index, mark] : llvm::enumerate(marks))
    keyed.emplace_back(classOf(mark), index, mark);
  llvm::sort(keyed);
  for (auto [mark, entry] : llvm::zip(marks, keyed))
    mark = std::get<uint32_t>(entry);
}

static void sortAllMarks(std::vector<uint32_t> &codes) {
  auto isMark = [](uint32_t code) { return classOf(code) != 0; };
  for (auto at = codes.begin(); at != codes.end();) {
    auto begin = std::find_if(at, codes.end(), isMark);
    at = std::find_if_not(begin, codes.end(), isMark);
    sortMarks(
        llvm::MutableArrayRef(codes).slice(begin - codes.begin(), at - begin));
  }
}

/// The character of both; 0 without one.
static uint32_t joined(uint32_t first, uint32_t second) {
  if (first - firstLeading < numLeading && second - firstVowel < numVowels)
    return firstSyllable +
           ((first - firstLeading) * numVowels + (second - firstVowel)) *
               numTrailing;
  const uint32_t index = first - firstSyllable, trailing = second - noTrailing;
  if (index < numSyllables && index % numTrailing == 0 && trailing > 0 &&
      trailing < numTrailing)
    return first + trailing;
  return equivalences().together.lookup({first, second});
}

static void putTogether(std::vector<uint32_t> &codes) {
  constexpr size_t none = SIZE_MAX;
  size_t starter = none, size = 0;
  uint8_t before = 0; ///< class of what stands last behind the starter
  for (uint32_t code : codes) {
    const uint8_t mark = classOf(code);
    const bool isNext = starter != none && size == starter + 1;
    if (starter != none && (isNext || before < mark))
      if (uint32_t whole = joined(codes[starter], code)) {
        codes[starter] = whole;
        continue;
      }
    if (mark == 0)
      starter = size;
    before = mark;
    codes[size++] = code;
  }
  codes.resize(size);
}

static std::string composeCharacters(std::vector<uint32_t> &codes) {
  sortAllMarks(codes);
  putTogether(codes);
  std::string text;
  for (uint32_t code : codes) {
    char bytes[UNI_MAX_UTF8_BYTES_PER_CODE_POINT];
    char *end = bytes;
    llvm::ConvertCodePointToUTF8(code, end);
    text.append(bytes, end);
  }
  codes.clear();
  return text;
}

std::string mlir::llm::compose(StringRef text) {
  // Nothing below U+0300 changes or joins.
  constexpr uint8_t firstLead = 0xcc;
  if (llvm::all_of(text.bytes(), [](uint8_t byte) { return byte < firstLead; }))
    return text.str();
  std::string result;
  std::vector<uint32_t> codes;
  const auto *at = reinterpret_cast<const llvm::UTF8 *>(text.begin());
  const auto *end = reinterpret_cast<const llvm::UTF8 *>(text.end());
  while (at != end) {
    llvm::UTF32 code = 0;
    const bool isValid =
        llvm::isLegalUTF8Sequence(at, end) &&
        llvm::convertUTF8Sequence(&at, end, &code, llvm::strictConversion) ==
            llvm::conversionOK;
    if (isValid) {
      takeApart(code, codes);
      continue;
    }
    result += composeCharacters(codes);
    result += char(*at++);
  }
  return result + composeCharacters(codes);
}
