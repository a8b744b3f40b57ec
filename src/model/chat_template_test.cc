// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors

#include "model/chat_template.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "model/gguf_builder.h"

// The expected strings were made with Jinja from the models' own templates, 360 conversations each; a few are kept
// here. Of long templates only the lines that tell families apart are quoted.
namespace kvist::chat_template_test {
namespace {

using Messages = std::vector<ChatMessage>;

const Messages kPlain = {{"user", "Hi"}};
const Messages kLong = {{"system", "Be kind."}, {"user", " Hi \n"}, {"assistant", " Hello "}, {"user", "Bye"}};

std::string Render(const char* source, const Messages& messages, bool prompt = true) {
  const auto chat = ChatTemplate::Parse(source, "<BOS>", "<EOS>");
  REQUIRE_MESSAGE(chat.has_value(), chat.error().message);
  const auto text = chat->Render(messages, prompt);
  REQUIRE_MESSAGE(text.has_value(), text.error().message);
  return *text;
}

void CheckRefused(const char* source, const Messages& messages) {
  const auto text = ChatTemplate::Parse(source, "<BOS>", "<EOS>").value().Render(messages, true);
  REQUIRE_FALSE(text.has_value());
  CHECK(text.error().code == ErrorCode::kInvalidArgument);
}

constexpr const char* kSmolLm2 =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou "
    "are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\n' }}{% endif %}";

TEST_CASE("chat template: ChatML, with and without a system message of its own") {
  CHECK(Render(kSmolLm2, kPlain) ==
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  CHECK(Render(kSmolLm2, kLong, false) ==
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n Hi \n<|im_end|>\n"
        "<|im_start|>assistant\n Hello <|im_end|>\n<|im_start|>user\nBye<|im_end|>\n");
  constexpr const char* kQwen25 =
      R"({%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
      {%- else %}{{- '<|im_start|>system\nYou are Qwen.<|im_end|>\n' }}{%- endif %} ...
      {%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %})";
  CHECK(Render(kQwen25, kPlain) ==
        "<|im_start|>system\nYou are Qwen.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  constexpr const char* kBare =
      R"({% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}
      {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})";
  CHECK(Render(kBare, kPlain) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}

TEST_CASE("chat template: Qwen3 leaves out earlier thoughts") {
  constexpr const char* kQwen3 =
      R"({{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }} ... ns.last_query_index ...
      message.reasoning_content ... content.split('</think>')[-1] ... {{- '<|im_start|>assistant\n' }})";
  CHECK(Render(kQwen3, kPlain) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  CHECK(Render(kQwen3, {{"user", "1"}, {"assistant", "<think>\nhmm\n</think>\n\nfine"}, {"user", "2"}}) ==
        "<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\nfine<|im_end|>\n<|im_start|>user\n2<|im_end|>\n"
        "<|im_start|>assistant\n");
  CHECK(Render(kQwen3, {{"user", "1"}, {"assistant", "<think>\nhmm\n</think>\n\nfine"}}, false) ==
        "<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\n<think>\nhmm\n</think>\n\nfine<|im_end|>\n");
  CHECK(Render(kQwen3, {{"user", "1"}, {"assistant", "fine"}}, false) ==
        "<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nfine<|im_end|>\n");
}

TEST_CASE("chat template: Gemma folds the system message into the first user turn") {
  constexpr const char* kGemma3 =
      R"({{ bos_token }}{%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}{%- set role = "model" -%}
      {{ '<start_of_turn>' + role + '\n' }}{{ message['content'] | trim }}{{ '<end_of_turn>\n' }}
      {{'<start_of_turn>model\n'}})";
  CHECK(Render(kGemma3, kLong) ==
        "<BOS><start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n"
        "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n");
  CHECK(Render(kGemma3, {{"user", "\u00a0x\u3000"}}, false) == "<BOS><start_of_turn>user\nx<end_of_turn>\n");
  CheckRefused(kGemma3, {{"user", "1"}, {"user", "2"}});
  CheckRefused(kGemma3, {{"assistant", "1"}});
  constexpr const char* kGemma2 =
      R"({{ raise_exception('System role not supported') }} '<start_of_turn>' + 'model' | trim + '<end_of_turn>\n')";
  CHECK(Render(kGemma2, kPlain) == "<BOS><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n");
  CheckRefused(kGemma2, kLong);
}

TEST_CASE("chat template: Llama 2, 3 and 3.1") {
  constexpr const char* kLlama2 =
      R"({% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}
      {{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{{ ' '  + content.strip() + ' ' + eos_token }})";
  CHECK(Render(kLlama2, kLong) ==
        "<BOS>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\n Hi [/INST] Hello <EOS><BOS>[INST] Bye [/INST]");
  CheckRefused(kLlama2, {{"user", "1"}, {"user", "2"}});

  constexpr const char* kLlama3 =
      R"('<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>'
      {% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %})";
  CHECK(Render(kLlama3, kLong) ==
        "<BOS><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n");

  constexpr const char* kLlama31 =
      R"({%- set date_string = "26 Jul 2024" %}{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
      {{- "Cutting Knowledge Date: December 2023\n" }}{{- "Today Date: " + date_string + "\n\n" }}{{- "<|eot_id|>" }})";
  CHECK(Render(kLlama31, kPlain) ==
        "<BOS><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        "Today Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

TEST_CASE("chat template: Mistral puts the system message where its version does") {
  constexpr const char* kV3 =
      R"({{- bos_token }}{%- if loop.last and system_message is defined %}
      {{- "[INST] " + system_message + "\n\n" + message["content"] + "[/INST]" }}
      {{- " " + message["content"]|trim + eos_token}})";
  CHECK(Render(kV3, kLong) == "<BOS>[INST]  Hi \n[/INST] Hello<EOS>[INST] Be kind.\n\nBye[/INST]");
  constexpr const char* kFirst =
      R"({{ bos_token }}{{ '[INST] ' + message['content'] + ' [/INST]' }}{{ message['content'] + eos_token}})";
  CHECK(Render(kFirst, {{"user", "1"}, {"assistant", "2"}, {"user", "3"}}) ==
        "<BOS>[INST] 1 [/INST]2<EOS>[INST] 3 [/INST]");
  CheckRefused(kFirst, kLong);
}

TEST_CASE("chat template: Phi") {
  constexpr const char* kPhi3 =
      R"({{'<|system|>\n' + message['content'] + '<|end|>\n'}}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}
      {% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %})";
  CHECK(Render(kPhi3, kLong) ==
        "<|system|>\nBe kind.<|end|>\n<|user|>\n Hi \n<|end|>\n<|assistant|>\n Hello <|end|>\n"
        "<|user|>\nBye<|end|>\n<|assistant|>\n");
  CHECK(Render(kPhi3, kPlain, false) == "<|user|>\nHi<|end|>\n<EOS>");
  constexpr const char* kFirstPhi3 =
      R"({{ bos_token }}{{'<|user|>' + '\n' + message['content'] + '<|end|>' + '\n' + '<|assistant|>' + '\n'}})";
  CHECK(Render(kFirstPhi3, kLong, false) ==
        "<BOS><|user|>\n Hi \n<|end|>\n<|assistant|>\n Hello <|end|>\n<|user|>\nBye<|end|>\n<|assistant|>\n");
  constexpr const char* kPhi4 =
      R"({{'<|im_start|>system<|im_sep|>' + '<|im_end|>'}}{{'<|im_start|>user<|im_sep|>' + '<|im_end|>'}}
      {% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %})";
  CHECK(Render(kPhi4, kPlain) == "<|im_start|>user<|im_sep|>Hi<|im_end|><|im_start|>assistant<|im_sep|>");
  constexpr const char* kPhi4Mini =
      R"({{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}
      {% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %})";
  CHECK(Render(kPhi4Mini, kPlain) == "<|user|>Hi<|end|><|assistant|>");
  CHECK(Render(kPhi4Mini, kPlain, false) == "<|user|>Hi<|end|><EOS>");
}

