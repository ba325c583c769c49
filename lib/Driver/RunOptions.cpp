//===- RunOptions.cpp - The command line of llm-run -----------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/RunOptions.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/raw_ostream.h"

#include <cmath>
#include <limits>

using namespace mlir::llm;
using llvm::Error;
using llvm::Expected;
using llvm::StringRef;
namespace cl = llvm::cl;

static constexpr const char *overview =
    "Runs a language model with a paged KV cache: imports it, compiles it for "
    "this CPU\nand generates text. The text goes to stdout, everything else to "
    "stderr.\n\n"
    "  llm-run -m model.gguf --chat -p \"What is the capital of France?\"\n"
    "  llm-run -m model.gguf --prompts prompts.txt -n 64 --json result.json\n"
    "  llm-run -m model.gguf --score text.txt --window-tokens 1024\n";

namespace {

/// The options as LLVM's parser sees them. Made on first use; a second parse
/// starts from the defaults again.
struct CommandLine {
  cl::OptionCategory input{"What to run (just one of -p, --ids, --prompts, "
                           "--score, --tokenize)"};
  cl::OptionCategory generation{"Generation"};
  cl::OptionCategory scoring{"Score"};
  cl::OptionCategory caching{"Compilation and cache"};
  cl::OptionCategory output{"Output"};
  cl::OptionCategory testing{"Testing aids"};

  cl::opt<std::string> model{
      "m", cl::value_desc("model"), cl::cat(input),
      cl::desc("The model: a GGUF file, or a Hugging Face directory with "
               "config.json and safetensors")};
  cl::opt<std::string> prompt{"p", cl::value_desc("text"), cl::cat(input),
                              cl::desc("Continue this text")};
  cl::opt<std::string> ids{
      "ids", cl::value_desc("1,2,3"), cl::cat(input),
      cl::desc("Continue these token ids, taken as they are")};
  cl::opt<std::string> prompts{
      "prompts", cl::value_desc("file"), cl::cat(input),
      cl::desc("Continue each line of this file, all as one ragged batch")};
  cl::opt<bool> chat{
      "chat", cl::cat(input),
      cl::desc("The prompts are what a user says: wrap them in the model's "
               "chat template")};
  cl::opt<std::string> tokenize{
      "tokenize", cl::value_desc("file"), cl::cat(input),
      cl::desc("Print the token ids of this file and stop")};
  cl::opt<std::string> score{
      "score", cl::value_desc("file"), cl::cat(input),
      cl::desc("Report the mean negative log-likelihood and the perplexity of "
               "this text")};

  cl::opt<unsigned> maxNewTokens{
      "n", cl::value_desc("tokens"), cl::cat(generation),
      cl::desc("Generate at most so many tokens for each prompt (default: to "
               "the end of generation or of the context)")};
  cl::opt<double> temperature{
      "temp", cl::value_desc("t"), cl::init(0), cl::cat(generation),
      cl::desc("Sample at this temperature; 0 takes the best token, of equal "
               "ones the lowest id (default 0)")};
  cl::opt<double> topP{
      "top-p", cl::value_desc("p"), cl::init(1), cl::cat(generation),
      cl::desc("Sample from the smallest set of likeliest tokens with this "
               "probability (default 1: all)")};
  cl::opt<unsigned long long> seed{
      "seed", cl::value_desc("n"), cl::init(0), cl::cat(generation),
      cl::desc("Seed of the sampler: the same seed, the same text "
               "(default 0)")};

  cl::opt<unsigned> windowTokens{
      "window-tokens", cl::value_desc("n"), cl::cat(scoring),
      cl::desc("Score disjoint windows of n tokens, each but for its first; "
               "an incomplete last one is left out")};
  cl::opt<unsigned> maxWindows{"max-windows", cl::value_desc("n"),
                               cl::cat(scoring),
                               cl::desc("Score the first n windows only")};
  cl::opt<bool> splitDocuments{
      "split-documents", cl::cat(scoring),
      cl::desc("Score documents, separated by the byte 0x1E and cut to the "
               "context, after a BOS where the tokenizer adds one")};
  cl::opt<unsigned> maxDocuments{"max-documents", cl::value_desc("n"),
                                 cl::cat(scoring),
                                 cl::desc("Score the first n documents only")};

