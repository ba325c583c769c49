//===- CompiledProgram.cpp - IR text as a model, for tests ----------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "CompiledProgram.h"

#include "llm/Driver/Compiler.h"
#include "llm/Transforms/Passes.h"

#include "mlir/Parser/Parser.h"

#include <algorithm>

using namespace llm::testing;

//===----------------------------------------------------------------------===//
// CompiledProgram
//===----------------------------------------------------------------------===//

struct CompiledProgram::Code {
  std::unique_ptr<mlir::llm::CompiledModel> compiled;
};

/// Native code of the text, or null.
static std::unique_ptr<mlir::llm::CompiledModel> compile(const char *ir) {
  mlir::DialectRegistry registry;
  mlir::llm::registerPipelineDialects(registry);
  mlir::MLIRContext context(registry, mlir::MLIRContext::Threading::DISABLED);
  auto module = mlir::parseSourceString<mlir::ModuleOp>(
      ir, mlir::ParserConfig(&context), "test.mlir");
  if (!module)
    return nullptr;
  auto compiled = mlir::llm::CompiledModel::compile(*module);
  if (compiled)
    return std::move(*compiled);
  ADD_FAILURE() << toString(compiled.takeError());
  return nullptr;
}

CompiledProgram::CompiledProgram(const char *ir,
                                 const std::vector<NamedWeight> &weights)
    : text(ir), code(std::make_unique<Code>()) {
  code->compiled = compile(ir);
  if (!code->compiled) {
    ADD_FAILURE() << "the text does not compile";
    return;
  }
  EXPECT_EQ(llm_context_create(1, &hostContext, nullptr), LLM_OK);
  EXPECT_EQ(llm_model_create(hostContext, &descriptor(), &model, &error),
            LLM_OK)
      << error.message;
  for (const NamedWeight &weight : weights) {
    const void *data = weight.values.data();
    if (weight.format != LLM_FILE_F32)
      data = weight.bytes.data();
    llm_weight_source source = {
        data, weight.format, static_cast<int32_t>(weight.sizes.size()), {}};
    std::copy(weight.sizes.begin(), weight.sizes.end(), source.sizes);
    EXPECT_EQ(llm_model_bind_weight(model, weight.name, &source, &error),
              LLM_OK)
        << error.message;
  }
  EXPECT_EQ(llm_model_finish(model, &error), LLM_OK) << error.message;
}

CompiledProgram::~CompiledProgram() {
  llm_model_destroy(model);
  llm_context_destroy(hostContext);
}

const llm_program &CompiledProgram::descriptor() const {
  return code->compiled->program();
}

llm_code CompiledProgram::invoke(const char *entry,
                                 std::vector<llm_kv_cache *> caches,
                                 std::vector<llm_tensor> inputs,
                                 std::vector<llm_tensor> outputs) {
  error = LLM_ERROR_INIT;
  lastCaches = std::move(caches);
  return llm_model_invoke(
      model, entry, lastCaches.data(), static_cast<int32_t>(lastCaches.size()),
      inputs.data(), static_cast<int32_t>(inputs.size()), outputs.data(),
      static_cast<int32_t>(outputs.size()), &error);
}

testing::AssertionResult
CompiledProgram::runs(const char *entry, std::vector<llm_kv_cache *> caches,
                      std::vector<llm_tensor> inputs,
                      std::vector<llm_tensor> outputs) {
  const llm_code code =
      invoke(entry, std::move(caches), std::move(inputs), std::move(outputs));
  if (code == LLM_OK)
    return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << entry << ": " << (error.op ? error.op : "") << ":" << error.line
         << ": " << llm_code_name(code) << ": " << error.message;
}

int32_t CompiledProgram::lineOf(const std::string &marker) const {
  const size_t at = text.find(marker);
  EXPECT_NE(at, std::string::npos) << marker;
  EXPECT_EQ(text.find(marker, at + 1), std::string::npos) << marker;
  return static_cast<int32_t>(
      1 +
      std::count(text.begin(), text.begin() + std::min(at, text.size()), '\n'));
}

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

AttentionRow
llm::testing::attendInDouble(const Attention &attention,
                             const std::vector<double> &query, int64_t position,
                             const std::vector<std::vector<double>> &keys,
                             const std::vector<std::vector<double>> &values) {
  AttentionRow row = {std::vector<double>(query.size(), 0.0), 0};
  double sum = 0;
  for (int64_t j = 0; j < static_cast<int64_t>(keys.size()); ++j) {
    const bool isLater = attention.causal && j > position;
    const bool isDropped = attention.window && j <= position - attention.window;
    if (isLater || isDropped)
      continue;
    double score =
        attention.scale *
        std::inner_product(query.begin(), query.end(), keys[j].begin(), 0.0);
    if (attention.softcap)
      score = attention.softcap * std::tanh(score / attention.softcap);
    sum += std::exp(score);
    for (size_t d = 0; d < query.size(); ++d)
      row.output[d] += std::exp(score) * values[j][d];
  }
  for (double &x : row.output)
    x = sum > 0 ? x / sum : 0;
  row.lse = std::log(sum);
  return row;
}
