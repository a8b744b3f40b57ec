// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/chat_manager.h"

#include <algorithm>
#include <cctype>
#include <span>
#include <utility>

namespace kvist {
namespace {

constexpr int kMostNamesakes = 100;

Status CheckName(const std::string& name) {
  const auto is_fine = [](unsigned char c) { return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.'; };
  if (!name.empty() && name.size() <= 100 && name.front() != '.' && std::ranges::all_of(name, is_fine)) return {};
  return Fail(ErrorCode::kInvalidArgument,
              "'" + name + "' is no name for a conversation: 1 to 100 letters, digits, - _ and dots, not a dot first");
}

Result<const Strategy*> FindStrategy(const ChatManagerOptions& options, const std::string& name) {
  if (!options.strategies) {
    return Fail(ErrorCode::kInvalidArgument, "there are no strategies here; begin with --strategy auto");
  }
  if (name == "auto") return nullptr;
  if (const Strategy* const found = options.strategies->Find(name)) return found;
  return Fail(ErrorCode::kInvalidArgument,
              "there is no strategy '" + name + "'; there are auto, " + options.strategies->Names());
}

}  // namespace

ChatManager::ChatManager(Model* model, std::shared_ptr<const Tokenizer> tokenizer, Cache* cache, Conversation empty,
                         ChatManagerOptions options)
    : model_(model),
      tokenizer_(std::move(tokenizer)),
      cache_(cache),
      empty_(std::move(empty)),
      options_(std::make_unique<ChatManagerOptions>(std::move(options))) {}

Result<ChatManager> ChatManager::Open(Model* model, std::shared_ptr<const Tokenizer> tokenizer, Cache* cache,
                                      Conversation empty, ChatManagerOptions options, const std::string& name) {
  if (options.strategies) {
    KVIST_TRY([[maybe_unused]] const Strategy* const known, FindStrategy(options, options.strategy));
  }
  KVIST_TRY_VOID(CheckName(name));
  ChatManager manager(model, std::move(tokenizer), cache, std::move(empty), std::move(options));
  manager.Add(name);
  return manager;
}

ChatManager::Chat ChatManager::NewChat(const std::string& name) const {
  Chat chat(name, empty_, Generator(model_, tokenizer_, cache_));
  if (options_->strategies) chat.chosen = FindStrategy(*options_, options_->strategy).value();
  return chat;
}

Status ChatManager::Begin(const std::string& name) {
  KVIST_TRY_VOID(CheckName(name));
  if (IsOpen(name)) {
    return Fail(ErrorCode::kInvalidArgument, "there is a conversation '" + name + "' already; /use goes on with it");
  }
  if (options_->saves_sessions && !IsUnsaved(name)) {
    return Fail(ErrorCode::kInvalidArgument,
                "there is a saved conversation '" + name + "'; /use goes on with it, or give another name");
  }
  Add(name);
  return {};
}

bool ChatManager::IsOpen(const std::string& name) const {
  return std::ranges::any_of(chats_, [&](const auto& chat) { return chat->name == name; });
}

bool ChatManager::IsUnsaved(const std::string& name) const {
  const auto stored = cache_->Resume(name);
  return !stored && stored.error().code == ErrorCode::kNotFound;
}

void ChatManager::Add(const std::string& name) {
  SwitchTo(*chats_.emplace_back(std::make_unique<Chat>(NewChat(name))));
}

Result<std::optional<ResumedChat>> ChatManager::Use(const std::string& name) {
  const auto open = std::ranges::find_if(chats_, [&](const auto& chat) { return chat->name == name; });
  const bool is_open = open != chats_.end();
  const bool has_begun = is_open && (*open)->conversation.num_messages() > empty_.num_messages();
  if (!has_begun && options_->saves_sessions) {
    auto resumed = Resume(name);
    if (resumed || resumed.error().code != ErrorCode::kNotFound) return resumed;
  }
  if (!is_open) return Fail(ErrorCode::kNotFound, "there is no conversation '" + name + "'; /new begins it");
  SwitchTo(**open);
  return std::nullopt;
}

Result<std::optional<ResumedChat>> ChatManager::Resume(const std::string& name) {
  KVIST_TRY(ResumedSession session, cache_->Resume(name));
  Chat chat = NewChat(name);
  KVIST_TRY_VOID(
      chat.conversation.Restore({reinterpret_cast<const char*>(session.notes.data()), session.notes.size()}));
  ResumedChat resumed{std::ssize(session.tokens), session.sequence.num_tokens(), std::move(session.reuse)};
  chat.generator.Continue(std::move(session.sequence));
  chat.num_tokens = resumed.num_tokens;
  const auto open = std::ranges::find_if(chats_, [&](const auto& each) { return each->name == name; });
  if (open != chats_.end()) {
    **open = std::move(chat);
    SwitchTo(**open);
  } else {
    SwitchTo(*chats_.emplace_back(std::make_unique<Chat>(std::move(chat))));
  }
  return resumed;
}

// What the one before does not need meanwhile leaves memory.
void ChatManager::SwitchTo(Chat& chat) {
  const bool leaves = current_ != nullptr && current_ != &chat;
  if (leaves && current_->strategy != nullptr && current_->strategy->uses_tiers) Park(*current_);
  current_ = &chat;
}

// Its blocks become idle prefixes, for the tiers, or for whoever needs the room.
void ChatManager::Park(Chat& chat) {
  chat.generator.Forget();
}

void ChatManager::Clear() {
  *current_ = NewChat(current_->name);
}

Status ChatManager::ChooseStrategy(const std::string& strategy) {
  KVIST_TRY(current_->chosen, FindStrategy(*options_, strategy));
  return {};
}

void ChatManager::ChooseByClass() {
  std::vector<ChatTurn> turns;
  for (const ChatMessage& message : current_->conversation.messages()) {
    if (message.role != "system") turns.push_back({message.role == "user", message.content});
  }
  current_->classification = ClassifyChat({.recent_turns = turns, .num_tokens = current_->num_tokens});
  current_->tracker.Update(*current_->classification);
}

void ChatManager::Follow(const Strategy& strategy, GenerateOptions& options) {
  if (current_->strategy != nullptr && current_->strategy != &strategy) ++current_->num_switches;
  current_->strategy = &strategy;
  options.sequence = {.is_sealing = IsQuantised(strategy.form) || current_->is_sealed_for_room,
                      .growth = strategy.growth,
                      .pages = strategy.pages};
  options.retain = strategy.retain;
  options.stream = strategy.stream;
}

bool ChatManager::MakeRoom() {
  Chat* oldest = nullptr;
  for (const auto& chat : chats_) {
    if (chat.get() == current_ || chat->generator.sequence().num_tokens() == 0) continue;
    if (oldest == nullptr || chat->used_at < oldest->used_at) oldest = chat.get();
  }
  if (oldest != nullptr) {
    Park(*oldest);
    return true;
  }
  const bool can_seal = IsQuantised(cache_->options().form) && !current_->generator.sequence().is_sealing();
  if (!can_seal) return false;
  current_->is_sealed_for_room = true;
  current_->generator.sequence().SetSealing(true);
  return true;
}

Result<Generation> ChatManager::Answer(const std::string& message, GenerateOptions& options, GenerateEvents events) {
  Chat& chat = *current_;
  chat.conversation.Add("user", message);
  if (options_->strategies) {
    ChooseByClass();
    Follow(chat.chosen != nullptr ? *chat.chosen : options_->strategies->Of(chat.tracker.current()), options);
  }
  for (std::string& stop : chat.conversation.stops()) options.stops.push_back(std::move(stop));
  events.on_no_room = [this] { return MakeRoom(); };
  chat.used_at = ++num_answers_;
  Result<Generation> generation = [&]() -> Result<Generation> {
    KVIST_TRY(const std::vector<Token> tokens, chat.conversation.Tokenize(*tokenizer_));
    return chat.generator.Generate(tokens, options, events);
  }();
  if (!generation) {
    chat.conversation.DropLast();
    return generation;
  }
  chat.total += generation->stats;
  chat.num_tokens = generation->stats.prompt_tokens + generation->stats.output_tokens;
  chat.conversation.Add("assistant", generation->text);
  return generation;
}

Status ChatManager::Save() {
  if (!options_->saves_sessions) return {};
  const std::string messages = current_->conversation.Save();
  const auto save = [&] {
    return cache_->Save(current_->name, current_->generator.sequence(), std::as_bytes(std::span(messages)));
  };
  const Status saved = save();
  if (saved || saved.error().code != ErrorCode::kFailedPrecondition) return saved;
  const std::string name = current_->name;
  for (int i = 2; i <= kMostNamesakes; ++i) {
    const std::string other = name + "-" + std::to_string(i);
    KVIST_TRY_VOID(CheckName(other));
    if (IsOpen(other) || !IsUnsaved(other)) continue;
    current_->name = other;
    const Status saved_so = save();
    if (!saved_so) current_->name = name;
    return saved_so;
  }
  return saved;
}

std::vector<ChatInfo> ChatManager::List() const {
  std::vector<ChatInfo> list;
  for (const auto& chat : chats_) {
    const Sequence& sequence = chat->generator.sequence();
    ChatInfo& info = list.emplace_back();
    info.name = chat->name;
    info.is_current = chat.get() == current_;
    info.num_messages = chat->conversation.num_messages();
    info.num_tokens = sequence.num_tokens();
    info.held_tokens = sequence.num_held_tokens();
    info.held_bytes = sequence.num_held_bytes();
    info.reused_tokens = chat->total.reused_tokens;
    info.computed_tokens = chat->total.computed_tokens;
    if (chat->classification) {
      info.chat_class = chat->tracker.current();
      info.why = chat->classification->why;
    }
    if (chat->strategy != nullptr) info.strategy = chat->strategy->name;
    info.is_chosen = chat->chosen != nullptr;
    info.num_switches = chat->num_switches;
  }
  return list;
}

}  // namespace kvist
