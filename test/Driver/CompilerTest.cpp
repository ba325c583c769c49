//===- CompilerTest.cpp - Modules that are no models, and kept code -------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ErrorMessage.h"
#include "ScratchFolder.h"

#include "llm/Driver/Compiler.h"
#include "llm/Driver/Linker.h"
#include "llm/Driver/ObjectCache.h"
#include "llm/Transforms/Passes.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Parser/Parser.h"
#include "llvm/TargetParser/Host.h"
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <thread>

using namespace mlir;
using namespace mlir::llm;

//===----------------------------------------------------------------------===//
// Modules that are no models
//===----------------------------------------------------------------------===//

/// What is wrong with the text as a model.
static std::string failureOf(const char *ir) {
  DialectRegistry registry;
  registerPipelineDialects(registry);
  MLIRContext context(registry, MLIRContext::Threading::DISABLED);
  context.allowUnregisteredDialects();
  ScopedDiagnosticHandler quiet(&context, [](Diagnostic &) {});
  auto module = parseSourceString<ModuleOp>(ir, &context);
  return module ? messageOf(CompiledModel::compile(*module)) : "no module";
}

TEST(CompilerTest, SaysThatLoweringFailed) {
  EXPECT_EQ(failureOf("func.func @entry(%buffer: memref<4xf32>) { return }"),
            "the model could not be lowered");
}

TEST(CompilerTest, SaysThatTranslationFailed) {
  EXPECT_EQ(
      failureOf(R"(func.func @entry() { "other.op"() : () -> () return })"),
      "the model could not be translated to LLVM IR");
}

//===----------------------------------------------------------------------===//
// Kept code
//===----------------------------------------------------------------------===//

namespace {

struct Compilation {
  std::unique_ptr<CompiledModel> model;
  bool lowered = false;

  bool isCached() const {
    EXPECT_EQ(model->isCached(), !lowered);
    return model->isCached();
  }
};

} // namespace

static const char *const twice = R"(
func.func @twice(%x: tensor<2xf32>) -> tensor<2xf32> {
  %new = tensor.empty() : tensor<2xf32>
  %y = linalg.add ins(%x, %x : tensor<2xf32>, tensor<2xf32>)
                  outs(%new : tensor<2xf32>) -> tensor<2xf32>
  return %y : tensor<2xf32>
})";

static Compilation compile(const std::string &ir,
                           const CompileOptions &options) {
  DialectRegistry registry;
  registerPipelineDialects(registry);
  MLIRContext context(registry, MLIRContext::Threading::DISABLED);
  auto module = parseSourceString<ModuleOp>(ir, ParserConfig(&context), "ir");
  auto model = CompiledModel::compile(*module, options);
  if (!model) {
    ADD_FAILURE() << messageOf(model.takeError());
    return {};
  }
  return {std::move(*model), module->getOps<func::FuncOp>().empty()};
}

/// What the program makes of 1 and 2.
static std::vector<float> run(const Compilation &compilation) {
  float values[] = {1, 2}, results[] = {0, 0};
  const llm_tensor input = {values, LLM_F32, 1, {2}, {1}};
  const llm_tensor output = {results, LLM_F32, 1, {2}, {1}};
  llm_context *context = nullptr;
  llm_model *model = nullptr;
  llm_error error = LLM_ERROR_INIT;
  EXPECT_EQ(llm_context_create(1, &context, &error), LLM_OK);
  EXPECT_EQ(
      llm_model_create(context, &compilation.model->program(), &model, &error),
      LLM_OK);
  EXPECT_EQ(llm_model_finish(model, &error), LLM_OK);
  EXPECT_EQ(llm_model_invoke(model, "twice", nullptr, 0, &input, 1, &output, 1,
                             &error),
            LLM_OK)
      << error.message;
  llm_model_destroy(model);
  llm_context_destroy(context);
  return {results, results + 2};
}

static const std::vector<float> doubled = {2, 4};

TEST(CompilerTest, ReadsWhatItKept) {
  ScratchFolder scratch;
  const CompileOptions options = {.cacheFolder = scratch.path()};
  const Compilation first = compile(twice, options);
  EXPECT_FALSE(first.isCached());
  EXPECT_EQ(run(first), doubled);
  ASSERT_EQ(scratch.names().size(), 1u);
  const std::string path = scratch.path(scratch.names()[0]);
  EXPECT_EQ(first.model->cacheRemark(), "kept in " + path);
  const Compilation second = compile(twice, options);
  EXPECT_TRUE(second.isCached());
  EXPECT_EQ(run(second), doubled);
  EXPECT_EQ(second.model->cacheRemark(), "read from " + path);
}