  cl::opt<unsigned> context{
      "ctx", cl::value_desc("tokens"), cl::cat(caching),
      cl::desc("Tokens that a sequence can hold (default: what the model was "
               "made for, at most 4096)")};
  cl::opt<unsigned> prefillChunk{
      "prefill-chunk", cl::value_desc("tokens"), cl::init(512),
      cl::cat(caching),
      cl::desc("Prompt tokens of one step, over all prompts (default 512)")};
  cl::opt<unsigned> blockSize{
      "block-size", cl::value_desc("tokens"), cl::cat(caching),
      cl::desc("Tokens of one block of the cache (default 16)")};
  cl::opt<ElementKind> cache{
      "cache-dtype", cl::init(ElementKind::F16), cl::cat(caching),
      cl::desc("What the cache stores (default f16)"),
      cl::values(clEnumValN(ElementKind::F32, "f32", "32-bit floats"),
                 clEnumValN(ElementKind::F16, "f16", "16-bit floats"),
                 clEnumValN(ElementKind::BF16, "bf16", "bfloat16"))};
  cl::opt<unsigned> poolBlocks{
      "pool-blocks", cl::value_desc("blocks"), cl::cat(caching),
      cl::desc("Blocks of the cache (default: enough for every sequence)")};
  cl::opt<ElementKind> weights{
      "weights-as", cl::init(ElementKind::F32), cl::cat(caching),
      cl::desc("What weights are unpacked to (default f32)"),
      cl::values(clEnumValN(ElementKind::F32, "f32", "32-bit floats"),
                 clEnumValN(ElementKind::BF16, "bf16", "bfloat16"))};
  cl::opt<unsigned> threads{
      "t", cl::value_desc("threads"), cl::cat(caching),
      cl::desc("Threads to compute with (default: one per core)")};

  cl::opt<std::string> json{
      "json", cl::value_desc("file"), cl::cat(output),
      cl::desc("Write times, cache statistics and results as one JSON object "
               "(-: stdout)")};

  cl::opt<std::string> dumpLogits{
      "dump-logits", cl::value_desc("file"), cl::cat(testing),
      cl::desc("Write the logits after every token of -p or --ids as raw "
               "little-endian f32 [tokens, vocabulary] and stop")};
  cl::opt<unsigned> forkAt{
      "fork-at", cl::value_desc("n"), cl::cat(testing),
      cl::desc("After n generated tokens fork sequence 0: the sibling, last "
               "of the sequences, goes on with the second-best token")};
};

using Options = llvm::ArrayRef<const cl::Option *>;

} // namespace

//===----------------------------------------------------------------------===//
// Checks
//===----------------------------------------------------------------------===//

static bool given(const cl::Option &option) {
  return option.getNumOccurrences() > 0;
}

static std::string nameOf(const cl::Option &option) {
  return (option.ArgStr.size() == 1 ? "-" : "--") + option.ArgStr.str();
}

/// "-p, --ids or --prompts".
static std::string namesOf(Options options) {
  std::string names;
  for (const cl::Option *option : options) {
    if (!names.empty())
      names += option == options.back() ? " or " : ", ";
    names += nameOf(*option);
  }
  return names;
}

static Error usageError(const llvm::Twine &message) {
  return llvm::createStringError(message.str());
}

static Error checkNeeds(const cl::Option &option, Options anyOf) {
  if (!given(option) || llvm::any_of(anyOf, [](const cl::Option *needed) {
        return given(*needed);
      }))
    return Error::success();
  return usageError(nameOf(option) + " needs " + namesOf(anyOf));
}

static Error checkExclusive(Options options) {
  const cl::Option *first = nullptr;
  for (const cl::Option *option : options) {
    if (!given(*option))
      continue;
    if (first)
      return usageError(nameOf(*first) + " and " + nameOf(*option) +
                        " exclude each other");
    first = option;
  }
  return Error::success();
}

static Error checkRange(const cl::opt<unsigned> &option, unsigned least) {
  constexpr unsigned most = std::numeric_limits<int32_t>::max();
  const unsigned value = option;
  if (!given(option) || (value >= least && value <= most))
    return Error::success();
  return usageError("expected " + nameOf(option) + " from " +
                    llvm::Twine(least) + " to " + llvm::Twine(most) + ", got " +
                    llvm::Twine(value));
}

static Error checkInputs(CommandLine &line) {
  const cl::Option *inputs[] = {&line.prompt, &line.ids, &line.prompts,
                                &line.score, &line.tokenize};
  if (!given(line.model))
    return usageError("expected a model: -m with a GGUF file or a Hugging "
                      "Face directory");
  if (llvm::none_of(inputs, [](auto *input) { return given(*input); }))
    return usageError("expected one of " + namesOf(inputs));
  if (given(line.score) && !given(line.windowTokens) && !line.splitDocuments)
    return usageError("--score needs --window-tokens or --split-documents");
  return checkExclusive(inputs);
}

/// Options that would have no effect, or two of which contradict each other.
static Error checkCombinations(CommandLine &line) {
  Error errors = Error::success();
  auto needs = [&](const cl::Option &option, Options anyOf) {
    errors = llvm::joinErrors(std::move(errors), checkNeeds(option, anyOf));
  };
  auto exclude = [&](Options options) {
    errors = llvm::joinErrors(std::move(errors), checkExclusive(options));
  };
  const cl::Option *prompts[] = {&line.prompt, &line.ids, &line.prompts};
  for (const cl::Option *option : std::initializer_list<const cl::Option *>{
           &line.maxNewTokens, &line.temperature, &line.topP, &line.seed,
           &line.forkAt}) {
    needs(*option, prompts);
    exclude({option, &line.dumpLogits});
  }
  needs(line.chat, {&line.prompt, &line.prompts});
  needs(line.dumpLogits, {&line.prompt, &line.ids});
  needs(line.windowTokens, {&line.score});
  needs(line.splitDocuments, {&line.score});
  needs(line.maxWindows, {&line.windowTokens});
  needs(line.maxDocuments, {&line.splitDocuments});
  exclude({&line.windowTokens, &line.splitDocuments});
  exclude({&line.tokenize, &line.json});
  return errors;
}

