// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "bench/micro/torch_attention.h"

#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include <cerrno>
#include <csignal>
#include <cstring>

extern char** environ;

namespace kvist {
namespace {

using Json = nlohmann::json;

Json OpenCommand(const AttentionTask& task, std::string_view type) {
  Json layers = Json::array();
  for (const LayerGeometry& layer : task.geometry.layers) {
    layers.push_back({{"query_heads", layer.num_query_heads},
                      {"kv_heads", layer.num_kv_heads},
                      {"key_dim", layer.key_dim},
                      {"value_dim", layer.value_dim},
                      {"window", layer.window},
                      {"scale", layer.attention_scale}});
  }
  return {{"command", "open"},
          {"layers", std::move(layers)},
          {"stored_tokens", task.num_stored_tokens},
          {"step_tokens", task.num_step_tokens},
          {"threads", task.num_threads},
          {"type", type}};
}

}  // namespace

// The process. One socket is its standard input and output, so that writing to one that has ended is an error and no
// signal.
class TorchAttention::Worker {
 public:
  static Result<std::unique_ptr<Worker>> Start(const TorchPython& torch) {
    int sockets[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) {
      return Fail(ErrorCode::kIo, std::string("no socket to talk to torch with: ") + std::strerror(errno));
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, sockets[1], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, sockets[1], STDOUT_FILENO);
    std::string python = torch.python, script = torch.worker_script;
    char* const command[] = {python.data(), script.data(), nullptr};
    pid_t process = 0;
    const int error = posix_spawnp(&process, python.c_str(), &actions, nullptr, command, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(sockets[1]);
    if (error != 0) {
      close(sockets[0]);
      return Fail(ErrorCode::kUnsupported, python + " can't be run (" + std::strerror(error) +
                                               "); give a Python that has torch, such as .venv/bin/python");
    }
    return std::unique_ptr<Worker>(new Worker(python, process, sockets[0]));
  }

  ~Worker() {
    close(socket_);
    kill(process_, SIGKILL);  // it has nothing to finish
    while (waitpid(process_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }

  Result<Json> Ask(const Json& command) {
    const std::string line = command.dump() + "\n";
    for (size_t sent = 0; sent < line.size();) {
      const ssize_t count = send(socket_, line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
      if (count < 0) return Failure();
      sent += size_t(count);
    }
    KVIST_TRY(const std::string text, ReadLine());
    Json answer = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!answer.is_object()) return Fail(ErrorCode::kIo, python_ + " answered '" + text + "' instead of JSON");
    if (answer.contains("error")) {
      return Fail(ErrorCode::kUnsupported, python_ + ": " + answer["error"].get<std::string>());
    }
    return answer;
  }

 private:
  Worker(std::string python, pid_t process, int socket)
      : python_(std::move(python)), process_(process), socket_(socket) {}

  Result<std::string> ReadLine() {
    std::string line;
    for (char buffer[4096]; !line.ends_with('\n');) {
      const ssize_t count = recv(socket_, buffer, sizeof(buffer), 0);
      if (count <= 0) return Failure(count == 0);
      line.append(buffer, size_t(count));
    }
    line.pop_back();
    return line;
  }

  std::unexpected<Error> Failure(bool has_ended = false) const {
    if (!has_ended && errno == EINTR) return Fail(ErrorCode::kCancelled, "stopped");
    return Fail(ErrorCode::kUnsupported,
                python_ + " ended while it computed attention; see above, or whether memory was short");
  }

  const std::string python_;
  const pid_t process_;
  const int socket_;
};

Result<size_t> TorchKvBytes(const AttentionTask& task, std::string_view type) {
  if (type != "f32" && type != "bf16" && type != "f16") {
    return Fail(ErrorCode::kInvalidArgument,
                "torch has no KV type '" + std::string(type) + "' to compare with; known: f32, bf16, f16");
  }
  size_t num_numbers = 0;
  for (const LayerGeometry& layer : task.geometry.layers) {
    const auto num_rows = size_t((task.num_tokens() - FirstVisibleToken(task, layer)) * layer.num_kv_heads);
    num_numbers += num_rows * size_t(layer.key_dim + layer.value_dim);
  }
  return num_numbers * (type == "f32" ? 4 : 2);
}

Result<std::unique_ptr<TorchAttention>> TorchAttention::Open(const TorchPython& torch, const AttentionTask& task,
                                                             std::string_view type) {
  KVIST_TRY_VOID(task.geometry.Validate());
  KVIST_TRY(const size_t num_kv_bytes, TorchKvBytes(task, type));
  KVIST_TRY(auto worker, Worker::Start(torch));
  KVIST_TRY_VOID(worker->Ask(OpenCommand(task, type)));
  return std::unique_ptr<TorchAttention>(new TorchAttention(std::move(worker), num_kv_bytes));
}

TorchAttention::TorchAttention(std::unique_ptr<Worker> worker, size_t num_kv_bytes)
    : worker_(std::move(worker)), num_kv_bytes_(num_kv_bytes) {}
TorchAttention::~TorchAttention() = default;

Result<double> TorchAttention::RunOnce() {
  KVIST_TRY(const Json answer, worker_->Ask({{"command", "run"}}));
  if (!answer.contains("ms") || !answer["ms"].is_number()) {
    return Fail(ErrorCode::kIo, "torch's worker answered " + answer.dump() + " without a time");
  }
  return answer["ms"].get<double>();
}

}  // namespace kvist
