//===- ValuesTest.cpp - A cache is a value under all control flow ---------===//
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
!row = tensor<1x1x2x4xf32>
!rows = tensor<?x2x4xf32>
!dense = tensor<1x8x2x4xf32>
!flag = tensor<1xi32>
!stats = tensor<12xi64>

//===--- Old versions ---===//

func.func @two_futures(%c: !kv, %k: !row, %v: !row, %k2: !row, %v2: !row)
    -> (!kv, !dense, !dense, !dense) {
  %c1 = llm.append_kv %c, %k, %v : !kv, !row, !row -> !kv
  %c2 = llm.append_kv %c, %k2, %v2 : !kv, !row, !row -> !kv
  %k_old, %v_old = llm.lookup_kv %c : !kv -> !dense, !dense
  %k_1, %v_1 = llm.lookup_kv %c1 : !kv -> !dense, !dense
  %k_2, %v_2 = llm.lookup_kv %c2 : !kv -> !dense, !dense
  return %c1, %k_old, %k_1, %k_2 : !kv, !dense, !dense, !dense
}

func.func @read_behind(%c: !kv, %k: !row, %v: !row) -> (!kv, !dense, !dense) {
  %c1 = llm.append_kv %c, %k, %v : !kv, !row, !row -> !kv
  %k_old, %v_old = llm.lookup_kv %c : !kv -> !dense, !dense
  %k_new, %v_new = llm.lookup_kv %c1 : !kv -> !dense, !dense
  return %c1, %k_old, %k_new : !kv, !dense, !dense
}

// What the new version says decides what is read of the old one.
func.func @read_after(%c: !kv, %k: !row, %v: !row, %ids: !flag)
    -> (!kv, !flag) {
  %c1 = llm.append_kv %c, %k, %v : !kv, !row, !row -> !kv
  %empty = llm.seq_lens %c1, %ids : !kv, !flag -> !flag
  %old = llm.seq_lens %c, %empty : !kv, !flag -> !flag
  return %c1, %old : !kv, !flag
}

func.func @unused_future(%c: !kv, %k: !row, %v: !row) -> (!kv, !stats) {
  %c1 = llm.append_kv %c, %k, %v : !kv, !row, !row -> !kv
  %stats = llm.kv_stats %c : !kv -> !stats
  return %c, %stats : !kv, !stats
}

func.func @explicit_copy(%c: !kv, %k: !row, %v: !row)
    -> (!kv, !dense, !stats) {
  %copy = llm.snapshot_kv %c : !kv
  %c1 = llm.append_kv %c, %k, %v : !kv, !row, !row -> !kv
  %k_old, %v_old = llm.lookup_kv %copy : !kv -> !dense, !dense
  %stats = llm.kv_stats %c1 : !kv -> !stats
  return %c1, %k_old, %stats : !kv, !dense, !stats
}

//===--- Branches ---===//

func.func @one_branch(%c: !kv, %flag: !flag, %k: !row, %v: !row) -> !kv {
  %i = arith.constant 0 : index
  %zero = arith.constant 0 : i32
  %number = tensor.extract %flag[%i] : !flag
  %taken = arith.cmpi ne, %number, %zero : i32
  %r = scf.if %taken -> !kv {
    %c1 = llm.append_kv %c, %k, %v : !kv, !row, !row -> !kv
    scf.yield %c1 : !kv
  } else {
    scf.yield %c : !kv
  }
  return %r : !kv
}

// The branch makes a version that nobody uses outside.
func.func @side_branch(%c: !kv, %flag: !flag, %k: !row, %v: !row)
    -> (!kv, !dense, !dense) {
  %i = arith.constant 0 : index
  %zero = arith.constant 0 : i32
  %number = tensor.extract %flag[%i] : !flag
  %taken = arith.cmpi ne, %number, %zero : i32
  %seen = scf.if %taken -> !dense {
    %c1 = llm.append_kv %c, %k, %v : !kv, !row, !row -> !kv
    %k_1, %v_1 = llm.lookup_kv %c1 : !kv -> !dense, !dense
    scf.yield %k_1 : !dense
  } else {
    %k_0, %v_0 = llm.lookup_kv %c : !kv -> !dense, !dense
    scf.yield %v_0 : !dense
  }
  %k_old, %v_old = llm.lookup_kv %c : !kv -> !dense, !dense
  return %c, %seen, %k_old : !kv, !dense, !dense
}

