//===- ChatTemplate.cpp - How a model wants a conversation ----------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llm/Import/ChatTemplate.h"

#include "llvm/ADT/STLExtras.h"

using namespace mlir::llm;
using llvm::Expected;
using llvm::StringRef;

/// ChatML as SmolLM2 has it, with its default system message.
static constexpr StringRef smolLM2 =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != "
    "'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named "
    "SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}";

static constexpr StringRef smolLM2System =
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face";

/// Line feeds are written as they are, or escaped.
static std::string withLineFeeds(StringRef text) {
  std::string result;
  while (!text.empty()) {
    auto [line, rest] = text.split("\\n");
    result += line;
    if (line.size() != text.size())
      result += '\n';
    text = rest;
  }
  return result;
}

namespace {

/// Writes ChatML: what it is given as text stays text.
class ChatML {
public:
  static Expected<ChatML> create(const Tokenizer &tokenizer);

  void message(StringRef role, StringRef content);
  void open(StringRef role) { begin(role, ""); }
  std::vector<int32_t> takeIds() { return std::move(ids); }

private:
  explicit ChatML(const Tokenizer &tokenizer) : tokenizer(tokenizer) {}

  void begin(StringRef role, StringRef content);
  void text(StringRef text) { llvm::append_range(ids, tokenizer.encode(text)); }

  const Tokenizer &tokenizer;
  int32_t startId = 0;
  int32_t endId = 0;
  std::vector<int32_t> ids;
};

} // namespace

Expected<ChatML> ChatML::create(const Tokenizer &tokenizer) {
  ChatML chat(tokenizer);
  const std::pair<const char *, int32_t *> tokens[] = {
      {"<|im_start|>", &chat.startId}, {"<|im_end|>", &chat.endId}};
  for (auto [text, id] : tokens) {
    std::optional<int32_t> known = tokenizer.specialId(text);
    if (!known)
      return llvm::createStringError("the chat template needs the token '" +
                                     llvm::Twine(text) +
                                     "', which the tokenizer lacks");
    *id = *known;
  }
  return chat;
}

void ChatML::begin(StringRef role, StringRef content) {
  ids.push_back(startId);
  text((role + "\n" + content).str());
}

void ChatML::message(StringRef role, StringRef content) {
  begin(role, content);
  ids.push_back(endId);
  text("\n");
}

Expected<std::vector<int32_t>>
mlir::llm::applyChatTemplate(const Tokenizer &tokenizer, StringRef user) {
  if (tokenizer.chatTemplate().empty())
    return llvm::createStringError("the model has no chat template");
  if (withLineFeeds(tokenizer.chatTemplate()) != smolLM2)
    return llvm::createStringError(
        "unknown chat template, expected ChatML as in SmolLM2");
  Expected<ChatML> chat = ChatML::create(tokenizer);
  if (!chat)
    return chat.takeError();
  chat->message("system", smolLM2System);
  chat->message("user", user);
  chat->open("assistant");
  return chat->takeIds();
}
