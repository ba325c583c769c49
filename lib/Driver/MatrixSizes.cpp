//===- MatrixSizes.cpp - How large the matrices of a model are ------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/MatrixSizes.h"

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"

#include <cassert>

using namespace mlir::llm;

/// What a linear layer multiplies with: an embedding that is the head too comes
/// first.
static const llm_weight_desc *lastMention(const llm_program &program,
                                          llvm::StringRef tensor) {
  const llm_weight_desc *last = nullptr;
  for (const llm_weight_desc &weight :
       llvm::ArrayRef(program.weights, program.num_weights))
    if (llvm::is_contained(llvm::ArrayRef(weight.names, weight.num_names),
                           tensor))
      last = &weight;
  return last;
}

static const char *packedFormat(const llm_weight_desc &weight) {
  if (weight.layout == LLM_LAYOUT_BLOCKS32)
    return llm_file_format_name(weight.format);
  return weight.dtype == LLM_F32 ? "f32" : "bf16";
}

static void addFormat(std::vector<MatrixFormat> &formats,
                      llvm::StringRef inFile, llvm::StringRef packed) {
  auto found = llvm::find_if(formats, [&](const MatrixFormat &format) {
    return format.inFile == inFile;
  });
  if (found == formats.end())
    found = formats.insert(found, {inFile.str(), {}});
  if (!llvm::is_contained(found->packed, packed))
    found->packed.push_back(packed.str());
}

static void add(MatrixSize &sum, const ModelFile &file,
                const llm_program &program, TensorRole role,
                int64_t layer = 0) {
  const TensorInfo *matrix = file.find(file.tensorName(role, layer));
  assert(matrix && "checked at import");
  const llm_weight_desc *weight = lastMention(program, matrix->name);
  assert(weight && "checked at load");
  sum.parameters += matrix->shape[0] * matrix->shape[1];
  sum.fileBytes += int64_t(matrix->bytes);
  addFormat(sum.formats, llm_file_format_name(matrix->format),
            packedFormat(*weight));
}

MatrixSizes mlir::llm::matrixSizesOf(const ModelFile &file,
                                     const llm_program &program) {
  MatrixSizes sizes;
  for (int64_t layer = 0; layer < file.config().layers; ++layer)
    for (TensorRole role : {TensorRole::Query, TensorRole::Key,
                            TensorRole::Value, TensorRole::AttentionOutput,
                            TensorRole::Gate, TensorRole::Up, TensorRole::Down})
      add(sizes.layers, file, program, role, layer);
  add(sizes.head, file, program, TensorRole::Head);
  return sizes;
}

static std::string describe(const MatrixFormat &format, llvm::StringRef as) {
  if (format.packed.size() == 1 &&
      (format.packed[0] == format.inFile || format.packed[0] == as))
    return format.inFile;
  return format.inFile + " packed as " + llvm::join(format.packed, " and ");
}

std::string mlir::llm::describeFormats(const MatrixSize &size,
                                       llvm::StringRef as) {
  auto formats =
      llvm::map_range(size.formats, [as](const MatrixFormat &format) {
        return describe(format, as);
      });
  return llvm::join(formats, ", ");
}