func.func @select(%c: !kv, %flag: !flag, %k: !row, %v: !row) -> !kv {
  %i = arith.constant 0 : index
  %zero = arith.constant 0 : i32
  %number = tensor.extract %flag[%i] : !flag
  %taken = arith.cmpi ne, %number, %zero : i32
  %c1 = llm.append_kv %c, %k, %v : !kv, !row, !row -> !kv
  %r = arith.select %taken, %c1, %c : !kv
  return %r : !kv
}

func.func @poison(%c: !kv, %flag: !flag, %k: !row, %v: !row) -> !kv {
  %i = arith.constant 0 : index
  %zero = arith.constant 0 : i32
  %number = tensor.extract %flag[%i] : !flag
  %taken = arith.cmpi ne, %number, %zero : i32
  %maybe = scf.if %taken -> !kv {
    %c1 = llm.append_kv %c, %k, %v : !kv, !row, !row -> !kv
    scf.yield %c1 : !kv
  } else {
    %none = ub.poison : !kv
    scf.yield %none : !kv
  }
  %r = scf.if %taken -> !kv {
    %c2 = llm.append_kv %maybe, %v, %k : !kv, !row, !row -> !kv
    scf.yield %c2 : !kv
  } else {
    %c3 = llm.append_kv %c, %v, %k : !kv, !row, !row -> !kv
    scf.yield %c3 : !kv
  }
  return %r : !kv
}

//===--- Loops ---===//

func.func @decode(%c: !kv, %k: !rows, %v: !rows) -> (!kv, !stats) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %ids = arith.constant dense<0> : tensor<1xi32>
  %cu = arith.constant dense<[0, 1]> : tensor<2xi32>
  %n = tensor.dim %k, %zero : !rows
  %r = scf.for %i = %zero to %n step %one iter_args(%ci = %c) -> !kv {
    %ki = tensor.extract_slice %k[%i, 0, 0] [1, 2, 4] [1, 1, 1]
        : !rows to tensor<1x2x4xf32>
    %vi = tensor.extract_slice %v[%i, 0, 0] [1, 2, 4] [1, 1, 1]
        : !rows to tensor<1x2x4xf32>
    %begun, %step = llm.begin_step %ci, %ids, %cu
        : !kv, tensor<1xi32>, tensor<2xi32> -> !kv
    %at = llm.at_layer %step[%zero]
    %next = llm.append_kv %begun, %ki, %vi at %at
        : !kv, tensor<1x2x4xf32>, tensor<1x2x4xf32> -> !kv
    scf.yield %next : !kv
  }
  %stats = llm.kv_stats %r : !kv -> !stats
  return %r, %stats : !kv, !stats
}

// Each turn branches off the version from outside.
func.func @branching_loop(%c: !kv, %n: !flag, %k: !row, %v: !row)
    -> (!kv, !dense, !stats) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %number = tensor.extract %n[%zero] : !flag
  %end = arith.index_cast %number : i32 to index
  %empty = arith.constant dense<0.0> : !dense
  %none = arith.constant dense<0> : !stats
  %last:2 = scf.for %i = %zero to %end step %one
      iter_args(%seen = %empty, %stats = %none) -> (!dense, !stats) {
    %c1 = llm.append_kv %c, %k, %v : !kv, !row, !row -> !kv
    %c2 = llm.append_kv %c1, %k, %v : !kv, !row, !row -> !kv
    %k_2, %v_2 = llm.lookup_kv %c2 : !kv -> !dense, !dense
    %now = llm.kv_stats %c2 : !kv -> !stats
    scf.yield %k_2, %now : !dense, !stats
  }
  return %c, %last#0, %last#1 : !kv, !dense, !stats
}

// Two versions change places in each turn; one grows.
func.func @swapping_loop(%a: !kv, %b: !kv, %n: !flag, %k: !row, %v: !row)
    -> (!kv, !kv, !stats) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %number = tensor.extract %n[%zero] : !flag
  %end = arith.index_cast %number : i32 to index
  %r:2 = scf.for %i = %zero to %end step %one iter_args(%x = %a, %y = %b)
      -> (!kv, !kv) {
    %x1 = llm.append_kv %x, %k, %v : !kv, !row, !row -> !kv
    scf.yield %y, %x1 : !kv, !kv
  }
  %stats = llm.kv_stats %r#0 : !kv -> !stats
  return %r#0, %r#1, %stats : !kv, !kv, !stats
}

