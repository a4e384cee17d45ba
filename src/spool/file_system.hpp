#pragma once
// FileSystem: the files below the spool, as few calls as it needs, so that tests can drop what was not synced, tear a
// sector, fill the disk and fail a sync (simulated_file_system.hpp), and a user's machine can be stood in for.
//
// Thread-safety: PosixFileSystem from any thread; a File from one thread at a time.
// Errors: the value of errno. Nothing throws but std::bad_alloc.

#include <cstddef>
#include <cstdint>
#include <expected>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace fulmar::spool {

template <typename T>
using Io = std::expected<T, int>;

class File {
 public:
  File() = default;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  virtual ~File() = default;  // closes it

  // As many bytes as there are from `offset` on, up to the span's size; fewer only at the end of the file.
  virtual Io<std::size_t> read(std::uint64_t offset, std::span<std::byte> into) = 0;
  // May write fewer bytes than given, but at least one; see write_all().
  virtual Io<std::size_t> write(std::uint64_t offset, std::span<const std::byte> bytes) = 0;
  // What was written before is on the medium when this returned without an error. After an error nobody knows, and
  // asking again proves nothing: the kernel may have dropped the pages and say "done".
  virtual Io<void> sync_data() = 0;
  // Makes an empty file `size` bytes of zeros that have their place on the disk, so that writing into it cannot run out
  // of space (where the file system overwrites in place).
  virtual Io<void> allocate(std::uint64_t size) = 0;
  // Cuts the file, or makes it longer with zeros.
  virtual Io<void> resize(std::uint64_t size) = 0;
};

Io<void> write_all(File& file, std::uint64_t offset, std::span<const std::byte> bytes);

// Runs the steps until one fails, and gives what that one said. (g++ 12's std::expected has no and_then.)
template <typename... Steps>
Io<void> in_turn(Steps&&... steps) {
  Io<void> done;
  static_cast<void>(((done = steps(), done.has_value()) && ...));
  return done;
}

class FileSystem {
 public:
  enum class Mode : std::uint8_t {
    read,        // must exist
    read_write,  // must exist
    create,      // must not exist; read and write, readable by the user only
  };
  struct Item {
    std::string name;
    std::uint64_t size{};
  };
  // Held as long as it lives, and given back by the kernel however the process ends.
  class Lock {
   public:
    virtual ~Lock() = default;
  };
  struct LockRefused {
    int error{};            // EWOULDBLOCK: held by somebody else
    std::string held_by{};  // a process id, where known
  };
  using Path = std::filesystem::path;

  virtual ~FileSystem() = default;
  virtual Io<std::unique_ptr<File>> open(const Path& path, Mode mode) = 0;
  virtual Io<void> make_directories(const Path& path) = 0;        // those that exist are fine
  virtual Io<std::vector<Item>> list(const Path& directory) = 0;  // regular files, in no order
  virtual Io<void> rename(const Path& from, const Path& to) = 0;  // replaces `to`
  virtual Io<void> remove(const Path& path) = 0;
  virtual Io<void> sync_directory(const Path& directory) = 0;  // names are on the medium after this
  virtual std::expected<std::unique_ptr<Lock>, LockRefused> lock(const Path& path) = 0;
  // The kind of a file system whose locks and syncs cannot be trusted ("NFS"), else nothing.
  virtual std::optional<std::string> remote_kind(const Path& directory) = 0;
  virtual std::uint64_t random() = 0;  // 64 bits that nobody can guess
};

// The machine's own.
FileSystem& posix_file_system();

}  // namespace fulmar::spool
