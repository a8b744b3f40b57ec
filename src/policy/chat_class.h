// stub
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include "kvist/error.h"
namespace kvist {
enum class ChatClass : uint8_t { kShortChat, kLongDocument, kCode, kCreative };
inline constexpr ChatClass kAllChatClasses[] = {ChatClass::kShortChat, ChatClass::kLongDocument, ChatClass::kCode,
                                                ChatClass::kCreative};
const char* ChatClassName(ChatClass c);
Result<ChatClass> ParseChatClass(std::string_view name);
struct ChatTurn {
  bool is_user;
  std::string_view text;
};
struct ChatEvidence {
  std::span<const ChatTurn> recent_turns;
  int64_t num_tokens = 0;
};
struct ChatClassification {
  ChatClass best;
  std::array<double, 4> probabilities;
  std::string why;
};
ChatClassification ClassifyChat(const ChatEvidence& evidence);
class ChatClassTracker {
 public:
  ChatClass Update(const ChatClassification& c);
  ChatClass current() const { return current_; }

 private:
  ChatClass current_ = ChatClass::kShortChat;
};
}  // namespace kvist
