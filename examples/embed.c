//===- embed.c - A compiled function, from C ------------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A host that links what llm-compile made of embed.mlir:
//
//   llm-compile embed.mlir -o embed.o
//   cc -std=c99 embed.c embed.o $(pkg-config --cflags --libs llm-runtime)
//
// A call is a transaction: one that fails leaves the cache as it was.
//
//===----------------------------------------------------------------------===//

#include "embed.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEADS = 2, DIM = 4, TOKENS = 5 };

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

static llm_tensor integers(const int32_t *data, int64_t size) {
  llm_tensor tensor = {(void *)data, LLM_I32, 1, {0}, {0}};
  tensor.sizes[0] = size;
  tensor.strides[0] = 1;
  return tensor;
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

/// Appends tokens to sequences 0 and 1, sequence i's from row cu_seqlens[i] on,
/// and reads what each sees. With queries of zero all keys weigh the same.
static llm_code attend(llm_model *model, llm_kv_cache *cache,
                       const int32_t *cu_seqlens, float *v, float *out,
                       llm_error *error) {
  static const int32_t both[] = {0, 1};
  static float zeros[TOKENS * HEADS * DIM];
  const int64_t tokens = cu_seqlens[2];
  const llm_tensor ids = integers(both, 2), ends = integers(cu_seqlens, 3);
  const llm_tensor nothing = rows(zeros, tokens), values = rows(v, tokens);
  const llm_tensor result = rows(out, tokens);
  return embed_attend(model, cache, &ids, &ends, &nothing, &nothing, &values,
                      &result, error);
}

static int near(float actual, float expected) {
  return fabsf(actual - expected) < 1e-5f;
}

int main(void) {
  llm_error error = LLM_ERROR_INIT;
  llm_context *context;
  llm_model *model;
  llm_kv_cache *cache;
  llm_kv_config config;

  check(llm_context_create(0, &context, &error), &error);
  check(llm_model_create(context, embed_program(), &model, &error), &error);
  check(llm_kv_config_init(embed_program(), 0, &config, &error), &error);
  config.max_sequences = 2;
  config.block_size = 2;
  config.num_blocks = 4;
  check(llm_kv_create(context, &config, &cache, &error), &error);

  // Three tokens of one sequence and two of another, with values 1 to 5.
  float v[TOKENS * HEADS * DIM], out[TOKENS * HEADS * DIM];
  for (int i = 0; i < TOKENS * HEADS * DIM; ++i)
    v[i] = 1 + (float)(i / (HEADS * DIM));
  const int32_t prompts[] = {0, 3, 5};
  check(attend(model, cache, prompts, v, out, &error), &error);
  expect(near(out[2 * HEADS * DIM], 2), "the third token sees 1, 2 and 3");
  expect(near(out[4 * HEADS * DIM], 4.5f), "the fifth one sees 4 and 5");

  // Three more tokens of the first need a third block and a fourth: with those
  // of the other sequence that is one too many.
  const int32_t more[] = {0, 3, 4};
  expect(attend(model, cache, more, v, out, &error) == LLM_OUT_OF_BLOCKS,
         "a step that does not fit is refused");
  printf("    %s\n", error.message);
  const int32_t one[] = {0, 1, 1};
  check(attend(model, cache, one, v, out, &error), &error);
  expect(near(out[0], 7.f / 4), "and left the cache as it was");

  llm_kv_destroy(cache);
  llm_model_destroy(model);
  llm_context_destroy(context);
  return 0;
}
