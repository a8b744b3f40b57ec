// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "model/gguf.h"

#include <fcntl.h>
#include <ggml.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <map>
#include <type_traits>
#include <utility>

namespace kvist {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF numbers are read as they lie in the file");

constexpr std::string_view kMagic = "GGUF";
constexpr uint32_t kOldestVersion = 2;
constexpr uint32_t kNewestVersion = 3;
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMinAlignment = 8;
constexpr uint32_t kMaxDims = 4;

// Far above any real model, far below what would hurt: a damaged count in a large file is not to become gigabytes of
// memory. The largest vocabulary today has 262,144 tokens and about twice as many merges.
constexpr uint64_t kMaxEntries = uint64_t{1} << 20;        // metadata keys, and tensors
constexpr uint64_t kMaxArrayElements = uint64_t{1} << 24;  // of all arrays together

// The least a key (length, kind, one byte of value) and a tensor (length, dims, one axis, type, offset) can occupy.
constexpr uint64_t kMinKeyBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;

enum class Kind : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

std::string Number(uint64_t n) {
  return std::to_string(n);
}

// Names come from the file: what is shown of one is short and printable.
std::string Quoted(std::string_view name) {
  std::string out = "'";
  for (const char c : name.substr(0, 80)) out += (c >= 0x20 && c < 0x7f) ? c : '?';
  return out + (name.size() > 80 ? "...'" : "'");
}

struct FileDescriptor {
  int fd;
  ~FileDescriptor() {
    if (fd >= 0) close(fd);
  }
};

}  // namespace

struct GgufFile::State {
  std::string path;
  std::span<const std::byte> bytes;
  uint32_t version = 0;
  std::map<std::string_view, GgufValue> values;
  std::vector<GgufTensor> tensors;
  std::map<std::string_view, size_t> name_to_tensor;

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (bytes.data() != nullptr) munmap(const_cast<std::byte*>(bytes.data()), bytes.size());
  }

  Status Map();
  Status Parse();
};

namespace {

// Walks through the file from front to back. Every read first compares what it wants with what is left.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  uint64_t offset() const { return offset_; }
  uint64_t left() const { return bytes_.size() - offset_; }

  std::unexpected<Error> Corrupt(const std::string& what) const {
    return Fail(ErrorCode::kCorrupt, path_ + " is not a sound GGUF file: " + what + " (at byte " + Number(offset_) +
                                         "); fetch the file again");
  }
  std::unexpected<Error> Unsupported(const std::string& what) const {
    return Fail(ErrorCode::kUnsupported, path_ + ": " + what);
  }
  // The file ends before `expected_bytes`, the least size it would need.
  std::unexpected<Error> Truncated(const std::string& what, uint64_t expected_bytes) const {
    return Fail(ErrorCode::kCorrupt, path_ + " is truncated: " + what + " needs at least " + Number(expected_bytes) +
                                         " bytes of file, it has " + Number(bytes_.size()) + "; fetch the file again");
  }

  // `count` things of at least `each_bytes` must still fit.
  Status Need(uint64_t count, uint64_t each_bytes, const char* what) const {
    if (count <= left() / each_bytes) return {};
    const uint64_t max = std::numeric_limits<uint64_t>::max();
    if (count > (max - offset_) / each_bytes) {
      return Corrupt(std::string(what) + ": a length of " + Number(count) + " is absurd");
    }
    return Truncated(what, offset_ + count * each_bytes);
  }

  template <class T>
  Result<T> Read(const char* what) {
    KVIST_TRY_VOID(Need(1, sizeof(T), what));
    T value;
    std::memcpy(&value, bytes_.data() + offset_, sizeof(T));
    offset_ += sizeof(T);
    return value;
  }

  Result<std::string_view> ReadString(const char* what) {
    KVIST_TRY(const uint64_t length, Read<uint64_t>(what));
    KVIST_TRY_VOID(Need(length, 1, what));
    const auto* text = reinterpret_cast<const char*>(bytes_.data() + offset_);
    offset_ += length;
    return std::string_view(text, length);
  }

