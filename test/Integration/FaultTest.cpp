//===- FaultTest.cpp - Every allocation of a compiled step fails ----------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// An entry is run with the k-th block, workspace or host allocation failing, on
// a cache, model and context made for the occasion, until none fails. Each time
// the error has the code, the op, its place and the numbers, the pool is what
// it was byte for byte, block numbers included, and the same call again does
// what it does without a fault: the same outputs, and the same pool but for the
// numbers of new blocks.
//
//===----------------------------------------------------------------------===//

#include "CompiledProgram.h"
#include "Digest.h"
#include "FailingNew.h"

#include <functional>
#include <optional>
#include <thread>

using namespace llm::testing;
using llm::Resource;

static const char text[] = R"mlir(
!kv = !llm.paged_kv_cache<2x2x4xf32>
!one = !llm.paged_kv_cache<1x2x4xf32>
!ids = tensor<?xi32>
!rows = tensor<?x2x4xf32>
!query = tensor<?x4x4xf32>
!batch = tensor<1x1x2x4xf32>

// The queries of the second layer are what the first one found.
func.func private @layers(%c: !kv, %ids: !ids, %cu: !ids, %k: !rows,
                          %v: !rows, %q: !query) -> (!kv, !query) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %c0, %step = llm.begin_step %c, %ids, %cu : !kv, !ids, !ids -> !kv
  %at0 = llm.at_layer %step[%zero]
  %c1 = llm.append_kv %c0, %k, %v at %at0 : !kv, !rows, !rows -> !kv
  %found = llm.paged_attention %q, %c1 at %at0 : !query, !kv -> !query
  %at1 = llm.at_layer %step[%one]
  %c2 = llm.append_kv %c1, %v, %k at %at1 : !kv, !rows, !rows -> !kv
  %o = llm.paged_attention %found, %c2 at %at1 : !query, !kv -> !query
  return %c2, %o : !kv, !query
}

func.func @step(%c: !kv, %ids: !ids, %cu: !ids, %k: !rows, %v: !rows,
                %q: !query) -> (!kv, !query) {
  %c1, %o = func.call @layers(%c, %ids, %cu, %k, %v, %q)
      : (!kv, !ids, !ids, !rows, !rows, !query) -> (!kv, !query)
  return %c1, %o : !kv, !query
}

func.func @branch(%c: !kv, %ids: !ids, %cu: !ids, %k: !rows, %v: !rows,
                  %q: !query, %parents: !ids, %children: !ids, %lengths: !ids)
    -> (!kv, !query) {
  %c1 = llm.fork_kv %c, %parents, %children, %lengths
      : !kv, !ids, !ids, !ids -> !kv
  %c2, %o = func.call @layers(%c1, %ids, %cu, %k, %v, %q)
      : (!kv, !ids, !ids, !rows, !rows, !query) -> (!kv, !query)
  return %c2, %o : !kv, !query
}

func.func @forever(%c: !one, %ids: !ids, %k: !batch) -> !one {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %many = arith.constant 1000000000 : index
  %length = arith.constant dense<0> : tensor<1xi32>
  %to = tensor.cast %length : tensor<1xi32> to !ids
  %r = scf.for %i = %zero to %many step %one iter_args(%ci = %c) -> !one {
    %c1 = llm.append_kv %ci, %k, %k : !one, !batch, !batch -> !one
    %c2 = llm.trim_kv %c1, %ids, %to : !one, !ids, !ids -> !one // in the loop
    scf.yield %c2 : !one
  }
  return %r : !one
}
)mlir";

