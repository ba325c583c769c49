//===- BytePairVocabulary.cpp - Byte-level tokens -------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "BytePairVocabulary.h"
#include "ByteAlphabet.h"

using namespace mlir::llm;
using llvm::Error;
using llvm::Expected;
using llvm::StringRef;

static std::optional<int32_t> lookUp(const llvm::StringMap<int32_t> &map,
                                     StringRef text) {
  auto entry = map.find(text);
  if (entry == map.end())
    return std::nullopt;
  return entry->second;
}

std::optional<int32_t> BytePairVocabulary::find(StringRef text) const {
  return lookUp(byBytes, text);
}

std::optional<int32_t> BytePairVocabulary::findSpecial(StringRef text) const {
  return lookUp(special, text);
}

std::optional<int32_t> BytePairVocabulary::findWritten(StringRef text) const {
  return lookUp(written, text);
}

std::vector<std::string> BytePairVocabulary::specialTexts() const {
  std::vector<std::string> texts;
  for (StringRef text : special.keys())
    texts.push_back(text.str());
  return texts;
}

StringRef BytePairVocabulary::bytesOf(int32_t id) const {
  return id >= 0 && id < size() ? StringRef(bytes[id]) : StringRef();
}

void BytePairVocabulary::addToken(FirstProblem &problem, StringRef text,
                                  TokenType type) {
  int32_t id = int32_t(bytes.size());
  if (type != TokenType::Normal) {
    // Text of the user's own tokens is shown; the others only steer.
    bytes.push_back(type == TokenType::UserDefined ? text.str() : "");
    if (type != TokenType::Unused)
      special.try_emplace(text, id);
    return;
  }
  if (!written.try_emplace(text, id).second)
    problem.fail("token '{0}' is given twice", text);
  bytes.push_back(mlir::llm::bytesOf(text).value_or(text.str()));
  byBytes.try_emplace(bytes.back(), id);
}

void BytePairVocabulary::readTokens(GGUFReader &reader) {
  constexpr const char *tokensKey = "tokenizer.ggml.tokens";
  constexpr const char *typesKey = "tokenizer.ggml.token_type";
  const std::vector<StringRef> *tokens = reader.strings(tokensKey);
  const std::vector<int64_t> *types = reader.integers(typesKey);
  if (!tokens || tokens->size() > INT32_MAX)
    return reader.fail("expected strings in '{0}'", tokensKey);
  if (types && types->size() != tokens->size())
    return reader.fail("{0} tokens, but {1} types in '{2}'", tokens->size(),
                       types->size(), typesKey);
  for (size_t i = 0; i < tokens->size(); ++i) {
    const auto type = types ? tokenTypeOf((*types)[i]) : TokenType::Normal;
    if (!type)
      return reader.fail("token '{0}' has unsupported type {1}", (*tokens)[i],
                         (*types)[i]);
    addToken(reader, (*tokens)[i], *type);
  }
  findByteTokens();
}

void BytePairVocabulary::findByteTokens() {
  for (int byte = 0; byte < 256; ++byte)
    byteTokens[byte] = lookUp(written, characterOf(byte)).value_or(-1);
}

void BytePairVocabulary::addMerge(FirstProblem &problem, StringRef left,
                                  StringRef right) {
  auto leftId = lookUp(written, left), rightId = lookUp(written, right);
  auto merged = lookUp(written, left.str() + right.str());
  if (!leftId || !rightId || !merged)
    return problem.fail("merge '{0} {1}' needs a token that is not there", left,
                        right);
  mergeTable.add({*leftId, *rightId}, *merged);
}

/// Neither is empty, and the left one may begin with the blank.
void BytePairVocabulary::addMerge(FirstProblem &problem, StringRef text) {
  size_t blank = text.find(' ', 1);
  if (blank == StringRef::npos)
    return problem.fail("expected two tokens in merge '{0}'", text);
  addMerge(problem, text.take_front(blank), text.drop_front(blank + 1));
}

void BytePairVocabulary::readMerges(GGUFReader &reader) {
  constexpr const char *key = "tokenizer.ggml.merges";
  const std::vector<StringRef> *merges = reader.strings(key);
  if (!merges)
    return reader.fail("expected strings in '{0}'", key);
  for (StringRef merge : *merges)
    addMerge(reader, merge);
}

Expected<BytePairVocabulary> BytePairVocabulary::read(GGUFReader &reader) {
  BytePairVocabulary vocabulary;
  vocabulary.readTokens(reader);
  vocabulary.readMerges(reader);
  if (Error error = reader.takeError())
    return error;
  return vocabulary;
}
