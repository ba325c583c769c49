//===- TokenizerJSONTest.cpp - tokenizer.json of a directory --------------===//
//
// Part of the paged KV cache project, under the Apache License v2.0 with LLVM
// Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TestFiles.h"
#include "TestTokenizerJSON.h"
#include "llm/Import/Tokenizer.h"

using namespace mlir::llm;
using namespace mlir::llm::test;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using Ids = std::vector<int32_t>;

namespace {

class TokenizerJSONTest : public FileTest {
protected:
  llvm::Expected<std::unique_ptr<Tokenizer>> open(const TokenizerJSON &file) {
    write("tokenizer.json", file.text());
    return Tokenizer::open(directory.string());
  }
  std::unique_ptr<Tokenizer> read(const TokenizerJSON &file) {
    return llvm::cantFail(open(file));
  }
  std::unique_ptr<Tokenizer> readWith(const char *part, const char *value) {
    return read(TokenizerJSON().set(part, value));
  }
  std::string failureWith(const char *part, const char *value) {
    return messageOf(open(TokenizerJSON().set(part, value)));
  }
  std::string failureOfModel(const char *fields) {
    return failureWith("model", fields);
  }
};

} // namespace

TEST_F(TokenizerJSONTest, EncodesAndDecodes) {
  auto tokenizer = read(TokenizerJSON());
  EXPECT_EQ(tokenizer->vocabularySize(), 10);
  EXPECT_EQ(tokenizer->encode("abab ab a"), (Ids{3, 3, 4, 3, 5}));
  EXPECT_EQ(tokenizer->decode(5), " a");
  EXPECT_EQ(tokenizer->bos(), std::nullopt);
  EXPECT_EQ(tokenizer->eos(), std::nullopt);
  EXPECT_EQ(tokenizer->chatTemplate(), "");
}

TEST_F(TokenizerJSONTest, TakesMergesAsStringsOrPairs) {
  auto tokenizer = readWith("merges", R"([["a", "b"], "Ġ a"])");
  EXPECT_EQ(tokenizer->encode("ab a"), (Ids{3, 5}));
  for (const char *merge : {R"(["ab"])", R"([["a"]])", R"([["a", 1]])", "[7]"})
    EXPECT_THAT(failureWith("merges", merge),
                HasSubstr("expected two tokens in merge "));
  EXPECT_THAT(failureWith("merges", R"([["b", "a"]])"),
              EndsWith("merge 'b a' needs a token that is not there"));
}

TEST_F(TokenizerJSONTest, IgnoresMergesWhereTheFileSaysSo) {
  EXPECT_EQ(read(TokenizerJSON())->encode("aba"), (Ids{3, 1}));
  EXPECT_EQ(readWith("ignore_merges", "true")->encode("aba"), (Ids{6}));
}

TEST_F(TokenizerJSONTest, NeverFindsAddedTokensInText) {
  auto tokenizer = read(TokenizerJSON());
  EXPECT_EQ(tokenizer->specialId("<end>"), 0);
  EXPECT_EQ(tokenizer->specialId("<user>"), 9);
  EXPECT_EQ(tokenizer->encode("<end>a<user>"), (Ids{1}));
  EXPECT_EQ(tokenizer->numDroppedBytes(), 11);
  EXPECT_EQ(tokenizer->decode(0), "");
  EXPECT_EQ(tokenizer->decode(8), "");
  EXPECT_EQ(tokenizer->decode(9), "<user>");
}

TEST_F(TokenizerJSONTest, WritesUnknownBytesAsTheUnknownToken) {
  TokenizerJSON file;
  file.set("unk_token", R"("<end>")");
  EXPECT_EQ(read(file)->encode("axyb"), (Ids{1, 0, 0, 2}));
  file.set("fuse_unk", "true");
  EXPECT_EQ(read(file)->encode("axyb"), (Ids{1, 0, 2}));
  EXPECT_EQ(readWith("unk_token", R"("")")->encode("axb"), (Ids{3}));
  file.set("unk_token", R"("ab")");
  EXPECT_EQ(read(file)->encode("x"), (Ids{3}));
  EXPECT_THAT(failureWith("unk_token", R"("?")"),
              EndsWith("'unk_token' is '?', which is no token"));
}

