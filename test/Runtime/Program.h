//===- Program.h - A compiled model, written by hand ---------- -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What a compiler would emit for a model of one cache argument, with an entry
// whose body each test chooses. Input 0 is i32 [T] below 100; output 0 is
// f32 [T, 3].
//
//===----------------------------------------------------------------------===//

#ifndef LLM_TEST_RUNTIME_PROGRAM_H
#define LLM_TEST_RUNTIME_PROGRAM_H

#include "Testing.h"

#include <functional>

namespace llm::testing {

class Program {
public:
  using Body = std::function<llm_code(llm_call *)>;

  explicit Program(llm_kv_config config = configOf(1, 4, 16, 4, 64))
      : config(config) {
    input.name = "tokens";
    input.dtype = LLM_I32;
    input.rank = 1;
    input.sizes[0] = -1;
    input.symbols[0] = 0;
    input.below = 100;
    input.below_symbol = -1;
    output = input;
    output.name = "logits";
    output.dtype = LLM_F32;
    output.rank = 2;
    output.sizes[1] = 3;
    output.symbols[1] = -1;
    output.below = -1;
    group.name = "cache";
    group.dtype = -1;
    group.block_size = config.block_size;
    entry = {"main", run, &input, &output, groups, 1, 1, 1, 1, 0, 0};
    program.struct_size = sizeof(program);
    program.abi_version = LLM_ABI_VERSION;
    program.name = "by hand";
    program.groups = &group;
    program.entries = &entry;
    program.sites = sites;
    program.num_groups = program.num_entries = 1;
    program.num_sites = 2;
    EXPECT_EQ(llm_context_create(1, &context, nullptr), LLM_OK);
    cache = makeCache();
  }
  ~Program() {
    llm_model_destroy(model);
    llm_kv_destroy(cache);
    llm_context_destroy(context);
  }

  llm_kv_cache *makeCache() {
    llm_kv_cache *made = nullptr;
    EXPECT_EQ(llm_kv_create(context, &config, &made, nullptr), LLM_OK);
    return made;
  }

  llm_code create() {
    return llm_model_create(context, &program, &model, &error);
  }

  /// Runs a body as the entry, with two tokens.
  llm_code invoke(Body chosen) { return invoke(std::move(chosen), &cache, 1); }

  llm_code invoke(Body chosen, llm_kv_cache **caches, int32_t numCaches) {
    if (!model) {
      EXPECT_EQ(create(), LLM_OK);
    }
    body = std::move(chosen);
    error = LLM_ERROR_INIT;
    const Tensor tokens(std::vector<int32_t>{5, 6});
    const Tensor logits(LLM_F32, {2, 3});
    return llm_model_invoke(model, nullptr, caches, numCaches, &tokens, 1,
                            &logits, 1, &error);
  }

  llm_kv_config config;
  llm_value_desc input = {}, output = {};
  llm_kv_group_desc group = {};
  llm_entry_desc entry = {};
  llm_program program = {};
  llm_context *context = nullptr;
  llm_model *model = nullptr;
  llm_kv_cache *cache = nullptr;
  llm_error error = LLM_ERROR_INIT;

private:
  static llm_code run(llm_call *call) { return body(call); }

  static inline Body body;
  static inline const int32_t groups[] = {0, 0};
  static inline const llm_site sites[] = {
      {"llm.begin_step", "m.mlir", 7, 3},
      {"llm.append_kv", "layer.attn", 0, 0}};
};

/// The tensors of a batch.
struct BatchTensors {
  explicit BatchTensors(const Batch &batch)
      : ids(batch.ids), cuSeqlens(batch.cuSeqlens()) {}
  Tensor ids, cuSeqlens;
};

/// What compiled code does for a step: begun, and appended at every layer.
inline llm_code stepInCall(llm_call *call, uint64_t kv, const Batch &batch,
                           const llm_kv_config &config) {
  const BatchTensors tensors(batch);
  uint64_t step;
  llm_code code =
      llm_rt_begin_step(call, 0, kv, &tensors.ids, &tensors.cuSeqlens, &step);
  for (int32_t layer = 0; !code && layer < config.layers; ++layer) {
    uint64_t at;
    code = llm_rt_at_layer(call, 1, step, layer, &at);
    if (code)
      return code;
    const Tensor k = rowsOf(config, batch.flat(), layer, 0);
    const Tensor v = rowsOf(config, batch.flat(), layer, 1);
    code = llm_rt_append_kv(call, 1, kv, at, &k, &v, nullptr);
  }
  return code;
}

} // namespace llm::testing

#endif // LLM_TEST_RUNTIME_PROGRAM_H
