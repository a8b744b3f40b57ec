// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "bench/micro/attention.h"
#include "bench/scenario/growth.h"
#include "bench_commands.h"
#include "option_checks.h"
#include "record.h"
#include "report.h"

namespace kvist {
namespace {

struct GrowthArguments {
  std::string geometry = "article";
  std::vector<std::string> growths;
  std::vector<std::string> tables;
  std::string trace;
  int num_requests = 100;
  int num_slots = 8;
  int num_rounds = 3;
  bool json = false;
  bool progress = false;
};

// What ours are measured with when nothing is asked for; static gets the room the article gives it.
std::vector<std::string> DefaultGrowths(int64_t initial_tokens, int64_t static_tokens) {
  const std::string initial = std::to_string(initial_tokens);
  return {"exact", "static:max=" + std::to_string(static_tokens), "dynamic:initial=" + initial + ",factor=1.5",
          "predictive", "learned"};
}

Result<CacheGeometry> FindGeometry(const std::string& name) {
  if (name == "article") return ArticleGeometry();
  KVIST_TRY(CacheGeometry geometry, AttentionGeometry(name));
  geometry.block_tokens = 16;
  for (LayerGeometry& layer : geometry.layers) layer.window = 0;  // the article's designs know no window
  return geometry;
}

// The article's score: peak utilisation over memory in GB; here of the bytes held at one time.
double Efficiency(const GrowthResult& result) {
  return result.peak_bytes > 0 ? result.peak_utilisation / (double(result.peak_bytes) / 1e9) : 0;
}

void WriteRecords(const Json& params, const std::vector<GrowthResult>& results, Output& out) {
  // Playing a trace, where sequences come and go, these are not measured.
  const bool is_trace = params["table"] == "trace";
  const std::vector<std::string_view> of_one_sequence = {"live_bytes",       "committed_bytes",   "cumulative_bytes",
                                                         "peak_utilisation", "least_utilisation", "efficiency",
                                                         "mean_growth",      "stability"};
  for (const GrowthResult& result : results) {
    Json of_result = params;
    of_result["growth"] = result.growth;
    const std::pair<const char*, Json> metrics[] = {
        {"total_ms", result.total_ms},
        {"append_max_ms", result.append_max_ms},
        {"append_p999_ms", result.append_p999_ms},
        {"copied_bytes", result.copied_bytes},
        {"live_bytes", result.live_bytes},
        {"committed_bytes", result.committed_bytes},
        {"peak_bytes", result.peak_bytes},
        {"cumulative_bytes", result.cumulative_bytes},
        {"resizes", result.resizes},
        {"stalls", result.stalls},
        {"utilisation", result.utilisation},
        {"peak_utilisation", result.peak_utilisation},
        {"least_utilisation", result.least_utilisation},
        {"efficiency", Efficiency(result)},
        {"tokens", result.tokens},
        {"mean_growth", result.mean_growth},
        {"stability", result.stability},
        {"refused_at", result.refused_at < 0 ? Json(nullptr) : Json(result.refused_at)},
    };
    for (const auto& [metric, value] : metrics) {
      if (is_trace && std::ranges::find(of_one_sequence, metric) != of_one_sequence.end()) continue;
      WriteRecord({.bench = "growth", .impl = result.impl, .params = of_result, .metric = metric, .value = value}, out);
    }
  }
}

// Ours by the kind of growth, with its options where several of a kind are compared.
std::string NameOf(const GrowthResult& result, const std::vector<GrowthResult>& all) {
  if (result.growth.empty()) return result.impl;
  const std::string kind = result.growth.substr(0, result.growth.find(':'));
  const auto of_kind = [&](const GrowthResult& other) { return other.growth.starts_with(kind); };
  return "kvist " + (std::ranges::count_if(all, of_kind) > 1 ? result.growth : kind);
}

void WriteRefusals(const std::vector<GrowthResult>& results, Output& out) {
  for (const GrowthResult& result : results) {
    if (result.refused_at < 0) continue;
    out.Write("! " + NameOf(result, results) + " had no room for " + std::to_string(result.refused_at) + " tokens\n");
  }
}

void WriteTable(const std::string& title, const std::vector<GrowthResult>& results, Output& out) {
  out.Write("\n" + title +
            "\n                          tokens     live     held     peak  all ever   copied  resizes  stalls  "
            "utilisation   total ms   worst ms\n"
            "                                      MiB      MiB      MiB       MiB      MiB                  "
            "end   peak\n");
  for (const GrowthResult& result : results) {
    auto mib = [](size_t bytes) { return double(bytes) / (1 << 20); };
    char line[256];
    std::snprintf(line, sizeof(line),
                  "%-22s %9lld%c %8.1f %8.1f %8.1f %9.1f %8.1f %8lld %7lld   %4.0f%%  %4.0f%% %10.2f %10.3f\n",
                  NameOf(result, results).c_str(), static_cast<long long>(result.tokens),
                  result.refused_at >= 0 ? '!' : ' ', mib(result.live_bytes), mib(result.committed_bytes),
                  mib(result.peak_bytes), mib(result.cumulative_bytes), mib(result.copied_bytes),
                  static_cast<long long>(result.resizes), static_cast<long long>(result.stalls),
                  100 * result.utilisation, 100 * result.peak_utilisation, result.total_ms, result.append_max_ms);
    out.Write(line);
  }
  WriteRefusals(results, out);
}

// Sequences come and go, so only sums and the most at one time say something.
void WriteTraceTable(const std::string& title, const std::vector<GrowthResult>& results, Output& out) {
  out.Write("\n" + title +
            "\n                          tokens  peak MiB  copied MiB  resizes  stalls  mean utilisation   total ms   "
            "worst ms\n");
  for (const GrowthResult& result : results) {
    char line[256];
    std::snprintf(line, sizeof(line), "%-22s %9lld%c %8.1f %11.1f %8lld %7lld %16.0f%% %10.2f %10.3f\n",
                  NameOf(result, results).c_str(), static_cast<long long>(result.tokens),
                  result.refused_at >= 0 ? '!' : ' ', double(result.peak_bytes) / (1 << 20),
                  double(result.copied_bytes) / (1 << 20), static_cast<long long>(result.resizes),
                  static_cast<long long>(result.stalls), 100 * result.utilisation, result.total_ms,
                  result.append_max_ms);
    out.Write(line);
  }
  WriteRefusals(results, out);
}

// The article's first table: what a static cache of 8,192 tokens wastes, and what blocks do.
void WriteStaticAnalysis(const CacheGeometry& geometry, Output& out) {
  const size_t token_bytes = geometry.BytesPerToken({Codec::kF32, Codec::kF32});
  out.Write("\nstatic analysis: a static cache of 8,192 tokens against blocks of " +
            std::to_string(geometry.block_tokens) + "\n    used      needs     static  wasted     blocks  wasted\n");
  for (const int64_t tokens : {512, 1024, 2048, 4096}) {
    const int64_t room = (tokens + geometry.block_tokens - 1) / geometry.block_tokens * geometry.block_tokens;
    auto mib = [&](int64_t count) { return double(size_t(count) * token_bytes) / (1 << 20); };
    char line[128];
    std::snprintf(line, sizeof(line), "%8lld %6.1f MiB %6.1f MiB %6.1f%% %6.1f MiB %6.1f%%\n",
                  static_cast<long long>(tokens), mib(tokens), mib(8192), 100 * (1 - double(tokens) / 8192), mib(room),
                  100 * (1 - double(tokens) / double(room)));
    out.Write(line);
  }
}

Status BenchScenarios(const GrowthArguments& arguments, const CacheGeometry& geometry, Output& out) {
  if (!arguments.json) WriteStaticAnalysis(geometry, out);
  std::vector<GrowthScenario> scenarios;
  for (GrowthScenario& scenario : GrowthScenarios()) {
    const bool is_wanted =
        arguments.tables.empty() || std::ranges::find(arguments.tables, scenario.table) != arguments.tables.end();
    if (is_wanted) scenarios.push_back(std::move(scenario));
  }
  Progress progress("growth", "scenarios", arguments.progress);
  for (size_t i = 0; i < scenarios.size(); ++i) {
    const GrowthScenario& scenario = scenarios[i];
    if (interrupted()) return Fail(ErrorCode::kCancelled, "stopped");
    progress.Show(int64_t(i), int64_t(scenarios.size()));
    const std::vector<std::string> growths =
        arguments.growths.empty() ? DefaultGrowths(scenario.initial_tokens, scenario.static_tokens) : arguments.growths;
    KVIST_TRY(const auto results, RunGrowthScenario(scenario, geometry, growths, arguments.num_rounds));
    progress.Clear();
    if (arguments.json) {
      WriteRecords({{"table", scenario.table}, {"scenario", scenario.name}, {"geometry", arguments.geometry}}, results,
                   out);
    } else {
      WriteTable(scenario.table + ": " + scenario.name, results, out);
    }
  }
  return {};
}

Status BenchTrace(const GrowthArguments& arguments, const CacheGeometry& geometry, Output& out) {
  KVIST_TRY(const auto requests, ReadTrace(arguments.trace, arguments.num_requests));
  int64_t longest = 0;
  for (const TraceRequest& request : requests)
    longest = std::max(longest, request.prompt_tokens + request.output_tokens);
  const std::vector<std::string> growths = arguments.growths.empty() ? DefaultGrowths(256, longest) : arguments.growths;
  Progress progress("growth", "caches", arguments.progress);
  KVIST_TRY(const auto results,
            RunGrowthTrace(requests, arguments.num_slots, geometry, growths, [&](int done, int all) {
              progress.Show(done, all);
              return !interrupted();
            }));
  progress.Clear();
  const std::string name = arguments.trace.substr(arguments.trace.rfind('/') + 1);
  if (arguments.json) {
    WriteRecords({{"table", "trace"},
                  {"scenario", name},
                  {"geometry", arguments.geometry},
                  {"requests", requests.size()},
                  {"slots", arguments.num_slots}},
                 results, out);
  } else {
    WriteTraceTable("trace: " + name + ", " + std::to_string(requests.size()) + " requests, " +
                        std::to_string(arguments.num_slots) + " at a time",
                    results, out);
  }
  return {};
}

int RunBenchGrowth(const GrowthArguments& arguments) {
  CatchInterrupts(true);
  Output out;
  auto run = [&]() -> Status {
    KVIST_TRY(const CacheGeometry geometry, FindGeometry(arguments.geometry));
    if (!arguments.trace.empty()) return BenchTrace(arguments, geometry, out);
    return BenchScenarios(arguments, geometry, out);
  };
  const Status status = run();
  return status ? out.ExitCode(kExitOk) : Report(status.error());
}

}  // namespace

void AddBenchGrowth(CLI::App* bench, Command* chosen) {
  CLI::App* command = bench->add_subcommand(
      "growth", "How caches grow: the article's designs and scenarios beside ours, or a recorded load");
  auto arguments = std::make_shared<GrowthArguments>();
  command
      ->add_option("--geometry", arguments->geometry,
                   "What a token takes: article (one layer, 32 heads of 128), smollm2, gemma3, llama3-8b, qwen2.5-7b")
      ->type_name("NAME")
      ->capture_default_str();
  command
      ->add_option("--growth", arguments->growths,
                   "Ours to measure, repeatable: NAME or NAME:key=value,... (exact, static, dynamic, predictive, "
                   "learned); default: each")
      ->check(CheckGrowth)
      ->type_name("SPEC");
  command->add_option("--table", arguments->tables, "Only these of the article's tables")
      ->delimiter(',')
      ->check(CLI::IsMember({"dynamic", "predictive", "comprehensive", "append"}))
      ->type_name("T,T,...");
  command->add_option("--trace", arguments->trace, "Play real lengths: an Azure CSV or Mooncake JSONL file")
      ->type_name("FILE");
  command->add_option("--requests", arguments->num_requests, "Requests to take from the trace")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--slots", arguments->num_slots, "Requests alive at once")
      ->check(CLI::Range(1, 4096))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--rounds", arguments->num_rounds, "Runs of each scenario; the fastest counts")
      ->check(CLI::Range(1, 100))
      ->type_name("N")
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "Print one JSON object a metric");
  command->add_flag("--progress", arguments->progress, "Show progress also when stderr is not a terminal");
  command->callback([=] { *chosen = [=] { return RunBenchGrowth(*arguments); }; });
}

}  // namespace kvist
