//===- llm-import.cpp - A model file as an MLIR module --------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Import/BuildModel.h"
#include "llm/Import/ModelFile.h"
#include "llm/Import/ToolOptions.h"

#include "mlir/IR/MLIRContext.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/ToolOutputFile.h"

#include <csignal>

namespace cl = llvm::cl;
using namespace mlir::llm;

static cl::OptionCategory category("Options");
static cl::opt<std::string> source(cl::Positional, cl::Required,
                                   cl::desc("<model.gguf | directory>"));
static cl::opt<std::string> output("o", cl::init("-"), cl::value_desc("file"),
                                   cl::desc("Where the module goes (default: "
                                            "standard output)"),
                                   cl::cat(category));
static cl::opt<ElementKind>
    weights("weights-as", cl::init(ElementKind::F32), cl::cat(category),
            cl::desc("What weight matrices hold when the model runs"),
            cl::values(clEnumValN(ElementKind::F32, "f32", "(default)"),
                       clEnumValN(ElementKind::BF16, "bf16", ""),
                       clEnumValN(ElementKind::Native, "native",
                                  "the blocks of a quantized file")));
static cl::opt<std::string>
    cache("cache-dtype", cl::init("f16"), cl::cat(category),
          cl::value_desc("format"),
          cl::desc("What the KV cache holds: f32, f16 (default), bf16, or "
                   "quantized f8, i8 or i4; K:V like i8:f8 for different "
                   "formats of K and V"));
static cl::opt<int> window("window", cl::value_desc("tokens"),
                           cl::desc("A token sees this many (default: all)"),
                           cl::cat(category));
static cl::opt<int> sinks("sinks", cl::value_desc("tokens"),
                          cl::desc("Beside the window, the first tokens"),
                          cl::cat(category));

static llvm::Error outputError(std::error_code code) {
  const llvm::StringRef path = output;
  return llvm::createStringError(
      code, (path == "-" ? "standard output" : path) + ": " +
                llvm::StringRef(code.message()).lower());
}

static llvm::Error run(const CacheFormats &cacheFormats) {
  auto model = ModelFile::open(source);
  if (!model)
    return model.takeError();
  mlir::MLIRContext context;
  auto module =
      buildModel(context, **model, {weights, cacheFormats, window, sinks});
  if (!module)
    return module.takeError();
  std::error_code code;
  llvm::ToolOutputFile file(output, code, llvm::sys::fs::OF_Text);
  if (code)
    return outputError(code);
  (*module)->print(file.os(), mlir::OpPrintingFlags().printNameLocAsPrefix());
  file.os().flush();
  if (std::error_code written = file.os().error()) {
    file.os().clear_error();
    return outputError(written);
  }
  file.keep();
  return llvm::Error::success();
}

int main(int argc, char **argv) {
  // A reader that has enough ends the process, whatever its parent made of it.
  std::signal(SIGPIPE, SIG_DFL);
  presentTool("llm-import", &category);
  const char *overview = "A model (GGUF file or Hugging Face directory) as a "
                         "module of the llm dialect; weights stay in the file";
  if (!cl::ParseCommandLineOptions(argc, argv, overview, &llvm::errs()))
    return 2;
  llvm::ExitOnError exitOnUsage("llm-import: error: ", 2);
  llvm::ExitOnError exitOnError("llm-import: error: ");
  exitOnError(run(exitOnUsage(parseCacheFormats(cache))));
}