// The inner loop starts from the outer turn's version each time.
func.func @nested_loops(%c: !kv, %n: !flag, %k: !row, %v: !row)
    -> (!kv, !dense, !stats) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %two = arith.constant 2 : index
  %number = tensor.extract %n[%zero] : !flag
  %end = arith.index_cast %number : i32 to index
  %empty = arith.constant dense<0.0> : !dense
  %r:2 = scf.for %i = %zero to %end step %one
      iter_args(%x = %c, %seen = %empty) -> (!kv, !dense) {
    %side = scf.for %j = %zero to %two step %one iter_args(%y = %x) -> !kv {
      %y1 = func.call @consume(%y, %v, %k) : (!kv, !row, !row) -> !kv
      scf.yield %y1 : !kv
    }
    %x1 = func.call @consume(%x, %k, %v) : (!kv, !row, !row) -> !kv
    %of_side = func.call @borrow(%side) : (!kv) -> !dense
    scf.yield %x1, %of_side : !kv, !dense
  }
  %stats = llm.kv_stats %r#0 : !kv -> !stats
  return %r#0, %r#1, %stats : !kv, !dense, !stats
}

//===--- Functions ---===//

func.func private @consume(%c: !kv, %k: !row, %v: !row) -> !kv {
  %c1 = llm.append_kv %c, %k, %v : !kv, !row, !row -> !kv
  return %c1 : !kv
}

func.func private @borrow(%c: !kv) -> !dense {
  %k, %v = llm.lookup_kv %c : !kv -> !dense, !dense
  return %k : !dense
}

func.func @calls(%c: !kv, %k: !row, %v: !row) -> (!kv, !dense, !dense, !stats) {
  %before = func.call @borrow(%c) : (!kv) -> !dense
  %c1 = func.call @consume(%c, %k, %v) : (!kv, !row, !row) -> !kv
  %c2 = func.call @consume(%c1, %k, %v) : (!kv, !row, !row) -> !kv
  %after = func.call @borrow(%c2) : (!kv) -> !dense
  %stats = llm.kv_stats %c2 : !kv -> !stats
  return %c2, %before, %after, %stats : !kv, !dense, !dense, !stats
}

func.func @call_twice(%c: !kv, %k: !row, %v: !row) -> (!kv, !dense) {
  %c1 = func.call @consume(%c, %k, %v) : (!kv, !row, !row) -> !kv
  %other = func.call @consume(%c, %v, %k) : (!kv, !row, !row) -> !kv
  %seen = func.call @borrow(%other) : (!kv) -> !dense
  return %c1, %seen : !kv, !dense
}

func.func @borrowed(%c: !kv, %k: !row, %v: !row) -> !dense {
  %c1 = llm.append_kv %c, %k, %v : !kv, !row, !row -> !kv
  %seen = func.call @borrow(%c1) : (!kv) -> !dense
  return %seen : !dense
}

//===--- Two caches of the host ---===//

func.func @swap(%a: !kv, %b: !kv) -> (!kv, !kv) {
  return %b, %a : !kv, !kv
}

func.func @swap_tied(%a: !kv, %b: !kv, %k: !row, %v: !row)
    -> (!kv {llm.tied = 1 : i64}, !kv {llm.tied = 0 : i64}) {
  %a1 = llm.append_kv %a, %k, %v : !kv, !row, !row -> !kv
  return %a1, %b : !kv, !kv
}

func.func @copy_over(%a: !kv, %b: !kv) -> (!kv, !kv) {
  %copy = llm.snapshot_kv %a : !kv
  return %a, %copy : !kv, !kv
}

//===--- Tensors beside caches ---===//

func.func private @twice(%a: !flag) -> (!flag, !flag) {
  return %a, %a : !flag, !flag
}

func.func private @zero() -> !flag {
  %zero = arith.constant dense<0> : !flag
  return %zero : !flag
}

// Writes into one of two results, and into one of two constants.
func.func @write_results(%n: !flag, %value: !flag)
    -> (!flag, !flag, !flag, !flag) {
  %at = arith.constant 0 : index
  %new = tensor.extract %value[%at] : !flag
  %r:2 = func.call @twice(%n) : (!flag) -> (!flag, !flag)
  %written = tensor.insert %new into %r#0[%at] : !flag
  %z = func.call @zero() : () -> !flag
  %z_written = tensor.insert %new into %z[%at] : !flag
  %z_again = func.call @zero() : () -> !flag
  return %written, %r#1, %z_written, %z_again : !flag, !flag, !flag, !flag
}
)mlir";

