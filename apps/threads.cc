// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "threads.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <string>
#include <thread>

namespace kvist {
namespace {

// The threads that share a core with this one, as the kernel writes them ("0,64"); the thread itself when unknown.
std::string CoreOf(int cpu) {
  std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
  std::string siblings;
  return std::getline(file, siblings) ? siblings : std::to_string(cpu);
}

int NumAllowedCores() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) {  // more than 1024 processors
    return static_cast<int>(std::thread::hardware_concurrency());
  }
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) cores.insert(CoreOf(cpu));
  }
  return static_cast<int>(cores.size());
}

}  // namespace

int NumAvailableCores() {
  int num_cores = std::max(1, NumAllowedCores());
  // "200000 100000": microseconds of processor time in so many of real time; "max 100000" without a limit.
  std::ifstream limit("/sys/fs/cgroup/cpu.max");
  double allowed_us = 0;
  double period_us = 0;
  if (limit >> allowed_us >> period_us && period_us > 0) {
    num_cores = std::min(num_cores, std::max(1, static_cast<int>(std::lround(allowed_us / period_us))));
  }
  return num_cores;
}

}  // namespace kvist
