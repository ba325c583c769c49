//===- RunOptionsTest.cpp - Command lines, good and bad -------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ErrorMessage.h"

#include "llm/Driver/RunOptions.h"

#include <gtest/gtest.h>

using namespace mlir::llm;

using Arguments = std::vector<const char *>;

static llvm::Expected<RunOptions> parse(Arguments arguments) {
  arguments.insert(arguments.begin(), "/usr/bin/llm-run");
  return parseRunOptions(arguments.size(), arguments.data());
}

static RunOptions expectParsed(const Arguments &arguments) {
  auto options = parse(arguments);
  if (options)
    return *options;
  ADD_FAILURE() << messageOf(std::move(options));
  return {};
}

static void expectBad(const Arguments &arguments, llvm::StringRef message) {
  EXPECT_EQ(messageOf(parse(arguments)), message.str());
}

//===----------------------------------------------------------------------===//
// Good
//===----------------------------------------------------------------------===//

TEST(RunOptionsTest, defaults) {
  RunOptions options = expectParsed({"-m", "model.gguf", "-p", "hello"});
  EXPECT_EQ(options.mode, RunMode::Generate);
  EXPECT_EQ(options.model, "model.gguf");
  EXPECT_EQ(options.prompt, "hello");
  EXPECT_FALSE(options.ids || options.promptsFile || options.chat);
  EXPECT_FALSE(options.maxNewTokens || options.forkAt || options.ignoreEos);
  EXPECT_EQ(options.sampler.temperature, 0);
  EXPECT_EQ(options.sampler.topP, 1);
  EXPECT_EQ(options.sampler.topK, 0);
  EXPECT_EQ(options.sampler.repeatPenalty, 1);
  EXPECT_FALSE(options.promptFile || options.system || options.special);
  EXPECT_EQ(options.cache, (CacheFormats{CacheFormat::F16, CacheFormat::F16}));
  EXPECT_EQ(options.weights, std::nullopt);
  EXPECT_EQ(options.context + options.poolBlocks + options.prefillChunk, 0);
  EXPECT_EQ(options.blockSize + options.threads, 0);
  EXPECT_TRUE(options.compileCache && !options.verbose && !options.quiet);
}

TEST(RunOptionsTest, everyValue) {
  RunOptions options = expectParsed({"-m",
                                     "dir",
                                     "-p",
                                     "-x",
                                     "--chat",
                                     "-n",
                                     "7",
                                     "--temp",
                                     "0.5",
                                     "--top-p",
                                     "0.9",
                                     "--seed",
                                     "12345678901",
                                     "--ignore-eos",
                                     "--ctx",
                                     "99",
                                     "--prefill-chunk",
                                     "33",
                                     "--block-size",
                                     "64",
                                     "--cache-dtype",
                                     "bf16",
                                     "--window",
                                     "512",
                                     "--sinks",
                                     "4",
                                     "--pool-blocks",
                                     "5",
                                     "--weights-as",
                                     "bf16",
                                     "-t",
                                     "2",
                                     "--json",
                                     "out.json",
                                     "--no-cache",
                                     "--verbose",
                                     "--fork-at",
                                     "3"});
  EXPECT_EQ(options.prompt, "-x");
  EXPECT_TRUE(options.chat);
  EXPECT_EQ(options.maxNewTokens, 7);
  EXPECT_EQ(options.sampler.temperature, 0.5);
  EXPECT_EQ(options.sampler.topP, 0.9);
  EXPECT_EQ(options.sampler.seed, 12345678901u);
  EXPECT_TRUE(options.ignoreEos);
  EXPECT_EQ(options.context, 99);
  EXPECT_EQ(options.prefillChunk, 33);
  EXPECT_EQ(options.blockSize, 64);
  EXPECT_EQ(options.cache,
            (CacheFormats{CacheFormat::BF16, CacheFormat::BF16}));
  EXPECT_EQ(options.window, 512);
  EXPECT_EQ(options.sinks, 4);
  EXPECT_EQ(options.poolBlocks, 5);
  EXPECT_EQ(options.weights, ElementKind::BF16);
  EXPECT_EQ(options.threads, 2);
  EXPECT_EQ(options.jsonFile, "out.json");
  EXPECT_TRUE(options.verbose && !options.compileCache);
  EXPECT_EQ(options.forkAt, 3);
}

