//===- BuildModel.h - A model file as an MLIR module -----------*- C++ -*-===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef LLM_IMPORT_BUILDMODEL_H
#define LLM_IMPORT_BUILDMODEL_H

#include "llm/Import/CacheFormats.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OwningOpRef.h"
#include "llvm/Support/Error.h"

namespace mlir::llm {

class ModelFile;
struct ModelConfig;

/// What weight matrices hold. Native: quantized blocks, those of the file or
/// the smallest that all tensors of the matrix fit into (`#llm.weight`), and
/// bf16 what has none: the embedding, which is read row by row, and a matrix
/// made of tensors that are not all quantized.
enum class ElementKind { F32, BF16, Native };

/// Whether linear layers of the model have weights that are quantized.
bool hasQuantizedWeights(const ModelFile &model);

struct ImportOptions {
  ElementKind weights = ElementKind::F32;
  CacheFormats cache = {};
  /// A token sees the last `window` ones (0: all) and the first `sinks`.
  int32_t window = 0, sinks = 0;
};

/// What a host wants to know of the model, and what the code of its module has
/// in it beside weights, as JSON: the module's llm.metadata.
std::string metadataOf(const ModelConfig &config);

/// Builds the module of `model`: one private function @layer for all layers,
/// or one for each kind of them whose weights have other formats, and the entry
///
///   @forward(tokens [T], seq_ids [B], cu_seqlens [B+1], logit_rows [R],
///            cache, weights...) -> (logits [R, vocab], cache)
///
/// over a ragged batch. Weight arguments carry `#llm.weight` with the source's
/// tensor names. Fails, naming the tensor, when the file lacks one or holds it
/// in another shape: all problems in one message; when there are sinks without
/// a window; and when weights shall be native but none is quantized.
::llvm::Expected<OwningOpRef<ModuleOp>>
buildModel(MLIRContext &context, const ModelFile &model,
           const ImportOptions &options);

} // namespace mlir::llm

#endif // LLM_IMPORT_BUILDMODEL_H
