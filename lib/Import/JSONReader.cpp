//===- JSONReader.cpp - Typed fields of a JSON object ---------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "JSONReader.h"

using namespace mlir::llm;
using llvm::StringRef;
namespace json = llvm::json;

const json::Value *JSONReader::find(StringRef key) const {
  const json::Value *value = object.get(key);
  return value && value->kind() != json::Value::Null ? value : nullptr;
}

/// Hands on `value`, and objects to a field that is there without one.
template <typename T>
std::optional<T> JSONReader::expect(StringRef key, const char *what,
                                    std::optional<T> value) {
  const json::Value *found = find(key);
  if (found && !value)
    fail("expected {0} for '{1}', got {2}", what, key, *found);
  return found ? value : std::nullopt;
}

std::optional<int64_t> JSONReader::integer(StringRef key) {
  return expect(key, "an integer", object.getInteger(key));
}

std::optional<double> JSONReader::number(StringRef key) {
  return expect(key, "a number", object.getNumber(key));
}

std::optional<bool> JSONReader::boolean(StringRef key) {
  return expect(key, "true or false", object.getBoolean(key));
}

std::optional<StringRef> JSONReader::string(StringRef key) {
  return expect(key, "a string", object.getString(key));
}

const json::Object *JSONReader::objectOf(StringRef key) {
  const json::Object *value = object.getObject(key);
  if (!value && find(key))
    fail("expected an object for '{0}', got {1}", key, *find(key));
  return value;
}

static bool appendId(const json::Value &value, std::vector<int32_t> &ids) {
  std::optional<int64_t> id = value.getAsInteger();
  if (!id || *id < 0 || *id > INT32_MAX)
    return false;
  ids.push_back(int32_t(*id));
  return true;
}

std::optional<std::vector<int32_t>> JSONReader::ids(StringRef key) {
  const json::Value *value = find(key);
  if (!value)
    return std::nullopt;
  std::vector<int32_t> ids;
  bool valid = true;
  if (const json::Array *list = value->getAsArray())
    for (const json::Value &id : *list)
      valid &= appendId(id, ids);
  else
    valid = appendId(*value, ids);
  if (!valid)
    fail("expected token ids for '{0}', got {1}", key, *value);
  return ids;
}

int64_t JSONReader::requiredInteger(StringRef key) {
  if (!find(key))
    fail("missing '{0}'", key);
  return integer(key).value_or(1);
}

double JSONReader::requiredNumber(StringRef key) {
  if (!find(key))
    fail("missing '{0}'", key);
  return number(key).value_or(1);
}