  Result<bool> ReadBool(const char* what) {
    KVIST_TRY(const uint8_t value, Read<uint8_t>(what));
    if (value > 1) return Corrupt(std::string(what) + ": a truth value is " + Number(value));
    return value == 1;
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& path_;
  uint64_t offset_ = 0;
};

class ValueReader {
 public:
  explicit ValueReader(Cursor& cursor) : cursor_(cursor) {}

  Result<GgufValue> Read() {
    KVIST_TRY(const uint32_t kind, cursor_.Read<uint32_t>("a value's kind"));
    if (static_cast<Kind>(kind) == Kind::kArray) return ReadArray();
    return ReadScalar(static_cast<Kind>(kind));
  }

 private:
  template <class Stored, class Wide>
  Result<GgufValue> Number() {
    KVIST_TRY(const Stored value, cursor_.Read<Stored>("a value"));
    return GgufValue(static_cast<Wide>(value));
  }

  Result<GgufValue> ReadScalar(Kind kind) {
    switch (kind) {
      case Kind::kU8:
        return Number<uint8_t, uint64_t>();
      case Kind::kU16:
        return Number<uint16_t, uint64_t>();
      case Kind::kU32:
        return Number<uint32_t, uint64_t>();
      case Kind::kU64:
        return Number<uint64_t, uint64_t>();
      case Kind::kI8:
        return Number<int8_t, int64_t>();
      case Kind::kI16:
        return Number<int16_t, int64_t>();
      case Kind::kI32:
        return Number<int32_t, int64_t>();
      case Kind::kI64:
        return Number<int64_t, int64_t>();
      case Kind::kF32:
        return Number<float, double>();
      case Kind::kF64:
        return Number<double, double>();
      case Kind::kBool:
        return cursor_.ReadBool("a value");
      case Kind::kString:
        return cursor_.ReadString("a string");
      case Kind::kArray:
        break;
    }
    return cursor_.Corrupt("value kind " + std::to_string(static_cast<uint32_t>(kind)) + " does not exist");
  }

  template <class Stored, class Wide>
  Result<GgufValue> Numbers(uint64_t count) {
    KVIST_TRY_VOID(cursor_.Need(count, sizeof(Stored), "an array"));
    std::vector<Wide> values(count);
    for (Wide& value : values) {
      KVIST_TRY(const Stored stored, cursor_.Read<Stored>("an array"));
      value = static_cast<Wide>(stored);
    }
    return GgufValue(std::move(values));
  }

  Result<GgufValue> Bools(uint64_t count) {
    KVIST_TRY_VOID(cursor_.Need(count, 1, "an array"));
    std::vector<bool> values(count);
    for (uint64_t i = 0; i < count; ++i) {
      KVIST_TRY(values[i], cursor_.ReadBool("an array"));
    }
    return GgufValue(std::move(values));
  }

  Result<GgufValue> Strings(uint64_t count) {
    KVIST_TRY_VOID(cursor_.Need(count, sizeof(uint64_t), "an array of strings"));
    std::vector<std::string_view> values(count);
    for (std::string_view& value : values) {
      KVIST_TRY(value, cursor_.ReadString("an array of strings"));
    }
    return GgufValue(std::move(values));
  }

  Result<GgufValue> ReadArray() {
    KVIST_TRY(const uint32_t kind, cursor_.Read<uint32_t>("an array's kind"));
    KVIST_TRY(const uint64_t count, cursor_.Read<uint64_t>("an array's length"));
    if (count > kMaxArrayElements - num_elements_) {
      return cursor_.Corrupt("arrays of more than " + std::to_string(kMaxArrayElements) + " elements together");
    }
    num_elements_ += count;
    switch (static_cast<Kind>(kind)) {
      case Kind::kU8:
        return Numbers<uint8_t, uint64_t>(count);
      case Kind::kU16:
        return Numbers<uint16_t, uint64_t>(count);
      case Kind::kU32:
        return Numbers<uint32_t, uint64_t>(count);
      case Kind::kU64:
        return Numbers<uint64_t, uint64_t>(count);
      case Kind::kI8:
        return Numbers<int8_t, int64_t>(count);
      case Kind::kI16:
        return Numbers<int16_t, int64_t>(count);
      case Kind::kI32:
        return Numbers<int32_t, int64_t>(count);
      case Kind::kI64:
        return Numbers<int64_t, int64_t>(count);
      case Kind::kF32:
        return Numbers<float, double>(count);
      case Kind::kF64:
        return Numbers<double, double>(count);
      case Kind::kBool:
        return Bools(count);
      case Kind::kString:
        return Strings(count);
      case Kind::kArray:
        return cursor_.Unsupported("arrays of arrays in the metadata are not supported");
    }
    return cursor_.Corrupt("array kind " + std::to_string(kind) + " does not exist");
  }

