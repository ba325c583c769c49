//===- FreshTest.cpp - Entries that make caches for their host ------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "CompiledProgram.h"

using namespace llm::testing;

static const char text[] = R"mlir(
!kv = !llm.paged_kv_cache<1x2x4xf32>
!own = !llm.paged_kv_cache<1x2x4xf32, block_size = 4, max_seq_len = 64,
                           max_sequences = 4>
!row = tensor<1x1x2x4xf32>
!one = tensor<1xi32>

func.func @make(%k: !row, %v: !row) -> !own {
  %blocks = arith.constant 16 : index
  %c = llm.create_kv_cache blocks(%blocks) : !own
  %c1 = llm.append_kv %c, %k, %v : !own, !row, !row -> !own
  return %c1 : !own
}

func.func @branch_off(%c: !kv, %k: !row, %v: !row) -> (!kv, !kv) {
  %c1 = llm.append_kv %c, %k, %v : !kv, !row, !row -> !kv
  return %c, %c1 : !kv, !kv
}

func.func @copy(%c: !kv) -> (!kv {llm.fresh}) {
  return %c : !kv
}

// Which version is whose depends on the flag.
func.func @either(%c: !kv, %flag: !one, %k: !row, %v: !row) -> (!kv, !kv) {
  %i = arith.constant 0 : index
  %zero = arith.constant 0 : i32
  %number = tensor.extract %flag[%i] : !one
  %p = arith.cmpi ne, %number, %zero : i32
  %c1 = llm.append_kv %c, %k, %v : !kv, !row, !row -> !kv
  %x = arith.select %p, %c, %c1 : !kv
  %y = arith.select %p, %c1, %c : !kv
  return %x, %y : !kv, !kv
}

func.func @make_then_trim(%c: !kv, %length: !one, %k: !row, %v: !row)
    -> (!kv, !kv) {
  %ids = arith.constant dense<0> : !one
  %c1 = llm.append_kv %c, %k, %v : !kv, !row, !row -> !kv
  %c2 = llm.append_kv %c, %v, %k : !kv, !row, !row -> !kv
  %c3 = llm.trim_kv %c2, %ids, %length : !kv, !one, !one -> !kv
  return %c1, %c3 : !kv, !kv
}
)mlir";

namespace {

class FreshTest : public ::testing::Test {
protected:
  FreshTest() : cache(program, configOf(1, 4, 16, 4, 64)) {
    cache.append(0, {100, 101, 102});
  }

  static Tensor row(int64_t token, int64_t component) {
    Tensor flat = rowsOf(configOf(1, 4, 16), {token}, 0, component);
    Tensor row(LLM_F32, {1, 1, 2, 4});
    std::memcpy(row.data, flat.data, row.count * sizeof(float));
    return row;
  }
  static Tensor number(int32_t value) { return Tensor(std::vector{value}); }

  CompiledProgram program{text};
  HostCache cache;
};

} // namespace

TEST_F(FreshTest, ACacheOfTheCallBecomesTheHosts) {
  ASSERT_TRUE(program.runs("make", {nullptr}, {row(7, 0), row(7, 1)}));
  const HostCache made(program.lastCaches[0]);
  EXPECT_TRUE(made.holds(0, {7}));
  made.append(1, {8, 9});
  EXPECT_TRUE(made.holds(1, {8, 9}));
}

TEST_F(FreshTest, ABranchLivesBesideItsOrigin) {
  ASSERT_TRUE(
      program.runs("branch_off", {cache, nullptr}, {row(7, 0), row(7, 1)}));
  cache.versions = 2;
  {
    HostCache made(program.lastCaches[1]);
    made.versions = 2;
    EXPECT_TRUE(cache.holds(0, {100, 101, 102}));
    EXPECT_TRUE(made.holds(0, {100, 101, 102, 7}));
    cache.append(0, {8});
    EXPECT_TRUE(made.holds(0, {100, 101, 102, 7}));
    EXPECT_TRUE(cache.holds(0, {100, 101, 102, 8}));
  }
  cache.versions = 1;
}

TEST_F(FreshTest, ABorrowedCacheIsCopied) {
  ASSERT_TRUE(program.runs("copy", {cache, nullptr}));
  cache.versions = 2;
  {
    HostCache made(program.lastCaches[1]);
    made.versions = 2;
    made.release(0);
    EXPECT_TRUE(made.holds(0, {}));
    EXPECT_TRUE(cache.holds(0, {100, 101, 102}));
  }
  cache.versions = 1;
}

TEST_F(FreshTest, EitherVersionMayBeTheNewOne) {
  for (int32_t flag : {1, 0}) {
    HostCache host(program, cache.config);
    host.append(0, {100});
    ASSERT_TRUE(program.runs("either", {host, nullptr},
                             {number(flag), row(7, 0), row(7, 1)}));
    host.versions = 2;
    {
      HostCache made(program.lastCaches[1]);
      made.versions = 2;
      EXPECT_TRUE((flag ? host : made).holds(0, {100}));
      EXPECT_TRUE((flag ? made : host).holds(0, {100, 7}));
    }
    host.versions = 1;
  }
}

TEST_F(FreshTest, AFailingCallMakesNothing) {
  EXPECT_EQ(program.invoke("make_then_trim", {cache, nullptr},
                           {number(9), row(7, 0), row(7, 1)}),
            LLM_INVALID_ARGUMENT);
  EXPECT_STREQ(program.error.message,
               "expected at most the 4 tokens of sequence 0, got 9");
  EXPECT_EQ(program.lastCaches[1], nullptr);
  EXPECT_TRUE(cache.holds(0, {100, 101, 102}));
  EXPECT_EQ(cache.stats().live_blocks, 1);
}

TEST_F(FreshTest, ItsPlaceMustBeNull) {
  EXPECT_EQ(program.invoke("copy", {cache, cache}), LLM_INVALID_ARGUMENT);
  EXPECT_STREQ(program.error.message,
               "expected null for cache 1, which entry copy makes");
}
