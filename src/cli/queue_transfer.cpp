// export, import, migrate, repair, purge: many items at once.
#include <unistd.h>

#include <algorithm>
#include <map>
#include <unordered_set>

#include "cli/exit_code.hpp"
#include "cli/figures.hpp"
#include "cli/progress.hpp"
#include "cli/queue_commands.hpp"
#include "cli/queue_store.hpp"
#include "cli/report.hpp"
#include "cli/sheet.hpp"
#include "queue/item_files.hpp"
#include "queue/model.hpp"
#include "queue/sqlite_files.hpp"
#include "queue/sqlite_salvage.hpp"
#include "queue/yaml_repository.hpp"

namespace fulmar::cli {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using queue::Item;

constexpr auto frame = 200ms;  // of the progress line
constexpr std::size_t chunk_items = 1'000;

// Counts, and draws where there is a terminal.
class Counter {
 public:
  Counter(bool drawn, std::optional<std::uint64_t> all) : line_(drawn ? STDERR_FILENO : -1), all_(all) {}
  explicit Counter(const QueueCommandOptions& options, std::optional<std::uint64_t> all = {})
      : Counter(!options.quiet && isatty(STDERR_FILENO) == 1, all) {}

  void add(std::uint64_t count) { set(done_ + count); }
  void set(std::uint64_t done) {
    done_ = done;
    const auto now = Clock::now();
    if (!line_.enabled() || now < next_) return;
    next_ = now + frame;
    line_.show(CountProgress{.done = done_, .all = all_, .elapsed = now - begin_});
  }
  std::uint64_t done() const { return done_; }
  void clear() { line_.clear(); }