namespace {

/// What an entry is given, over a cache of [sequence 0: 6, 1: 3] tokens.
struct Scenario {
  const char *name;
  const char *entry;
  Batch batch;
  std::vector<std::vector<int32_t>> fork;
};

const Scenario scenarios[] = {
    {"Prefill", "step", {{2, 3}, {range(40, 9), range(60, 5)}}, {}},
    {"Decode", "step", {{0, 1, 2}, {{6}, {23}, {30}}}, {}},
    {"ForkAndAppend",
     "branch",
     {{0, 2, 3}, {{6, 7, 8}, {31, 32, 33}, {41}}},
     {{0, 0}, {2, 3}, {6, 5}}}};

struct Kind {
  const char *name;
  llm_code code;
  std::optional<Resource> resource; ///< none: operator new
};

const Kind kinds[] = {
    {"Blocks", LLM_OUT_OF_BLOCKS, Resource::Blocks},
    {"Workspace", LLM_OUT_OF_MEMORY, Resource::Workspace},
    {"Host", LLM_OUT_OF_MEMORY, std::nullopt},
};

/// A context, a model and a cache of their own.
class Subject {
public:
  Subject(const CompiledProgram &program, const Scenario &scenario)
      : scenario(scenario), batch(scenario.batch.ids),
        cuSeqlens(scenario.batch.cuSeqlens()),
        k(rowsOf(config, scenario.batch.flat(), 0, 0)),
        v(rowsOf(config, scenario.batch.flat(), 0, 1)),
        q(LLM_F32, {k.sizes[0], 4, 4}), out(q) {
    for (int64_t i = 0; i < q.count; ++i)
      q.set(i, static_cast<float>(i % 7) / 8);
    EXPECT_EQ(llm_context_create(1, &context, nullptr), LLM_OK);
    EXPECT_EQ(llm_model_create(context, &program.descriptor(), &model, nullptr),
              LLM_OK);
    EXPECT_EQ(llm_kv_create(context, &config, &cache, nullptr), LLM_OK);
    EXPECT_TRUE(
        appendAll(*cache->host->version, {{0, 1}, {range(0, 6), range(20, 3)}})
            .ok());
    inputs = {batch, cuSeqlens, k, v, q};
    fork.reserve(scenario.fork.size());
    for (const auto &values : scenario.fork)
      inputs.push_back(fork.emplace_back(values));
  }
  ~Subject() {
    llm_kv_destroy(cache);
    llm_model_destroy(model);
    llm_context_destroy(context);
  }
  Subject(const Subject &) = delete;

  void arm(const Kind &kind, int64_t before) {
    if (kind.resource)
      context->faults->arm(*kind.resource, before);
    else
      allocationsLeft = before;
  }

  /// Runs the entry with a fault before allocation `before` of a kind.
  llm_code invoke(const Kind &kind, int64_t before) {
    error = LLM_ERROR_INIT;
    arm(kind, before);
    const llm_code code =
        llm_model_invoke(model, scenario.entry, &cache, 1, inputs.data(),
                         static_cast<int32_t>(inputs.size()), &out, 1, &error);
    arm(kind, -1);
    return code;
  }
  llm_code invoke() { return invoke(kinds[0], -1); }

  const Scenario &scenario;
  const llm_kv_config config = configOf(2, 4, 32, 4, 64);
  Tensor batch, cuSeqlens, k, v, q, out;
  std::vector<Tensor> fork;
  std::vector<llm_tensor> inputs;
  llm_context *context = nullptr;
  llm_model *model = nullptr;
  llm_kv_cache *cache = nullptr;
  llm_error error = LLM_ERROR_INIT;
};

class FaultTest : public ::testing::TestWithParam<Kind> {
protected:
  static void SetUpTestSuite() { program = new CompiledProgram(text); }
  static void TearDownTestSuite() { delete std::exchange(program, nullptr); }

  /// The error names its op, unless it struck before the entry began.
  void expectPlace(const Subject &subject) {
    const llm_error &error = subject.error;
    EXPECT_EQ(error.code, GetParam().code) << error.message;
    EXPECT_NE(error.expected, error.actual) << error.message;
    EXPECT_STRNE(error.message, "");
    if (!error.op) {
      EXPECT_FALSE(GetParam().resource);
      EXPECT_EQ(placed, 0) << "after the entry has begun";
      return;
    }
    ++placed;
    EXPECT_STREQ(error.file, "test.mlir");
    EXPECT_GT(error.line, 0);
    EXPECT_GT(error.column, 0);
  }

