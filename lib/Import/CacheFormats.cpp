//===- CacheFormats.cpp - What a cache holds of K and V -------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Import/CacheFormats.h"

#include "llvm/ADT/StringSwitch.h"

#include <optional>

using namespace mlir::llm;
using llvm::Expected;
using llvm::StringRef;

bool mlir::llm::isQuantized(CacheFormat format) {
  return format == CacheFormat::F8E4M3FN || format == CacheFormat::I8 ||
         format == CacheFormat::I4;
}

CacheFormat CacheFormats::elementType() const {
  if (!isQuantized(k))
    return k;
  return isQuantized(v) ? CacheFormat::F32 : v;
}

static std::optional<CacheFormat> formatOf(StringRef name) {
  return llvm::StringSwitch<std::optional<CacheFormat>>(name)
      .Case("f32", CacheFormat::F32)
      .Case("f16", CacheFormat::F16)
      .Case("bf16", CacheFormat::BF16)
      .Case("f8", CacheFormat::F8E4M3FN)
      .Case("i8", CacheFormat::I8)
      .Case("i4", CacheFormat::I4)
      .Default(std::nullopt);
}

Expected<CacheFormats> mlir::llm::parseCacheFormats(StringRef text) {
  auto [kText, vText] = text.split(':');
  const std::optional<CacheFormat> k = formatOf(kText);
  const std::optional<CacheFormat> v = text.contains(':') ? formatOf(vText) : k;
  if (!k || !v)
    return llvm::createStringError(
        "expected --cache-dtype to be f32, f16, bf16, f8, i8 or i4, or two of "
        "them as K:V, got '" +
        text + "'");
  if (*k != *v && !isQuantized(*k) && !isQuantized(*v))
    return llvm::createStringError(
        "expected --cache-dtype with K and V of one type where neither is f8, "
        "i8 or i4, got '" +
        text + "'");
  return CacheFormats{*k, *v};
}
