// spool::Log, the log below the client's spool, in its usual segments. `growing`: nothing is acknowledged meanwhile, as
// during an outage, so every segment is a new file. `recycled`: what is stored is acknowledged at once, so that the files
// go round.

#include <fmt/format.h>

#include "spool/log.hpp"
#include "store.hpp"

namespace fulmar::bench {
namespace {

class OwnStore final : public Store {
 public:
  explicit OwnStore(bool recycled) : recycled_(recycled) {}

  Result<void> open(const std::filesystem::path& directory) override {
    spool::Options options;
    options.directory = directory;
    options.bytes_max = std::uint64_t{recycled_ ? 1u : 8u} << 30;
    options.segment_bytes = 4 << 20;
    auto opened = spool::Log::open(spool::posix_file_system(), options, 1);
    if (!opened) return std::unexpected(opened.error());
    log_ = std::move(*opened);
    return {};
  }

  Result<void> append(std::size_t count, Reach reach) override {
    for (std::size_t i = 0; i < count; ++i) {
      const StoredEntry entry = numbered_entry(log_->appended());
      const spool::Bytes part(entry);
      if (const auto appended = log_->append({1, 0, {&part, 1}}); !appended) {
        return fail(Errc::io_error, fmt::format("append: {}", to_string(appended.error())));
      }
    }
    if (reach == Reach::gathered) return {};
    auto kept = reach == Reach::synced ? log_->sync() : log_->write();
    acknowledge_all();
    return kept;
  }

  Result<void> sync() override {
    auto synced = log_->sync();
    acknowledge_all();
    return synced;
  }

  Result<std::size_t> drain(std::size_t count, Reach reach) override {
    std::size_t drained = 0;
    for (; drained < count; ++drained) {
      if (at_ == batch_.entries().size()) {
        at_ = 0;
        if (auto read = log_->read(batch_, 1); !read) return std::unexpected(read.error());
        if (batch_.empty()) break;
      }
      const auto& entry = batch_.entries()[at_++];
      if (auto sound = check_entry(entry.bytes, drained_++); !sound) return std::unexpected(sound.error());
      log_->acknowledge(entry.sequence);
    }
    if (auto saved = log_->save_cursor(reach == Reach::synced); !saved) return std::unexpected(saved.error());
    return drained;
  }

 private:
  void acknowledge_all() {
    while (recycled_ && acknowledged_ < log_->appended()) log_->acknowledge(++acknowledged_);
  }

  const bool recycled_;
  std::unique_ptr<spool::Log> log_;
  spool::Sequence acknowledged_ = 0;
  spool::ReadBatch batch_;
  std::size_t at_ = 0;
  std::uint64_t drained_ = 0;
};

}  // namespace

StoreKind own_store(bool recycled) {
  return {.library = "fulmar",
          .version = FULMAR_VERSION,
          .files = recycled ? "recycled" : "growing",
          .make = recycled ? +[]() -> std::unique_ptr<Store> { return std::make_unique<OwnStore>(true); }
                           : +[]() -> std::unique_ptr<Store> { return std::make_unique<OwnStore>(false); },
          .drains = !recycled};
}

}  // namespace fulmar::bench
