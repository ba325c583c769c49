//===- ParallelTest.cpp - Loops over threads ----------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Parallel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

using namespace llm;

namespace {

struct ParallelTest : testing::Test {
  void TearDown() override { setNumThreads(0); }
};

/// How often each index of [0, n) was visited.
std::vector<int> visits(int64_t n, int64_t grain) {
  std::vector<std::atomic<int>> counts(n);
  parallelFor(n, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      ++counts[i];
  });
  return {counts.begin(), counts.end()};
}

TEST_F(ParallelTest, VisitsEveryIndexOnce) {
  for (int32_t threads : {1, 2, 7}) {
    setNumThreads(threads);
    for (int64_t n : {0, 1, 2, 9, 1000})
      for (int64_t grain : {0, 1, 3, 999, 5000})
        EXPECT_EQ(visits(n, grain), std::vector<int>(n, 1))
            << n << " by " << grain << " on " << threads;
  }
}

TEST_F(ParallelTest, RangesHaveTheGrain) {
  setNumThreads(3);
  parallelFor(100, 7, [&](int64_t begin, int64_t end) {
    EXPECT_EQ(begin % 7, 0);
    EXPECT_EQ(end, std::min<int64_t>(begin + 7, 100));
  });
}

TEST_F(ParallelTest, UsesSeveralThreads) {
  setNumThreads(2);
  std::atomic<int> waiting{0};
  std::atomic<int> met{0};
  auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  // Each range waits for the other, which one thread alone would not meet.
  parallelFor(2, 1, [&](int64_t, int64_t) {
    ++waiting;
    while (waiting < 2 && std::chrono::steady_clock::now() < deadline)
      std::this_thread::yield();
    met += waiting == 2;
  });
  EXPECT_EQ(met, 2);
}

TEST_F(ParallelTest, OneThreadIsTheCaller) {
  setNumThreads(1);
  std::thread::id caller = std::this_thread::get_id();
  parallelFor(10, 1, [&](int64_t, int64_t) {
    EXPECT_EQ(std::this_thread::get_id(), caller);
  });
}

TEST_F(ParallelTest, NestedLoopsStayOnTheirThread) {
  setNumThreads(4);
  std::atomic<int64_t> sum{0};
  parallelFor(8, 1, [&](int64_t outer, int64_t) {
    std::thread::id thread = std::this_thread::get_id();
    parallelFor(100, 1, [&](int64_t inner, int64_t) {
      EXPECT_EQ(std::this_thread::get_id(), thread);
      sum += outer * 100 + inner;
    });
  });
  EXPECT_EQ(sum, 799 * 800 / 2);
}

TEST_F(ParallelTest, HostThreadsCallAtTheSameTime) {
  setNumThreads(3);
  std::vector<std::thread> hosts;
  std::vector<int64_t> sums(6);
  for (int64_t &sum : sums)
    hosts.emplace_back([&sum] {
      for (int round = 0; round < 200; ++round) {
        std::atomic<int64_t> part{0};
        parallelFor(50, 3, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i)
            part += i;
        });
        sum += part;
      }
    });
  for (std::thread &host : hosts)
    host.join();
  for (int64_t sum : sums)
    EXPECT_EQ(sum, 200 * 49 * 50 / 2);
}

TEST_F(ParallelTest, WritesAreVisibleAfterTheLoop) {
  setNumThreads(4);
  std::vector<int64_t> plain(10000);
  for (int round = 1; round <= 50; ++round) {
    parallelFor(plain.size(), 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        plain[i] += i;
    });
    EXPECT_EQ(std::accumulate(plain.begin(), plain.end(), int64_t(0)),
              round * int64_t(9999) * 10000 / 2);
  }
}

TEST_F(ParallelTest, NumberOfThreads) {
  setNumThreads(5);
  EXPECT_EQ(numThreads(), 5);
  setNumThreads(0);
  EXPECT_GE(numThreads(), 1);
  setNumThreads(-3);
  EXPECT_GE(numThreads(), 1);
}

} // namespace
