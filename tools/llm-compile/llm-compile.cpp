//===- llm-compile.cpp - A model module as native code in a file ----------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/CodeGenerator.h"
#include "llm/Driver/Linker.h"
#include "llm/Driver/ProgramHeader.h"
#include "llm/Import/ToolOptions.h"
#include "llm/Transforms/Passes.h"

#include "mlir/IR/MLIRContext.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Support/FileUtilities.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/InitLLVM.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/SourceMgr.h"
#include "llvm/Support/ToolOutputFile.h"

namespace cl = llvm::cl;
using namespace mlir;
using namespace mlir::llm;
using ::llvm::Error;
using ::llvm::Expected;
using ::llvm::StringRef;

static cl::OptionCategory category("Options");
static cl::opt<std::string> source(cl::Positional, cl::Required,
                                   cl::desc("<model.mlir | ->"));
static cl::opt<std::string>
    output("o", cl::Required, cl::value_desc("file"), cl::cat(category),
           cl::desc("model.so (a shared library, linked by lld), model.o (an "
                    "object) or model.ll (optimized LLVM IR)"));
static cl::opt<std::string>
    header("header", cl::value_desc("file"), cl::cat(category),
           cl::desc("The C header of the program (default: beside a library or "
                    "an object, named like it)"));
static cl::opt<bool> noHeader("no-header", cl::cat(category),
                              cl::desc("Write no header"));
static cl::opt<std::string>
    name("name", cl::value_desc("name"), cl::cat(category),
         cl::desc("What the program is called: the code exports NAME_program "
                  "(default: as the module is, else model)"));
static cl::opt<std::string>
    cpu("cpu", cl::init("native"), cl::value_desc("name"), cl::cat(category),
        cl::desc("The CPU to compile for, by LLVM's name, like x86-64-v3 or "
                 "znver4 (default: native, this machine's). A program is "
                 "refused where its CPU's instructions are missing"));
static cl::opt<Activations>
    activations("activations", cl::init(Activations::I8), cl::cat(category),
                cl::desc("What linear layers may round their input to"),
                cl::values(clEnumValN(Activations::I8, "int8", "(default)"),
                           clEnumValN(Activations::BF16, "bf16", ""),
                           clEnumValN(Activations::F32, "f32", "")));
static cl::opt<int64_t>
    rowsOfBlock("rows-of-block", cl::init(64), cl::value_desc("rows"),
                cl::cat(category),
                cl::desc("Tokens of a prompt that go through the layers "
                         "between attention together: 32 for each thread are "
                         "good (default: 64)"));

static constexpr StringRef prefix = "llm-compile: ";

static Error pathError(std::error_code code, const ::llvm::Twine &path) {
  return ::llvm::createStringError(code, path + ": " +
                                             StringRef(code.message()).lower());
}

static Error writeFile(StringRef path, StringRef content) {
  std::error_code code;
  ::llvm::ToolOutputFile file(path, code, ::llvm::sys::fs::OF_None);
  if (code)
    return pathError(code, path);
  file.os() << content;
  file.os().close();
  if (std::error_code written = file.os().error()) {
    file.os().clear_error();
    return pathError(written, path);
  }
  file.keep();
  return Error::success();
}

static Error compile(StringRef suffix, CodeGenerator &generator,
                     ModuleOp module) {
  if (suffix == ".ll") {
    Expected<std::string> text = generator.compileToIR(module);
    return text ? writeFile(output, *text) : text.takeError();
  }
  auto object = generator.compileToObject(module);
  if (!object)
    return object.takeError();
  const StringRef code = (*object)->getBuffer();
  if (Error error =
          suffix == ".so" ? linkLibrary(code, output) : writeFile(output, code))
    return error;
  if (noHeader)
    return Error::success();
  ::llvm::SmallString<128> path(StringRef(header).empty() ? output : header);
  if (header.empty())
    ::llvm::sys::path::replace_extension(path, ".h");
  return writeFile(path, headerOf(generator.program()));
}

static Error run(StringRef suffix, CodeGenerator &generator) {
  std::string message;
  auto file = openInputFile(source, &message);
  if (!file)
    return ::llvm::createStringError(message);
  if (file->getBuffer().starts_with("GGUF"))
    return ::llvm::createStringError(
        source +
        " is a GGUF file, expected a module as llm-import makes of it");
  DialectRegistry registry;
  registerPipelineDialects(registry);
  MLIRContext context(registry);
  ::llvm::SourceMgr sources;
  sources.AddNewSourceBuffer(std::move(file), ::llvm::SMLoc());
  SourceMgrDiagnosticHandler handler(sources, &context);
  auto module = parseSourceFile<ModuleOp>(sources, &context);
  if (!module)
    return ::llvm::createStringError(source + " could not be parsed");
  return compile(suffix, generator, *module);
}

int main(int argc, char **argv) {
  ::llvm::InitLLVM init(argc, argv);
  presentTool("llm-compile", &category);
  const char *overview =
      "Compiles a module of the llm dialect (of llm-import, say) to native "
      "code.\nThe code holds no weights: llm-run -m model.so --weights FILE "
      "runs it, and a\nprogram in C or C++ that includes model.h and links "
      "libllm_runtime.";
  if (!cl::ParseCommandLineOptions(argc, argv, overview, &::llvm::errs()))
    return 2;
  ::llvm::ExitOnError exitOnUsage(prefix.str() + "error: ", 2);
  ::llvm::ExitOnError exitOnError(prefix.str() + "error: ");
  const StringRef suffix = ::llvm::sys::path::extension(output);
  if (suffix != ".so" && suffix != ".o" && suffix != ".ll")
    exitOnUsage(::llvm::createStringError(
        "expected -o to end in .so, .o or .ll, got '" + output + "'"));
  if (!header.empty() && (noHeader || suffix == ".ll"))
    exitOnUsage(::llvm::createStringError(
        noHeader ? "--header and --no-header exclude each other"
                 : "--header needs -o with a library or an object"));
  if (rowsOfBlock < 1)
    exitOnUsage(::llvm::createStringError(
        "expected --rows-of-block of at least 1, got " +
        ::llvm::Twine(rowsOfBlock)));
  CompileOptions options;
  options.activations = activations;
  options.rowsOfBlock = rowsOfBlock;
  options.cpu = cpu;
  options.name = name;
  CodeGenerator generator = exitOnUsage(CodeGenerator::create(options));
  exitOnError(run(suffix, generator));
}
