//===- JSONFile.cpp - JSON that nobody vouches for ------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "JSONFile.h"
#include "ImportError.h"
#include "MappedFile.h"

using namespace mlir::llm;
using llvm::Expected;
using llvm::StringRef;
namespace json = llvm::json;

namespace {

constexpr size_t deepestNesting = 64;

/// What brackets and colons tell of a text before it is parsed.
struct Outline {
  size_t deepest = 0;
  size_t keys = 0; ///< of the outermost object
};

} // namespace

/// The position behind the string that begins at `quote`.
static size_t skipString(StringRef text, size_t quote) {
  size_t i = quote + 1;
  while (i < text.size() && text[i] != '"')
    i += text[i] == '\\' ? 2 : 1;
  return i + 1;
}

static Outline outline(StringRef text) {
  Outline result;
  size_t depth = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '"')
      i = skipString(text, i) - 1;
    else if (c == '{' || c == '[')
      result.deepest = std::max(result.deepest, ++depth);
    else if ((c == '}' || c == ']') && depth > 0)
      --depth;
    else if (c == ':' && depth == 1)
      ++result.keys;
  }
  return result;
}

Expected<json::Object> mlir::llm::parseJSON(StringRef path, StringRef text) {
  Outline seen = outline(text);
  if (seen.deepest > deepestNesting)
    return importError(path, "JSON nested {0} deep, more than {1}",
                       seen.deepest, deepestNesting);
  Expected<json::Value> value = json::parse(text);
  if (!value)
    return importError(path, "invalid JSON: {0}",
                       llvm::toString(value.takeError()));
  json::Object *object = value->getAsObject();
  if (!object)
    return importError(path, "expected a JSON object");
  if (object->size() != seen.keys)
    return importError(path, "{0} of {1} keys are given twice",
                       seen.keys - object->size(), seen.keys);
  return std::move(*object);
}

Expected<json::Object> mlir::llm::readJSON(StringRef path) {
  Expected<MappedFile> file = MappedFile::open(path);
  if (!file)
    return file.takeError();
  return parseJSON(path, file->bytes());
}
