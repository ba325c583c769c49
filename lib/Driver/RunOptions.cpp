//===- RunOptions.cpp - The command line of llm-run -----------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/RunOptions.h"

#include "llm/Import/ToolOptions.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringSwitch.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/ErrorHandling.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/raw_ostream.h"

#include <cmath>
#include <cstdint>

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

/// An option with a value, read as text: `Values` below turns it into a number.
struct Text : cl::opt<std::string> {
  Text(StringRef name, StringRef value, cl::OptionCategory &category,
       StringRef description)
      : opt(name, cl::value_desc(value), cl::cat(category),
            cl::desc(description)) {}
};

struct Flag : cl::opt<bool> {
  Flag(StringRef name, cl::OptionCategory &category, StringRef description)
      : opt(name, cl::cat(category), cl::desc(description)) {}
};

/// The options as LLVM's parser sees them. Made on first use; a second parse
/// starts from the defaults again.
struct CommandLine {
  cl::OptionCategory input{"1. What to run (-m and one of -p, -f, --ids, "
                           "--prompts, --score, --tokenize, or --chat alone)"};
  cl::OptionCategory generation{"2. Generation"};
  cl::OptionCategory scoring{"3. Score"};
  cl::OptionCategory machine{"4. Compilation, cache and threads"};
  cl::OptionCategory output{"5. Output"};
  cl::OptionCategory testing{"6. Testing aids"};

  Text model{"m", "model", input,
             "The model: a GGUF file, a Hugging Face directory with "
             "config.json and safetensors, or what llm-compile made of one: "
             "model.so"};
  Text weightsFile{"weights", "file", input,
                   "Of model.so: the GGUF file or the directory that its "
                   "weights and its tokenizer are in"};
  Text prompt{"p", "text", input, "Continue this text"};
  Text promptFile{"f", "file", input,
                  "Continue the whole text of this file, its last line end "
                  "included; - is standard input"};
  Text ids{"ids", "1,2,3", input, "Continue these ids, taken as they are"};
  Text prompts{"prompts", "file", input,
               "Continue each line of this file, all as one ragged batch"};
  Flag chat{"chat", input,
            "Prompts are what a user says: use the model's chat template. "
            "Without a prompt: a conversation, of which each line of standard "
            "input is a turn (empty ones are passed over)"};
  Text system{"system", "text", input,
              "With --chat: the system message, in place of the template's"};
  Flag special{"special", input,
               "Special tokens spelled out in the text of -p or -f are these "
               "tokens; a BOS that it begins with is not added once more"};
  Text score{"score", "file", input,
             "Report mean negative log-likelihood and perplexity of this text"};
  Text tokenize{"tokenize", "file", input,
                "Print the token ids of this file and stop"};

  Text maxNewTokens{"n", "tokens", generation,
                    "At most so many new tokens for each prompt (default: to "
                    "the end of generation or of the context)"};
  Text temperature{"temp", "t", generation,
                   "Sample at this temperature; 0 takes the best token, of "
                   "equal ones the lowest id (default 0)"};
  Text topP{"top-p", "p", generation,
            "Sample from the smallest set of likeliest tokens with this "
            "probability (default 1)"};
  Text topK{"top-k", "k", generation,
            "Sample from the k likeliest tokens (default 0: from all); before "
            "--top-p"};
  Text repeatPenalty{"repeat-penalty", "x", generation,
                     "Divide positive logits of the last 64 tokens, those of "
                     "the prompt included, by x, and multiply negative ones "
                     "(default 1: leave them)"};
  Text seed{"seed", "n", generation,
            "Seed of the sampler: the same seed, the same text (default 0)"};
  Flag ignoreEos{"ignore-eos", generation,
                 "Go on past the end of generation: as many tokens as -n says"};

  Text windowTokens{"window-tokens", "n", scoring,
                    "Score disjoint windows of n tokens, without the first of "
                    "each and without an incomplete last window"};
  Text maxWindows{"max-windows", "n", scoring, "Only the first n windows"};
  Flag splitDocuments{"split-documents", scoring,
                      "Score documents, separated by the byte 0x1E, each after "
                      "a BOS if the tokenizer adds one and cut to the context"};
  Text maxDocuments{"max-documents", "n", scoring,
                    "Only the first n documents"};