  Cursor& cursor_;
  uint64_t num_elements_ = 0;
};

// What a tensor's entry says, before it is known where the data begin.
struct TensorEntry {
  GgufTensor tensor;
  uint64_t offset;  // from the start of the data section
  uint64_t num_bytes;
};

Result<uint64_t> TensorBytes(const Cursor& cursor, const GgufTensor& tensor) {
  const std::string name = Quoted(tensor.name);
  const auto type = static_cast<ggml_type>(tensor.type);
  // Types that were given up keep their number with a size of zero.
  if (tensor.type >= GGML_TYPE_COUNT || ggml_type_size(type) == 0 || ggml_blck_size(type) <= 0) {
    return cursor.Unsupported("tensor " + name + " has type " + Number(tensor.type) + ", which this build of ggml (" +
                              ggml_version() + ") does not know");
  }
  const auto block_size = static_cast<uint64_t>(ggml_blck_size(type));
  if (tensor.shape[0] % block_size != 0) {
    return cursor.Corrupt("tensor " + name + " has rows of " + Number(tensor.shape[0]) + ", not a multiple of " +
                          Number(block_size) + " as its type " + ggml_type_name(type) + " asks");
  }
  // Both the count and the bytes stay below 2^63, because ggml keeps them signed.
  const uint64_t max = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  uint64_t num_values = 1;
  for (const uint64_t extent : tensor.shape) {
    if (extent == 0) return cursor.Corrupt("tensor " + name + " has an axis of length 0");
    if (extent > max / num_values) return cursor.Corrupt("tensor " + name + " has an absurd shape");
    num_values *= extent;
  }
  const uint64_t num_blocks = num_values / block_size;
  if (num_blocks > max / ggml_type_size(type)) return cursor.Corrupt("tensor " + name + " has an absurd shape");
  return num_blocks * ggml_type_size(type);
}

Result<TensorEntry> ReadTensorEntry(Cursor& cursor) {
  TensorEntry entry;
  KVIST_TRY(entry.tensor.name, cursor.ReadString("a tensor's name"));
  KVIST_TRY(const uint32_t num_dims, cursor.Read<uint32_t>("a tensor's axes"));
  if (num_dims == 0 || num_dims > kMaxDims) {
    return cursor.Corrupt("tensor " + Quoted(entry.tensor.name) + " has " + Number(num_dims) + " axes, not 1 to 4");
  }
  entry.tensor.shape.resize(num_dims);
  for (uint64_t& extent : entry.tensor.shape) {
    KVIST_TRY(extent, cursor.Read<uint64_t>("a tensor's shape"));
  }
  KVIST_TRY(entry.tensor.type, cursor.Read<uint32_t>("a tensor's type"));
  KVIST_TRY(entry.offset, cursor.Read<uint64_t>("a tensor's offset"));
  KVIST_TRY(entry.num_bytes, TensorBytes(cursor, entry.tensor));
  return entry;
}

Status CheckVersion(const Cursor& cursor, uint32_t version) {
  if (version >= kOldestVersion && version <= kNewestVersion) return {};
  // A file of the other byte order shows a small version number the wrong way round.
  if (__builtin_bswap32(version) <= 0xffff) {
    return cursor.Unsupported("a big-endian GGUF file; convert the model for little-endian machines");
  }
  return cursor.Unsupported("GGUF version " + Number(version) + "; this build reads versions 2 and 3");
}

Status CheckCount(const Cursor& cursor, uint64_t count, uint64_t each_bytes, const char* what) {
  if (count > kMaxEntries) return cursor.Corrupt(Number(count) + " " + what + " are absurd");
  return cursor.Need(count, each_bytes, what);
}

}  // namespace

