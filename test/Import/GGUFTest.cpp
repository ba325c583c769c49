//===- GGUFTest.cpp - GGUF files as models --------------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TestFiles.h"
#include "TestGGUF.h"
#include "llm/Import/ModelFile.h"

using namespace mlir::llm;
using namespace mlir::llm::test;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using Shape = llvm::SmallVector<int64_t, 2>;

namespace {

class GGUFTest : public FileTest {
protected:
  llvm::Expected<std::unique_ptr<ModelFile>> open(const std::string &bytes) {
    return ModelFile::open(write("model.gguf", bytes));
  }
  std::unique_ptr<ModelFile> read(const GGUFWriter &file) {
    return llvm::cantFail(open(file.write()));
  }
  std::string failure(const GGUFWriter &file) {
    return messageOf(open(file.write()));
  }
  template <typename T>
  std::string failureWith(const char *key, T value) {
    return failure(smallModel().set(key, value));
  }
  /// The header of a file up to its first count.
  static std::string start(uint32_t version) { return "GGUF" + raw(version); }
};

} // namespace

//===----------------------------------------------------------------------===//
// What is read
//===----------------------------------------------------------------------===//

TEST_F(GGUFTest, ReadsASmallModel) {
  for (uint32_t version : {2, 3}) {
    GGUFWriter file = smallModel();
    file.version = version;
    std::unique_ptr<ModelFile> model = read(file);
    const ModelConfig &config = model->config();
    EXPECT_EQ(config.layers, 1);
    EXPECT_EQ(config.hidden, 32);
    EXPECT_EQ(config.heads, 4);
    EXPECT_EQ(config.kvHeads, 2);
    EXPECT_EQ(config.headDim, 8);
    EXPECT_EQ(config.ffn, 64);
    EXPECT_EQ(config.vocab, 3);
    EXPECT_EQ(config.context, 128);
    EXPECT_TRUE(config.tiedHead);
    EXPECT_TRUE(config.adjacentRope);
    EXPECT_EQ(config.eosIds, std::vector<int32_t>{2});
    EXPECT_EQ(config.ropeInverseFrequencies,
              (std::vector<float>{1, 0.1f, 0.01f, 0.001f}));
  }
}

TEST_F(GGUFTest, ReadsEachFormat) {
  GGUFWriter file = smallModel();
  const std::tuple<uint32_t, llm_file_format, int64_t, size_t> formats[] = {
      {0, LLM_FILE_F32, 32, 64 * 4},   {1, LLM_FILE_F16, 32, 64 * 2},
      {30, LLM_FILE_BF16, 32, 64 * 2}, {8, LLM_FILE_Q8_0, 32, 2 * 34},
      {2, LLM_FILE_Q4_0, 32, 2 * 18},  {3, LLM_FILE_Q4_1, 32, 2 * 20},
      {6, LLM_FILE_Q5_0, 32, 2 * 22},  {7, LLM_FILE_Q5_1, 32, 2 * 24},
      {12, LLM_FILE_Q4_K, 256, 288},   {13, LLM_FILE_Q5_K, 256, 352},
      {14, LLM_FILE_Q6_K, 256, 420}};
  for (auto [type, format, columns, bytes] : formats)
    file.tensor(llm_file_format_name(format), {2, columns}, type,
                std::string(bytes, char('0' + format)));
  std::unique_ptr<ModelFile> model = read(file);
  for (auto [type, format, columns, bytes] : formats) {
    const TensorInfo *tensor = model->find(llm_file_format_name(format));
    ASSERT_TRUE(tensor);
    EXPECT_EQ(tensor->format, format);
    EXPECT_EQ(tensor->shape, (Shape{2, columns}));
    EXPECT_EQ(tensor->bytes, bytes);
    EXPECT_EQ(std::string(static_cast<const char *>(tensor->data), bytes),
              std::string(bytes, char('0' + format)));
  }
}

TEST_F(GGUFTest, ReversesShapes) {
  GGUFWriter file = smallModel();
  file.tensor("x", {5, 2}, 0, std::string(40, 'x'));
  EXPECT_EQ(read(file)->find("x")->shape, (Shape{5, 2}));
}

