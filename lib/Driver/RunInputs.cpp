//===- RunInputs.cpp - The tokens that a run starts from ------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/RunInputs.h"

#include "llm/Driver/Evaluation.h"
#include "llm/Driver/TextFile.h"
#include "llm/Import/ChatTemplate.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"

#include <algorithm>

using namespace mlir::llm;
using llvm::ArrayRef;
using llvm::Error;
using llvm::Expected;
using llvm::StringRef;

//===----------------------------------------------------------------------===//
// Prompts
//===----------------------------------------------------------------------===//

/// The BOS that `tokenizer` wants, then the text.
static TokenIds encodeText(const Tokenizer &tokenizer, StringRef text) {
  TokenIds ids;
  if (std::optional<int32_t> bos = tokenizer.bos())
    ids.push_back(*bos);
  llvm::append_range(ids, tokenizer.encode(text));
  return ids;
}

/// The longest special token that `text` begins with; empty without one.
static StringRef leadingSpecial(ArrayRef<std::string> specials,
                                StringRef text) {
  StringRef longest;
  for (StringRef special : specials)
    if (special.size() > longest.size() && text.starts_with(special))
      longest = special;
  return longest;
}

/// The same of text that may spell out special tokens: the first one is taken
/// first, of several there the longest. A BOS that it begins with is enough.
static TokenIds encodeWithSpecials(const Tokenizer &tokenizer, StringRef text) {
  const std::vector<std::string> specials = tokenizer.specialTexts();
  TokenIds ids;
  auto encodeUpTo = [&](size_t length) {
    if (length > 0)
      llvm::append_range(ids, tokenizer.encode(text.take_front(length)));
    text = text.drop_front(length);
  };
  for (size_t at = 0; at < text.size();) {
    const StringRef special = leadingSpecial(specials, text.drop_front(at));
    if (special.empty()) {
      ++at;
      continue;
    }
    encodeUpTo(at);
    ids.push_back(*tokenizer.specialId(special));
    text = text.drop_front(special.size());
    at = 0;
  }
  encodeUpTo(text.size());
  const std::optional<int32_t> bos = tokenizer.bos();
  if (bos && (ids.empty() || ids.front() != *bos))
    ids.insert(ids.begin(), *bos);
  return ids;
}

static Expected<TokenIds> encodePrompt(const RunOptions &options,
                                       const Tokenizer &tokenizer,
                                       StringRef text) {
  if (options.chat)
    return applyChatTemplate(tokenizer, text, options.system);
  return options.special ? encodeWithSpecials(tokenizer, text)
                         : encodeText(tokenizer, text);
}

static Expected<std::vector<std::string>> readLines(const std::string &path) {
  Expected<std::string> file = readFile(path);
  if (!file)
    return file.takeError();
  StringRef rest = *file;
  std::vector<std::string> lines;
  while (!rest.empty()) {
    auto [line, tail] = rest.split('\n');
    lines.push_back(line.rtrim('\r').str());
    rest = tail;
  }
  if (lines.empty())
    return llvm::createStringError("no prompts in " + path);
  return lines;
}

static Expected<std::vector<std::string>> readTexts(const RunOptions &options) {
  if (options.promptsFile)
    return readLines(*options.promptsFile);
  if (options.prompt)
    return std::vector<std::string>{*options.prompt};
  Expected<std::string> text =
      *options.promptFile == "-" ? readInput() : readFile(*options.promptFile);
  if (!text)
    return text.takeError();
  return std::vector<std::string>{std::move(*text)};
}

Expected<std::vector<TokenIds>>
mlir::llm::readPrompts(const RunOptions &options, const Tokenizer *tokenizer) {
  if (options.ids)
    return std::vector<TokenIds>{*options.ids};
  Expected<std::vector<std::string>> texts = readTexts(options);
  if (!texts)
    return texts.takeError();
  std::vector<TokenIds> prompts;
  for (StringRef text : *texts) {
    Expected<TokenIds> ids = encodePrompt(options, *tokenizer, text);
    if (!ids)
      return ids.takeError();
    prompts.push_back(std::move(*ids));
  }
  return prompts;
}

//===----------------------------------------------------------------------===//
// Scored text
//===----------------------------------------------------------------------===//

static Expected<std::vector<TokenIds>> windowsOf(StringRef text,
                                                 const RunOptions &options,
                                                 const Tokenizer &tokenizer,
                                                 int64_t context) {
  const int64_t length = *options.windowTokens;
  if (length > context)
    return llvm::createStringError(llvm::formatv(
        "a window has {0} tokens, the context holds {1}", length, context));
  const TokenIds ids = tokenizer.encode(text);
  std::vector<TokenIds> windows;
  for (auto window : splitWindows(ids, length, options.maxWindows))
    windows.push_back(window.vec());
  if (windows.empty())
    return llvm::createStringError(llvm::formatv(
        "a window has {0} tokens, the text only {1}", length, ids.size()));
  return windows;
}

static std::vector<TokenIds> documentsOf(StringRef text,
                                         const RunOptions &options,
                                         const Tokenizer &tokenizer,
                                         int64_t context) {
  std::vector<TokenIds> documents;
  for (StringRef document : splitDocuments(text, options.maxDocuments)) {
    TokenIds ids = encodeText(tokenizer, document);
    ids.resize(std::min<size_t>(ids.size(), context));
    documents.push_back(std::move(ids));
  }
  return documents;
}

Expected<std::vector<TokenIds>>
mlir::llm::readScoredText(const RunOptions &options, const Tokenizer &tokenizer,
                          int64_t context) {
  Expected<std::string> text = readFile(options.scoreFile);
  if (!text)
    return text.takeError();
  if (options.windowTokens)
    return windowsOf(*text, options, tokenizer, context);
  return documentsOf(*text, options, tokenizer, context);
}
