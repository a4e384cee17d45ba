// bench_spool: 128-byte entries onto the disk and back, spool::Log beside the barest loop over a file and SQLite's WAL, in
// the same run and on the same disk.
//   batch 256   entries are appended and synced 256 at a time: what is reported stored survives power loss
//   100 ms      appended one by one; synced every 100 ms or 64 KiB
//   drain       read from the cache, in order, checked and acknowledged
//   open        of the log that was filled: milliseconds until the first entry is read
// The bare loop writes the same bytes into a file that is full of zeros already: what the disk and the kernel leave.

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#ifdef FULMAR_BENCH_SQLITE
#include <sqlite3.h>
#endif

#include "columns.hpp"
#include "harness.hpp"
#include "probes.hpp"
#include "results.hpp"
#include "spool/log.hpp"

namespace fulmar::bench {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::size_t entry_bytes = 128;
constexpr std::size_t batch_entries = 256;
constexpr std::size_t sync_bytes = 64 << 10;
constexpr auto sync_interval = std::chrono::milliseconds(100);

using Item = std::array<std::byte, entry_bytes>;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

void require(bool holds, std::string_view what) {
  if (holds) return;
  fmt::print(stderr, "bench_spool: {}\n", what);
  std::exit(1);
}

// What a contestant can do; rates in entries a second.
struct Measured {
  std::optional<double> batched, by_interval, drain, open_ms;
};

class OwnLog {
 public:
  explicit OwnLog(const fs::path& directory) {
    options_.directory = directory, options_.bytes_max = std::uint64_t{4} << 30;
  }

  Measured measure(std::uint64_t batched, std::uint64_t interval) {
    Measured measured;
    open();
    const Item item{};
    const spool::Bytes part(item);
    auto begin = Clock::now();
    for (std::uint64_t i = 0; i < batched; ++i) {
      require(log_->append({1, 0, {&part, 1}}).has_value(), "append failed");
      if (i % batch_entries == batch_entries - 1) require(log_->sync().has_value(), "sync failed");
    }
    measured.batched = static_cast<double>(batched) / seconds_since(begin);

    begin = Clock::now();
    auto synced = begin;
    for (std::uint64_t i = 0; i < interval; ++i) {
      require(log_->append({1, 0, {&part, 1}}).has_value(), "append failed");
      if (log_->unsynced_bytes() < sync_bytes && (i % 64 || Clock::now() - synced < sync_interval)) continue;
      require(log_->sync().has_value(), "sync failed");
      synced = Clock::now();
    }
    require(log_->sync().has_value(), "sync failed");
    measured.by_interval = static_cast<double>(interval) / seconds_since(begin);

    log_.reset();
    begin = Clock::now();
    open();
    spool::ReadBatch batch;
    require(log_->read(batch, 1).has_value() && !batch.empty(), "nothing to read");
    measured.open_ms = seconds_since(begin) * 1e3;

    log_->rewind();
    std::uint64_t read = 0;
    begin = Clock::now();
    while (log_->read(batch, 1) && !batch.empty()) {
      for (const auto& entry : batch.entries()) log_->acknowledge(entry.sequence);
      read += batch.entries().size();
    }
    require(log_->save_cursor(true).has_value(), "the cursor cannot be saved");
    measured.drain = static_cast<double>(read) / seconds_since(begin);
    require(read == batched + interval, "entries are missing");
    return measured;
  }

 private:
  void open() {
    auto opened = spool::Log::open(spool::posix_file_system(), options_, 1);
    require(opened.has_value(), opened ? "" : opened.error().message);
    log_ = std::move(*opened);
  }

