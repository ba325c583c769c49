//===- ModelTest.cpp - Binding and packing the weights of a model ---------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Runtime/CAPI.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace {

/// A program of two weights: [3, 2] from "a" and "b" along axis 0, and [2] from
/// "norm"; its entry returns the first element of each.
class ModelTest : public ::testing::Test {
protected:
  ModelTest() {
    weights[0] = {joined, 2, 0, LLM_F32, LLM_LAYOUT_PLAIN, 2, 0, {3, 2}};
    weights[1] = {single, 1, 0, LLM_F32, LLM_LAYOUT_PLAIN, 1, 0, {2, 0}};
    output.name = "out";
    output.dtype = LLM_F32;
    output.rank = 1;
    output.sizes[0] = 2;
    output.below = output.below_symbol = -1;
    entry.name = "main";
    entry.fn = run;
    entry.outputs = &output;
    entry.num_outputs = 1;
    program.struct_size = sizeof(program);
    program.abi_version = LLM_ABI_VERSION;
    program.weights = weights;
    program.num_weights = 2;
    program.entries = &entry;
    program.num_entries = 1;
    EXPECT_EQ(llm_context_create(1, &context, nullptr), LLM_OK);
  }
  ~ModelTest() override {
    llm_model_destroy(model);
    llm_context_destroy(context);
  }

  llm_code create() {
    return llm_model_create(context, &program, &model, &error);
  }
  llm_code bind(const char *name, std::vector<int64_t> shape,
                llm_file_format format = LLM_FILE_F32) {
    llm_weight_source source = {data, format, int32_t(shape.size()), {0, 0}};
    std::copy(shape.begin(), shape.end(), source.sizes);
    return llm_model_bind_weight(model, name, &source, &error);
  }
  llm_code invoke(float *out) {
    const llm_tensor tensor = {out, LLM_F32, 1, {2}, {1}};
    return llm_model_invoke(model, nullptr, nullptr, 0, nullptr, 0, &tensor, 1,
                            &error);
  }
  void expectError(llm_code code, int64_t expected, int64_t actual) {
    EXPECT_EQ(error.code, code) << error.message;
    EXPECT_EQ(error.expected, expected) << error.message;
    EXPECT_EQ(error.actual, actual) << error.message;
  }

  /// The last row of the joined weight, and the norm.
  static llm_code run(llm_call *call) {
    auto *out = static_cast<float *>(call->outputs[0].data);
    out[0] = static_cast<const float *>(call->weights[0])[4];
    out[1] = static_cast<const float *>(call->weights[1])[1];
    return LLM_OK;
  }

  const char *joined[2] = {"a", "b"};
  const char *single[1] = {"norm"};
  float data[4] = {10, 20, 30, 40};
  llm_weight_desc weights[2];
  llm_value_desc output = {};
  llm_entry_desc entry = {};
  llm_program program = {};
  llm_context *context = nullptr;
  llm_model *model = nullptr;
  llm_error error = LLM_ERROR_INIT;
};

} // namespace

TEST_F(ModelTest, BoundWeightsReachTheEntry) {
  ASSERT_EQ(create(), LLM_OK);
  EXPECT_EQ(llm_model_describe(model), &program);
  EXPECT_EQ(bind("a", {2, 2}), LLM_OK);
  EXPECT_EQ(bind("b", {1, 2}), LLM_OK);
  EXPECT_EQ(bind("norm", {2}), LLM_OK);
  EXPECT_EQ(llm_model_weight_bytes(model), (6 + 2) * 4);
  EXPECT_EQ(llm_model_finish(model, &error), LLM_OK) << error.message;
  EXPECT_EQ(llm_model_finish(model, &error), LLM_OK) << "again is no error";
  EXPECT_EQ(llm_model_weight_bytes(model), (6 + 2) * 4);
  float out[2];
  EXPECT_EQ(invoke(out), LLM_OK) << error.message;
  EXPECT_EQ(out[0], 10);
  EXPECT_EQ(out[1], 20);
  EXPECT_EQ(bind("norm", {2}), LLM_WRONG_STATE);
}

TEST_F(ModelTest, MissingWeightsAreCountedAndTheFirstIsNamed) {
  ASSERT_EQ(create(), LLM_OK);
  EXPECT_EQ(bind("a", {2, 2}), LLM_OK);
  EXPECT_EQ(llm_model_finish(model, &error), LLM_NOT_FOUND);
  expectError(LLM_NOT_FOUND, 0, 2);
  EXPECT_STREQ(error.message, "2 weights are not bound, the first is b");
  float out[2];
  EXPECT_EQ(invoke(out), LLM_WRONG_STATE);
  expectError(LLM_WRONG_STATE, 1, 0);
}