TEST(CompilerTest, KeepsNothingUnasked) {
  ScratchFolder scratch;
  for (const CompileOptions &options :
       {CompileOptions(),
        CompileOptions{.cacheFolder = scratch.path(), .build = ""}})
    for (int i = 0; i < 2; ++i) {
      const Compilation compilation = compile(twice, options);
      EXPECT_FALSE(compilation.isCached());
      EXPECT_EQ(compilation.model->cacheRemark(), "");
    }
  EXPECT_TRUE(scratch.names().empty());
}

TEST(CompilerTest, KeepsEachKindOfCodeByItself) {
  ScratchFolder scratch;
  const std::string folder = scratch.path();
  const std::string moved = "\n" + std::string(twice); // errors name the line
  const std::pair<std::string, CompileOptions> kinds[] = {
      {twice, {.cacheFolder = folder}},
      {twice, {.optLevel = 0, .cacheFolder = folder}},
      {twice, {.cpu = "x86-64", .cacheFolder = folder}},
      {twice, {.cpu = "nehalem", .cacheFolder = folder}},
      {twice, {.cacheFolder = folder, .build = "another"}},
      {moved, {.cacheFolder = folder}}};
  for (const auto &[ir, options] : kinds) {
    const Compilation compilation = compile(ir, options);
    EXPECT_FALSE(compilation.isCached());
    EXPECT_EQ(run(compilation), doubled);
  }
  EXPECT_EQ(scratch.names().size(), std::size(kinds));
  for (const auto &[ir, options] : kinds)
    EXPECT_TRUE(compile(ir, options).isCached());
}

TEST(CompilerTest, ReplacesWhatItCannotUse) {
  ScratchFolder scratch;
  const CompileOptions options = {.cacheFolder = scratch.path()};
  compile(twice, options);
  ASSERT_EQ(scratch.names().size(), 1u);
  const std::string name = scratch.names()[0];
  const ObjectCache cache(scratch.path());
  const std::string key = name.substr(0, name.size() - 2);
  const std::string object = cache.read(key)->getBuffer().str();
  // Sound entries that hold no object, and half of one.
  for (const std::string &wrong :
       {std::string("no object"), object.substr(0, object.size() / 2)}) {
    EXPECT_EQ(messageOf(cache.write(key, wrong)), "");
    const Compilation compilation = compile(twice, options);
    EXPECT_FALSE(compilation.isCached());
    EXPECT_EQ(run(compilation), doubled);
    EXPECT_EQ(cache.read(key)->getBuffer(), object);
  }
}

TEST(CompilerTest, WorksWithoutAFolder) {
  const CompileOptions options = {.cacheFolder = "/dev/null/llm"};
  for (int i = 0; i < 2; ++i) {
    const Compilation compilation = compile(twice, options);
    EXPECT_FALSE(compilation.isCached());
    EXPECT_EQ(run(compilation), doubled);
    EXPECT_EQ(compilation.model->cacheRemark(),
              "not kept: /dev/null/llm: not a directory");
  }
}

TEST(CompilerTest, TwoAtOnceShareAFolder) {
  ScratchFolder scratch;
  const CompileOptions options = {.cacheFolder = scratch.path()};
  auto compileAndRun = [&] {
    EXPECT_EQ(run(compile(twice, options)), doubled);
  };
  std::thread first(compileAndRun), second(compileAndRun);
  first.join();
  second.join();
  EXPECT_EQ(scratch.names().size(), 1u);
  EXPECT_TRUE(compile(twice, options).isCached());
}

//===----------------------------------------------------------------------===//
// CPUs and libraries
//===----------------------------------------------------------------------===//

/// An object with the program `twice` by another name, for any CPU.
static std::string objectNamed(const std::string &name) {
  DialectRegistry registry;
  registerPipelineDialects(registry);
  MLIRContext context(registry, MLIRContext::Threading::DISABLED);
  auto module = parseSourceString<ModuleOp>(twice, ParserConfig(&context));
  auto generator = CodeGenerator::create({.cpu = "x86-64", .name = name});
  auto object = generator->compileToObject(*module);
  return (*object)->getBuffer().str();
}

