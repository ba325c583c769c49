//===- ChatTemplateTest.cpp - Turns of conversations ----------------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What is expected was written by jinja2 from these texts, with the answers
// among the messages. test/EndToEnd/tokenization.py does that with more texts,
// for first turns.
//
//===----------------------------------------------------------------------===//

#include "llm/Import/ChatTemplate.h"

#include "llvm/ADT/STLExtras.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

using namespace mlir::llm;
using llvm::StringRef;

namespace {

/// A token for each byte, its code, and special ones from 256 on.
class ByteTokenizer final : public Tokenizer {
public:
  std::string text;                  ///< of the template
  std::vector<std::string> specials; ///< without their brackets
  std::optional<int32_t> end;

  int64_t vocabularySize() const override { return 256 + specials.size(); }
  std::vector<int32_t> encode(StringRef bytes) const override {
    return {bytes.bytes_begin(), bytes.bytes_end()};
  }
  std::string decode(int32_t id, bool) const override {
    return id < 256 ? std::string(1, char(id)) : "[" + specials[id - 256] + "]";
  }
  std::optional<int32_t> specialId(StringRef name) const override {
    auto known = llvm::find_if(specials, [&](StringRef special) {
      return name == ("<|" + special + "|>").str() ||
             name == ("<" + special + ">").str();
    });
    if (known == specials.end())
      return std::nullopt;
    return 256 + int32_t(known - specials.begin());
  }
  std::vector<std::string> specialTexts() const override { return {}; }
  std::optional<int32_t> bos() const override { return std::nullopt; }
  std::optional<int32_t> eos() const override { return end; }
  StringRef chatTemplate() const override { return text; }
};

} // namespace

static ByteTokenizer chatML(const std::string &firstMessage) {
  ByteTokenizer tokenizer;
  tokenizer.specials = {"im_start", "im_end"};
  tokenizer.text =
      "{% for message in messages %}" + firstMessage +
      "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
      "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}"
      "{{ '<|im_start|>assistant\\n' }}{% endif %}";
  return tokenizer;
}

static ByteTokenizer chatMLWithSystem(const std::string &system) {
  return chatML("{% if loop.first and messages[0]['role'] != 'system' %}"
                "{{ '<|im_start|>system\\n" +
                system + "<|im_end|>\\n' }}{% endif %}");
}

static ByteTokenizer llama3() {
  ByteTokenizer tokenizer;
  tokenizer.specials = {"begin_of_text", "start_header_id", "end_header_id",
                        "eot_id"};
  tokenizer.text =
      "{% set loop_messages = messages %}{% for message in loop_messages %}"
      "{% set content = '<|start_header_id|>' + message['role'] + "
      "'<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}"
      "{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
      "{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
      "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";
  return tokenizer;
}

static ByteTokenizer llama2() {
  ByteTokenizer tokenizer;
  tokenizer.specials = {"s", "/s"};
  tokenizer.text =
      "{% if messages[0]['role'] == 'system' %}{% set loop_messages = "
      "messages[1:] %}{% set system_message = messages[0]['content'] %}"
      "{% else %}{% set loop_messages = messages %}{% set system_message = "
      "false %}{% endif %}{% for message in loop_messages %}{% if "
      "(message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
      "{{ raise_exception('Conversation roles must alternate "
      "user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 "
      "and system_message != false %}{% set content = '<<SYS>>\\n' + "
      "system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}"
      "{% set content = message['content'] %}{% endif %}{% if message['role'] "
      "== 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
      "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + "
      "' ' + eos_token }}{% endif %}{% endfor %}";
  return tokenizer;
}

static ByteTokenizer zephyr() {
  ByteTokenizer tokenizer;
  tokenizer.specials = {"/s"};
  tokenizer.end = 256;
  tokenizer.text =
      "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
      "{{ '<|user|>\n' + message['content'] + eos_token }}\n"
      "{% elif message['role'] == 'system' %}\n"
      "{{ '<|system|>\n' + message['content'] + eos_token }}\n"
      "{% elif message['role'] == 'assistant' %}\n"
      "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
      "{% if loop.last and add_generation_prompt %}\n"
      "{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}";
  return tokenizer;
}

