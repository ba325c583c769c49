//===- CompiledProgram.h - IR text as a model, for tests -------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What a host does with a model: IR text is compiled, and its entries run
// through the C ABI on caches whose content the test knows.
//
//===----------------------------------------------------------------------===//

#ifndef LLM_TEST_INTEGRATION_COMPILEDPROGRAM_H
#define LLM_TEST_INTEGRATION_COMPILEDPROGRAM_H

#include "Testing.h"

#include <memory>
#include <string>

namespace llm::testing {

/// f32 weights by name.
/// Of f32 `values`, or of `bytes` in another format.
struct NamedWeight {
  const char *name;
  std::vector<int64_t> sizes;
  std::vector<float> values;
  llm_file_format format = LLM_FILE_F32;
  std::vector<uint8_t> bytes = {};
};

/// IR text as native code, with a model of it. Locations of the text are in
/// the file "test.mlir".
class CompiledProgram {
public:
  explicit CompiledProgram(const char *ir,
                           const std::vector<NamedWeight> &weights = {});
  ~CompiledProgram();
  CompiledProgram(const CompiledProgram &) = delete;

  const llm_program &descriptor() const;
  llm_context *context() const { return hostContext; }

  /// Leaves what went wrong in `error`.
  llm_code invoke(const char *entry, std::vector<llm_kv_cache *> caches,
                  std::vector<llm_tensor> inputs = {},
                  std::vector<llm_tensor> outputs = {});

  /// Does the entry succeed?
  ::testing::AssertionResult runs(const char *entry,
                                  std::vector<llm_kv_cache *> caches,
                                  std::vector<llm_tensor> inputs = {},
                                  std::vector<llm_tensor> outputs = {});

  /// The line of the text that holds `marker`.
  int32_t lineOf(const std::string &marker) const;

  llm_error error = LLM_ERROR_INIT;
  /// As the last call left them: those that it made are the caller's.
  std::vector<llm_kv_cache *> lastCaches;

private:
  struct Code;
  std::string text;
  std::unique_ptr<Code> code;
  llm_context *hostContext = nullptr;
  llm_model *model = nullptr;
};

/// A cache of the host. When it goes, its invariants hold and the pool has no
/// version left but those expected.
class HostCache {
public:
  HostCache(const CompiledProgram &program, const llm_kv_config &config)
      : config(config) {
    llm_error error = LLM_ERROR_INIT;
    EXPECT_EQ(llm_kv_create(program.context(), &config, &cache, &error), LLM_OK)
        << error.message;
  }
  /// Takes an object that a call has made.
  explicit HostCache(llm_kv_cache *made)
      : config(configOfCache(made)), cache(made) {}
  ~HostCache() {
    llm_error error = LLM_ERROR_INIT;
    EXPECT_EQ(llm_kv_check(cache, &error), LLM_OK) << error.message;
    EXPECT_EQ(stats().versions, versions);
    llm_kv_destroy(cache);
  }
  HostCache(const HostCache &) = delete;

  operator llm_kv_cache *() const { return cache; }

  llm_kv_stats stats() const {
    llm_kv_stats stats = {};
    EXPECT_EQ(llm_kv_get_stats(cache, &stats, nullptr), LLM_OK);
    return stats;
  }
  int64_t length(int32_t id) const {
    int64_t length = -1;
    EXPECT_EQ(llm_kv_length(cache, id, &length, nullptr), LLM_OK);
    return length;
  }
  void release(int32_t id) const {
    EXPECT_EQ(llm_kv_release(cache, &id, 1, nullptr), LLM_OK);
  }

