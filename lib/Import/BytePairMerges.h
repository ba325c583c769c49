//===- BytePairMerges.h - Pairs of tokens into longer ones -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_LIB_IMPORT_BYTEPAIRMERGES_H
#define LLM_LIB_IMPORT_BYTEPAIRMERGES_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/SmallVector.h"

#include <cstdint>

namespace mlir::llm {

using TokenPair = std::pair<int32_t, int32_t>;

/// What a tokenizer learnt: which neighbours become one token. Where several
/// can, the merge of the lowest rank comes first, and of these the leftmost.
class BytePairMerges {
public:
  /// Adds the merge of the next rank. A pair keeps its first rank.
  void add(TokenPair pair, int32_t merged) {
    merges.try_emplace(pair, Merge{int32_t(merges.size()), merged});
  }

  /// Merges `tokens` in place until nothing more can be merged.
  void apply(::llvm::SmallVectorImpl<int32_t> &tokens) const;

private:
  friend class MergeQueue;

  struct Merge {
    int32_t rank;
    int32_t token;
  };

  ::llvm::DenseMap<TokenPair, Merge> merges;
};

} // namespace mlir::llm

#endif // LLM_LIB_IMPORT_BYTEPAIRMERGES_H