TEST(RunOptionsTest, ids) {
  RunOptions options = expectParsed({"-m", "m", "--ids", "1, 403,0"});
  EXPECT_EQ(options.ids, (std::vector<int32_t>{1, 403, 0}));
}

TEST(RunOptionsTest, modes) {
  EXPECT_EQ(expectParsed({"-m", "m", "--prompts", "f"}).promptsFile, "f");
  RunOptions tokenize = expectParsed({"-m", "m", "--tokenize", "f"});
  EXPECT_EQ(tokenize.mode, RunMode::Tokenize);
  EXPECT_EQ(tokenize.tokenizeFile, "f");
  RunOptions dump =
      expectParsed({"-m", "m", "--ids", "1", "--dump-logits", "f"});
  EXPECT_EQ(dump.mode, RunMode::DumpLogits);
  EXPECT_EQ(dump.logitsFile, "f");
}

TEST(RunOptionsTest, promptFile) {
  RunOptions options = expectParsed({"-m", "m", "-f", "-", "--special", "-q"});
  EXPECT_EQ(options.mode, RunMode::Generate);
  EXPECT_EQ(options.promptFile, "-");
  EXPECT_TRUE(options.special && options.quiet);
}

TEST(RunOptionsTest, chatWithoutPromptIsAConversation) {
  RunOptions options = expectParsed({"-m", "m", "--chat", "--system", ""});
  EXPECT_EQ(options.mode, RunMode::Converse);
  EXPECT_EQ(options.system, "");
  for (const char *prompt : {"-p", "-f", "--prompts"})
    EXPECT_EQ(expectParsed({"-m", "m", "--chat", prompt, "x"}).mode,
              RunMode::Generate);
}

TEST(RunOptionsTest, sampling) {
  RunOptions options = expectParsed(
      {"-m", "m", "-p", "x", "--top-k", "40", "--repeat-penalty", "1.1"});
  EXPECT_EQ(options.sampler.topK, 40);
  EXPECT_EQ(options.sampler.repeatPenalty, 1.1);
}

TEST(RunOptionsTest, score) {
  RunOptions windows =
      expectParsed({"-m", "m", "--score", "f", "--window-tokens", "9",
                    "--max-windows", "8"});
  EXPECT_EQ(windows.mode, RunMode::Score);
  EXPECT_EQ(windows.scoreFile, "f");
  EXPECT_EQ(windows.windowTokens, 9);
  EXPECT_EQ(windows.maxWindows, 8);
  RunOptions documents = expectParsed(
      {"-m", "m", "--score", "f", "--split-documents", "--max-documents", "7"});
  EXPECT_FALSE(documents.windowTokens);
  EXPECT_EQ(documents.maxDocuments, 7);
}

TEST(RunOptionsTest, noTokensIsANumber) {
  EXPECT_EQ(expectParsed({"-m", "m", "-p", "", "-n", "0"}).maxNewTokens, 0);
}

//===----------------------------------------------------------------------===//
// Bad
//===----------------------------------------------------------------------===//

TEST(RunOptionsTest, unknownOption) {
  const std::string message =
      messageOf(parse({"-m", "m", "-p", "x", "--colour"}));
  EXPECT_NE(message.find("--colour"), std::string::npos) << message;
  EXPECT_EQ(message.find("llm-run: "), std::string::npos) << message;
}

TEST(RunOptionsTest, optionWithoutItsValue) {
  EXPECT_NE(messageOf(parse({"-m", "m", "-p", "x", "-n"})), "");
}

