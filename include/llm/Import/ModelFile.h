//===- ModelFile.h - A model as it lies on disk -*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_IMPORT_MODELFILE_H
#define LLM_IMPORT_MODELFILE_H

#include "llm/Runtime/CAPI.h"

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <memory>
#include <string>
#include <vector>

namespace mlir::llm {

/// A tensor of the file. `data` stays valid as long as the ModelFile.
struct TensorInfo {
  std::string name;                      ///< verbatim
  llm_file_format format;                ///< f32, f16, bf16, q8_0, ...
  ::llvm::SmallVector<int64_t, 2> shape; ///< row-major: [rows, columns]
  const void *data;                      ///< any alignment
  uint64_t bytes;
};

/// What the importer and the runner need to know of a model.
struct ModelConfig {
  std::string family; ///< "llama", "mistral", "qwen2", "qwen3"
  int64_t layers = 0;
  int64_t hidden = 0;
  int64_t heads = 0; ///< query heads
  int64_t kvHeads = 0;
  int64_t headDim = 0;
  int64_t ffn = 0;
  int64_t vocab = 0;
  int64_t context = 0; ///< tokens the model was trained for
  double normEpsilon = 1e-5;
  bool tiedHead = false;      ///< the head is the embedding
  bool attentionBias = false; ///< of q, k and v
  bool outputBias = false;    ///< of the attention's output
  bool headNorms = false;     ///< of q and k, over each head, before RoPE
  bool adjacentRope =
      false; ///< GGUF's llama: lanes 2i, 2i + 1; else i, i + D/2
  /// D/2 inverse frequencies: computed in f64 with the file's scaling (none,
  /// llama3, or the tensor rope_freqs.weight), rounded once.
  std::vector<float> ropeInverseFrequencies;
  std::vector<int32_t> eosIds; ///< every id that ends a generation
};

/// The parts of a model, by role.
enum class TensorRole {
  Embedding,
  AttentionNorm,
  Query,
  Key,
  Value,
  AttentionOutput,
  FFNNorm,
  Gate,
  Up,
  Down,
  FinalNorm,
  Head,
  // Of some models:
  QueryBias,
  KeyBias,
  ValueBias,
  AttentionOutputBias,
  QueryNorm,
  KeyNorm,
};

/// A GGUF file, or a Hugging Face directory with config.json and safetensors
/// (one file, or shards with an index). Mapped, never copied.
class ModelFile {
public:
  /// Fails with what is wrong and where: bad path, damaged file, unknown
  /// architecture, tensor type, RoPE scaling, ...: by name, never guessed.
  static ::llvm::Expected<std::unique_ptr<ModelFile>>
  open(::llvm::StringRef path);

  virtual ~ModelFile();

  const std::string &path() const { return filePath; }
  const ModelConfig &config() const { return modelConfig; }

  /// Every tensor but those that need no use (`*.rotary_emb.inv_freq`, a tied
  /// model's `lm_head.weight`, `rope_freqs.weight`).
  ::llvm::ArrayRef<TensorInfo> tensors() const { return tensorList; }
  /// Null if there is none of that name.
  const TensorInfo *find(::llvm::StringRef name) const;

  /// The source's name of a tensor ("blk.3.attn_q.weight",
  /// "model.layers.3.self_attn.q_proj.weight"); `layer` counts for those roles
  /// that every layer has. A tied head is named like the embedding.
  virtual std::string tensorName(TensorRole role, int64_t layer = 0) const = 0;

  /// Lets the system forget the file's pages; they are read again on demand.
  virtual void releasePages() const = 0;

protected:
  ModelFile() = default;

  std::string filePath;
  ModelConfig modelConfig;
  std::vector<TensorInfo> tensorList;
};

} // namespace mlir::llm

#endif // LLM_IMPORT_MODELFILE_H
