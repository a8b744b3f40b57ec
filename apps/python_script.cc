// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "python_script.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "report.h"

namespace kvist {

Result<std::string> FindPythonScript(const std::string& name) {
  std::error_code ignored;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", ignored);
  const std::filesystem::path places[] = {program.parent_path() / KVIST_INSTALLED_PYTHON_DIR / name,
                                          std::filesystem::path(KVIST_PYTHON_DIR) / name};
  for (const auto& place : places) {
    if (std::filesystem::exists(place, ignored)) return place.lexically_normal().string();
  }
  return Fail(ErrorCode::kNotFound, name + " is neither at " + places[0].lexically_normal().string() + " nor at " +
                                        places[1].string() + "; install kvist again");
}

int RunPythonScript(const char* name, const char* purpose, char** arguments) {
  Result<std::string> script = FindPythonScript(name);
  if (!script) return Report(script.error());
  const std::string venv_python = std::string(KVIST_VENV_DIR) + "/bin/python";
  std::string python = access(venv_python.c_str(), X_OK) == 0 ? venv_python : "python3";
  std::vector<char*> command = {python.data(), script->data()};
  while (*arguments != nullptr) command.push_back(*arguments++);
  command.push_back(nullptr);
  execvp(command[0], command.data());
  return Report({ErrorCode::kIo, std::string(purpose) + " needs Python 3, and " + python + " can't be run (" +
                                     std::strerror(errno) + "); install python3 with python3-pip"});
}

}  // namespace kvist
