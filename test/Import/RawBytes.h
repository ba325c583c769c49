//===- RawBytes.h - Numbers as they lie in a file -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_TEST_IMPORT_RAWBYTES_H
#define LLM_TEST_IMPORT_RAWBYTES_H

#include <cstring>
#include <string>

namespace mlir::llm::test {

/// The bytes of a number in a file.
template <typename T>
std::string raw(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

} // namespace mlir::llm::test

#endif // LLM_TEST_IMPORT_RAWBYTES_H
