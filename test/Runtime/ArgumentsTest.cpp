//===- ArgumentsTest.cpp - Functions of the C ABI with wrong arguments ----===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Functions are called with arguments drawn from good and bad ones: null,
// negative counts, ids that are none, wrong types and ranks, forged handles.
// None crashes; what is refused has said why and changed nothing.
//
//   LLM_CALLS  functions called (of hosts, and as many of compiled code)
//   LLM_SEED   the seed
//
//===----------------------------------------------------------------------===//

#include "Digest.h"
#include "Program.h"

#include <cstdlib>
#include <random>

using namespace llm;
using namespace llm::testing;

namespace {

int64_t fromEnvironment(const char *name, int64_t otherwise) {
  const char *text = std::getenv(name);
  return text ? std::atoll(text) : otherwise;
}

class Arguments : public ::testing::Test {
protected:
  int pick(int n) { return static_cast<int>(random() % n); }
  template <typename T>
  T oneOf(std::initializer_list<T> values) {
    return values.begin()[pick(int(values.size()))];
  }
  int32_t id() { return oneOf({0, 1, 2, 3, 0, 1, 4, -1, INT32_MAX}); }
  int32_t count() { return oneOf({0, 1, 2, 2, 1, -1, INT32_MIN}); }
  int64_t length() {
    return oneOf<int64_t>({0, 1, 2, 3, 5, 64, -1, INT64_MAX, INT64_MIN});
  }
  template <typename T>
  T *orNull(T *pointer) {
    return pick(12) ? pointer : nullptr;
  }
  /// Draws the arrays that a function is given.
  void draw() {
    for (int32_t &value : ids)
      value = id();
    for (int64_t &value : lengths)
      value = length();
    cu[0] = pick(9) ? 0 : -1;
    for (int i = 1; i < 4; ++i)
      cu[i] = cu[i - 1] + oneOf({0, 1, 2, 1, -1});
    extras = drawExtras();
    shaped = Tensor(oneOf<llm_dtype>({LLM_F32, LLM_F32, LLM_F16, LLM_I32}),
                    {pick(4), 2, oneOf<int64_t>({4, 4, 4, 3})});
    if (!pick(12))
      shaped.rank = oneOf({-1, 0, 2, 7, INT32_MAX});
    if (!pick(12))
      shaped.sizes[pick(3)] = oneOf<int64_t>({-1, INT64_MIN, INT64_MAX});
    if (!pick(12))
      shaped.strides[2] = 2;
    for (Tensor *tensor : {&numbers, &others}) {
      *tensor = Tensor(std::vector<int32_t>{id(), id()});
      tensor->sizes[0] = oneOf<int64_t>({1, 2, 1, 2, 0, -1});
      if (!pick(12))
        tensor->dtype = LLM_I64;
      if (!pick(12))
        tensor->rank = 2;
    }
  }

  void callHost() {
    int32_t acquired;
    int64_t held;
    llm_kv_config config = p.config;
    config.struct_size += oneOf({0, 0, 0, 4});
    config.head_dim = oneOf({4, 0, -1, INT32_MAX, 8193});
    config.num_blocks = oneOf<int64_t>({1, 2, -1, INT32_MAX, INT64_MAX});
    llm_kv_cache *cache = orNull(p.cache);
    switch (pick(12)) {
    case 0:
      return check(
          llm_kv_fork(cache, id(), orNull(ids), count(), length(), &p.error));
    case 1:
      return check(
          llm_kv_trim(cache, orNull(ids), orNull(lengths), count(), &p.error));
    case 2:
      return check(llm_kv_release(cache, orNull(ids), count(), &p.error));
    case 3:
      return check(llm_kv_length(cache, id(), orNull(&held), &p.error));
    case 4:
      return check(llm_kv_acquire_sequence(cache, orNull(&acquired), &p.error));
    case 5:
      return check(llm_kv_reserve_check(cache, orNull(ids), orNull(lengths),
                                        count(), &p.error));
    case 6:
      return check(llm_kv_lookup(cache, id(), orNull(ids), count(),
                                 orNull(&shaped), orNull(&shaped), &p.error));
    case 7:
      return check(llm_kv_bytes(orNull(&config), orNull(&held), &p.error));
    default:
      return step(cache);
    }
  }

  void step(llm_kv_cache *cache) {
    llm_kv_step *step = nullptr;
    check(llm_kv_begin(cache, orNull(ids), orNull(cu), count(), orNull(&step),
                       &p.error));
    if (!step)
      return;
    for (int i = pick(3); i >= 0; --i)
      check(pick(2) ? llm_kv_append(step, pick(3) - 1, orNull(&shaped),
                                    orNull(&shaped), &p.error)
                    : llm_kv_attention(step, pick(3) - 1, orNull(&shaped),
                                       nullptr, orNull(&extras),
                                       orNull(&shaped), nullptr, &p.error));
    if (llm_kv_commit(step, &p.error) != LLM_OK)
      llm_kv_abort(step);
    before = Digest::of(p.cache);
  }