TEST_CASE("chat template: what isn't known is said") {
  const auto unknown = ChatTemplate::Parse("{% martian %}" + std::string(100, 'x'), "", "");
  REQUIRE_FALSE(unknown.has_value());
  CHECK(unknown.error().code == ErrorCode::kUnsupported);
  CHECK(unknown.error().message.contains("{% martian %}" + std::string(47, 'x') + "'"));
  CHECK(unknown.error().message.contains("--no-template"));
  CheckRefused(kSmolLm2, {});
  CheckRefused(kSmolLm2, {{"tool", "x"}});
}

TEST_CASE("chat template: from a file, with the file's own BOS") {
  GgufBuilder builder;
  builder.AddStrings("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>"});
  builder.AddUint("tokenizer.ggml.bos_token_id", 1);
  builder.AddUint("tokenizer.ggml.eos_token_id", 2);
  builder.AddString(
      "tokenizer.chat_template",
      "{{ bos_token }}{{ '[INST] ' + message['content'] + ' [/INST]' }}{{ message['content'] + eos_token}}");
  const TemporaryFile file(builder.Build());
  const auto chat = ChatTemplate::Open(**GgufFile::Open(file.path()));
  REQUIRE_MESSAGE(chat.has_value(), chat.error().message);
  CHECK(chat->family() == "mistral");
  CHECK(chat->Render(Messages{{"user", "1"}, {"assistant", "2"}}, true).value() == "<s>[INST] 1 [/INST]2</s>");

  const TemporaryFile bare(GgufBuilder().Build());
  const auto none = ChatTemplate::Open(**GgufFile::Open(bare.path()));
  REQUIRE_FALSE(none.has_value());
  CHECK(none.error().code == ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace kvist::chat_template_test
