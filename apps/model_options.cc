// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "model_options.h"

#include <filesystem>
#include <utility>

#include "kvist/geometry.h"
#include "model_path.h"
#include "option_checks.h"
#include "threads.h"
#include "tier/open_tier.h"

namespace kvist {
namespace {

// A tokenizer that makes fewer or more tokens than the model has rows would stop a run in its middle.
Status CheckVocabularies(const LoadedModel& loaded) {
  const int of_model = loaded.model->num_vocabulary();
  const int of_tokenizer = loaded.tokenizer->num_tokens();
  if (of_model == of_tokenizer) return {};
  return Fail(ErrorCode::kCorrupt, loaded.file->path() + ": the model has " + std::to_string(of_model) +
                                       " tokens and its tokenizer " + std::to_string(of_tokenizer) +
                                       "; the file was not converted well");
}

// Opens and closes them: the same fault told by Cache::Open would come after the model was read. Not before the model's
// file has been looked at: it makes folders, and room.
Status TryTiers(const ModelArguments& arguments) {
  if (arguments.tiers.empty()) return {};
  KVIST_TRY(const std::string path, FindModel(arguments.model));
  KVIST_TRY([[maybe_unused]] const auto file, GgufFile::Open(path));
  for (const std::string& spec : arguments.tiers) {
    KVIST_TRY([[maybe_unused]] const auto tier, OpenTier(spec));
  }
  return {};
}

std::string FormHelp() {
  std::string codecs;
  for (const Codec codec : kAllCodecs) codecs += CodecName(codec) + std::string(", ");
  return "How keys and values are stored: " + codecs + "or K/V as in q8/q4";
}

}  // namespace

void AddModelFileOptions(CLI::App* command, ModelArguments* arguments) {
  command->add_option("-m,--model", arguments->model, "GGUF file, or name of a model that `kvist model get` fetched")
      ->required()
      ->type_name("MODEL");
  command->add_option("--weights", arguments->weights, "Use weights as in the file, or expanded to f32 (for measuring)")
      ->check(CheckWeights)
      ->type_name("file|f32")
      ->capture_default_str();
}

void AddThreadsOption(CLI::App* command, ModelArguments* arguments) {
  arguments->num_threads = NumAvailableCores();
  command->add_option("--threads", arguments->num_threads, "Threads that compute; the default is the cores there are")
      ->check(CheckThreads)
      ->type_name("N")
      ->capture_default_str();
}

void AddMemoryOptions(CLI::App* command, ModelArguments* arguments) {
  command
      ->add_option_function<std::string>(
          "--kv-memory", [=](const std::string& text) { arguments->kv_memory_bytes = ParseBytes(text); },
          "Bytes that keys and values may take, as in 512M or 2G; the default is seven eighths of the "
          "machine's memory, or of what its control group allows")
      ->check(CheckBytes)
      ->type_name("BYTES");
  command
      ->add_option(
          "--growth", arguments->growth,
          "How far ahead memory is taken: exact, static:max=N, dynamic, predictive or learned; with options as "
          "in dynamic:initial=512,factor=1.5 (docs/concepts.md)")
      ->check(CheckGrowth)
      ->type_name("SPEC")
      ->capture_default_str();
}

void AddTierOption(CLI::App* command, ModelArguments* arguments) {
  command
      ->add_option("--tier", arguments->tiers,
                   "Where prefixes are kept when memory is short and between runs, the fastest first: "
                   "disk:PATH,size=8G or redis://HOST:PORT,ttl=SECONDS (docs/tiers.md)")
      ->check(CheckTier)
      ->type_name("SPEC")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void AddModelOptions(CLI::App* command, ModelArguments* arguments) {
  AddModelFileOptions(command, arguments);
  command->add_option("--form", arguments->form, FormHelp())
      ->check(CheckForm)
      ->type_name("FORM")
      ->capture_default_str();
  AddThreadsOption(command, arguments);
  AddMemoryOptions(command, arguments);
}

Result<LoadedModel> LoadModelOnly(const ModelArguments& arguments) {
  LoadedModel loaded;
  KVIST_TRY(const std::string path, FindModel(arguments.model));
  KVIST_TRY(loaded.file, GgufFile::Open(path));
  const WeightsForm weights = arguments.weights == "f32" ? WeightsForm::kF32 : WeightsForm::kFile;
  KVIST_TRY(loaded.model, Model::Open(loaded.file, {.num_threads = arguments.num_threads, .weights = weights}));
  KVIST_TRY(loaded.tokenizer, Tokenizer::Open(loaded.file));
  KVIST_TRY_VOID(CheckVocabularies(loaded));
  return loaded;
}

Result<LoadedModel> LoadModel(const ModelArguments& arguments) {
  KVIST_TRY(const Form form, ParseForm(arguments.form));
  KVIST_TRY(const GrowthOptions growth, ParseGrowth(arguments.growth));
  KVIST_TRY_VOID(TryTiers(arguments));
  KVIST_TRY(LoadedModel loaded, LoadModelOnly(arguments));
  CacheOptions options{.form = form, .budget_bytes = arguments.kv_memory_bytes, .growth = growth};
  options.shares_prefixes = arguments.shares_prefixes;
  options.reuses_moved_chunks = arguments.reuses_moved_chunks;
  options.tiers = arguments.tiers;
  options.model.name = ModelName(loaded);
  if (!options.tiers.empty()) {  // it reads the whole file
    const Fingerprint fingerprint = loaded.model->fingerprint();
    options.model.fingerprint = {fingerprint.low, fingerprint.high};
  }
  KVIST_TRY(loaded.cache, Cache::Open(loaded.model->geometry(), options));
  return loaded;
}

std::string ModelName(const LoadedModel& loaded) {
  return std::filesystem::path(loaded.file->path()).stem().string();
}

Json ModelParams(const ModelArguments& arguments, const LoadedModel& loaded) {
  return {{"model", ModelName(loaded)},
          {"form", FormName(loaded.cache->options().form)},
          {"weights", arguments.weights},
          {"threads", loaded.model->num_threads()},
          {"growth", GrowthSpec(loaded.cache->options().growth)}};
}

}  // namespace kvist
