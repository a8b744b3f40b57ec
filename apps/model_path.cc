// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "model_path.h"

#include <cstdlib>
#include <filesystem>

namespace kvist {
namespace {

std::string EnvironmentOr(const char* name, std::string otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : std::move(otherwise);
}

std::string DataFolder() {
  return EnvironmentOr("XDG_DATA_HOME", EnvironmentOr("HOME", "/") + "/.local/share") + "/kvist";
}

}  // namespace

std::string ModelsFolder() {
  return EnvironmentOr("KVIST_MODELS_DIR", DataFolder() + "/models");
}

std::string DefaultStorePath() {
  return DataFolder() + "/store";
}

Result<std::string> FindModel(const std::string& path_or_name) {
  std::error_code ignored;
  const bool exists = std::filesystem::exists(path_or_name, ignored);
  const bool is_folder = std::filesystem::is_directory(path_or_name, ignored);
  if (exists && !is_folder) return path_or_name;
  const bool is_name = !path_or_name.empty() && path_or_name.find('/') == std::string::npos;
  const std::string fetched = ModelsFolder() + "/" + path_or_name + ".gguf";
  if (is_name && std::filesystem::exists(fetched, ignored)) return fetched;
  if (is_folder) {
    return Fail(ErrorCode::kInvalidArgument, path_or_name + " is a folder; give the GGUF file in it");
  }
  if (!is_name || path_or_name.ends_with(".gguf")) {
    return Fail(ErrorCode::kNotFound,
                "there is no file '" + path_or_name +
                    "'; give the path of a GGUF file or the name of a fetched model (`kvist model list`)");
  }
  return Fail(ErrorCode::kNotFound,
              "there is no model '" + path_or_name + "' (no such file, and none of that name in " + ModelsFolder() +
                  "); `kvist model list` shows what there is, `kvist model get NAME` fetches one");
}

}  // namespace kvist
