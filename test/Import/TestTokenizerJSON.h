//===- TestTokenizerJSON.h - Small tokenizer.json files -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_TEST_IMPORT_TESTTOKENIZERJSON_H
#define LLM_TEST_IMPORT_TESTTOKENIZERJSON_H

#include <map>
#include <string>

namespace mlir::llm::test {

/// A tokenizer of "a", "b", "ab", " ", " a", "aba", " b", the end of a text and
/// a token of the user; no token has id 8. A test sets parts of it, and with
/// "model" all of the model.
class TokenizerJSON {
public:
  TokenizerJSON &set(const std::string &part, const std::string &value) {
    (isOfModel(part) ? model : file)[part] = value;
    return *this;
  }

  std::string text() const {
    std::map<std::string, std::string> parts = file;
    parts.try_emplace("model", object(model));
    return object(parts);
  }

private:
  using Parts = std::map<std::string, std::string>;

  static bool isOfModel(const std::string &part) {
    return part != "model" && part != "added_tokens" && part != "normalizer" &&
           part != "pre_tokenizer" && part != "post_processor";
  }

  static std::string object(const Parts &parts) {
    std::string text;
    for (const auto &[key, value] : parts)
      text += (text.empty() ? "{\"" : ", \"") + key + "\": " + value;
    return text + "}";
  }

  Parts model = {
      {"type", R"("BPE")"},
      {"vocab", R"({"a": 1, "b": 2, "ab": 3, "Ġ": 4, "Ġa": 5, "aba": 6,)"
                R"( "Ġb": 7})"},
      {"merges", R"(["a b", "Ġ a"])"},
  };
  Parts file = {
      {"added_tokens", R"([{"id": 0, "content": "<end>", "special": true},)"
                       R"( {"id": 9, "content": "<user>", "special": false}])"},
      {"normalizer", "null"},
      {"pre_tokenizer", R"({"type": "ByteLevel", "add_prefix_space": false})"},
      {"post_processor", "null"},
  };
};

} // namespace mlir::llm::test

#endif // LLM_TEST_IMPORT_TESTTOKENIZERJSON_H
