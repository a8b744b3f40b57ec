// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "engine/scheduler.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "engine/generator.h"
#include "engine/tiny_engine.h"
#include "kvist/kv_size.h"

namespace kvist::scheduler_test {
namespace {

constexpr Form kF16{Codec::kF16, Codec::kF16};
constexpr Form kF32{Codec::kF32, Codec::kF32};

// A tiny model, what Generator makes of a request alone, and a scheduler with a cache of so many blocks.
struct Rig : TinyEngine {
  explicit Rig(const TinyModel& tiny = {}, Form form_in = kF16) : TinyEngine(tiny), form(form_in) {
    alone_cache = OpenCache(0);
  }

  std::unique_ptr<Cache> OpenCache(size_t budget_bytes) const {
    auto opened = Cache::Open(model->geometry(), {.form = form, .budget_bytes = budget_bytes, .shares_prefixes = true});
    REQUIRE(opened);
    return *std::move(opened);
  }
  size_t block_bytes() const { return KvBlockBytes(model->geometry(), form); }
  // A number of blocks, 0: no limit.
  void Begin(size_t budget_blocks, const SchedulerOptions& options = {}) {
    scheduler.reset();
    budget_bytes = budget_blocks * block_bytes();
    cache = OpenCache(budget_bytes);
    scheduler.emplace(model.get(), tokenizer, cache.get(), options);
    finished.clear();
    order.clear();
  }

  RequestId Submit(Request request) {
    const auto id = scheduler->Submit(std::move(request));
    REQUIRE(id);
    return *id;
  }
  void Step() {
    for (Finished& each : scheduler->Step()) {
      order.push_back(each.id);
      CHECK(finished.emplace(each.id, std::move(each)).second);
    }
    if (budget_bytes > 0) CHECK(cache->stats().committed_bytes <= budget_bytes);
  }
  void RunAll(int max_steps = 5000) {
    for (int i = 0; scheduler->has_work(); ++i) {
      REQUIRE(i < max_steps);
      Step();
    }
    if (budget_bytes > 0) CHECK(cache->stats().peak_committed_bytes <= budget_bytes);
    CHECK(cache->stats().num_sequences == 0);
    CHECK(scheduler->stats().num_waiting == 0);
    CHECK(scheduler->stats().num_running == 0);
  }
  const Generation& Of(RequestId id) {
    REQUIRE(finished.contains(id));
    const Result<Generation>& generation = finished.at(id).generation;
    REQUIRE_MESSAGE(generation, (generation ? "" : generation.error().message));
    return *finished.at(id).generation;
  }
  ErrorCode ErrorOf(RequestId id) {
    REQUIRE(finished.contains(id));
    REQUIRE_FALSE(finished.at(id).generation);
    return finished.at(id).generation.error().code;
  }
  Generation Alone(const Request& request) {
    auto generation =
        Generator(model.get(), tokenizer, alone_cache.get()).Generate(request.prompt, request.options, {});
    REQUIRE(generation);
    return *std::move(generation);
  }