  Text context{"ctx", "tokens", machine,
               "Tokens that a sequence can hold (default: the model's context, "
               "at most 4096)"};
  Text prefillChunk{"prefill-chunk", "tokens", machine,
                    "Prompt tokens of one step, over all prompts (default "
                    "128 for each thread, from 256 to 512)"};
  Text blockSize{"block-size", "tokens", machine,
                 "Tokens of one cache block (default 16, and 32 where K is "
                 "i4, of which blocks hold multiples of 32)"};
  Text poolBlocks{"pool-blocks", "blocks", machine,
                  "Blocks of the cache (default: enough for every sequence)"};
  Text cache{"cache-dtype", "format", machine,
             "What the cache stores: f32, f16 (default), bf16, or quantized "
             "f8, i8 or i4; K:V like i8:f8 for different formats of K and V"};
  Text window{"window", "tokens", machine,
              "A token sees the last n ones, itself included (default: all)"};
  Text sinks{"sinks", "tokens", machine,
             "Beside the window a token sees the first n ones (default 0)"};
  Text weights{"weights-as", "native|f32|bf16", machine,
               "What weights are computed with as: the 4 or 8 bits of a "
               "quantized file, or unpacked (default: native where there are "
               "some, else f32)"};
  Text activations{"activations", "int8|bf16|f32", machine,
                   "What linear layers may round their input to: int8 beside "
                   "native weights (with AMX bf16 in steps of more than 32 "
                   "tokens), "
                   "bf16 beside native and bf16 ones (default: the first that "
                   "goes with the weights)"};
  Text threads{"t", "threads", machine,
               "Threads to compute with (default: one for each core)"};

  Flag noCache{"no-cache", machine,
               "Compile, without reading or keeping compiled code in "
               "$XDG_CACHE_HOME/llm (default: ~/.cache/llm)"};

  Text json{"json", "file", output,
            "Write times, sizes, cache statistics and results as one JSON "
            "object"};
  Flag verbose{"verbose", output,
               "Say where compiled code was read from or kept, or why not, how "
               "much memory is needed, and what each turn of a conversation "
               "took"};
  Flag quiet{"q", output, "Print nothing but the text, warnings and errors"};

  Text dumpLogits{"dump-logits", "file", testing,
                  "Write the logits after every token of -p or --ids as raw "
                  "little-endian f32 [tokens, vocabulary] and stop"};
  Text forkAt{"fork-at", "n", testing,
              "After n new tokens fork sequence 0: its sibling, last of the "
              "sequences, takes the second-best token"};
};

using Options = llvm::ArrayRef<const cl::Option *>;

} // namespace

//===----------------------------------------------------------------------===//
// Which options go together
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

/// An error for the first of the options that is given.
static Error checkAbsent(Options options, const llvm::Twine &why) {
  for (const cl::Option *option : options)
    if (given(*option))
      return usageError(nameOf(*option) + why);
  return Error::success();
}

static Error checkInputs(const CommandLine &line) {
  const cl::Option *inputs[] = {&line.prompt, &line.promptFile,
                                &line.ids,    &line.prompts,
                                &line.score,  &line.tokenize};
  if (!given(line.model))
    return usageError("expected a model: -m with a GGUF file or a Hugging "
                      "Face directory");
  if (!line.chat &&
      llvm::none_of(inputs, [](auto *input) { return given(*input); }))
    return usageError("expected one of " + namesOf(inputs) +
                      ", or --chat for a conversation");
  if (given(line.score) && !given(line.windowTokens) && !line.splitDocuments)
    return usageError("--score needs --window-tokens or --split-documents");
  return checkExclusive(inputs);
}

/// Whether a model is compiled, and runs with weights from elsewhere.
static bool isLibrary(StringRef model) { return model.ends_with(".so"); }

/// What a compiled model needs, and what was decided when it was compiled.
static Error checkLibrary(const CommandLine &line) {
  const StringRef model = line.model.getValue();
  if (model.ends_with(".mlir"))
    return usageError("expected -m with a GGUF file, a directory or what "
                      "llm-compile makes of a module, got the module '" +
                      model + "'");
  if (!isLibrary(model))
    return checkAbsent({&line.weightsFile},
                       " needs -m with a shared library of llm-compile, got '" +
                           model + "'");
  if (!given(line.weightsFile))
    return usageError("expected --weights with the GGUF file or the directory "
                      "that " +
                      model + " was made of");
  return checkAbsent({&line.weights, &line.activations, &line.cache,
                      &line.window, &line.sinks, &line.noCache},
                     " is decided when a model is compiled, as " + model +
                         " is: see llm-import and llm-compile");
}

