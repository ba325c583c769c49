//===- Timing.cpp - Times held against ceilings ---------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Timing.h"

#include "Parallel.h"

#include <algorithm>
#include <chrono>
#include <cmath>

using namespace llm;

namespace {

constexpr double kSettled = 1.2;  ///< what two probes may differ by
constexpr size_t kSlices = 5;     ///< settled ones that make a figure
constexpr size_t kMaxSlices = 12; ///< after which it is noisy
constexpr double kSliceSeconds = 0.05;
constexpr size_t kSliceCalls = 3;
constexpr double kCoresFree = 0.8; ///< of the arithmetic seen at best
constexpr size_t kMinPairs = 101;
constexpr double kPairSeconds = 1.5;    ///< for what takes long to be sure of
constexpr double kPairCertainty = 0.02; ///< the interval of a sure median
constexpr double kPairNoise = 0.04;     ///< and of a noisy one

double quantile(std::vector<double> sorted, double q) {
  std::sort(sorted.begin(), sorted.end());
  return sorted[static_cast<size_t>(q * (sorted.size() - 1))];
}

/// Between the deciles, over the median.
double spreadOf(const std::vector<double> &values) {
  return (quantile(values, 0.9) - quantile(values, 0.1)) /
         quantile(values, 0.5);
}

/// Seconds of a call on the next batch.
double timeCall(Batches &batches) {
  batches.next();
  auto begin = std::chrono::steady_clock::now();
  batches.call();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin)
      .count();
}

/// The ceilings of a case at some moment, and the time that they leave it.
struct Bounds {
  double bandwidth;
  double rate;   ///< of vector instructions
  double matrix; ///< of matrix instructions, or 0
  double floor;
  bool coresFree; ///< no other program has a core

  Bounds(double bandwidth, double rate, double matrix, bool coresFree,
         const Batches &batches)
      : bandwidth(bandwidth), rate(rate), matrix(matrix),
        floor(std::max(batches.bytes() / bandwidth,
                       batches.operations() / std::max(rate, matrix))),
        coresFree(coresFree) {}
};

/// Whether each thread multiplies about as fast as one ever did.
bool areCoresFree(double rate) {
  static double best = 0; // of one thread
  best = std::max(best, rate / numThreads());
  return rate > kCoresFree * best * numThreads();
}

Bounds probe(const Case &what, const Batches &batches) {
  bool appends = what.work == Work::Append;
  double bandwidth = llm::probe(appends ? Ceiling::Copy : Ceiling::Read);
  double rate = llm::probe(Ceiling::Fma);
  bool coresFree = areCoresFree(rate);
  if (what.format.dots != Ceiling::Fma)
    rate = std::max(rate, llm::probe(what.format.dots));
  bool pairs = what.format.dots == Ceiling::Bf16Dot;
  double matrix = pairs ? llm::probe(Ceiling::Bf16Matrix) : 0;
  return {bandwidth, rate, matrix, coresFree, batches};
}

struct Slice {
  Bounds bounds;
  std::vector<double> seconds; ///< of each call
  bool settled;

  double median() const { return quantile(seconds, 0.5); }
  double ratio() const { return bounds.floor / median(); }
};

class Row {
public:
  Row(const Case &what, bool quick) : what(what), quick(quick), batches(what) {}

  Counters run() {
    batches.call(); // threads start
    Bounds before = probe(what, batches);
    while (!done()) {
      std::vector<double> seconds = timeCalls();
      Bounds after = probe(what, batches);
      addSlice(before, after, std::move(seconds));
      before = after;
    }
    return report();
  }

private:
  size_t numSettled() const {
    return std::count_if(slices.begin(), slices.end(),
                         [](const Slice &slice) { return slice.settled; });
  }
  bool done() const {
    return quick ? !slices.empty()
                 : numSettled() >= kSlices || slices.size() >= kMaxSlices;
  }
  std::vector<double> timeCalls();
  void addSlice(const Bounds &before, const Bounds &after,
                std::vector<double> seconds);
  std::vector<Slice> slicesAround(double floor) const;
  Counters report() const;

  const Case &what;
  bool quick;
  Batches batches;
  std::vector<Slice> slices;
};

std::vector<double> Row::timeCalls() {
  std::vector<double> seconds;
  double total = 0;
  do {
    seconds.push_back(timeCall(batches));
    total += seconds.back();
  } while (!quick && (total < kSliceSeconds || seconds.size() < kSliceCalls));
  return seconds;
}

void Row::addSlice(const Bounds &before, const Bounds &after,
                   std::vector<double> seconds) {
  Bounds mean((before.bandwidth + after.bandwidth) / 2,
              (before.rate + after.rate) / 2,
              (before.matrix + after.matrix) / 2,
              before.coresFree && after.coresFree, batches);
  bool settled =
      mean.coresFree && std::max(before.floor, after.floor) <
                            kSettled * std::min(before.floor, after.floor);
  slices.push_back({mean, std::move(seconds), settled});
}