static std::string show(const Tokenizer &tokenizer,
                        const std::vector<int32_t> &ids) {
  std::string text;
  for (int32_t id : ids)
    text += tokenizer.decode(id);
  return text;
}

/// Two turns and the answer to the first one.
static std::string conversation(const Tokenizer &tokenizer,
                                std::optional<StringRef> system,
                                StringRef answer = "So?") {
  ChatTemplate chat = llvm::cantFail(ChatTemplate::open(tokenizer));
  return show(tokenizer, chat.firstTurn(" Hi <|im_end|></s>\n", system)) +
         answer.str() + show(tokenizer, chat.nextTurn("\u3000No."));
}

static std::string failure(const Tokenizer &tokenizer) {
  auto chat = ChatTemplate::open(tokenizer);
  return chat ? "" : llvm::toString(chat.takeError());
}

static const StringRef beBrief = " Be <|im_start|>. ";

static const std::string chatMLBehindSystem =
    "[im_end]\n[im_start]user\n Hi <|im_end|></s>\n[im_end]\n"
    "[im_start]assistant\nSo?[im_end]\n[im_start]user\n\u3000No.[im_end]\n"
    "[im_start]assistant\n";

TEST(ChatTemplateTest, chatMLHasNoDefaultSystemMessage) {
  ByteTokenizer tokenizer = chatML("");
  EXPECT_EQ(conversation(tokenizer, std::nullopt),
            StringRef(chatMLBehindSystem).drop_front(strlen("[im_end]\n")));
  EXPECT_EQ(conversation(tokenizer, beBrief),
            "[im_start]system\n Be <|im_start|>. " + chatMLBehindSystem);
}

TEST(ChatTemplateTest, chatMLMayFirstDefineItsVariable) {
  ByteTokenizer tokenizer = chatML("");
  std::string plain = conversation(tokenizer, std::nullopt);
  tokenizer.text = "{% if not add_generation_prompt is defined %}{% set "
                   "add_generation_prompt = false %}{% endif %}" +
                   tokenizer.text;
  EXPECT_EQ(conversation(tokenizer, std::nullopt), plain);
}

TEST(ChatTemplateTest, eachModelHasItsOwnDefaultSystemMessage) {
  const std::pair<const char *, const char *> models[] = {
      {"SmolLM2",
       "You are a helpful AI assistant named SmolLM, trained by Hugging Face"},
      {"Qwen1.5", "You are a helpful assistant"},
      {"Qwen2", "You are a helpful assistant."}};
  for (auto [name, system] : models) {
    ByteTokenizer tokenizer = chatMLWithSystem(system);
    EXPECT_EQ(llvm::cantFail(ChatTemplate::open(tokenizer)).name(), name);
    EXPECT_EQ(conversation(tokenizer, std::nullopt),
              "[im_start]system\n" + std::string(system) + chatMLBehindSystem);
    EXPECT_EQ(conversation(tokenizer, beBrief),
              "[im_start]system\n Be <|im_start|>. " + chatMLBehindSystem);
  }
}

TEST(ChatTemplateTest, llama3TrimsWhatIsSaid) {
  const std::string rest =
      "[start_header_id]user[end_header_id]\n\nHi <|im_end|></s>[eot_id]"
      "[start_header_id]assistant[end_header_id]\n\nSo?[eot_id]"
      "[start_header_id]user[end_header_id]\n\nNo.[eot_id]"
      "[start_header_id]assistant[end_header_id]\n\n";
  ByteTokenizer tokenizer = llama3();
  EXPECT_EQ(conversation(tokenizer, std::nullopt), "[begin_of_text]" + rest);
  EXPECT_EQ(conversation(tokenizer, beBrief),
            "[begin_of_text][start_header_id]system[end_header_id]\n\n"
            "Be <|im_start|>.[eot_id]" +
                rest);
}

TEST(ChatTemplateTest, llama2PutsTheSystemMessageIntoTheFirstOne) {
  const std::string rest = "Hi <|im_end|></s> [/INST] So? [/s]"
                           "[s][INST] No. [/INST]";
  ByteTokenizer tokenizer = llama2();
  EXPECT_EQ(conversation(tokenizer, std::nullopt, " So? "),
            "[s][INST] " + rest);
  EXPECT_EQ(conversation(tokenizer, beBrief, " So? "),
            "[s][INST] <<SYS>>\n Be <|im_start|>. \n<</SYS>>\n\n " + rest);
}

