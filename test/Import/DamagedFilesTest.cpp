//===- DamagedFilesTest.cpp - Files cut short and with flipped bits -------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Whatever the bytes are, a file is loaded or refused with a message, and the
// data of each tensor that was loaded can be read.
//
//===----------------------------------------------------------------------===//

#include "TestFiles.h"
#include "TestGGUF.h"
#include "llm/Import/ModelFile.h"
#include "llm/Import/Tokenizer.h"

#include <numeric>
#include <random>

using namespace mlir::llm;
using namespace mlir::llm::test;

namespace {

constexpr int numFlips = 7000; // of each of three kinds of file

class DamagedFilesTest : public FileTest {
protected:
  /// Counts what became of the files, so that a test can ask for both.
  void open(const fs::path &path);
  void flipAndOpen(const std::string &name, const std::string &bytes,
                   const fs::path &model, size_t headerBytes);
  void cutAndOpen(const std::string &name, const std::string &bytes,
                  const fs::path &model);

  int loaded = 0;
  int refused = 0;
};

/// A model of three tensors, split into what lies before the data and after.
struct SmallSafetensors {
  std::string header =
      R"({"model.embed_tokens.weight":{"dtype":"F32","shape":[2,4],)"
      R"("data_offsets":[0,32]},"model.norm.weight":{"dtype":"BF16",)"
      R"("shape":[4],"data_offsets":[32,40]},"lm_head.weight":)"
      R"({"dtype":"F16","shape":[2,4],"data_offsets":[40,56]}})";
  std::string config =
      R"({"model_type":"llama","hidden_size":4,"intermediate_size":4,)"
      R"("num_hidden_layers":1,"num_attention_heads":2,"vocab_size":2,)"
      R"("eos_token_id":[0,1],"rope_theta":100,"head_dim":2})";
  std::string file =
      raw<uint64_t>(header.size()) + header + std::string(56, 'd');
};

} // namespace

/// Reads all the data: a sanitizer sees where that leaves the file.
static unsigned sum(const ModelFile &model) {
  unsigned sum = 0;
  for (const TensorInfo &tensor : model.tensors()) {
    const auto *bytes = static_cast<const uint8_t *>(tensor.data);
    sum = std::accumulate(bytes, bytes + tensor.bytes, sum);
  }
  return sum;
}

void DamagedFilesTest::open(const fs::path &path) {
  auto model = ModelFile::open(path.string());
  if (model) {
    ++loaded;
    volatile unsigned used = sum(**model);
    (void)used;
  } else {
    ++refused;
    EXPECT_GT(llvm::toString(model.takeError()).size(), path.string().size());
  }
  if (auto tokenizer = Tokenizer::open(path.string()))
    (*tokenizer)->encode("abab a b\xff");
  else
    llvm::consumeError(tokenizer.takeError());
}

void DamagedFilesTest::cutAndOpen(const std::string &name,
                                  const std::string &bytes,
                                  const fs::path &model) {
  for (size_t size = 0; size < bytes.size(); ++size) {
    write(name, bytes.substr(0, size));
    open(model);
  }
  EXPECT_EQ(loaded, 0) << name;
  write(name, bytes);
  open(model);
  EXPECT_EQ(loaded, 1) << name;
}

void DamagedFilesTest::flipAndOpen(const std::string &name,
                                   const std::string &bytes,
                                   const fs::path &model, size_t headerBytes) {
  std::mt19937 random(20240229);
  for (int i = 0; i < numFlips; ++i) {
    std::string damaged = bytes;
    for (unsigned flips = 1 + random() % 3; flips > 0; --flips)
      damaged[random() % headerBytes] = char(random());
    write(name, damaged);
    open(model);
  }
  EXPECT_EQ(loaded + refused, numFlips);
  EXPECT_GT(loaded, 0) << name;
  EXPECT_GT(refused, 0) << name;
}

TEST_F(DamagedFilesTest, GGUFCutAnywhere) {
  cutAndOpen("model.gguf", smallTokenizer().write(), directory / "model.gguf");
}

TEST_F(DamagedFilesTest, GGUFWithOtherBytes) {
  std::string bytes = smallTokenizer().write();
  flipAndOpen("model.gguf", bytes, directory / "model.gguf",
              bytes.find("eeee"));
}

TEST_F(DamagedFilesTest, SafetensorsCutAnywhere) {
  SmallSafetensors model;
  write("config.json", model.config);
  cutAndOpen("model.safetensors", model.file, directory);
}

TEST_F(DamagedFilesTest, SafetensorsWithOtherBytes) {
  SmallSafetensors model;
  write("config.json", model.config);
  flipAndOpen("model.safetensors", model.file, directory,
              model.header.size() + sizeof(uint64_t));
}

TEST_F(DamagedFilesTest, ConfigCutAnywhere) {
  SmallSafetensors model;
  write("model.safetensors", model.file);
  cutAndOpen("config.json", model.config, directory);
}

TEST_F(DamagedFilesTest, ConfigWithOtherBytes) {
  SmallSafetensors model;
  write("model.safetensors", model.file);
  flipAndOpen("config.json", model.config, directory, model.config.size());
}