 private:
  ProgressLine line_;
  const std::optional<std::uint64_t> all_;
  const Clock::time_point begin_ = Clock::now();
  Clock::time_point next_ = begin_ + frame;
  std::uint64_t done_ = 0;
};

std::string items(std::uint64_t count) { return count_of(count, "item", "items"); }

int done_with(const QueueCommandOptions& options, const std::string& text) {
  Sheet sheet;
  if (!options.quiet) sheet.line(text);
  return sheet.end(exit_success);
}

// --- export -----------------------------------------------------------------------------------------------------------

Result<queue::DocumentHead> head_of(Queue& queue) {
  auto settings = queue.settings();
  if (!settings) return std::unexpected(std::move(settings.error()));
  const auto stats = queue.stats();
  if (!stats) return std::unexpected(stats.error());
  return queue::DocumentHead{
      .name = queue.name(), .settings = *settings, .paused = stats->paused, .unknown = {}, .comment = {}};
}

// Nothing = not known without counting.
std::optional<std::uint64_t> how_many(Queue& queue, const queue::Filter& filter) {
  if (filter != queue::Filter{}) return std::nullopt;
  const auto stats = queue.stats();
  return stats ? std::optional(stats->counts.total()) : std::nullopt;
}

// --- import -----------------------------------------------------------------------------------------------------------

struct Batch {
  std::map<std::string, std::vector<Item>> of_queue;  // "" = the one that was opened
  std::uint64_t items = 0;
  queue::ReadSummary summary;
};

Result<Batch> read_batch(const QueueCommandOptions& options, Counter& counter) {
  Batch batch;
  std::vector<std::pair<std::string, std::size_t>> without_max_retries;
  const auto sink = [&](queue::ItemText&& text) -> Result<void> {
    auto& item = text.item;
    if (auto valid = queue::validate(item); !valid) {
      valid.error().message =
          options.arguments[0] + ":" + std::to_string(text.line) + ": " + valid.error().message;
      return valid;
    }
    auto& items = batch.of_queue[options.name.empty() ? item.queue : ""];
    if (!text.max_retries_given)
      without_max_retries.emplace_back(options.name.empty() ? item.queue : "", items.size());
    items.push_back(std::move(item));
    ++batch.items;
    counter.add(1);
    return {};
  };
  auto summary = queue::read_item_file(options.arguments[0], {.format = options.format}, sink);
  if (!summary) return std::unexpected(std::move(summary.error()));
  batch.summary = std::move(*summary);
  for (const auto& [name, index] : without_max_retries)
    batch.of_queue[name][index].max_retries = batch.summary.head.settings.default_max_retries;
  return batch;
}

Result<void> import_chunks(Queue& queue, std::span<const Item> all, queue::OnConflict conflict,
                           queue::ImportReport& sum, Counter& counter) {
  while (!all.empty()) {
    const auto chunk = all.first(std::min(all.size(), chunk_items));
    const auto report = queue.import_items(chunk, conflict);
    if (!report) return std::unexpected(report.error());
    sum.added += report->added;
    sum.skipped += report->skipped;
    sum.replaced += report->replaced;
    counter.add(chunk.size());
    all = all.subspan(chunk.size());
  }
  return {};
}

std::string text_of(const queue::ImportReport& report) {
  return std::to_string(report.added) + " added" +
         (report.replaced ? ", " + std::to_string(report.replaced) + " replaced" : "") +
         (report.skipped ? ", " + std::to_string(report.skipped) + " skipped: they were there already" : "");
}

std::uint64_t sum_of(const queue::ImportReport& report) {
  return report.added + report.skipped + report.replaced;
}

Error count_error(std::uint64_t expected, std::uint64_t found) {
  return {Errc::io_error,
          "the store counts " + std::to_string(found) + " items where " + std::to_string(expected) +
              " were handed in: nothing was changed",
          {}};
}

// A dry run is a transaction that is taken back in the end.
constexpr Errc only_tried = Errc::cancelled;

// The queue that a file's items without a name go to.
std::string own_name(const QueueCommandOptions& options, const Batch& batch) {
  return options.name.empty() ? batch.summary.head.name : options.name;
}

// --- migrate ----------------------------------------------------------------------------------------------------------

struct Copied {
  queue::ImportReport report;
  std::uint64_t items = 0;
  std::uint64_t processing = 0;
  std::vector<std::string> queues;
};

Result<void> copy_queue(Queue& from, Queue& to, const QueueCommandOptions& options, Copied& copied,
                        Counter& counter) {
  const auto head = head_of(from);
  if (!head) return std::unexpected(head.error());
  if (auto done = to.set_settings(head->settings); !done) return done;
  std::unordered_set<std::string> ids;
  std::vector<Item> chunk;
  const auto hand_over = [&]() -> Result<void> {
    auto done = import_chunks(to, chunk, options.on_conflict, copied.report, counter);
    chunk.clear();
    return done;
  };
  const auto exported = from.export_items([&](const Item& item) -> Result<void> {
    ids.insert(item.id);
    copied.processing += item.status == queue::Status::processing;
    chunk.push_back(item);
    return chunk.size() < chunk_items ? Result<void>{} : hand_over();
  });
  if (!exported) return std::unexpected(exported.error());
  if (auto done = hand_over(); !done) return done;
  if (head->paused)
    if (auto done = to.pause(); !done) return done;
  // What was written is what is there.
  std::uint64_t found = 0;
  const auto listed = to.export_items([&](const Item& item) -> Result<void> {
    found += ids.contains(item.id);
    return {};
  });
  if (!listed) return std::unexpected(listed.error());
  if (found != ids.size()) return std::unexpected(count_error(ids.size(), found));
  copied.items += found;
  copied.queues.push_back(from.name());
  return {};
}

}  // namespace

int queue_export(const QueueCommandOptions& options) {
  auto queue = open_queue(options, QueueUse::look);
  if (!queue) return failed(queue.error());
  const queue::Filter filter{.statuses = options.statuses, .types = options.claim.types};
  auto head = head_of(*queue);
  if (!head) return failed(head.error());
  const auto named = options.output.empty() ? std::nullopt : queue::format_of(options.output);
  const auto format = options.format ? *options.format : named.value_or(queue::ItemFormat::yaml);
  // Where stdout is the terminal too, the two would write over each other.
  Counter counter(
      !options.quiet && isatty(STDERR_FILENO) == 1 && (!options.output.empty() || isatty(STDOUT_FILENO) != 1),
      how_many(*queue, filter));
  const auto produce = [&](queue::ItemWriter& writer) -> Result<void> {
    const auto exported = queue->export_items(
        [&](const Item& item) {
          counter.add(1);
          return writer.write(item);
        },
        filter);
    if (!exported) return std::unexpected(exported.error());
    return {};
  };
  if (!options.output.empty()) {
    const auto written = queue::write_item_file(options.output, format, true, *head, produce);
    counter.clear();
    if (!written) return failed(written.error());
    return done_with(options, items(*written) + " written to " + options.output);
  }
  Sheet sheet;
  queue::ItemWriter writer(
      format,
      [&](std::string_view text) -> Result<void> {
        sheet.text() += text;
        if (sheet.flush_when_large()) return {};
        return fail(Errc::cancelled, "");  // end() says why, if that is a failure
      },
      std::move(*head));
  auto done = produce(writer);
  if (done) done = writer.finish();
  counter.clear();
  if (!done && done.error().code != Errc::cancelled) return failed(done.error());
  return sheet.end(exit_success);
}

