//===- RunReport.h - What a run tells about itself --------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_RUNREPORT_H
#define LLM_DRIVER_RUNREPORT_H

#include "llm/Driver/Evaluation.h"
#include "llm/Driver/Generation.h"
#include "llm/Driver/MatrixSizes.h"
#include "llm/Runtime/CAPI.h"

#include "llvm/Support/JSON.h"
#include "llvm/Support/raw_ostream.h"

#include <optional>
#include <string>
#include <vector>

namespace mlir::llm {

/// A generated sequence with its text, special tokens left out.
struct SequenceReport {
  SequenceResult result;
  std::string text;
};

/// Times, memory, cache and results of a run.
struct RunReport {
  double loadSeconds = 0;
  double packSeconds = 0; ///< of these, for weights and an empty cache
  double compileSeconds = 0;
  double compileCPUSeconds = 0; ///< of all threads, whoever else is at work
  bool compileCached = false;   ///< the code is of an earlier run
  Phase prefill, decode;
  std::string weightsAs, activations; ///< in the words of the command line
  MatrixSizes matrices;
  int64_t packedBytes = 0; ///< of all weights, as they lie in memory
  int64_t peakRSSBytes = 0;
  llm_kv_stats cache = {};
  llm_kv_config config = {};
  std::vector<SequenceReport> sequences;
  std::optional<Score> score; ///< in place of sequences
};

/// "f16", or "i8:f8" where the cache holds K and V in different formats.
std::string describeFormats(const llm_kv_config &config);

/// Bytes that a token takes in the pool over all layers, K and V, scales and
/// the padding of pages included.
double bytesPerToken(const RunReport &report);

/// Bytes that a sequence takes besides, for K of i4 that is held exactly: two
/// groups of 32 tokens, over all layers, once it is that long.
int64_t exactBytesPerSequence(const llm_kv_config &config);

/// Peak resident memory of this process.
int64_t peakRSSBytes();

/// The object that `--json` writes.
::llvm::json::Object toJSON(const RunReport &report);

/// One turn of a conversation, which now has `length` tokens.
std::string describeTurn(size_t number, const Phase &prefill,
                         const Phase &decode, int64_t length, int64_t context);

/// For a reader: time, memory and weights, speed, what attention took of it in
/// each phase that was, the cache, and a score.
void printSummary(const RunReport &report, ::llvm::raw_ostream &os);

} // namespace mlir::llm

#endif // LLM_DRIVER_RUNREPORT_H