TEST(RunOptionsTest, missingInput) {
  expectBad({"-p", "x"}, "expected a model: -m with a GGUF file or a Hugging "
                         "Face directory");
  expectBad({"-m", "m"},
            "expected one of -p, -f, --ids, --prompts, --score or --tokenize, "
            "or --chat for a conversation");
}

TEST(RunOptionsTest, promptsAreNoFilesOfOptions) {
  // LLVM's parser would read the words of this file, which there is.
  const std::string prompt = "@/proc/self/exe";
  RunOptions options = expectParsed({"-m", "m", "-p", prompt.c_str()});
  EXPECT_EQ(options.prompt, prompt);
}

TEST(RunOptionsTest, compiledModel) {
  expectBad({"-m", "model.mlir", "-p", "x"},
            "expected -m with a GGUF file, a directory or what llm-compile "
            "makes of a module, got the module 'model.mlir'");
  RunOptions options = expectParsed(
      {"-m", "dir/model.so", "--weights", "model.gguf", "-p", "x"});
  EXPECT_EQ(options.library, "dir/model.so");
  EXPECT_EQ(options.model, "model.gguf");
  expectBad({"-m", "model.so", "-p", "x"},
            "expected --weights with the GGUF file or the directory that "
            "model.so was made of");
  expectBad({"-m", "model.gguf", "--weights", "model.gguf", "-p", "x"},
            "--weights needs -m with a shared library of llm-compile, got "
            "'model.gguf'");
  for (std::vector<const char *> option :
       {std::vector<const char *>{"--weights-as", "f32"},
        {"--activations", "f32"},
        {"--cache-dtype", "f32"},
        {"--window", "8"},
        {"--no-cache"}}) {
    std::vector<const char *> line = {"-m",         "model.so", "--weights",
                                      "model.gguf", "-p",       "x"};
    line.insert(line.end(), option.begin(), option.end());
    expectBad(line, std::string(option[0]) +
                        " is decided when a model is compiled, as model.so "
                        "is: see llm-import and llm-compile");
  }
}

TEST(RunOptionsTest, twoInputs) {
  expectBad({"-m", "m", "-p", "x", "--ids", "1"},
            "-p and --ids exclude each other");
  expectBad({"-m", "m", "--score", "x", "--prompts", "y", "--split-documents"},
            "--prompts and --score exclude each other");
}

TEST(RunOptionsTest, badNumbers) {
  for (const char *value : {"-1", "x", "1.5", "", "7 "})
    expectBad({"-m", "m", "-p", "x", "-n", value},
              "expected -n from 0 to 2147483647, got '" + std::string(value) +
                  "'");
  for (const char *option :
       {"--ctx", "--block-size", "--prefill-chunk", "--pool-blocks", "-t"})
    expectBad({"-m", "m", "-p", "x", option, "0"},
              "expected " + std::string(option) +
                  " from 1 to 2147483647, got '0'");
  expectBad({"-m", "m", "-p", "x", "--block-size", "4000000000"},
            "expected --block-size from 1 to 2147483647, got '4000000000'");
  expectBad({"-m", "m", "--score", "x", "--window-tokens", "1"},
            "expected --window-tokens from 2 to 2147483647, got '1'");
}

TEST(RunOptionsTest, badSampling) {
  expectBad({"-m", "m", "-p", "x", "--temp", "-1"},
            "expected --temp of at least 0, got '-1'");
  expectBad({"-m", "m", "-p", "x", "--temp", "nan"},
            "expected --temp of at least 0, got 'nan'");
  expectBad({"-m", "m", "-p", "x", "--top-p", "0"},
            "expected --top-p above 0 and up to 1, got '0'");
  expectBad({"-m", "m", "-p", "x", "--top-k", "-1"},
            "expected --top-k from 0 to 2147483647, got '-1'");
  for (std::string value : {"0", "-1", "inf", "x"})
    expectBad({"-m", "m", "-p", "x", "--repeat-penalty", value.c_str()},
              "expected --repeat-penalty above 0, got '" + value + "'");
  expectBad({"-m", "m", "-p", "x", "--top-p", "1.5"},
            "expected --top-p above 0 and up to 1, got '1.5'");
}