/// Options that would have no effect, or two of which contradict each other.
static Error checkCombinations(const CommandLine &line) {
  Error errors = Error::success();
  auto needs = [&](const cl::Option &option, Options anyOf) {
    errors = llvm::joinErrors(std::move(errors), checkNeeds(option, anyOf));
  };
  auto exclude = [&](Options options) {
    errors = llvm::joinErrors(std::move(errors), checkExclusive(options));
  };
  const cl::Option *prompts[] = {&line.prompt, &line.promptFile, &line.ids,
                                 &line.prompts, &line.chat};
  for (const cl::Option *option : std::initializer_list<const cl::Option *>{
           &line.maxNewTokens, &line.temperature, &line.topP, &line.topK,
           &line.repeatPenalty, &line.seed, &line.ignoreEos}) {
    needs(*option, prompts);
    exclude({option, &line.dumpLogits});
  }
  needs(line.forkAt, Options(prompts).drop_back());
  exclude({&line.forkAt, &line.dumpLogits});
  for (const cl::Option *option : std::initializer_list<const cl::Option *>{
           &line.ids, &line.score, &line.tokenize, &line.special})
    exclude({&line.chat, option});
  needs(line.system, {&line.chat});
  needs(line.special, {&line.prompt, &line.promptFile});
  needs(line.dumpLogits, {&line.prompt, &line.promptFile, &line.ids});
  exclude({&line.forkAt, &line.repeatPenalty});
  exclude({&line.quiet, &line.verbose});
  needs(line.sinks, {&line.window});
  needs(line.windowTokens, {&line.score});
  needs(line.splitDocuments, {&line.score});
  needs(line.maxWindows, {&line.windowTokens});
  needs(line.maxDocuments, {&line.splitDocuments});
  exclude({&line.windowTokens, &line.splitDocuments});
  exclude({&line.tokenize, &line.json});
  return errors;
}

//===----------------------------------------------------------------------===//
// Values
//===----------------------------------------------------------------------===//

namespace {

/// Reads the values of options and collects what is wrong with them.
class Values {
public:
  /// A whole number; nothing if the option was not given.
  std::optional<int64_t> integer(const Text &option, int64_t least,
                                 int64_t most = INT32_MAX);
  double number(const Text &option, double byDefault,
                llvm::function_ref<bool(double)> allowed, StringRef range);
  /// One of the words that the option's value stands for in --help.
  template <typename T>
  std::optional<T> oneOf(const Text &option,
                         std::initializer_list<std::pair<StringRef, T>> words);
  CacheFormats formats(const Text &option);
  std::vector<int32_t> ids(const Text &option);

  /// Notes that the option's value, or a part of it, is not as expected.
  void expected(const Text &option, const llvm::Twine &what);
  void expected(const Text &option, const llvm::Twine &what, StringRef actual);
  void add(Error error) {
    errors = llvm::joinErrors(std::move(errors), std::move(error));
  }
  Error takeErrors() { return std::move(errors); }

private:
  Error errors = Error::success();
};

} // namespace

static std::optional<std::string> text(const Text &option) {
  if (!given(option))
    return std::nullopt;
  return option.getValue();
}

void Values::expected(const Text &option, const llvm::Twine &what) {
  expected(option, what, option.getValue());
}

void Values::expected(const Text &option, const llvm::Twine &what,
                      StringRef actual) {
  add(usageError("expected " + nameOf(option) + " " + what + ", got '" +
                 actual + "'"));
}

std::optional<int64_t> Values::integer(const Text &option, int64_t least,
                                       int64_t most) {
  if (!given(option))
    return std::nullopt;
  int64_t value = 0;
  const bool isNumber = llvm::to_integer(option.getValue(), value, 10);
  if (!isNumber || value < least || value > most)
    expected(option, "from " + llvm::Twine(least) + " to " + llvm::Twine(most));
  return value;
}

double Values::number(const Text &option, double byDefault,
                      llvm::function_ref<bool(double)> allowed,
                      StringRef range) {
  if (!given(option))
    return byDefault;
  double value = 0;
  const bool isNumber = llvm::to_float(option.getValue(), value);
  if (!isNumber || !allowed(value))
    expected(option, range);
  return value;
}

