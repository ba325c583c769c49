//===- bench-linear.cpp - Products with weights against the ceilings ------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
//   bench-linear [--smoke] [--threads N] [--rows N,N,...]
//                [--weights bf16|f32|q8_0|q4_0|q4_1]
//                [--activations int8|bf16|f32]
//
// One line for each matrix of SmolLM2-135M and number of rows: the median time
// of a product, and how far it is from its floor. Weights are cold: calls go
// through copies of the matrix that together are larger than the caches.
//
//===----------------------------------------------------------------------===//

#include "Ceilings.h"
#include "Linear.h"
#include "Parallel.h"
#include "Weights.h"
#include "cpu/Blocks.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <optional>
#include <random>
#include <sstream>
#include <string_view>

using namespace llm;

namespace {

struct Options {
  std::vector<int64_t> rows = {1, 4, 8, 12, 16, 24, 32, 37, 128, 512};
  llm_file_format weights = LLM_FILE_BF16;
  std::optional<llm_dtype> activations; ///< or the first that w goes with
  int rounds = 5;
  double roundSeconds = 0.04;
  int64_t coldBytes = int64_t(160) << 20;
};

struct Shape {
  int64_t columns, k;
};

const Shape shapes[] = {{960, 576}, {576, 576}, {3072, 576}, {576, 1536}};

/// How a matrix of a format is held, and what it is multiplied with.
struct Form {
  llm_file_format format;
  llm_dtype dtype;
  llm_layout layout;
  llm_dtype activations;
  int64_t depth; ///< of a step of a panel
  int64_t step;  ///< its elements

  explicit Form(const Options &options) : format(options.weights) {
    if (cpu::isBlockFormat(format))
      set(LLM_I8, LLM_LAYOUT_BLOCKS32, LLM_I8, 32, cpu::bytesOfBlock(format));
    else if (format == LLM_FILE_BF16)
      set(LLM_BF16, LLM_LAYOUT_TILES32, LLM_BF16, 32, 1024);
    else
      set(LLM_F32, LLM_LAYOUT_PANEL32, LLM_F32, 1, 32);
    activations = options.activations.value_or(activations);
  }

private:
  void set(llm_dtype type, llm_layout how, llm_dtype with, int64_t stepDepth,
           int64_t elements) {
    dtype = type, layout = how, activations = with;
    depth = stepDepth, step = elements;
  }
};

/// Random weights as they are in a file: numbers are f32, blocks have small
/// positive halves before random bytes.
std::vector<char> randomWeights(llm_file_format format, Shape shape) {
  std::mt19937 random(1);
  if (!cpu::isBlockFormat(format)) {
    std::normal_distribution<float> normal;
    std::vector<char> bytes(shape.columns * shape.k * sizeof(float));
    for (size_t at = 0; at < bytes.size(); at += sizeof(float)) {
      const float number = normal(random);
      std::memcpy(&bytes[at], &number, sizeof(number));
    }
    return bytes;
  }
  std::vector<char> bytes(shape.columns * llm_file_row_bytes(format, shape.k));
  for (char &byte : bytes)
    byte = static_cast<char>(random());
  const int64_t block = llm_file_row_bytes(format, 32);
  for (size_t at = 0; at < bytes.size(); at += block) {
    bytes[at + 1] = 0x20;
    if (cpu::hasMinimums(format))
      bytes[at + 3] = 0x20;
  }
  return bytes;
}

/// Copies of one matrix, multiplied in turn.
class Products {
public:
  Products(const Options &options, Shape shape, int64_t maxRows)
      : shape(shape), form(options), x(maxRows * shape.k),
        out(allocate(maxRows * shape.columns * sizeof(float))) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::generate(x.begin(), x.end(), [&] { return normal(random); });

    llm_weight_desc desc = {};
    desc.num_names = 1;
    desc.dtype = form.dtype;
    desc.layout = form.layout;
    desc.format = cpu::isBlockFormat(form.format) ? form.format : 0;
    desc.rank = 2;
    desc.sizes[0] = shape.columns;
    desc.sizes[1] = shape.k;
    matrixBytes = packedBytes(desc);
    copies = std::max<int64_t>(2, options.coldBytes / matrixBytes);
    memory = allocate(copies * matrixBytes);
    const std::vector<char> w = randomWeights(form.format, shape);
    llm_weight_source source = {w.data(),
                                cpu::isBlockFormat(form.format) ? form.format
                                                                : LLM_FILE_F32,
                                2,
                                {shape.columns, shape.k}};
    packWeight(desc, &source, memory.get());
    for (int64_t i = 1; i < copies; ++i)
      std::memcpy(memory.get() + i * matrixBytes, memory.get(), matrixBytes);
  }

  void call(int64_t rows) {
    at = (at + 1) % copies;
    llm_tensor from = {x.data(), LLM_F32, 2, {rows, shape.k}, {shape.k, 1}};
    llm_tensor to = {
        out.get(), LLM_F32, 2, {rows, shape.columns}, {shape.columns, 1}};
    const int64_t steps = shape.k / form.depth;
    llm_tensor w = {memory.get() + at * matrixBytes,
                    form.dtype,
                    3,
                    {(shape.columns + 31) / 32, steps, form.step},
                    {steps * form.step, form.step, 1}};
    linear({from, w, to, form.format, form.activations}, factors);
  }