  uint64_t handle(llm_call *call) {
    const uint64_t bits = random();
    return oneOf<uint64_t>({call->kv[0], call->kv[0], made, stepHandle, 0, bits,
                            made ^ (uint64_t(1) << pick(64)),
                            call->kv[0] + (uint64_t(1) << 32)});
  }

  llm_code callCompiled(llm_call *call) {
    uint64_t out;
    int64_t number;
    void *data;
    const uint64_t kv = handle(call), at = pick(3) ? stepHandle : handle(call);
    const llm_tensor *n = orNull<llm_tensor>(&numbers),
                     *o = orNull<llm_tensor>(&others),
                     *s = orNull<llm_tensor>(&shaped);
    switch (pick(15)) {
    case 0:
    case 1:
      return llm_rt_begin_step(call, 1, kv, n, o, &stepHandle);
    case 2:
      return llm_rt_step_size(call, 1, at, &number, &number);
    case 3:
      return llm_rt_positions(call, 1, at, o);
    case 4:
      return llm_rt_at_layer(call, 1, at, length(), &out);
    case 5:
      return llm_rt_append_kv(call, 1, kv, at, s, s, orNull(&extras));
    case 6:
      return llm_rt_paged_attention(call, 1, kv, at, s, s, nullptr, nullptr,
                                    orNull(&extras));
    case 7:
      return llm_rt_lookup_kv(call, 1, kv, at, s, s, orNull(&extras));
    case 8:
      return llm_rt_fork_kv(call, 1, kv, n, o, n);
    case 9:
      return llm_rt_trim_kv(call, 1, kv, n, o);
    case 10:
      return llm_rt_seq_lens(call, 1, kv, n, o);
    case 11:
      return llm_rt_snapshot_kv(call, 1, kv, &made);
    case 12:
      return pick(2) ? llm_rt_drop_kv(call, 1, kv)
                     : llm_rt_replace_kv(call, 1, kv, handle(call));
    case 13:
      return llm_rt_linear(call, 1, s, s, pick(8) - 1, pick(9) - 1, s);
    default:
      return pick(2) ? llm_rt_workspace_release(call, 1, length())
                     : llm_rt_workspace(call, 1, length(), &data);
    }
  }

  /// Modifiers of attention, most of them absent.
  llm_extras drawExtras() {
    const auto maybe = [&](const llm_tensor *tensor) {
      return pick(3) ? nullptr : tensor;
    };
    const auto bytes = static_cast<uint32_t>(sizeof(llm_extras));
    return {oneOf<uint32_t>({bytes, bytes, 16, 0, bytes + 8}),
            int32_t(pick(4)) - 1,
            maybe(&numbers),
            maybe(&slopes),
            maybe(&slopes),
            maybe(&shaped),
            maybe(&shaped)};
  }

  /// A function has returned: if refused, it said why and changed nothing.
  void check(llm_code code) {
    ++codes[code];
    const uint64_t now = Digest::of(p.cache);
    if (code != LLM_OK) {
      ASSERT_EQ(p.error.code, code);
      ASSERT_STRNE(p.error.message, "");
      ASSERT_EQ(now, before) << p.error.message;
    }
    before = now;
    p.error = LLM_ERROR_INIT;
  }

  Program p{configOf(1, 4, 3, 4, 20)};
  std::mt19937_64 random{uint64_t(fromEnvironment("LLM_SEED", 1))};
  int64_t calls = fromEnvironment("LLM_CALLS", 20000);
  int32_t ids[4], cu[4];
  int64_t lengths[4];
  Tensor shaped{LLM_F32, {1}}, numbers = shaped, others = shaped;
  Tensor slopes{LLM_F32, {2}};
  llm_extras extras;
  uint64_t made = 0, stepHandle = 0;
  uint64_t before = 0;
  std::map<llm_code, int64_t> codes;
};

} // namespace

TEST_F(Arguments, OfHosts) {
  before = Digest::of(p.cache);
  for (int64_t i = 0; i < calls && !HasFatalFailure(); ++i) {
    draw();
    callHost();
  }
  EXPECT_EQ(llm_kv_check(p.cache, &p.error), LLM_OK) << p.error.message;
  for (llm_code code : {LLM_OK, LLM_INVALID_ARGUMENT, LLM_WRONG_STATE,
                        LLM_OUT_OF_BLOCKS, LLM_NEVER_FITS})
    EXPECT_GT(codes[code], 0) << llm_code_name(code);
}

TEST_F(Arguments, OfCompiledCode) {
  int64_t worked = 0;
  for (int64_t i = 0; i < calls && !HasFatalFailure(); i += 4) {
    before = Digest::of(p.cache);
    const llm_code code = p.invoke([&](llm_call *call) {
      llm_code result = LLM_OK;
      for (int j = 0; j < 4 && !result; ++j) {
        draw();
        result = callCompiled(call);
        worked += result == LLM_OK;
      }
      return result;
    });
    check(code);
  }
  EXPECT_EQ(llm_kv_check(p.cache, &p.error), LLM_OK) << p.error.message;
  EXPECT_GT(worked, calls / 50);
  for (llm_code code : {LLM_INVALID_ARGUMENT, LLM_WRONG_STATE})
    EXPECT_GT(codes[code], 0) << llm_code_name(code);
}
