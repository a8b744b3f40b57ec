// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <CLI/CLI.hpp>

#include <memory>
#include <string>
#include <vector>

#include "kvist/cache.h"
#include "model/model.h"
#include "model/tokenizer.h"
#include "record.h"

namespace kvist {

// The options of every command that runs a model.
struct ModelArguments {
  std::string model;
  std::string form = "f16";
  std::string weights = "file";
  int num_threads = 0;
  size_t kv_memory_bytes = 0;
  std::string growth = "exact";
  bool shares_prefixes = false;
  bool reuses_moved_chunks = false;
  std::vector<std::string> tiers = {};
};
void AddModelOptions(CLI::App* command, ModelArguments* arguments);

// Parts of these, for commands that take several forms or several numbers of threads.
void AddModelFileOptions(CLI::App* command, ModelArguments* arguments);  // -m, --weights
void AddThreadsOption(CLI::App* command, ModelArguments* arguments);
void AddMemoryOptions(CLI::App* command, ModelArguments* arguments);  // --kv-memory, --growth
void AddTierOption(CLI::App* command, ModelArguments* arguments);     // --tier, any number of times

struct LoadedModel {
  std::shared_ptr<const GgufFile> file;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<Model> model;
  std::unique_ptr<Cache> cache;
};
// Errors as FindModel, OpenTier, GgufFile::Open, Model::Open, Tokenizer::Open and Cache::Open.
Result<LoadedModel> LoadModel(const ModelArguments& arguments);
// The same without a cache, which is left empty.
Result<LoadedModel> LoadModelOnly(const ModelArguments& arguments);

// The file's name without folder and ending, as records name it.
std::string ModelName(const LoadedModel& loaded);

// What is held fixed, for records: model, form, weights, threads, growth.
Json ModelParams(const ModelArguments& arguments, const LoadedModel& loaded);

}  // namespace kvist
