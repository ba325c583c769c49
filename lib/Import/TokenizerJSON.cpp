//===- TokenizerJSON.cpp - tokenizer.json, byte-level BPE -----------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
//   added_tokens   [{id, content, ...}]: never found in text here
//   normalizer     null or NFC
//   pre_tokenizer  ByteLevel that splits as GPT-2, alone or behind single
//                  digits; or a Split by a known expression, then ByteLevel
//   model          BPE: vocab {token: id}, merges ["a b"] or [["a", "b"]]
//   post_processor what begins every text
//
// Whatever else could change ids is refused by name.
//
//===----------------------------------------------------------------------===//

#include "JSONFile.h"
#include "JSONReader.h"
#include "TokenizerConfig.h"
#include "TokenizerFormats.h"

#include "llvm/ADT/StringExtras.h"

using namespace mlir::llm;
using llvm::Error;
using llvm::Expected;
using llvm::StringRef;
namespace json = llvm::json;

/// So many ids may have no token.
static constexpr size_t mostHoles = 1 << 16;

static StringRef typeOf(const json::Object &object) {
  return object.getString("type").value_or("");
}

/// The steps of a Sequence, or the only one; none of null.
static std::vector<const json::Object *> stepsOf(FirstProblem &problem,
                                                 const json::Object &file,
                                                 StringRef key,
                                                 StringRef stepsKey) {
  const json::Value *value = file.get(key);
  if (!value || value->kind() == json::Value::Null)
    return {};
  const json::Object *only = value->getAsObject();
  if (!only) {
    problem.fail("expected an object for '{0}'", key);
    return {};
  }
  if (typeOf(*only) != "Sequence")
    return {only};
  const json::Array *array = only->getArray(stepsKey);
  std::vector<const json::Object *> steps;
  for (size_t i = 0; array && i < array->size(); ++i)
    steps.push_back((*array)[i].getAsObject());
  if (!array || llvm::is_contained(steps, nullptr)) {
    problem.fail("expected objects in '{0}' of '{1}'", stepsKey, key);
    return {};
  }
  return steps;
}

//===----------------------------------------------------------------------===//
// Text before the model
//===----------------------------------------------------------------------===//

/// Whether text is composed.
static bool readNormalizer(FirstProblem &problem, const json::Object &file) {
  bool composes = false;
  for (const json::Object *step :
       stepsOf(problem, file, "normalizer", "normalizers")) {
    if (typeOf(*step) != "NFC")
      problem.fail("unsupported normalizer '{0}', expected none or NFC",
                   typeOf(*step));
    composes = true;
  }
  return composes;
}

/// "Split as llama-bpe": what a step does, in a word or two.
static std::string readStep(FirstProblem &problem, const json::Object &step) {
  JSONReader reader(problem.path(), step);
  std::string what = typeOf(step).str();
  if (what == "ByteLevel") {
    if (reader.boolean("add_prefix_space").value_or(true))
      reader.fail("unsupported 'add_prefix_space' of the pre-tokenizer "
                  "ByteLevel");
    if (!reader.boolean("use_regex").value_or(true))
      what = "bytes";
  } else if (what == "Digits") {
    if (!reader.boolean("individual_digits").value_or(false))
      reader.fail("unsupported pre-tokenizer Digits without "
                  "'individual_digits'");
  } else if (what == "Split") {
    const json::Object *pattern = reader.objectOf("pattern");
    StringRef text =
        pattern ? pattern->getString("Regex").value_or("") : StringRef();
    StringRef name = PreTokenizer::nameOf(text);
    StringRef behavior = reader.string("behavior").value_or("");
    if (name.empty())
      reader.fail("unsupported expression '{0}' of the pre-tokenizer Split, "
                  "expected that of gpt-2, llama-bpe or qwen2",
                  text);
    if (behavior != "Isolated" || reader.boolean("invert").value_or(false))
      reader.fail("unsupported behavior '{0}' of the pre-tokenizer Split, "
                  "expected Isolated, not inverted",
                  behavior);
    what = name.str();
  } else {
    reader.fail("unsupported pre-tokenizer '{0}', expected ByteLevel, Digits "
                "or Split",
                what);
  }
  problem.fail(reader.takeError());
  return what;
}

/// The name of the pre-tokenizer as a GGUF file would have it.
static StringRef readPreTokenizer(FirstProblem &problem,
                                  const json::Object &file) {
  std::vector<std::string> steps;
  for (const json::Object *step :
       stepsOf(problem, file, "pre_tokenizer", "pretokenizers"))
    steps.push_back(readStep(problem, *step));
  using Steps = std::vector<std::string>;
  static const std::pair<Steps, const char *> known[] = {
      {{"ByteLevel"}, "gpt-2"},
      {{"Digits", "ByteLevel"}, "smollm"},
      {{"gpt-2", "bytes"}, "gpt-2"},
      {{"llama-bpe", "bytes"}, "llama-bpe"},
      {{"qwen2", "bytes"}, "qwen2"}};
  for (const auto &[sequence, name] : known)
    if (steps == sequence)
      return name;
  problem.fail("unsupported sequence of pre-tokenizers ({0}), expected "
               "ByteLevel, Digits and ByteLevel, or Split and ByteLevel "
               "without 'use_regex'",
               llvm::join(steps, ", "));
  return "";
}

