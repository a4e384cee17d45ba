// The barest loop: as many bytes as ours writes (160 an entry) by pwrite and fdatasync, without checksum, name or bound.
// What the disk and the kernel leave to anybody. `recycled`: round and round in 64 MiB that were written before;
// `growing`: the file gets longer.

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "store.hpp"

namespace fulmar::bench {
namespace {

constexpr std::size_t record_bytes = 160;
constexpr std::size_t header_bytes = record_bytes - entry_bytes;
constexpr std::size_t ring_bytes = std::size_t{64} << 20;
constexpr std::size_t read_bytes = 1'638 * record_bytes;  // 256 KiB

class BareFileStore final : public Store {
 public:
  explicit BareFileStore(bool recycled) : recycled_(recycled) {}
  BareFileStore(const BareFileStore&) = delete;
  BareFileStore& operator=(const BareFileStore&) = delete;
  ~BareFileStore() override {
    if (file_ >= 0) ::close(file_);
  }

  Result<void> open(const std::filesystem::path& directory) override {
    file_ = ::open((directory / "bare").c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file_ < 0) return failed("open");
    if (!recycled_) return {};
    const std::vector<std::byte> zeros(std::size_t{1} << 20);
    for (std::size_t at = 0; at < ring_bytes; at += zeros.size()) {
      if (::pwrite(file_, zeros.data(), zeros.size(), static_cast<off_t>(at)) < 0) return failed("pwrite");
    }
    return ::fdatasync(file_) == 0 ? Result<void>{} : failed("fdatasync");
  }

  Result<void> append(std::size_t count, Reach reach) override {
    const auto from = buffer_.size();
    buffer_.resize(from + count * record_bytes);
    for (std::size_t i = 0; i < count; ++i) {
      const StoredEntry entry = numbered_entry(appended_++);
      std::memcpy(buffer_.data() + from + i * record_bytes + header_bytes, entry.data(), entry.size());
    }
    if (reach == Reach::gathered) return {};
    return push(reach == Reach::synced);
  }

  Result<void> sync() override { return push(true); }

  Result<std::size_t> drain(std::size_t count, Reach reach) override {
    std::size_t drained = 0;
    for (; drained < count; ++drained, read_at_ += record_bytes) {
      if (read_at_ == buffer_.size()) {
        buffer_.resize(std::min<std::size_t>(read_bytes, appended_ * record_bytes - read_from_));
        const auto got = ::pread(file_, buffer_.data(), buffer_.size(), static_cast<off_t>(read_from_));
        if (got < 0) return std::unexpected(failed("pread").error());
        buffer_.resize(static_cast<std::size_t>(got));
        read_from_ += static_cast<std::size_t>(got);
        read_at_ = 0;
        if (got == 0) break;
      }
      const auto entry = std::span(buffer_).subspan(read_at_ + header_bytes, entry_bytes);
      if (auto sound = check_entry(entry, drained_++); !sound) return std::unexpected(sound.error());
    }
    // Where it stands, behind the entries.
    if (::pwrite(file_, &drained_, sizeof drained_, static_cast<off_t>(appended_ * record_bytes)) < 0 ||
        (reach == Reach::synced && ::fdatasync(file_) != 0)) {
      return std::unexpected(failed("pwrite").error());
    }
    return drained;
  }

 private:
  static Result<void> failed(std::string_view call) {
    return fail(Errc::io_error, fmt::format("bare file: {}: {}", call, std::strerror(errno)));
  }

  Result<void> push(bool synced) {
    if (recycled_ && place_ + buffer_.size() > ring_bytes) place_ = 0;
    if (::pwrite(file_, buffer_.data(), buffer_.size(), static_cast<off_t>(place_)) !=
        static_cast<ssize_t>(buffer_.size())) {
      return failed("pwrite");
    }
    if (synced && ::fdatasync(file_) != 0) return failed("fdatasync");
    place_ += buffer_.size();
    buffer_.clear();
    return {};
  }

  const bool recycled_;
  int file_ = -1;
  std::vector<std::byte> buffer_;
  std::size_t place_ = 0;
  std::uint64_t appended_ = 0;
  std::size_t read_from_ = 0, read_at_ = 0;
  std::uint64_t drained_ = 0;
};

}  // namespace

StoreKind bare_file_store(bool recycled) {
  return {.library = "bare file",
          .files = recycled ? "recycled" : "growing",
          .make = recycled ? +[]() -> std::unique_ptr<Store> { return std::make_unique<BareFileStore>(true); }
          : +[]() -> std::unique_ptr<Store> { return std::make_unique<BareFileStore>(false); },
          .drains = !recycled};
}

}  // namespace fulmar::bench
