// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "kvist/error.h"

namespace kvist {

// Puts together a GGUF file (version 3) in memory, for tests: small models, and files to damage. It checks nothing, so
// that it can also build wrong ones.
class GgufBuilder {
 public:
  void AddUint(std::string_view key, uint32_t value) { AddValue(key, kU32, value); }
  void AddInt(std::string_view key, int32_t value) { AddValue(key, kI32, value); }
  void AddFloat(std::string_view key, float value) { AddValue(key, kF32, value); }
  void AddBool(std::string_view key, bool value) { AddValue(key, kBool, static_cast<uint8_t>(value)); }
  void AddString(std::string_view key, std::string_view value) {
    AddKey(key, kString);
    AppendString(keys_, value);
  }
  void AddFloats(std::string_view key, const std::vector<float>& values) { AddArray(key, kF32, values); }
  void AddInts(std::string_view key, const std::vector<int32_t>& values) { AddArray(key, kI32, values); }
  void AddStrings(std::string_view key, const std::vector<std::string>& values) { AddArray(key, kString, values); }

  // Adds the key, too.
  void SetAlignment(uint32_t alignment) {
    AddUint("general.alignment", alignment);
    alignment_ = alignment;
  }

  void AddTensor(std::string_view name, uint32_t type, const std::vector<uint64_t>& shape,
                 std::vector<std::byte> data) {
    tensors_.push_back({std::string(name), type, shape, std::move(data)});
  }
  void AddTensor(std::string_view name, const std::vector<uint64_t>& shape, std::span<const float> data) {
    const auto bytes = std::as_bytes(data);
    AddTensor(name, /*type=f32*/ 0, shape, std::vector<std::byte>(bytes.begin(), bytes.end()));
  }

  std::vector<std::byte> Build() const {
    std::vector<std::byte> out;
    AppendBytes(out, std::as_bytes(std::span(std::string_view("GGUF"))));
    Append<uint32_t>(out, 3);
    Append<uint64_t>(out, tensors_.size());
    Append<uint64_t>(out, num_keys_);
    AppendBytes(out, keys_);
    std::vector<std::byte> data;
    for (const Tensor& tensor : tensors_) {
      Pad(data);
      AppendString(out, tensor.name);
      Append(out, static_cast<uint32_t>(tensor.shape.size()));
      for (const uint64_t extent : tensor.shape) Append(out, extent);
      Append(out, tensor.type);
      Append<uint64_t>(out, data.size());
      AppendBytes(data, tensor.data);
    }
    Pad(out);
    AppendBytes(out, data);
    return out;
  }

 private:
  enum Kind : uint32_t { kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kString = 8, kArray = 9 };
  struct Tensor {
    std::string name;
    uint32_t type;
    std::vector<uint64_t> shape;
    std::vector<std::byte> data;
  };

  static void AppendBytes(std::vector<std::byte>& out, std::span<const std::byte> bytes) {
    out.insert(out.end(), bytes.begin(), bytes.end());
  }
  template <class T>
  static void Append(std::vector<std::byte>& out, const T& value) {
    AppendBytes(out, std::as_bytes(std::span(&value, 1)));
  }
  static void AppendString(std::vector<std::byte>& out, std::string_view text) {
    Append<uint64_t>(out, text.size());
    AppendBytes(out, std::as_bytes(std::span(text)));
  }

  void Pad(std::vector<std::byte>& out) const { out.resize((out.size() + alignment_ - 1) / alignment_ * alignment_); }

  void AddKey(std::string_view key, uint32_t kind) {
    AppendString(keys_, key);
    Append(keys_, kind);
    ++num_keys_;
  }
  template <class T>
  void AddValue(std::string_view key, Kind kind, const T& value) {
    AddKey(key, kind);
    Append(keys_, value);
  }
  template <class T>
  void AddArray(std::string_view key, Kind kind, const std::vector<T>& values) {
    AddKey(key, kArray);
    Append<uint32_t>(keys_, kind);
    Append<uint64_t>(keys_, values.size());
    for (const T& value : values) {
      if constexpr (std::is_same_v<T, std::string>) {
        AppendString(keys_, value);
      } else {
        Append(keys_, value);
      }
    }
  }

  uint64_t num_keys_ = 0;
  std::vector<std::byte> keys_;
  std::vector<Tensor> tensors_;
  uint32_t alignment_ = 32;
};

// A file with these bytes that is gone when the object is.
class TemporaryFile {
 public:
  explicit TemporaryFile(std::span<const std::byte> bytes)
      : path_((std::filesystem::temp_directory_path() / "kvist-gguf-XXXXXX").string()) {
    const int fd = mkstemp(path_.data());
    KVIST_CHECK(fd >= 0);
    KVIST_CHECK(write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
    close(fd);
  }
  ~TemporaryFile() { unlink(path_.c_str()); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace kvist
