// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include <memory>
#include <string>

#include "commands.h"
#include "kernels/kernels.h"
#include "record.h"
#include "report.h"

namespace kvist {
namespace {

int RunIsa(bool as_json) {
  const auto chosen = ChooseKernels();
  if (!chosen) return Report(chosen.error());
  Output out;
  if (as_json) {
    Json supported = Json::array();
    for (const Kernels* kernels : SupportedKernels()) supported.push_back(kernels->name);
    Json object = {{"command", "isa"}, {"supported", supported}};
    AddOrigin(object);
    WriteJson(object, out);
    return out.ExitCode(kExitOk);
  }
  for (const Kernels* kernels : SupportedKernels()) {
    out.Write(std::string(kernels == *chosen ? "* " : "  ") + kernels->name + "\n");
  }
  return out.ExitCode(kExitOk);
}

}  // namespace

void AddIsaCommand(CLI::App& program, Command* chosen) {
  CLI::App* command = program.add_subcommand(
      "isa",
      "Show the instruction sets this CPU offers, * the one in use (the environment variable KVIST_ISA forces one)");
  auto as_json = std::make_shared<bool>(false);
  command->add_flag("--json", *as_json, "Print one JSON object");
  command->callback([=] { *chosen = [=] { return RunIsa(*as_json); }; });
}

}  // namespace kvist
