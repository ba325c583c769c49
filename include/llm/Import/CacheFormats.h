//===- CacheFormats.h - What a cache holds of K and V ----------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_IMPORT_CACHEFORMATS_H
#define LLM_IMPORT_CACHEFORMATS_H

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

namespace mlir::llm {

/// An element type, or a quantized format (`#llm.kv_storage`).
enum class CacheFormat { F32, F16, BF16, F8E4M3FN, I8, I4 };

struct CacheFormats {
  CacheFormat k = CacheFormat::F16, v = CacheFormat::F16;

  /// The type of the cache's elements: what is not quantized, else f32.
  CacheFormat elementType() const;
  bool operator==(const CacheFormats &) const = default;
};

bool isQuantized(CacheFormat format);

/// f32, f16, bf16, f8, i8 or i4 for both, or K:V like i8:f8. There is one
/// element type: K and V are of that type or quantized.
::llvm::Expected<CacheFormats> parseCacheFormats(::llvm::StringRef text);

} // namespace mlir::llm

#endif // LLM_IMPORT_CACHEFORMATS_H
