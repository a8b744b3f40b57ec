#include "policy/chat_class.h"
namespace kvist {
const char* ChatClassName(ChatClass c) {
  constexpr const char* n[] = {"short_chat", "long_document", "code", "creative"};
  return n[size_t(c)];
}
Result<ChatClass> ParseChatClass(std::string_view name) {
  for (auto c : kAllChatClasses)
    if (name == ChatClassName(c)) return c;
  return Fail(ErrorCode::kInvalidArgument, "'" + std::string(name) + "' is no class");
}
ChatClassification ClassifyChat(const ChatEvidence& e) {
  ChatClassification c{ChatClass::kShortChat, {1, 0, 0, 0}, "stub"};
  if (!e.recent_turns.empty() && e.recent_turns.back().text.find("poem") != std::string_view::npos)
    c = {ChatClass::kCreative, {0, 0, 0, 1}, "stub"};
  return c;
}
ChatClass ChatClassTracker::Update(const ChatClassification& c) {
  return current_ = c.best;
}
}  // namespace kvist
