//===- Conversation.cpp - Turns that share a cache ------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/Conversation.h"

#include "llvm/Support/FormatVariadic.h"

using namespace mlir::llm;
using llvm::ArrayRef;
using llvm::Expected;
using llvm::StringRef;

Expected<std::vector<int32_t>> Conversation::encode(StringRef user) const {
  const std::vector<int32_t> ids =
      begun ? chat.nextTurn(user) : chat.firstTurn(user, system);
  const int64_t context = model.contextLength();
  if (length() + int64_t(ids.size()) > context)
    return llvm::createStringError(llvm::formatv(
        "the turn has {0} tokens, the conversation so far {1}, the context "
        "holds {2}: say less, or start again with a larger --ctx",
        ids.size(), length(), context));
  return ids;
}

Expected<GenerationResult> Conversation::answer(ArrayRef<int32_t> ids) {
  if (begun)
    return generator.resume(ids);
  begun = true;
  return generator.run(std::vector<std::vector<int32_t>>{ids.vec()});
}
