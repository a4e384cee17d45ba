#include "queue/yaml_file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <thread>
#include <utility>
#include <vector>

#include "queue/yaml_replace.hpp"

namespace fulmar::queue {
namespace {

using namespace std::chrono_literals;
using Steady = std::chrono::steady_clock;

constexpr std::size_t sidecar_bytes = 512;  // always written whole, padded with spaces
constexpr auto settled_at_last = 2s;

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int operator*() const { return number_; }
  int release() { return std::exchange(number_, -1); }

 private:
  int number_;
};

std::int64_t nanoseconds(const timespec& time) {
  return time.tv_sec * std::int64_t{1'000'000'000} + time.tv_nsec;
}

FileVersion version_of(const struct stat& info) {
  return {info.st_dev, info.st_ino, static_cast<std::uint64_t>(info.st_size), nanoseconds(info.st_mtim),
          true};
}

// The first 100 characters of how this process was started.
std::string command_line() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::array<char, 100> bytes{};
  file.read(bytes.data(), bytes.size());
  std::string text(bytes.data(), static_cast<std::size_t>(file.gcount()));
  while (text.ends_with('\0')) text.pop_back();
  for (char& c : text) {
    if (c == '\0') c = ' ';
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f) c = '?';
  }
  return text.empty() ? "?" : text;
}

std::string version_line(const FileVersion& version) {
  if (!version.exists) return {};
  return "version " + std::to_string(version.device) + " " + std::to_string(version.inode) + " " +
         std::to_string(version.size) + " " + std::to_string(version.changed_ns) + "\n";
}

std::string read_sidecar(int descriptor) {
  std::string text(sidecar_bytes, '\0');
  const auto count = ::pread(descriptor, text.data(), text.size(), 0);
  text.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
  return text;
}

// The lines that begin with `word` and a space, without these.
std::vector<std::string> lines_of(std::string_view text, std::string_view word) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const auto end = text.find('\n');
    const auto line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.starts_with(word) && line.substr(word.size()).starts_with(' '))
      lines.emplace_back(line.substr(word.size() + 1));
  }
  return lines;
}

// What it says helps others, and is no condition: an error is no reason to fail.
void write_sidecar(int descriptor, const std::string& versions) {
  static const std::string command = command_line();
  std::string text = "holder " + std::to_string(::getpid()) + " " + command + "\n" + versions;
  text.resize(sidecar_bytes - 1, ' ');
  text += '\n';
  static_cast<void>(::pwrite(descriptor, text.data(), text.size(), 0) > 0);
}

std::string all_version_lines(int descriptor) {
  std::string text;
  for (const auto& line : lines_of(read_sidecar(descriptor), "version")) text += "version " + line + "\n";
  return text;
}

std::string seconds_text(std::chrono::milliseconds time) {
  char text[32];
  std::snprintf(text, sizeof text, "%g s", static_cast<double>(time.count()) / 1000);
  return text;
}

Result<std::string> read_whole(int descriptor, const std::filesystem::path& path, std::size_t size) {
  std::string text(size, '\0');
  std::size_t done = 0;
  while (done < size) {
    const auto count = ::pread(descriptor, text.data() + done, size - done, static_cast<off_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return std::unexpected(file_error(path, "read it", errno));
    if (count == 0) break;
    done += static_cast<std::size_t>(count);
  }
  text.resize(done);
  return text;
}

}  // namespace

YamlFile::YamlFile(std::filesystem::path path)
    : path_(std::move(path)), lock_path_(path_.string() + ".lock"), backup_path_(path_.string() + ".bak") {}

Result<YamlFile> YamlFile::at(const std::filesystem::path& path) {
  std::error_code error;
  auto target = std::filesystem::canonical(path, error);
  if (!error) {
    if (std::filesystem::is_directory(target))
      return std::unexpected(file_error(target, "be used as a queue", EISDIR));
    return YamlFile(std::move(target));
  }
  if (error != std::errc::no_such_file_or_directory || path.filename().empty() ||
      std::filesystem::is_symlink(path))
    return std::unexpected(file_error(path, "find it", error.value()));
  const auto parent = std::filesystem::canonical(path.has_parent_path() ? path.parent_path() : ".", error);
  if (error) return std::unexpected(file_error(path, "find its directory", error.value()));
  return YamlFile(parent / path.filename());
}

Result<FileVersion> YamlFile::version() const {
  struct stat info{};
  if (::stat(path_.c_str(), &info) == 0) return version_of(info);
  if (errno == ENOENT) return FileVersion{};
  return std::unexpected(file_error(path_, "look at it", errno));
}

bool YamlFile::written_by_program(const FileVersion& version) const {
  const Descriptor sidecar(::open(lock_path_.c_str(), O_RDONLY | O_CLOEXEC));
  if (*sidecar < 0 || version.size == 0) return false;
  return read_sidecar(*sidecar).find(version_line(version)) != std::string::npos;
}

