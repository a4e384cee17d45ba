#include "cli/telemetry.hpp"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <deque>

#include "cli/exit_code.hpp"
#include "cli/link.hpp"
#include "cli/progress.hpp"
#include "client/backlog.hpp"
#include "client/reasons.hpp"
#include "spool/log.hpp"
#include "telemetry/host_source.hpp"
#include "telemetry/line_source.hpp"

namespace fulmar::cli {
namespace {

using namespace std::chrono_literals;
using telemetry::HostSource;
using telemetry::LineSource;
using Clock = Events::Clock;

constexpr auto frame = 200ms;            // of the progress line
constexpr auto rate_window = 2s;         // that its rate is taken over
constexpr auto drain_step = 50ms;        // how late a signal may be seen while the last records go out
constexpr auto drain_after_signal = 5s;  // when the broker is there
constexpr auto store_deadline = 5s;      // for what goes to disk instead
constexpr auto goodbye_deadline = 1s;    // for DISCONNECT, when nothing is owed any more
constexpr std::size_t outbox_bytes = std::size_t{64} << 20;  // batches wait there while the broker is away

// A refusal that will not go away by itself.
bool is_final(const Link::Failure& failure) {
  if (!failure.by_server) return false;
  if (failure.exit_code < 0x80) return failure.exit_code != 3;  // 3.1.1: server unavailable
  return is_permanent(static_cast<mqtt::ReasonCode>(failure.exit_code));
}

int end_by(int signal) {
  std::signal(signal, SIG_DFL);
  std::raise(signal);
  return 128 + signal;
}

// This machine, or a text: whatever the records come from.
class Source {
 public:
  static Result<std::unique_ptr<Source>> open(const TelemetryOptions& options, Telemetry& telemetry,
                                              Events& events,
                                              const std::function<void(const std::string&)>& warn);

  void start() { host_ ? host_->start() : lines_->start(); }
  void stop() { host_ ? host_->stop() : lines_->stop(); }
  bool is_host() const { return host_ != nullptr; }
  bool ended() const { return host_ ? host_count_ >= count_max_ && count_max_ > 0 : lines_->stats().ended; }
  LineSource::Stats stats() const { return lines_ ? lines_->stats() : LineSource::Stats{}; }

 private:
  std::unique_ptr<HostSource> host_;
  std::unique_ptr<LineSource> lines_;
  std::uint64_t count_max_ = 0;
  std::atomic<std::uint64_t> host_count_{0};
};

Result<std::unique_ptr<Source>> Source::open(const TelemetryOptions& options, Telemetry& telemetry,
                                             Events& events,
                                             const std::function<void(const std::string&)>& warn) {
  auto source = std::make_unique<Source>();
  source->count_max_ = options.count;
  if (options.source == "host") {
    const HostSource::Config config{.rate_hz = options.rate_hz > 0 ? options.rate_hz : 10};
    source->host_ = std::make_unique<HostSource>(config, [&, self = source.get()](const Measurement& record) {
      if (self->ended()) return;
      telemetry.record(record);
      ++self->host_count_;
      if (self->ended()) events.ring();
    });
    return source;
  }
  auto lines = LineSource::open({.path = options.source,
                                 .format = options.format,
                                 .rate_hz = options.rate_hz,
                                 .records_max = options.count},
                                {.offer = [&](const Measurement& record) { return telemetry.offer(record); },
                                 .record = [&](const Measurement& record) { telemetry.record(record); },
                                 .bad_line =
                                     [warn](const telemetry::BadLine& bad) {
                                       warn("line " + std::to_string(bad.line) + ": " + bad.what);
                                     },
                                 .ended = [&] { events.ring(); }});
  if (!lines) return std::unexpected(lines.error());
  source->lines_ = std::move(*lines);
  return source;
}

// The command while it runs.
class Session {
 public:
  // `left_before`: messages that a former run has left in the spool.
  Session(const TelemetryOptions& options, Link& link, Events& events, const Report& report,
          std::uint64_t left_before)
      : options_(options),
        left_before_(left_before),
        link_(link),
        events_(events),
        report_(report),
        line_(isatty(STDERR_FILENO) == 1 && !options.common.quiet && !options.common.debug ? STDERR_FILENO
                                                                                           : -1),
        telemetry_(link.client(), config()) {}

  int run();

 private:
  TelemetryConfig config();
  void publish_attributes();
  void warn(const std::string& text) {
    line_.interrupt([&] { report_.warning(text); });
  }
  void say(const std::string& text) {
    line_.interrupt([&] { report_.plain(text); });
  }

  void feed();   // until the source has ended, by itself or because it was stopped
  void drain();  // until every record has an outcome, with a spool also what former runs have left
  bool drained(bool stopped);
  bool has_spool() const { return !options_.spool_dir.empty(); }
  void watch_connection();
  void show_progress();
  double per_second(std::uint64_t records);
  bool refused() const { return refusal_.has_value(); }
  int finish();
  int exit_code(const TelemetryStats& stats, std::uint64_t bad_lines) const;

