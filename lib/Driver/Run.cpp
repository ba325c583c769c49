//===- Run.cpp - What llm-run does ----------------------------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Driver/Run.h"

#include "llm/Driver/Conversation.h"
#include "llm/Driver/Evaluation.h"
#include "llm/Driver/Generation.h"
#include "llm/Driver/Interrupt.h"
#include "llm/Driver/ObjectCache.h"
#include "llm/Driver/ProgressLine.h"
#include "llm/Driver/RunInputs.h"
#include "llm/Driver/RunOptions.h"
#include "llm/Driver/RunReport.h"
#include "llm/Driver/Session.h"
#include "llm/Driver/TextFile.h"
#include "llm/Driver/TextStream.h"

#include "llm/Import/ChatTemplate.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/Threading.h"
#include "llvm/Support/raw_ostream.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <ctime>

using namespace mlir::llm;
using llvm::ArrayRef;
using llvm::Error;
using llvm::Expected;

static constexpr llvm::StringLiteral prefix = "llm-run: ";
static constexpr llvm::StringLiteral errorPrefix = "llm-run: error: ";
static constexpr int64_t longestDefaultContext = 4096;

static void print(Error error) {
  const std::string messages = llvm::toString(std::move(error));
  for (llvm::StringRef line : llvm::split(messages, '\n'))
    llvm::errs() << errorPrefix << line << '\n';
}

namespace {

using Clock = std::chrono::steady_clock;

double secondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// One run, from the files to the report.
class Run {
public:
  explicit Run(const RunOptions &options) : options(options) {}

  /// Whether every sequence came to its end.
  Expected<bool> run();

private:
  Error open();
  Error openTokenizer();
  Error openChat();
  Error chooseContext();
  Error chooseNumbers();
  Error readInputs();
  CompileOptions compileOptions() const;
  Expected<std::unique_ptr<CompiledModel>> compile();
  Error startSession();

  Error tokenize();
  Error runSession();
  Error execute();
  Error generate();
  Error converse();
  /// Whether the conversation goes on.
  Expected<bool> takeTurn(Conversation &conversation, llvm::StringRef user,
                          TextStream &stream);
  Error score();
  Error dumpLogits();
  Error finish();

  Error checkNeed(const MemoryNeed &need) const;
  SessionOptions sessionOptions() const;
  void remark(const llvm::Twine &message) const;
  void warnOfDroppedBytes() const;
  void printResults() const;
  void printSequenceErrors() const;
  std::string textOf(ArrayRef<int32_t> ids) const;
  void addSequences(std::vector<SequenceResult> results);
  GenerationOptions generationOptions(TextStream &stream) const;
  /// Whether text appears as it is generated: there is one sequence of it.
  bool streams() const {
    return options.mode == RunMode::Converse ||
           (tokenizer && inputs.size() == 1 && !options.forkAt);
  }
  /// A terminal to show what takes time on, or null.
  llvm::raw_ostream *terminal() const {
    return llvm::errs().is_displayed() && !options.quiet ? &llvm::errs()
                                                         : nullptr;
  }
  int64_t threads() const;
  /// Rows that layers between attention take at once.
  int64_t rowsOfBlock() const;
  /// Prompt tokens of one step.
  int64_t prefillChunk() const;
  /// Rows of logits that a step of a score may ask for.
  int64_t scoreChunk() const;

  const RunOptions &options;
  std::unique_ptr<ModelFile> file;
  std::unique_ptr<Tokenizer> tokenizer; ///< null with --ids and no tokenizer
  std::optional<ChatTemplate> chat;     ///< of --chat
  int64_t context = 0;
  ElementKind weights = ElementKind::F32;
  Activations activations = Activations::F32;
  std::vector<TokenIds> inputs;
  std::unique_ptr<Session> session;
  bool refusedTurns = false; ///< of a conversation
  RunReport report;
};

} // namespace

//===----------------------------------------------------------------------===//
// Start
//===----------------------------------------------------------------------===//

Error Run::openChat() {
  if (!options.chat)
    return Error::success();
  Expected<ChatTemplate> opened = ChatTemplate::open(*tokenizer);
  if (!opened)
    return opened.takeError();
  chat = *opened;
  return Error::success();
}

Error Run::openTokenizer() {
  Expected<std::unique_ptr<Tokenizer>> opened = Tokenizer::open(options.model);
  if (opened) {
    tokenizer = std::move(*opened);
    return openChat();
  }
  if (!options.ids)
    return opened.takeError();
  llvm::errs() << prefix
               << "ids in place of text: " << llvm::toString(opened.takeError())
               << '\n';
  return Error::success();
}

