//===- PreTokenizer.cpp - Text into the pieces that merges stay within ----===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "PreTokenizer.h"
#include "ImportError.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/ConvertUTF.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

using namespace mlir::llm;
using llvm::Expected;
using llvm::StringRef;

//===----------------------------------------------------------------------===//
// Patterns
//===----------------------------------------------------------------------===//

// Models were trained with \s as Unicode's White_Space. PCRE2 counts U+180E
// (Mongolian vowel separator) among it, Unicode no longer does: so \s stands in
// brackets here, and is spelled out before it is compiled.

static constexpr StringRef gpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+)"
    R"(|[\s]+(?![^\s])|[\s]+)";

static constexpr StringRef oneDigit = R"(\p{N})";

static constexpr StringRef llama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|[\s]*[\r\n]+|[\s]+(?![^\s])|[\s]+)";

static constexpr StringRef qwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|[\s]*[\r\n]+|[\s]+(?![^\s])|[\s]+)";

static std::string spellOutBlanks(StringRef pattern) {
  llvm::SmallVector<StringRef> parts;
  pattern.split(parts, R"(\s)");
  return llvm::join(parts, R"(\p{Z}\t-\r\x{85})");
}

/// Empty for an unknown name.
static std::vector<StringRef> patternsOf(StringRef name) {
  if (name == "smollm")
    return {oneDigit, gpt2};
  if (name == "gpt-2")
    return {gpt2};
  if (name == "llama-bpe")
    return {llama3};
  if (name == "qwen2")
    return {qwen2};
  return {};
}

/// As tokenizer.json writes it: bare \s, and \S.
static std::string asWritten(StringRef pattern) {
  llvm::SmallVector<StringRef> parts;
  pattern.split(parts, R"([^\s])", -1, /*KeepEmpty=*/true);
  std::string text = llvm::join(parts, R"(\S)");
  parts.clear();
  StringRef(text).split(parts, R"([\s])");
  return llvm::join(parts, R"(\s)");
}

StringRef PreTokenizer::nameOf(StringRef expression) {
  for (StringRef name : {"gpt-2", "llama-bpe", "qwen2"})
    if (expression == asWritten(patternsOf(name).front()))
      return name;
  return "";
}

void PreTokenizer::Release::operator()(pcre2_real_code_8 *code) const {
  pcre2_code_free(code);
}

Expected<PreTokenizer::Pattern> PreTokenizer::compile(StringRef path,
                                                      StringRef readable) {
  std::string text = spellOutBlanks(readable);
  int status;
  PCRE2_SIZE where;
  Pattern pattern(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()),
                                text.size(), PCRE2_UTF | PCRE2_UCP, &status,
                                &where, nullptr));
  if (!pattern)
    return importError(path, "PCRE2 refuses '{0}' at {1} with status {2}", text,
                       where, status);
  // Without a just-in-time compiler it interprets.
  pcre2_jit_compile(pattern.get(), PCRE2_JIT_COMPLETE);
  return pattern;
}

Expected<PreTokenizer> PreTokenizer::create(StringRef path, StringRef name) {
  PreTokenizer result;
  for (StringRef text : patternsOf(name)) {
    Expected<Pattern> pattern = compile(path, text);
    if (!pattern)
      return pattern.takeError();
    result.patterns.push_back(std::move(*pattern));
  }
  if (result.patterns.empty())
    return importError(path,
                       "unsupported pre-tokenizer '{0}', expected smollm, "
                       "gpt-2, llama-bpe or qwen2",
                       name);
  return result;
}

//===----------------------------------------------------------------------===//
// Split
//===----------------------------------------------------------------------===//

/// The number of bytes at the front of `text` that are valid UTF-8.
static size_t validPrefix(StringRef text) {
  const auto *begin = reinterpret_cast<const llvm::UTF8 *>(text.begin());
  const auto *end = reinterpret_cast<const llvm::UTF8 *>(text.end());
  const llvm::UTF8 *at = begin;
  while (at != end && llvm::isLegalUTF8Sequence(at, end))
    at += llvm::getNumBytesForUTF8(*at);
  return at - begin;
}

void PreTokenizer::split(StringRef text, Consumer consumer) const {
  while (!text.empty()) {
    size_t valid = validPrefix(text);
    split(text.take_front(valid), 0, consumer);
    text = text.drop_front(valid);
    if (text.empty())
      return;
    consumer(text.take_front(1));
    text = text.drop_front(1);
  }
}

void PreTokenizer::split(StringRef text, size_t index,
                         Consumer consumer) const {
  if (text.empty())
    return;
  if (index == patterns.size())
    return consumer(text);
  const pcre2_code *pattern = patterns[index].get();
  std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
      pcre2_match_data_create_from_pattern(pattern, nullptr),
      pcre2_match_data_free);
  const PCRE2_SIZE *bounds = pcre2_get_ovector_pointer(match.get());
  size_t done = 0;
  while (done < text.size() &&
         pcre2_match(pattern, reinterpret_cast<PCRE2_SPTR>(text.data()),
                     text.size(), done, PCRE2_NO_UTF_CHECK, match.get(),
                     nullptr) > 0) {
    split(text.slice(done, bounds[0]), index + 1, consumer);
    split(text.slice(bounds[0], bounds[1]), index + 1, consumer);
    done = bounds[1];
  }
  split(text.drop_front(done), index + 1, consumer);
}