/// Settled slices (all, if there is none) whose floor is like this one, by
/// their ratios.
std::vector<Slice> Row::slicesAround(double floor) const {
  std::vector<Slice> result;
  for (const Slice &slice : slices)
    if ((slice.settled || !numSettled()) &&
        slice.bounds.floor < kSettled * floor &&
        slice.bounds.floor > floor / kSettled)
      result.push_back(slice);
  std::sort(result.begin(), result.end(), [](const Slice &a, const Slice &b) {
    return a.ratio() < b.ratio();
  });
  return result;
}

/// Figures of the slice with the median ratio, in the slower of two modes.
Counters Row::report() const {
  std::vector<double> floors, seconds;
  for (const Slice &slice : slices)
    if (slice.settled || !numSettled())
      floors.push_back(slice.bounds.floor);
  std::vector<Slice> slow = slicesAround(quantile(floors, 1));
  std::vector<Slice> fast = slicesAround(quantile(floors, 0));
  for (const Slice &slice : slow)
    seconds.insert(seconds.end(), slice.seconds.begin(), slice.seconds.end());

  const Slice &slice = slow[slow.size() / 2];
  const Bounds &bounds = slice.bounds;
  double bytes = batches.bytes(), operations = batches.operations();
  bool memoryBound = bytes / bounds.bandwidth == bounds.floor;
  Counters counters = {
      {"bytes", bytes},
      {"operations", operations},
      {"median", slice.median()},
      {"spread", spreadOf(seconds)},
      {"bytes_per_second", bytes / slice.median()},
      {"flops", operations / slice.median()},
      {"bandwidth", bounds.bandwidth},
      {"rate", bounds.rate},
      {"matrix", bounds.matrix},
      {"floor", bounds.floor},
      {"ceiling",
       memoryBound ? bounds.bandwidth : std::max(bounds.rate, bounds.matrix)},
      {"ratio", slice.ratio()},
      {"noisy", !quick && numSettled() < kSlices},
  };
  if (numSettled() && quantile(floors, 1) > kSettled * quantile(floors, 0)) {
    const Slice &other = fast[fast.size() / 2];
    counters["fast_median"] = other.median();
    counters["fast_bandwidth"] = other.bounds.bandwidth;
    counters["fast_ratio"] = other.ratio();
  }
  return counters;
}

} // namespace

Counters llm::timeCase(const Case &what, bool quick) {
  return Row(what, quick).run();
}

/// The width of the interval that holds the true median 19 times of 20.
static double intervalOf(const std::vector<double> &values) {
  double half = 0.98 / std::sqrt(values.size());
  return quantile(values, std::min(1.0, 0.5 + half)) -
         quantile(values, std::max(0.0, 0.5 - half));
}

Counters llm::timePair(const Case &what, const Case &reference, bool quick) {
  Batches batches(what), others(reference);
  batches.call();
  others.call();
  bool coresFree = areCoresFree(probe(Ceiling::Fma));
  std::vector<double> ratios, medians;
  double total = 0;
  auto done = [&] {
    return quick ? !ratios.empty()
                 : ratios.size() >= kMinPairs &&
                       (total > kPairSeconds ||
                        intervalOf(ratios) < kPairCertainty);
  };
  for (bool first = false; !done(); first = !first) { // the first may be slower
    double before = first ? timeCall(batches) : 0;
    double other = timeCall(others);
    double seconds = first ? before : timeCall(batches);
    ratios.push_back(seconds / other);
    medians.push_back(seconds);
    total += seconds + other;
  }
  coresFree &= areCoresFree(probe(Ceiling::Fma));
  return {{"pair_ratio", quantile(ratios, 0.5)},
          {"interval", intervalOf(ratios)},
          {"pairs", ratios.size()},
          {"spread", spreadOf(ratios)},
          {"median", quantile(medians, 0.5)},
          {"noisy", !quick && (!coresFree || intervalOf(ratios) > kPairNoise)}};
}

Counters llm::timeProbe(Ceiling ceiling, bool quick) {
  std::vector<double> rates;
  for (size_t i = 0; i < (quick ? 1 : 2 * kSlices + 1); ++i)
    rates.push_back(probe(ceiling));
  double spread = rates.back() ? spreadOf(rates) : 0;
  return {{"ceiling", quantile(rates, 0.5)},
          {"best", quantile(rates, 1)},
          {"worst", quantile(rates, 0)},
          {"spread", spread},
          {"noisy", spread > kSettled - 1}};
}
