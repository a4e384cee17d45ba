#include "cli/queue.hpp"

#include <algorithm>
#include <cstdlib>

#include <boost/json.hpp>

#include "cli/exit_code.hpp"
#include "cli/figures.hpp"
#include "cli/progress.hpp"
#include "cli/queue_commands.hpp"
#include "cli/queue_options.hpp"
#include "cli/queue_store.hpp"
#include "cli/report.hpp"
#include "cli/sheet.hpp"
#include "queue/model.hpp"

namespace fulmar::cli {
namespace {

using queue::LeaseKey;
using queue::Refusal;

// --- leases -----------------------------------------------------------------------------------------------------------

// What was given instead of a lease is perhaps an id: then its state says more than the grammar does.
Error no_lease(Queue& queue, const std::string& word, queue::Verb verb) {
  const auto item = queue.get(word);
  if (!item && item.error().code != Errc::not_found) return item.error();
  if (item) {
    if (const auto allowed = check_transition(word, item->status, verb); !allowed) return allowed.error();
    return {Errc::lease_lost,
            "item " + word + ": claimed by " + item->lease_owner + ", and to " +
                std::string(queue::to_string(verb)) +
                " it takes the lease, ID:TOKEN, which 'fulmar queue next' printed to the one who claimed it",
            {}};
  }
  if (!parse_lease(word) && word.find(':') != std::string::npos)
    return {Errc::invalid_item,
            "'" + word + "' is no lease: expected ID:TOKEN as 'fulmar queue next' prints it",
            {}};
  return item.error();
}

// Runs `batch` with the leases, and tells what it refused.
template <typename Batch>
int with_leases(const QueueCommandOptions& options, queue::Verb verb, Batch&& batch) {
  auto queue = open_queue(options, QueueUse::change);
  if (!queue) return failed(queue.error());
  std::vector<LeaseKey> leases;
  std::vector<Refusal> refusals;
  for (const auto& word : options.arguments) {
    if (auto lease = parse_lease(word))
      leases.push_back(std::move(*lease));
    else
      refusals.push_back({leases.size() + refusals.size(), no_lease(*queue, word, verb)});
  }
  if (!leases.empty()) {
    const auto done = batch(*queue, std::span<const LeaseKey>(leases));
    if (!done) return failed(done.error());
    refusals.insert(refusals.end(), done->begin(), done->end());
  }
  return failed(refusals);
}

int complete(const QueueCommandOptions& options) {
  return with_leases(options, queue::Verb::complete, [&](Queue& queue, std::span<const LeaseKey> leases) {
    std::vector<queue::Completion> completions;
    for (const auto& lease : leases) completions.push_back({lease, options.result});
    return queue.complete_batch(completions);
  });
}

int fail_attempts(const QueueCommandOptions& options) {
  return with_leases(options, queue::Verb::fail, [&](Queue& queue, std::span<const LeaseKey> leases) {
    std::vector<queue::Failure> failures;
    for (const auto& lease : leases)
      failures.push_back({lease, options.error, options.retry_in, options.for_good});
    return queue.fail_batch(failures);
  });
}

int release(const QueueCommandOptions& options) {
  return with_leases(options, queue::Verb::release,
                     [](Queue& queue, std::span<const LeaseKey> leases) -> Result<std::vector<Refusal>> {
                       std::vector<Refusal> refusals;
                       for (std::size_t i = 0; i < leases.size(); ++i)
                         if (auto done = queue.release(leases[i]); !done)
                           refusals.push_back({i, done.error()});
                       return refusals;
                     });
}

int extend(const QueueCommandOptions& options) {
  Sheet sheet;
  const int code =
      with_leases(options, queue::Verb::extend,
                  [&](Queue& queue, std::span<const LeaseKey> leases) -> Result<std::vector<Refusal>> {
                    std::vector<Refusal> refusals;
                    for (std::size_t i = 0; i < leases.size(); ++i) {
                      const auto until = queue.extend(leases[i], options.claim.lease);
                      if (until)
                        sheet.line(queue::format_time(*until));
                      else
                        refusals.push_back({i, until.error()});
                    }
                    return refusals;
                  });
  return sheet.end(code);
}

// --- ids --------------------------------------------------------------------------------------------------------------

int with_ids(const QueueCommandOptions& options,
             Result<std::vector<Refusal>> (Queue::*batch)(std::span<const queue::ItemId>)) {
  auto queue = open_queue(options, QueueUse::change);
  if (!queue) return failed(queue.error());
  const auto refusals = ((*queue).*batch)(options.arguments);
  return refusals ? failed(*refusals) : failed(refusals.error());
}

int retry_all(const QueueCommandOptions& options) {
  auto queue = open_queue(options, QueueUse::change);
  if (!queue) return failed(queue.error());
  std::uint64_t retried = 0;
  std::vector<Refusal> refused;
  queue::Page page{.after = {}, .items_max = 500, .newest_first = false, .bodies = false};
  const queue::Filter filter{.statuses = {queue::Status::failed}, .types = options.claim.types};
  do {
    const auto listed = queue->list(filter, page);
    if (!listed) return failed(listed.error());
    std::vector<queue::ItemId> ids;
    for (const auto& item : listed->items) ids.push_back(item.id);
    if (!ids.empty()) {
      const auto refusals = queue->retry_batch(ids);
      if (!refusals) return failed(refusals.error());
      retried += ids.size() - refusals->size();
      refused.insert(refused.end(), refusals->begin(), refusals->end());
    }
    page.after = listed->next;
  } while (!page.after.empty());
  Sheet sheet;
  sheet.line(count_of(retried, "item is", "items are") + " pending again");
  const int code = sheet.end(exit_success);
  return refused.empty() ? code : failed(refused);
}

int retry(const QueueCommandOptions& options) {
  return options.all ? retry_all(options) : with_ids(options, &Queue::retry_batch);
}

// --- the queue as a whole -----------------------------------------------------------------------------------------------

int pause(const QueueCommandOptions& options, bool paused) {
  auto queue = open_queue(options, QueueUse::change);
  if (!queue) return failed(queue.error());
  const auto done = paused ? queue->pause() : queue->resume();
  return done ? exit_success : failed(done.error());
}

int settings(const QueueCommandOptions& options) {
  auto queue = open_queue(options, options.arguments.empty() ? QueueUse::look : QueueUse::fill);
  if (!queue) return failed(queue.error());
  auto settings = queue->settings();
  if (!settings) return failed(settings.error());
  for (const auto& assignment : options.arguments) {
    if (const auto wrong = change_setting(*settings, assignment); !wrong.empty()) {
      Report::usage("queue settings", wrong);
      return exit_failure;
    }
  }
  if (!options.arguments.empty())
    if (const auto done = queue->set_settings(*settings); !done) return failed(done.error());
  Sheet sheet;
  if (options.json) {
    boost::json::object object;
    for (const auto& [name, value] : settings_text(*settings)) object[name] = value;
    sheet.line(boost::json::serialize(object));
  } else {
    for (const auto& [name, value] : settings_text(*settings)) {
      std::string line = name;
      line.append(20 - std::min<std::size_t>(name.size(), 19), ' ').append(value);
      sheet.line(line);
    }
  }
  return sheet.end(exit_success);
}

int queues(const QueueCommandOptions& options) {
  auto queue = open_queue(options, QueueUse::look);
  if (!queue) return failed(queue.error());
  const auto names = queue->queues();
  if (!names) return failed(names.error());
  Sheet sheet;
  for (const auto& name : *names) sheet.line(name);
  return sheet.end(exit_success);
}

int run_command(const QueueCommandOptions& options) {
  switch (options.command) {
    case QueueCommand::add: return queue_add(options);
    case QueueCommand::next: return queue_next(options);
    case QueueCommand::complete: return complete(options);
    case QueueCommand::fail: return fail_attempts(options);
    case QueueCommand::extend: return extend(options);
    case QueueCommand::release: return release(options);
    case QueueCommand::cancel: return with_ids(options, &Queue::cancel_batch);
    case QueueCommand::retry: return retry(options);
    case QueueCommand::remove: return with_ids(options, &Queue::remove_batch);
    case QueueCommand::list: return queue_list(options);
    case QueueCommand::show: return queue_show(options);
    case QueueCommand::stats: return queue_stats(options);
    case QueueCommand::watch: return queue_watch(options);
    case QueueCommand::work: return queue_work(options);
    case QueueCommand::import_items: return queue_import(options);
    case QueueCommand::export_items: return queue_export(options);
    case QueueCommand::migrate: return queue_migrate(options);
    case QueueCommand::repair: return queue_repair(options);
    case QueueCommand::purge: return queue_purge(options);
    case QueueCommand::pause: return pause(options, true);
    case QueueCommand::resume: return pause(options, false);
    case QueueCommand::settings: return settings(options);
    case QueueCommand::queues: return queues(options);
  }
  return exit_failure;
}

}  // namespace

int run_queue(std::span<const std::string_view> words) {
  const auto environment = [](std::string_view name) {
    const char* value = std::getenv(std::string(name).c_str());
    return value ? std::optional<std::string>(value) : std::nullopt;
  };
  const auto parsed = parse_queue(
      words, environment, std::chrono::time_point_cast<queue::Duration>(std::chrono::system_clock::now()));
  if (parsed.help) {
    Sheet sheet;
    sheet.text() = parsed.command ? queue_help(*parsed.command) : queue_help();
    return sheet.end(exit_success);
  }
  if (!parsed.options) {
    const std::string command = parsed.command ? " " + std::string(row_of(*parsed.command).name) : "";
    Report::usage("queue" + command, parsed.error);
    return exit_failure;
  }
  return run_command(*parsed.options);
}

}  // namespace fulmar::cli