TEST_F(ModelTest, SourcesAreChecked) {
  ASSERT_EQ(create(), LLM_OK);
  EXPECT_EQ(bind("c", {2, 2}), LLM_NOT_FOUND);
  expectError(LLM_NOT_FOUND, 1, 0);
  EXPECT_EQ(bind("a", {2, 3}), LLM_INVALID_ARGUMENT);
  EXPECT_EQ(std::string(error.message),
            "expected a of shape [3, 2] (rank 2), got [2, 3] (rank 2)");
  EXPECT_EQ(bind("a", {4, 2}), LLM_INVALID_ARGUMENT);
  expectError(LLM_INVALID_ARGUMENT, 3, 4);
  EXPECT_EQ(bind("norm", {3}), LLM_INVALID_ARGUMENT);
  expectError(LLM_INVALID_ARGUMENT, 2, 3);
  EXPECT_EQ(bind("norm", {1, 2}), LLM_INVALID_ARGUMENT);
  EXPECT_EQ(bind("norm", {2}, LLM_FILE_Q8_0), LLM_INVALID_ARGUMENT);
  expectError(LLM_INVALID_ARGUMENT, 32, 2);
  EXPECT_EQ(bind("norm", {2}, 77), LLM_INVALID_ARGUMENT);
  expectError(LLM_INVALID_ARGUMENT, LLM_FILE_Q6_K, 77);
  EXPECT_EQ(bind("norm", {288}, LLM_FILE_Q6_K), LLM_INVALID_ARGUMENT);
  expectError(LLM_INVALID_ARGUMENT, 256, 288);
  EXPECT_EQ(std::string(error.message),
            "expected rows of whole blocks of 256 weights in norm (q6_K), got "
            "288");
}

TEST_F(ModelTest, PartsMustMakeUpTheWhole) {
  ASSERT_EQ(create(), LLM_OK);
  EXPECT_EQ(bind("a", {1, 2}), LLM_OK);
  EXPECT_EQ(bind("b", {1, 2}), LLM_OK);
  EXPECT_EQ(bind("norm", {2}), LLM_OK);
  EXPECT_EQ(llm_model_finish(model, &error), LLM_INVALID_ARGUMENT);
  expectError(LLM_INVALID_ARGUMENT, 3, 2);
}

TEST_F(ModelTest, UnknownTypesAndLayoutsAreUnsupported) {
  weights[1].dtype = LLM_F16;
  EXPECT_EQ(create(), LLM_UNSUPPORTED);
  expectError(LLM_UNSUPPORTED, LLM_F32, LLM_F16);
  weights[1].dtype = LLM_BF16;
  weights[1].layout = 4;
  EXPECT_EQ(create(), LLM_UNSUPPORTED);
  expectError(LLM_UNSUPPORTED, LLM_LAYOUT_BLOCKS32, 4);
}

TEST_F(ModelTest, TilesAreOfBF16AndWholeSteps) {
  weights[1].layout = LLM_LAYOUT_TILES32;
  weights[1].dtype = LLM_F32;
  weights[1].sizes[1] = 64;
  EXPECT_EQ(create(), LLM_UNSUPPORTED);
  expectError(LLM_UNSUPPORTED, LLM_BF16, LLM_F32);
  weights[1].dtype = LLM_BF16;
  weights[1].sizes[1] = 40;
  EXPECT_EQ(create(), LLM_UNSUPPORTED);
  expectError(LLM_UNSUPPORTED, 32, 40);
}