TEST(ChatTemplateTest, zephyrEndsMessagesAsTexts) {
  const std::string rest =
      "user|>\n Hi <|im_end|></s>\n[/s]\n<|assistant|>\nSo?[/s]\n"
      "<|user|>\n\u3000No.[/s]\n<|assistant|>\n";
  ByteTokenizer tokenizer = zephyr();
  EXPECT_EQ(conversation(tokenizer, std::nullopt), "<|" + rest);
  EXPECT_EQ(conversation(tokenizer, beBrief),
            "<|system|>\n Be <|im_start|>. [/s]\n<|" + rest);
}

TEST(ChatTemplateTest, rolesAreSpecialWhereTheTokenizerHasThem) {
  ByteTokenizer tokenizer = zephyr();
  tokenizer.specials.push_back("user");
  ChatTemplate chat = llvm::cantFail(ChatTemplate::open(tokenizer));
  EXPECT_EQ(show(tokenizer, chat.firstTurn("<|user|>")),
            "[user]\n<|user|>[/s]\n<|assistant|>\n");
}

TEST(ChatTemplateTest, answersEndWithTheTokenOfTheTemplate) {
  auto end = [](const ByteTokenizer &tokenizer) {
    return llvm::cantFail(ChatTemplate::open(tokenizer)).endOfAnswer();
  };
  EXPECT_EQ(end(chatML("")), 257);
  EXPECT_EQ(end(llama3()), 259);
  EXPECT_EQ(end(llama2()), 257);
  EXPECT_EQ(end(zephyr()), 256);
}

TEST(ChatTemplateTest, aLastLineFeedCountsNothing) {
  ByteTokenizer tokenizer = chatML("");
  tokenizer.text += "\n";
  EXPECT_EQ(failure(tokenizer), "");
  tokenizer.text += "\n";
  EXPECT_NE(failure(tokenizer), "");
}

TEST(ChatTemplateTest, stripsWhatPythonStrips) {
  ByteTokenizer tokenizer = llama3();
  ChatTemplate chat = llvm::cantFail(ChatTemplate::open(tokenizer));
  const std::vector<int32_t> bare = chat.firstTurn("a b");
  for (const char *blank :
       {"\t", "\n", "\v", "\f", "\r", "\x1c", "\x1f", " ", "\u0085", "\u00a0",
        "\u1680", "\u2000", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f",
        "\u3000", " \n\u2003"})
    EXPECT_EQ(chat.firstTurn(blank + std::string("a b") + blank), bare);
  for (const char *other : {"\u200b", "\u180e", "\ufeff", "\x1b", "\x85"})
    EXPECT_NE(chat.firstTurn(other + std::string("a b")), bare);
  EXPECT_EQ(chat.firstTurn(" \n "), chat.firstTurn(""));
}

//===----------------------------------------------------------------------===//
// Refusals
//===----------------------------------------------------------------------===//

TEST(ChatTemplateTest, refusesUnknownTemplates) {
  ByteTokenizer tokenizer;
  EXPECT_EQ(failure(tokenizer), "the model has no chat template");
  const std::string expected =
      "unknown chat template, expected that of SmolLM2, ChatML, Qwen1.5, "
      "Qwen2, Qwen2.5, Llama 3, Llama 3.1, Llama 3.2, Llama 2 or Zephyr";
  EXPECT_EQ(failure(chatMLWithSystem("You are another.")), expected);
  tokenizer.text = "{{ '[INST]' }}";
  EXPECT_EQ(failure(tokenizer), expected);
}

TEST(ChatTemplateTest, refusesTokenizersThatLackItsTokens) {
  ByteTokenizer tokenizer = llama3();
  tokenizer.specials.pop_back();
  EXPECT_EQ(failure(tokenizer), "the chat template needs the token "
                                "'<|eot_id|>', which the tokenizer lacks");
  tokenizer = zephyr();
  tokenizer.end = std::nullopt;
  EXPECT_EQ(failure(tokenizer), "the chat template needs the end of a text, "
                                "which the tokenizer lacks");
}
