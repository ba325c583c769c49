//===- Session.cpp - A compiled model with weights and a cache ------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/Session.h"

#include "llm/Driver/RuntimeError.h"
#include "llm/Driver/WeightLoader.h"
#include "llm/Transforms/Passes.h"

#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/MLIRContext.h"
#include "llvm/ADT/Sequence.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/MathExtras.h"

#include <omp.h>

#include <algorithm>

using namespace mlir;
using namespace mlir::llm;
using ::llvm::ArrayRef;
using ::llvm::Error;
using ::llvm::Expected;

//===----------------------------------------------------------------------===//
// Compilation
//===----------------------------------------------------------------------===//

static ::llvm::StringRef nameOf(DiagnosticSeverity severity) {
  switch (severity) {
  case DiagnosticSeverity::Error:
    return "error";
  case DiagnosticSeverity::Warning:
    return "warning";
  case DiagnosticSeverity::Remark:
    return "remark";
  case DiagnosticSeverity::Note:
    return "note";
  }
  llvm_unreachable("unknown severity");
}

static void print(const Diagnostic &diagnostic, ::llvm::StringRef prefix) {
  ::llvm::errs() << prefix << nameOf(diagnostic.getSeverity()) << ": "
                 << diagnostic.getLocation() << ": " << diagnostic << '\n';
}

Expected<std::unique_ptr<CompiledModel>> mlir::llm::importAndCompile(
    const ModelFile &file, const ImportOptions &importOptions,
    const CompileOptions &compileOptions, ::llvm::StringRef prefix) {
  DialectRegistry registry;
  registerPipelineDialects(registry);
  MLIRContext context(registry);
  ScopedDiagnosticHandler handler(&context, [&](Diagnostic &diagnostic) {
    print(diagnostic, prefix);
    for (const Diagnostic &note : diagnostic.getNotes())
      print(note, prefix);
  });
  Expected<OwningOpRef<ModuleOp>> module =
      buildModel(context, file, importOptions);
  if (!module)
    return module.takeError();
  return CompiledModel::compile(**module, compileOptions);
}

//===----------------------------------------------------------------------===//
// Creation
//===----------------------------------------------------------------------===//

Error Session::createModel(int32_t threads) {
  if (threads > 0) // of compiled loops, beside the runtime's
    omp_set_num_threads(threads);
  llm_context *newContext = nullptr;
  if (Error error = callRuntime([&](llm_error *error) {
        return llm_context_create(threads, &newContext, error);
      }))
    return error;
  context.reset(newContext);
  llm_model *newModel = nullptr;
  if (Error error = callRuntime([&](llm_error *error) {
        return llm_model_create(context.get(), &program->program(), &newModel,
                                error);
      }))
    return error;
  model.reset(newModel);
  return Error::success();
}

/// Whether the program is the one that llm-import makes of the model, and takes
/// what step() gives it.
Error Session::checkProgram(const ModelConfig &config) const {
  const llm_program &made = program->program();
  const std::string expected = metadataOf(config);
  const ::llvm::StringRef metadata = made.metadata_json; // null is empty
  if (metadata != expected)
    return ::llvm::createStringError(
        "the program was not made of this model: its metadata are " +
        metadata + ", expected " + expected);
  const llm_entry_desc *entry = made.num_entries ? made.entries : nullptr;
  const llm_value_desc *logits =
      entry && entry->num_outputs == 1 ? entry->outputs : nullptr;
  if (!logits || entry->num_inputs != 4 || entry->num_kv != 1 ||
      entry->num_fresh != 0 || logits->dtype != LLM_F32 || logits->rank != 2 ||
      logits->sizes[1] != config.vocab)
    return ::llvm::createStringError(::llvm::formatv(
        "expected the program's first entry to be llm-import's, of 4 inputs, a "
        "cache and logits of f32 [rows, {0}]",
        config.vocab));
  return Error::success();
}

Error Session::chooseConfig(const SessionOptions &options) {
  if (Error error = callRuntime([&](llm_error *error) {
        return llm_kv_config_init(&program->program(), /*group=*/0,
                                  &cacheConfig, error);
      }))
    return error;
  cacheConfig.max_sequences = options.maxSequences;
  cacheConfig.num_blocks = options.poolBlocks;
  if (options.context)
    cacheConfig.max_seq_len = options.context;
  if (options.blockSize)
    cacheConfig.block_size = options.blockSize;
  return Error::success();
}

Error Session::createCache() {
  llm_kv_cache *newCache = nullptr;
  Error error = callRuntime([&](llm_error *error) {
    return llm_kv_create(context.get(), &cacheConfig, &newCache, error);
  });
  cache.reset(newCache);
  return error;
}