  llm_dtype activations() const { return form.activations; }
  double bytes() const { return matrixBytes; }
  double operations(int64_t rows) const {
    return 2.0 * rows * shape.columns * shape.k;
  }

private:
  Shape shape;
  Form form;
  int64_t matrixBytes, copies, at = 0;
  Memory memory;
  std::vector<float> x, factors;
  Memory out;
};

struct Ceilings {
  double read, rate;

  static Ceilings probe(llm_dtype activations) {
    double rate = llm::probe(Ceiling::Fma);
    if (activations == LLM_I8)
      rate = std::max(rate, llm::probe(Ceiling::Int8Dot));
    if (activations == LLM_BF16)
      rate = std::max({rate, llm::probe(Ceiling::Bf16Dot),
                       llm::probe(Ceiling::Bf16Matrix)});
    return {llm::probe(Ceiling::Read), rate};
  }
};

struct Sample {
  double seconds, ratio;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double secondsOfCalls(Products &products, int64_t rows, double atLeast) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> seconds;
  double total = 0;
  do {
    auto begin = Clock::now();
    products.call(rows);
    seconds.push_back(
        std::chrono::duration<double>(Clock::now() - begin).count());
    total += seconds.back();
  } while (total < atLeast);
  return median(std::move(seconds));
}

/// Rounds between two probes each; the round with the median ratio.
void measure(const Options &options, Shape shape, int64_t rows,
             Products &products) {
  secondsOfCalls(products, rows, 0); // threads start, scratch grows
  std::vector<Sample> samples;
  Ceilings before = Ceilings::probe(products.activations());
  double read = 0, rate = 0;
  for (int i = 0; i < options.rounds; ++i) {
    double seconds = secondsOfCalls(products, rows, options.roundSeconds);
    Ceilings after = Ceilings::probe(products.activations());
    read = (before.read + after.read) / 2;
    rate = (before.rate + after.rate) / 2;
    double floor =
        std::max(products.bytes() / read, products.operations(rows) / rate);
    samples.push_back({seconds, floor / seconds});
    before = after;
  }
  std::sort(samples.begin(), samples.end(),
            [](Sample a, Sample b) { return a.ratio < b.ratio; });
  Sample sample = samples[samples.size() / 2];
  std::printf(
      "%5lld x %4lld %5lld rows %9.1f us %8.1f Gop/s of %6.1f %7.2f "
      "GB/s of %5.1f  ratio %.3f\n",
      static_cast<long long>(shape.columns), static_cast<long long>(shape.k),
      static_cast<long long>(rows), sample.seconds * 1e6,
      products.operations(rows) / sample.seconds * 1e-9, rate * 1e-9,
      products.bytes() / sample.seconds * 1e-9, read * 1e-9, sample.ratio);
  std::fflush(stdout);
}

std::vector<int64_t> numbersIn(std::string_view text) {
  std::istringstream in{std::string(text)};
  std::vector<int64_t> numbers;
  for (std::string number; std::getline(in, number, ',');)
    numbers.push_back(std::stoll(number));
  return numbers;
}

template <typename T, size_t N>
bool choose(std::string_view name,
            const std::pair<std::string_view, T> (&of)[N], T &value) {
  for (const auto &[known, meaning] : of)
    if (name == known)
      return value = meaning, true;
  return false;
}

bool parseWeights(std::string_view name, llm_file_format &weights) {
  constexpr std::pair<std::string_view, llm_file_format> formats[] = {
      {"bf16", LLM_FILE_BF16},
      {"f32", LLM_FILE_F32},
      {"q8_0", LLM_FILE_Q8_0},
      {"q4_0", LLM_FILE_Q4_0},
      {"q4_1", LLM_FILE_Q4_1}};
  return choose(name, formats, weights);
}

bool parseActivations(std::string_view name, llm_dtype &activations) {
  constexpr std::pair<std::string_view, llm_dtype> types[] = {
      {"int8", LLM_I8}, {"bf16", LLM_BF16}, {"f32", LLM_F32}};
  return choose(name, types, activations);
}

bool parse(int argc, char **argv, Options &options) {
  for (int i = 1; i < argc; ++i) {
    std::string_view option = argv[i], value = i + 1 < argc ? argv[i + 1] : "";
    if (option == "--smoke") {
      setColdBytes(options.coldBytes = int64_t(16) << 20);
      options.rounds = 1;
      options.roundSeconds = 0;
      continue;
    }
    if (value.empty())
      return false;
    if (option == "--threads")
      setNumThreads(std::stoi(std::string(value)));
    else if (option == "--rows")
      options.rows = numbersIn(value);
    else if (option == "--weights" && parseWeights(value, options.weights))
      ;
    else if (option == "--activations" &&
             parseActivations(value, options.activations.emplace()))
      ;
    else
      return false;
    ++i;
  }
  const bool integers = options.activations == LLM_I8;
  return !options.rows.empty() &&
         (!integers || cpu::isBlockFormat(options.weights));
}

} // namespace

int main(int argc, char **argv) {
  Options options;
  if (!parse(argc, argv, options)) {
    std::fprintf(stderr, "usage: bench-linear [--smoke] [--threads N] [--rows "
                         "N,N,...] [--weights bf16|f32|q8_0|q4_0|q4_1] "
                         "[--activations int8|bf16|f32]\n");
    return 1;
  }
  for (Shape shape : shapes) {
    Products products(
        options, shape,
        *std::max_element(options.rows.begin(), options.rows.end()));
    for (int64_t rows : options.rows)
      measure(options, shape, rows, products);
  }
}
