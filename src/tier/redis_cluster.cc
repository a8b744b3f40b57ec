// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "tier/redis_cluster.h"

#include <algorithm>
#include <charconv>
#include <deque>
#include <utility>

namespace kvist {
namespace {

constexpr int kMaxRedirects = 5;    // of a request in one call
constexpr size_t kMaxNodes = 1000;  // as many as Redis says a cluster may have
constexpr size_t kMaxNodesText = size_t{512} << 10;

bool ParseNumber(std::string_view text, int max, int& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value >= 0 && value <= max;
}

// What is before the separator; the text keeps what is after it.
std::string_view TakeUntil(std::string_view& text, char separator) {
  const size_t length = std::min(text.find(separator), text.size());
  const std::string_view taken = text.substr(0, length);
  text.remove_prefix(std::min(length + 1, text.size()));
  return taken;
}

// "host:port". The host may be an IPv6 address, or missing.
std::optional<RedisAddress> ParseAddress(std::string_view text, const RedisAddress& from) {
  const size_t colon = text.rfind(':');
  RedisAddress address;
  if (colon == text.npos || !ParseNumber(text.substr(colon + 1), 65535, address.port) || address.port == 0) return {};
  address.host = text.substr(0, colon);
  if (address.host.empty() || address.host == "?") address.host = from.host;
  return address;
}

// "0-5460" or "7000".
std::optional<RedisSlotRange> ParseSlotRange(std::string_view text, const RedisAddress& address) {
  int first = 0, last = 0;
  if (!ParseNumber(TakeUntil(text, '-'), kNumRedisSlots - 1, first)) return {};
  if (text.empty()) last = first;
  if (!text.empty() && !ParseNumber(text, kNumRedisSlots - 1, last)) return {};
  return RedisSlotRange{uint16_t(first), uint16_t(last), address};
}

}  // namespace

uint16_t RedisSlot(std::string_view key) {
  const size_t open = key.find('{');
  const size_t close = open == key.npos ? key.npos : key.find('}', open);
  if (close != key.npos && close > open + 1) key = key.substr(open + 1, close - open - 1);
  uint16_t crc = 0;  // CRC-16/XMODEM
  for (const char c : key) {
    crc = uint16_t(crc ^ uint16_t(uint8_t(c)) << 8);
    for (int bit = 0; bit < 8; ++bit) crc = uint16_t(crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1);
  }
  return crc % kNumRedisSlots;
}

std::optional<RedisRedirect> ParseRedirect(std::string_view error, const RedisAddress& from) {
  const std::string_view kind = TakeUntil(error, ' ');
  if (kind != "MOVED" && kind != "ASK") return {};
  int slot = 0;
  if (!ParseNumber(TakeUntil(error, ' '), kNumRedisSlots - 1, slot)) return {};
  const auto address = ParseAddress(error, from);
  if (!address) return {};
  return RedisRedirect{kind == "ASK", uint16_t(slot), *address};
}

std::vector<RedisSlotRange> ParseClusterNodes(std::string_view text, const RedisAddress& from) {
  std::vector<RedisSlotRange> ranges;
  while (!text.empty()) {
    std::string_view line = TakeUntil(text, '\n');
    TakeUntil(line, ' ');  // the node's id
    std::string_view places = TakeUntil(line, ' ');
    const auto address = ParseAddress(TakeUntil(places, '@'), from);  // then: the port of the bus, the name
    for (int i = 0; i < 6; ++i) TakeUntil(line, ' ');  // flags, master, ping, pong, epoch, state of the link
    while (address && !line.empty()) {
      const auto range = ParseSlotRange(TakeUntil(line, ' '), *address);
      if (range) ranges.push_back(*range);
    }
  }
  return ranges;
}

RedisCluster::RedisCluster(RedisTierOptions options) : options_(std::move(options)) {
  first_ = NodeAt({options_.host, options_.port});
}

Status RedisCluster::Run(std::span<RedisRequest> requests, Clock::time_point deadline) {
  Errands errands;
  for (RedisRequest& request : requests) errands.push_back({&request, NodeOf(request.key)});
  Status outcome;
  bool has_learned = false;
  for (int i = 0; i <= kMaxRedirects && !errands.empty(); ++i) {
    Status once = RunOnce(errands, deadline);
    if (outcome) outcome = std::move(once);
    Errands redirected;
    for (const Errand& errand : errands) {
      const auto next = Redirected(errand);
      if (!next) continue;
      redirected.push_back(*next);
      if (next->is_after_ask || has_learned) continue;
      has_learned = true;
      LearnSlots(errand.node, deadline);
    }
    errands = std::move(redirected);
  }
  for (const RedisRequest& request : requests) {
    for (const RedisCommand& command : request.commands) {
      if (outcome && command.reply.kind == RedisReply::Kind::kError) {
        outcome = Fail(ErrorCode::kIo, "Redis answered with an error: " + command.reply.text);
      }
    }
  }
  return outcome;
}

// All servers at once.
Status RedisCluster::RunOnce(const Errands& errands, Clock::time_point deadline) {
  std::map<RedisNode*, std::vector<RedisCommand*>> node_to_commands;
  std::deque<RedisCommand> askings;
  for (const Errand& errand : errands) {
    for (RedisCommand& command : errand.request->commands) {
      auto& commands = node_to_commands[errand.node];
      if (errand.is_after_ask)
        commands.push_back(&askings.emplace_back(MakeCommand({"ASKING"}, RedisReply::Kind::kStatus)));
      command.reply = {};
      commands.push_back(&command);
    }
  }
  Status first_failure;
  std::vector<RedisNode*> nodes;
  std::vector<RedisNode::Lent> lent;
  std::vector<RedisConnection*> connections;
  const auto tell = [&](RedisNode* node, const Status& outcome) {
    node->Tell(outcome);
    if (!outcome && !RedisNode::IsBusy(outcome.error())) ForgetSlots(node);
    if (first_failure) first_failure = outcome;
  };
  for (auto& [node, commands] : node_to_commands) {
    if (!node->Allows()) continue;
    auto connection = node->Lend(deadline);
    if (!connection) {
      tell(node, std::unexpected(connection.error()));
      continue;
    }
    (*connection)->Begin(std::move(commands));
    nodes.push_back(node);
    connections.push_back(connection->get());
    lent.push_back(std::move(*connection));
  }
  const std::vector<Status> outcomes = RunCommands(connections, deadline);
  for (size_t i = 0; i < nodes.size(); ++i) tell(nodes[i], outcomes[i]);
  return first_failure;
}

std::optional<RedisCluster::Errand> RedisCluster::Redirected(const Errand& errand) {
  for (const RedisCommand& command : errand.request->commands) {
    if (command.reply.kind != RedisReply::Kind::kError) continue;
    const auto redirect = ParseRedirect(command.reply.text, errand.node->address());
    if (!redirect) continue;
    const std::lock_guard lock(mutex_);
    RedisNode* const node = NodeAt(redirect->address);
    if (node == nullptr) return {};
    if (!redirect->is_ask) {
      slot_to_node_.resize(kNumRedisSlots);
      slot_to_node_[redirect->slot] = node;
    }
    return Errand{errand.request, node, redirect->is_ask};
  }
  return {};
}

// Else every slot would be found by a redirect of its own, which a large value is sent twice for.
void RedisCluster::LearnSlots(RedisNode* from, Clock::time_point deadline) {
  std::vector<std::byte> text(kMaxNodesText);
  RedisCommand command = MakeCommand({"CLUSTER", "NODES"}, RedisReply::Kind::kString, text);
  auto connection = from->Lend(deadline);
  if (!connection) return;
  (*connection)->Begin({&command});
  RedisConnection* const connections[] = {connection->get()};
  RunCommands(connections, deadline);
  if (command.reply.kind != RedisReply::Kind::kString) return;
  const std::string_view lines(reinterpret_cast<const char*>(text.data()), command.reply.num_bytes);
  const std::lock_guard lock(mutex_);
  for (const RedisSlotRange& range : ParseClusterNodes(lines, from->address())) {
    RedisNode* const node = NodeAt(range.address);
    for (size_t slot = range.first; node != nullptr && slot <= range.last; ++slot) slot_to_node_[slot] = node;
  }
}

// A server that failed may have been replaced: whoever is asked next redirects to the new one.
void RedisCluster::ForgetSlots(const RedisNode* node) {
  const std::lock_guard lock(mutex_);
  std::ranges::replace(slot_to_node_, const_cast<RedisNode*>(node), nullptr);
}

RedisNode* RedisCluster::NodeOf(std::string_view key) {
  const std::lock_guard lock(mutex_);
  RedisNode* const known = slot_to_node_.empty() ? nullptr : slot_to_node_[RedisSlot(key)];
  if (known != nullptr) return known;
  if (!first_->is_resting()) return first_;
  for (const auto& [address, node] : nodes_) {
    if (!node->is_resting()) return node.get();
  }
  return first_;
}

// With the lock held. Null when there are too many, which is nonsense.
RedisNode* RedisCluster::NodeAt(const RedisAddress& address) {
  const auto found = nodes_.find(address);
  if (found != nodes_.end()) return found->second.get();
  if (nodes_.size() == kMaxNodes) return nullptr;
  return nodes_.emplace(address, std::make_unique<RedisNode>(address, options_)).first->second.get();
}

}  // namespace kvist