Status GgufFile::State::Map() {
  // Not blocking, so that naming a pipe by mistake gives an error instead of waiting for a writer.
  const FileDescriptor file{open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) {
    const int reason = errno;
    const bool absent = reason == ENOENT || reason == ENOTDIR;
    return Fail(absent ? ErrorCode::kNotFound : ErrorCode::kIo, "cannot open " + path + ": " + std::strerror(reason));
  }
  struct stat info {};
  if (fstat(file.fd, &info) != 0) {
    return Fail(ErrorCode::kIo, "cannot read the size of " + path + ": " + std::strerror(errno));
  }
  if (!S_ISREG(info.st_mode)) return Fail(ErrorCode::kInvalidArgument, path + " is not a regular file");
  if (info.st_size == 0) return Fail(ErrorCode::kCorrupt, path + " is empty; fetch the file again");
  const auto num_bytes = static_cast<size_t>(info.st_size);
  void* mapping = mmap(nullptr, num_bytes, PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (mapping == MAP_FAILED) return Fail(ErrorCode::kIo, "cannot map " + path + ": " + std::strerror(errno));
  bytes = {static_cast<const std::byte*>(mapping), num_bytes};
  return {};
}

Status GgufFile::State::Parse() {
  Cursor cursor(bytes, path);
  if (cursor.left() < kMagic.size() || std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    return Fail(ErrorCode::kCorrupt, path + " is not a GGUF file: it does not begin with the letters GGUF");
  }
  KVIST_TRY([[maybe_unused]] const uint32_t magic, cursor.Read<uint32_t>("the header"));
  KVIST_TRY(version, cursor.Read<uint32_t>("the header"));
  KVIST_TRY_VOID(CheckVersion(cursor, version));
  KVIST_TRY(const uint64_t num_tensors, cursor.Read<uint64_t>("the header"));
  KVIST_TRY(const uint64_t num_keys, cursor.Read<uint64_t>("the header"));
  KVIST_TRY_VOID(CheckCount(cursor, num_keys, kMinKeyBytes, "metadata keys"));
  KVIST_TRY_VOID(CheckCount(cursor, num_tensors, kMinTensorBytes, "tensors"));

  ValueReader reader(cursor);
  for (uint64_t i = 0; i < num_keys; ++i) {
    KVIST_TRY(const std::string_view key, cursor.ReadString("a metadata key"));
    if (key.empty()) return cursor.Corrupt("a metadata key is empty");
    KVIST_TRY(GgufValue value, reader.Read());
    if (!values.emplace(key, std::move(value)).second) {
      return cursor.Corrupt("metadata key " + Quoted(key) + " appears twice");
    }
  }

  std::vector<TensorEntry> entries;
  for (uint64_t i = 0; i < num_tensors; ++i) {
    KVIST_TRY(TensorEntry entry, ReadTensorEntry(cursor));
    if (entry.tensor.name.empty()) return cursor.Corrupt("a tensor has no name");
    if (!name_to_tensor.emplace(entry.tensor.name, i).second) {
      return cursor.Corrupt("tensor " + Quoted(entry.tensor.name) + " appears twice");
    }
    entries.push_back(std::move(entry));
  }

  uint64_t alignment = kDefaultAlignment;
  if (const auto it = values.find("general.alignment"); it != values.end()) {
    const auto* value = std::get_if<uint64_t>(&it->second);
    if (value == nullptr || !std::has_single_bit(*value) || *value < kMinAlignment ||
        *value > std::numeric_limits<uint32_t>::max()) {
      return cursor.Corrupt("general.alignment is not a power of two of at least " + Number(kMinAlignment));
    }
    alignment = *value;
  }
  const uint64_t data_begin = (cursor.offset() + alignment - 1) / alignment * alignment;
  tensors.reserve(entries.size());
  for (TensorEntry& entry : entries) {
    const std::string name = Quoted(entry.tensor.name);
    if (entry.offset % alignment != 0) return cursor.Corrupt("the data of tensor " + name + " are not aligned");
    const uint64_t max = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    if (entry.offset > max - data_begin || entry.num_bytes > max - data_begin - entry.offset) {
      return cursor.Corrupt("the offset of tensor " + name + " is absurd");
    }
    const uint64_t begin = data_begin + entry.offset;
    if (begin + entry.num_bytes > bytes.size()) return cursor.Truncated("tensor " + name, begin + entry.num_bytes);
    entry.tensor.data = bytes.subspan(begin, entry.num_bytes);
    tensors.push_back(std::move(entry.tensor));
  }
  return {};
}

Result<std::shared_ptr<const GgufFile>> GgufFile::Open(const std::string& path) {
  auto state = std::make_unique<State>();
  state->path = path;
  KVIST_TRY_VOID(state->Map());
  KVIST_TRY_VOID(state->Parse());
  return std::shared_ptr<const GgufFile>(new GgufFile(std::move(state)));
}

GgufFile::GgufFile(std::unique_ptr<State> state) : state_(std::move(state)) {}
GgufFile::~GgufFile() = default;

const std::string& GgufFile::path() const {
  return state_->path;
}
std::span<const std::byte> GgufFile::bytes() const {
  return state_->bytes;
}
uint32_t GgufFile::version() const {
  return state_->version;
}
std::span<const GgufTensor> GgufFile::tensors() const {
  return state_->tensors;
}

const GgufValue* GgufFile::Find(std::string_view key) const {
  const auto it = state_->values.find(key);
  return it == state_->values.end() ? nullptr : &it->second;
}

const GgufTensor* GgufFile::FindTensor(std::string_view name) const {
  const auto it = state_->name_to_tensor.find(name);
  return it == state_->name_to_tensor.end() ? nullptr : &state_->tensors[it->second];
}

namespace {

std::unexpected<Error> Absent(const GgufFile& file, std::string_view key) {
  return Fail(ErrorCode::kCorrupt, file.path() + " lacks the metadata key " + Quoted(key));
}

std::unexpected<Error> WrongKind(const GgufFile& file, std::string_view key, const char* wanted) {
  return Fail(ErrorCode::kCorrupt, file.path() + ": metadata key " + Quoted(key) + " is not " + wanted);
}

template <class T>
Result<T> As(const GgufFile& file, std::string_view key, const GgufValue& value, const char* wanted) {
  if (const T* found = std::get_if<T>(&value)) return *found;
  if constexpr (std::is_same_v<T, uint64_t>) {
    if (const auto* found = std::get_if<int64_t>(&value); found != nullptr && *found >= 0) {
      return static_cast<uint64_t>(*found);
    }
  }
  return WrongKind(file, key, wanted);
}

constexpr const char* kUintKind = "a non-negative integer";
constexpr const char* kFloatKind = "a floating-point number";
constexpr const char* kBoolKind = "a truth value";
constexpr const char* kStringKind = "a string";

template <class T>
Result<T> Get(const GgufFile& file, std::string_view key, const char* wanted) {
  const GgufValue* value = file.Find(key);
  return value == nullptr ? Absent(file, key) : As<T>(file, key, *value, wanted);
}

template <class T>
Result<T> Or(const GgufFile& file, std::string_view key, T otherwise, const char* wanted) {
  const GgufValue* value = file.Find(key);
  return value == nullptr ? otherwise : As<T>(file, key, *value, wanted);
}

}  // namespace

Result<uint64_t> GgufFile::GetUint(std::string_view key) const {
  return Get<uint64_t>(*this, key, kUintKind);
}
Result<double> GgufFile::GetFloat(std::string_view key) const {
  return Get<double>(*this, key, kFloatKind);
}
Result<std::string_view> GgufFile::GetString(std::string_view key) const {
  return Get<std::string_view>(*this, key, kStringKind);
}
Result<double> GgufFile::FloatOr(std::string_view key, double otherwise) const {
  return Or<double>(*this, key, otherwise, kFloatKind);
}
Result<bool> GgufFile::BoolOr(std::string_view key, bool otherwise) const {
  return Or<bool>(*this, key, otherwise, kBoolKind);
}
Result<std::string_view> GgufFile::StringOr(std::string_view key, std::string_view otherwise) const {
  return Or<std::string_view>(*this, key, otherwise, kStringKind);
}

}  // namespace kvist
