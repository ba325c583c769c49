//===- GGUF.h - The container of llama.cpp's models -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
//   "GGUF" | u32 version | u64 tensors | u64 entries
//   | entries: string key, u32 type, value
//   | tensors: string name, u32 rank, u64 sizes (fastest first), u32 type,
//   |          u64 offset
//   | padding to general.alignment | data
//
// Little-endian; a string is a u64 length and its bytes.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_GGUF_H
#define LLM_LIB_IMPORT_GGUF_H

#include "FirstProblem.h"
#include "llm/Import/ModelFile.h"

#include "llvm/ADT/StringMap.h"

#include <optional>
#include <variant>

namespace mlir::llm {

/// A value of the metadata: integers are widened (a u64 that does not fit
/// becomes a double), strings lie in the file.
using GGUFValue =
    std::variant<int64_t, double, bool, ::llvm::StringRef, std::vector<int64_t>,
                 std::vector<double>, std::vector<::llvm::StringRef>>;

/// What stands before the data. Valid as long as the file's bytes.
struct GGUF {
  std::string path;
  ::llvm::StringMap<GGUFValue> metadata;
  std::vector<TensorInfo> tensors;
};

/// `path` is for messages.
::llvm::Expected<GGUF> readGGUF(::llvm::StringRef path, ::llvm::StringRef file);

/// Reads fields of the metadata, which outlives it. Absent is none or null.
class GGUFReader : public FirstProblem {
public:
  explicit GGUFReader(const GGUF &file)
      : FirstProblem(file.path), metadata(file.metadata) {}

  bool has(::llvm::StringRef key) const { return metadata.contains(key); }

  std::optional<int64_t> integer(::llvm::StringRef key);
  std::optional<double> number(::llvm::StringRef key);
  std::optional<bool> boolean(::llvm::StringRef key);
  std::optional<::llvm::StringRef> string(::llvm::StringRef key);
  const std::vector<::llvm::StringRef> *strings(::llvm::StringRef key);
  const std::vector<int64_t> *integers(::llvm::StringRef key);
  const std::vector<double> *numbers(::llvm::StringRef key);

  int64_t requiredInteger(::llvm::StringRef key);

private:
  template <typename T>
  const T *expect(::llvm::StringRef key, const char *what);

  const ::llvm::StringMap<GGUFValue> &metadata;
};

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_GGUF_H
