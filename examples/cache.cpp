//===- cache.cpp - The cache by itself, from C++ --------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The C ABI has handles; in C++ a unique_ptr owns each. The program fills a
// cache, shares a prompt between two sequences and lets one go its own way:
//
//   c++ -std=c++17 cache.cpp $(pkg-config --cflags --libs llm-runtime)
//
//===----------------------------------------------------------------------===//

#include <llm/Runtime/CAPI.h>

#include <cstdio>
#include <memory>
#include <stdexcept>
#include <vector>

/// Calls a function of the C ABI with an llm_error, and throws its message.
template <typename Fn>
static void call(Fn function) {
  llm_error error = LLM_ERROR_INIT;
  if (function(&error) != LLM_OK)
    throw std::runtime_error(error.message);
}

struct Destroy {
  void operator()(llm_context *p) const { llm_context_destroy(p); }
  void operator()(llm_kv_cache *p) const { llm_kv_destroy(p); }
};
using Context = std::unique_ptr<llm_context, Destroy>;
using Cache = std::unique_ptr<llm_kv_cache, Destroy>;

static constexpr int64_t heads = 2, dim = 64;

static Context makeContext() {
  llm_context *context = nullptr;
  call([&](llm_error *e) { return llm_context_create(0, &context, e); });
  return Context(context);
}

static Cache makeCache(llm_context *context) {
  llm_kv_config config;
  call(
      [&](llm_error *e) { return llm_kv_config_init(nullptr, 0, &config, e); });
  config.layers = 1;
  config.kv_heads = heads;
  config.head_dim = dim;
  config.dtype = LLM_BF16;
  config.max_sequences = 2;
  llm_kv_cache *cache = nullptr;
  call(
      [&](llm_error *e) { return llm_kv_create(context, &config, &cache, e); });
  return Cache(cache);
}

/// Appends tokens whose keys and values are all `number`.
static void append(llm_kv_cache *cache, int32_t sequence, int32_t tokens,
                   float number) {
  std::vector<float> data(tokens * heads * dim, number);
  const llm_tensor kv = {
      data.data(), LLM_F32, 3, {tokens, heads, dim}, {heads * dim, dim, 1}};
  const int32_t cuSeqlens[] = {0, tokens};
  llm_kv_step *step = nullptr;
  call([&](llm_error *e) {
    return llm_kv_begin(cache, &sequence, cuSeqlens, 1, &step, e);
  });
  call([&](llm_error *e) { return llm_kv_append(step, 0, &kv, &kv, e); });
  call([&](llm_error *e) { return llm_kv_commit(step, e); });
}

static llm_kv_stats statsOf(llm_kv_cache *cache) {
  llm_kv_stats stats;
  call([&](llm_error *e) { return llm_kv_get_stats(cache, &stats, e); });
  return stats;
}

int main() try {
  const Context context = makeContext();
  const Cache cache = makeCache(context.get());
  const int32_t prompt = 0, branch = 1;
  append(cache.get(), prompt, 40, 1);
  call([&](llm_error *e) {
    return llm_kv_fork(cache.get(), prompt, &branch, 1, 40, e);
  });
  const llm_kv_stats shared = statsOf(cache.get());
  append(cache.get(), branch, 1, 2);
  const llm_kv_stats apart = statsOf(cache.get());
  std::printf("two sequences of 40 tokens share %lld blocks; one token more "
              "copies %lld\n",
              static_cast<long long>(shared.live_blocks),
              static_cast<long long>(apart.cow_blocks));
  return shared.live_blocks == 3 && apart.cow_blocks == 1 ? 0 : 1;
} catch (const std::exception &error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 1;
}
