//===- ChatTemplate.cpp - How a model wants a conversation ----------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Import/ChatTemplate.h"
#include "TurnWriter.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/SHA256.h"

#include <ctime>

using namespace mlir::llm;
using llvm::Error;
using llvm::Expected;
using llvm::StringRef;

//===----------------------------------------------------------------------===//
// The formats
//===----------------------------------------------------------------------===//

using System = std::optional<StringRef>;

namespace {

/// What templates of one kind write.
struct ChatFormat {
  std::vector<StringRef>
      marks;             ///< the special tokens that it cannot do without
  StringRef endOfAnswer; ///< none: the tokenizer's end of a text

  void (*begin)(TurnWriter &writer, System system, StringRef user);
  /// Behind the end of an answer.
  void (*goOn)(TurnWriter &writer, StringRef user);
};

} // namespace

/// Without what Python's str.strip() takes off both ends.
static StringRef strip(StringRef text) {
  static constexpr StringRef blanks[] = {"\t",           "\n",
                                         "\v",           "\f",
                                         "\r",           "\x1c",
                                         "\x1d",         "\x1e",
                                         "\x1f",         " ",
                                         "\xc2\x85",     "\xc2\xa0",
                                         "\xe1\x9a\x80", "\xe2\x80\x80",
                                         "\xe2\x80\x81", "\xe2\x80\x82",
                                         "\xe2\x80\x83", "\xe2\x80\x84",
                                         "\xe2\x80\x85", "\xe2\x80\x86",
                                         "\xe2\x80\x87", "\xe2\x80\x88",
                                         "\xe2\x80\x89", "\xe2\x80\x8a",
                                         "\xe2\x80\xa8", "\xe2\x80\xa9",
                                         "\xe2\x80\xaf", "\xe2\x81\x9f",
                                         "\xe3\x80\x80"};
  auto isTakenOff = [&](StringRef blank) {
    return text.consume_front(blank) || text.consume_back(blank);
  };
  while (llvm::any_of(blanks, isTakenOff))
    continue;
  return text;
}

// <|im_start|>role, content<|im_end|>

static void writeChatML(TurnWriter &writer, StringRef role, StringRef content) {
  writer.mark("<|im_start|>").text(role).text("\n").text(content);
  writer.mark("<|im_end|>").text("\n");
}

static void askChatML(TurnWriter &writer, StringRef user) {
  writeChatML(writer, "user", user);
  writer.mark("<|im_start|>").text("assistant\n");
}

static const ChatFormat chatML = {
    {"<|im_start|>", "<|im_end|>"},
    "<|im_end|>",
    [](TurnWriter &writer, System system, StringRef user) {
      if (system)
        writeChatML(writer, "system", *system);
      askChatML(writer, user);
    },
    [](TurnWriter &writer, StringRef user) {
      askChatML(writer.text("\n"), user);
    }};

// <|start_header_id|>role<|end_header_id|>, content<|eot_id|>

static TurnWriter &beginLlama3(TurnWriter &writer, StringRef role) {
  writer.mark("<|start_header_id|>").text(role).mark("<|end_header_id|>");
  return writer.text("\n\n");
}

static void askLlama3(TurnWriter &writer, StringRef user) {
  beginLlama3(writer, "user").text(strip(user)).mark("<|eot_id|>");
  beginLlama3(writer, "assistant");
}

static const ChatFormat llama3 = {
    {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
     "<|eot_id|>"},
    "<|eot_id|>",
    [](TurnWriter &writer, System system, StringRef user) {
      writer.mark("<|begin_of_text|>");
      if (system)
        beginLlama3(writer, "system").text(strip(*system)).mark("<|eot_id|>");
      askLlama3(writer, user);
    },
    askLlama3};

/// From 3.1 on, the system's message is there in any case and begins with
/// dates.
static void beginDatedLlama3(TurnWriter &writer, StringRef date, System system,
                             StringRef user) {
  beginLlama3(writer.mark("<|begin_of_text|>"), "system");
  writer.text("Cutting Knowledge Date: December 2023\nToday Date: ");
  writer.text(date).text("\n\n").text(strip(system.value_or("")));
  askLlama3(writer.mark("<|eot_id|>"), user);
}

