//===- RunReport.cpp - What a run tells about itself ----------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/RunReport.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"

#include <sys/resource.h>

using namespace mlir::llm;
namespace json = llvm::json;

int64_t mlir::llm::peakRSSBytes() {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return int64_t(usage.ru_maxrss) * 1024;
}

static double seconds(int64_t nanoseconds) { return double(nanoseconds) / 1e9; }

static const char *nameOf(llm_dtype dtype, llm_kv_storage storage) {
  switch (storage) {
  case LLM_KV_STORAGE_F8E4M3FN:
    return "f8";
  case LLM_KV_STORAGE_I8:
    return "i8";
  case LLM_KV_STORAGE_I4:
    return "i4";
  }
  return dtype == LLM_F32 ? "f32" : dtype == LLM_F16 ? "f16" : "bf16";
}

std::string mlir::llm::describeFormats(const llm_kv_config &config) {
  const std::string k = nameOf(config.dtype, config.k_storage);
  const std::string v = nameOf(config.dtype, config.v_storage);
  return k == v ? k : k + ":" + v;
}

double mlir::llm::bytesPerToken(const RunReport &report) {
  return double(report.cache.block_bytes) / report.config.block_size;
}

int64_t mlir::llm::exactBytesPerSequence(const llm_kv_config &config) {
  if (config.k_storage != LLM_KV_STORAGE_I4)
    return 0;
  const int64_t tokens = 2 * 32;
  return tokens * config.layers * config.kv_heads * config.head_dim *
         int64_t(sizeof(float));
}

//===----------------------------------------------------------------------===//
// JSON
//===----------------------------------------------------------------------===//

static json::Object toJSON(const Phase &phase) {
  const llm_kv_work &work = phase.work;
  json::Object attention{{"seconds", seconds(work.attention_ns)},
                         {"bytes", work.attention_bytes},
                         {"flops", work.attention_flops}};
  json::Object append{{"seconds", seconds(work.append_ns)},
                      {"bytes", work.append_bytes}};
  json::Object linear{{"seconds", seconds(phase.linear.linear_ns)},
                      {"bytes", phase.linear.linear_bytes},
                      {"flops", phase.linear.linear_flops}};
  return json::Object{{"tokens", phase.tokens},
                      {"seconds", phase.seconds},
                      {"tokens_per_second", phase.tokensPerSecond()},
                      {"steps", phase.steps},
                      {"linear", std::move(linear)},
                      {"attention", std::move(attention)},
                      {"append", std::move(append)}};
}

static json::Object toJSON(const llm_kv_stats &stats) {
  return json::Object{{"total_blocks", stats.total_blocks},
                      {"free_blocks", stats.free_blocks},
                      {"live_blocks", stats.live_blocks},
                      {"pending_blocks", stats.pending_blocks},
                      {"peak_live_blocks", stats.peak_live_blocks},
                      {"block_bytes", stats.block_bytes},
                      {"versions", stats.versions},
                      {"snapshots", stats.snapshots},
                      {"cow_blocks", stats.cow_blocks},
                      {"copied_bytes", stats.copied_bytes},
                      {"table_copies", stats.table_copies},
                      {"appended_tokens", stats.appended_tokens}};
}

static json::Object toJSON(const MatrixSize &size) {
  json::Array inFile;
  json::Object packed;
  for (const MatrixFormat &format : size.formats) {
    inFile.push_back(format.inFile);
    packed[format.inFile] = json::Array(format.packed);
  }
  return json::Object{{"parameters", size.parameters},
                      {"file_bytes", size.fileBytes},
                      {"file_formats", std::move(inFile)},
                      {"packed_formats", std::move(packed)}};
}

static json::Object weightsToJSON(const RunReport &report) {
  return json::Object{{"as", report.weightsAs},
                      {"activations", report.activations},
                      {"packed_bytes", report.packedBytes},
                      {"layers", toJSON(report.matrices.layers)},
                      {"head", toJSON(report.matrices.head)}};
}

static json::Object toJSON(const SequenceReport &sequence) {
  json::Object object{{"prompt_ids", json::Array(sequence.result.promptIds)},
                      {"ids", json::Array(sequence.result.ids)},
                      {"text", json::fixUTF8(sequence.text)}};
  if (!sequence.result.error.empty())
    object["error"] = json::fixUTF8(sequence.result.error);
  return object;
}

json::Object mlir::llm::toJSON(const RunReport &report) {
  json::Object object{
      {"load_s", report.loadSeconds},
      {"pack_s", report.packSeconds},
      {"compile_s", report.compileSeconds},
      {"compile_cpu_s", report.compileCPUSeconds},
      {"compile_cached", report.compileCached},
      {"prefill", ::toJSON(report.prefill)},
      {"decode", ::toJSON(report.decode)},
      {"peak_rss_bytes", report.peakRSSBytes},
      {"weights", weightsToJSON(report)},
      {"cache", ::toJSON(report.cache)},
      {"cache_dtype", describeFormats(report.config)},
      {"kv_bytes_per_token", bytesPerToken(report)},
      {"kv_exact_bytes_per_sequence", exactBytesPerSequence(report.config)}};
  if (report.score) {
    object["tokens"] = report.score->tokens;
    object["nll"] = report.score->meanNLL();
    object["ppl"] = report.score->perplexity();
    return object;
  }
  json::Array sequences;
  for (const SequenceReport &sequence : report.sequences)
    sequences.push_back(::toJSON(sequence));
  object["sequences"] = std::move(sequences);
  return object;
}