  const TelemetryOptions& options_;
  const std::uint64_t left_before_;
  Link& link_;
  Events& events_;
  const Report& report_;
  ProgressLine line_;
  Telemetry telemetry_;
  std::unique_ptr<Source> source_;  // calls telemetry_
  const Clock::time_point begin_ = Clock::now();
  std::optional<Link::Failure> refusal_;
  bool away_told_ = false;
  std::uint64_t losses_told_ = 0;
  bool cut_short_ = false;  // by a signal, before the end of the input
  bool out_of_patience_ = false;
  std::atomic<bool> attributes_lost_{false};
  struct Sample {
    Clock::time_point at;
    std::uint64_t records;
  };
  std::deque<Sample> samples_;
};

TelemetryConfig Session::config() {
  auto config = options_.config;
  config.log = [this](LogLevel level, std::string_view, std::string_view text) {
    if (level >= LogLevel::warning)
      warn(std::string(text));
    else
      say(std::string(text));
  };
  return config;
}

void Session::publish_attributes() {
  if (options_.attributes.empty()) return;
  Measurement attributes;
  for (const auto& [name, value] : options_.attributes)
    if (const auto wrong = telemetry::add_inferred(attributes, name, value); !wrong.empty())
      warn("attribute left out: " + wrong);
  const auto accepted = telemetry_.publish_attributes(attributes, [this](const Delivery& delivery) {
    if (delivery.outcome == Delivery::Outcome::acknowledged || delivery.outcome == Delivery::Outcome::sent)
      return;
    attributes_lost_ = true;
    warn("the attributes were not delivered to '" + options_.config.attributes_topic +
         "': " + std::string(to_string(delivery.outcome)));
  });
  if (accepted) return;
  attributes_lost_ = true;
  warn("the attributes were not sent: " + accepted.error().message);
}

int Session::run() {
  auto source = Source::open(options_, telemetry_, events_, [this](const std::string& text) { warn(text); });
  if (!source) {
    report_.error(source.error().message);
    return exit_failure;
  }
  source_ = std::move(*source);
  link_.start();
  telemetry_.start();
  publish_attributes();
  source_->start();
  feed();
  cut_short_ = events_.signal() && !source_->is_host() && !source_->ended();
  source_->stop();
  if (!refused() || has_spool()) drain();
  watch_connection();
  return finish();
}

void Session::feed() {
  const auto end = options_.duration > 0ns ? std::optional(begin_ + options_.duration) : std::nullopt;
  while (!events_.signal() && !refused() && !source_->ended() && !(end && Clock::now() >= *end)) {
    auto until = end;
    if (line_.enabled()) until = std::min(end.value_or(Clock::time_point::max()), Clock::now() + frame);
    events_.wait({}, until);
    watch_connection();
    show_progress();
  }
}

void Session::drain() {
  const bool stopped = events_.signal().has_value();
  if (stopped) events_.release_signals();  // the next one ends the process
  const auto patience = [&]() -> std::optional<Clock::duration> {
    if (stopped && !link_.status().connected) return has_spool() ? Clock::duration(store_deadline) : 0s;
    if (stopped) return drain_after_signal;
    if (options_.patience > 0ns) return std::chrono::duration_cast<Clock::duration>(options_.patience);
    return std::nullopt;
  }();
  const auto begin = Clock::now();
  bool told = false;
  while (!drained(stopped)) {
    watch_connection();
    const auto waited = Clock::now() - begin;
    if ((refused() && !has_spool()) || (events_.signal() && !stopped)) return;
    if (patience && waited >= *patience) {
      out_of_patience_ = !stopped;
      return;
    }
    // Said once, when it takes longer than a healthy broker would.
    if (!told && (stopped || waited > 500ms)) {
      told = true;
      const auto waiting = has_spool() ? link_.client().metrics().waiting : telemetry_.stats().waiting;
      say(std::to_string(waiting) + (has_spool() ? " messages" : " records") +
          " wait for the broker; Ctrl-C " +
          (stopped       ? "again ends this at once"
           : has_spool() ? "leaves them in " + options_.spool_dir
                         : "gives them up"));
    }
    events_.wait({}, Clock::now());
    show_progress();
  }
}

bool Session::drained(bool stopped) {
  if (!telemetry_.flush(drain_step)) return false;
  if (!has_spool()) return true;
  const auto metrics = link_.client().metrics();
  if (metrics.waiting == 0 && (metrics.recovered > 0 || left_before_ == 0)) return true;
  // All of it is on disk. It stays there when the broker is away, but one that was not asked yet may be there.
  const auto status = link_.status();
  if (status.connected) {
    events_.wait({}, Clock::now() + drain_step);
    return false;
  }
  return stopped || (options_.patience == 0ns && (status.failure || status.losses > 0));
}

void Session::watch_connection() {
  const auto status = link_.status();
  if (status.failure && is_final(*status.failure)) {
    if (!refused()) line_.interrupt([&] { report_.error(status.failure->reason); });
    refusal_ = status.failure;
    return;
  }
  if (status.failure && !status.ever_connected && !std::exchange(away_told_, true))
    warn(status.failure->reason + "; records wait until it is there");
  if (status.losses > losses_told_) {
    losses_told_ = status.losses;
    away_told_ = true;
    warn("the connection was lost: " + status.last_loss + "; records wait until it is back");
  }
  if (status.connected && std::exchange(away_told_, false)) say("Connected.");
}

double Session::per_second(std::uint64_t records) {
  samples_.push_back({Clock::now(), records});
  while (samples_.size() > 2 && samples_[1].at <= samples_.back().at - rate_window) samples_.pop_front();
  const auto time = std::chrono::duration<double>(samples_.back().at - samples_.front().at).count();
  return time > 0 ? static_cast<double>(records - samples_.front().records) / time : 0;
}

void Session::show_progress() {
  if (!line_.enabled()) return;
  const auto stats = telemetry_.stats();
  const auto input = source_->stats();
  Progress progress{.elapsed = Clock::now() - begin_,
                    .records = stats.recorded,
                    .per_s = per_second(stats.recorded),
                    .batches = stats.batches_sent,
                    .waiting = stats.waiting,
                    .stored = stats.offline_stored,
                    .lost = stats.dropped.total() - stats.dropped.empty,
                    .bad_lines = input.bad_lines,
                    .connection = std::string(to_string(link_.client().state()))};
  if (input.bytes_total > 0)
    progress.share = static_cast<double>(input.bytes) / static_cast<double>(input.bytes_total);
  line_.show(progress);
}

int Session::finish() {
  const bool delivered = !refused() && telemetry_.stats().waiting == 0;
  telemetry_.stop(0ms);
  const auto closed = link_.close(has_spool() ? std::chrono::milliseconds(store_deadline)
                                  : delivered ? std::chrono::milliseconds(goodbye_deadline)
                                              : 0ms);
  line_.clear();
  auto stats = telemetry_.stats();
  const auto metrics = link_.client().metrics();
  if (closed.spooled == 0 && metrics.dropped + metrics.refused + metrics.expired == 0) {
    // What was stored in between has gone out too.
    stats.messages_sent += std::exchange(stats.offline_stored, 0);
    stats.batches_sent = stats.batches_queued;
  }
  const auto input = source_->stats();
  if (input.bad_lines > LineSource::bad_lines_told_max)
    report_.warning(std::to_string(input.bad_lines - LineSource::bad_lines_told_max) +
                    " more lines were no records");
  if (input.failure) report_.error(input.failure->message);
  if (!options_.common.quiet) {
    const auto sent = options_.config.qos == QoS::at_most_once ? "sent" : "acknowledged";
    const auto text = render_summary(stats, sent, input.bad_lines, Clock::now() - begin_) + "\n";
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
    if (closed.spooled > 0)
      report_.plain(std::to_string(closed.spooled) +
                    (closed.spooled == 1 ? " message waits in " : " messages wait in ") + options_.spool_dir +
                    " for the next run with --spool");
  }
  return exit_code(stats, input.bad_lines);
}

int Session::exit_code(const TelemetryStats& stats, std::uint64_t bad_lines) const {
  if (refused()) return refusal_->exit_code;
  if (source_->stats().failure) return exit_failure;
  if (cut_short_) return end_by(*events_.signal());
  if (out_of_patience_) return exit_timed_out;
  if (stats.dropped.total() > stats.dropped.empty || stats.waiting > 0 || attributes_lost_)
    return exit_records_lost;
  return bad_lines > 0 ? exit_bad_lines : exit_success;
}

}  // namespace

namespace {

// The client would go on without a spool that it cannot use; here one was asked for. Returns what waits in it.
Result<std::uint64_t> look_into_spool(const ClientConfig& config, const Report& report) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto tell = [&](spool::Level level, std::string_view text) {
    if (level != spool::Level::info) report.warning(text);
  };
  const auto log = spool::Log::open(spool::posix_file_system(), Backlog::options_for(config).log,
                                    std::chrono::duration_cast<std::chrono::milliseconds>(now).count(), tell);
  if (!log) return std::unexpected(log.error());
  return (*log)->stats().entries;
}

}  // namespace

int run_telemetry(const TelemetryOptions& options) {
  const Report report(options.common.quiet);
  Events events;
  auto config = client_config(options.common, random_client_id(), getpid());
  config.overflow = Overflow::reject;  // what does not fit is offered again, so that nothing is lost
  config.outbox_bytes = outbox_bytes;
  config.spool_dir = options.spool_dir;
  config.spool_bytes = options.spool_bytes;
  config.durability = options.durability;
  std::uint64_t left_before = 0;
  if (!options.spool_dir.empty() && config.problems().empty()) {
    const auto left = look_into_spool(config, report);
    if (!left) {
      report.error(left.error().message);
      return exit_failure;
    }
    left_before = *left;
  }
  const auto link = open_link(Command::telemetry, std::move(config), options.common, events);
  if (!link) return exit_failure;
  return Session(options, *link, events, report, left_before).run();
}

}  // namespace fulmar::cli
