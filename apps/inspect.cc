// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "commands.h"
#include "inspect_store.h"
#include "kvist/kv_size.h"
#include "model/chat_template.h"
#include "model/ggml_info.h"
#include "model/gguf.h"
#include "model/model_config.h"
#include "model_path.h"
#include "record.h"
#include "report.h"

namespace kvist {
namespace {

// Layers that keep the same tokens.
std::map<int, int> WindowToNumLayers(const CacheGeometry& geometry) {
  std::map<int, int> groups;
  for (const LayerGeometry& layer : geometry.layers) ++groups[layer.window];
  return groups;
}

Json WeightsJson(const GgufFile& file) {
  std::map<std::string, std::pair<int, size_t>> types;
  size_t all_bytes = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    auto& [num_tensors, bytes] = types[TensorTypeName(tensor.type)];
    ++num_tensors;
    bytes += tensor.data.size();
    all_bytes += tensor.data.size();
  }
  Json by_type = Json::array();
  for (const auto& [name, type] : types) {
    by_type.push_back({{"type", name}, {"tensors", type.first}, {"bytes", type.second}});
  }
  return {{"bytes", all_bytes}, {"types", by_type}};
}

Json KvJson(const ModelConfig& config) {
  Json forms = Json::array();
  for (const Codec codec : kAllCodecs) {
    const Form form{codec, codec};
    const CacheGeometry& geometry = config.geometry;
    forms.push_back({{"form", FormName(form)},
                     {"bytes_per_token", geometry.BytesPerToken(form)},
                     {"block_bytes", KvBlockBytes(geometry, form)},
                     {"full_context_bytes", KvBytes(geometry, {.form = form}, config.context_length, 1)},
                     {"static_bytes", StaticKvBytes(geometry, form, config.context_length)}});
  }
  return forms;
}

Json InspectionJson(const GgufFile& file, const ModelConfig& config) {
  Json groups = Json::array();
  for (const auto& [window, num_layers] : WindowToNumLayers(config.geometry)) {
    groups.push_back({{"window", window}, {"layers", num_layers}});
  }
  std::set<float> rope_bases;
  for (const LayerGeometry& layer : config.geometry.layers) rope_bases.insert(layer.rope.base);
  const auto chat_template = ChatTemplate::Open(file);
  return {{"command", "inspect"},
          {"path", file.path()},
          {"name", config.name},
          {"architecture", config.architecture},
          {"gguf_version", file.version()},
          {"layers", config.num_layers()},
          {"embedding", config.num_embedding},
          {"feed_forward", config.num_feed_forward},
          {"query_heads", config.num_query_heads},
          {"kv_heads", config.num_kv_heads},
          {"key_dim", config.key_dim},
          {"value_dim", config.value_dim},
          {"groups", groups},
          {"rope_bases", rope_bases},
          {"context", config.context_length},
          {"vocabulary", config.num_vocabulary},
          {"chat_template", chat_template ? Json(chat_template->family()) : Json()},
          {"block_tokens", config.geometry.block_tokens},
          {"weights", WeightsJson(file)},
          {"kv", KvJson(config)}};
}

std::string GroupsText(const Json& groups) {
  std::string text;
  for (const Json& group : groups) {
    const int window = group["window"].get<int>();
    text += (text.empty() ? "" : ", ") + Number(group["layers"]) + " with ";
    text += window == 0 ? "full attention" : "a window of " + std::to_string(window) + " tokens";
  }
  return text;
}

std::string WeightsText(const Json& weights) {
  std::string text = Bytes(weights["bytes"]) + " (";
  for (const Json& type : weights["types"]) {
    text += (text.ends_with("(") ? "" : ", ") + type["type"].get<std::string>() + " " + Bytes(type["bytes"]);
  }
  return text + ")";
}

std::string KvText(const Json& forms) {
  char line[160];
  std::snprintf(line, sizeof(line), "\n%-15s%14s%14s%16s%16s\n", "KV form", "a token", "a block", "full context",
                "static cache");
  std::string text = line;
  for (const Json& form : forms) {
    std::snprintf(line, sizeof(line), "%-15s%14s%14s%16s%16s\n", form["form"].get<std::string>().c_str(),
                  Bytes(form["bytes_per_token"]).c_str(), Bytes(form["block_bytes"]).c_str(),
                  Bytes(form["full_context_bytes"]).c_str(), Bytes(form["static_bytes"]).c_str());
    text += line;
  }
  return text;
}

std::string InspectionText(const Json& model) {
  const std::string name = model["name"].get<std::string>();
  return Row("model", name.empty() ? "without a name" : name) + Row("file", model["path"].get<std::string>()) +
         Row("architecture", model["architecture"].get<std::string>()) +
         Row("layers", Number(model["layers"]) + ": " + GroupsText(model["groups"])) +
         Row("heads", Number(model["query_heads"]) + " query, " + Number(model["kv_heads"]) + " KV; keys of " +
                          Number(model["key_dim"]) + ", values of " + Number(model["value_dim"])) +
         Row("widths", Number(model["embedding"]) + " embedding, " + Number(model["feed_forward"]) + " feed-forward") +
         Row("context", Number(model["context"]) + " tokens") +
         Row("vocabulary", Number(model["vocabulary"]) + " tokens") +
         Row("chat template", model["chat_template"].is_null() ? "none that is known (use --no-template)"
                                                               : model["chat_template"].get<std::string>()) +
         Row("weights", WeightsText(model["weights"])) +
         Row("block", Number(model["block_tokens"]) + " tokens of all layers") + KvText(model["kv"]);
}

int InspectModel(const std::string& model, bool as_json) {
  const auto path = FindModel(model);
  if (!path) return Report(path.error());
  const auto file = GgufFile::Open(*path);
  if (!file) return Report(file.error());
  const auto config = ReadModelConfig(**file);
  if (!config) return Report(config.error());
  Output out;
  const Json inspection = InspectionJson(**file, *config);
  as_json ? WriteJson(inspection, out) : out.Write(InspectionText(inspection));
  return out.ExitCode(kExitOk);
}

int RunInspect(const std::string& model_or_store, const InspectStoreOptions& options) {
  std::error_code ignored;
  const bool is_folder = std::filesystem::is_directory(model_or_store, ignored);
  // A folder may be called as a fetched model is.
  const bool is_model = !is_folder || (!IsStore(model_or_store) && FindModel(model_or_store));
  if (!is_model) return InspectStore(model_or_store, options);
  if (options.verifies || options.lists_records) {
    return Report({ErrorCode::kInvalidArgument,
                   "--verify and --records are for stores, and '" + model_or_store + "' is not the folder of one"});
  }
  return InspectModel(model_or_store, options.json);
}

}  // namespace

void AddInspectCommand(CLI::App& program, Command* chosen) {
  CLI::App* command = program.add_subcommand(
      "inspect", "Show a model's shape and what its keys and values take in each form, or what a store holds");
  auto model_or_store = std::make_shared<std::string>();
  auto options = std::make_shared<InspectStoreOptions>();
  command
      ->add_option("MODEL,-m,--model", *model_or_store,
                   "GGUF file, or name of a model that `kvist model get` fetched, or folder of a disk tier")
      ->required()
      ->type_name("");
  command->add_flag("--verify", options->verifies, "Of a store: read everything and tell what is damaged");
  command->add_flag("--records", options->lists_records, "Of a store: a line for each record, too");
  command->add_flag("--json", options->json, "Print one JSON object, and one for each record");
  command->callback([=] { *chosen = [=] { return RunInspect(*model_or_store, *options); }; });
}

}  // namespace kvist