namespace {

class ValuesTest : public ::testing::Test {
protected:
  ValuesTest() : cache(program, config) { cache.append(0, kept); }

  static Tensor row(int64_t token, int64_t component) {
    Tensor flat = rowsOf(configOf(1, 4, 16), {token}, 0, component);
    Tensor row(LLM_F32, {1, 1, 2, 4});
    std::memcpy(row.data, flat.data, row.count * sizeof(float));
    return row;
  }

  ::testing::AssertionResult showsKeys(Tensor &dense,
                                       const std::vector<int64_t> &tokens) {
    return holdsTokens(dense, 8, tokens, config, 0, 0);
  }

  std::vector<int64_t> keptAnd(const std::vector<int64_t> &more) const {
    std::vector<int64_t> all = kept;
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }

  static Tensor number(int32_t value) { return Tensor(std::vector{value}); }

  /// Runs an entry of a flag and a row both ways.
  void branches(const char *entry, const std::vector<int64_t> &taken,
                const std::vector<int64_t> &other) {
    for (int32_t flag : {0, 1}) {
      HostCache fresh(program, config);
      fresh.append(0, kept);
      ASSERT_TRUE(
          program.runs(entry, {fresh}, {number(flag), row(7, 0), row(7, 1)}));
      EXPECT_TRUE(fresh.holds(0, keptAnd(flag ? taken : other)));
    }
  }

  static int64_t versions(Tensor &stats) { return stats.as<int64_t>()[6]; }
  static int64_t snapshots(Tensor &stats) { return stats.as<int64_t>()[7]; }

  const llm_kv_config config = configOf(1, 4, 16, 4, 64);
  const std::vector<int64_t> kept = {100, 101, 102};
  CompiledProgram program{text};
  HostCache cache;
  Tensor dense{LLM_F32, {1, 8, 2, 4}}, dense2 = dense, dense3 = dense;
  Tensor stats{LLM_I64, {12}};
};

} // namespace

//===----------------------------------------------------------------------===//
// Old versions
//===----------------------------------------------------------------------===//

TEST_F(ValuesTest, TwoFuturesOfOneVersionAreIndependent) {
  ASSERT_TRUE(program.runs("two_futures", {cache},
                           {row(1, 0), row(1, 1), row(2, 0), row(2, 1)},
                           {dense, dense2, dense3}));
  EXPECT_TRUE(showsKeys(dense, kept));
  EXPECT_TRUE(showsKeys(dense2, keptAnd({1})));
  EXPECT_TRUE(showsKeys(dense3, keptAnd({2})));
  EXPECT_TRUE(cache.holds(0, keptAnd({1})));
  EXPECT_EQ(cache.stats().snapshots, 1);
}

TEST_F(ValuesTest, ReadOfTheOldVersionMovesBeforeItsConsumer) {
  ASSERT_TRUE(program.runs("read_behind", {cache}, {row(1, 0), row(1, 1)},
                           {dense, dense2}));
  EXPECT_TRUE(showsKeys(dense, kept));
  EXPECT_TRUE(showsKeys(dense2, keptAnd({1})));
  EXPECT_TRUE(cache.holds(0, keptAnd({1})));
  EXPECT_EQ(cache.stats().snapshots, 0);
}

TEST_F(ValuesTest, ReadThatMustFollowSeesTheOldContent) {
  Tensor old(LLM_I32, {1}); // sequence 1 is empty: the ids are {0} then
  ASSERT_TRUE(program.runs("read_after", {cache},
                           {row(1, 0), row(1, 1), number(1)}, {old}));
  EXPECT_EQ(old.as<int32_t>()[0], 3);
  EXPECT_TRUE(cache.holds(0, keptAnd({1})));
  EXPECT_EQ(cache.stats().snapshots, 1);
}

TEST_F(ValuesTest, UnusedFutureLeavesNoTrace) {
  ASSERT_TRUE(
      program.runs("unused_future", {cache}, {row(1, 0), row(1, 1)}, {stats}));
  EXPECT_EQ(versions(stats), 1);
  EXPECT_TRUE(cache.holds(0, kept));
}

