//===- RunInputs.h - The tokens that a run starts from ----------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_RUNINPUTS_H
#define LLM_DRIVER_RUNINPUTS_H

#include "llm/Driver/RunOptions.h"
#include "llm/Import/Tokenizer.h"

#include "llvm/Support/Error.h"

#include <vector>

namespace mlir::llm {

using TokenIds = std::vector<int32_t>;

/// The prompts of -p, -f, --ids or --prompts. Only --ids does without a
/// tokenizer; the others put a BOS first where the tokenizer wants one.
::llvm::Expected<std::vector<TokenIds>> readPrompts(const RunOptions &options,
                                                    const Tokenizer *tokenizer);

/// The windows or documents of --score; none is longer than `context`.
::llvm::Expected<std::vector<TokenIds>>
readScoredText(const RunOptions &options, const Tokenizer &tokenizer,
               int64_t context);

} // namespace mlir::llm

#endif // LLM_DRIVER_RUNINPUTS_H
