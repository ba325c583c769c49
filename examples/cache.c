//===- cache.c - The runtime by itself, from C ----------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A host without a compiler: it makes a cache, stores the keys and values of a
// prompt, attends, branches the conversation and gives everything back. Build
// it against the installed tree with
//
//   cc -std=c99 cache.c -lllm_runtime -lm
//
//===----------------------------------------------------------------------===//

#include "llm/Runtime/CAPI.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEADS = 2, DIM = 4, PROMPT = 6 };

/// Every failure has a code and a message with both numbers in it.
static void check(llm_code code, const llm_error *error) {
  if (code == LLM_OK)
    return;
  fprintf(stderr, "%s: %s\n", llm_code_name(code), error->message);
  exit(1);
}

static void expect(int condition, const char *what) {
  printf("%s: %s\n", condition ? "ok" : "SURPRISE", what);
  if (!condition)
    exit(1);
}

/// A row-major f32 tensor [tokens, HEADS, DIM] over `data`.
static llm_tensor rows(float *data, int64_t tokens) {
  llm_tensor tensor = {data, LLM_F32, 3, {0}, {0}};
  tensor.sizes[0] = tokens;
  tensor.sizes[1] = HEADS;
  tensor.sizes[2] = DIM;
  tensor.strides[0] = HEADS * DIM;
  tensor.strides[1] = DIM;
  tensor.strides[2] = 1;
  return tensor;
}

/// Appends `tokens` values to a sequence in one step, and returns what the last
/// query reads. With a query of zero all keys weigh the same: the mean of V.
static float append(llm_kv_cache *cache, int32_t sequence, int32_t tokens,
                    float first) {
  float kv[PROMPT * HEADS * DIM], q[PROMPT * HEADS * DIM] = {0};
  float out[PROMPT * HEADS * DIM];
  const int32_t cu_seqlens[] = {0, tokens};
  llm_error error = LLM_ERROR_INIT;
  llm_kv_step *step;
  for (int i = 0; i < tokens * HEADS * DIM; ++i)
    kv[i] = first + (float)(i / (HEADS * DIM));
  llm_tensor values = rows(kv, tokens), queries = rows(q, tokens);
  llm_tensor result = rows(out, tokens);

  // The one call that can run out of blocks: it takes all that the step needs.
  check(llm_kv_begin(cache, &sequence, cu_seqlens, 1, &step, &error), &error);
  check(llm_kv_append(step, 0, &values, &values, &error), &error);
  check(llm_kv_attention(step, 0, &queries, NULL, NULL, &result, NULL, &error),
        &error);
  check(llm_kv_commit(step, &error), &error);
  return out[(tokens - 1) * HEADS * DIM];
}

static int near(float actual, float expected) {
  return fabsf(actual - expected) < 1e-4f;
}

int main(void) {
  llm_error error = LLM_ERROR_INIT;
  llm_context *context;
  llm_kv_cache *cache;
  llm_kv_config config;
  llm_kv_stats stats;

  check(llm_context_create(0, &context, &error), &error);
  check(llm_kv_config_init(NULL, 0, &config, &error), &error);
  config.layers = 1;
  config.kv_heads = HEADS;
  config.head_dim = DIM;
  config.dtype = LLM_F32;
  config.block_size = 4;
  config.max_sequences = 4;
  config.max_seq_len = 64;
  config.num_blocks = 4;
  check(llm_kv_create(context, &config, &cache, &error), &error);
  printf("kernels for %s\n", llm_cpu_target());

  // A prompt of six tokens with the values 1 to 6: one and a half blocks.
  int32_t chat;
  check(llm_kv_acquire_sequence(cache, &chat, &error), &error);
  expect(near(append(cache, chat, PROMPT, 1), 3.5f),
         "the last token of the prompt sees all six");

  // A second conversation from its first five tokens costs nothing...
  int32_t branch;
  check(llm_kv_acquire_sequence(cache, &branch, &error), &error);
  check(llm_kv_fork(cache, chat, &branch, 1, 5, &error), &error);
  check(llm_kv_get_stats(cache, &stats, &error), &error);
  expect(stats.live_blocks == 2 && stats.copied_bytes == 0,
         "a fork shares its parent's blocks");

  // ...until it goes its own way: one partial block is copied.
  expect(near(append(cache, branch, 1, 27), 7), "the branch has its own token");
  check(llm_kv_get_stats(cache, &stats, &error), &error);
  expect(stats.live_blocks == 3 && stats.cow_blocks == 1,
         "its first append copies the shared tail");
  expect(near(append(cache, chat, 1, 7), 4), "the first one never saw it");

  // What does not fit is refused before anything changes.
  const int32_t ids[] = {branch, 3};
  const int64_t more[] = {1, 6};
  expect(llm_kv_reserve_check(cache, ids, more, 2, &error) == LLM_OUT_OF_BLOCKS,
         "a batch that does not fit is refused");
  printf("    %s\n", error.message);

  // Take back two tokens, then give everything back.
  const int64_t length = 5;
  int64_t left;
  check(llm_kv_trim(cache, &chat, &length, 1, &error), &error);
  check(llm_kv_length(cache, chat, &left, &error), &error);
  expect(left == 5, "a trim takes back tokens");
  expect(near(append(cache, chat, 1, 21), 6),
         "and the next goes in their place");
  const int32_t both[] = {chat, branch};
  check(llm_kv_release(cache, both, 2, &error), &error);
  check(llm_kv_get_stats(cache, &stats, &error), &error);
  expect(stats.free_blocks == stats.total_blocks, "every block is free again");
  check(llm_kv_check(cache, &error), &error);

  llm_kv_destroy(cache);
  llm_context_destroy(context);
  return 0;
}
