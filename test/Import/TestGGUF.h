//===- TestGGUF.h - Small GGUF files -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_TEST_IMPORT_TESTGGUF_H
#define LLM_TEST_IMPORT_TESTGGUF_H

#include "RawBytes.h"

#include <cstdint>
#include <map>
#include <vector>

namespace mlir::llm::test {

/// Writes GGUF files from what a test sets. Independent of the reader.
class GGUFWriter {
public:
  enum Type : uint32_t {
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10
  };

  static std::string string(const std::string &text) {
    return raw<uint64_t>(text.size()) + text;
  }

  /// A field with a value of any type, as bytes.
  GGUFWriter &set(const std::string &key, uint32_t type, std::string value) {
    fields[key] = raw(type) + value;
    return *this;
  }
  GGUFWriter &set(const std::string &key, const char *value) {
    return set(key, String, string(value));
  }
  GGUFWriter &set(const std::string &key, int value) {
    return set(key, U32, raw<uint32_t>(value));
  }
  GGUFWriter &set(const std::string &key, float value) {
    return set(key, F32, raw(value));
  }
  GGUFWriter &set(const std::string &key, bool value) {
    return set(key, Bool, raw<uint8_t>(value));
  }
  GGUFWriter &set(const std::string &key,
                  const std::vector<std::string> &values) {
    std::string bytes = raw<uint32_t>(String) + raw<uint64_t>(values.size());
    for (const std::string &value : values)
      bytes += string(value);
    return set(key, Array, bytes);
  }
  GGUFWriter &set(const std::string &key, const std::vector<int> &values) {
    std::string bytes = raw<uint32_t>(I32) + raw<uint64_t>(values.size());
    for (int value : values)
      bytes += raw<int32_t>(value);
    return set(key, Array, bytes);
  }
  GGUFWriter &set(const std::string &key, const std::vector<float> &values) {
    std::string bytes = raw<uint32_t>(F32) + raw<uint64_t>(values.size());
    for (float value : values)
      bytes += raw(value);
    return set(key, Array, bytes);
  }
  GGUFWriter &erase(const std::string &key) {
    fields.erase(key);
    return *this;
  }

  /// A tensor of ggml's `type`; `shape` is [rows, columns].
  GGUFWriter &tensor(const std::string &name, std::vector<int64_t> shape,
                     uint32_t type, const std::string &data) {
    bytes.resize(padded(bytes.size()));
    return tensorAt(bytes.size(), name, shape, type, data);
  }
  GGUFWriter &tensorAt(uint64_t offset, const std::string &name,
                       std::vector<int64_t> shape, uint32_t type,
                       const std::string &data) {
    std::string info = string(name) + raw<uint32_t>(shape.size());
    for (size_t i = shape.size(); i > 0; --i)
      info += raw<int64_t>(shape[i - 1]);
    tensors += info + raw(type) + raw(offset);
    ++numTensors;
    bytes += data;
    return *this;
  }

  std::string write() const {
    std::string file =
        "GGUF" + raw(version) + raw(numTensors) + raw<uint64_t>(fields.size());
    for (const auto &[key, value] : fields)
      file += string(key) + value;
    file += tensors;
    file.resize(padded(file.size()));
    return file + bytes;
  }

  uint64_t alignment = 32;
  uint32_t version = 3;
  uint64_t numTensors = 0;

private:
  uint64_t padded(uint64_t size) const {
    return (size + alignment - 1) / alignment * alignment;
  }

  std::map<std::string, std::string> fields;
  std::string tensors;
  std::string bytes;
};

/// Hidden 32, 4 heads, one layer, vocabulary 3: what a model needs at least.
inline GGUFWriter smallModel(uint64_t alignment = 32,
                             const std::string &architecture = "llama") {
  GGUFWriter file;
  file.alignment = alignment;
  file.set("general.architecture", architecture.c_str())
      .set(architecture + ".block_count", 1)
      .set(architecture + ".embedding_length", 32)
      .set(architecture + ".attention.head_count", 4)
      .set(architecture + ".attention.head_count_kv", 2)
      .set(architecture + ".feed_forward_length", 64)
      .set(architecture + ".context_length", 128)
      .set(architecture + ".attention.layer_norm_rms_epsilon", 1e-5f)
      .set("tokenizer.ggml.eos_token_id", 2);
  file.tensor("token_embd.weight", {3, 32}, 8, std::string(3 * 34, 'e'));
  file.tensor("output_norm.weight", {32}, 0, std::string(32 * 4, 'n'));
  return file;
}

/// A tokenizer of "a", "b", "ab", " ", the end of a text, and a few merges.
inline GGUFWriter smallTokenizer(const char *pre = "gpt-2") {
  GGUFWriter file = smallModel();
  file.set("tokenizer.ggml.model", "gpt2")
      .set("tokenizer.ggml.pre", pre)
      .set("tokenizer.ggml.tokens",
           std::vector<std::string>{"<end>", "a", "b", "ab", "\u0120",
                                    "\u0120a", "aba", "\u0120b", "<user>"})
      .set("tokenizer.ggml.token_type",
           std::vector<int>{3, 1, 1, 1, 1, 1, 1, 1, 4})
      .set("tokenizer.ggml.merges", std::vector<std::string>{"a b", "\u0120 a"})
      .set("tokenizer.ggml.bos_token_id", 0);
  return file;
}

/// A SentencePiece model of "a", "b", "ab", "▁a", "▁", and a token of the user;
/// "ab" before "▁a".
inline GGUFWriter smallSentencePiece() {
  GGUFWriter file = smallModel();
  file.set("tokenizer.ggml.model", "llama")
      .set("tokenizer.ggml.tokens",
           std::vector<std::string>{"<unk>", "<s>", "</s>", "\u2581", "a", "b",
                                    "ab", "\u2581a", "<|x|>", "[y]"})
      .set("tokenizer.ggml.scores",
           std::vector<float>{0, 0, 0, -3, -4, -5, -1, -2, 0, 0})
      .set("tokenizer.ggml.token_type",
           std::vector<int>{2, 3, 3, 1, 1, 1, 1, 1, 4, 4})
      .set("tokenizer.ggml.bos_token_id", 1);
  return file;
}

} // namespace mlir::llm::test

#endif // LLM_TEST_IMPORT_TESTGGUF_H