Error Run::chooseContext() {
  const int64_t most = file->config().context;
  if (options.context > most)
    return llvm::createStringError(
        llvm::formatv("expected --ctx of at most the model's {0}, got {1}",
                      most, options.context));
  context =
      options.context ? options.context : std::min(most, longestDefaultContext);
  return Error::success();
}

/// Native weights where the file has some.
Error Run::chooseNumbers() {
  const bool quantized = hasQuantizedWeights(*file);
  weights = options.weights.value_or(quantized ? ElementKind::Native
                                               : ElementKind::F32);
  activations = options.activations.value_or(defaultActivations(weights));
  return checkActivations(weights, activations);
}

Error Run::open() {
  Expected<std::unique_ptr<ModelFile>> opened = ModelFile::open(options.model);
  if (!opened)
    return opened.takeError();
  file = std::move(*opened);
  if (Error error = openTokenizer())
    return error;
  if (Error error = chooseNumbers())
    return error;
  return chooseContext();
}

void Run::warnOfDroppedBytes() const {
  const int64_t dropped = tokenizer ? tokenizer->numDroppedBytes() : 0;
  if (dropped > 0)
    llvm::errs() << prefix
                 << llvm::formatv(
                        "warning: {0} bytes of the text have no token "
                        "and were dropped",
                        dropped)
                 << '\n';
}

Error Run::readInputs() {
  // Its lines are read when their turn comes.
  if (options.mode == RunMode::Converse)
    return Error::success();
  Expected<std::vector<TokenIds>> read =
      options.mode == RunMode::Score
          ? readScoredText(options, *tokenizer, context)
          : readPrompts(options, tokenizer.get());
  if (!read)
    return read.takeError();
  inputs = std::move(*read);
  warnOfDroppedBytes();
  return Error::success();
}

void Run::remark(const llvm::Twine &message) const {
  if (options.verbose)
    llvm::errs() << prefix << message << '\n';
}

int64_t Run::threads() const {
  return llvm::hardware_concurrency(options.threads).compute_thread_count();
}

/// Of SmolLM2-135M that is what stays in a core's second-level cache.
int64_t Run::rowsOfBlock() const {
  return std::max<int64_t>(64, 32 * threads());
}

CompileOptions Run::compileOptions() const {
  CompileOptions compilation;
  compilation.activations = activations;
  compilation.rowsOfBlock = rowsOfBlock();
  if (!options.compileCache)
    return compilation;
  Expected<std::string> folder = ObjectCache::userFolder();
  if (folder)
    compilation.cacheFolder = std::move(*folder);
  else
    remark("compiled code not kept: " + llvm::toString(folder.takeError()));
  return compilation;
}

Expected<std::unique_ptr<CompiledModel>> Run::compile() {
  if (!options.library.empty())
    return CompiledModel::open(options.library);
  const ProgressLine shown(terminal(), "compiling for this CPU");
  const Clock::time_point start = Clock::now();
  const std::clock_t startCPU = std::clock();
  Expected<std::unique_ptr<CompiledModel>> compiled = importAndCompile(
      *file, {weights, options.cache, options.window, options.sinks},
      compileOptions(), prefix);
  if (!compiled)
    return compiled.takeError();
  report.compileSeconds = secondsSince(start);
  report.compileCPUSeconds = double(std::clock() - startCPU) / CLOCKS_PER_SEC;
  report.compileCached = (*compiled)->isCached();
  if (llvm::StringRef become = (*compiled)->cacheRemark(); !become.empty())
    remark("compiled code " + become);
  return compiled;
}

/// What the matrices of a program hold.
static ElementKind weightsOf(const llm_program &program) {
  ElementKind kind = ElementKind::F32;
  for (const llm_weight_desc &weight :
       llvm::ArrayRef(program.weights, program.num_weights)) {
    if (weight.layout == LLM_LAYOUT_BLOCKS32)
      return ElementKind::Native;
    if (weight.dtype == LLM_BF16)
      kind = ElementKind::BF16;
  }
  return kind;
}

Error Run::checkNeed(const MemoryNeed &need) const {
  remark("memory needed " + describe(need));
  return checkMemory(need, availableMemory());
}

SessionOptions Run::sessionOptions() const {
  SessionOptions wanted;
  wanted.threads = options.threads;
  wanted.blockSize = options.blockSize;
  wanted.context = context;
  wanted.poolBlocks = options.poolBlocks;
  if (options.mode == RunMode::Generate)
    wanted.maxSequences = inputs.size() + (options.forkAt ? 1 : 0);
  wanted.lengths.assign(wanted.maxSequences, context);
  const bool ends = options.mode == RunMode::Generate && options.maxNewTokens;
  for (auto [length, prompt] : llvm::zip(wanted.lengths, inputs))
    if (ends)
      length =
          std::min<int64_t>(context, prompt.size() + *options.maxNewTokens);
  wanted.stepTokens = std::min(prefillChunk(), context * wanted.maxSequences);
  wanted.blockRows = rowsOfBlock();
  wanted.onNeed = [this](const MemoryNeed &need) { return checkNeed(need); };
  return wanted;
}