TEST_F(GGUFTest, NamesEveryTensor) {
  std::unique_ptr<ModelFile> model = read(smallModel());
  EXPECT_EQ(model->tensorName(TensorRole::Embedding), "token_embd.weight");
  EXPECT_EQ(model->tensorName(TensorRole::Head), "token_embd.weight");
  EXPECT_EQ(model->tensorName(TensorRole::FinalNorm), "output_norm.weight");
  const std::pair<TensorRole, const char *> parts[] = {
      {TensorRole::AttentionNorm, "attn_norm"},
      {TensorRole::Query, "attn_q"},
      {TensorRole::Key, "attn_k"},
      {TensorRole::Value, "attn_v"},
      {TensorRole::AttentionOutput, "attn_output"},
      {TensorRole::FFNNorm, "ffn_norm"},
      {TensorRole::Gate, "ffn_gate"},
      {TensorRole::Up, "ffn_up"},
      {TensorRole::Down, "ffn_down"}};
  for (auto [role, part] : parts)
    EXPECT_EQ(model->tensorName(role, 7),
              "blk.7." + std::string(part) + ".weight");
}

TEST_F(GGUFTest, HasAHeadWhereTheFileHasOne) {
  GGUFWriter file = smallModel();
  file.tensor("output.weight", {3, 32}, 1, std::string(3 * 64, 'o'));
  std::unique_ptr<ModelFile> model = read(file);
  EXPECT_FALSE(model->config().tiedHead);
  EXPECT_EQ(model->tensorName(TensorRole::Head), "output.weight");
}

TEST_F(GGUFTest, TakesTheHeadDimOfTheKeys) {
  GGUFWriter file = smallModel();
  file.set("llama.attention.key_length", 16);
  EXPECT_EQ(read(file)->config().headDim, 16);
  EXPECT_EQ(read(file)->config().ropeInverseFrequencies.size(), 8u);
}

TEST_F(GGUFTest, CollectsWhatEndsAText) {
  GGUFWriter file = smallModel();
  file.set("tokenizer.ggml.eot_token_id", 1)
      .set("tokenizer.ggml.eom_token_id", 2);
  EXPECT_EQ(read(file)->config().eosIds, (std::vector<int32_t>{2, 1}));
}

TEST_F(GGUFTest, DividesByRopeFactors) {
  GGUFWriter file = smallModel();
  file.set("llama.rope.freq_base", 10000.0f);
  file.tensor("rope_freqs.weight", {4}, 0,
              raw(1.0f) + raw(2.0f) + raw(4.0f) + raw(8.0f));
  std::unique_ptr<ModelFile> model = read(file);
  EXPECT_EQ(model->config().ropeInverseFrequencies,
            (std::vector<float>{1, float(0.1 / 2), float(0.01 / 4),
                                float(0.001 / 8)}));
  EXPECT_FALSE(model->find("rope_freqs.weight"));
}

TEST_F(GGUFTest, HonoursTheAlignment) {
  for (int alignment : {1, 8, 256}) {
    GGUFWriter file = smallModel(alignment);
    file.set("general.alignment", alignment);
    file.tensor("x", {1}, 0, "data");
    EXPECT_EQ(
        std::string(static_cast<const char *>(read(file)->find("x")->data), 4),
        "data")
        << alignment;
  }
  EXPECT_THAT(
      failureWith("general.alignment", 48),
      EndsWith("expected a power of two for general.alignment, got 48"));
  EXPECT_THAT(failureWith("general.alignment", 0),
              EndsWith("expected a power of two for general.alignment, got 0"));
}

TEST_F(GGUFTest, ReadsQwen) {
  GGUFWriter file = smallModel(32, "qwen2");
  file.set("qwen2.rope.freq_base", 100.0f);
  const std::unique_ptr<ModelFile> two = read(file);
  EXPECT_EQ(two->config().family, "qwen2");
  EXPECT_FALSE(two->config().adjacentRope);
  EXPECT_TRUE(two->config().attentionBias);
  EXPECT_FALSE(two->config().outputBias);
  EXPECT_FALSE(two->config().headNorms);
  EXPECT_EQ(two->config().ropeInverseFrequencies[2], 0.1f);

  file = smallModel(32, "qwen3");
  file.set("qwen3.attention.key_length", 16)
      .set("qwen3.attention.value_length", 16);
  const std::unique_ptr<ModelFile> three = read(file);
  EXPECT_EQ(three->config().family, "qwen3");
  EXPECT_EQ(three->config().headDim, 16);
  EXPECT_FALSE(three->config().adjacentRope);
  EXPECT_FALSE(three->config().attentionBias);
  EXPECT_FALSE(three->config().outputBias);
  EXPECT_TRUE(three->config().headNorms);
  EXPECT_EQ(three->tensorName(TensorRole::QueryNorm, 3),
            "blk.3.attn_q_norm.weight");
  EXPECT_EQ(three->tensorName(TensorRole::KeyNorm, 3),
            "blk.3.attn_k_norm.weight");
}