int queue_import(const QueueCommandOptions& options) {
  Counter reading(options);
  auto batch = read_batch(options, reading);
  reading.clear();
  if (!batch) return failed(batch.error());
  const Report report(options.quiet);
  for (const auto& note : batch->summary.notes) report.plain(note);
  auto named = options;
  named.name = own_name(options, *batch);
  auto queue = open_queue(named, options.dry_run ? QueueUse::change : QueueUse::fill);
  if (!queue && options.dry_run && queue.error().code == Errc::not_found)
    return done_with(options, "dry run: " + items(batch->items) + " would be added to a new store");
  if (!queue) return failed(queue.error());
  Counter counter(options, batch->items);
  queue::ImportReport sum;
  const auto done = queue->with_transaction([&](Queue& own) -> Result<void> {
    sum = {};
    for (const auto& [name, all] : batch->of_queue) {
      auto imported = [&]() -> Result<void> {
        if (name.empty() || name == own.name())
          return import_chunks(own, all, options.on_conflict, sum, counter);
        auto other = own.in(name);
        if (!other) return std::unexpected(other.error());
        return import_chunks(*other, all, options.on_conflict, sum, counter);
      }();
      if (!imported) return imported;
    }
    if (sum_of(sum) != batch->items) return std::unexpected(count_error(batch->items, sum_of(sum)));
    return options.dry_run ? fail(only_tried, "") : Result<void>{};
  });
  counter.clear();
  const bool tried = options.dry_run && !done && done.error().code == only_tried;
  if (!done && !tried) {
    auto error = done.error();
    if (error.code == Errc::already_exists)
      error.message +=
          "; nothing was imported: --on-conflict replace takes the file's, skip keeps the queue's";
    return failed(error);
  }
  return done_with(options, (tried ? "dry run, nothing changed: " : "") + items(batch->items) +
                                " read from " + options.arguments[0] + ": " + text_of(sum));
}

int queue_migrate(const QueueCommandOptions& options) {
  const auto& [from_url, to_url] = std::pair(options.arguments[0], options.arguments[1]);
  if (from_url == to_url) {
    Report::usage("queue migrate", "FROM and TO are the same store: '" + shown_url(from_url) + "'");
    return exit_failure;
  }
  auto from = open_queue(options, QueueUse::look, from_url);
  if (!from) return failed(from.error());
  std::vector<std::string> names{from->name()};
  if (options.name.empty()) {
    auto all = from->queues();
    if (!all) return failed(all.error());
    if (!all->empty()) names = std::move(*all);
  }
  auto of_target = options;
  of_target.name = names.front();
  auto to = open_queue(of_target, options.dry_run ? QueueUse::change : QueueUse::fill, to_url);
  std::vector<Queue> sources;
  std::uint64_t all = 0;
  for (const auto& name : names) {
    auto source = from->in(name);
    if (!source) return failed(source.error());
    const auto stats = source->stats();
    if (!stats) return failed(stats.error());
    all += stats->counts.total();
    sources.push_back(std::move(*source));
  }
  if (!to && options.dry_run && to.error().code == Errc::not_found)
    return done_with(options, "dry run: " + items(all) + " would be copied to a new store");
  if (!to) return failed(to.error());
  Counter counter(options, all);
  Copied copied;
  const auto done = to->with_transaction([&](Queue& own) -> Result<void> {
    copied = {};
    for (auto& source : sources) {
      auto target = own.in(source.name());
      if (!target) return std::unexpected(target.error());
      if (auto one = copy_queue(source, *target, options, copied, counter); !one) return one;
    }
    return options.dry_run ? fail(only_tried, "") : Result<void>{};
  });
  counter.clear();
  const bool tried = options.dry_run && !done && done.error().code == only_tried;
  if (!done && !tried) return failed(done.error());
  if (copied.processing)
    Report(options.quiet)
        .warning(items(copied.processing) + " of " + shown_url(from_url) +
                 ", being worked on, will be pending in the copy: stop the workers of the old store");
  return done_with(options, (tried ? "dry run, nothing changed: " : "") + items(copied.items) + " in " +
                                count_of(copied.queues.size(), "queue", "queues") +
                                " copied and found again in " + shown_url(to_url) + ": " +
                                text_of(copied.report));
}