  /// Appends tokens at every layer without compiled code.
  void append(int32_t id, const std::vector<int64_t> &tokens) const {
    const int32_t cuSeqlens[] = {0, static_cast<int32_t>(tokens.size())};
    llm_kv_step *step = nullptr;
    ASSERT_EQ(llm_kv_begin(cache, &id, cuSeqlens, 1, &step, nullptr), LLM_OK);
    for (int32_t layer = 0; layer < config.layers; ++layer) {
      const Tensor k = rowsOf(config, tokens, layer, 0);
      const Tensor v = rowsOf(config, tokens, layer, 1);
      ASSERT_EQ(llm_kv_append(step, layer, &k, &v, nullptr), LLM_OK);
    }
    ASSERT_EQ(llm_kv_commit(step, nullptr), LLM_OK);
  }

  /// Does a sequence hold exactly these tokens, at every layer?
  ::testing::AssertionResult holds(int32_t id,
                                   const std::vector<int64_t> &tokens) const {
    if (length(id) != static_cast<int64_t>(tokens.size()))
      return ::testing::AssertionFailure()
             << "sequence " << id << ": expected " << tokens.size()
             << " tokens, got " << length(id);
    for (int32_t layer = 0; layer < config.layers; ++layer)
      if (auto result = holdsAt(id, tokens, layer); !result)
        return result;
    return ::testing::AssertionSuccess();
  }

  const llm_kv_config config;
  int64_t versions = 1;

private:
  static llm_kv_config configOfCache(llm_kv_cache *cache) {
    llm_kv_config config = {};
    EXPECT_EQ(llm_kv_get_config(cache, &config, nullptr), LLM_OK);
    return config;
  }
  ::testing::AssertionResult
  holdsAt(int32_t id, const std::vector<int64_t> &tokens, int32_t layer) const;

  llm_kv_cache *cache = nullptr;
};

/// Does `rows`, one component ([C, Hkv, D], C as given), hold these tokens and
/// then zeros?
inline ::testing::AssertionResult
holdsTokens(Tensor &rows, int64_t bound, const std::vector<int64_t> &tokens,
            const llm_kv_config &config, int64_t layer, int64_t component,
            int64_t firstElement = 0) {
  int64_t i = firstElement;
  for (int64_t t = 0; t < bound; ++t)
    for (int32_t head = 0; head < config.kv_heads; ++head)
      for (int32_t dim = 0; dim < config.head_dim; ++dim, ++i) {
        const bool real = t < static_cast<int64_t>(tokens.size());
        const float expected =
            real ? valueOf(tokens[t], layer, component, head, dim) : 0;
        if (!(rows.get(i) == expected))
          return ::testing::AssertionFailure()
                 << (component ? "V" : "K") << " at layer " << layer
                 << ", token " << t << ", head " << head << ", dim " << dim
                 << ": expected " << expected << ", got " << rows.get(i);
      }
  return ::testing::AssertionSuccess();
}

inline ::testing::AssertionResult
HostCache::holdsAt(int32_t id, const std::vector<int64_t> &tokens,
                   int32_t layer) const {
  const int64_t bound = static_cast<int64_t>(tokens.size()) + 1;
  Tensor k(config.dtype, {1, bound, config.kv_heads, config.head_dim}), v = k;
  if (llm_kv_lookup(cache, layer, &id, 1, &k, &v, nullptr) != LLM_OK)
    return ::testing::AssertionFailure() << "lookup failed";
  if (auto result = holdsTokens(k, bound, tokens, config, layer, 0); !result)
    return result << " of sequence " << id;
  return holdsTokens(v, bound, tokens, config, layer, 1)
         << " of sequence " << id;
}

/// The masks and factors of `llm.paged_attention`.
struct Attention {
  double scale;
  double softcap = 0;
  int64_t window = 0;
  bool causal = true;
};

/// Attention of one query head over keys and values [n][D], in double.
struct AttentionRow {
  std::vector<double> output;
  double lse;
};
AttentionRow attendInDouble(const Attention &attention,
                            const std::vector<double> &query, int64_t position,
                            const std::vector<std::vector<double>> &keys,
                            const std::vector<std::vector<double>> &values);

} // namespace llm::testing

#endif // LLM_TEST_INTEGRATION_COMPILEDPROGRAM_H