Error Run::startSession() {
  Expected<std::unique_ptr<CompiledModel>> compiled = compile();
  if (!compiled)
    return compiled.takeError();
  const Clock::time_point start = Clock::now();
  auto created = Session::create(std::move(*compiled), *file, sessionOptions(),
                                 terminal());
  if (!created)
    return created.takeError();
  session = std::move(*created); // a program of this ABI, then
  if (!options.library.empty())
    weights = weightsOf(session->description());
  report.packSeconds = secondsSince(start);
  report.loadSeconds += report.packSeconds;
  return Error::success();
}

//===----------------------------------------------------------------------===//
// Text
//===----------------------------------------------------------------------===//

std::string Run::textOf(ArrayRef<int32_t> ids) const {
  std::string text;
  for (int32_t id : ids)
    if (tokenizer && !llvm::is_contained(file->config().eosIds, id) &&
        !(chat && id == chat->endOfAnswer()))
      text += tokenizer->decode(id);
  return text;
}

static std::string joined(ArrayRef<int32_t> ids) {
  return llvm::join(
      llvm::map_range(ids, [](int32_t id) { return std::to_string(id); }), " ");
}

//===----------------------------------------------------------------------===//
// What to run
//===----------------------------------------------------------------------===//

Error Run::tokenize() {
  if (Error error = openTokenizer())
    return error;
  Expected<std::string> text = readFile(options.tokenizeFile);
  if (!text)
    return text.takeError();
  llvm::outs() << joined(tokenizer->encode(*text)) << '\n';
  warnOfDroppedBytes();
  return Error::success();
}

void Run::printResults() const {
  for (const SequenceReport &sequence : report.sequences)
    llvm::outs() << (tokenizer ? sequence.text : joined(sequence.result.ids))
                 << '\n';
  llvm::outs().flush();
}

/// Whether nobody waits for more text: Ctrl-C, or it cannot be written.
static bool stopped() { return wasInterrupted() || llvm::outs().has_error(); }

int64_t Run::prefillChunk() const {
  return options.prefillChunk ? options.prefillChunk
                              : std::clamp<int64_t>(128 * threads(), 256, 512);
}

GenerationOptions Run::generationOptions(TextStream &stream) const {
  GenerationOptions generation;
  generation.sampler = options.sampler;
  generation.maxNewTokens = options.maxNewTokens;
  generation.prefillChunk = prefillChunk();
  if (!options.ignoreEos)
    generation.stopTokens = file->config().eosIds;
  if (!options.ignoreEos && chat)
    generation.stopTokens.push_back(chat->endOfAnswer());
  generation.forkAt = options.forkAt;
  generation.interrupted = stopped;
  if (streams())
    generation.onToken = [&](int32_t, int32_t token) {
      stream.write(textOf(token));
    };
  return generation;
}

void Run::addSequences(std::vector<SequenceResult> results) {
  for (SequenceResult &sequence : results) {
    std::string text = textOf(sequence.ids);
    report.sequences.push_back({std::move(sequence), std::move(text)});
  }
}

Error Run::generate() {
  TextStream stream(llvm::outs());
  const GenerationOptions generation = generationOptions(stream);
  Expected<GenerationResult> result =
      Generator(*session, generation).run(inputs);
  stream.finish();
  if (!result)
    return result.takeError();
  report.prefill = result->prefill;
  report.decode = result->decode;
  addSequences(std::move(result->sequences));
  if (!streams())
    printResults();
  return Error::success();
}

Expected<bool> Run::takeTurn(Conversation &conversation, llvm::StringRef user,
                             TextStream &stream) {
  Expected<TokenIds> ids = conversation.encode(user);
  if (!ids) {
    print(ids.takeError());
    refusedTurns = true;
    return true;
  }
  warnOfDroppedBytes();
  Expected<GenerationResult> result = conversation.answer(*ids);
  stream.finish();
  if (!result)
    return result.takeError();
  report.prefill += result->prefill;
  report.decode += result->decode;
  addSequences(std::move(result->sequences));
  remark(describeTurn(report.sequences.size(), result->prefill, result->decode,
                      conversation.length(), context));
  return report.sequences.back().result.error.empty();
}

Error Run::converse() {
  TextStream stream(llvm::outs());
  GenerationOptions generation = generationOptions(stream);
  generation.keep = true;
  Conversation conversation(*chat, *session, generation, options.system);
  while (!stopped()) {
    std::optional<std::string> line = readLine();
    if (!line)
      break;
    if (llvm::StringRef(*line).trim().empty())
      continue;
    Expected<bool> goesOn = takeTurn(conversation, *line, stream);
    if (!goesOn)
      return goesOn.takeError();
    if (!*goesOn)
      break;
  }
  return Error::success();
}