template <typename T>
std::optional<T>
Values::oneOf(const Text &option,
              std::initializer_list<std::pair<StringRef, T>> words) {
  if (!given(option))
    return std::nullopt;
  for (const auto &[word, value] : words)
    if (option.getValue() == word)
      return value;
  expected(option, "to be one of " + option.ValueStr);
  return std::nullopt;
}

CacheFormats Values::formats(const Text &option) {
  if (!given(option))
    return {};
  Expected<CacheFormats> formats = parseCacheFormats(option.getValue());
  if (formats)
    return *formats;
  add(formats.takeError());
  return {};
}

std::vector<int32_t> Values::ids(const Text &option) {
  std::vector<int32_t> ids;
  for (StringRef word : llvm::split(option.getValue(), ',')) {
    int32_t id = -1;
    if (word.trim().getAsInteger(10, id) || id < 0) {
      expected(option, "with numbers like 1,2,3", word);
      break;
    }
    ids.push_back(id);
  }
  return ids;
}

static RunMode modeOf(const CommandLine &line) {
  if (given(line.tokenize))
    return RunMode::Tokenize;
  if (given(line.score))
    return RunMode::Score;
  if (given(line.dumpLogits))
    return RunMode::DumpLogits;
  const bool hasPrompt =
      given(line.prompt) || given(line.promptFile) || given(line.prompts);
  return line.chat && !hasPrompt ? RunMode::Converse : RunMode::Generate;
}

static void readInputs(const CommandLine &line, Values &values,
                       RunOptions &options) {
  options.mode = modeOf(line);
  options.model = line.model;
  if (isLibrary(options.model)) {
    options.library = line.model;
    options.model = line.weightsFile;
  }
  options.prompt = text(line.prompt);
  options.promptFile = text(line.promptFile);
  if (given(line.ids))
    options.ids = values.ids(line.ids);
  options.promptsFile = text(line.prompts);
  options.scoreFile = line.score;
  options.tokenizeFile = line.tokenize;
  options.chat = line.chat;
  options.system = text(line.system);
  options.special = line.special;
  options.jsonFile = line.json;
  options.verbose = line.verbose;
  options.quiet = line.quiet;
  options.logitsFile = line.dumpLogits;
}

static void readGeneration(const CommandLine &line, Values &values,
                           RunOptions &options) {
  options.maxNewTokens = values.integer(line.maxNewTokens, 0);
  options.sampler.temperature = values.number(
      line.temperature, 0, [](double t) { return t >= 0 && std::isfinite(t); },
      "of at least 0");
  options.sampler.topP = values.number(
      line.topP, 1, [](double p) { return p > 0 && p <= 1; },
      "above 0 and up to 1");
  options.sampler.topK = values.integer(line.topK, 0).value_or(0);
  options.sampler.repeatPenalty = values.number(
      line.repeatPenalty, 1, [](double x) { return x > 0 && std::isfinite(x); },
      "above 0");
  options.sampler.seed = values.integer(line.seed, 0, INT64_MAX).value_or(0);
  options.ignoreEos = line.ignoreEos;
  options.forkAt = values.integer(line.forkAt, 0);
  if (options.forkAt && options.maxNewTokens &&
      *options.forkAt >= *options.maxNewTokens)
    values.expected(line.forkAt, "below -n " + line.maxNewTokens.getValue());
  options.windowTokens = values.integer(line.windowTokens, 2);
  options.maxWindows = values.integer(line.maxWindows, 1);
  options.maxDocuments = values.integer(line.maxDocuments, 1);
}

StringRef mlir::llm::nameOf(ElementKind weights) {
  switch (weights) {
  case ElementKind::F32:
    return "f32";
  case ElementKind::BF16:
    return "bf16";
  case ElementKind::Native:
    return "native";
  }
  llvm_unreachable("unknown weights");
}

StringRef mlir::llm::nameOf(Activations activations) {
  switch (activations) {
  case Activations::F32:
    return "f32";
  case Activations::BF16:
    return "bf16";
  case Activations::I8:
    return "int8";
  }
  llvm_unreachable("unknown activations");
}

