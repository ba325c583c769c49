//===- GGUFReader.cpp - Typed fields of a GGUF file -----------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GGUF.h"

using namespace mlir::llm;
using llvm::StringRef;

template <typename T>
const T *GGUFReader::expect(StringRef key, const char *what) {
  auto entry = metadata.find(key);
  if (entry == metadata.end())
    return nullptr;
  const T *value = std::get_if<T>(&entry->second);
  if (!value)
    fail("expected {0} for '{1}'", what, key);
  return value;
}

template <typename T>
static std::optional<T> copy(const T *value) {
  return value ? std::optional<T>(*value) : std::nullopt;
}

std::optional<int64_t> GGUFReader::integer(StringRef key) {
  return copy(expect<int64_t>(key, "an integer"));
}

std::optional<double> GGUFReader::number(StringRef key) {
  return copy(expect<double>(key, "a number"));
}

std::optional<bool> GGUFReader::boolean(StringRef key) {
  return copy(expect<bool>(key, "true or false"));
}

std::optional<StringRef> GGUFReader::string(StringRef key) {
  return copy(expect<StringRef>(key, "a string"));
}

const std::vector<StringRef> *GGUFReader::strings(StringRef key) {
  return expect<std::vector<StringRef>>(key, "an array of strings");
}

const std::vector<int64_t> *GGUFReader::integers(StringRef key) {
  return expect<std::vector<int64_t>>(key, "an array of integers");
}

const std::vector<double> *GGUFReader::numbers(StringRef key) {
  return expect<std::vector<double>>(key, "an array of numbers");
}

int64_t GGUFReader::requiredInteger(StringRef key) {
  if (!has(key))
    fail("missing '{0}'", key);
  return integer(key).value_or(1);
}
