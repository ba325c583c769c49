//===- WeightLoaderTest.cpp - Tensors that do not fit ---------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ErrorMessage.h"

#include "llm/Driver/WeightLoader.h"
#include "llm/Import/ModelFile.h"

#include <gtest/gtest.h>

using namespace mlir::llm;

namespace {

struct FileOfCubes final : ModelFile {
  FileOfCubes() {
    for (const char *name : {"a", "b"})
      tensorList.push_back({name, LLM_FILE_F32, {1, 1, 1}, &value, 4});
  }
  std::string tensorName(TensorRole, int64_t) const override { return "a"; }
  void releasePages() const override {}

  float value = 0;
};

} // namespace

TEST(WeightLoaderTest, ListsTensorsOfTooManyDimensions) {
  EXPECT_EQ(messageOf(loadWeights(nullptr, FileOfCubes(), nullptr)),
            "expected a of at most 2 dimensions, got 3\n"
            "expected b of at most 2 dimensions, got 3");
}
