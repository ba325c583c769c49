//===- RunOptions.h - The command line of llm-run ---------------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_RUNOPTIONS_H
#define LLM_DRIVER_RUNOPTIONS_H

#include "llm/Driver/Generation.h"
#include "llm/Import/BuildModel.h"
#include "llm/Transforms/Activations.h"

#include "llvm/Support/Error.h"

#include <optional>
#include <string>
#include <vector>

namespace mlir::llm {

/// What a run is for; each belongs to one option.
enum class RunMode {
  Generate,   ///< -p, -f, --ids or --prompts
  Converse,   ///< --chat without any of these
  Score,      ///< --score
  DumpLogits, ///< --dump-logits, with -p, -f or --ids
  Tokenize,   ///< --tokenize
};

/// A checked command line.
struct RunOptions {
  RunMode mode = RunMode::Generate;
  std::string model;
  /// What llm-compile made of the model; empty: compile it.
  std::string library;

  // What to read. At most one of these is set.
  std::optional<std::string> prompt;
  std::optional<std::string> promptFile;
  std::optional<std::vector<int32_t>> ids;
  std::optional<std::string> promptsFile;
  std::string scoreFile;
  std::string tokenizeFile;
  bool chat = false;
  std::optional<std::string> system; ///< none: what the template says
  bool special = false; ///< whether text may spell out special tokens

  // How to generate.
  std::optional<int64_t> maxNewTokens;
  SamplerOptions sampler;
  std::optional<int64_t> forkAt;
  bool ignoreEos = false;

  // How to score: in windows, or by document where there is no length.
  std::optional<int64_t> windowTokens;
  std::optional<int64_t> maxWindows, maxDocuments;

  // Compilation, cache and threads. Zero: a default that the model or the
  // machine decides.
  std::optional<ElementKind> weights;
  std::optional<Activations> activations;
  CacheFormats cache;
  int32_t window = 0;
  int32_t sinks = 0;
  int64_t context = 0;
  int64_t poolBlocks = 0;
  int32_t blockSize = 0;
  int32_t threads = 0;
  int64_t prefillChunk = 0;
  bool compileCache = true; ///< whether compiled code is kept and used again

  // What to write, where to.
  std::string jsonFile;
  bool verbose = false;
  bool quiet = false;
  std::string logitsFile;
};

/// The words of the command line.
::llvm::StringRef nameOf(ElementKind weights);
::llvm::StringRef nameOf(Activations activations);

/// What linear layers may round their input to unless the user says it.
Activations defaultActivations(ElementKind weights);

/// Fails where that is less than the weights are.
::llvm::Error checkActivations(ElementKind weights, Activations activations);

/// Reads a command line. Bad usage is an error whose message says what to do
/// about it. Prints the help text and exits the program on --help.
::llvm::Expected<RunOptions> parseRunOptions(int argc, const char *const *argv);

} // namespace mlir::llm

#endif // LLM_DRIVER_RUNOPTIONS_H