TEST_F(TokenizerJSONTest, ComposesWhereTheFileSaysSo) {
  const char *vocab = R"({"e": 0, "Ã": 1, "©": 2, "Ì": 3, "ģ": 4})";
  TokenizerJSON file;
  file.set("vocab", vocab).set("added_tokens", "[]").set("merges", "[]");
  EXPECT_EQ(read(file)->encode("e\u0301"), (Ids{0, 3, 4}));
  for (const char *normalizer :
       {R"({"type": "NFC"})",
        R"({"type": "Sequence", "normalizers": [{"type": "NFC"}]})"})
    EXPECT_EQ(read(file.set("normalizer", normalizer))->encode("e\u0301"),
              (Ids{1, 2}));
  EXPECT_THAT(failureWith("normalizer", R"({"type": "NFKC"})"),
              EndsWith("unsupported normalizer 'NFKC', expected none or NFC"));
  EXPECT_THAT(failureWith("normalizer", "{}"),
              EndsWith("unsupported normalizer '', expected none or NFC"));
  EXPECT_THAT(failureWith("normalizer", "1"),
              EndsWith("expected an object for 'normalizer'"));
  EXPECT_THAT(
      failureWith("normalizer", R"({"type": "Sequence", "normalizers": [1]})"),
      EndsWith("expected objects in 'normalizers' of 'normalizer'"));
}

//===----------------------------------------------------------------------===//
// Pre-tokenizers
//===----------------------------------------------------------------------===//

TEST_F(TokenizerJSONTest, RefusesOtherPreTokenizers) {
  auto failure = [&](const char *value) {
    return failureWith("pre_tokenizer", value);
  };
  EXPECT_THAT(failure(R"({"type": "Metaspace"})"),
              EndsWith("unsupported pre-tokenizer 'Metaspace', expected "
                       "ByteLevel, Digits or Split"));
  EXPECT_THAT(failure(R"({"type": "ByteLevel"})"),
              EndsWith("unsupported 'add_prefix_space' of the pre-tokenizer "
                       "ByteLevel"));
  EXPECT_THAT(failure(R"({"type": "Digits"})"),
              EndsWith("unsupported pre-tokenizer Digits without "
                       "'individual_digits'"));
  EXPECT_THAT(failure(R"({"type": "Split", "pattern": {"Regex": "a+"},)"
                      R"( "behavior": "Isolated"})"),
              EndsWith("unsupported expression 'a+' of the pre-tokenizer "
                       "Split, expected that of gpt-2, llama-bpe or qwen2"));
  EXPECT_THAT(failure("null"),
              EndsWith("unsupported sequence of pre-tokenizers (), expected "
                       "ByteLevel, Digits and ByteLevel, or Split and "
                       "ByteLevel without 'use_regex'"));
  EXPECT_THAT(failure(R"({"type": "ByteLevel", "add_prefix_space": false,)"
                      R"( "use_regex": false})"),
              HasSubstr("unsupported sequence of pre-tokenizers (bytes)"));
}

TEST_F(TokenizerJSONTest, RefusesSplitsThatDropText) {
  auto failure = [&](const std::string &behavior) {
    return failureWith(
        "pre_tokenizer",
        (R"({"type": "Split", "pattern": {"Regex": )"
         R"("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+)"
         R"(| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"}, "behavior": )" +
         behavior + "}")
            .c_str());
  };
  EXPECT_THAT(failure(R"("Removed")"),
              EndsWith("unsupported behavior 'Removed' of the pre-tokenizer "
                       "Split, expected Isolated, not inverted"));
  EXPECT_THAT(failure(R"("Isolated", "invert": true)"),
              EndsWith("unsupported behavior 'Isolated' of the pre-tokenizer "
                       "Split, expected Isolated, not inverted"));
}

//===----------------------------------------------------------------------===//
// Bos, eos and chat template
//===----------------------------------------------------------------------===//

static const char *const beginsWithEnd =
    R"({"type": "Sequence", "processors": [{"type": "ByteLevel"},
        {"type": "TemplateProcessing",
         "single": [{"SpecialToken": {"id": "<end>", "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}}],
         "special_tokens": {"<end>": {"id": "<end>", "ids": [0]}}}]})";

TEST_F(TokenizerJSONTest, BeginsWithBosWhereTheFileWantsIt) {
  EXPECT_EQ(readWith("post_processor", beginsWithEnd)->bos(), 0);
  write("tokenizer_config.json", R"({"add_bos_token": false})");
  EXPECT_EQ(readWith("post_processor", beginsWithEnd)->bos(), std::nullopt);
  write("tokenizer_config.json",
        R"({"add_bos_token": true, "bos_token": "<user>"})");
  EXPECT_EQ(readWith("post_processor", beginsWithEnd)->bos(), 9);
}

