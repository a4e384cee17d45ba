#pragma once
// FileReplacement: a file that is there whole or not at all. What is written goes into a temporary file of its own in the
// same directory; commit() syncs it, gives it the name, and syncs the directory. Whoever dies on the way leaves the file
// as it was, and at most a temporary file, `.NAME.PROCESS-NUMBER.tmp`.
//
// Thread-safety: one owner. Errors: io_error, naming the file and what to do; already_exists.

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "fulmar/result.hpp"

namespace fulmar::queue {

// "PATH: cannot DO: REASON; ADVICE" from an errno.
Error file_error(const std::filesystem::path& path, std::string_view cannot, int error);

// The names in the file's directory are on the medium.
Result<void> sync_directory(const std::filesystem::path& path);

class FileReplacement {
 public:
  struct Commit {
    bool replace = true;         // false: already_exists when there is such a file
    bool sync_directory = true;  // else the name may be back at the old version after power loss
    std::optional<std::filesystem::path> backup{};  // keeps what was there before, by this name
  };

  // `like`: an open file whose mode and owner to take, or -1 for 0666 less the umask.
  static Result<FileReplacement> begin(const std::filesystem::path& path, int like = -1);
  ~FileReplacement();  // without commit(): removes what was written
  FileReplacement(FileReplacement&& other) noexcept;
  FileReplacement& operator=(FileReplacement&&) = delete;

  Result<void> write(std::string_view text);
  int descriptor() const { return descriptor_; }
  Result<void> sync();  // what was written is on the medium
  // Syncs, unless that was done since the last write(). On an error the file is as it was, unless only the last sync failed: then the message says so.
  Result<void> commit(const Commit& how);

  // Removes what processes left that died while they wrote. Only where nobody writes at the moment.
  static void remove_leftovers(const std::filesystem::path& path);

 private:
  FileReplacement(std::filesystem::path path, std::string temporary, int descriptor)
      : path_(std::move(path)), temporary_(std::move(temporary)), descriptor_(descriptor) {}

  std::filesystem::path path_;
  std::string temporary_;  // empty: there is none any more
  int descriptor_ = -1;
  bool synced_ = false;
};

}  // namespace fulmar::queue