int64_t Run::scoreChunk() const {
  constexpr int64_t mostBytes = 64 << 20;
  const int64_t rowBytes = session->vocabularySize() * sizeof(float);
  return std::clamp<int64_t>(mostBytes / rowBytes, 1, prefillChunk());
}

Error Run::score() {
  Score total;
  for (const TokenIds &input : inputs) {
    if (wasInterrupted())
      break;
    if (Error error = mlir::llm::score(*session, input, scoreChunk(),
                                       report.prefill, total))
      return error;
  }
  if (total.tokens == 0 && !wasInterrupted())
    return llvm::createStringError("no tokens to score in " +
                                   options.scoreFile);
  if (total.tokens > 0)
    report.score = total;
  return Error::success();
}

Error Run::dumpLogits() {
  const int64_t length = inputs.front().size();
  if (length > context)
    return llvm::createStringError(llvm::formatv(
        "the prompt has {0} tokens, the context holds {1}", length, context));
  return writeFile(options.logitsFile, [&](llvm::raw_ostream &os) {
    return evaluate(*session, inputs.front(), prefillChunk(), report.prefill,
                    [&](int64_t, ArrayRef<float> logits) {
                      os.write(reinterpret_cast<const char *>(logits.data()),
                               logits.size() * sizeof(float));
                      return Error::success();
                    });
  });
}

//===----------------------------------------------------------------------===//
// The whole
//===----------------------------------------------------------------------===//

void Run::printSequenceErrors() const {
  for (auto [id, sequence] : llvm::enumerate(report.sequences)) {
    const SequenceResult &result = sequence.result;
    if (result.error.empty())
      continue;
    if (options.mode == RunMode::Converse)
      llvm::errs() << errorPrefix
                   << llvm::formatv("the conversation ends: turn {0} ended "
                                    "after {1} tokens: {2}\n",
                                    id + 1, result.ids.size(), result.error);
    else
      llvm::errs() << errorPrefix
                   << llvm::formatv(
                          "sequence {0} ended after {1} tokens: {2}\n", id,
                          result.ids.size(), result.error);
  }
}

Error Run::finish() {
  Expected<llm_kv_stats> stats = session->stats();
  if (!stats)
    return stats.takeError();
  report.cache = *stats;
  report.config = session->config();
  report.peakRSSBytes = peakRSSBytes();
  report.weightsAs = nameOf(weights);
  report.activations =
      options.library.empty() ? nameOf(activations) : "as compiled";
  report.matrices = matrixSizesOf(*file, session->description());
  report.packedBytes = session->weightBytes();
  printSequenceErrors();
  if (!options.quiet)
    printSummary(report, llvm::errs());
  if (options.jsonFile.empty())
    return Error::success();
  return writeFile(options.jsonFile, [&](llvm::raw_ostream &os) {
    os << llvm::formatv("{0:2}", llvm::json::Value(toJSON(report))) << '\n';
    return Error::success();
  });
}

Error Run::execute() {
  switch (options.mode) {
  case RunMode::Generate:
    return generate();
  case RunMode::Converse:
    return converse();
  case RunMode::Score:
    return score();
  case RunMode::DumpLogits:
    return dumpLogits();
  case RunMode::Tokenize:
    break;
  }
  llvm_unreachable("needs no session");
}

Error Run::runSession() {
  const Clock::time_point start = Clock::now();
  if (Error error = open())
    return error;
  if (Error error = readInputs())
    return error;
  report.loadSeconds = secondsSince(start);
  if (Error error = startSession())
    return error;
  if (options.mode != RunMode::DumpLogits)
    noteInterrupts();
  if (Error error = execute())
    return error;
  return finish();
}

Expected<bool> Run::run() {
  if (Error error =
          options.mode == RunMode::Tokenize ? tokenize() : runSession())
    return error;
  if (Error error = checkOutput())
    return error;
  return !refusedTurns &&
         llvm::all_of(report.sequences, [](const SequenceReport &sequence) {
           return sequence.result.error.empty();
         });
}

int mlir::llm::runMain(int argc, const char *const *argv) {
  constexpr int failed = 1, badUsage = 2, endedBySIGINT = 128 + SIGINT;
  // A reader that has enough ends the process, whatever its parent made of it.
  std::signal(SIGPIPE, SIG_DFL);
  Expected<RunOptions> options = parseRunOptions(argc, argv);
  if (!options) {
    print(options.takeError());
    return badUsage;
  }
  Expected<bool> complete = Run(*options).run();
  if (!complete)
    print(complete.takeError());
  if (wasInterrupted())
    return endedBySIGINT;
  return complete && *complete ? 0 : failed;
}
