#pragma once
// TempDir: an empty directory of a test's own, removed with all its content when the test is over.

#include <filesystem>
#include <string>

namespace fulmar::test {

class TempDir {
 public:
  TempDir();  // throws std::system_error
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

}  // namespace fulmar::test
