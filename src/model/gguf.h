// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "kvist/error.h"

namespace kvist {

// One metadata value. Integers of every width are widened; arrays keep one element kind.
using GgufValue =
    std::variant<uint64_t, int64_t, double, bool, std::string_view, std::vector<uint64_t>, std::vector<int64_t>,
                 std::vector<double>, std::vector<bool>, std::vector<std::string_view>>;

// A tensor as the file describes it. `data` points into the mapping.
struct GgufTensor {
  std::string_view name;
  uint32_t type;                    // ggml_type; known to this build
  std::vector<uint64_t> shape;      // ggml's order: shape[0] is the contiguous axis; 1 to 4 entries
  std::span<const std::byte> data;  // exactly the bytes the type and shape ask for, inside the file
};

// A GGUF file (v2, v3), mapped read-only and checked completely when opened: every length, count, offset, type and
// size lies inside the file before anything is believed, so nothing read through this class can point outside it.
// Values and tensors live as long as the file. Immutable, hence safe to read from any thread.
// Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
class GgufFile {
 public:
  // kNotFound / kIo when it can't be opened or mapped, kInvalidArgument for a folder or pipe; kCorrupt with what and
  // at which byte when it isn't a sound GGUF; kUnsupported for a version, byte order or tensor type this build does not
  // know.
  static Result<std::shared_ptr<const GgufFile>> Open(const std::string& path);
  ~GgufFile();
  GgufFile(const GgufFile&) = delete;
  GgufFile& operator=(const GgufFile&) = delete;

  const std::string& path() const;
  std::span<const std::byte> bytes() const;  // the whole mapping
  uint32_t version() const;

  const GgufValue* Find(std::string_view key) const;          // nullptr when absent
  const GgufTensor* FindTensor(std::string_view name) const;  // nullptr when absent
  std::span<const GgufTensor> tensors() const;                // in the file's order

  // Typed look-ups. Get*: kCorrupt when absent or of another kind, naming key and file. *Or: the default when absent,
  // still kCorrupt when present with another kind. Integers convert between signedness when they fit.
  Result<uint64_t> GetUint(std::string_view key) const;
  Result<double> GetFloat(std::string_view key) const;
  Result<std::string_view> GetString(std::string_view key) const;
  Result<double> FloatOr(std::string_view key, double otherwise) const;
  Result<bool> BoolOr(std::string_view key, bool otherwise) const;
  Result<std::string_view> StringOr(std::string_view key, std::string_view otherwise) const;

 private:
  struct State;
  explicit GgufFile(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace kvist