/// No field says it; those of qwen2 are always those of q, k and v.
TEST_F(GGUFTest, FindsBiases) {
  EXPECT_FALSE(read(smallModel())->config().attentionBias);
  for (const char *name :
       {"blk.0.attn_q.bias", "blk.0.attn_k.bias", "blk.0.attn_v.bias"}) {
    GGUFWriter file = smallModel();
    file.tensor(name, {1}, 0, "bias");
    EXPECT_TRUE(read(file)->config().attentionBias);
    EXPECT_FALSE(read(file)->config().outputBias);
  }
  for (const char *architecture : {"llama", "qwen2", "qwen3"}) {
    GGUFWriter file = smallModel(32, architecture);
    file.tensor("blk.0.attn_output.bias", {1}, 0, "bias");
    const bool isQwen2 = architecture == std::string("qwen2");
    EXPECT_EQ(read(file)->config().attentionBias, isQwen2);
    EXPECT_EQ(read(file)->config().outputBias, !isQwen2);
  }
  std::unique_ptr<ModelFile> model = read(smallModel());
  EXPECT_EQ(model->tensorName(TensorRole::QueryBias, 2), "blk.2.attn_q.bias");
  EXPECT_EQ(model->tensorName(TensorRole::KeyBias, 2), "blk.2.attn_k.bias");
  EXPECT_EQ(model->tensorName(TensorRole::ValueBias, 2), "blk.2.attn_v.bias");
  EXPECT_EQ(model->tensorName(TensorRole::AttentionOutputBias, 2),
            "blk.2.attn_output.bias");
}

//===----------------------------------------------------------------------===//
// Refused models
//===----------------------------------------------------------------------===//

TEST_F(GGUFTest, RefusesOtherArchitectures) {
  EXPECT_EQ(failureWith("general.architecture", "mamba"),
            (directory / "model.gguf").string() +
                ": unsupported architecture 'mamba', expected llama, qwen2 or "
                "qwen3");
  EXPECT_THAT(
      failure(smallModel().erase("general.architecture")),
      EndsWith("unsupported architecture '', expected llama, qwen2 or qwen3"));
  EXPECT_THAT(failureWith("general.architecture", "qwen2"),
              EndsWith("missing 'qwen2.block_count'"));
}

TEST_F(GGUFTest, RefusesWhatChangesTheModel) {
  EXPECT_THAT(failureWith("split.count", 3),
              EndsWith("split.count of 3 is not supported: join the parts "
                       "first"));
  EXPECT_THAT(failureWith("llama.expert_count", 8),
              EndsWith("llama.expert_count of 8 is not supported"));
  EXPECT_THAT(failureWith("llama.attention.sliding_window", 127),
              EndsWith("llama.attention.sliding_window of 127 in a context of "
                       "128 is not supported"));
  EXPECT_EQ(failureWith("llama.attention.sliding_window", 128), "");
  EXPECT_THAT(failureWith("llama.logit_scale", 0.5f),
              EndsWith("llama.logit_scale of 0.50 is not supported"));
  EXPECT_THAT(
      failureWith("llama.attention.value_length", 16),
      EndsWith("llama.attention.value_length of 16 for keys of 8 is not "
               "supported"));
}

