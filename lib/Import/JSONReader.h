//===- JSONReader.h - Typed fields of a JSON object -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_JSONREADER_H
#define LLM_LIB_IMPORT_JSONREADER_H

#include "FirstProblem.h"

#include "llvm/Support/JSON.h"

#include <optional>
#include <vector>

namespace mlir::llm {

/// Reads fields of an object, which outlives it. A field that is null counts as
/// absent.
class JSONReader : public FirstProblem {
public:
  JSONReader(::llvm::StringRef path, const ::llvm::json::Object &object)
      : FirstProblem(path), object(object) {}

  /// Whether the field is there, be it null.
  bool has(::llvm::StringRef key) const { return object.get(key); }
  /// Null if absent.
  const ::llvm::json::Value *find(::llvm::StringRef key) const;

  std::optional<int64_t> integer(::llvm::StringRef key);
  std::optional<double> number(::llvm::StringRef key);
  std::optional<bool> boolean(::llvm::StringRef key);
  std::optional<::llvm::StringRef> string(::llvm::StringRef key);
  const ::llvm::json::Object *objectOf(::llvm::StringRef key);
  /// One id, or a list of them.
  std::optional<std::vector<int32_t>> ids(::llvm::StringRef key);

  int64_t requiredInteger(::llvm::StringRef key);
  double requiredNumber(::llvm::StringRef key);

private:
  template <typename T>
  std::optional<T> expect(::llvm::StringRef key, const char *what,
                          std::optional<T> value);

  const ::llvm::json::Object &object;
};

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_JSONREADER_H