TEST_F(ValuesTest, ExplicitCopyKeepsTheOldContent) {
  ASSERT_TRUE(program.runs("explicit_copy", {cache}, {row(1, 0), row(1, 1)},
                           {dense, stats}));
  EXPECT_TRUE(showsKeys(dense, kept));
  EXPECT_EQ(versions(stats), 1); // the copy's end is behind its last use
  EXPECT_TRUE(cache.holds(0, keptAnd({1})));
}

//===----------------------------------------------------------------------===//
// Branches
//===----------------------------------------------------------------------===//

TEST_F(ValuesTest, BranchMayConsume) { branches("one_branch", {7}, {}); }

TEST_F(ValuesTest, SelectPicksAVersion) { branches("select", {7}, {}); }

TEST_F(ValuesTest, PoisonIsNeverTouched) {
  // The second append writes V as K.
  for (int32_t flag : {0, 1}) {
    HostCache fresh(program, config);
    fresh.append(0, kept);
    ASSERT_TRUE(
        program.runs("poison", {fresh}, {number(flag), row(7, 0), row(7, 1)}));
    EXPECT_EQ(fresh.length(0), flag ? 5 : 4);
  }
}

TEST_F(ValuesTest, VersionOfABranchEndsThere) {
  for (int32_t flag : {0, 1}) {
    ASSERT_TRUE(program.runs("side_branch", {cache},
                             {number(flag), row(7, 0), row(7, 1)},
                             {dense, dense2}));
    if (flag)
      EXPECT_TRUE(showsKeys(dense, keptAnd({7})));
    else
      EXPECT_TRUE(holdsTokens(dense, 8, kept, config, 0, 1));
    EXPECT_TRUE(showsKeys(dense2, kept));
    EXPECT_TRUE(cache.holds(0, kept));
  }
}

//===----------------------------------------------------------------------===//
// Loops
//===----------------------------------------------------------------------===//

TEST_F(ValuesTest, DecodeLoopAppendsInPlace) {
  const auto tokens = range(0, 20);
  ASSERT_TRUE(program.runs(
      "decode", {cache},
      {rowsOf(config, tokens, 0, 0), rowsOf(config, tokens, 0, 1)}, {stats}));
  EXPECT_TRUE(cache.holds(0, keptAnd(tokens)));
  EXPECT_EQ(versions(stats), 1);
  EXPECT_EQ(snapshots(stats), 0);
}

TEST_F(ValuesTest, LoopOfNoTurnsReturnsTheCache) {
  ASSERT_TRUE(program.runs("decode", {cache},
                           {rowsOf(config, {}, 0, 0), rowsOf(config, {}, 0, 1)},
                           {stats}));
  EXPECT_TRUE(cache.holds(0, kept));
}

TEST_F(ValuesTest, LoopMayBranchOffAnOuterVersion) {
  ASSERT_TRUE(program.runs("branching_loop", {cache},
                           {number(3), row(1, 0), row(1, 1)}, {dense, stats}));
  EXPECT_TRUE(showsKeys(dense, keptAnd({1, 1})));
  EXPECT_TRUE(cache.holds(0, kept));
  EXPECT_EQ(versions(stats), 2); // the outer one and this turn's
  EXPECT_EQ(snapshots(stats), 3);
}

TEST_F(ValuesTest, LoopMaySwapItsVersions) {
  for (int32_t turns : {0, 1, 2, 5}) {
    HostCache a(program, config), b(program, config);
    a.append(0, kept);
    b.append(0, {50, 51});
    ASSERT_TRUE(program.runs("swapping_loop", {a, b},
                             {number(turns), row(1, 0), row(1, 1)}, {stats}));
    const std::vector<int64_t> ofA(turns - turns / 2, 1), ofB(turns / 2, 1);
    std::vector<int64_t> other = {50, 51};
    other.insert(other.end(), ofB.begin(), ofB.end());
    EXPECT_TRUE((turns % 2 ? b : a).holds(0, keptAnd(ofA)));
    EXPECT_TRUE((turns % 2 ? a : b).holds(0, other));
  }
}

TEST_F(ValuesTest, InnerLoopMayBranchOffTheOuterTurn) {
  ASSERT_TRUE(program.runs("nested_loops", {cache},
                           {number(3), row(1, 0), row(1, 1)}, {dense, stats}));
  EXPECT_TRUE(cache.holds(0, keptAnd({1, 1, 1})));
  // Two tokens kept before the last turn, then V as K, twice.
  EXPECT_TRUE(holdsTokens(dense, 5, keptAnd({1, 1}), config, 0, 0));
  EXPECT_TRUE(holdsTokens(dense, 1, {1}, config, 0, 1, 5 * 8));
  EXPECT_TRUE(holdsTokens(dense, 2, {1}, config, 0, 1, 6 * 8));
  EXPECT_EQ(versions(stats), 1);
  EXPECT_EQ(snapshots(stats), 3);
}

