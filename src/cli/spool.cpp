#include "cli/spool.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>

#include <boost/json.hpp>

#include "cli/exit_code.hpp"
#include "cli/figures.hpp"
#include "cli/progress.hpp"
#include "cli/report.hpp"
#include "cli/sheet.hpp"
#include "cli/spool_message.hpp"
#include "cli/spool_options.hpp"
#include "cli/spool_survey.hpp"

namespace fulmar::cli {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using spool::Inspector;

constexpr auto frame = 200ms;  // of the progress line

// --- texts -------------------------------------------------------------------------------------------------

std::string messages(std::uint64_t count) { return count_of(count, "message", "messages"); }

std::string_view to_string(Inspector::State state) {
  switch (state) {
    case Inspector::State::acknowledged: return "acknowledged";
    case Inspector::State::waiting: return "waiting";
    case Inspector::State::spare: return "spare";
    case Inspector::State::set_aside: return "set aside";
    case Inspector::State::damaged: return "damaged";
    case Inspector::State::foreign: return "foreign";
  }
  return "";
}

std::chrono::system_clock::time_point at_ms(std::int64_t ms) {
  return std::chrono::system_clock::time_point(std::chrono::milliseconds(ms));
}

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// --- stdout and stderr ---------------------------------------------------------------------------------------

int failed(const Error& error) {
  Report(false).error(error.message);
  return exit_failure;
}

// --- reading, with a line of progress ----------------------------------------------------------------------

Result<void> read(SpoolSurvey& survey, const SpoolOptions& options, const SpoolSurvey::Visitor& visit) {
  // Where stdout is the terminal too, the two would write over each other.
  const bool drawn = isatty(STDERR_FILENO) == 1 && !options.quiet &&
                     !(options.command == SpoolCommand::export_messages && isatty(STDOUT_FILENO) == 1);
  ProgressLine line(drawn ? STDERR_FILENO : -1);
  const auto begin = Clock::now();
  auto next = begin + frame;
  return survey.read(visit, [&](std::uint64_t done, std::uint64_t all, std::uint64_t count) {
    const auto now = Clock::now();
    if (!line.enabled() || now < next) return;
    next = now + frame;
    line.show(ReadProgress{.done_bytes = done, .all_bytes = all, .messages = count, .elapsed = now - begin});
  });
}

// --- inspect -----------------------------------------------------------------------------------------------

std::uint64_t above_low(const spool::Cursor& cursor) {
  std::uint64_t count = 0;
  for (const auto word : cursor.acknowledged) count += static_cast<std::uint64_t>(std::popcount(word));
  return count;
}

void print_table(const SpoolSurvey& survey, Sheet& sheet) {
  const auto& totals = survey.totals();
  sheet.line("spool " + survey.directory().string() +
             (survey.user() ? ", in use by process " + std::to_string(*survey.user()) : ""));
  std::string waiting = "  waiting  " + messages(totals.waiting);
  if (totals.waiting) {
    waiting += ", " + size_text(totals.waiting_bytes) + "; the oldest for " +
               age_text(std::chrono::milliseconds(now_ms() - *totals.oldest_ms)) + " (since " +
               time_text(at_ms(*totals.oldest_ms)) + ")";
  }
  sheet.line(waiting);
  if (totals.findings) {
    sheet.line("  damaged  " + count_of(totals.findings, "finding", "findings") + ", " +
               count_of(totals.missing, "waiting message", "waiting messages") +
               " lost: see 'fulmar spool verify " + survey.directory().string() + "'");
  }
  if (const auto& cursor = survey.cursor()) {
    const auto above = above_low(*cursor);
    sheet.line("  cursor   acknowledged up to " + std::to_string(cursor->low) +
               (above ? ", and " + std::to_string(above) + " above" : "") + "; the next message gets " +
               std::to_string(cursor->next));
  } else {
    sheet.line("  cursor   none: every message counts as waiting");
  }
  sheet.line("  files    " + count_of(totals.segments, "segment", "segments") + ", " +
             count_of(totals.spares, "spare", "spares") + ", " + std::to_string(totals.set_aside) +
             " set aside; " + size_text(totals.bytes));
  if (survey.files().empty()) return;

  std::size_t width = 4;
  for (const auto& file : survey.files()) width = std::max(width, file.segment.file.size());
  const auto row = [&](std::string_view name, std::string_view state, const std::string& count,
                       const std::string& wait, const std::string& size, const std::string& begun) {
    const auto right = [](const std::string& text, std::size_t to) {
      return std::string(to - std::min(to, text.size()), ' ') + text;
    };
    sheet.line(std::string(name) + std::string(width - name.size() + 2, ' ') + std::string(state) +
               std::string(12 - state.size(), ' ') + right(count, 10) + right(wait, 9) + right(size, 12) +
               "  " + begun);
  };
  sheet.line("");
  row("FILE", "STATE", "MESSAGES", "WAITING", "SIZE", "BEGUN");
  for (const auto& [segment, count, wait] : survey.files()) {
    const bool read =
        segment.state == Inspector::State::waiting || segment.state == Inspector::State::acknowledged;
    row(segment.file, to_string(segment.state), read ? std::to_string(count) : "-",
        read ? std::to_string(wait) : "-", size_text(segment.bytes),
        read ? time_text(at_ms(segment.created_ms)) : "-");
  }
}

void print_json(const SpoolSurvey& survey, Sheet& sheet) {
  namespace json = boost::json;
  const auto& totals = survey.totals();
  json::object all;
  all["directory"] = survey.directory().string();
  all["in_use_by"] = survey.user() ? json::value(*survey.user()) : json::value(nullptr);
  all["waiting"] = totals.waiting;
  all["waiting_bytes"] = totals.waiting_bytes;
  all["oldest_ms"] = totals.oldest_ms ? json::value(*totals.oldest_ms) : json::value(nullptr);
  all["oldest_age_ms"] = totals.oldest_ms
                             ? json::value(std::max<std::int64_t>(now_ms() - *totals.oldest_ms, 0))
                             : json::value(nullptr);
  all["messages"] = totals.messages;
  all["missing"] = totals.missing;
  all["findings"] = totals.findings;
  all["bytes"] = totals.bytes;
  all["segments"] = totals.segments;
  all["spares"] = totals.spares;
  all["set_aside"] = totals.set_aside;
  if (const auto& cursor = survey.cursor()) {
    all["cursor"] = json::object{{"generation", cursor->generation},
                                 {"low", cursor->low},
                                 {"acknowledged_above", above_low(*cursor)},
                                 {"next", cursor->next}};
  } else {
    all["cursor"] = nullptr;
  }
  json::array files;
  for (const auto& [segment, count, wait] : survey.files()) {
    json::object file{{"file", segment.file}, {"state", to_string(segment.state)}, {"bytes", segment.bytes}};
    if (segment.state == Inspector::State::waiting || segment.state == Inspector::State::acknowledged) {
      file["number"] = segment.number;
      file["first"] = segment.first;
      file["last"] = segment.last;
      file["messages"] = count;
      file["waiting"] = wait;
      file["created_ms"] = segment.created_ms;
    }
    files.push_back(std::move(file));
  }
  all["files"] = std::move(files);
  sheet.line(json::serialize(all));
}

int inspect(const SpoolOptions& options) {
  auto survey = SpoolSurvey::open(options.directory);
  if (!survey) return failed(survey.error());
  if (auto done = read(*survey, options, {}); !done) return failed(done.error());
  Sheet sheet;
  options.json ? print_json(*survey, sheet) : print_table(*survey, sheet);
  return sheet.end(exit_success);
}

// --- verify ------------------------------------------------------------------------------------------------

int verify(const SpoolOptions& options) {
  const auto begin = Clock::now();
  auto survey = SpoolSurvey::open(options.directory);
  if (!survey) return failed(survey.error());
  if (auto done = read(*survey, options, {}); !done) return failed(done.error());
  const auto& totals = survey->totals();
  Sheet sheet;
  std::uint64_t bytes = 0;
  for (const auto& [segment, count, wait] : survey->files()) {
    if (segment.state == Inspector::State::set_aside) {
      sheet.text()
          .append(segment.file)
          .append(": was set aside as damaged before; look at it, or remove it with 'fulmar spool purge ");
      sheet.text().append(options.directory).append(" --bad --yes'\n");
    } else if (segment.state != Inspector::State::spare) {
      bytes += segment.bytes;
    }
  }
  for (const auto& [file, what] : survey->findings())
    sheet.text().append(file).append(": ").append(what).append("\n");
  if (totals.findings > survey->findings().size())
    sheet.line("and " + std::to_string(totals.findings - survey->findings().size()) + " more");
  const auto sum = messages(totals.messages) + " in " + count_of(totals.segments, "segment", "segments");
  if (totals.findings == 0) {
    std::array<char, 32> seconds{};
    std::snprintf(seconds.data(), seconds.size(), "%.1f s",
                  std::chrono::duration<double>(Clock::now() - begin).count());
    sheet.line("sound: " + sum + ", " + std::to_string(totals.waiting) + " waiting; " + size_text(bytes) +
               " read in " + seconds.data());
    return sheet.end(exit_success);
  }
  sheet.line("damaged: " + count_of(totals.findings, "finding", "findings") + ", " +
             count_of(totals.missing, "waiting message", "waiting messages") + " lost; " + sum +
             (totals.messages == 1 ? " is" : " are") + " sound, " + std::to_string(totals.waiting) +
             " waiting");
  return sheet.end(exit_spool_damaged);
}

// --- export ------------------------------------------------------------------------------------------------

int export_messages(const SpoolOptions& options) {
  auto survey = SpoolSurvey::open(options.directory);
  if (!survey) return failed(survey.error());
  Sheet sheet;
  std::uint64_t left_out = 0;
  const auto done = read(*survey, options, [&](const spool::Entry& entry, bool acknowledged) {
    if (acknowledged && !options.all) return true;
    left_out += !append_stored_message(entry, acknowledged, sheet.text());
    return sheet.flush_when_large();
  });
  if (!done) return failed(done.error());
  const auto& totals = survey->totals();
  const int code = sheet.end(totals.findings || left_out ? exit_spool_damaged : exit_success);
  if (code != exit_spool_damaged) return code;
  const Report report(false);
  if (left_out)
    report.warning(messages(left_out) + (left_out == 1 ? " is" : " are") +
                   " of a kind that this version does not know: left out");
  if (totals.findings) {
    report.warning("the spool is damaged, " +
                   count_of(totals.missing, "waiting message", "waiting messages") +
                   " missing: 'fulmar spool verify " + options.directory + "' names the files");
  }
  return code;
}

// --- purge -------------------------------------------------------------------------------------------------

int refuse_without_yes(const std::string& what, const std::string& again) {
  Report(false).error("nothing done: this would remove " + what + "; add --yes to do it: " + again);
  return exit_failure;
}

int purge_bad(const SpoolOptions& options, const SpoolSurvey& survey) {
  auto& files = spool::posix_file_system();
  std::vector<const Inspector::Segment*> bad;
  std::uint64_t bytes = 0;
  for (const auto& file : survey.files()) {
    if (file.segment.state != Inspector::State::set_aside) continue;
    bad.push_back(&file.segment);
    bytes += file.segment.bytes;
  }
  Sheet sheet;
  if (bad.empty()) {
    sheet.line("no file is set aside: nothing to remove");
    return sheet.end(exit_success);
  }
  const auto what = count_of(bad.size(), "file", "files") + " set aside";
  if (!options.yes) {
    return refuse_without_yes(what + " (" + size_text(bytes) + ")",
                              "fulmar spool purge " + options.directory + " --bad --yes");
  }
  const auto lock = files.lock(survey.directory() / "lock");
  if (!lock) {
    const auto& [error, holder] = lock.error();
    return failed(
        {Errc::io_error,
         error == EWOULDBLOCK
             ? "spool directory " + options.directory + " is in use by " +
                   (holder.empty() ? "another process" : "process " + holder) + ": stop it first"
             : "spool directory " + options.directory + " cannot be locked: " + std::strerror(error)});
  }
  for (const auto* segment : bad) {
    const auto path = survey.directory() / segment->file;
    if (const auto removed = files.remove(path); !removed && removed.error() != ENOENT)
      return failed(
          {Errc::io_error, "cannot remove " + path.string() + ": " + std::strerror(removed.error())});
    sheet.line("removed " + segment->file);
  }
  sheet.line("removed " + what + "; " + size_text(bytes) + " freed");
  return sheet.end(exit_success);
}

// The size of the newest segment: the log goes on with files of that size.
std::uint64_t segment_bytes(const SpoolSurvey& survey) {
  std::uint64_t bytes = 0;
  for (const auto& file : survey.files())
    if (file.segment.number) bytes = file.segment.bytes;
  return std::has_single_bit(bytes) && bytes >= (64 << 10) && bytes <= (1 << 30) ? bytes : 0;
}

spool::EventSink tell_on(const Report& report) {
  return [&report](spool::Level level, std::string_view text) {
    if (level != spool::Level::info) report.warning(text);
  };
}

int purge_messages(const SpoolOptions& options, const SpoolSurvey& survey) {
  const auto size = segment_bytes(survey);
  spool::Options of_log{.directory = survey.directory(), .segment_bytes = size};
  of_log.bytes_max = std::max(of_log.bytes_max, 16 * size);
  const Report report(false);
  auto log = spool::Log::open(spool::posix_file_system(), of_log, now_ms(), tell_on(report));
  if (!log) return failed(log.error());
  // Nobody else writes any more: now it can be said what goes.
  auto held = SpoolSurvey::open(options.directory);
  if (!held) return failed(held.error());
  if (auto done = read(*held, options, {}); !done) return failed(done.error());
  if (const auto purged = (*log)->purge(); !purged) return failed(purged.error());
  log->reset();
  const auto after = SpoolSurvey::open(options.directory);
  if (!after) return failed(after.error());
  const auto before_bytes = survey.totals().bytes;
  Sheet sheet;
  const auto& [waiting, missing] = std::pair(held->totals().waiting, held->totals().missing);
  sheet.line("purged " + count_of(waiting, "waiting message", "waiting messages") +
             (missing ? ", and gave up " + std::to_string(missing) + " missing" : "") + "; " +
             size_text(before_bytes - std::min(before_bytes, after->totals().bytes)) + " freed, " +
             size_text(after->totals().bytes) + " kept for what comes");
  return sheet.end(exit_success);
}

int purge(const SpoolOptions& options) {
  auto survey = SpoolSurvey::open(options.directory);
  if (!survey) return failed(survey.error());
  if (options.bad) return purge_bad(options, *survey);
  if (options.yes) return purge_messages(options, *survey);
  if (auto done = read(*survey, options, {}); !done) return failed(done.error());
  return refuse_without_yes(count_of(survey->totals().waiting, "waiting message", "waiting messages"),
                            "fulmar spool purge " + options.directory + " --yes");
}

}  // namespace

int run_spool(std::span<const std::string_view> words) {
  const auto parsed = parse_spool(words);
  if (parsed.help) {
    Sheet sheet;
    sheet.text() = parsed.command ? spool_help(*parsed.command) : spool_help();
    return sheet.end(exit_success);
  }
  if (!parsed.options) {
    const std::string command = parsed.command ? " " + std::string(name_of(*parsed.command)) : "";
    Report::usage("spool" + command, parsed.error);
    return exit_failure;
  }
  switch (parsed.options->command) {
    case SpoolCommand::inspect: return inspect(*parsed.options);
    case SpoolCommand::verify: return verify(*parsed.options);
    case SpoolCommand::export_messages: return export_messages(*parsed.options);
    case SpoolCommand::purge: return purge(*parsed.options);
  }
  return exit_failure;
}

}  // namespace fulmar::cli