Expected<std::unique_ptr<Session>>
Session::create(std::unique_ptr<CompiledModel> program, const ModelFile &file,
                const SessionOptions &options, ::llvm::raw_ostream *progress) {
  std::unique_ptr<Session> session(new Session(std::move(program)));
  if (Error error = session->createModel(options.threads))
    return error;
  if (Error error = session->checkProgram(file.config()))
    return error;
  if (Error error = session->chooseConfig(options))
    return error;
  Expected<MemoryNeed> need = session->need(file.config(), options);
  if (!need)
    return need.takeError();
  if (options.onNeed)
    if (Error error = options.onNeed(*need))
      return error;
  if (Error error = loadWeights(session->model.get(), file, progress))
    return error;
  if (Error error = session->createCache())
    return error;
  return session;
}

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

/// What compiled code holds at once, all of f32: for each token of a step a
/// layer's input, its sum and its result, queries, what attention gives, keys
/// and values before and after RoPE; for each row of a block the feed-forward
/// network's three; rows of logits.
static int64_t workspaceOf(const ModelConfig &config,
                           const SessionOptions &options) {
  const int64_t token =
      3 * config.hidden +
      (2 * config.heads + 4 * config.kvHeads) * config.headDim;
  const int64_t blockRows = std::min(options.blockRows, options.stepTokens);
  return (options.stepTokens * token + blockRows * 3 * config.ffn +
          options.maxSequences * config.vocab) *
         int64_t(sizeof(float));
}

/// The pool is address space, of which the blocks that sequences fill become
/// memory.
Expected<MemoryNeed> Session::need(const ModelConfig &config,
                                   const SessionOptions &options) const {
  llm_kv_config filled = cacheConfig;
  filled.num_blocks = 0;
  for (int64_t length : options.lengths)
    filled.num_blocks += ::llvm::divideCeil(length, filled.block_size);
  if (cacheConfig.num_blocks)
    filled.num_blocks = std::min(filled.num_blocks, cacheConfig.num_blocks);
  MemoryNeed need;
  need.weights = weightBytes();
  need.workspace = workspaceOf(config, options);
  if (Error error = callRuntime([&](llm_error *error) {
        return llm_kv_bytes(&filled, &need.cache, error);
      }))
    return error;
  return need;
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

void Session::Batch::assign(ArrayRef<StepPart> parts) {
  tokens.clear();
  sequences.clear();
  ends.assign(1, 0);
  rows.clear();
  for (const StepPart &part : parts) {
    sequences.push_back(part.sequence);
    ::llvm::append_range(tokens, part.tokens);
    const int64_t end = tokens.size();
    ends.push_back(end);
    ::llvm::append_range(rows, ::llvm::seq<int32_t>(end - part.rows, end));
  }
}

static llm_tensor tensorOf(std::vector<int32_t> &values) {
  return {values.data(), LLM_I32, 1, {int64_t(values.size())}, {1}};
}

int64_t Session::vocabularySize() const {
  return program->program().entries[0].outputs[0].sizes[1];
}

Expected<ArrayRef<float>> Session::step(ArrayRef<StepPart> parts) {
  batch.assign(parts);
  const int64_t rows = batch.rows.size(), vocabulary = vocabularySize();
  logits.resize(rows * vocabulary);
  const llm_tensor inputs[] = {tensorOf(batch.tokens),
                               tensorOf(batch.sequences), tensorOf(batch.ends),
                               tensorOf(batch.rows)};
  const llm_tensor output = {
      logits.data(), LLM_F32, 2, {rows, vocabulary}, {vocabulary, 1}};
  llm_kv_cache *caches[] = {cache.get()};
  if (Error error = callRuntime([&](llm_error *error) {
        return llm_model_invoke(model.get(), /*entry=*/nullptr, caches, 1,
                                inputs, std::size(inputs), &output, 1, error);
      }))
    return error;
  return ArrayRef<float>(logits);
}

//===----------------------------------------------------------------------===//
// Sequences
//===----------------------------------------------------------------------===//

Error Session::fork(int32_t parent, int32_t child) {
  int64_t length = 0;
  if (Error error = callRuntime([&](llm_error *error) {
        return llm_kv_length(cache.get(), parent, &length, error);
      }))
    return error;
  return callRuntime([&](llm_error *error) {
    return llm_kv_fork(cache.get(), parent, &child, 1, length, error);
  });
}

Error Session::release(int32_t sequence) {
  return callRuntime([&](llm_error *error) {
    return llm_kv_release(cache.get(), &sequence, 1, error);
  });
}

//===----------------------------------------------------------------------===//
// Statistics
//===----------------------------------------------------------------------===//

Expected<llm_kv_work> Session::work() const {
  llm_kv_work work = {};
  if (Error error = callRuntime([&](llm_error *error) {
        return llm_kv_get_work(cache.get(), &work, error);
      }))
    return error;
  return work;
}

Expected<llm_model_work> Session::linearWork() const {
  llm_model_work work = {};
  if (Error error = callRuntime([&](llm_error *error) {
        return llm_model_get_work(model.get(), &work, error);
      }))
    return error;
  return work;
}

Expected<llm_kv_stats> Session::stats() const {
  llm_kv_stats stats = {};
  if (Error error = callRuntime([&](llm_error *error) {
        return llm_kv_get_stats(cache.get(), &stats, error);
      }))
    return error;
  return stats;
}
