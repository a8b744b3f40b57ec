// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "record.h"

#include <fstream>

#include "build_info.h"
#include "kernels/kernels.h"

namespace kvist {
namespace {

std::string CpuName() {
  std::ifstream cpu_info("/proc/cpuinfo");
  for (std::string line; std::getline(cpu_info, line);) {
    const size_t colon = line.find(": ");
    const bool is_name = line.starts_with("model name") || line.starts_with("Model") || line.starts_with("Hardware");
    if (is_name && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

}  // namespace

void AddOrigin(Json& object) {
  static const std::string cpu = CpuName();
  const auto kernels = ChooseKernels();
  object["cpu"] = cpu;
  object["isa"] = kernels ? (*kernels)->name : "none";
  object["commit"] = KVIST_COMMIT;
}

void WriteJson(const Json& object, Output& out) {
  out.Write(object.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

void WriteRecord(const Record& record, Output& out) {
  Json object = {{"bench", record.bench},
                 {"impl", record.impl},
                 {"params", record.params},
                 {"metric", record.metric},
                 {"value", record.value}};
  AddOrigin(object);
  WriteJson(object, out);
}

}  // namespace kvist