  void sweep(const Scenario &scenario) {
    SCOPED_TRACE(scenario.name);
    Subject whole(*program, scenario);
    const uint64_t before = Digest::of(whole.cache);
    ASSERT_EQ(whole.invoke(), LLM_OK) << whole.error.message;
    const uint64_t after = Digest::renamed(whole.cache);
    placed = 0;
    for (int64_t k = 0;; ++k) {
      Subject subject(*program, scenario);
      ASSERT_EQ(Digest::of(subject.cache), before);
      const llm_code code = subject.invoke(GetParam(), k);
      if (code == LLM_OK)
        break;
      SCOPED_TRACE(k);
      expectPlace(subject);
      EXPECT_EQ(llm_kv_check(subject.cache, nullptr), LLM_OK);
      EXPECT_EQ(Digest::of(subject.cache), before);
      ASSERT_EQ(subject.invoke(), LLM_OK) << subject.error.message;
      EXPECT_EQ(Digest::renamed(subject.cache), after);
      EXPECT_EQ(subject.out.bytes, whole.out.bytes);
      if (HasFailure())
        return;
    }
    EXPECT_GT(placed, 0) << "no fault struck";
    RecordProperty(scenario.name, std::to_string(placed));
  }

  static inline CompiledProgram *program = nullptr;
  int64_t placed = 0; ///< faults that struck inside the entry
};

} // namespace

TEST_P(FaultTest, EveryAllocationOfACompiledStep) {
  for (const Scenario &scenario : scenarios)
    sweep(scenario);
}

INSTANTIATE_TEST_SUITE_P(, FaultTest, ::testing::ValuesIn(kinds),
                         [](const auto &info) { return info.param.name; });

TEST(DeviceFaults, EveryKernelOfACompiledStep) {
  CompiledProgram program(text);
  const Kind kernel = {"Kernel", LLM_DEVICE, Resource::Kernel};
  for (int64_t k = 0; k < 4; ++k) {
    Subject subject(program, scenarios[1]);
    const uint64_t before = Digest::of(subject.cache);
    EXPECT_EQ(subject.invoke(kernel, k), LLM_DEVICE);
    EXPECT_STREQ(subject.error.op,
                 k % 2 ? "llm.paged_attention" : "llm.append_kv");
    EXPECT_EQ(subject.error.layer, k / 2);
    EXPECT_GT(subject.error.line, 0);
    EXPECT_EQ(Digest::of(subject.cache), before);
    EXPECT_EQ(subject.invoke(), LLM_DEVICE) << "poisoned";
    llm_kv_stats stats;
    EXPECT_EQ(llm_kv_get_stats(subject.cache, &stats, nullptr), LLM_OK);
    EXPECT_EQ(stats.pending_blocks, 0);
  }
}

TEST(Cancel, EndlessLoopEnds) {
  CompiledProgram program(text);
  HostCache cache(program, configOf(1, 4, 4, 4, 64));
  std::thread host([&] {
    llm_kv_stats stats;
    while (llm_kv_get_stats(cache, &stats, nullptr) != LLM_BUSY)
      std::this_thread::yield();
    EXPECT_EQ(llm_kv_cancel(cache, 1, nullptr), LLM_OK);
  });
  const Tensor ids(std::vector<int32_t>{0}), k(LLM_F32, {1, 1, 2, 4});
  EXPECT_EQ(program.invoke("forever", {cache}, {ids, k}), LLM_CANCELLED);
  host.join();
  EXPECT_STREQ(program.error.message, "cancelled by the host");
  EXPECT_NE(program.error.op, nullptr);
  EXPECT_EQ(cache.length(0), 0);
  EXPECT_EQ(llm_kv_cancel(cache, 0, nullptr), LLM_OK);
}
