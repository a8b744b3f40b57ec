// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "commands.h"
#include "report.h"

namespace kvist {
namespace {

// models.py of an installed program, else of the source tree it was built in.
Result<std::string> FindScript() {
  std::error_code ignored;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", ignored);
  const std::filesystem::path places[] = {program.parent_path() / KVIST_INSTALLED_PYTHON_DIR / "models.py",
                                          std::filesystem::path(KVIST_PYTHON_DIR) / "models.py"};
  for (const auto& place : places) {
    if (std::filesystem::exists(place, ignored)) return place.lexically_normal().string();
  }
  return Fail(ErrorCode::kNotFound, "models.py is neither at " + places[0].lexically_normal().string() + " nor at " +
                                        places[1].string() + "; install kvist again");
}

}  // namespace

int RunModelCommand(char** arguments) {
  Result<std::string> script = FindScript();
  if (!script) return Report(script.error());
  const std::string venv_python = std::string(KVIST_VENV_DIR) + "/bin/python";
  std::string python = access(venv_python.c_str(), X_OK) == 0 ? venv_python : "python3";
  std::vector<char*> command = {python.data(), script->data()};
  while (*arguments != nullptr) command.push_back(*arguments++);
  command.push_back(nullptr);
  execvp(command[0], command.data());
  return Report({ErrorCode::kIo, "fetching models needs Python 3, and " + python + " can't be run (" +
                                     std::strerror(errno) + "); install python3 with python3-pip"});
}

void AddModelCommand(CLI::App& program, Command*) {
  program.add_subcommand("model", "Fetch models to try kvist with: model get NAME, model list, model path NAME");
}

}  // namespace kvist
