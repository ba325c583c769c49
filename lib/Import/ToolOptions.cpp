//===- ToolOptions.cpp - --help and --version of our tools ----------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Import/ToolOptions.h"

#include "llvm/Config/llvm-config.h"
#include "llvm/Support/raw_ostream.h"

using llvm::StringRef;
namespace cl = llvm::cl;

std::string mlir::llm::describeVersion(StringRef tool) {
  return (tool + " " LLM_VERSION " (LLVM " LLVM_VERSION_STRING ")").str();
}

void mlir::llm::presentTool(
    StringRef tool, ::llvm::ArrayRef<const cl::OptionCategory *> options) {
  cl::HideUnrelatedOptions(options);
  auto &known = cl::getRegisteredOptions();
  if (cl::Option *help = known.lookup("help"))
    help->setDescription("Print this");
  if (cl::Option *list = known.lookup("help-list"))
    list->setDescription("Print this as one list");
  if (cl::Option *version = known.lookup("version"))
    version->setDescription("Print the version of this program and of LLVM");
  cl::SetVersionPrinter([tool = tool.str()](::llvm::raw_ostream &os) {
    os << describeVersion(tool) << '\n';
  });
}