TEST(RunOptionsTest, cacheFormats) {
  using enum CacheFormat;
  const auto formats = [](const char *text) {
    return expectParsed({"-m", "m", "-p", "x", "--cache-dtype", text}).cache;
  };
  EXPECT_EQ(formats("f32"), (CacheFormats{F32, F32}));
  EXPECT_EQ(formats("i8"), (CacheFormats{I8, I8}));
  EXPECT_EQ(formats("i8:f8"), (CacheFormats{I8, F8E4M3FN}));
  EXPECT_EQ(formats("i4"), (CacheFormats{I4, I4}));
  EXPECT_EQ(formats("i8:i4"), (CacheFormats{I8, I4}));
  EXPECT_EQ(formats("f8:bf16"), (CacheFormats{F8E4M3FN, BF16}));
  EXPECT_EQ(formats("i8:f8").elementType(), F32);
  EXPECT_EQ(formats("f8:bf16").elementType(), BF16);
  EXPECT_EQ(formats("f16:i8").elementType(), F16);
  EXPECT_EQ(formats("i4:bf16").elementType(), BF16);
}

TEST(RunOptionsTest, badTypes) {
  for (std::string text : {"f64", "i8:", ":f8", "i8:f8:f8"})
    expectBad({"-m", "m", "-p", "x", "--cache-dtype", text.c_str()},
              "expected --cache-dtype to be f32, f16, bf16, f8, i8 or i4, or "
              "two of them as K:V, got '" +
                  text + "'");
  expectBad({"-m", "m", "-p", "x", "--cache-dtype", "f16:bf16"},
            "expected --cache-dtype with K and V of one type where neither is "
            "f8, i8 or i4, got 'f16:bf16'");
  expectBad({"-m", "m", "-p", "x", "--weights-as", "f16"},
            "expected --weights-as to be one of native|f32|bf16, got 'f16'");
  expectBad({"-m", "m", "-p", "x", "--activations", "i8"},
            "expected --activations to be one of int8|bf16|f32, got 'i8'");
}

TEST(RunOptionsTest, activationsGoWithWeights) {
  expectBad(
      {"-m", "m", "-p", "x", "--weights-as", "f32", "--activations", "bf16"},
      "expected --activations to be f32 beside --weights-as f32, got "
      "'bf16'");
  expectBad(
      {"-m", "m", "-p", "x", "--weights-as", "bf16", "--activations", "int8"},
      "expected --activations to be f32 or bf16 beside --weights-as "
      "bf16, got 'int8'");
  RunOptions options = expectParsed(
      {"-m", "m", "-p", "x", "--weights-as", "native", "--activations", "f32"});
  EXPECT_EQ(options.weights, ElementKind::Native);
  EXPECT_EQ(options.activations, Activations::F32);
  options = expectParsed({"-m", "m", "-p", "x", "--activations", "int8"});
  EXPECT_EQ(options.weights, std::nullopt); // the file decides
  EXPECT_EQ(options.activations, Activations::I8);
}

TEST(RunOptionsTest, activationsFollowWeights) {
  EXPECT_EQ(defaultActivations(ElementKind::F32), Activations::F32);
  EXPECT_EQ(defaultActivations(ElementKind::BF16), Activations::BF16);
  EXPECT_EQ(defaultActivations(ElementKind::Native), Activations::I8);
}