//===----------------------------------------------------------------------===//
// Functions
//===----------------------------------------------------------------------===//

TEST_F(ValuesTest, CalleesConsumeOrBorrow) {
  ASSERT_TRUE(program.runs("calls", {cache}, {row(1, 0), row(1, 1)},
                           {dense, dense2, stats}));
  EXPECT_TRUE(showsKeys(dense, kept));
  EXPECT_TRUE(showsKeys(dense2, keptAnd({1, 1})));
  EXPECT_TRUE(cache.holds(0, keptAnd({1, 1})));
  EXPECT_EQ(versions(stats), 1);
  EXPECT_EQ(snapshots(stats), 0);
}

TEST_F(ValuesTest, SecondConsumingCallGetsItsOwnVersion) {
  ASSERT_TRUE(
      program.runs("call_twice", {cache}, {row(1, 0), row(1, 1)}, {dense}));
  EXPECT_TRUE(cache.holds(0, keptAnd({1})));
  EXPECT_TRUE(holdsTokens(dense, 3, kept, config, 0, 0));
  EXPECT_TRUE(holdsTokens(dense, 1, {1}, config, 0, 1, 3 * 8)); // V as K
}

TEST_F(ValuesTest, BorrowedArgumentIsUnchanged) {
  const llm_kv_stats before = cache.stats();
  ASSERT_TRUE(
      program.runs("borrowed", {cache}, {row(1, 0), row(1, 1)}, {dense}));
  EXPECT_TRUE(showsKeys(dense, keptAnd({1})));
  EXPECT_TRUE(cache.holds(0, kept));
  EXPECT_EQ(cache.stats().free_blocks, before.free_blocks);
}

//===----------------------------------------------------------------------===//
// Two caches of the host
//===----------------------------------------------------------------------===//

TEST_F(ValuesTest, SwappedCachesHoldEachOthersContent) {
  HostCache other(program, config);
  other.append(2, {50, 51});
  ASSERT_TRUE(program.runs("swap", {cache, other}));
  EXPECT_TRUE(cache.holds(2, {50, 51}));
  EXPECT_EQ(cache.length(0), 0);
  EXPECT_TRUE(other.holds(0, kept));
  ASSERT_TRUE(program.runs("swap", {cache, other}));
  EXPECT_TRUE(cache.holds(0, kept));
  EXPECT_TRUE(other.holds(2, {50, 51}));
}

TEST_F(ValuesTest, OneVersionReachesBothObjects) {
  HostCache other(program, config);
  other.append(2, {50, 51});
  ASSERT_TRUE(program.runs("copy_over", {cache, other}));
  EXPECT_TRUE(cache.holds(0, kept));
  other.versions = 2; // of one pool
  // Each goes its own way from here.
  ASSERT_TRUE(program.runs("explicit_copy", {cache}, {row(1, 0), row(1, 1)},
                           {dense, stats}));
  EXPECT_TRUE(cache.holds(0, keptAnd({1})));
  EXPECT_TRUE(other.holds(0, kept));
  EXPECT_EQ(other.length(2), 0);
}

TEST_F(ValuesTest, TiesNameTheHostsObject) {
  HostCache other(program, config);
  other.append(2, {50, 51});
  ASSERT_TRUE(
      program.runs("swap_tied", {cache, other}, {row(1, 0), row(1, 1)}));
  EXPECT_TRUE(other.holds(0, keptAnd({1})));
  EXPECT_TRUE(cache.holds(2, {50, 51}));
}

TEST_F(ValuesTest, ResultsOfACallAreValuesToo) {
  Tensor n(std::vector{5}), value(std::vector{9}), none(std::vector{-1});
  Tensor results[] = {none, none, none, none};
  for (int time = 0; time < 2; ++time) {
    ASSERT_TRUE(program.runs("write_results", {}, {n, value},
                             {results[0], results[1], results[2], results[3]}));
    std::vector<int32_t> seen;
    for (const Tensor &result : results)
      seen.push_back(*static_cast<const int32_t *>(result.data));
    EXPECT_EQ(seen, (std::vector<int32_t>{9, 5, 9, 0}));
  }
}