//===----------------------------------------------------------------------===//
// The model
//===----------------------------------------------------------------------===//

namespace {

/// A token before all are known.
struct PendingToken {
  StringRef text;
  TokenType type = TokenType::Unused;
  bool isGiven = false;
};

class VocabularyReader {
public:
  explicit VocabularyReader(FirstProblem &problem) : problem(problem) {}

  void read(const json::Object &vocab, const json::Array *added);
  void readMerges(const json::Array &merges);
  BytePairVocabulary take() { return std::move(vocabulary); }

private:
  void place(StringRef text, const json::Value *id, TokenType type);

  FirstProblem &problem;
  std::vector<PendingToken> tokens;
  size_t mostIds = 0;
  BytePairVocabulary vocabulary;
};

} // namespace

void VocabularyReader::place(StringRef text, const json::Value *value,
                             TokenType type) {
  std::optional<int64_t> id = value ? value->getAsInteger() : std::nullopt;
  if (!id || *id < 0 || size_t(*id) >= mostIds)
    return problem.fail("expected an id below {0} for token '{1}'", mostIds,
                        text);
  if (size_t(*id) >= tokens.size())
    tokens.resize(*id + 1);
  PendingToken &token = tokens[*id];
  if (token.isGiven && token.text != text)
    return problem.fail("tokens '{0}' and '{1}' both have id {2}", token.text,
                        text, *id);
  token = {text, type, /*isGiven=*/true};
}

void VocabularyReader::read(const json::Object &vocab,
                            const json::Array *added) {
  size_t given = vocab.size() + (added ? added->size() : 0);
  mostIds = std::min<size_t>(given + mostHoles, INT32_MAX);
  for (const auto &[text, id] : vocab)
    place(text, &id, TokenType::Normal);
  for (size_t i = 0; added && i < added->size(); ++i) {
    const json::Object *token = (*added)[i].getAsObject();
    std::optional<StringRef> text =
        token ? token->getString("content") : std::nullopt;
    if (!text) {
      problem.fail("expected 'content' in each of 'added_tokens'");
      continue;
    }
    const bool isSpecial = token->getBoolean("special").value_or(false);
    place(*text, token->get("id"),
          isSpecial ? TokenType::Control : TokenType::UserDefined);
  }
  for (const PendingToken &token : tokens)
    vocabulary.addToken(problem, token.text, token.type);
  vocabulary.findByteTokens();
}

void VocabularyReader::readMerges(const json::Array &merges) {
  for (const json::Value &merge : merges) {
    const json::Array *pair = merge.getAsArray();
    if (std::optional<StringRef> text = merge.getAsString())
      vocabulary.addMerge(problem, *text);
    else if (pair && pair->size() == 2 && (*pair)[0].getAsString() &&
             (*pair)[1].getAsString())
      vocabulary.addMerge(problem, *(*pair)[0].getAsString(),
                          *(*pair)[1].getAsString());
    else
      problem.fail("expected two tokens in merge {0}", merge);
  }
}

/// Refuses what makes other ids than byte-level BPE does.
static void checkModel(JSONReader &model) {
  StringRef type = model.string("type").value_or("BPE");
  if (type != "BPE")
    return model.fail("unsupported model '{0}', expected BPE", type);
  if (model.number("dropout").value_or(0) != 0)
    model.fail("unsupported 'dropout' of the model");
  for (StringRef key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!model.string(key).value_or("").empty())
      model.fail("unsupported '{0}' of the model", key);
  if (model.boolean("byte_fallback").value_or(false))
    model.fail("unsupported 'byte_fallback' of the model, expected byte-level "
               "BPE");
}

/// A token of any kind.
static std::optional<int32_t> findToken(const BytePairVocabulary &vocabulary,
                                        StringRef text) {
  std::optional<int32_t> special = vocabulary.findSpecial(text);
  return special ? special : vocabulary.findWritten(text);
}

static Expected<BytePairVocabulary> readModel(JSONReader &file,
                                              BytePairSettings &settings) {
  const json::Object none;
  const json::Object *object = file.objectOf("model");
  JSONReader model(file.path(), object ? *object : none);
  checkModel(model);
  const json::Object *vocab = model.objectOf("vocab");
  const json::Value *merges = model.find("merges");
  const json::Value *added = file.find("added_tokens");
  if (!vocab || !merges || !merges->getAsArray())
    model.fail("expected 'vocab' and 'merges' in 'model'");
  if (added && !added->getAsArray())
    model.fail("expected a list for 'added_tokens'");
  if (Error error = model.takeError())
    return error;
  VocabularyReader reader(model);
  reader.read(*vocab, added ? added->getAsArray() : nullptr);
  reader.readMerges(*merges->getAsArray());
  settings.ignoresMerges = model.boolean("ignore_merges").value_or(false);
  BytePairVocabulary vocabulary = reader.take();
  StringRef unknown = model.string("unk_token").value_or("");
  settings.unknownId = findToken(vocabulary, unknown);
  settings.joinsUnknown = model.boolean("fuse_unk").value_or(false);
  if (!unknown.empty() && !settings.unknownId)
    model.fail("'unk_token' is '{0}', which is no token", unknown);
  if (Error error = model.takeError())
    return error;
  return vocabulary;
}

