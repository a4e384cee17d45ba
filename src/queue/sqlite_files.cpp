#include "queue/sqlite_files.hpp"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <string_view>
#include <system_error>

namespace fulmar::queue {
namespace {

namespace fs = std::filesystem;

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

fs::path mark_of(const fs::path& path) {
  fs::path mark = path;
  mark += "-damaged";
  return mark;
}

// A damaged queue is moved out of the way: nothing else must be.
bool may_be_a_queue(const fs::path& path) {
  constexpr std::string_view magic("SQLite format 3\0", 16);
  std::error_code error;
  if (fs::exists(path.string() + "-lock", error)) return true;
  std::array<char, magic.size()> begin{};
  std::ifstream file(path, std::ios::binary);
  file.read(begin.data(), begin.size());
  const auto size = static_cast<std::size_t>(file.gcount());
  return size == 0 || std::string_view(begin.data(), size) == magic;
}

constexpr std::int64_t cifs_magic = 0xFF534D42;
constexpr std::int64_t smb2_magic = 0xFE534D42;
constexpr std::int64_t fuse_magic = 0x65735546;

}  // namespace

std::optional<fs::path> path_of_sqlite_url(std::string_view url) {
  constexpr std::string_view scheme = "sqlite:";
  if (!url.starts_with(scheme)) return std::nullopt;
  url.remove_prefix(scheme.size());
  if (url.starts_with("//")) url.remove_prefix(2);
  if (url.empty()) return std::nullopt;
  return fs::path(url);
}

Result<void> check_place(const fs::path& path, const RepositoryOptions& options) {
  const auto folder = folder_of(path);
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    return fail(Errc::io_error,
                path.string() + ": there is no folder " + folder.string() + "; make it first");
  }
  const bool there = fs::exists(path, error);
  if (!there && (!options.create || options.read_only)) {
    return fail(Errc::not_found,
                path.string() + ": there is no such queue file; correct the path, or create it");
  }
  if (fs::is_directory(path, error))
    return fail(Errc::io_error, path.string() + ": is a folder, not a queue file");
  if (::access(folder.c_str(), W_OK) != 0 ||
      (there && !options.read_only && ::access(path.c_str(), W_OK) != 0)) {
    return fail(Errc::io_error,
                path.string() + ": cannot be written, nor files beside it (" +
                    std::error_code(errno, std::system_category()).message() +
                    "), which reading needs too; change the permissions, or choose another place");
  }
  if (there && !may_be_a_queue(path)) {
    return fail(Errc::incompatible,
                path.string() + ": is no database, and no queue was ever here; choose another file");
  }
  struct statfs file_system{};
  if (!options.allow_network_file_system && ::statfs(folder.c_str(), &file_system) == 0) {
    const auto type = static_cast<std::int64_t>(file_system.f_type) & 0xFFFFFFFF;
    const std::int64_t refused[] = {NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, cifs_magic,
                                    smb2_magic,      V9FS_MAGIC,      fuse_magic};
    if (std::ranges::find(refused, type) != std::end(refused)) {
      return fail(Errc::io_error,
                  path.string() +
                      ": is on a network file system, whose locks may fail; use a local disk or "
                      "postgresql://, or allow_network_file_system if you are sure");
    }
  }
  return {};
}

void sync_folder_of(const fs::path& path) {
  const int fd = ::open(folder_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

void mark_damage(const fs::path& path) { std::ofstream(mark_of(path)) << "see " << path.string() << "\n"; }

bool has_damage_mark(const fs::path& path) {
  std::error_code error;
  return fs::exists(mark_of(path), error);
}

void clear_damage_mark(const fs::path& path) {
  std::error_code error;
  fs::remove(mark_of(path), error);
}

}  // namespace fulmar::queue
