// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "kvist/error.h"
#include "model/gguf.h"

namespace kvist {

struct ChatMessage {
  std::string role;  // "system", "user" or "assistant"
  std::string content;
};

// Renders a conversation the way the model was trained on. The file's own Jinja template is recognised by its markers
// and rendered by our code for that family (exactly what the template would give); an unknown one is an error.
class ChatTemplate {
 public:
  // kUnsupported when the file has no template or one that is not known; the message says to use --no-template.
  static Result<ChatTemplate> Open(const GgufFile& file);
  // The same from the template's own text; bos and eos are the names of those tokens ("" when there are none).
  static Result<ChatTemplate> Parse(std::string_view source, std::string_view bos, std::string_view eos);

  // The text to tokenize (with parse_special, and without a second BOS when the text starts with it).
  // add_generation_prompt: end with the marker that opens the assistant's turn.
  // kInvalidArgument for an unknown role, no messages at all, or an order the family's template refuses.
  Result<std::string> Render(std::span<const ChatMessage> messages, bool add_generation_prompt) const;
  // "chatml", "qwen3", "gemma", "llama2", "llama3", "llama3.1", "mistral", "phi3", "phi4", "phi4-mini"
  std::string_view family() const;

  // What the templates of one family differ in; read off the template's text.
  struct Details {
    std::string bos, eos;
    std::string default_system;     // chatml: the system message of a conversation that has none
    std::string generation_prompt;  // what opens the assistant's turn
    std::string eos_at_end;         // phi: closes a text without a generation prompt
    bool always_prompts = false;    // llama3, phi3: older templates open the assistant's turn unasked
    bool refuses_system = false;    // gemma before 3
    // mistral
    std::string instruction_begin, instruction_end, answer_begin, answer_end;
    bool trims_answer = false;
    enum class SystemGoes { kNowhere, kFirst, kLast, kLastUser } system_goes = SystemGoes::kNowhere;
  };
  struct Family;

 private:
  ChatTemplate(const Family* family, Details details);
  const Family* family_;
  Details details_;
};

}  // namespace kvist
