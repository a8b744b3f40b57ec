// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "model/gguf.h"

#include <doctest/doctest.h>
#include <ggml.h>

#include <cstring>
#include <limits>
#include <random>

#include "model/gguf_builder.h"

namespace kvist::gguf_test {
namespace {

constexpr uint32_t kArray = 9;

// A sound file with every kind of value and three tensors.
GgufBuilder SmallFile() {
  GgufBuilder builder;
  builder.AddString("general.architecture", "test");
  builder.AddUint("test.u32", 7);
  builder.AddInt("test.i32", -7);
  builder.AddFloat("test.f32", 0.5F);
  builder.AddBool("test.bool", true);
  builder.AddStrings("test.strings", {"a", "", "Kvist"});
  builder.AddFloats("test.floats", {1.0F, 2.5F});
  builder.AddInts("test.ints", {1, -2, 3});
  builder.AddTensor("vector", GGML_TYPE_F32, {4}, std::vector<std::byte>(16, std::byte{1}));
  builder.AddTensor("matrix", GGML_TYPE_F16, {4, 3}, std::vector<std::byte>(24, std::byte{2}));
  builder.AddTensor("quantised", GGML_TYPE_Q8_0, {32, 2}, std::vector<std::byte>(68, std::byte{3}));
  return builder;
}

Result<std::shared_ptr<const GgufFile>> OpenBytes(const std::vector<std::byte>& bytes) {
  const TemporaryFile file(bytes);
  return GgufFile::Open(file.path());
}

void CheckFails(const std::vector<std::byte>& bytes, ErrorCode code, const char* part_of_message) {
  const auto file = OpenBytes(bytes);
  REQUIRE_FALSE(file.has_value());
  CAPTURE(file.error().message);
  CHECK(ErrorCodeName(file.error().code) == std::string(ErrorCodeName(code)));
  CHECK(file.error().message.find(part_of_message) != std::string::npos);
}

// Reads every byte the file hands out, so that a sanitizer sees one that lies outside of it.
uint64_t TouchEverything(const GgufFile& file) {
  uint64_t sum = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    for (const std::byte byte : tensor.data) sum += static_cast<uint64_t>(byte);
    for (const char c : tensor.name) sum += static_cast<uint8_t>(c);
  }
  if (const GgufValue* strings = file.Find("test.strings")) {
    if (const auto* list = std::get_if<std::vector<std::string_view>>(strings)) {
      for (const std::string_view text : *list) {
        for (const char c : text) sum += static_cast<uint8_t>(c);
      }
    }
  }
  return sum;
}

// Where the bytes of `text` begin in `bytes`.
size_t PlaceOf(const std::vector<std::byte>& bytes, std::string_view text) {
  const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const size_t place = all.find(text);
  REQUIRE(place != std::string_view::npos);
  return place;
}

template <class T>
void Overwrite(std::vector<std::byte>& bytes, size_t offset, T value) {
  REQUIRE(offset + sizeof(T) <= bytes.size());
  std::memcpy(bytes.data() + offset, &value, sizeof(T));
}

TEST_CASE("gguf: reads values and tensors") {
  const TemporaryFile on_disk(SmallFile().Build());
  const auto opened = GgufFile::Open(on_disk.path());
  REQUIRE(opened.has_value());
  const GgufFile& file = **opened;
  CHECK(file.version() == 3);
  CHECK(file.path() == on_disk.path());
  CHECK(file.GetString("general.architecture").value() == "test");
  CHECK(file.GetUint("test.u32").value() == 7);
  CHECK(std::get<int64_t>(*file.Find("test.i32")) == -7);
  CHECK(file.GetFloat("test.f32").value() == 0.5);
  CHECK(file.BoolOr("test.bool", false).value());
  CHECK(std::get<std::vector<std::string_view>>(*file.Find("test.strings")) ==
        std::vector<std::string_view>{"a", "", "Kvist"});
  CHECK(std::get<std::vector<double>>(*file.Find("test.floats")) == std::vector<double>{1.0, 2.5});
  CHECK(std::get<std::vector<int64_t>>(*file.Find("test.ints")) == std::vector<int64_t>{1, -2, 3});
  REQUIRE(file.tensors().size() == 3);
  const GgufTensor* matrix = file.FindTensor("matrix");
  REQUIRE(matrix != nullptr);
  CHECK(matrix->shape == std::vector<uint64_t>{4, 3});
  CHECK(matrix->type == GGML_TYPE_F16);
  CHECK(matrix->data.size() == 24);
  CHECK(matrix->data[23] == std::byte{2});
  CHECK(file.FindTensor("quantised")->data.size() == 68);
  CHECK(file.FindTensor("absent") == nullptr);
}

TEST_CASE("gguf: typed look-ups name key and file") {
  const TemporaryFile on_disk(SmallFile().Build());
  const auto opened = GgufFile::Open(on_disk.path());
  REQUIRE(opened.has_value());
  const GgufFile& file = **opened;
  CHECK(file.FloatOr("absent", 2.5).value() == 2.5);
  CHECK(file.StringOr("absent", "x").value() == "x");
  CHECK_FALSE(file.GetUint("test.i32").has_value());  // negative
  CHECK_FALSE(file.FloatOr("test.u32", 1).has_value());
  CHECK_FALSE(file.BoolOr("test.u32", true).has_value());
  CHECK_FALSE(file.StringOr("test.u32", "").has_value());
  const auto missing = file.GetUint("test.missing");
  REQUIRE_FALSE(missing.has_value());
  CHECK(missing.error().message.find("test.missing") != std::string::npos);
  CHECK(missing.error().message.find(on_disk.path()) != std::string::npos);
}

TEST_CASE("gguf: what cannot be opened says why") {
  CHECK(GgufFile::Open("/nonexistent/model.gguf").error().code == ErrorCode::kNotFound);
  CHECK(GgufFile::Open("/tmp").error().code == ErrorCode::kInvalidArgument);
  CheckFails({}, ErrorCode::kCorrupt, "empty");
  CheckFails(std::vector<std::byte>(100), ErrorCode::kCorrupt, "not a GGUF file");
}

TEST_CASE("gguf: versions and byte order") {
  std::vector<std::byte> bytes = SmallFile().Build();
  Overwrite<uint32_t>(bytes, 4, 2);
  CHECK(OpenBytes(bytes).has_value());
  Overwrite<uint32_t>(bytes, 4, 1);
  CheckFails(bytes, ErrorCode::kUnsupported, "version 1");
  Overwrite<uint32_t>(bytes, 4, 4);
  CheckFails(bytes, ErrorCode::kUnsupported, "version 4");
  Overwrite<uint32_t>(bytes, 4, 0x03000000);
  CheckFails(bytes, ErrorCode::kUnsupported, "big-endian");
}

TEST_CASE("gguf: absurd counts") {
  const std::vector<std::byte> sound = SmallFile().Build();
  for (const uint64_t count : {uint64_t{1} << 19, uint64_t{1} << 40, std::numeric_limits<uint64_t>::max()}) {
    for (const size_t offset : {size_t{8}, size_t{16}}) {  // tensors, keys
      auto bytes = sound;
      Overwrite(bytes, offset, count);
      CHECK(OpenBytes(bytes).error().code == ErrorCode::kCorrupt);
    }
    auto bytes = sound;  // the length of a string array, after its key, kind and element kind
    Overwrite(bytes, PlaceOf(bytes, "test.strings") + 12 + 8, count);
    CHECK(OpenBytes(bytes).error().code == ErrorCode::kCorrupt);
    bytes = sound;  // the length of a string
    Overwrite(bytes, PlaceOf(bytes, "Kvist") - 8, count);
    CHECK(OpenBytes(bytes).error().code == ErrorCode::kCorrupt);
  }
}

TEST_CASE("gguf: damaged metadata") {
  const std::vector<std::byte> sound = SmallFile().Build();
  auto bytes = sound;
  Overwrite<uint32_t>(bytes, PlaceOf(bytes, "test.u32") + 8, 99);
  CheckFails(bytes, ErrorCode::kCorrupt, "kind 99");
  bytes = sound;
  Overwrite<uint8_t>(bytes, PlaceOf(bytes, "test.bool") + 9 + 4, 2);
  CheckFails(bytes, ErrorCode::kCorrupt, "truth value");
  bytes = sound;  // test.ints becomes an array of arrays
  Overwrite<uint32_t>(bytes, PlaceOf(bytes, "test.ints") + 9 + 4, kArray);
  CheckFails(bytes, ErrorCode::kUnsupported, "arrays of arrays");
  auto builder = SmallFile();
  builder.AddUint("test.u32", 8);
  CheckFails(builder.Build(), ErrorCode::kCorrupt, "appears twice");
  for (const uint32_t alignment : {0U, 1U, 4U, 12U, 48U}) {
    builder = SmallFile();
    builder.AddUint("general.alignment", alignment);
    CheckFails(builder.Build(), ErrorCode::kCorrupt, "general.alignment");
  }
  builder = SmallFile();
  builder.SetAlignment(256);
  CHECK(OpenBytes(builder.Build()).has_value());
}

TEST_CASE("gguf: damaged tensors") {
  const std::vector<std::byte> sound = SmallFile().Build();
  const size_t matrix = PlaceOf(sound, "matrix") + 6;  // axes, 2 extents, type, offset
  auto bytes = sound;
  Overwrite<uint32_t>(bytes, matrix, 5);
  CheckFails(bytes, ErrorCode::kCorrupt, "5 axes");
  bytes = sound;
  Overwrite<uint32_t>(bytes, matrix, 0);
  CheckFails(bytes, ErrorCode::kCorrupt, "0 axes");
  bytes = sound;
  Overwrite<uint64_t>(bytes, matrix + 4, 0);
  CheckFails(bytes, ErrorCode::kCorrupt, "length 0");
  bytes = sound;
  Overwrite<uint64_t>(bytes, matrix + 4, uint64_t{1} << 62);
  CheckFails(bytes, ErrorCode::kCorrupt, "absurd shape");
  bytes = sound;
  Overwrite<uint64_t>(bytes, matrix + 12, 1000);
  CheckFails(bytes, ErrorCode::kCorrupt, "truncated");
  for (const uint32_t type : {4U, 5U, 36U, 1000U, 0xffffffffU}) {  // given up, or never used
    bytes = sound;
    Overwrite<uint32_t>(bytes, matrix + 20, type);
    CheckFails(bytes, ErrorCode::kUnsupported, "does not know");
  }
  bytes = sound;
  Overwrite<uint32_t>(bytes, matrix + 20, GGML_TYPE_Q8_0);
  CheckFails(bytes, ErrorCode::kCorrupt, "not a multiple of 32");
  bytes = sound;
  Overwrite<uint64_t>(bytes, matrix + 24, 33);
  CheckFails(bytes, ErrorCode::kCorrupt, "not aligned");
  for (const uint64_t offset : {uint64_t{4096}, uint64_t{1} << 62, std::numeric_limits<uint64_t>::max() - 31}) {
    bytes = sound;
    Overwrite<uint64_t>(bytes, matrix + 24, offset);
    CHECK(OpenBytes(bytes).error().code == ErrorCode::kCorrupt);
  }
  auto builder = SmallFile();
  builder.AddTensor("matrix", GGML_TYPE_F32, {1}, std::vector<std::byte>(4));
  CheckFails(builder.Build(), ErrorCode::kCorrupt, "appears twice");
}

TEST_CASE("gguf: a file cut anywhere is an error that says so") {
  std::vector<std::byte> bytes = SmallFile().Build();
  const size_t num_bytes = bytes.size();
  CHECK(OpenBytes(bytes).has_value());
  bytes.pop_back();
  CheckFails(bytes, ErrorCode::kCorrupt, ("needs at least " + std::to_string(num_bytes)).c_str());
  CheckFails(bytes, ErrorCode::kCorrupt, ("it has " + std::to_string(num_bytes - 1)).c_str());
  for (size_t size = 0; size < num_bytes; ++size) {
    const auto file = OpenBytes({bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size)});
    CAPTURE(size);
    REQUIRE_FALSE(file.has_value());
    CHECK(file.error().code == ErrorCode::kCorrupt);
    if (size >= 4) CHECK(file.error().message.find("truncated") != std::string::npos);
  }
}

TEST_CASE("gguf: flipped bytes give an error or a sound file") {
  const std::vector<std::byte> sound = SmallFile().Build();
  constexpr uint32_t kSeed = 20260117;
  std::mt19937 random(kSeed);
  uint64_t sum = 0;
  int num_sound = 0;
  for (int round = 0; round < 20'000; ++round) {
    CAPTURE(round);
    auto bytes = sound;
    const int num_flips = 1 + static_cast<int>(random() % 4);
    for (int i = 0; i < num_flips; ++i) {
      // Extremes are likelier to hurt than any byte.
      const uint8_t choices[] = {0, 1, 0x7f, 0x80, 0xff, static_cast<uint8_t>(random())};
      bytes[random() % bytes.size()] = std::byte{choices[random() % std::size(choices)]};
    }
    const auto file = OpenBytes(bytes);
    if (file) {
      ++num_sound;
      sum += TouchEverything(**file);
    } else {
      CHECK_FALSE(file.error().message.empty());
    }
  }
  MESSAGE(num_sound << " of 20000 damaged files were still sound, sum " << sum);
}

}  // namespace
}  // namespace kvist::gguf_test
