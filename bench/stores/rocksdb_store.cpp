// RocksDB as a queue: keys that count up, one write batch for each append, its write-ahead log recycled and synced as asked;
// `gathered` leaves the log in RocksDB's buffer (manual flush). Drained by an iterator; each batch is deleted key by key.

#include <fmt/format.h>
#include <rocksdb/c.h>
#include <rocksdb/version.h>

#include <bit>
#include <cstring>

#include "store.hpp"

namespace fulmar::bench {
namespace {

std::array<char, 8> key_of(std::uint64_t number) {
  if constexpr (std::endian::native == std::endian::little) number = __builtin_bswap64(number);
  std::array<char, 8> key{};
  std::memcpy(key.data(), &number, sizeof number);
  return key;
}

class RocksdbStore final : public Store {
 public:
  RocksdbStore() = default;
  RocksdbStore(const RocksdbStore&) = delete;
  RocksdbStore& operator=(const RocksdbStore&) = delete;
  ~RocksdbStore() override {
    if (iterator_) rocksdb_iter_destroy(iterator_);
    if (db_) rocksdb_close(db_);
    rocksdb_writebatch_destroy(batch_);
    rocksdb_readoptions_destroy(reading_);
    rocksdb_writeoptions_destroy(writing_);
    rocksdb_options_destroy(options_);
  }

  Result<void> open(const std::filesystem::path& directory) override {
    rocksdb_options_set_create_if_missing(options_, 1);
    rocksdb_options_set_recycle_log_file_num(options_, 4);
    rocksdb_options_set_manual_wal_flush(options_, 1);
    rocksdb_options_set_compression(options_, rocksdb_no_compression);
    char* error = nullptr;
    db_ = rocksdb_open(options_, (directory / "rocksdb").c_str(), &error);
    return outcome(error);
  }

  Result<void> append(std::size_t count, Reach reach) override {
    for (std::size_t i = 0; i < count; ++i) {
      const auto key = key_of(appended_);
      const StoredEntry entry = numbered_entry(appended_++);
      rocksdb_writebatch_put(batch_, key.data(), key.size(), reinterpret_cast<const char*>(entry.data()),
                             entry.size());
    }
    return write(reach);
  }

  Result<void> sync() override { return flush(true); }

  Result<std::size_t> drain(std::size_t count, Reach reach) override {
    if (!iterator_) {
      iterator_ = rocksdb_create_iterator(db_, reading_);
      rocksdb_iter_seek_to_first(iterator_);
    }
    std::size_t drained = 0;
    for (; drained < count && rocksdb_iter_valid(iterator_); ++drained, rocksdb_iter_next(iterator_)) {
      std::size_t size = 0;
      const char* value = rocksdb_iter_value(iterator_, &size);
      const auto key = key_of(drained_);
      if (auto sound = check_entry({reinterpret_cast<const std::byte*>(value), size}, drained_++); !sound) {
        return std::unexpected(sound.error());
      }
      rocksdb_writebatch_delete(batch_, key.data(), key.size());
    }
    if (auto written = write(reach); !written) return std::unexpected(written.error());
    return drained;
  }

 private:
  static Result<void> outcome(char* error) {
    if (!error) return {};
    auto failure = fail(Errc::io_error, fmt::format("RocksDB: {}", error));
    rocksdb_free(error);
    return failure;
  }

  Result<void> write(Reach reach) {
    char* error = nullptr;
    rocksdb_write(db_, writing_, batch_, &error);
    rocksdb_writebatch_clear(batch_);
    if (error || reach == Reach::gathered) return outcome(error);
    return flush(reach == Reach::synced);
  }

  Result<void> flush(bool synced) {
    char* error = nullptr;
    rocksdb_flush_wal(db_, synced ? 1 : 0, &error);
    return outcome(error);
  }

  rocksdb_options_t* options_ = rocksdb_options_create();
  rocksdb_writeoptions_t* writing_ = rocksdb_writeoptions_create();
  rocksdb_readoptions_t* reading_ = rocksdb_readoptions_create();
  rocksdb_writebatch_t* batch_ = rocksdb_writebatch_create();
  rocksdb_t* db_ = nullptr;
  rocksdb_iterator_t* iterator_ = nullptr;
  std::uint64_t appended_ = 0, drained_ = 0;
};

}  // namespace

StoreKind rocksdb_store() {
  return {.library = "RocksDB WAL",
          .version = fmt::format("{}.{}.{}", ROCKSDB_MAJOR, ROCKSDB_MINOR, ROCKSDB_PATCH),
          .make = []() -> std::unique_ptr<Store> { return std::make_unique<RocksdbStore>(); }};
}

}  // namespace fulmar::bench