TEST(RunOptionsTest, badIds) {
  for (const char *ids : {"", "1,,2", "1,x", "-1", "1,2,", "99999999999"})
    EXPECT_NE(messageOf(parse({"-m", "m", "--ids", ids})), "") << ids;
  expectBad({"-m", "m", "--ids", "1,x"},
            "expected --ids with numbers like 1,2,3, got 'x'");
}

TEST(RunOptionsTest, optionsWithoutTheirPartner) {
  expectBad({"-m", "m", "-p", "x", "--system", "s"}, "--system needs --chat");
  expectBad({"-m", "m", "--chat", "--fork-at", "1"},
            "--fork-at needs -p, -f, --ids or --prompts");
  expectBad({"-m", "m", "--prompts", "x", "--special"},
            "--special needs -p or -f");
  expectBad({"-m", "m", "-p", "x", "--sinks", "4"}, "--sinks needs --window");
  expectBad({"-m", "m", "-p", "x", "--window-tokens", "8"},
            "--window-tokens needs --score");
  expectBad({"-m", "m", "-p", "x", "--split-documents"},
            "--split-documents needs --score");
  expectBad({"-m", "m", "--score", "x"},
            "--score needs --window-tokens or --split-documents");
  expectBad(
      {"-m", "m", "--score", "x", "--split-documents", "--max-windows", "2"},
      "--max-windows needs --window-tokens");
  expectBad({"-m", "m", "--score", "x", "--window-tokens", "9",
             "--max-documents", "2"},
            "--max-documents needs --split-documents");
  expectBad({"-m", "m", "--prompts", "x", "--dump-logits", "f"},
            "--dump-logits needs -p, -f or --ids");
  expectBad({"-m", "m", "--tokenize", "x", "-n", "2"},
            "-n needs -p, -f, --ids, --prompts or --chat");
  expectBad({"-m", "m", "--tokenize", "x", "--ignore-eos"},
            "--ignore-eos needs -p, -f, --ids, --prompts or --chat");
}

TEST(RunOptionsTest, contradictions) {
  expectBad({"-m", "m", "--ids", "1", "--chat"},
            "--chat and --ids exclude each other");
  expectBad({"-m", "m", "--tokenize", "f", "--chat"},
            "--chat and --tokenize exclude each other");
  expectBad({"-m", "m", "-p", "x", "--chat", "--special"},
            "--chat and --special exclude each other");
  expectBad({"-m", "m", "-p", "x", "-f", "y"}, "-p and -f exclude each other");
  expectBad({"-m", "m", "-p", "x", "-q", "--verbose"},
            "-q and --verbose exclude each other");
  expectBad({"-m", "m", "-p", "x", "--fork-at", "1", "--repeat-penalty", "2"},
            "--fork-at and --repeat-penalty exclude each other");
  expectBad(
      {"-m", "m", "--score", "x", "--window-tokens", "9", "--split-documents"},
      "--window-tokens and --split-documents exclude each other");
  expectBad({"-m", "m", "-p", "x", "--dump-logits", "f", "-n", "4"},
            "-n and --dump-logits exclude each other");
  expectBad({"-m", "m", "--tokenize", "x", "--json", "f"},
            "--tokenize and --json exclude each other");
  expectBad({"-m", "m", "-p", "x", "-n", "4", "--fork-at", "4"},
            "expected --fork-at below -n 4, got '4'");
}

TEST(RunOptionsTest, allProblemsOfAKindAreListed) {
  expectBad({"-m", "m", "-p", "x", "--ctx", "0", "-t", "0"},
            "expected --ctx from 1 to 2147483647, got '0'\n"
            "expected -t from 1 to 2147483647, got '0'");
}

TEST(RunOptionsTest, aSecondParseStartsAfresh) {
  expectParsed({"-m", "m", "-p", "x", "--ctx", "7", "--chat"});
  RunOptions options = expectParsed({"-m", "m", "--ids", "1"});
  EXPECT_EQ(options.context, 0);
  EXPECT_FALSE(options.chat || options.prompt);
}