Activations mlir::llm::defaultActivations(ElementKind weights) {
  switch (weights) {
  case ElementKind::F32:
    return Activations::F32;
  case ElementKind::BF16:
    return Activations::BF16;
  case ElementKind::Native:
    return Activations::I8;
  }
  llvm_unreachable("unknown weights");
}

Error mlir::llm::checkActivations(ElementKind weights,
                                  Activations activations) {
  if (activations <= defaultActivations(weights))
    return Error::success();
  return usageError(llvm::Twine("expected --activations to be f32") +
                    (weights == ElementKind::F32 ? "" : " or bf16") +
                    " beside --weights-as " + nameOf(weights) + ", got '" +
                    nameOf(activations) + "'");
}

static void readNumbers(const CommandLine &line, Values &values,
                        RunOptions &options) {
  options.weights =
      values.oneOf<ElementKind>(line.weights, {{"native", ElementKind::Native},
                                               {"f32", ElementKind::F32},
                                               {"bf16", ElementKind::BF16}});
  options.activations =
      values.oneOf<Activations>(line.activations, {{"int8", Activations::I8},
                                                   {"bf16", Activations::BF16},
                                                   {"f32", Activations::F32}});
  if (options.weights && options.activations)
    values.add(checkActivations(*options.weights, *options.activations));
}

static void readMachine(const CommandLine &line, Values &values,
                        RunOptions &options) {
  readNumbers(line, values, options);
  options.cache = values.formats(line.cache);
  options.window = values.integer(line.window, 1).value_or(0);
  options.sinks = values.integer(line.sinks, 1).value_or(0);
  options.context = values.integer(line.context, 1).value_or(0);
  options.poolBlocks = values.integer(line.poolBlocks, 1).value_or(0);
  options.blockSize = values.integer(line.blockSize, 1).value_or(0);
  options.threads = values.integer(line.threads, 1).value_or(0);
  options.prefillChunk = values.integer(line.prefillChunk, 1).value_or(0);
  options.compileCache = !line.noCache;
}

//===----------------------------------------------------------------------===//
// Parsing
//===----------------------------------------------------------------------===//

/// The parser puts the words of the file X in place of an argument @X, which
/// may be a prompt: values that begin so are written behind their option's
/// name.
static std::vector<std::string>
withoutFiles(llvm::ArrayRef<const char *> arguments) {
  std::vector<std::string> result;
  for (StringRef argument : arguments) {
    const bool isValue = argument.starts_with("@") && !result.empty() &&
                         StringRef(result.back()).starts_with("-");
    if (isValue)
      result.back() += ("=" + argument).str();
    else
      result.push_back(argument.str());
  }
  return result;
}

/// Lets LLVM's parser fill the options. Its messages come with the name of the
/// program before each line, which whoever prints the error adds anyway.
static Error parse(int argc, const char *const *argv) {
  std::string messages;
  llvm::raw_string_ostream stream(messages);
  cl::ResetAllOptionOccurrences();
  const std::vector<std::string> arguments = withoutFiles({argv, size_t(argc)});
  std::vector<const char *> pointers;
  for (const std::string &argument : arguments)
    pointers.push_back(argument.c_str());
  if (cl::ParseCommandLineOptions(pointers.size(), pointers.data(), overview,
                                  &stream))
    return Error::success();
  const std::string program = (llvm::sys::path::filename(argv[0]) + ": ").str();
  std::string text;
  for (StringRef line : llvm::split(StringRef(messages).rtrim(), '\n')) {
    line.consume_front(program);
    text += (text.empty() ? "" : "\n") + line.str();
  }
  // What is wrong with an option itself, the parser has told stderr.
  return usageError(text.empty() ? "see --help for the options" : text);
}

Expected<RunOptions> mlir::llm::parseRunOptions(int argc,
                                                const char *const *argv) {
  static CommandLine line;
  presentTool("llm-run", {&line.input, &line.generation, &line.scoring,
                          &line.machine, &line.output, &line.testing});
  if (Error error = parse(argc, argv))
    return error;
  if (Error error = checkInputs(line))
    return error;
  if (Error error = checkCombinations(line))
    return error;
  if (Error error = checkLibrary(line))
    return error;
  Values values;
  RunOptions options;
  readInputs(line, values, options);
  readGeneration(line, values, options);
  readMachine(line, values, options);
  if (Error error = values.takeErrors())
    return error;
  return options;
}