TEST_F(GGUFTest, RefusesOtherRopes) {
  EXPECT_THAT(failureWith("llama.rope.scaling.type", "yarn"),
              EndsWith("unsupported llama.rope.scaling.type 'yarn', expected "
                       "none"));
  EXPECT_THAT(failureWith("llama.rope.scale_linear", 4.0f),
              EndsWith("llama.rope.scale_linear of 4.00 is not supported"));
  EXPECT_THAT(failureWith("llama.rope.dimension_count", 4),
              EndsWith("llama.rope.dimension_count of 4 for heads of 8 is not "
                       "supported"));
  EXPECT_THAT(failureWith("llama.rope.freq_base", 0.0f),
              EndsWith("expected a positive llama.rope.freq_base, got 0.00"));
  EXPECT_EQ(failureWith("llama.rope.scaling.type", "none"), "");
  EXPECT_THAT(failureWith("llama.rope.scaling.factor", 8.0f),
              EndsWith("llama.rope.scaling.factor of 8.00 is not supported"));
  EXPECT_EQ(failureWith("llama.rope.scaling.factor", 1.0f), "");
  GGUFWriter file = smallModel();
  file.tensor("rope_freqs.weight", {3}, 0, std::string(12, '\0'));
  EXPECT_THAT(failure(file),
              EndsWith("expected 'rope_freqs.weight' of shape [4] in f32, got "
                       "[3] in f32"));
  file = smallModel();
  file.tensor("rope_freqs.weight", {4}, 0, std::string(16, '\0'));
  EXPECT_THAT(failure(file), EndsWith("expected positive factors in "
                                      "'rope_freqs.weight', got 0.00"));
}

TEST_F(GGUFTest, RefusesBadFields) {
  EXPECT_THAT(
      failure(smallModel(32, "qwen3").set("qwen3.rope.freq_base", -1.0f)),
      EndsWith("expected a positive qwen3.rope.freq_base, got -1.00"));
  EXPECT_THAT(failure(smallModel().erase("llama.block_count")),
              EndsWith("missing 'llama.block_count'"));
  EXPECT_THAT(failureWith("llama.block_count", "many"),
              EndsWith("expected an integer for 'llama.block_count'"));
  EXPECT_THAT(
      failureWith("llama.attention.head_count_kv", std::vector<int>{2, 1}),
      EndsWith("expected an integer for "
               "'llama.attention.head_count_kv'"));
  EXPECT_THAT(failureWith("llama.block_count", 4000),
              EndsWith("4000 layers, but only 2 tensors"));
  EXPECT_THAT(failureWith("tokenizer.ggml.eos_token_id", 3),
              EndsWith("end-of-text id 3 is outside the vocabulary of 3"));
  EXPECT_THAT(failureWith("tokenizer.ggml.eos_token_id", -1),
              EndsWith("expected a token id for 'tokenizer.ggml.eos_token_id', "
                       "got 4294967295"));
}

TEST_F(GGUFTest, RefusesAModelWithoutAnEmbedding) {
  GGUFWriter file = smallModel();
  std::string bytes = file.write();
  bytes.replace(bytes.find("token_embd"), 10, "token_embx");
  EXPECT_THAT(messageOf(open(bytes)),
              EndsWith("expected a matrix 'token_embd.weight'"));
}

//===----------------------------------------------------------------------===//
// Refused tensors
//===----------------------------------------------------------------------===//

TEST_F(GGUFTest, RefusesOtherTensorTypes) {
  GGUFWriter file = smallModel();
  file.tensor("x", {1, 256}, 11, std::string(110, 'x'));
  EXPECT_THAT(failure(file),
              EndsWith("tensor 'x' has unsupported type q3_K (11), expected "
                       "f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q4_K, "
                       "q5_K or q6_K"));
  file = smallModel();
  file.tensor("x", {1, 256}, 999, "");
  EXPECT_THAT(failure(file), HasSubstr("unsupported type unknown (999)"));
}

TEST_F(GGUFTest, RefusesBadTensors) {
  GGUFWriter file = smallModel();
  file.tensor("x", {2, 33}, 8, std::string(80, 'x'));
  EXPECT_THAT(failure(file),
              EndsWith("tensor 'x' cannot have shape [2, 33] in q8_0"));
  file = smallModel();
  file.tensor("x", {2, 288}, 14, std::string(480, 'x'));
  EXPECT_THAT(failure(file),
              EndsWith("tensor 'x' cannot have shape [2, 288] in q6_K"));
  file = smallModel();
  file.tensor("x", {2, 256}, 14, std::string(210, 'x'));
  EXPECT_THAT(failure(file), HasSubstr("tensor 'x' of 420 bytes at "));
  file = smallModel();
  file.tensor("x", {1ll << 40, 1ll << 40}, 0, "");
  EXPECT_THAT(failure(file), HasSubstr("cannot have shape [1099511627776, "));
  file = smallModel();
  file.tensor("x", {-1, 32}, 0, "");
  EXPECT_THAT(failure(file), EndsWith("cannot have shape [-1, 32] in f32"));
  file = smallModel();
  file.tensor("x", {1, 1, 1, 1, 1}, 0, "");
  EXPECT_THAT(failure(file), EndsWith("'x' has 5 dimensions, more than 4"));
  file = smallModel();
  file.tensor("x", {64}, 0, "too few");
  EXPECT_THAT(failure(file),
              EndsWith("tensor 'x' of 256 bytes at 256 lies outside the 263 "
                       "bytes of data"));
  file = smallModel();
  file.tensorAt(UINT64_MAX - 31, "x", {64}, 0, "");
  EXPECT_THAT(failure(file), HasSubstr("at 18446744073709551584 lies outside"));
  file = smallModel();
  file.tensorAt(7, "x", {1}, 0, "");
  EXPECT_THAT(failure(file), EndsWith("tensor 'x' at 7 is not aligned to 32"));
}

