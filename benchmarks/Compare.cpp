//===- Compare.cpp - Two runs side by side --------------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Compare.h"

#include <nlohmann/json.hpp>

#include <cstdio>
#include <fstream>
#include <map>
#include <optional>
#include <ostream>
#include <stdexcept>
#include <vector>

using namespace llm;
using nlohmann::json;

namespace {

struct Row {
  std::string name;
  double median;               ///< seconds
  std::optional<double> ratio; ///< to the ceiling, or to a pair's reference
  bool noisy;
};

struct Run {
  std::string commit;
  std::vector<Row> rows;
};

[[noreturn]] void fail(const std::string &path, const std::string &what) {
  throw std::runtime_error(path + ": " + what);
}

json parse(const std::string &path) {
  std::ifstream in(path);
  if (!in)
    fail(path, "cannot be read");
  try {
    return json::parse(in);
  } catch (const json::parse_error &error) {
    fail(path, "is no JSON: error at byte " + std::to_string(error.byte));
  }
}

std::optional<double> ratioOf(const json &row) {
  for (const char *key : {"ratio", "pair_ratio"})
    if (row.contains(key) && row[key].is_number())
      return row[key].get<double>();
  return std::nullopt;
}

Run read(const std::string &path) {
  json file = parse(path);
  if (!file.is_object() || !file.contains("benchmarks") ||
      !file["benchmarks"].is_array())
    fail(path, "has no list `benchmarks`: write it with --benchmark_out");
  Run run;
  run.commit = "unknown";
  if (file.contains("context") && file["context"].is_object() &&
      file["context"].contains("commit") &&
      file["context"]["commit"].is_string())
    run.commit = file["context"]["commit"];
  for (const json &row : file["benchmarks"]) {
    if (!row.is_object() || !row.contains("name") || !row["name"].is_string())
      fail(path, "has a row without a name");
    std::string name = row["name"];
    if (name.starts_with("ceiling/")) // has a rate, and no time
      continue;
    if (!row.contains("median") || !row["median"].is_number() ||
        row["median"].get<double>() <= 0)
      fail(path, "has no positive `median` in row " + name);
    run.rows.push_back(
        {name, row["median"], ratioOf(row), row.value("noisy", json(0)) != 0});
  }
  return run;
}

std::string number(const char *format, double value) {
  char text[32];
  std::snprintf(text, sizeof(text), format, value);
  return text;
}

std::string number(std::optional<double> value) {
  return value ? number("%.3f", *value) : "-";
}

void printLine(std::ostream &out, const std::string &name,
               const std::vector<std::string> &cells) {
  out << name << std::string(name.size() < 64 ? 64 - name.size() : 1, ' ');
  for (const std::string &cell : cells)
    out << std::string(cell.size() < 12 ? 12 - cell.size() : 1, ' ') << cell;
  out << '\n';
}

void print(std::ostream &out, const Run &before, const Run &after) {
  out << "before: " << before.commit << ", after: " << after.commit << '\n';
  printLine(out, "row",
            {"before us", "after us", "time ratio", "before to", "after to"});
  std::map<std::string, Row> old;
  for (const Row &row : before.rows)
    old.emplace(row.name, row);
  for (const Row &row : after.rows) {
    auto found = old.find(row.name);
    if (found == old.end()) {
      printLine(out, row.name,
                {"-", number("%.1f", row.median * 1e6), "-", "-",
                 number(row.ratio), row.noisy ? "noisy" : ""});
      continue;
    }
    const Row &was = found->second;
    printLine(out, row.name,
              {number("%.1f", was.median * 1e6),
               number("%.1f", row.median * 1e6),
               number("%.3f", row.median / was.median), number(was.ratio),
               number(row.ratio), was.noisy || row.noisy ? "noisy" : ""});
    old.erase(found);
  }
  for (const Row &row : before.rows)
    if (old.contains(row.name))
      printLine(out, row.name,
                {number("%.1f", row.median * 1e6), "-", "-", number(row.ratio),
                 "-", row.noisy ? "noisy" : ""});
}

} // namespace

int llm::compare(const std::string &before, const std::string &after,
                 std::ostream &out, std::ostream &errors) {
  try {
    Run a = read(before), b = read(after);
    print(out, a, b);
    return 0;
  } catch (const std::runtime_error &error) {
    errors << "error: " << error.what() << '\n';
    return 1;
  }
}
