// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "build_info.h"
#include "commands.h"
#include "model/ggml_info.h"
#include "report.h"

namespace kvist {
namespace {

std::string VersionText() {
  return std::string("kvist " KVIST_VERSION " (commit " KVIST_COMMIT "), ggml ") + GgmlVersion();
}

int ReportParseError(CLI::App& program, const CLI::ParseError& error) {
  if (error.get_exit_code() == 0) return program.exit(error);  // --help, --version
  const CLI::App* reached = &program;
  std::string name = reached->get_name();
  while (!reached->get_subcommands().empty()) {
    reached = reached->get_subcommands().front();
    name += " " + reached->get_name();
  }
  const std::vector<std::string> unknown = reached->remaining();
  const bool is_command = reached->get_require_subcommand_min() > 0 && !unknown.empty();
  Report({ErrorCode::kInvalidArgument, is_command ? "there is no command '" + unknown[0] + "'" : error.what()});
  std::fprintf(stderr, "Try `%s --help`.\n", name.c_str());
  return kExitUsage;
}

int Main(int argc, char** argv) {
  // These scripts have their own options and help.
  if (argc >= 2 && std::string_view(argv[1]) == "model") return RunModelCommand(argv + 2);
  if (argc >= 2 && std::string_view(argv[1]) == "report") return RunReportCommand(argv + 2);

  CLI::App program("A KV cache engine for transformer inference.", "kvist");
  program.set_version_flag("--version", VersionText(), "Print the versions of kvist and ggml");
  program.set_help_flag("-h,--help", "Print this help");
  program.require_subcommand(1);
  Command chosen;
  AddGenerateCommand(program, &chosen);
  AddChatCommand(program, &chosen);
  AddSessionCommand(program, &chosen);
  AddInspectCommand(program, &chosen);
  AddEvalCommand(program, &chosen);
  AddBenchCommand(program, &chosen);
  AddModelCommand(program, &chosen);
  AddReportCommand(program, &chosen);
  AddIsaCommand(program, &chosen);
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return ReportParseError(program, error);
  }
  return chosen();
}

}  // namespace
}  // namespace kvist

int main(int argc, char** argv) {
  return kvist::Main(argc, argv);
}
