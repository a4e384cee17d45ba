#include "queue/yaml_replace.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

namespace fulmar::queue {
namespace {

std::filesystem::path directory_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

std::string temporary_prefix(const std::filesystem::path& path) {
  return (directory_of(path) / ("." + path.filename().string() + ".")).string();
}

std::string temporary_name(const std::filesystem::path& path) {
  static std::atomic<unsigned> number{0};
  return temporary_prefix(path) + std::to_string(::getpid()) + "-" + std::to_string(++number) + ".tmp";
}

std::string_view advice(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT: return "; nothing was changed: make room on the disk and try again";
    case EACCES:
    case EPERM: return "; change the permissions, or run as the user it belongs to";
    case EROFS: return "; the file system is mounted read-only";
    case ENOENT: return "; make its directory, or correct the path";
    case ENOTDIR: return "; correct the path";
    case EISDIR: return "; it is a directory: give the path of a file";
    case EMFILE:
    case ENFILE: return "; too many files are open: raise the limit (ulimit -n)";
    case EIO: return "; the disk fails: look at the kernel's log";
    default: return "";
  }
}

// Where a file system has no hard links.
Result<void> copy_whole(const std::filesystem::path& from, const std::filesystem::path& to) {
  const int source = ::open(from.c_str(), O_RDONLY | O_CLOEXEC);
  if (source < 0) return std::unexpected(file_error(from, "read it for the backup", errno));
  const auto copied = [&]() -> Result<void> {
    auto replacement = FileReplacement::begin(to, source);
    if (!replacement) return std::unexpected(std::move(replacement.error()));
    char buffer[65536];
    while (true) {
      const auto count = ::read(source, buffer, sizeof buffer);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return std::unexpected(file_error(from, "read it for the backup", errno));
      if (count == 0) break;
      if (auto ok = replacement->write({buffer, static_cast<std::size_t>(count)}); !ok) return ok;
    }
    return replacement->commit({.sync_directory = false});
  }();
  ::close(source);
  return copied;
}

// `path` under the name `backup` too, which is at every moment the one before or this one.
Result<void> keep(const std::filesystem::path& path, const std::filesystem::path& backup) {
  const auto temporary = temporary_name(backup);
  if (::link(path.c_str(), temporary.c_str()) != 0) {
    if (errno == ENOENT) return {};  // there is no version before
    return copy_whole(path, backup);
  }
  if (::rename(temporary.c_str(), backup.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    return std::unexpected(file_error(backup, "keep the version before", error));
  }
  ::unlink(temporary.c_str());  // rename() does nothing when both names are of one file
  return {};
}

}  // namespace

Error file_error(const std::filesystem::path& path, std::string_view cannot, int error) {
  std::string message = path.string();
  message.append(": cannot ").append(cannot).append(": ").append(std::strerror(error)).append(advice(error));
  return {Errc::io_error, std::move(message), {}};
}

Result<FileReplacement> FileReplacement::begin(const std::filesystem::path& path, int like) {
  auto temporary = temporary_name(path);
  const int descriptor = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor < 0) return std::unexpected(file_error(path, "write a new version beside it", errno));
  FileReplacement replacement(path, std::move(temporary), descriptor);
  struct stat old{};
  if (like >= 0 && ::fstat(like, &old) == 0) {
    // Only root can give a file to somebody else; for others the mode is what can be kept.
    if (old.st_uid != ::geteuid() || old.st_gid != ::getegid())
      static_cast<void>(::fchown(descriptor, old.st_uid, old.st_gid) == 0);
    if (::fchmod(descriptor, old.st_mode & 07777) != 0)
      return std::unexpected(file_error(path, "give the new version its mode", errno));
  }
  return replacement;
}

FileReplacement::FileReplacement(FileReplacement&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, {})),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

FileReplacement::~FileReplacement() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

Result<void> FileReplacement::write(std::string_view text) {
  synced_ = false;
  while (!text.empty()) {
    const auto count = ::write(descriptor_, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return std::unexpected(file_error(path_, "write a new version beside it", errno));
    text.remove_prefix(static_cast<std::size_t>(count));
  }
  return {};
}

Result<void> FileReplacement::sync() {
  if (!synced_ && ::fsync(descriptor_) != 0)
    return std::unexpected(file_error(path_, "sync the new version", errno));
  synced_ = true;
  return {};
}

Result<void> FileReplacement::commit(const Commit& how) {
  if (auto ok = sync(); !ok) return ok;
  if (how.backup) {
    if (auto ok = keep(path_, *how.backup); !ok) return ok;
  }
  if (how.replace) {
    if (::rename(temporary_.c_str(), path_.c_str()) != 0)
      return std::unexpected(file_error(path_, "put the new version in its place", errno));
    temporary_.clear();
  } else if (::link(temporary_.c_str(), path_.c_str()) != 0) {
    if (errno == EEXIST)
      return fail(Errc::already_exists,
                  path_.string() + " exists; give another name, or ask for it to be replaced");
    return std::unexpected(file_error(path_, "put the new version in its place", errno));
  }
  if (!how.sync_directory) return {};
  return sync_directory(path_);
}

Result<void> sync_directory(const std::filesystem::path& path) {
  const int directory = ::open(directory_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return std::unexpected(file_error(path, "open its directory to sync it", errno));
  const int error = ::fsync(directory) == 0 ? 0 : errno;
  ::close(directory);
  if (error == 0) return {};
  return std::unexpected(file_error(
      path, "sync its directory (the new version is in place, and may be gone after power loss)", error));
}

void FileReplacement::remove_leftovers(const std::filesystem::path& path) {
  const auto prefix = std::filesystem::path(temporary_prefix(path)).filename().string();
  std::error_code error;
  for (std::filesystem::directory_iterator at(directory_of(path), error), end; !error && at != end;
       at.increment(error)) {
    const auto name = at->path().filename().string();
    const std::string_view middle(name);
    if (!name.starts_with(prefix) || !name.ends_with(".tmp") || name.size() < prefix.size() + 7) continue;
    const auto number = middle.substr(prefix.size(), middle.size() - prefix.size() - 4);
    if (number.find_first_not_of("0123456789-") != std::string_view::npos) continue;
    std::error_code ignored;
    std::filesystem::remove(at->path(), ignored);
  }
}

}  // namespace fulmar::queue
