// Entries of 128 bytes onto the disk and back: ours beside a bare loop over a file, SQLite, RocksDB and Paho C's files, in
// the same run and on the same disk (the folder of the figures).
//
//   append  by the batch (how many come at a time) and by what is waited for:
//             none      each batch is in the kernel before the next
//             100 ms    batches gather; synced every 100 ms or 64 KiB
//             batch     each batch is on the medium before the next
//   drain   by the batch: read from the cache in order, checked, and what was taken is remembered as gone (none: in the
//           kernel; batch: on the medium) before the next
//   open    of ours with 1 GiB that waits: until the first entry is read, and the memory that it takes; with the files in
//           the cache, and with none of it

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "columns.hpp"
#include "probes.hpp"
#include "scratch_folder.hpp"
#include "spool/log.hpp"
#include "stores/store.hpp"
#include "suite.hpp"

namespace fulmar::bench {
namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;

constexpr std::size_t gathered_bytes_max = 64 << 10;
constexpr auto gathered_time_max = std::chrono::milliseconds(100);
constexpr std::size_t record_bytes = 160;  // an entry in our log
constexpr std::uint64_t backlog_bytes = std::uint64_t{1} << 30;

double seconds_since(steady_clock::time_point begin) {
  return std::chrono::duration<double>(steady_clock::now() - begin).count();
}

// --- the child's half

Result<std::unique_ptr<Store>> open_store(const Parameters& parameters) {
  for (const auto& kind : store_kinds()) {
    if (kind.library != parameters.text("library") || kind.files != parameters.text("files")) continue;
    auto store = kind.make();
    if (auto opened = store->open(parameters.text("folder")); !opened) return std::unexpected(opened.error());
    return store;
  }
  return fail(Errc::invalid_config,
              fmt::format("{}: no such store in this build", parameters.text("library")));
}

Result<ChildReport> append_scenario(const Parameters& parameters) {
  auto opened = open_store(parameters);
  if (!opened) return std::unexpected(opened.error());
  Store& store = **opened;
  const auto batch = parameters.number<std::size_t>("batch");
  const auto sync = parameters.text("sync");
  const auto reach = sync == "none"    ? Store::Reach::written
                     : sync == "batch" ? Store::Reach::synced
                                       : Store::Reach::gathered;
  const auto entries_max = parameters.number<std::uint64_t>("entries");
  const double seconds = parameters.number<double>("seconds");

  std::uint64_t appended = 0;
  std::size_t gathered = 0;
  // The first part is not counted: caches, files and the disk's own buffers settle.
  std::uint64_t counted_from = 0;
  auto begin = steady_clock::now();
  bool counting = false;
  auto synced = begin;
  for (std::uint64_t turn = 0;; ++turn) {
    const bool look = batch >= 64 || turn % 16 == 0;  // at the clock
    if (look || appended >= entries_max) {
      const auto elapsed = seconds_since(begin);
      if (!counting && elapsed >= seconds / 4) {
        counting = true;
        counted_from = appended;
        begin = steady_clock::now();
      } else if (counting && (elapsed >= seconds || appended >= entries_max)) {
        break;
      }
    }
    if (auto done = store.append(batch, reach); !done) return std::unexpected(done.error());
    appended += batch;
    if (reach != Store::Reach::gathered) continue;
    gathered += batch * record_bytes;
    const bool due =
        gathered >= gathered_bytes_max || (look && steady_clock::now() - synced >= gathered_time_max);
    if (!due) continue;
    if (auto done = store.sync(); !done) return std::unexpected(done.error());
    synced = steady_clock::now();
    gathered = 0;
  }
  if (reach == Store::Reach::gathered) {
    if (auto done = store.sync(); !done) return std::unexpected(done.error());
  }
  const auto rate = static_cast<double>(appended - counted_from) / seconds_since(begin);
  return ChildReport{.figures = {{"entries_per_s", rate}, {"entries", static_cast<double>(appended)}}};
}

Result<ChildReport> drain_scenario(const Parameters& parameters) {
  auto opened = open_store(parameters);
  if (!opened) return std::unexpected(opened.error());
  Store& store = **opened;
  const auto entries = parameters.number<std::uint64_t>("entries");
  for (std::uint64_t i = 0; i < entries; i += 4096) {
    if (auto done = store.append(std::min<std::uint64_t>(4096, entries - i), Store::Reach::written); !done) {
      return std::unexpected(done.error());
    }
  }
  if (auto done = store.sync(); !done) return std::unexpected(done.error());
  const auto batch = parameters.number<std::size_t>("batch");
  const auto reach = parameters.text("sync") == "batch" ? Store::Reach::synced : Store::Reach::written;
  const double seconds = parameters.number<double>("seconds");
  std::uint64_t drained = 0;
  const auto begin = steady_clock::now();
  while (drained < entries && (drained % 1024 != 0 || seconds_since(begin) < seconds)) {
    const auto one = store.drain(batch, reach);
    if (!one) return std::unexpected(one.error());
    if (*one == 0)
      return fail(Errc::io_error, fmt::format("entries after {} of {} are missing", drained, entries));
    drained += *one;
  }
  const auto rate = static_cast<double>(drained) / seconds_since(begin);
  return ChildReport{.figures = {{"entries_per_s", rate}, {"entries", static_cast<double>(drained)}}};
}

spool::Options backlog_options(const Parameters& parameters) {
  spool::Options options;
  options.directory = parameters.text("folder");
  options.bytes_max = 2 * backlog_bytes;
  return options;
}

Result<ChildReport> backlog_scenario(const Parameters& parameters) {
  auto log = spool::Log::open(spool::posix_file_system(), backlog_options(parameters), 1);
  if (!log) return std::unexpected(log.error());
  const StoredEntry entry = numbered_entry(0);
  const spool::Bytes part(entry);
  const auto entries = parameters.number<std::uint64_t>("entries");
  for (std::uint64_t i = 0; i < entries; ++i) {
    if (const auto appended = (*log)->append({1, 0, {&part, 1}}); !appended) {
      return fail(Errc::io_error, fmt::format("append: {}", to_string(appended.error())));
    }
  }
  if (auto synced = (*log)->sync(); !synced) return std::unexpected(synced.error());
  return ChildReport{.figures = {{"entries", static_cast<double>(entries)}}};
}

// What the kernel has of the folder's files in memory is dropped; they are synced.
void drop_cached(const fs::path& folder) {
  for (const auto& item : fs::directory_iterator(folder)) {
    const int file = ::open(item.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) continue;
    ::fdatasync(file);
    ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    ::close(file);
  }
}

Result<ChildReport> open_scenario(const Parameters& parameters) {
  const auto options = backlog_options(parameters);
  if (parameters.text("cache") == "cold") drop_cached(options.directory);
  const auto before = memory_now();
  const auto begin = steady_clock::now();
  auto log = spool::Log::open(spool::posix_file_system(), options, 1);
  if (!log) return std::unexpected(log.error());
  spool::ReadBatch batch;
  if (auto read = (*log)->read(batch, 1); !read) return std::unexpected(read.error());
  const double ms = seconds_since(begin) * 1e3;
  if (batch.empty()) return fail(Errc::io_error, "nothing to read");
  const auto after = memory_now();
  return ChildReport{.figures = {{"open_ms", ms},
                                 {"rss_bytes", after.rss_bytes - before.rss_bytes},
                                 {"waiting_bytes", static_cast<double>((*log)->stats().bytes)}}};
}

// --- the parent's half

struct Case {
  std::string_view scenario;
  std::string_view title;
  std::string_view sync;
};

constexpr std::array<Case, 5> cases{{{"spool_append", "append, not synced", "none"},
                                     {"spool_append", "append, synced every 100 ms or 64 KiB", "100 ms"},
                                     {"spool_append", "append, each batch synced", "batch"},
                                     {"spool_drain", "drain", "none"},
                                     {"spool_drain", "drain, each batch synced", "batch"}}};
constexpr std::array<unsigned, 4> batches{1, 64, 256, 4096};

bool can(const StoreKind& kind, const Case& one) {
  if (kind.make == nullptr || (one.sync != "none" && !kind.syncs)) return false;
  return one.scenario == "spool_append" || kind.drains;
}

std::uint64_t entries_max(const StoreKind& kind, const Case& one, bool quick) {
  if (kind.library.starts_with("paho")) return 20'000;  // files
  if (one.scenario == "spool_drain") return quick ? 100'000 : 500'000;
  return 4'000'000;  // 640 MB of ours
}

bool chosen(const Bench& bench, const StoreKind& kind) {
  const auto& only = bench.options.only;
  return only.empty() || std::ranges::find(only, kind.library) != only.end();
}

void rates(Bench& bench, Results& results, const std::vector<StoreKind>& kinds) {
  const auto& options = bench.options;
  for (const auto& one : cases) {
    const std::string what = one.scenario == "spool_append" ? "append" : "drain";
    for (const unsigned batch : batches) {
      if (options.quick && batch != 256) continue;
      std::vector<const StoreKind*> contestants;
      std::vector<Row> rows;
      for (const auto& kind : kinds) {
        if (!can(kind, one) || !chosen(bench, kind)) continue;
        contestants.push_back(&kind);
        auto& row = rows.emplace_back(
            Row{.library = kind.library,
                .version = kind.version,
                .labels = {{"what", what}, {"sync", std::string(one.sync)}, {"batch", std::to_string(batch)}},
                .figures = {}});
        if (!kind.files.empty()) row.labels.emplace_back("files", kind.files);
      }
      for (unsigned repetition = 0; repetition < options.repetitions_or(3, 1); ++repetition) {
        for (std::size_t i = 0; i < contestants.size(); ++i) {
          const auto& kind = *contestants[i];
          const ScratchFolder folder(options.output);
          Parameters parameters;
          parameters.set("scenario", one.scenario)
              .set("files", kind.files)
              .set("folder", folder.path().string())
              .set("batch", batch)
              .set("sync", one.sync)
              .set("entries", entries_max(kind, one, options.quick))
              .set("seconds", options.seconds_or(0.4, 0.2));
          bench.run(rows[i], {.name = kind.library}, parameters, std::chrono::seconds(60));
        }
      }
      show(fmt::format("{}, batches of {}", one.title, batch), rows, store_columns());
      std::ranges::move(rows, std::back_inserter(results.rows));
    }
  }
}

void opening(Bench& bench, Results& results) {
  const auto& options = bench.options;
  const ScratchFolder folder(options.output);
  const std::uint64_t entries = (options.quick ? backlog_bytes / 8 : backlog_bytes) / record_bytes;
  std::vector<Row> rows;
  const auto row_for = [&](std::string cache) {
    return Row{.library = std::string(ours),
               .version = FULMAR_VERSION,
               .labels = {{"what", "open"}, {"cache", std::move(cache)}},
               .figures = {}};
  };
  Parameters parameters;
  parameters.set("folder", folder.path().string()).set("entries", entries);
  Row fill = row_for("");
  if (!bench.run(fill, {.name = std::string(ours)}, Parameters(parameters).set("scenario", "spool_backlog"),
                 std::chrono::seconds(120))) {
    return;
  }
  for (const char* cache : {"warm", "cold"}) {
    auto& row = rows.emplace_back(row_for(cache));
    for (unsigned repetition = 0; repetition < options.repetitions_or(5, 2); ++repetition) {
      bench.run(row, {.name = std::string(ours)},
                Parameters(parameters).set("scenario", "spool_open").set("cache", cache),
                std::chrono::seconds(60));
    }
  }
  show("open with 1 GiB that waits", rows, open_columns());
  std::ranges::move(rows, std::back_inserter(results.rows));
}

void run(Bench& bench, Results& results) {
  const auto kinds = store_kinds();
  for (const auto& kind : kinds) {
    if (!kind.missing.empty()) results.skipped.emplace_back(kind.library, kind.missing);
  }
  rates(bench, results, kinds);
  if (bench.options.only.empty() || std::ranges::find(bench.options.only, ours) != bench.options.only.end()) {
    opening(bench, results);
  }
}

}  // namespace

Suite spool_suite() {
  return {.name = "spool",
          .summary = "entries onto the disk and back",
          .run = run,
          .scenarios = {{"spool_append", append_scenario},
                        {"spool_drain", drain_scenario},
                        {"spool_backlog", backlog_scenario},
                        {"spool_open", open_scenario}}};
}

}  // namespace fulmar::bench
