// work: the words around the pool, and the signals.
#include "cli/queue_work.hpp"

#include <signal.h>
#include <unistd.h>

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

void print_event(const Report& report, const WorkPool::Event& event) {
  if (!event.item) return report.warning(printable(event.text));
  const auto& item = *event.item;
  std::string line = item.id + "  " + printable(item.type) + "  attempt " +
                     std::to_string(item.retry_count + 1) + "/" + std::to_string(item.max_retries) + "  ";
  switch (event.kind) {
    case WorkPool::Kind::completed: line += "completed"; break;
    case WorkPool::Kind::failed: line += "failed"; break;
    case WorkPool::Kind::lost: line += "lost"; break;
    case WorkPool::Kind::given_back: line += "given back"; break;
    case WorkPool::Kind::trouble: line += "warning"; break;
  }
  line += "  " + number_text(event.took.count(), 2) + " s";
  if (!event.text.empty()) line += "  " + printable(event.text);
  report.plain(line);
}

std::string summary(const WorkPool::Totals& totals) {
  std::string text =
      std::to_string(totals.completed) + " completed, " + std::to_string(totals.failed) + " failed";
  if (totals.given_back) text += ", " + std::to_string(totals.given_back) + " given back";
  if (totals.lost) text += ", " + std::to_string(totals.lost) + " lost";
  return text;
}

// As if the signal had not been held back.
[[noreturn]] void end_by(Events& events, int signal) {
  events.release_signals();
  ::signal(signal, SIG_DFL);
  raise(signal);
  _exit(128 + signal);
}

}  // namespace

int queue_work(const QueueCommandOptions& options) {
  auto program = find_program(options.program[0]);
  if (!program) return failed(program.error());
  auto guard = ProcessGuard::start();
  if (!guard) return failed(guard.error());
  Events events;
  auto queue = open_queue(options, QueueUse::fill);
  if (!queue) return failed(queue.error());
  const auto settings = queue->settings();
  if (!settings) return failed(settings.error());
  const Report report(options.quiet);
  report.plain("working on queue " + queue->name() + " of " + shown_url(queue->url()) + ", " +
               count_of(options.jobs, "command", "commands") + " at a time; Ctrl-C ends it");
  WorkPool pool(options, *queue, *guard, std::move(*program), options.claim.lease.value_or(settings->lease),
                {.event = [&](const WorkPool::Event& event) { print_event(report, event); },
                 .on_stderr =
                     [](std::string_view text) {
                       while (!text.empty()) {
                         const auto written = write(STDERR_FILENO, text.data(), text.size());
                         if (written <= 0) return;
                         text.remove_prefix(static_cast<std::size_t>(written));
                       }
                     },
                 .ended = [&] { events.ring(); }});
  pool.start();
  int signals = 0;
  int last_signal = 0;
  while (!pool.wait(0ms)) {
    std::optional<Events::Clock::time_point> until;
    if (signals > 0) until = Events::Clock::now() + 50ms;
    events.wait({}, until);
    if (const auto signal = events.take_signal()) {
      last_signal = *signal;
      if (++signals == 1) {
        pool.drain();
        report.plain(
            "no new items; waiting for the commands that run; Ctrl-C again kills them and gives their items "
            "back");
      } else {
        pool.give_up();
        events.release_signals();  // the next one ends it here and now
      }
    }
  }
  const auto totals = pool.totals();
  Sheet sheet;
  if (!options.quiet) sheet.line(summary(totals));
  const int code = sheet.end(exit_success);
  if (const auto fatal = pool.fatal()) return failed(*fatal);
  if (signals > 1) end_by(events, last_signal);
  return code;
}

}  // namespace fulmar::cli