TEST(CompilerTest, UnknownCPUsAreRefused) {
  const std::string message =
      messageOf(CodeGenerator::create({.cpu = "z80"}).takeError());
  EXPECT_TRUE(llvm::StringRef(message).starts_with(
      "expected the CPU to be native or one of nocona, "))
      << message;
  EXPECT_TRUE(llvm::StringRef(message).ends_with(", got 'z80'")) << message;
}

TEST(CompilerTest, ProgramsNameWhatTheyNeed) {
  const Compilation any = compile(twice, {.cpu = "x86-64"});
  EXPECT_STREQ(any.model->program().cpu, "x86-64");
  EXPECT_STREQ(any.model->program().cpu_features, "");
  const Compilation v2 = compile(twice, {.cpu = "x86-64-v2"});
  EXPECT_STREQ(v2.model->program().cpu, "x86-64-v2");
  EXPECT_STREQ(v2.model->program().cpu_features, "sse4.2,popcnt");
  const Compilation here = compile(twice, {});
  EXPECT_EQ(here.model->program().cpu, llvm::sys::getHostCPUName());
  EXPECT_EQ(run(here), doubled);
}

TEST(CompilerTest, OpensLibraries) {
  ScratchFolder scratch;
  const std::string path = scratch.path() + "/twice.so";
  ASSERT_EQ(messageOf(linkLibrary(objectNamed("twice"), path)), "");
  auto opened = CompiledModel::open(path);
  ASSERT_TRUE(bool(opened)) << messageOf(opened.takeError());
  EXPECT_EQ(run({std::move(*opened), true}), doubled);
}

TEST(CompilerTest, RefusesWhatIsNoLibrary) {
  ScratchFolder scratch;
  const std::string path = scratch.path() + "/model.so";
  EXPECT_EQ(messageOf(CompiledModel::open(path)),
            path + ": no such file or directory");
  std::ofstream(path) << "text";
  EXPECT_EQ(messageOf(CompiledModel::open(path)),
            path + ": the file was not recognized as a valid object file");
  std::ofstream(path) << objectNamed("twice");
  EXPECT_EQ(messageOf(CompiledModel::open(path)),
            path + ": expected a shared library that exports one program, got "
                   "0 symbols *_program");
}

TEST(LinkerTest, SaysWhatTheLinkerSays) {
  ScratchFolder scratch;
  const std::string path = scratch.path() + "/model.so";
  std::ofstream(path) << "before";
  const std::string message = messageOf(linkLibrary("no object", path));
  EXPECT_NE(message.find("ld.lld"), std::string::npos) << message;
  EXPECT_NE(message.find("unknown directive: no"), std::string::npos)
      << message;
  EXPECT_EQ(scratch.names(), std::vector<std::string>{"model.so"});
  std::string content;
  std::ifstream(path) >> content;
  EXPECT_EQ(content, "before");
}

namespace {

/// Another value of a variable of the environment while it lives.
class Environment {
public:
  Environment(const char *name, const char *value) : name(name) {
    const char *set = std::getenv(name);
    isSet = set;
    before = set ? set : "";
    setenv(name, value, /*replace=*/1);
  }
  ~Environment() {
    if (isSet)
      setenv(name, before.c_str(), /*replace=*/1);
    else
      unsetenv(name);
  }

private:
  const char *name;
  std::string before;
  bool isSet;
};

} // namespace

TEST(LinkerTest, NeedsALinker) {
  ScratchFolder scratch;
  const Environment nowhere("PATH", "/nonexistent");
  EXPECT_EQ(messageOf(linkLibrary("x", scratch.path() + "/model.so")),
            "expected the linker ld.lld-22 on the path (Debian's package "
            "lld-22), found none; an object (-o model.o) needs no linker");
}

TEST(LinkerTest, NeedsAFolderForTemporaryFiles) {
  ScratchFolder scratch;
  const Environment nowhere("TMPDIR", "/nonexistent");
  EXPECT_EQ(messageOf(linkLibrary("x", scratch.path() + "/model.so")),
            "a temporary file: no such file or directory");
}