Result<YamlFile::Content> YamlFile::read() const {
  const auto began = Steady::now();
  FileVersion last;
  auto unchanged_since = began;
  while (true) {
    const Descriptor file(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat info{};
    if (*file < 0 && errno == ENOENT) return Content{};
    if (*file < 0 || ::fstat(*file, &info) != 0) return std::unexpected(file_error(path_, "read it", errno));
    Content content;
    content.version = version_of(info);
    const auto now = Steady::now();
    if (content.version != last) unchanged_since = now;
    last = content.version;
    timespec wall{};
    ::clock_gettime(CLOCK_REALTIME, &wall);
    const auto age = std::chrono::nanoseconds(nanoseconds(wall) - content.version.changed_ns);
    content.by_program = written_by_program(content.version);
    const bool settled = content.by_program || age >= settling || now - unchanged_since >= settling ||
                         now - began >= settled_at_last;
    if (settled) {
      auto text = read_whole(*file, path_, content.version.size);
      if (!text) return std::unexpected(std::move(text.error()));
      content.text = std::move(*text);
      if (::fstat(*file, &info) == 0 && version_of(info) == content.version &&
          content.text.size() == content.version.size) {
        return content;
      }
      if (now - began >= settled_at_last) {
        return fail(Errc::io_error,
                    path_.string() + ": somebody writes into it all the time; let only one program do so");
      }
    }
    std::this_thread::sleep_for(5ms);
  }
}

// --- the lock ---------------------------------------------------------------------------------------------------------

YamlFile::Lock::Lock(Lock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
YamlFile::Lock::~Lock() {
  if (descriptor_ >= 0) ::close(descriptor_);  // and unlocks
}

Result<YamlFile::Lock> YamlFile::lock(std::chrono::milliseconds at_most) const {
  const auto deadline = Steady::now() + at_most;
  for (auto pause = 200us;;) {
    Descriptor sidecar(::open(lock_path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
    if (*sidecar < 0) return std::unexpected(file_error(lock_path_, "open the lock", errno));
    while (true) {
      if (::flock(*sidecar, LOCK_EX | LOCK_NB) == 0) break;
      if (errno != EWOULDBLOCK && errno != EINTR)
        return std::unexpected(file_error(lock_path_, "lock it", errno));
      const auto now = Steady::now();
      if (now >= deadline) {
        const auto holders = lines_of(read_sidecar(*sidecar), "holder");
        return fail(Errc::timeout, path_.string() + ": locked for " + seconds_text(at_most) + " by " +
                                       (holders.empty() ? std::string("a program that does not say its name")
                                                        : "process " + holders.front()) +
                                       " (" + lock_path_.filename().string() + "); end it, or wait longer");
      }
      std::this_thread::sleep_for(std::min<Steady::duration>(pause, deadline - now));
      pause = std::min(pause * 2, std::chrono::microseconds(5ms));
    }
    // A lock of a file that somebody removed is a lock that others do not see.
    struct stat held{}, named{};
    if (::fstat(*sidecar, &held) == 0 && ::stat(lock_path_.c_str(), &named) == 0 &&
        held.st_ino == named.st_ino && held.st_dev == named.st_dev) {
      write_sidecar(*sidecar, all_version_lines(*sidecar));
      return Lock(sidecar.release());
    }
    if (Steady::now() >= deadline) {
      return fail(Errc::timeout,
                  lock_path_.string() + ": somebody removes it all the time; leave it where it is");
    }
  }
}

// --- replacing --------------------------------------------------------------------------------------------------------

Result<bool> YamlFile::replace(const Lock& lock, const FileVersion& before, std::string_view text,
                               bool sync_directory, FileVersion& after) const {
  return exchange(lock, before, text, sync_directory, before.size > 0, after);
}

void YamlFile::remove_leftovers(const Lock&) const {
  FileReplacement::remove_leftovers(path_);
  FileReplacement::remove_leftovers(backup_path_);
}

Result<void> YamlFile::restore(const Lock& lock, std::string_view text, FileVersion& after) const {
  const auto before = version();
  if (!before) return std::unexpected(before.error());
  const auto done = exchange(lock, *before, text, true, false, after);
  if (!done) return std::unexpected(done.error());
  if (!*done) return fail(Errc::io_error, path_.string() + ": it was edited by hand meanwhile; try again");
  return {};
}

Result<bool> YamlFile::exchange(const Lock& lock, const FileVersion& before, std::string_view text,
                                bool sync_directory, bool keep_backup, FileVersion& after) const {
  const Descriptor old(before.exists ? ::open(path_.c_str(), O_RDONLY | O_CLOEXEC) : -1);
  auto replacement = FileReplacement::begin(path_, *old);
  if (!replacement) return std::unexpected(std::move(replacement.error()));
  if (auto ok = replacement->write(text); !ok) return std::unexpected(std::move(ok.error()));

  // The kernel's own times are some milliseconds coarse.
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  const auto changed = std::max(nanoseconds(now), before.changed_ns + 1);
  const timespec stamp{changed / 1'000'000'000, changed % 1'000'000'000};
  const timespec stamps[2] = {stamp, stamp};
  struct stat info{};
  if (::futimens(replacement->descriptor(), stamps) != 0 || ::fstat(replacement->descriptor(), &info) != 0)
    return std::unexpected(file_error(path_, "stamp the new version", errno));
  if (auto ok = replacement->sync(); !ok) return std::unexpected(std::move(ok.error()));

  const auto there = version();
  if (!there) return std::unexpected(there.error());
  if (*there != before) return false;
  after = version_of(info);
  write_sidecar(lock.descriptor_, version_line(after) + version_line(before));
  FileReplacement::Commit commit{.sync_directory = sync_directory};
  if (keep_backup) commit.backup = backup_path_;
  if (auto ok = replacement->commit(commit); !ok) return std::unexpected(std::move(ok.error()));
  // An editor that opened the old version in the last moment writes into what is the backup now: back with it.
  if (keep_backup && ::fstat(*old, &info) == 0 && version_of(info) != before) return !put_back(info.st_ino);
  return true;
}

bool YamlFile::put_back(std::uint64_t inode) const {
  struct stat info{};
  const auto again = path_.string() + ".bak.again";
  ::unlink(again.c_str());
  return ::link(backup_path_.c_str(), again.c_str()) == 0 && ::stat(again.c_str(), &info) == 0 &&
         info.st_ino == inode && ::rename(again.c_str(), path_.c_str()) == 0;
}

}  // namespace fulmar::queue
