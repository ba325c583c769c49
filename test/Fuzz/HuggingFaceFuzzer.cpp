//===- HuggingFaceFuzzer.cpp - Any bytes as a configuration ---------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The first byte says which file of a directory the others are: c for
// config.json, g for generation_config.json, i for the index of the shards.
//
//===----------------------------------------------------------------------===//

#include "FuzzInput.h"

using namespace mlir::llm;
using namespace mlir::llm::fuzz;
using llvm::StringRef;

static constexpr const char *config =
    R"({"model_type":"llama","hidden_size":4,"intermediate_size":4,)"
    R"("num_hidden_layers":1,"num_attention_heads":2,"vocab_size":2,)"
    R"("eos_token_id":[0,1],"rope_theta":100,"head_dim":2})";

static constexpr const char *header =
    R"({"model.norm.weight":{"dtype":"BF16","shape":[4],)"
    R"("data_offsets":[0,8]}})";

static std::string safetensors() {
  uint64_t size = StringRef(header).size();
  std::string bytes(reinterpret_cast<const char *>(&size), sizeof(size));
  return bytes + header + std::string(8, 'd');
}

namespace {

/// A model, one of whose files is the input.
struct Model {
  explicit Model(const std::string &file) {
    const bool isIndex = file == "model.safetensors.index.json";
    directory.add(isIndex ? "shard" : "model.safetensors", safetensors());
    if (file != "config.json")
      directory.add("config.json", config);
    directory.link(file, input);
  }

  void open(StringRef bytes) {
    input.fill(bytes);
    auto model = ModelFile::open(directory.path());
    if (verdicts.accept(model))
      readData((*model)->tensors());
  }

  MemoryFile input;
  ModelDirectory directory;
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static Model configuration("config.json");
  static Model generation("generation_config.json");
  static Model index("model.safetensors.index.json");
  StringRef bytes(reinterpret_cast<const char *>(data), size);
  if (bytes.consume_front("c"))
    configuration.open(bytes);
  else if (bytes.consume_front("g"))
    generation.open(bytes);
  else if (bytes.consume_front("i"))
    index.open(bytes);
  else
    return -1;
  return 0;
}