TEST_F(ModelTest, BlocksAreOfI8AndTheirFormatAndWholeSteps) {
  weights[1].layout = LLM_LAYOUT_BLOCKS32;
  weights[1].rank = 2;
  weights[1].sizes[1] = 64;
  weights[1].dtype = LLM_F32;
  EXPECT_EQ(create(), LLM_UNSUPPORTED);
  expectError(LLM_UNSUPPORTED, LLM_I8, LLM_F32);
  weights[1].dtype = LLM_I8;
  weights[1].format = LLM_FILE_BF16;
  EXPECT_EQ(create(), LLM_UNSUPPORTED);
  expectError(LLM_UNSUPPORTED, LLM_FILE_Q4_1, LLM_FILE_BF16);
  EXPECT_EQ(std::string(error.message),
            "expected blocks of format 3 to 5 for weight 1, got 2");
  weights[1].format = LLM_FILE_Q4_0;
  weights[1].sizes[1] = 40;
  EXPECT_EQ(create(), LLM_UNSUPPORTED);
  expectError(LLM_UNSUPPORTED, 32, 40);
  weights[1].sizes[1] = 64;
  EXPECT_EQ(create(), LLM_OK);
  EXPECT_EQ(bind("norm", {2, 64}, LLM_FILE_Q4_1), LLM_INVALID_ARGUMENT);
  expectError(LLM_INVALID_ARGUMENT, LLM_FILE_Q4_0, LLM_FILE_Q4_1);
  EXPECT_EQ(std::string(error.message),
            "expected norm of a format that blocks of q4_0 hold, got q4_1");
  EXPECT_EQ(bind("norm", {2, 64}, LLM_FILE_Q8_0), LLM_INVALID_ARGUMENT);
  EXPECT_EQ(bind("norm", {2, 64}, LLM_FILE_F16), LLM_INVALID_ARGUMENT);
  EXPECT_EQ(bind("norm", {2, 64}, LLM_FILE_Q4_0), LLM_OK);
}

/// Each of these formats fits into its blocks and all larger ones.
TEST_F(ModelTest, BlocksHoldFormatsOfFiles) {
  const std::vector<llm_file_format> blocks[] = {{LLM_FILE_Q4_0},
                                                 {LLM_FILE_Q4_1, LLM_FILE_Q4_K},
                                                 {LLM_FILE_Q8_0, LLM_FILE_Q5_0,
                                                  LLM_FILE_Q5_1, LLM_FILE_Q5_K,
                                                  LLM_FILE_Q6_K}};
  weights[1] = {single, 1, 0, LLM_I8, LLM_LAYOUT_BLOCKS32, 2, 0, {2, 256}};
  for (size_t held = 0; held < std::size(blocks); ++held) {
    weights[1].format = blocks[held][0];
    ASSERT_EQ(create(), LLM_OK) << error.message;
    for (size_t i = 0; i < std::size(blocks); ++i)
      for (llm_file_format format : blocks[i]) {
        EXPECT_EQ(llm_file_block_format(format), blocks[i][0]);
        EXPECT_EQ(bind("norm", {2, 256}, format),
                  i <= held ? LLM_OK : LLM_INVALID_ARGUMENT)
            << llm_file_format_name(format);
      }
    llm_model_destroy(model);
    model = nullptr;
  }
  for (llm_file_format format : {LLM_FILE_F32, LLM_FILE_F16, LLM_FILE_BF16})
    EXPECT_EQ(llm_file_block_format(format), -1);
  EXPECT_EQ(llm_file_block_format(11), -1);
}

/// d = 2000 and a scale of 63: 126000.
TEST_F(ModelTest, ScalesBeyondF16AreRefused) {
  std::vector<uint8_t> block(144, 0x3f);
  block[0] = 0xd0, block[1] = 0x67;
  block[2] = block[3] = 0;
  weights[1] = {single,        1,       0, LLM_I8, LLM_LAYOUT_BLOCKS32, 2,
                LLM_FILE_Q4_1, {1, 256}};
  ASSERT_EQ(create(), LLM_OK) << error.message;
  EXPECT_EQ(bind("a", {2, 2}), LLM_OK);
  EXPECT_EQ(bind("b", {1, 2}), LLM_OK);
  const llm_weight_source source = {block.data(), LLM_FILE_Q4_K, 2, {1, 256}};
  ASSERT_EQ(llm_model_bind_weight(model, "norm", &source, &error), LLM_OK);
  EXPECT_EQ(llm_model_finish(model, &error), LLM_UNSUPPORTED);
  expectError(LLM_UNSUPPORTED, 65504, 126000);
  EXPECT_STREQ(error.message,
               "expected scales and minimums of at most 65504 in norm and 0 "
               "more, to pack them as q4_1, got 126000");
}

TEST_F(ModelTest, WeightsAreVectorsOrMatrices) {
  EXPECT_EQ(create(), LLM_OK);
  EXPECT_EQ(bind("norm", {}), LLM_INVALID_ARGUMENT);
  expectError(LLM_INVALID_ARGUMENT, 2, 0);
  llm_model_destroy(model);
  model = nullptr;
  weights[1].rank = 3;
  EXPECT_EQ(create(), LLM_UNSUPPORTED);
  expectError(LLM_UNSUPPORTED, 2, 3);
}
