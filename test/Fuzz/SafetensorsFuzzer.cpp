//===- SafetensorsFuzzer.cpp - Any bytes as safetensors -------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "FuzzInput.h"
#include "Safetensors.h"

using namespace mlir::llm;
using namespace mlir::llm::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  llvm::StringRef bytes(reinterpret_cast<const char *>(data), size);
  auto tensors = readSafetensors("input", bytes);
  if (verdicts.accept(tensors))
    readData(*tensors);
  return 0;
}
