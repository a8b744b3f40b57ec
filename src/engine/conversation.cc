// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/conversation.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

namespace kvist {
namespace {

std::string RenderPlainly(const std::vector<ChatMessage>& messages) {
  std::string text;
  for (const ChatMessage& message : messages) {
    if (message.role == "user") text += "User: ";
    if (message.role == "assistant") text += "Assistant: ";
    text += message.content + "\n";
  }
  return text + "Assistant:";
}

}  // namespace

Result<Conversation> Conversation::Open(const GgufFile& file, bool use_template, std::string system) {
  std::optional<ChatTemplate> chat_template;
  if (use_template) {
    KVIST_TRY(chat_template, ChatTemplate::Open(file));
  }
  return Conversation(std::move(chat_template), std::move(system));
}

Conversation::Conversation(std::optional<ChatTemplate> chat_template, std::string system)
    : template_(std::move(chat_template)), system_(std::move(system)) {
  Clear();
}

void Conversation::Add(std::string role, std::string content) {
  messages_.push_back({std::move(role), std::move(content)});
}

void Conversation::Clear() {
  messages_.clear();
  if (!system_.empty()) Add("system", system_);
}

std::string Conversation::Save() const {
  nlohmann::json messages = nlohmann::json::array();
  for (const ChatMessage& message : messages_) messages.push_back({message.role, message.content});
  return messages.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

Status Conversation::Restore(std::string_view saved) {
  const auto json = nlohmann::json::parse(saved, nullptr, false);
  const auto is_message = [](const nlohmann::json& message) {
    return message.is_array() && message.size() == 2 && message[0].is_string() && message[1].is_string();
  };
  if (!json.is_array() || !std::ranges::all_of(json, is_message)) {
    return Fail(ErrorCode::kCorrupt, "the session was not saved by `kvist chat`: it holds no messages");
  }
  messages_.clear();
  for (const nlohmann::json& message : json) Add(message[0], message[1]);
  return {};
}

Result<std::vector<Token>> Conversation::Tokenize(const Tokenizer& tokenizer) const {
  if (!template_) return tokenizer.Encode(RenderPlainly(messages_));
  KVIST_TRY(const std::string text, template_->Render(messages_, true));
  // Most templates write the token that begins a text; where one doesn't, it goes before it if the model asks for it.
  std::vector<Token> tokens = tokenizer.Encode(text, {.add_special = false});
  const std::vector<Token> of_no_text = tokenizer.Encode("");
  const bool asks_for_bos = !of_no_text.empty() && of_no_text.front() == tokenizer.bos();
  if (asks_for_bos && (tokens.empty() || tokens.front() != tokenizer.bos())) {
    tokens.insert(tokens.begin(), of_no_text.front());
  }
  return tokens;
}

std::vector<std::string> Conversation::stops() const {
  return template_ ? std::vector<std::string>() : std::vector<std::string>{"\nUser:"};
}

}  // namespace kvist