static const ChatFormat llama31 = {
    llama3.marks, llama3.endOfAnswer,
    [](TurnWriter &writer, System system, StringRef user) {
      beginDatedLlama3(writer, "26 Jul 2024", system, user);
    },
    llama3.goOn};

/// "05 Nov 2026"
static std::string today() {
  static constexpr const char *months[] = {"Jan", "Feb", "Mar", "Apr",
                                           "May", "Jun", "Jul", "Aug",
                                           "Sep", "Oct", "Nov", "Dec"};
  std::time_t now = std::time(nullptr);
  std::tm parts = {};
  localtime_r(&now, &parts);
  return llvm::formatv("{0:02} {1} {2}", parts.tm_mday, months[parts.tm_mon],
                       parts.tm_year + 1900)
      .str();
}

static const ChatFormat llama32 = {
    llama3.marks, llama3.endOfAnswer,
    [](TurnWriter &writer, System system, StringRef user) {
      beginDatedLlama3(writer, today(), system, user);
    },
    llama3.goOn};

// <s>[INST] content [/INST] answer </s>
// The blanks around an answer are the model's to write.

static void askLlama2(TurnWriter &writer, StringRef content) {
  writer.mark("<s>").text("[INST] ").text(strip(content)).text(" [/INST]");
}

static const ChatFormat llama2 = {
    {"<s>", "</s>"},
    "</s>",
    [](TurnWriter &writer, System system, StringRef user) {
      std::string content = user.str();
      if (system)
        content = ("<<SYS>>\n" + *system + "\n<</SYS>>\n\n" + user).str();
      askLlama2(writer, content);
    },
    askLlama2};

// <|role|>, content</s>; the roles need not be special.

static void writeZephyr(TurnWriter &writer, StringRef role, StringRef content) {
  writer.mark(role).text("\n").text(content).endOfText().text("\n");
}

static void askZephyr(TurnWriter &writer, StringRef user) {
  writeZephyr(writer, "<|user|>", user);
  writer.mark("<|assistant|>").text("\n");
}

static const ChatFormat zephyr = {
    {},
    "",
    [](TurnWriter &writer, System system, StringRef user) {
      if (system)
        writeZephyr(writer, "<|system|>", *system);
      askZephyr(writer, user);
    },
    [](TurnWriter &writer, StringRef user) {
      askZephyr(writer.text("\n"), user);
    }};

//===----------------------------------------------------------------------===//
// The templates
//===----------------------------------------------------------------------===//

struct mlir::llm::KnownTemplate {
  const char *name;
  const char *sha256; ///< of the text as canonical() has it
  const ChatFormat *format;
  System defaultSystem = std::nullopt;
};

/// As published in the tokenizer_config.json of these models; some have two
/// texts for one meaning.
static const KnownTemplate knownTemplates[] = {
    {"SmolLM2",
     "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788",
     &chatML,
     "You are a helpful AI assistant named SmolLM, trained by Hugging Face"},
    {"ChatML",
     "153280e3ff55d19da1398bdb3914ee2a51b80429bfaedde11d7d216c39db80f3",
     &chatML},
    {"ChatML",
     "58c1a1f04baa7adaeaba1f90267c3d57d9396f0c1f0129bdde9e76d3c6784af7",
     &chatML},
    {"Qwen1.5",
     "af9c0233881b083b52ff773580215222b5440ac3d0beeeca99b76329b048f8db",
     &chatML, "You are a helpful assistant"},
    {"Qwen2",
     "793202280c0910ab26bc6eb57c8212c2417324c6d8c4efd0d10d59092ab3e3eb",
     &chatML, "You are a helpful assistant."},
    {"Qwen2.5",
     "a18cc698dd45623eb707279d08e66f7bb8d76afc89ead84016b88487b395b5cc",
     &chatML,
     "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."},
    {"Qwen2.5",
     "7d6302983e64f35c4ad9459413ee827d5dcfa23ba5373f58cde030c9f724f7e8",
     &chatML, "You are a helpful assistant."},
    {"Llama 3",
     "ba03a121d097859c7b5b9cd03af99aafe95275210d2876f642ad9929a150f122",
     &llama3},
    {"Llama 3",
     "b48c47f6443892716176eb200bf4ef108f64e06ca26ed0fa8ebc0a4b3992fcb2",
     &llama3},
    {"Llama 3.1",
     "99799a835a31e1d33c4a9c7ee8a0de3923b291a95155ed6dc8efcbd0fe1d0238",
     &llama31},
    {"Llama 3.2",
     "0cac23ffd2b33ff7b039e17ee143a080053318146fdc788f1d49ed4745aa8683",
     &llama32},
    {"Llama 2",
     "9780fae5bfea3cfd7be37d328c6edfd296a8869be8131495bbe7eb37e780c88c",
     &llama2},
    {"Zephyr",
     "66291cf0045c2425a3a667cf3cbb7af2b11f09e025c02f97245323ab79119362",
     &zephyr},
};

