// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The Kvist authors
#include "cache/session_export.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <string_view>
#include <utility>

#include "cache/tier_store.h"
#include "tier/bytes.h"
#include "tier/folder.h"
#include "tier/segment.h"
#include "tier/session_file.h"

namespace kvist {
namespace {

constexpr std::string_view kExportMagic = "KVISTEXP";
constexpr uint32_t kExportVersion = 1;
constexpr uint64_t kExportFixedBytes = 40;  // of the head, before name and manifest
constexpr uint64_t kFrameBytes = 32;        // before a record's header
constexpr uint64_t kMaxNameBytes = 100;
constexpr uint64_t kMaxPayloadBytes = uint64_t{1} << 30;  // far more than any block has
constexpr uint64_t kBatchBytes = uint64_t{16} << 20;

struct Head {
  std::string name;
  std::vector<std::byte> manifest;
  uint64_t num_records = 0;
  uint64_t file_bytes = 0;
};

struct Record {
  RecordKey key;
  std::vector<std::byte> header, payload;
  uint64_t file_bytes() const { return kFrameBytes + header.size() + payload.size(); }
};

uint64_t HeadBytes(uint64_t name_bytes, uint64_t manifest_bytes) {
  return kExportFixedBytes + name_bytes + manifest_bytes + kChecksumBytes;
}

std::unexpected<Error> About(const std::string& what, Error error) {
  error.message = what + ": " + error.message;
  return std::unexpected(std::move(error));
}

Status Tell(const RecordProgress& progress, size_t done, size_t all) {
  if (!progress || progress(int64_t(done), int64_t(all))) return {};
  return Fail(ErrorCode::kCancelled, "interrupted");
}

// --- the file's bytes ---

std::vector<std::byte> EncodeHead(const Head& head) {
  ByteWriter writer;
  writer.Text(kExportMagic);
  writer.Number(kExportVersion);
  writer.Number(uint32_t(head.num_records));
  writer.Number(head.file_bytes);
  writer.Number(uint64_t(head.manifest.size()));
  writer.Number(uint32_t(head.name.size()));
  writer.Number(uint32_t{0});
  writer.Text(head.name);
  writer.Bytes(head.manifest);
  return std::move(writer).Seal();
}

// The bytes up to where the head's numbers say that it ends.
Result<std::vector<std::byte>> ReadHeadBytes(const File& file, uint64_t file_bytes) {
  std::vector<std::byte> bytes(std::min(file_bytes, kExportFixedBytes));
  KVIST_TRY_VOID(ReadAt(file, 0, bytes));
  if (!BeginsWith(bytes, kExportMagic)) return Corrupt("is not an exported session: it does not begin like one");
  ByteReader reader(std::span<const std::byte>(bytes).subspan(kExportMagic.size()));
  const auto version = reader.Number<uint32_t>();
  if (version > kExportVersion) {
    return Fail(ErrorCode::kUnsupported, "was exported by a newer kvist (format version " + std::to_string(version) +
                                             ", this one reads up to " + std::to_string(kExportVersion) + ")");
  }
  if (bytes.size() < kExportFixedBytes) return Corrupt("is truncated: it ends at byte " + std::to_string(file_bytes));
  if (version == 0) return Corrupt("is damaged: its head, at byte " + std::to_string(kExportMagic.size()));
  reader.Number<uint32_t>();
  reader.Number<uint64_t>();
  const auto manifest_bytes = reader.Number<uint64_t>();
  const auto name_bytes = reader.Number<uint32_t>();
  if (manifest_bytes > kMaxManifestBytes || name_bytes > kMaxNameBytes) {
    return Corrupt("is damaged: the sizes in its head, before byte " + std::to_string(kExportFixedBytes));
  }
  const uint64_t head_bytes = HeadBytes(name_bytes, manifest_bytes);
  if (head_bytes > file_bytes) {
    return Corrupt("is truncated or damaged: it ends at byte " + std::to_string(file_bytes) + ", its head at byte " +
                   std::to_string(head_bytes));
  }
  bytes.resize(head_bytes);
  KVIST_TRY_VOID(ReadAt(file, kExportFixedBytes, std::span(bytes).subspan(kExportFixedBytes)));
  return bytes;
}

Result<Head> ReadHead(const File& file, uint64_t file_bytes) {
  KVIST_TRY(const std::vector<std::byte> bytes, ReadHeadBytes(file, file_bytes));
  if (!IsSealed(bytes)) return Corrupt("is damaged: its head, before byte " + std::to_string(bytes.size()));
  ByteReader reader(std::span<const std::byte>(bytes).subspan(kExportMagic.size() + sizeof(uint32_t)));
  Head head;
  head.num_records = reader.Number<uint32_t>();
  head.file_bytes = reader.Number<uint64_t>();
  const auto manifest_bytes = reader.Number<uint64_t>();
  const auto name_bytes = reader.Number<uint32_t>();
  reader.Number<uint32_t>();
  const auto name = reader.Bytes(name_bytes);
  head.name.assign(reinterpret_cast<const char*>(name.data()), name.size());
  const auto manifest = reader.Bytes(manifest_bytes);
  head.manifest.assign(manifest.begin(), manifest.end());
  if (!IsSessionName(head.name)) return Corrupt("is damaged: the session's name, at byte 40");
  if (head.file_bytes == file_bytes) return head;
  return Corrupt((file_bytes < head.file_bytes ? "is truncated: it has " : "is damaged: it has ") +
                 std::to_string(file_bytes) + " bytes and should have " + std::to_string(head.file_bytes));
}

Status WriteRecord(const File& file, uint64_t offset, const Record& record) {
  ByteWriter frame;
  frame.Write(record.key);
  frame.Number(uint32_t(record.header.size()));
  frame.Number(uint32_t{0});
  frame.Number(uint64_t(record.payload.size()));
  KVIST_TRY_VOID(WriteAt(file, offset, frame.bytes()));
  KVIST_TRY_VOID(WriteAt(file, offset + kFrameBytes, record.header));
  return WriteAt(file, offset + kFrameBytes + record.header.size(), record.payload);
}

// Whether the record is what its key says, to the last bit.
Status CheckRecord(const Record& record) {
  KVIST_TRY(const RecordHeader header, DecodeHeader(record.header));
  if (TierStore::KeyOf(header.digest, header.group, header.is_sealed) != record.key) {
    return Corrupt("its header is of another record");
  }
  return VerifyParts(header, record.payload);
}

// The record at that byte, which ends before `end` and should have the key.
Result<Record> ReadRecord(const File& file, uint64_t offset, uint64_t end, const RecordKey& key) {
  if (end - offset < kFrameBytes) return Corrupt("the file ends before it");
  std::vector<std::byte> frame(kFrameBytes);
  KVIST_TRY_VOID(ReadAt(file, offset, frame));
  ByteReader reader(frame);
  Record record;
  record.key = reader.ReadKey();
  if (record.key != key) return Corrupt("its key is not the one that the manifest has there");
  const uint64_t header_bytes = reader.Number<uint32_t>();
  const auto reserved = reader.Number<uint32_t>();
  const auto payload_bytes = reader.Number<uint64_t>();
  if (reserved != 0 || header_bytes > kMaxHeaderBytes || payload_bytes > kMaxPayloadBytes ||
      header_bytes + payload_bytes > end - offset - kFrameBytes) {
    return Corrupt("its sizes can't be right");
  }
  record.header.resize(header_bytes);
  record.payload.resize(payload_bytes);
  KVIST_TRY_VOID(ReadAt(file, offset + kFrameBytes, record.header));
  KVIST_TRY_VOID(ReadAt(file, offset + kFrameBytes + header_bytes, record.payload));
  KVIST_TRY_VOID(CheckRecord(record));
  return record;
}

// Gives each record of an export to `take`, in order.
template <class Take>
Status ForEachRecord(const File& file, uint64_t offset, uint64_t end, std::span<const RecordKey> keys,
                     const RecordProgress& progress, Take take) {
  for (size_t i = 0; i < keys.size(); ++i) {
    auto record = ReadRecord(file, offset, end, keys[i]);
    if (!record) {
      const bool is_damage = record.error().code == ErrorCode::kCorrupt;
      const std::string where = "record " + std::to_string(i + 1) + " of " + std::to_string(keys.size()) +
                                " (at byte " + std::to_string(offset) + ")";
      return About((is_damage ? "is damaged: " : "can't be read: ") + where, std::move(record).error());
    }
    offset += record->file_bytes();
    KVIST_TRY_VOID(take(*std::move(record)));
    KVIST_TRY_VOID(Tell(progress, i + 1, keys.size()));
  }
  if (offset == end) return {};
  return Corrupt("is damaged: its last record ends at byte " + std::to_string(offset) + ", the file at byte " +
                 std::to_string(end));
}

// --- exporting ---

std::string FolderOf(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

// A file that is written under a name beside its own, and removed unless it gets its own.
class NewFile {
 public:
  static Result<NewFile> Make(const std::string& path) {
    NewFile made;
    made.path_ = path;
    made.temporary_path_ = FolderOf(path) + "/" + HexOf(RandomFileId()) + ".tmp";
    made.file_ = File(open(made.temporary_path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!made.file_.is_open()) return SystemFailure("can't write " + path);
    return made;
  }
  NewFile(NewFile&&) = default;
  ~NewFile() {
    if (file_.is_open()) unlink(temporary_path_.c_str());
  }
  const File& file() const { return file_; }
  // A failure of it, told by the name it is to have.
  Status OfFile(Status status) const {
    if (status) return status;
    return About("can't write " + path_, status.error());
  }
  Status MoveToItsPlace() {
    KVIST_TRY_VOID(OfFile(Sync(file_)));
    if (std::rename(temporary_path_.c_str(), path_.c_str()) != 0) return SystemFailure("can't write " + path_);
    file_ = File();
    KVIST_TRY(const File folder, OpenFolder(FolderOf(path_)));
    return Sync(folder);
  }

 private:
  NewFile() = default;
  std::string path_, temporary_path_;
  File file_;
};

Status CheckPlace(const std::string& path, bool replaces) {
  std::error_code ignored;
  const auto type = std::filesystem::status(path, ignored).type();
  if (type == std::filesystem::file_type::not_found || type == std::filesystem::file_type::none) return {};
  if (type != std::filesystem::file_type::regular) return Fail(ErrorCode::kInvalidArgument, path + " is not a file");
  if (!replaces) return Fail(ErrorCode::kFailedPrecondition, "the file " + path + " is there already");
  return {};
}

Result<Record> ReadStored(DiskTier& disk, const RecordKey& key) {
  const auto gone = [] { return Fail(ErrorCode::kNotFound, "it is not there any more"); };
  TierRead read{.key = key, .payload = {}, .header = {}};
  disk.Read({&read, 1});
  if (!read.is_hit) return gone();
  KVIST_TRY(const RecordHeader header, DecodeHeader(read.header));
  if (header.payload_bytes() > kMaxPayloadBytes) return Fail(ErrorCode::kUnsupported, "it has more than 1 GiB");
  Record record{.key = key, .header = {}, .payload = std::vector<std::byte>(header.payload_bytes())};
  read.payload = record.payload;
  disk.Read({&read, 1});
  if (!read.is_hit) return gone();
  record.header = std::move(read.header);
  KVIST_TRY_VOID(CheckRecord(record));
  return record;
}

// Records of a tier, written to one after the other.
class Batch {
 public:
  explicit Batch(DiskTier& disk) : keeper_(disk) {}
  Status Add(Record record) {
    bytes_ += record.file_bytes();
    records_.push_back(std::move(record));
    return bytes_ < kBatchBytes ? Status() : Write();
  }
  Status Write() {
    std::vector<TierWrite> writes;
    for (const Record& record : records_) writes.push_back({record.key, record.header, record.payload});
    const size_t num_written = keeper_.Write(writes);
    records_.clear();
    bytes_ = 0;
    if (num_written == writes.size()) return {};
    return Fail(ErrorCode::kIo, "the store could not take all records: it is full or can't be written to");
  }

 private:
  DiskTier::Keeper keeper_;
  std::vector<Record> records_;
  uint64_t bytes_ = 0;
};

}  // namespace

Result<SessionExport> ExportSession(DiskTier& disk, const std::string& name, const std::string& path,
                                    const ExportOptions& options) {
  Head head{.name = name, .manifest = {}};
  KVIST_TRY(head.manifest, disk.ReadSession(name));
  const auto manifest = DecodeManifest(head.manifest);
  if (!manifest) return About("session " + name, manifest.error());
  KVIST_TRY_VOID(CheckPlace(path, options.replaces));
  KVIST_TRY(NewFile file, NewFile::Make(path));
  head.num_records = manifest->keys.size();
  head.file_bytes = HeadBytes(name.size(), head.manifest.size());
  for (size_t i = 0; i < manifest->keys.size(); ++i) {
    const auto record = ReadStored(disk, manifest->keys[i]);
    if (!record) return About("session " + name + ": record " + RecordKeyName(manifest->keys[i]), record.error());
    KVIST_TRY_VOID(file.OfFile(WriteRecord(file.file(), head.file_bytes, *record)));
    head.file_bytes += record->file_bytes();
    KVIST_TRY_VOID(Tell(options.progress, i + 1, manifest->keys.size()));
  }
  KVIST_TRY_VOID(file.OfFile(WriteAt(file.file(), 0, EncodeHead(head))));
  KVIST_TRY_VOID(file.MoveToItsPlace());
  return SessionExport{name, head.num_records, head.file_bytes};
}

Result<SessionImport> SessionImport::Open(const std::string& path, const RecordProgress& progress) {
  SessionImport import;
  import.path_ = path;
  import.file_ = File(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));  // a pipe would wait for its other end
  if (!import.file_.is_open() && errno == ENOENT) return Fail(ErrorCode::kNotFound, "there is no file " + path);
  if (!import.file_.is_open()) return SystemFailure("can't open " + path);
  KVIST_TRY(const struct stat stat, StatOf(import.file_));
  if (!S_ISREG(stat.st_mode)) return Fail(ErrorCode::kInvalidArgument, path + " is not a file");
  auto head = ReadHead(import.file_, uint64_t(stat.st_size));
  if (!head) return About(path, std::move(head).error());
  auto manifest = DecodeManifest(head->manifest);
  if (!manifest) return About(path, std::move(manifest).error());
  if (manifest->keys.size() != head->num_records) {
    return About(path,
                 {ErrorCode::kCorrupt, "is damaged: it has " + std::to_string(head->num_records) +
                                           " records, its manifest names " + std::to_string(manifest->keys.size())});
  }
  import.first_record_offset_ = HeadBytes(head->name.size(), head->manifest.size());
  import.facts_ = {head->name, head->num_records, head->file_bytes};
  import.manifest_bytes_ = std::move(head->manifest);
  import.manifest_ = *std::move(manifest);
  const Status verified = ForEachRecord(import.file_, import.first_record_offset_, import.facts_.file_bytes,
                                        import.manifest_.keys, progress, [](const Record&) -> Status { return {}; });
  if (!verified) return About(path, verified.error());
  return import;
}

Status SessionImport::StoreIn(DiskTier& disk, const Options& options) const {
  const std::string& name = options.name.empty() ? facts_.name : options.name;
  const auto earlier = disk.ReadSession(name);
  if (!earlier && earlier.error().code == ErrorCode::kInvalidArgument) return std::unexpected(earlier.error());
  const bool is_there = earlier || earlier.error().code != ErrorCode::kNotFound;
  if (is_there && !options.replaces) {
    return Fail(ErrorCode::kFailedPrecondition, "there is a session " + name + " already");
  }
  Batch batch(disk);
  const Status stored = ForEachRecord(file_, first_record_offset_, facts_.file_bytes, manifest_.keys, options.progress,
                                      [&](Record record) { return batch.Add(std::move(record)); });
  if (!stored) return About(path_, stored.error());
  KVIST_TRY_VOID(batch.Write());
  return disk.SaveSession(name, manifest_bytes_, manifest_.keys);
}

}  // namespace kvist
