//===- TokenizerConfig.cpp - What stands beside a tokenizer ---------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TokenizerConfig.h"
#include "JSONFile.h"
#include "JSONReader.h"
#include "MappedFile.h"

#include "llvm/ADT/SmallString.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"

using namespace mlir::llm;
using llvm::Error;
using llvm::Expected;
using llvm::StringRef;
namespace json = llvm::json;

std::string mlir::llm::pathIn(StringRef directory, StringRef file) {
  llvm::SmallString<128> path(directory);
  llvm::sys::path::append(path, file);
  return path.str().str();
}

/// A token is its text, or an object that has it as "content".
static std::string tokenOf(JSONReader &config, StringRef key) {
  const json::Value *value = config.find(key);
  if (!value)
    return "";
  std::optional<StringRef> text = value->getAsString();
  if (const json::Object *object = value->getAsObject())
    text = object->getString("content");
  if (!text)
    config.fail("expected a token for '{0}', got {1}", key, *value);
  return text.value_or("").str();
}

/// A template is its text, or the one named default of a list.
static std::string templateOf(JSONReader &config) {
  const json::Value *value = config.find("chat_template");
  const json::Array *list = value ? value->getAsArray() : nullptr;
  if (!list)
    return config.string("chat_template").value_or("").str();
  for (const json::Value &entry : *list)
    if (const json::Object *named = entry.getAsObject())
      if (named->getString("name") == "default")
        return named->getString("template").value_or("").str();
  return "";
}

static Error readConfig(StringRef path, TokenizerConfig &result) {
  Expected<json::Object> object = readJSON(path);
  if (!object)
    return object.takeError();
  JSONReader config(path, *object);
  result.addsBos = config.boolean("add_bos_token");
  result.bosToken = tokenOf(config, "bos_token");
  result.eosToken = tokenOf(config, "eos_token");
  result.chatTemplate = templateOf(config);
  return config.takeError();
}

Expected<TokenizerConfig> mlir::llm::readTokenizerConfig(StringRef directory) {
  TokenizerConfig result;
  std::string config = pathIn(directory, "tokenizer_config.json");
  if (llvm::sys::fs::exists(config))
    if (Error error = readConfig(config, result))
      return error;
  std::string chat = pathIn(directory, "chat_template.jinja");
  if (llvm::sys::fs::exists(chat)) {
    Expected<MappedFile> file = MappedFile::open(chat);
    if (!file)
      return file.takeError();
    result.chatTemplate = file->bytes().str();
  }
  return result;
}