/// Line feeds are written as they are, or escaped; the last one counts nothing.
static std::string canonical(StringRef text) {
  std::string result;
  while (!text.empty()) {
    auto [line, rest] = text.split("\\n");
    result += line;
    if (line.size() != text.size())
      result += '\n';
    text = rest;
  }
  if (StringRef(result).ends_with("\n"))
    result.pop_back();
  return result;
}

static const KnownTemplate *recognise(StringRef text) {
  std::string whole = canonical(text);
  std::string hash =
      llvm::toHex(llvm::SHA256::hash(llvm::arrayRefFromStringRef(whole)),
                  /*LowerCase=*/true);
  const auto *known = llvm::find_if(
      knownTemplates, [&](auto &known) { return hash == known.sha256; });
  return known == std::end(knownTemplates) ? nullptr : known;
}

static Error unknownTemplate() {
  std::vector<StringRef> names;
  for (const KnownTemplate &known : knownTemplates)
    if (!llvm::is_contained(names, known.name))
      names.push_back(known.name);
  return llvm::createStringError(
      "unknown chat template, expected that of " +
      llvm::join(llvm::ArrayRef(names).drop_back(), ", ") + " or " +
      names.back());
}

static Error missing(StringRef token) {
  return llvm::createStringError("the chat template needs the token '" + token +
                                 "', which the tokenizer lacks");
}

Expected<ChatTemplate> ChatTemplate::open(const Tokenizer &tokenizer) {
  if (tokenizer.chatTemplate().empty())
    return llvm::createStringError("the model has no chat template");
  const KnownTemplate *known = recognise(tokenizer.chatTemplate());
  if (!known)
    return unknownTemplate();
  for (StringRef mark : known->format->marks)
    if (!tokenizer.specialId(mark))
      return missing(mark);
  StringRef end = known->format->endOfAnswer;
  std::optional<int32_t> endId =
      end.empty() ? tokenizer.eos() : tokenizer.specialId(end);
  if (!endId)
    return llvm::createStringError("the chat template needs the end of a text, "
                                   "which the tokenizer lacks");
  return ChatTemplate(tokenizer, *known, *endId);
}

//===----------------------------------------------------------------------===//
// Turns
//===----------------------------------------------------------------------===//

StringRef ChatTemplate::name() const { return known->name; }

std::vector<int32_t> ChatTemplate::firstTurn(StringRef user,
                                             System system) const {
  TurnWriter writer(*tokenizer);
  known->format->begin(writer, system ? system : known->defaultSystem, user);
  return writer.takeIds();
}

std::vector<int32_t> ChatTemplate::nextTurn(StringRef user) const {
  TurnWriter writer(*tokenizer);
  known->format->goOn(writer.token(endId), user);
  return writer.takeIds();
}

Expected<std::vector<int32_t>>
mlir::llm::applyChatTemplate(const Tokenizer &tokenizer, StringRef user,
                             std::optional<StringRef> system) {
  Expected<ChatTemplate> chat = ChatTemplate::open(tokenizer);
  if (!chat)
    return chat.takeError();
  return chat->firstTurn(user, system);
}