TEST_F(GGUFTest, RefusesTensorsThatCollide) {
  GGUFWriter file = smallModel();
  file.tensor("output_norm.weight", {1}, 0, "1234");
  EXPECT_THAT(failure(file),
              EndsWith("tensor 'output_norm.weight' is given twice"));
  file = smallModel();
  file.tensorAt(32, "x", {1}, 0, "");
  EXPECT_THAT(failure(file),
              EndsWith("tensors 'token_embd.weight' and 'x' overlap"));
}

//===----------------------------------------------------------------------===//
// Refused headers
//===----------------------------------------------------------------------===//

TEST_F(GGUFTest, RefusesOtherFiles) {
  EXPECT_THAT(messageOf(open("ELF, or what you like")),
              EndsWith("model.gguf: neither a GGUF file nor a directory"));
  EXPECT_THAT(messageOf(open(start(1))),
              EndsWith("unsupported GGUF version 1, expected 2 or 3"));
  EXPECT_THAT(messageOf(open(start(0x03000000))),
              EndsWith("big-endian GGUF files are not supported"));
  EXPECT_THAT(messageOf(open(start(3) + "123")),
              EndsWith("the header ends at byte 11, in the middle of a field"));
}

TEST_F(GGUFTest, RefusesCountsBeyondTheFile) {
  EXPECT_THAT(
      messageOf(open(start(3) + raw<uint64_t>(1ull << 60) + raw<uint64_t>(0))),
      EndsWith("1152921504606846976 tensors cannot be in the 8 bytes "
               "left of the header"));
  EXPECT_THAT(
      messageOf(open(start(3) + raw<uint64_t>(0) + raw<uint64_t>(UINT64_MAX))),
      EndsWith("18446744073709551615 metadata entries cannot be in the 0 "
               "bytes left of the header"));
  EXPECT_THAT(
      failure(smallModel().set("x", GGUFWriter::Array,
                               raw<uint32_t>(GGUFWriter::I32) +
                                   raw<uint64_t>(1ull << 62))),
      HasSubstr("4611686018427387904 array elements cannot be in the "));
  EXPECT_THAT(
      failure(
          smallModel().set("x", GGUFWriter::String, raw<uint64_t>(UINT64_MAX))),
      HasSubstr("a string of 18446744073709551615 bytes ends beyond the "
                "file of "));
  const std::string field = GGUFWriter::string("key") +
                            raw<uint32_t>(GGUFWriter::String) +
                            raw<uint64_t>(5) + "four";
  EXPECT_THAT(
      messageOf(open(start(3) + raw<uint64_t>(0) + raw<uint64_t>(1) + field)),
      EndsWith("a string of 5 bytes ends beyond the file of 51"));
}

TEST_F(GGUFTest, RefusesOddMetadata) {
  EXPECT_THAT(failure(smallModel().set("x", 13, "")),
              EndsWith("metadata type 13 is not supported"));
  EXPECT_THAT(failure(smallModel().set("x", GGUFWriter::Array,
                                       raw<uint32_t>(GGUFWriter::Array) +
                                           raw<uint64_t>(0))),
              EndsWith("arrays of metadata type 9 are not supported"));
  std::string twice = smallModel().set("llama.block_couns", 1).write();
  twice.replace(twice.find("couns"), 5, "count");
  EXPECT_THAT(messageOf(open(twice)),
              EndsWith("metadata 'llama.block_count' is given twice"));
  EXPECT_EQ(failure(smallModel().set("x", GGUFWriter::U64,
                                     raw<uint64_t>(UINT64_MAX))),
            "");
}