//===----------------------------------------------------------------------===//
// What begins a text
//===----------------------------------------------------------------------===//

/// The id of a special token of a template.
static std::optional<int32_t> idOf(FirstProblem &problem,
                                   const json::Object &processor,
                                   const json::Object &special) {
  StringRef name = special.getString("id").value_or("");
  const json::Object *table = processor.getObject("special_tokens");
  const json::Object *entry = table ? table->getObject(name) : nullptr;
  const json::Array *ids = entry ? entry->getArray("ids") : nullptr;
  std::optional<int64_t> id =
      ids && ids->size() == 1 ? ids->front().getAsInteger() : std::nullopt;
  if (!id || *id < 0 || *id > INT32_MAX) {
    problem.fail("expected one id of '{0}' in 'special_tokens'", name);
    return std::nullopt;
  }
  return int32_t(*id);
}

/// TemplateProcessing: at most one special token, then the text.
static std::optional<int32_t> readTemplate(FirstProblem &problem,
                                           const json::Object &processor) {
  const json::Array none;
  const json::Array *steps = processor.getArray("single");
  std::optional<int32_t> bos;
  bool isBehindText = false;
  for (const json::Value &step : steps ? *steps : none) {
    const json::Object *object = step.getAsObject();
    const json::Object *special =
        object ? object->getObject("SpecialToken") : nullptr;
    if (!special)
      isBehindText = true;
    else if (bos || isBehindText)
      problem.fail("unsupported post-processor, expected at most one special "
                   "token, before the text");
    else
      bos = idOf(problem, processor, *special);
  }
  return bos;
}

static std::optional<int32_t> readPostProcessor(FirstProblem &problem,
                                                const json::Object &file) {
  std::optional<int32_t> bos;
  for (const json::Object *step :
       stepsOf(problem, file, "post_processor", "processors")) {
    StringRef type = typeOf(*step);
    if (type == "TemplateProcessing")
      bos = readTemplate(problem, *step);
    else if (type != "ByteLevel")
      problem.fail("unsupported post-processor '{0}', expected ByteLevel or "
                   "TemplateProcessing",
                   type);
  }
  return bos;
}

/// The id of a token that tokenizer_config.json names, if it does.
static std::optional<int32_t> idOf(FirstProblem &problem,
                                   const BytePairVocabulary &vocabulary,
                                   const char *key, StringRef token) {
  std::optional<int32_t> id = findToken(vocabulary, token);
  if (!id && !token.empty())
    problem.fail("'{0}' of tokenizer_config.json is '{1}', which is no token",
                 key, token);
  return id;
}

static void configure(FirstProblem &problem, const TokenizerConfig &config,
                      const BytePairVocabulary &vocabulary,
                      BytePairSettings &settings) {
  settings.chatTemplate = config.chatTemplate;
  settings.eosId = idOf(problem, vocabulary, "eos_token", config.eosToken);
  if (config.addsBos)
    settings.bosId = *config.addsBos ? idOf(problem, vocabulary, "bos_token",
                                            config.bosToken)
                                     : std::nullopt;
  if (config.addsBos.value_or(false) && !settings.bosId)
    problem.fail("tokenizer_config.json has 'add_bos_token', but no "
                 "'bos_token'");
  if (settings.bosId && *settings.bosId >= vocabulary.size())
    problem.fail("expected a token id below {0} in the post-processor, got {1}",
                 vocabulary.size(), *settings.bosId);
}

//===----------------------------------------------------------------------===//
// The file
//===----------------------------------------------------------------------===//

Expected<std::unique_ptr<Tokenizer>>
mlir::llm::openTokenizerJSON(StringRef directory) {
  std::string path = pathIn(directory, "tokenizer.json");
  Expected<json::Object> object = readJSON(path);
  if (!object)
    return object.takeError();
  Expected<TokenizerConfig> config = readTokenizerConfig(directory);
  if (!config)
    return config.takeError();
  JSONReader file(path, *object);
  BytePairSettings settings;
  settings.composes = readNormalizer(file, *object);
  StringRef kind = readPreTokenizer(file, *object);
  settings.bosId = readPostProcessor(file, *object);
  if (Error error = file.takeError())
    return error;
  Expected<BytePairVocabulary> vocabulary = readModel(file, settings);
  if (!vocabulary)
    file.fail(vocabulary.takeError());
  if (Error error = file.takeError())
    return error;
  configure(file, *config, *vocabulary, settings);
  if (Error error = file.takeError())
    return error;
  Expected<PreTokenizer> splitter = PreTokenizer::create(path, kind);
  if (!splitter)
    return splitter.takeError();
  return makeBytePairTokenizer(std::move(*splitter), std::move(*vocabulary),
                               std::move(settings));
}
