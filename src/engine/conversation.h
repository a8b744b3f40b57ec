// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/chat_template.h"
#include "model/tokenizer.h"

namespace kvist {

// The messages of a chat and how a model reads them: in its own template, or without one as lines "User: ..." and
// "Assistant: ...".
class Conversation {
 public:
  // kUnsupported when the model has no template that is known and use_template is set.
  static Result<Conversation> Open(const GgufFile& file, bool use_template, std::string system);

  void Add(std::string role, std::string content);
  void DropLast() { messages_.pop_back(); }
  void Clear();  // but for the system message
  // The messages, the system's too, as bytes and back. kCorrupt for others.
  std::string Save() const;
  Status Restore(std::string_view saved);
  size_t num_messages() const { return messages_.size(); }
  const std::vector<ChatMessage>& messages() const { return messages_; }

  // The tokens up to where the assistant's next message begins. Errors as ChatTemplate::Render.
  Result<std::vector<Token>> Tokenize(const Tokenizer& tokenizer) const;
  // Texts that end a message where the model has no token for it.
  std::vector<std::string> stops() const;

 private:
  Conversation(std::optional<ChatTemplate> chat_template, std::string system);
  std::optional<ChatTemplate> template_;
  std::string system_;
  std::vector<ChatMessage> messages_;
};

}  // namespace kvist