  spool::Options options_;
  std::unique_ptr<spool::Log> log_;
};

Measured measure_own(const fs::path& directory, std::uint64_t batched, std::uint64_t interval) {
  return OwnLog(directory).measure(batched, interval);
}

// The same bytes as ours, 160 an entry, over and over into 64 MiB.
Measured measure_bare(const fs::path& directory, std::uint64_t batched, std::uint64_t interval) {
  constexpr std::size_t size = std::size_t{64} << 20;
  constexpr std::size_t record = 160;
  const int file = ::open((directory / "bare").c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  require(file >= 0, "the bare file cannot be made");
  std::vector<std::byte> buffer(std::size_t{1} << 20);
  for (std::size_t at = 0; at < size; at += buffer.size()) {
    require(::pwrite(file, buffer.data(), buffer.size(), static_cast<off_t>(at)) > 0,
            "the bare file cannot be written");
  }
  ::fdatasync(file);
  const Item item{};
  std::size_t filled = 0, place = 0;
  const auto push = [&] {
    if (place + filled > size) place = 0;
    require(
        ::pwrite(file, buffer.data(), filled, static_cast<off_t>(place)) == static_cast<ssize_t>(filled) &&
            ::fdatasync(file) == 0,
        "the bare file cannot be synced");
    place += filled;
    filled = 0;
  };
  const auto run = [&](std::uint64_t entries, std::size_t enough) {
    const auto begin = Clock::now();
    for (std::uint64_t i = 0; i < entries; ++i) {
      std::memcpy(buffer.data() + filled, item.data(), item.size());
      filled += record;
      if (filled >= enough) push();
    }
    if (filled) push();
    return static_cast<double>(entries) / seconds_since(begin);
  };
  Measured measured;
  measured.batched = run(batched, batch_entries * record);
  measured.by_interval = run(interval, sync_bytes);
  ::close(file);
  return measured;
}

#ifdef FULMAR_BENCH_SQLITE
Measured measure_sqlite(const fs::path& directory, std::uint64_t batched, std::uint64_t interval) {
  sqlite3* db = nullptr;
  const auto execute = [&](const char* sql) {
    require(sqlite3_exec(db, sql, nullptr, nullptr, nullptr) == SQLITE_OK, sqlite3_errmsg(db));
  };
  require(sqlite3_open((directory / "sqlite.db").c_str(), &db) == SQLITE_OK, "SQLite cannot open its file");
  execute(
      "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
      "CREATE TABLE entry(id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT");
  sqlite3_stmt* insert = nullptr;
  sqlite3_prepare_v2(db, "INSERT INTO entry(body) VALUES(?)", -1, &insert, nullptr);
  const Item item{};
  const auto run = [&](std::uint64_t entries, std::size_t per_transaction) {
    const auto begin = Clock::now();
    for (std::uint64_t i = 0; i < entries; ++i) {
      if (i % per_transaction == 0) execute("BEGIN");
      sqlite3_bind_blob(insert, 1, item.data(), static_cast<int>(item.size()), SQLITE_STATIC);
      require(sqlite3_step(insert) == SQLITE_DONE, sqlite3_errmsg(db));
      sqlite3_reset(insert);
      if ((i + 1) % per_transaction == 0 || i + 1 == entries) execute("COMMIT");
    }
    return static_cast<double>(entries) / seconds_since(begin);
  };
  Measured measured;
  measured.batched = run(batched, batch_entries);
  measured.by_interval = run(interval, sync_bytes / 160);
  sqlite3_stmt* select = nullptr;
  sqlite3_prepare_v2(db, "SELECT id, body FROM entry ORDER BY id", -1, &select, nullptr);
  std::uint64_t read = 0;
  const auto begin = Clock::now();
  execute("BEGIN");
  while (sqlite3_step(select) == SQLITE_ROW)
    read += sqlite3_column_bytes(select, 1) == static_cast<int>(entry_bytes);
  sqlite3_reset(select);
  execute("DELETE FROM entry");
  execute("COMMIT");
  measured.drain = static_cast<double>(read) / seconds_since(begin);
  require(read == batched + interval, "SQLite: entries are missing");
  sqlite3_finalize(select);
  sqlite3_finalize(insert);
  sqlite3_close(db);
  return measured;
}
#endif

struct Contestant {
  std::string library;
  std::string version;
  std::function<Measured(const fs::path&, std::uint64_t, std::uint64_t)> measure;
};

int run(const fs::path& where, std::uint64_t entries, unsigned repetitions, bool quick,
        const std::string& json) {
  std::vector<Contestant> contestants{{std::string(ours), "spool::Log", measure_own},
                                      {"bare file", "pwrite", measure_bare}};
#ifdef FULMAR_BENCH_SQLITE
  contestants.push_back({"SQLite", sqlite3_libversion(), measure_sqlite});
#endif
  Results results{.suite = "spool",
                  .machine = machine(),
                  .measured = utc_now(),
                  .quick = quick,
                  .busy = busy_elsewhere(std::chrono::milliseconds(500))};
  static const std::array<Column, 4> columns{{{"batched", "batch 256, M/s", Better::more, 1e6},
                                              {"by_interval", "100 ms, M/s", Better::more, 1e6},
                                              {"drain", "drain, M/s", Better::more, 1e6},
                                              {"open_ms", "open, ms", Better::less}}};
  for (const auto& contestant : contestants) {
    results.rows.push_back(
        {.library = contestant.library, .version = contestant.version, .labels = {}, .figures = {}});
  }
  fmt::print(
      "{}\n{} B entries in {}, {} a run and policy, median of {} interleaved repetitions, below it min-max\n",
      results.machine, entry_bytes, where.string(), entries, repetitions);
  for (unsigned repetition = 0; repetition < repetitions; ++repetition) {
    for (std::size_t i = 0; i < contestants.size(); ++i) {
      const auto directory = where / fmt::format("bench_spool.{}", ::getpid());
      fs::create_directories(directory);
      const auto measured = contestants[i].measure(directory, entries, entries);
      std::error_code ignored;
      fs::remove_all(directory, ignored);
      auto& figures = results.rows[i].figures;
      if (measured.batched) figures["batched"].push_back(*measured.batched);
      if (measured.by_interval) figures["by_interval"].push_back(*measured.by_interval);
      if (measured.drain) figures["drain"].push_back(*measured.drain);
      if (measured.open_ms) figures["open_ms"].push_back(*measured.open_ms);
    }
  }
  fmt::print("\n{}", table(results.rows, columns));
  if (json.empty()) return 0;
  if (const auto written = write_json(json, results); !written) {
    fmt::print(stderr, "bench_spool: {}\n", written.error().message);
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace fulmar::bench

int main(int argc, char** argv) {
  std::uint64_t entries = 1'000'000;
  unsigned repetitions = 3;
  bool quick = false;
  std::string json, where = ".";
  CLI::App app{"bench_spool: 128-byte entries onto the disk and back, beside a bare file and SQLite"};
  app.add_option("--directory", where, "on the disk to be measured")
      ->check(CLI::ExistingDirectory)
      ->capture_default_str();
  app.add_option("--entries", entries, "entries a run and policy")
      ->check(CLI::Range(1000, 10'000'000))
      ->capture_default_str();
  app.add_option("--repetitions", repetitions, "repetitions")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--json", json, "where the figures go");
  app.add_flag("--quick", quick, "a tenth of the entries: a look, not a result");
  CLI11_PARSE(app, argc, argv);
  return fulmar::bench::run(where, quick ? entries / 10 : entries, repetitions, quick, json);
}
