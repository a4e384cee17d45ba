#include "spool/file_system.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "base/ulid.hpp"

namespace fulmar::spool {
namespace {

using Path = FileSystem::Path;

// Runs a system call again when a signal interrupted it.
template <typename Call>
auto uninterrupted(Call&& call) {
  for (;;) {
    const auto result = call();
    if (result != -1 || errno != EINTR) return result;
  }
}

Io<void> done(int result) {
  if (result == 0) return {};
  return std::unexpected(errno);
}

class PosixFile final : public File {
 public:
  explicit PosixFile(int descriptor) : descriptor_(descriptor) {}
  ~PosixFile() override { ::close(descriptor_); }

  Io<std::size_t> read(std::uint64_t offset, std::span<std::byte> into) override {
    std::size_t got = 0;
    while (got < into.size()) {
      const auto count = uninterrupted([&] {
        return ::pread(descriptor_, into.data() + got, into.size() - got, static_cast<off_t>(offset + got));
      });
      if (count < 0) return std::unexpected(errno);
      if (count == 0) break;
      got += static_cast<std::size_t>(count);
    }
    return got;
  }

  Io<std::size_t> write(std::uint64_t offset, std::span<const std::byte> bytes) override {
    const auto count = uninterrupted(
        [&] { return ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset)); });
    if (count < 0) return std::unexpected(errno);
    if (count == 0 && !bytes.empty()) return std::unexpected(EIO);
    return static_cast<std::size_t>(count);
  }

  // EINTR is passed on: whether a sync that was interrupted wrote everything is as unknown as after any other failure.
  Io<void> sync_data() override { return done(::fdatasync(descriptor_)); }

  Io<void> allocate(std::uint64_t size) override {
    const int error = ::posix_fallocate(descriptor_, 0, static_cast<off_t>(size));
    if (error && error != EOPNOTSUPP && error != EINVAL && error != EINTR) return std::unexpected(error);
    // Written for real: extents that are merely reserved cost a journal entry at every first write into them.
    static constexpr std::size_t block_size = 256 << 10;
    const std::vector<std::byte> zeros(static_cast<std::size_t>(std::min<std::uint64_t>(size, block_size)));
    for (std::uint64_t offset = 0; offset < size; offset += block_size) {
      const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(size - offset, block_size));
      if (auto written = write_all(*this, offset, {zeros.data(), count}); !written) return written;
    }
    return {};
  }

  Io<void> resize(std::uint64_t size) override {
    return done(uninterrupted([&] { return ::ftruncate(descriptor_, static_cast<off_t>(size)); }));
  }

 private:
  int descriptor_;
};

class PosixLock final : public FileSystem::Lock {
 public:
  explicit PosixLock(int descriptor) : descriptor_(descriptor) {}
  PosixLock(const PosixLock&) = delete;
  PosixLock& operator=(const PosixLock&) = delete;
  ~PosixLock() override { ::close(descriptor_); }

 private:
  int descriptor_;
};

class PosixFileSystem final : public FileSystem {
 public:
  Io<std::unique_ptr<File>> open(const Path& path, Mode mode) override {
    const int flags = mode == Mode::read     ? O_RDONLY
                      : mode == Mode::create ? O_RDWR | O_CREAT | O_EXCL
                                             : O_RDWR;
    const int descriptor =
        uninterrupted([&] { return ::open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, 0600); });
    if (descriptor < 0) return std::unexpected(errno);
    return std::make_unique<PosixFile>(descriptor);
  }

  Io<void> make_directories(const Path& path) override {
    Path made;
    for (const auto& part : path) {
      made /= part;
      if (::mkdir(made.c_str(), 0700) == 0 || errno == EEXIST || errno == EISDIR || errno == EROFS) continue;
      const int error = errno;
      struct stat status{};
      if (::stat(made.c_str(), &status) != 0 || !S_ISDIR(status.st_mode)) return std::unexpected(error);
    }
    struct stat status{};
    if (::stat(path.c_str(), &status) != 0) return std::unexpected(errno);
    if (!S_ISDIR(status.st_mode)) return std::unexpected(ENOTDIR);
    return {};
  }

  Io<std::vector<Item>> list(const Path& directory) override {
    const std::unique_ptr<DIR, int (*)(DIR*)> stream(::opendir(directory.c_str()), ::closedir);
    if (!stream) return std::unexpected(errno);
    std::vector<Item> items;
    for (;;) {
      errno = 0;
      const dirent* entry = ::readdir(stream.get());  // NOLINT(concurrency-mt-unsafe): a stream of our own
      if (!entry) break;
      struct stat status{};
      if (::fstatat(::dirfd(stream.get()), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
      if (S_ISREG(status.st_mode))
        items.push_back({entry->d_name, static_cast<std::uint64_t>(status.st_size)});
    }
    if (errno) return std::unexpected(errno);
    return items;
  }

  Io<void> rename(const Path& from, const Path& to) override {
    return done(::rename(from.c_str(), to.c_str()));
  }
  Io<void> remove(const Path& path) override { return done(::unlink(path.c_str())); }

  Io<void> sync_directory(const Path& directory) override {
    const int descriptor =
        uninterrupted([&] { return ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
    if (descriptor < 0) return std::unexpected(errno);
    const auto synced = done(::fsync(descriptor));
    ::close(descriptor);
    return synced;
  }

  std::expected<std::unique_ptr<Lock>, LockRefused> lock(const Path& path) override {
    const int descriptor =
        uninterrupted([&] { return ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600); });
    if (descriptor < 0) return std::unexpected(LockRefused{errno, {}});
    auto lock = std::make_unique<PosixLock>(descriptor);
    char text[24] = {};
    if (uninterrupted([&] { return ::flock(descriptor, LOCK_EX | LOCK_NB); }) != 0) {
      const int error = errno;
      const auto count = ::pread(descriptor, text, sizeof text - 1, 0);
      std::string held_by(text, count > 0 ? static_cast<std::size_t>(count) : 0);
      held_by.resize(std::min(held_by.size(), held_by.find_first_not_of("0123456789")));
      return std::unexpected(LockRefused{error, std::move(held_by)});
    }
    // The process id is there for people; a lock without it holds as well.
    const int length = std::snprintf(text, sizeof text, "%ld\n", static_cast<long>(::getpid()));
    if (::ftruncate(descriptor, 0) == 0 &&
        ::pwrite(descriptor, text, static_cast<std::size_t>(length), 0) < 0) {
    }
    return lock;
  }

  std::optional<std::string> remote_kind(const Path& directory) override {
    struct statfs status{};
    if (::statfs(directory.c_str(), &status) != 0) return std::nullopt;
    static constexpr std::pair<std::uint32_t, const char*> kinds[] = {
        {0x6969, "NFS"},      {0xff534d42, "CIFS"}, {0xfe534d42, "SMB2"},
        {0x517b, "SMB"},      {0x01021997, "9p"},   {0x65735546, "FUSE"},
        {0x00c36400, "Ceph"}, {0x5346414f, "AFS"},  {0x47504653, "GPFS"},
    };
    for (const auto& [magic, name] : kinds) {
      if (static_cast<std::uint32_t>(status.f_type) == magic) return name;
    }
    return std::nullopt;
  }

  std::uint64_t random() override { return random_bits(); }
};

}  // namespace

Io<void> write_all(File& file, std::uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto count = file.write(offset, bytes);
    if (!count) return std::unexpected(count.error());
    offset += *count;
    bytes = bytes.subspan(*count);
  }
  return {};
}

FileSystem& posix_file_system() {
  static PosixFileSystem file_system;
  return file_system;
}

}  // namespace fulmar::spool
