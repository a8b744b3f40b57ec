// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "base/machine_memory.h"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace kvist::machine_memory_test {
namespace {

namespace fs = std::filesystem;

// A folder with the files of /proc and /sys that say what a process may take.
class FakeRoot {
 public:
  FakeRoot() {
    std::string path = (fs::temp_directory_path() / "kvist-test-XXXXXX").string();
    REQUIRE(mkdtemp(path.data()) != nullptr);
    path_ = path;
  }
  FakeRoot(const FakeRoot&) = delete;
  ~FakeRoot() {
    std::error_code error;
    fs::remove_all(path_, error);
  }
  void Write(const std::string& file, const std::string& text) const {
    fs::create_directories((path_ / file).parent_path());
    std::ofstream(path_ / file) << text;
  }
  std::string path() const { return path_.string(); }

 private:
  fs::path path_;
};

TEST_CASE("machine memory: without limits it is the machine's") {
  const FakeRoot root;
  CHECK(UsableBytes(root.path()) == PhysicalBytes());
  root.Write("proc/self/cgroup", "0::/user.slice\n");
  root.Write("sys/fs/cgroup/user.slice/memory.max", "max\n");
  CHECK(LimitingControlGroups(root.path()).empty());
  CHECK(UsableBytes(root.path()) == PhysicalBytes());
  CHECK(UsableBytes() > 0);
  CHECK(UsableBytes() <= PhysicalBytes());
}

TEST_CASE("machine memory: the group's limit counts, and those of the groups around it") {
  const FakeRoot root;
  root.Write("proc/self/cgroup", "0::/system.slice/kvist.service\n");
  root.Write("sys/fs/cgroup/system.slice/kvist.service/memory.max", "300000\n");
  root.Write("sys/fs/cgroup/system.slice/kvist.service/memory.current", "200000\n");
  root.Write("sys/fs/cgroup/system.slice/kvist.service/memory.stat", "anon 5\nfile 9\ninactive_file 150000\n");
  root.Write("sys/fs/cgroup/system.slice/memory.max", "200000\n");
  const auto groups = LimitingControlGroups(root.path());
  REQUIRE(groups.size() == 2);
  CHECK(groups[0].limit_bytes == 300'000);
  CHECK(groups[0].used_bytes == 50'000);
  CHECK(groups[1].limit_bytes == 200'000);
  CHECK(groups[1].used_bytes == 0);
  CHECK(UsableBytes(root.path()) == 200'000);
}

TEST_CASE("machine memory: a container whose own path is not there is limited by the mount") {
  const FakeRoot root;
  for (const char* path : {"/", "/../../outside", "/docker/0123"}) {
    root.Write("proc/self/cgroup", std::string("0::") + path + "\n");
    root.Write("sys/fs/cgroup/memory.max", "123456");
    CHECK(UsableBytes(root.path()) == 123'456);
  }
}

TEST_CASE("machine memory: version 1, where no limit is a number larger than any memory") {
  const FakeRoot root;
  root.Write("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/docker/0123\nnonsense\n3:\n0::/\n");
  root.Write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  CHECK(UsableBytes(root.path()) == PhysicalBytes());
  root.Write("sys/fs/cgroup/memory/docker/0123/memory.limit_in_bytes", "500000\n");
  root.Write("sys/fs/cgroup/memory/docker/0123/memory.usage_in_bytes", "400000\n");
  root.Write("sys/fs/cgroup/memory/docker/0123/memory.stat", "inactive_file 1\ntotal_inactive_file 300000\n");
  CHECK(UsableBytes(root.path()) == 500'000);
  CHECK(LimitingControlGroups(root.path()).front().used_bytes == 100'000);
}

}  // namespace
}  // namespace kvist::machine_memory_test