static Error checkNumbers(CommandLine &line) {
  Error errors = Error::success();
  auto check = [&](const cl::opt<unsigned> &option, unsigned least) {
    errors = llvm::joinErrors(std::move(errors), checkRange(option, least));
  };
  check(line.maxNewTokens, 0);
  check(line.forkAt, 0);
  check(line.windowTokens, 2);
  for (auto *option :
       {&line.maxWindows, &line.maxDocuments, &line.context, &line.prefillChunk,
        &line.blockSize, &line.poolBlocks, &line.threads})
    check(*option, 1);
  if (!(line.temperature >= 0) || !std::isfinite(line.temperature))
    return usageError(llvm::formatv("expected --temp of at least 0, got {0}",
                                    line.temperature.getValue()));
  if (!(line.topP > 0 && line.topP <= 1))
    return usageError(llvm::formatv(
        "expected --top-p above 0, up to 1, got {0}", line.topP.getValue()));
  if (given(line.forkAt) && given(line.maxNewTokens) &&
      line.forkAt >= line.maxNewTokens)
    return usageError(llvm::formatv("expected --fork-at below -n {0}, got {1}",
                                    line.maxNewTokens.getValue(),
                                    line.forkAt.getValue()));
  return errors;
}

//===----------------------------------------------------------------------===//
// Values
//===----------------------------------------------------------------------===//

template <typename T, typename Option>
static std::optional<T> valueOf(const Option &option) {
  if (!given(option))
    return std::nullopt;
  return T(option.getValue());
}

static Expected<std::vector<int32_t>> readIds(StringRef text) {
  std::vector<int32_t> ids;
  for (StringRef word : llvm::split(text, ',')) {
    int32_t id;
    if (word.trim().getAsInteger(10, id) || id < 0)
      return usageError("expected --ids with numbers like 1,2,3, got '" + word +
                        "'");
    ids.push_back(id);
  }
  return ids;
}

static RunMode modeOf(CommandLine &line) {
  if (given(line.tokenize))
    return RunMode::Tokenize;
  if (given(line.score))
    return RunMode::Score;
  return given(line.dumpLogits) ? RunMode::DumpLogits : RunMode::Generate;
}

static RunOptions readValues(CommandLine &line) {
  RunOptions options;
  options.mode = modeOf(line);
  options.model = line.model;
  options.prompt = valueOf<std::string>(line.prompt);
  options.promptsFile = valueOf<std::string>(line.prompts);
  options.scoreFile = line.score;
  options.tokenizeFile = line.tokenize;
  options.chat = line.chat;
  options.maxNewTokens = valueOf<int64_t>(line.maxNewTokens);
  options.sampler = {line.temperature, line.topP, line.seed};
  options.forkAt = valueOf<int64_t>(line.forkAt);
  options.windowTokens = valueOf<int64_t>(line.windowTokens);
  options.maxWindows = valueOf<int64_t>(line.maxWindows);
  options.maxDocuments = valueOf<int64_t>(line.maxDocuments);
  options.weights = line.weights;
  options.cache = line.cache;
  options.context = line.context;
  options.poolBlocks = line.poolBlocks;
  options.blockSize = line.blockSize;
  options.threads = line.threads;
  options.prefillChunk = line.prefillChunk;
  options.jsonFile = line.json;
  options.logitsFile = line.dumpLogits;
  return options;
}

//===----------------------------------------------------------------------===//
// Parsing
//===----------------------------------------------------------------------===//

/// Lets LLVM's parser fill the options. Its messages come with the name of the
/// program before each line, which whoever prints the error adds anyway.
static Error parse(int argc, const char *const *argv) {
  std::string messages;
  llvm::raw_string_ostream stream(messages);
  cl::ResetAllOptionOccurrences();
  if (cl::ParseCommandLineOptions(argc, argv, overview, &stream))
    return Error::success();
  const std::string program = (llvm::sys::path::filename(argv[0]) + ": ").str();
  std::string text;
  for (StringRef line : llvm::split(StringRef(messages).rtrim(), '\n')) {
    line.consume_front(program);
    text += (text.empty() ? "" : "\n") + line.str();
  }
  return usageError(text);
}

Expected<RunOptions> mlir::llm::parseRunOptions(int argc,
                                                const char *const *argv) {
  static CommandLine line;
  cl::HideUnrelatedOptions({&line.input, &line.generation, &line.scoring,
                            &line.caching, &line.output, &line.testing});
  if (Error error = parse(argc, argv))
    return error;
  for (auto *check : {checkInputs, checkCombinations, checkNumbers})
    if (Error error = check(line))
      return error;
  RunOptions options = readValues(line);
  if (!given(line.ids))
    return options;
  Expected<std::vector<int32_t>> ids = readIds(line.ids);
  if (!ids)
    return ids.takeError();
  options.ids = std::move(*ids);
  return options;
}