//===----------------------------------------------------------------------===//
// Summary
//===----------------------------------------------------------------------===//

static std::string describe(const Phase &phase) {
  return llvm::formatv("{0} tokens in {1:f2} s ({2:f1} tokens/s)", phase.tokens,
                       phase.seconds, phase.tokensPerSecond());
}

std::string mlir::llm::describeTurn(size_t number, const Phase &prefill,
                                    const Phase &decode, int64_t length,
                                    int64_t context) {
  return llvm::formatv("turn {0}: prefill {1}, decode {2}, {3} of {4} tokens "
                       "of the context",
                       number, describe(prefill), describe(decode), length,
                       context);
}

static double ratio(double part, double whole) {
  return whole > 0 ? part / whole : 0;
}

/// What kernels took and read and computed; bytes / ns is GB/s.
static std::string describeKernel(const Phase &phase, int64_t nanoseconds,
                                  int64_t bytes, int64_t flops) {
  const double time = seconds(nanoseconds);
  return llvm::formatv(
      "{0:f3} s ({1:f1}%, {2:f3} ms a step, {3:f1} GB/s, {4:f1} GFLOP/s)", time,
      100 * ratio(time, phase.seconds), 1e3 * ratio(time, phase.steps),
      ratio(bytes, nanoseconds), ratio(flops, nanoseconds));
}

/// Where the time went. The rest is what compiled code does itself, and what
/// the host does between steps.
static std::string describeWork(const Phase &phase) {
  const llm_kv_work &work = phase.work;
  const llm_model_work &linear = phase.linear;
  const double rest =
      phase.seconds -
      seconds(linear.linear_ns + work.attention_ns + work.append_ns);
  return llvm::formatv(
      "linear {0}, attention {1}, append {2:f3} s ({3:f1}%, {4:f1} GB/s), rest "
      "{5:f3} s ({6:f1}%, {7:f3} ms a step)",
      describeKernel(phase, linear.linear_ns, linear.linear_bytes,
                     linear.linear_flops),
      describeKernel(phase, work.attention_ns, work.attention_bytes,
                     work.attention_flops),
      seconds(work.append_ns),
      100 * ratio(seconds(work.append_ns), phase.seconds),
      ratio(work.append_bytes, work.append_ns), rest,
      100 * ratio(rest, phase.seconds), 1e3 * ratio(rest, phase.steps));
}

static std::string megabytes(int64_t bytes) {
  return llvm::formatv("{0:f1} MiB", double(bytes) / (1 << 20));
}

void mlir::llm::printSummary(const RunReport &report, llvm::raw_ostream &os) {
  const llm_kv_stats &cache = report.cache;
  os << llvm::formatv("load {0:f2} s, compile {1:f2} s{2}, peak memory {3}\n",
                      report.loadSeconds, report.compileSeconds,
                      report.compileCached ? " (cached)" : "",
                      megabytes(report.peakRSSBytes));
  os << llvm::formatv("weights {0} (in the file: layers {1}, head "
                      "{2}), activations {3}, {4} packed\n",
                      report.weightsAs,
                      describeFormats(report.matrices.layers, report.weightsAs),
                      describeFormats(report.matrices.head, report.weightsAs),
                      report.activations, megabytes(report.packedBytes));
  os << "prefill " << describe(report.prefill) << ", decode "
     << describe(report.decode) << '\n';
  for (const auto &[name, phase] : {std::pair("prefill", &report.prefill),
                                    std::pair("decode", &report.decode)})
    if (phase->steps)
      os << name << ' ' << describeWork(*phase) << '\n';
  os << llvm::formatv(
      "cache {0} tokens appended, at most {1} of {2} blocks of {3} tokens live "
      "({4}), {5} blocks ({6}) copied on write\n",
      cache.appended_tokens, cache.peak_live_blocks, cache.total_blocks,
      report.config.block_size,
      megabytes(cache.peak_live_blocks * cache.block_bytes), cache.cow_blocks,
      megabytes(cache.copied_bytes));
  os << llvm::formatv("cache dtype {0}, {1:f0} bytes of K and V per token",
                      describeFormats(report.config), bytesPerToken(report));
  if (const int64_t exact = exactBytesPerSequence(report.config))
    os << llvm::formatv(", {0} of exact K per sequence", exact);
  os << '\n';
  if (report.score)
    os << llvm::formatv("score {0} tokens, nll {1:f6}, ppl {2:f5}\n",
                        report.score->tokens, report.score->meanNLL(),
                        report.score->perplexity());
}
