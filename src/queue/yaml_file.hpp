#pragma once
// YamlFile: the file of a yaml: store on the disk: which version of it is there, its lock, and its replacement.
//
//   jobs.yaml        the queue; only ever replaced as a whole (yaml_replace.hpp)
//   jobs.yaml.lock   flock()ed by who changes the queue; never renamed, never removed. Says who holds it, and which versions
//                    of the queue programs wrote, so that an edit by hand is told apart:
//                      holder 4711 fulmar queue work yaml:jobs.yaml
//                      version 37 1048577 8190 1770372000123456789     (device, inode, size, time of change in ns)
//                      version ...                                     (the one before)
//   jobs.yaml.bak    the version before
//
// Invariants
//   1. What a program wrote is read at once; what was written by hand only after it stood still for `settling`, since editors
//      do not write at one stroke.
//   2. Two versions that programs wrote differ in inode or in time of change, which grows by at least 1 ns.
//
// Thread-safety: YamlFile from any thread; a Lock has one owner. Errors: io_error, timeout, not_found.

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>

#include "fulmar/result.hpp"

namespace fulmar::queue {

struct FileVersion {
  std::uint64_t device = 0, inode = 0, size = 0;
  std::int64_t changed_ns = 0;  // since 1970
  bool exists = false;
  bool operator==(const FileVersion&) const = default;
};

class YamlFile {
 public:
  static constexpr std::chrono::milliseconds settling{100};

  // The file that `path` leads to: links are followed, so that all who change it share a lock.
  static Result<YamlFile> at(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  const std::filesystem::path& lock_path() const { return lock_path_; }
  const std::filesystem::path& backup_path() const { return backup_path_; }

  Result<FileVersion> version() const;

  struct Content {
    std::string text{};
    FileVersion version{};    // exists = false: there is no file, and no text
    bool by_program = false;  // the text is what a program wrote, and nobody edited
  };
  // Waits for an edit by hand to end (invariant 1), at most 2 s; then it is as it is.
  Result<Content> read() const;

  // Exclusive among threads, processes and Locks, until it is destroyed.
  class Lock {
   public:
    ~Lock();
    Lock(Lock&& other) noexcept;
    Lock& operator=(Lock&&) = delete;

   private:
    friend class YamlFile;
    explicit Lock(int descriptor) : descriptor_(descriptor) {}
    int descriptor_;
  };
  // Errors: timeout, naming the holder.
  Result<Lock> lock(std::chrono::milliseconds at_most) const;

  // Replaces `before`, the version that was read, by `text`, and keeps it as the backup unless it was empty. False: `before`
  // is not there any more, somebody edited it; nothing was done.
  Result<bool> replace(const Lock& lock, const FileVersion& before, std::string_view text,
                       bool sync_directory, FileVersion& after) const;

  // Removes what processes left that died while they replaced it.
  void remove_leftovers(const Lock& lock) const;
  // Replaces whatever is there, and leaves the backup as it is.
  Result<void> restore(const Lock& lock, std::string_view text, FileVersion& after) const;

 private:
  explicit YamlFile(std::filesystem::path path);
  Result<bool> exchange(const Lock& lock, const FileVersion& before, std::string_view text,
                        bool sync_directory, bool keep_backup, FileVersion& after) const;
  bool put_back(std::uint64_t inode) const;  // the backup, if it is that file
  bool written_by_program(const FileVersion& version) const;

  std::filesystem::path path_, lock_path_, backup_path_;
};

}  // namespace fulmar::queue
