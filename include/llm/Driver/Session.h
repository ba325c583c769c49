//===- Session.h - A compiled model with weights and a cache ----*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_DRIVER_SESSION_H
#define LLM_DRIVER_SESSION_H

#include "llm/Driver/Compiler.h"
#include "llm/Driver/MemoryNeed.h"
#include "llm/Driver/StepModel.h"
#include "llm/Import/BuildModel.h"
#include "llm/Import/ModelFile.h"
#include "llm/Runtime/CAPI.h"

#include "llvm/Support/raw_ostream.h"

#include <functional>
#include <memory>
#include <vector>

namespace mlir::llm {

/// Imports and compiles a model. Diagnostics go to stderr after `prefix`.
::llvm::Expected<std::unique_ptr<CompiledModel>>
importAndCompile(const ModelFile &file, const ImportOptions &importOptions,
                 const CompileOptions &compileOptions,
                 ::llvm::StringRef prefix);

/// Zero: what the model or the library suggests.
struct SessionOptions {
  int32_t threads = 0;
  int32_t blockSize = 0;
  int32_t maxSequences = 1;
  int64_t context = 0;
  int64_t poolBlocks = 0;
  /// Tokens that all sequences together come to hold, each in blocks of its
  /// own, that one step takes, and of these what compiled code takes at once:
  /// what memory is needed for.
  std::vector<int64_t> lengths;
  int64_t stepTokens = 1;
  int64_t blockRows = 1;
  /// Hears of that need before memory is taken; may refuse.
  std::function<::llvm::Error(const MemoryNeed &)> onNeed;
};

/// Everything that it takes to run steps: the program, its packed weights and
/// one cache.
class Session final : public StepModel {
public:
  /// `progress` is a terminal that may show what takes time, or null.
  static ::llvm::Expected<std::unique_ptr<Session>>
  create(std::unique_ptr<CompiledModel> program, const ModelFile &file,
         const SessionOptions &options, ::llvm::raw_ostream *progress);

  int64_t vocabularySize() const override;
  int64_t contextLength() const override { return cacheConfig.max_seq_len; }
  ::llvm::Expected<::llvm::ArrayRef<float>>
  step(::llvm::ArrayRef<StepPart> parts) override;
  ::llvm::Error fork(int32_t parent, int32_t child) override;
  ::llvm::Error release(int32_t sequence) override;
  ::llvm::Expected<llm_kv_work> work() const override;
  ::llvm::Expected<llm_model_work> linearWork() const override;

  const llm_kv_config &config() const { return cacheConfig; }
  const llm_program &description() const { return program->program(); }
  /// Of all weights, packed.
  int64_t weightBytes() const { return llm_model_weight_bytes(model.get()); }
  ::llvm::Expected<llm_kv_stats> stats() const;

private:
  template <auto destroy>
  struct Destroyer {
    template <typename T>
    void operator()(T *object) const {
      destroy(object);
    }
  };
  template <typename T, auto destroy>
  using Handle = std::unique_ptr<T, Destroyer<destroy>>;

  /// The inputs of the entry, batch by batch.
  struct Batch {
    std::vector<int32_t> tokens, sequences, ends, rows;

    void assign(::llvm::ArrayRef<StepPart> parts);
  };

  explicit Session(std::unique_ptr<CompiledModel> program)
      : program(std::move(program)) {}

  ::llvm::Error createModel(int32_t threads);
  ::llvm::Error checkProgram(const ModelConfig &config) const;
  ::llvm::Error chooseConfig(const SessionOptions &options);
  ::llvm::Expected<MemoryNeed> need(const ModelConfig &config,
                                    const SessionOptions &options) const;
  ::llvm::Error createCache();

  // In this order: the program outlives the model.
  std::unique_ptr<CompiledModel> program;
  Handle<llm_context, llm_context_destroy> context;
  Handle<llm_model, llm_model_destroy> model;
  Handle<llm_kv_cache, llm_kv_destroy> cache;
  llm_kv_config cacheConfig = {};
  Batch batch;
  std::vector<float> logits;
};

} // namespace mlir::llm

#endif // LLM_DRIVER_SESSION_H