TEST_F(TokenizerJSONTest, RefusesOtherPostProcessors) {
  auto failure = [&](const char *value) {
    return failureWith("post_processor", value);
  };
  EXPECT_THAT(failure(R"({"type": "BertProcessing"})"),
              EndsWith("unsupported post-processor 'BertProcessing', expected "
                       "ByteLevel or TemplateProcessing"));
  EXPECT_THAT(failure(R"({"type": "TemplateProcessing", "single": [)"
                      R"({"Sequence": {}}, {"SpecialToken": {}}]})"),
              EndsWith("unsupported post-processor, expected at most one "
                       "special token, before the text"));
  EXPECT_THAT(failure(R"({"type": "TemplateProcessing", "single": [)"
                      R"({"SpecialToken": {"id": "x"}}]})"),
              EndsWith("expected one id of 'x' in 'special_tokens'"));
  EXPECT_THAT(failure(R"({"type": "TemplateProcessing", "single": [)"
                      R"({"SpecialToken": {"id": "x"}}],)"
                      R"( "special_tokens": {"x": {"ids": [10]}}})"),
              EndsWith("expected a token id below 10 in the post-processor, "
                       "got 10"));
}

TEST_F(TokenizerJSONTest, ReadsTheTokenizerConfig) {
  write("tokenizer_config.json",
        R"({"eos_token": {"content": "<end>"}, "chat_template": "{{ x }}"})");
  auto tokenizer = read(TokenizerJSON());
  EXPECT_EQ(tokenizer->eos(), 0);
  EXPECT_EQ(tokenizer->chatTemplate(), "{{ x }}");
  write("tokenizer_config.json",
        R"({"chat_template": [{"name": "tools", "template": "t"},)"
        R"( {"name": "default", "template": "d"}]})");
  EXPECT_EQ(read(TokenizerJSON())->chatTemplate(), "d");
  write("chat_template.jinja", "{{ file }}\n");
  EXPECT_EQ(read(TokenizerJSON())->chatTemplate(), "{{ file }}\n");
}

TEST_F(TokenizerJSONTest, RefusesConfigsWithoutTheirTokens) {
  auto failure = [&](const char *config) {
    write("tokenizer_config.json", config);
    return messageOf(open(TokenizerJSON()));
  };
  EXPECT_THAT(failure(R"({"add_bos_token": true})"),
              EndsWith("tokenizer_config.json has 'add_bos_token', but no "
                       "'bos_token'"));
  EXPECT_THAT(failure(R"({"eos_token": "<no>"})"),
              EndsWith("'eos_token' of tokenizer_config.json is '<no>', which "
                       "is no token"));
  EXPECT_THAT(failure(R"({"eos_token": 3})"),
              EndsWith("expected a token for 'eos_token', got 3"));
}

//===----------------------------------------------------------------------===//
// Models
//===----------------------------------------------------------------------===//

TEST_F(TokenizerJSONTest, RefusesOtherModels) {
  EXPECT_THAT(failureWith("type", R"("Unigram")"),
              EndsWith("unsupported model 'Unigram', expected BPE"));
  EXPECT_THAT(failureWith("dropout", "0.1"),
              EndsWith("unsupported 'dropout' of the model"));
  EXPECT_THAT(failureWith("byte_fallback", "true"),
              EndsWith("unsupported 'byte_fallback' of the model, expected "
                       "byte-level BPE"));
  for (const char *key : {"continuing_subword_prefix", "end_of_word_suffix"})
    EXPECT_THAT(
        failureWith(key, R"("##")"),
        EndsWith("unsupported '" + std::string(key) + "' of the model"));
}

TEST_F(TokenizerJSONTest, RefusesBadVocabularies) {
  EXPECT_THAT(failureOfModel("{}"),
              EndsWith("expected 'vocab' and 'merges' in 'model'"));
  EXPECT_THAT(failureOfModel("[]"),
              EndsWith("expected an object for 'model', got []"));
  EXPECT_THAT(failureWith("added_tokens", "{}"),
              EndsWith("expected a list for 'added_tokens'"));
  EXPECT_THAT(failureWith("added_tokens", "[1]"),
              EndsWith("expected 'content' in each of 'added_tokens'"));
  EXPECT_THAT(failureWith("added_tokens", R"([{"content": "c", "id": 1}])"),
              EndsWith("tokens 'a' and 'c' both have id 1"));
  for (const char *id : {"-1", "65545", R"("1")", "1.5", "null"})
    EXPECT_THAT(
        failureWith(
            "added_tokens",
            (R"([{"content": "c", "id": )" + std::string(id) + "}]").c_str()),
        EndsWith("expected an id below 65544 for token 'c'"));
}

TEST_F(TokenizerJSONTest, GivesWayToSentencePiece) {
  write("tokenizer.model", "this is no protocol buffer");
  EXPECT_THAT(messageOf(open(TokenizerJSON())),
              HasSubstr("tokenizer.model: invalid SentencePiece model: "));
}