  Form form;
  std::unique_ptr<Cache> alone_cache;
  std::unique_ptr<Cache> cache;
  size_t budget_bytes = 0;
  std::optional<Scheduler> scheduler;
  std::map<RequestId, Finished> finished;
  std::vector<RequestId> order;
};

Request Ask(std::vector<Token> prompt, int64_t max_tokens) {
  return {.prompt = std::move(prompt), .options = {.max_tokens = max_tokens, .sampler = {}, .stops = {}}};
}

// All kinds: greedy and random, some that begin alike, some with a stop string that comes late.
std::vector<Request> ManyRequests(Rig& rig) {
  std::vector<Request> requests;
  for (int i = 0; i < 12; ++i) {
    const auto seed = static_cast<uint32_t>(i);
    std::vector<Token> prompt = SomeTokens(20 + 9 * i, seed + 1);
    if (i % 3 == 1) prompt = Join(SomeTokens(70, 99), SomeTokens(5 + i, seed));
    Request request = Ask(std::move(prompt), 40 + i % 4 * 10);
    if (i % 2 == 1) {
      request.options.sampler = {.temperature = 2.0F, .top_k = 20, .repetition_penalty = 1.1F, .seed = seed};
      if (i % 4 == 1) request.options.stops = {rig.Alone(request).text.substr(33, 3), "never said"};
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

// Submits them all and compares with each alone; returns what the scheduler counted.
SchedulerStats CompareWithAlone(Rig& rig, const std::vector<Request>& requests, size_t budget_blocks,
                                const SchedulerOptions& options = {}) {
  CAPTURE(budget_blocks);
  rig.Begin(budget_blocks, options);
  std::vector<RequestId> ids;
  std::vector<std::string> shown(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    Request request = requests[i];
    request.on_text = [&shown, i](std::string_view text) {
      shown[i] += text;
      return true;
    };
    ids.push_back(rig.Submit(std::move(request)));
  }
  CHECK(rig.scheduler->stats().num_waiting == requests.size());
  rig.RunAll();
  for (size_t i = 0; i < requests.size(); ++i) {
    CAPTURE(i);
    const Generation alone = rig.Alone(requests[i]);
    const Generation& together = rig.Of(ids[i]);
    CHECK(together.tokens == alone.tokens);
    CHECK(together.text == alone.text);
    CHECK(shown[i] == alone.text);
    CHECK(together.finish == alone.finish);
    CHECK(together.stats.prompt_tokens == alone.stats.prompt_tokens);
    CHECK(together.stats.output_tokens == alone.stats.output_tokens);
  }
  return rig.scheduler->stats();
}

TEST_CASE("scheduler: texts are those of each request alone, whatever the budget") {
  for (const Form form : {kF16, kF32}) {
    Rig rig({}, form);
    const std::vector<Request> requests = ManyRequests(rig);
    REQUIRE(rig.Alone(requests[1]).finish == FinishReason::kStop);
    CHECK(CompareWithAlone(rig, requests, 0).num_parked == 0);
    CHECK(CompareWithAlone(rig, requests, 100).num_parked == 0);
    CHECK(CompareWithAlone(rig, requests, 12).num_finished == 12);
    CHECK(CompareWithAlone(rig, requests, 8).num_parked > 0);
    const SchedulerStats narrow = CompareWithAlone(rig, requests, 6);  // the longest needs 6
    CHECK(narrow.num_finished == 12);
    CHECK(narrow.num_parked < 40);  // no thrashing: a request is not admitted to be parked at once
    CHECK(CompareWithAlone(rig, requests, 11, {.max_batch_tokens = 17, .max_running = 64}).num_finished == 12);
    CHECK(CompareWithAlone(rig, requests, 11, {.max_batch_tokens = 1, .max_running = 1}).num_parked == 0);
  }
}

TEST_CASE("scheduler: texts are those of each request alone with sliding windows") {
  Rig rig({.architecture = "gemma3", .num_layers = 7, .window = 40});
  const std::vector<Request> requests = ManyRequests(rig);
  CHECK(CompareWithAlone(rig, requests, 0).num_parked == 0);
  CHECK(CompareWithAlone(rig, requests, 8).num_finished == 12);
}

// Important requests keep coming, so that the others are parked again and again.
TEST_CASE("scheduler: being parked many times changes no text") {
  for (const bool has_windows : {false, true}) {
    CAPTURE(has_windows);
    Rig rig(has_windows ? TinyModel{.architecture = "gemma3", .num_layers = 7, .window = 40} : TinyModel{});
    std::vector<Request> requests;
    for (uint32_t i = 0; i < 12; ++i) {
      const bool is_important = i >= 2;
      requests.push_back(Ask(SomeTokens(10, i), is_important ? 90 : 180));
      requests.back().priority = is_important ? 1 : 0;
      requests.back().options.sampler = {.temperature = 2.0F, .seed = i};
    }
    requests[1].options.stops = {rig.Alone(requests[1]).text.substr(150, 3)};
    rig.Begin(7);
    std::string shown;
    requests[1].on_text = [&shown](std::string_view text) {
      shown += text;
      return true;
    };
    for (const Request& request : requests) {
      rig.Submit(request);
      for (int i = 0; i < 35; ++i) rig.Step();
    }
    rig.RunAll();
    for (size_t i = 0; i < requests.size(); ++i) CHECK(rig.Of(i + 1).tokens == rig.Alone(requests[i]).tokens);
    CHECK(shown == rig.Alone(requests[1]).text);
    CHECK(rig.scheduler->stats().num_parked >= 2);
  }
}

TEST_CASE("scheduler: a sealed form runs in little memory, too") {
  Rig rig({.context = 600}, {Codec::kQ8, Codec::kQ8});
  rig.Begin(20);
  std::vector<RequestId> ids;
  for (uint32_t i = 0; i < 6; ++i) ids.push_back(rig.Submit(Ask(SomeTokens(200, i), 100)));
  rig.RunAll();
  for (const RequestId id : ids) CHECK(rig.Of(id).tokens.size() == 100);
}

TEST_CASE("scheduler: what prompts have in common is computed once") {
  Rig rig({.context = 600});
  const std::vector<Token> common = SomeTokens(320, 1);
  std::vector<Request> requests;
  for (uint32_t i = 0; i < 8; ++i) requests.push_back(Ask(Join(common, SomeTokens(10, 2 + i)), 3));
  const SchedulerStats stats = CompareWithAlone(rig, requests, 0);
  CHECK(stats.num_computed_tokens == 320 + 8 * (10 + 2));
  CHECK(stats.num_reused_tokens == 7 * 320);
  CHECK(stats.num_shared_waits > 0);
  CHECK(rig.Of(2).stats.reused_tokens == 320);
  CHECK(rig.Of(2).stats.computed_tokens == 10);
  CHECK(rig.cache->stats().peak_live_bytes < (10 + 8 * 2) * rig.block_bytes());

  requests[3].salt = "another tenant";
  CHECK(CompareWithAlone(rig, requests, 0).num_computed_tokens == 2 * 320 + 8 * (10 + 2));
  requests.resize(2);
  requests[1].salt = "another tenant";
  CHECK(CompareWithAlone(rig, requests, 0).num_shared_waits == 0);

  // Equal prompts, whose last block is not full: only that is computed by each.
  const std::vector<Request> equal(5, Ask(SomeTokens(75, 1), 2));
  CHECK(CompareWithAlone(rig, equal, 0).num_computed_tokens == 75 + 4 * 11 + 5);
}

TEST_CASE("scheduler: one that comes later catches up with what is being computed") {
  Rig rig({.context = 1000});
  rig.Begin(0);
  const std::vector<Token> common = SomeTokens(640, 1);
  rig.Submit(Ask(Join(common, SomeTokens(9, 2)), 2));
  rig.Step();
  rig.Step();  // 256 of them
  const RequestId later = rig.Submit(Ask(Join(common, SomeTokens(9, 3)), 2));
  rig.RunAll();
  CHECK(rig.finished.at(later).reuse.shared_tokens == 256);
  CHECK(rig.Of(later).stats.reused_tokens == 640);
  CHECK(rig.scheduler->stats().num_computed_tokens == 640 + 2 * (9 + 1));
}

TEST_CASE("scheduler: a request's own settings are those of its sequence, and of no other") {
  Rig rig({.num_layers = 3, .context = 600}, {Codec::kQ4, Codec::kQ4});
  rig.Begin(0);
  std::vector<Request> requests(4);
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i] = {.prompt = SomeTokens(300, uint32_t(i)), .options = {.max_tokens = 40}};
  }
  requests[1].options.sequence.pages = {.num_tokens = 128, .num_dense_layers = 0};
  requests[2].options.sequence.is_sealing = false;
  requests[3].options.sequence.growth = GrowthOptions{.kind = GrowthKind::kStatic, .max_tokens = 320};
  std::vector<RequestId> ids;
  for (const Request& each : requests) ids.push_back(rig.Submit(each));
  rig.RunAll();
  for (size_t i = 0; i < requests.size(); ++i) {
    CAPTURE(i);
    CHECK(rig.Of(ids[i]).tokens == rig.Alone(requests[i]).tokens);
  }
  CHECK(rig.Of(ids[3]).finish == FinishReason::kContext);
  CHECK(rig.Of(ids[3]).tokens.size() == 21);  // the last one is not stored
  CHECK(rig.Of(ids[1]).stats.pages.num_selecting_steps == 39);
  // The settings do something.
  for (const size_t i : {1, 2}) {
    Request plain = requests[i];
    plain.options.sequence = {};
    CHECK(rig.Of(ids[i]).tokens != rig.Alone(plain).tokens);
  }
}

TEST_CASE("scheduler: the line is by priority, then by arrival") {
  Rig rig;
  rig.Begin(0, {.max_batch_tokens = 256, .max_running = 1});
  std::vector<RequestId> ids;
  for (const int priority : {0, 1, 0, 5, 1, -2}) {
    Request request = Ask(SomeTokens(20, static_cast<uint32_t>(ids.size())), 3);
    request.priority = priority;
    ids.push_back(rig.Submit(std::move(request)));
  }
  rig.RunAll();
  CHECK(rig.order == std::vector<RequestId>{ids[3], ids[1], ids[4], ids[0], ids[2], ids[5]});

  // Where memory is short, the lower one is parked, however early it came.
  rig.Begin(6);
  const RequestId low = rig.Submit(Ask(SomeTokens(60, 1), 80));
  rig.Step();
  Request important = Ask(SomeTokens(60, 2), 60);
  important.priority = 1;
  const RequestId high = rig.Submit(std::move(important));
  rig.RunAll();
  CHECK(rig.scheduler->stats().num_parked > 0);
  CHECK(rig.order == std::vector<RequestId>{high, low});
}

TEST_CASE("scheduler: equal requests end in the order of arrival, and none waits for ever") {
  Rig rig;
  rig.Begin(9, {.max_batch_tokens = 64, .max_running = 16});
  for (uint32_t i = 0; i < 20; ++i) rig.Submit(Ask(SomeTokens(60, i), 30));
  rig.RunAll();
  for (size_t i = 0; i < rig.order.size(); ++i) {
    CHECK(std::abs(static_cast<int>(rig.order[i]) - static_cast<int>(i + 1)) <= 2);
  }

  // Prompts get their share while others decode, and the others theirs.
  rig.Begin(0, {.max_batch_tokens = 8, .max_running = 4});
  for (uint32_t i = 0; i < 3; ++i) rig.Submit(Ask(SomeTokens(4, i), 50));
  for (int i = 0; i < 5; ++i) rig.Step();
  const RequestId prompt = rig.Submit(Ask(SomeTokens(100, 9), 1));
  rig.RunAll(60);
  CHECK(rig.order.front() == prompt);

  // Not so many run that there would be no room for prompts.
  rig.Begin(0, {.max_batch_tokens = 8, .max_running = 64});
  for (uint32_t i = 0; i < 10; ++i) rig.Submit(Ask(SomeTokens(4, i), 50));
  for (int i = 0; i < 20; ++i) rig.Step();
  CHECK(rig.scheduler->stats().num_running == 4);
  rig.RunAll();
}

TEST_CASE("scheduler: nobody is admitted only to have somebody parked at once") {
  Rig rig;
  rig.Begin(5);  // both prompts, and one block that both would want
  for (uint32_t i = 0; i < 2; ++i) rig.Submit(Ask(SomeTokens(60, i), 60));
  rig.RunAll();
  CHECK(rig.scheduler->stats().num_parked == 0);
}

TEST_CASE("scheduler: a request is cancelled while it waits, runs or is parked") {
  Rig rig;
  rig.Begin(0, {.max_batch_tokens = 64, .max_running = 1});
  const RequestId runs = rig.Submit(Ask(SomeTokens(20, 1), 30));
  const RequestId waits = rig.Submit(Ask(SomeTokens(20, 2), 30));
  for (int i = 0; i < 5; ++i) rig.Step();
  rig.scheduler->Cancel(waits);
  CHECK(rig.finished.empty());
  rig.Step();
  CHECK(rig.Of(waits).finish == FinishReason::kCancelled);
  CHECK(rig.Of(waits).tokens.empty());
  CHECK(rig.scheduler->has_work());
  rig.scheduler->Cancel(runs);
  rig.Step();
  CHECK(rig.Of(runs).finish == FinishReason::kCancelled);
  CHECK(rig.Of(runs).tokens.size() == 6);
  CHECK_FALSE(rig.scheduler->has_work());
  CHECK(rig.cache->stats().num_sequences == 0);
  rig.scheduler->Cancel(runs);  // ended already
  rig.scheduler->Cancel(12345);
  rig.RunAll();

  rig.Begin(6);
  const RequestId stays = rig.Submit(Ask(SomeTokens(60, 1), 60));
  const RequestId parked = rig.Submit(Ask(SomeTokens(60, 2), 60));
  for (int i = 0; i < 100 && rig.scheduler->stats().num_parked == 0; ++i) rig.Step();
  CHECK(rig.scheduler->stats().num_running == 1);
  CHECK(rig.scheduler->stats().num_waiting == 1);
  rig.scheduler->Cancel(parked);
  rig.RunAll();
  CHECK(rig.order == std::vector<RequestId>{parked, stays});
  CHECK(rig.Of(parked).finish == FinishReason::kCancelled);
  CHECK_FALSE(rig.Of(parked).text.empty());
  CHECK(rig.Of(stays).tokens.size() == 60);
}

TEST_CASE("scheduler: a callback stops its request, and may submit the next") {
  Rig rig;
  rig.Begin(0);
  std::string shown;
  std::optional<RequestId> next;
  Request request = Ask(SomeTokens(20, 1), 30);
  request.on_text = [&](std::string_view text) {
    shown += text;
    if (shown.size() < 4) return true;
    next = rig.Submit(Ask(SomeTokens(5, 2), 2));
    return false;
  };
  const RequestId id = rig.Submit(std::move(request));
  rig.RunAll();
  CHECK(rig.Of(id).finish == FinishReason::kCancelled);
  CHECK(rig.Of(id).text == shown);
  CHECK(shown.size() == 4);
  REQUIRE(next);
  CHECK(rig.Of(*next).tokens.size() == 2);
}

TEST_CASE("scheduler: what can't be run is told") {
  Rig rig({.context = 200});
  rig.Begin(3);
  const auto error_of = [&](Request request) {
    const auto id = rig.scheduler->Submit(std::move(request));
    REQUIRE_FALSE(id);
    return id.error().code;
  };
  CHECK(error_of(Ask({}, 5)) == ErrorCode::kInvalidArgument);
  CHECK(error_of(Ask({1}, -1)) == ErrorCode::kInvalidArgument);
  CHECK(error_of(Ask({1, 50}, 1)) == ErrorCode::kInvalidArgument);
  CHECK(error_of(Ask(SomeTokens(201, 1), 5)) == ErrorCode::kOutOfRange);
  CHECK(error_of(Ask(SomeTokens(97, 1), 5)) == ErrorCode::kOutOfMemory);
  Request cold = Ask({1}, 5);
  cold.options.sampler.temperature = -1;
  CHECK(error_of(std::move(cold)) == ErrorCode::kInvalidArgument);
  CHECK_FALSE(rig.scheduler->has_work());

  // Whoever outgrows the budget alone fails; nobody else does.
  std::string shown;
  Request large = Ask(SomeTokens(90, 1), 50);
  large.on_text = [&](std::string_view text) {
    shown += text;
    return true;
  };
  const RequestId too_large = rig.Submit(std::move(large));
  const RequestId small = rig.Submit(Ask(SomeTokens(50, 2), 40));
  rig.RunAll();
  CHECK(rig.ErrorOf(too_large) == ErrorCode::kOutOfMemory);
  CHECK(shown.size() == 7);  // 96 tokens are computed, and what follows them
  CHECK(rig.Of(small).tokens.size() == 40);
}

TEST_CASE("scheduler: a request that could run alone does, even beside its own leftovers") {
  Rig rig;
  const Request request = Ask(SomeTokens(70, 1), 26);  // 3 blocks, the last one full
  const Generation alone = rig.Alone(request);
  rig.Begin(3);
  Request first = request;
  first.options.max_tokens = 1;
  rig.Submit(first);
  rig.RunAll();
  // Its last block is shared in part, and writing to it would take a fourth one.
  const RequestId id = rig.Submit(request);
  rig.RunAll();
  CHECK(rig.Of(id).tokens == alone.tokens);
  CHECK(rig.finished.at(id).reuse.shared_tokens == 69);
}

TEST_CASE("scheduler: texts end with the context, and without output") {
  Rig rig({.context = 40});
  rig.Begin(0);
  const RequestId full = rig.Submit(Ask(SomeTokens(38, 1), 10));
  const RequestId silent = rig.Submit(Ask(SomeTokens(30, 2), 0));
  rig.RunAll();
  CHECK(rig.Of(full).finish == FinishReason::kContext);
  CHECK(rig.Of(full).tokens.size() == 3);
  CHECK(rig.Of(silent).finish == FinishReason::kLength);
  CHECK(rig.Of(silent).tokens.empty());
  CHECK(rig.Of(silent).stats.computed_tokens == 30);
}

TEST_CASE("scheduler: many tiny requests") {
  Rig rig;
  rig.Begin(10);
  for (uint32_t i = 0; i < 300; ++i) rig.Submit(Ask(SomeTokens(1 + static_cast<int>(i % 5), i), 1 + i % 3));
  rig.RunAll();
  CHECK(rig.finished.size() == 300);
  CHECK(rig.scheduler->stats().num_finished == 300);
  CHECK(rig.scheduler->stats().num_steps < 300);
  for (RequestId id = 1; id <= 300; ++id) CHECK(rig.Of(id).tokens.size() == 1 + (id - 1) % 3);
}

TEST_CASE("scheduler: requests come and are cancelled from other threads") {
  Rig rig;
  rig.Begin(12);
  std::atomic<int> num_submitters = 3;
  std::vector<std::thread> threads;
  for (uint32_t thread = 0; thread < 3; ++thread) {
    threads.emplace_back([&, thread] {
      for (uint32_t i = 0; i < 20; ++i) {
        const auto id = rig.scheduler->Submit(Ask(SomeTokens(30, thread * 100 + i), 10));
        if (id && i % 4 == 0) rig.scheduler->Cancel(*id);
        std::this_thread::yield();
        (void)rig.scheduler->stats();
      }
      --num_submitters;
    });
  }
  while (num_submitters > 0 || rig.scheduler->has_work()) rig.Step();
  for (std::thread& thread : threads) thread.join();
  rig.RunAll();
  CHECK(rig.finished.size() == 60);
  for (const auto& [id, each] : rig.finished) {
    REQUIRE(each.generation);
    if (each.generation->finish != FinishReason::kCancelled) CHECK(each.generation->tokens.size() == 10);
  }
}

}  // namespace
}  // namespace kvist::scheduler_test