namespace {

int repair_yaml_file(const QueueCommandOptions& options) {
  const auto repaired = queue::repair_yaml(options.url, options.lock_timeout, options.dry_run);
  if (!repaired) return failed(repaired.error());
  if (repaired->was_sound)
    return done_with(options, shown_url(options.url) + " is sound: " + items(repaired->items));
  const std::string damage = repaired->damage.empty() ? "" : repaired->damage + "\n";
  if (options.dry_run) {
    return done_with(options, damage + "dry run, nothing changed: the backup has " + items(repaired->items) +
                                  " and would take its place");
  }
  return done_with(
      options,
      damage + "restored from the backup: " + items(repaired->items) +
          (repaired->set_aside.empty() ? "" : "; what was there is in " + repaired->set_aside.string()));
}

}  // namespace

int queue_repair(const QueueCommandOptions& options) {
  if (options.url.starts_with("yaml:")) return repair_yaml_file(options);
  if (const auto path = queue::path_of_sqlite_url(options.url)) {
    const auto damage = queue::find_damage(*path);
    if (!damage) return failed(damage.error());
    if (!damage->empty()) Report(options.quiet).warning(path->string() + ": " + *damage);
    if (!damage->empty() && options.dry_run) {
      return failed({Errc::damaged,
                     path->string() + ": is damaged; nothing was changed: without --dry-run it is set aside, "
                                      "and what is readable carried over",
                     {}});
    }
    // Then opening it, which is what makes it whole, looks as well.
    if (!damage->empty()) queue::mark_damage(*path);
  }
  auto queue = open_queue(options, options.dry_run ? QueueUse::look : QueueUse::change);
  if (!queue) return failed(queue.error());
  std::uint64_t found = 0;
  const auto names = queue->queues();
  if (!names) return failed(names.error());
  for (const auto& name : *names) {
    auto one = queue->in(name);
    if (!one) return failed(one.error());
    const auto read = one->export_items([&](const Item&) -> Result<void> {
      ++found;
      return {};
    });
    if (!read) return failed(read.error());
  }
  return done_with(options, shown_url(options.url) + ": " + items(found) + " in " +
                                count_of(names->size(), "queue", "queues") + ", all readable");
}

int queue_purge(const QueueCommandOptions& options) {
  auto queue = open_queue(options, options.yes ? QueueUse::change : QueueUse::look);
  if (!queue) return failed(queue.error());
  queue::Filter filter{
      .statuses = options.statuses, .types = options.claim.types, .finished_before = options.before};
  if (filter.statuses.empty())
    filter.statuses = {queue::Status::completed, queue::Status::failed, queue::Status::cancelled};
  Counter counter(options);
  if (options.yes) {
    const auto purged = queue->purge(filter, [&](std::uint64_t gone) { counter.set(gone); });
    counter.clear();
    if (!purged) return failed(purged.error());
    return done_with(options, items(*purged) + " purged");
  }
  queue::Page page{.items_max = 1'000, .bodies = false};
  do {
    const auto listed = queue->list(filter, page);
    if (!listed) return failed(listed.error());
    counter.add(listed->items.size());
    page.after = listed->next;
  } while (!page.after.empty());
  counter.clear();
  if (counter.done() == 0) return done_with(options, "nothing to purge");
  Report(false).error("nothing done: this would delete " + items(counter.done()) + "; add --yes to do it");
  return exit_failure;
}

}  // namespace fulmar::cli
