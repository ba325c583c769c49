//===- Parallel.cpp - Loops over threads ----------------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A loop is a counter of ranges that threads draw from until it is exhausted:
// uneven ranges (causal tiles, ragged batches) balance themselves. The calling
// thread draws too, so a loop finishes even if no other thread can help.
//
//===----------------------------------------------------------------------===//

#include "../Parallel.h"

#include <algorithm>
#include <atomic>
#include <thread>

#if defined(LLM_OPENMP)
#include <omp.h>
#else
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <vector>
#endif

using namespace llm;

namespace {

std::atomic<int32_t> requestedThreads{0};

/// This thread is inside a loop: loops within it are its own.
thread_local bool insideLoop = false;

struct Loop {
  int64_t n;
  int64_t grain;
  detail::LoopBody body;
  void *context;
  std::atomic<int64_t> next{0};

  void drain() {
    bool outer = insideLoop;
    insideLoop = true;
    for (int64_t begin; (begin = next.fetch_add(grain)) < n;)
      body(context, begin, std::min(begin + grain, n));
    insideLoop = outer;
  }
};

#if defined(LLM_OPENMP)

void run(Loop &loop, int32_t threads) {
#pragma omp parallel num_threads(threads)
  loop.drain();
}

#else

/// Threads that sleep until there is a loop. One loop at a time has their help;
/// a caller that finds them taken does its loop alone.
class Pool {
public:
  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex);
      stopping = true;
    }
    wake.notify_all();
    for (std::thread &worker : workers)
      worker.join();
  }

  void run(Loop &loop, int32_t threads) {
    std::unique_lock<std::mutex> turn(callers, std::try_to_lock);
    if (!turn.owns_lock())
      return loop.drain();
    offer(loop, threads - 1);
    loop.drain();
    retract();
  }

private:
  void offer(Loop &loop, int32_t helpers) {
    std::lock_guard<std::mutex> lock(mutex);
    grow(helpers);
    current = &loop;
    places = helpers;
    wake.notify_all();
  }

  /// Nobody joins the loop any more, and those who did have left it.
  void retract() {
    std::unique_lock<std::mutex> lock(mutex);
    current = nullptr;
    left.wait(lock, [&] { return helping == 0; });
  }

  /// A thread that the system refuses is a thread less.
  void grow(int32_t count) {
    try {
      while (static_cast<int32_t>(workers.size()) < count)
        workers.emplace_back([this] { work(); });
    } catch (const std::exception &) {
    }
  }

  void work() {
    std::unique_lock<std::mutex> lock(mutex);
    for (;;) {
      wake.wait(lock, [&] { return stopping || (current && places > 0); });
      if (stopping)
        return;
      Loop &loop = *current;
      --places;
      ++helping;
      lock.unlock();
      loop.drain();
      lock.lock();
      if (--helping == 0)
        left.notify_one();
    }
  }

  std::mutex callers; ///< held by the caller whose loop the pool runs
  std::mutex mutex;   ///< guards what follows
  std::condition_variable wake, left;
  std::vector<std::thread> workers;
  Loop *current = nullptr;
  int32_t places = 0;  ///< workers that may still join the loop
  int32_t helping = 0; ///< workers in the loop
  bool stopping = false;
};

void run(Loop &loop, int32_t threads) {
  static Pool pool;
  pool.run(loop, threads);
}

#endif

} // namespace

int32_t llm::numThreads() {
  int32_t requested = requestedThreads.load(std::memory_order_relaxed);
  if (requested > 0)
    return requested;
  static const unsigned cores = std::thread::hardware_concurrency();
  return std::max<int32_t>(1, static_cast<int32_t>(cores));
}

void llm::setNumThreads(int32_t n) {
  requestedThreads.store(std::max(n, 0), std::memory_order_relaxed);
#if defined(LLM_OPENMP)
  omp_set_num_threads(numThreads()); // for the loops of compiled code
#endif
}

void llm::detail::parallelFor(int64_t n, int64_t grain, LoopBody body,
                              void *context) {
  if (n <= 0)
    return;
  Loop loop{n, std::max<int64_t>(grain, 1), body, context};
  int64_t ranges = (n - 1) / loop.grain + 1;
  int64_t threads = std::min<int64_t>(numThreads(), ranges);
  if (threads == 1 || insideLoop)
    return loop.drain();
  run(loop, static_cast<int32_t>(threads));
}
