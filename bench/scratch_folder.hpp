#pragma once
// ScratchFolder: an empty folder on the disk that is measured, gone with all that is in it when it goes out of scope.
// Not thread-safe. Throws std::filesystem::filesystem_error when it cannot be made: there is nothing to measure then.

#include <stdlib.h>

#include <cerrno>
#include <filesystem>
#include <string>
#include <system_error>

namespace fulmar::bench {

class ScratchFolder {
 public:
  explicit ScratchFolder(const std::filesystem::path& parent) {
    std::filesystem::create_directories(parent);
    std::string name = (std::filesystem::absolute(parent) / "scratch.XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) {
      throw std::filesystem::filesystem_error("no scratch folder", name,
                                              std::error_code(errno, std::system_category()));
    }
    path_ = name;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace fulmar::bench
