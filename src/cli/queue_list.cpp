// list, show, stats, watch: what is there.
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "cli/events.hpp"
#include "cli/exit_code.hpp"
#include "cli/figures.hpp"
#include "cli/queue_commands.hpp"
#include "cli/queue_store.hpp"
#include "cli/queue_text.hpp"
#include "cli/report.hpp"
#include "cli/sheet.hpp"
#include "queue/model.hpp"

namespace fulmar::cli {
namespace {

using namespace std::chrono_literals;

queue::Time now() { return std::chrono::time_point_cast<queue::Duration>(std::chrono::system_clock::now()); }

// Of the terminal on stdout; 0 = there is none.
winsize window() {
  winsize size{};
  if (isatty(STDOUT_FILENO) != 1 || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0) return {};
  return size;
}

// --- watch ------------------------------------------------------------------------------------------------------------

struct Sample {
  std::chrono::steady_clock::time_point at;
  std::uint64_t finished = 0;
};

// On a terminal the sheet is written over; else a line each time.
class Watch {
 public:
  Watch(const QueueCommandOptions& options, Queue& queue) : options_(options), queue_(queue) {}

  int run() {
    const bool screen = !options_.json && window().ws_row > 0;
    for (std::uint64_t shown = 0;;) {
      const auto stats = queue_.stats();
      if (stats) {
        told_.clear();
        show(*stats, screen);
      } else if (!is_passing(stats.error().code)) {
        return failed(stats.error());
      } else if (stats.error().message != told_) {  // once, and on with it: the store may come back
        told_ = stats.error().message;
        Report(false).warning(told_);
      }
      if (!sheet_.flush() || (options_.count && ++shown >= options_.count)) return sheet_.end(exit_success);
      const auto until = Events::Clock::now() + options_.interval;
      while (!events_.signal() && Events::Clock::now() < until) events_.wait({}, until);
      if (events_.signal()) return sheet_.end(exit_success);
    }
  }

 private:
  static bool is_passing(Errc code) {
    return code == Errc::io_error || code == Errc::timeout || code == Errc::connection_failed;
  }

  void show(const queue::Stats& stats, bool screen) {
    const Sample sample{.at = std::chrono::steady_clock::now(),
                        .finished = stats.counts.completed + stats.counts.failed + stats.counts.cancelled};
    const auto seconds = std::chrono::duration<double>(sample.at - last_.at).count();
    // Retention removes finished items: then there is nothing to be said.
    const bool known =
        last_.at != std::chrono::steady_clock::time_point{} && sample.finished >= last_.finished;
    const std::string rate =
        known
            ? number_text(static_cast<double>(sample.finished - last_.finished) / seconds, 1) + " finished/s"
            : "";
    last_ = sample;
    if (options_.json) return sheet_.line(stats_json(stats, queue_.name()));
    if (!screen) {
      const auto& c = stats.counts;
      return sheet_.line(queue::format_time(now()) + " pending " + std::to_string(c.pending) +
                         " processing " + std::to_string(c.processing) + " completed " +
                         std::to_string(c.completed) + " failed " + std::to_string(c.failed) + " cancelled " +
                         std::to_string(c.cancelled) + (stats.paused ? " paused" : "") +
                         (rate.empty() ? "" : " " + rate));
    }
    const auto size = window();
    auto lines = stats_sheet(stats, queue_.name());
    lines.front() = time_text(std::chrono::system_clock::now()) + "  " + lines.front() +
                    (rate.empty() ? "" : "  " + rate) + "  (Ctrl-C ends)";
    lines.resize(std::min<std::size_t>(lines.size(), size.ws_row > 1 ? size.ws_row - 1u : 1u));
    sheet_.text() += "\x1b[H";
    for (const auto& line : lines) sheet_.text().append(line.substr(0, size.ws_col)).append("\x1b[K\n");
    sheet_.text() += "\x1b[J";
  }

  const QueueCommandOptions& options_;
  Queue& queue_;
  Events events_;
  Sheet sheet_;
  Sample last_{};
  std::string told_;
};

}  // namespace

int queue_list(const QueueCommandOptions& options) {
  auto queue = open_queue(options, QueueUse::look);
  if (!queue) return failed(queue.error());
  Sheet sheet;
  const queue::Filter filter{.statuses = options.statuses,
                             .types = options.claim.types,
                             .only_waiting_for_dependencies = options.blocked};
  const std::size_t limit = options.limit.value_or(100);
  std::size_t left = limit;
  queue::Page page{.newest_first = options.newest_first, .bodies = options.json};
  std::vector<queue::Item>
      items;  // of the table, which has to know its columns first: those of the first page
  bool head = true;
  do {
    page.items_max = std::min<std::size_t>(left, 1'000);
    const auto listed = queue->list(filter, page);
    if (!listed) return failed(listed.error());
    left -= std::min(left, listed->items.size());
    page.after = listed->next;
    if (options.json) {
      for (const auto& item : listed->items) sheet.line(item_json(item));
    } else if (!listed->items.empty()) {
      auto rows = item_table(listed->items, now(), window().ws_col);
      if (!std::exchange(head, false)) rows.erase(rows.begin());
      for (const auto& row : rows) sheet.line(row);
    }
    if (!sheet.flush_when_large()) return sheet.end(exit_success);
  } while (!page.after.empty() && left > 0);
  const int code = sheet.end(exit_success);
  const Report report(options.quiet);
  if (head && !options.json) report.plain("no items");
  if (!page.after.empty()) report.plain("there are more: --limit all shows them");
  return code;
}

int queue_show(const QueueCommandOptions& options) {
  auto queue = open_queue(options, QueueUse::look);
  if (!queue) return failed(queue.error());
  const auto item = queue->get(options.arguments[0]);
  if (!item) return failed(item.error());
  Sheet sheet;
  if (options.json) {
    sheet.line(item_json(*item));
  } else {
    for (const auto& line : item_sheet(*item, now())) sheet.line(line);
  }
  return sheet.end(exit_success);
}

int queue_stats(const QueueCommandOptions& options) {
  auto queue = open_queue(options, QueueUse::look);
  if (!queue) return failed(queue.error());
  const auto stats = queue->stats();
  if (!stats) return failed(stats.error());
  Sheet sheet;
  if (options.json) {
    sheet.line(stats_json(*stats, queue->name()));
  } else {
    for (const auto& line : stats_sheet(*stats, queue->name())) sheet.line(line);
  }
  return sheet.end(exit_success);
}

int queue_watch(const QueueCommandOptions& options) {
  auto queue = open_queue(options, QueueUse::look);
  if (!queue) return failed(queue.error());
  return Watch(options, *queue).run();
}

}  // namespace fulmar::cli
