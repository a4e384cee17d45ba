#include "daemon/app.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spdlog/async.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/ringbuffer_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>

#include "daemon/broker_child.hpp"
#include "daemon/screen.hpp"
#include "daemon/status.hpp"
#include "daemon/stop_signals.hpp"
#include "fulmar/client.hpp"
#include "fulmar/telemetry.hpp"
#include "telemetry/host_source.hpp"
#include "telemetry/line_source.hpp"

namespace fulmar::daemon {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto frame_interval = 250ms;
constexpr auto line_interval = 1s;
constexpr auto report_interval = 60s;  // in the log, when there is no live status
constexpr auto rate_window = 2s;
constexpr std::size_t events_shown = 6;
// Everything together stays well under the two seconds that a stop may take.
constexpr auto drain_patience = 800ms;
constexpr auto drain_patience_offline = 50ms;
constexpr auto shutdown_patience = 400ms;

spdlog::level::level_enum level_of(LogLevel level) {
  switch (level) {
    case LogLevel::debug: return spdlog::level::debug;
    case LogLevel::info: return spdlog::level::info;
    case LogLevel::warning: return spdlog::level::warn;
    case LogLevel::error: return spdlog::level::err;
  }
  return spdlog::level::info;
}

// The daemon's log: to a file, to standard error, or into the live status. Never waits for its output.
class Log {
 public:
  Log(const DaemonConfig& config, bool live, bool terminal) {
    pool_ = std::make_shared<spdlog::details::thread_pool>(1024, 1);
    std::vector<spdlog::sink_ptr> sinks;
    if (!config.log_file.empty())
      sinks.push_back(std::make_shared<spdlog::sinks::basic_file_sink_mt>(config.log_file));
    if (live && terminal) {
      recent_ = std::make_shared<spdlog::sinks::ringbuffer_sink_mt>(events_shown);
      recent_->set_pattern("%H:%M:%S %v");
      sinks.push_back(recent_);
    } else if (live) {
      sinks.push_back(std::make_shared<spdlog::sinks::stdout_sink_mt>());
      sinks.back()->set_pattern("%H:%M:%S %v");
    } else if (sinks.empty()) {
      sinks.push_back(std::make_shared<spdlog::sinks::stderr_sink_mt>());
    }
    if (!live || !config.log_file.empty()) sinks.front()->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
    logger_ = std::make_shared<spdlog::async_logger>("fulmard", sinks.begin(), sinks.end(), pool_,
                                                     spdlog::async_overflow_policy::overrun_oldest);
    logger_->set_level(spdlog::level::from_str(config.log_level == "error" ? "err" : config.log_level));
    logger_->flush_on(spdlog::level::info);
    logger_->set_error_handler(
        [](const std::string&) {});  // a closed pipe is noticed elsewhere; a full disk is not ours
  }

  // Any thread. The pool's queue takes a copy and drops the oldest line when it is full.
  void write(spdlog::level::level_enum level, std::string_view text) {
    if (logger_) logger_->log(level, text);
  }
  LogSink sink() {
    return [this](LogLevel level, std::string_view component, std::string_view text) {
      if (component == "connection") return;  // told by the state changes
      write(level_of(level), fmt::format("{}: {}", component, text));
    };
  }
  std::vector<std::string> recent() const {
    if (!recent_) return {};
    auto lines = recent_->last_formatted();
    for (std::string& line : lines)
      while (line.ends_with('\n') || line.ends_with('\r')) line.pop_back();
    return lines;
  }
  // Waits until all that was logged is written. Only when nobody logs any more.
  void close() {
    pool_.reset();  // its thread writes what is queued and ends
    logger_.reset();
  }

 private:
  std::shared_ptr<spdlog::sinks::ringbuffer_sink_mt> recent_;
  std::shared_ptr<spdlog::async_logger> logger_;
  std::shared_ptr<spdlog::details::thread_pool> pool_;  // its thread ends before the logger does
};

// How fast some counters have been growing of late.
class Rates {
 public:
  struct Counters {
    std::uint64_t records = 0, batches = 0, replayed = 0;
  };
  void add(Clock::time_point at, Counters counters) {
    samples_.push_back({at, counters});
    while (samples_.size() > 2 && samples_[1].at <= at - rate_window) samples_.pop_front();
  }
  double records_per_s() const { return per_s(&Counters::records); }
  double batches_per_s() const { return per_s(&Counters::batches); }
  double replayed_per_s() const { return per_s(&Counters::replayed); }

 private:
  struct Sample {
    Clock::time_point at;
    Counters counters;
  };
  double per_s(std::uint64_t Counters::* counter) const {
    if (samples_.size() < 2) return 0;
    const double seconds = std::chrono::duration<double>(samples_.back().at - samples_.front().at).count();
    const auto grown = samples_.back().counters.*counter - samples_.front().counters.*counter;
    return seconds > 0 ? static_cast<double>(grown) / seconds : 0;
  }
  std::deque<Sample> samples_;
};

std::string describe(const StateChange& change) {
  std::string text = change.reason.empty() ? std::string(to_string(change.state)) : change.reason;
  // Bad user name or password, not authorised: 5.0's reason codes and 3.1.1's return codes.
  const std::uint8_t code = change.reason_code.value_or(0);
  if (change.state != ConnectionState::connected && (code == 0x86 || code == 0x87 || code == 4 || code == 5))
    text += "; check the user name and the password (mqtt.username, mqtt.password or the URL)";
  if (change.retry_in > 0ms)
    text += fmt::format("; next attempt in {:.1f} s", std::chrono::duration<double>(change.retry_in).count());
  return text;
}

// The last change of the connection, told by the dispatch thread.
class ConnectionWatch {
 public:
  void changed(const StateChange& change) {
    const std::lock_guard lock(mutex_);
    last_ = change;
    at_ = Clock::now();
  }
  void fill(StatusSnapshot& s) const {
    const std::lock_guard lock(mutex_);
    s.state = last_.state;
    s.reason = describe(last_);
    s.since = std::chrono::duration_cast<std::chrono::seconds>(Clock::now() - at_);
  }

 private:
  mutable std::mutex mutex_;
  StateChange last_{};
  Clock::time_point at_ = Clock::now();
};

void complain(std::string_view text) { write_all(STDERR_FILENO, fmt::format("fulmard: {}\n", text)); }

// The parts, in the order in which they depend on each other: they go in the opposite order.
class App {
 public:
  App(AppOptions options, BrokerChild& broker, StopSignals& signals)
      : options_(std::move(options)),
        config_(options_.loaded.config),
        broker_(broker),
        signals_(signals),
        log_(config_, options_.live, screen_.is_terminal()),
        client_(config_.mqtt),
        telemetry_(client_, with_log(config_.telemetry)) {
    client_.set_log_sink(log_.sink());
    client_.on_state_change([this](const StateChange& change) {
      watch_.changed(change);
      log_.write(change.retry_in > 0ms ? spdlog::level::warn : spdlog::level::info,
                 "connection: " + describe(change));
    });
  }

  int run() {
    if (const auto opened = open_source(); !opened) {
      complain(opened.error().message);
      return exit_failed;
    }
    log_.write(spdlog::level::info,
               fmt::format("fulmard {} sends {} to {}", options_.version,
                           host_ ? fmt::format("this machine's measurements at {} Hz", config_.host.rate_hz)
                                 : fmt::format("the records of {}", input_name()),
                           url()));
    if (options_.loaded.needs_broker)
      log_.write(spdlog::level::info,
                 fmt::format("broker: our own mosquitto (pid {}) on port {}", broker_.pid(), broker_.port()));
    client_.start();
    if (!config_.queue.url.empty()) {
      queue_.emplace(config_.queue, [this](bool trouble, std::string_view text) {
        log_.write(trouble ? spdlog::level::warn : spdlog::level::info, fmt::format("work queue: {}", text));
      });
      queue_->start();
    }
    telemetry_.start();
    if (host_) host_->start();
    if (lines_) lines_->start();
    loop();
    return stop();
  }

 private:
  TelemetryConfig with_log(TelemetryConfig config) {
    config.log = log_.sink();
    return config;
  }

  Result<void> open_source() {
    if (config_.source == "host") {
      host_.emplace(config_.host, [this](const Measurement& m) { telemetry_.record(m); });
      return {};
    }
    auto config = config_.lines;
    config.path = config_.source;
    config.fifo_stays_open = true;
    auto lines = telemetry::LineSource::open(
        std::move(config), {.offer = [this](const Measurement& m) { return telemetry_.offer(m); },
                            .record = [this](const Measurement& m) { telemetry_.record(m); },
                            .bad_line =
                                [this](const telemetry::BadLine& bad) {
                                  log_.write(spdlog::level::warn,
                                             fmt::format("{} line {}: {}", input_name(), bad.line, bad.what));
                                },
                            .ended = [this] { input_ended_.store(true, std::memory_order_release); }});
    if (!lines) return std::unexpected(lines.error());
    lines_ = std::move(*lines);
    return {};
  }

  std::string input_name() const { return config_.source == "-" ? "standard input" : config_.source; }

  // The daemon stays: a service that ended with its input would be started again and send all of it twice.
  void tell_end_of_input() {
    if (!input_ended_.load(std::memory_order_acquire) || std::exchange(end_told_, true)) return;
    const auto stats = lines_->stats();
    if (stats.failure) return log_.write(spdlog::level::err, stats.failure->message);
    log_.write(spdlog::level::info, fmt::format("{} has ended after {} records and {} bad lines",
                                                input_name(), stats.records, stats.bad_lines));
  }

  std::string url() const {
    std::string all;
    for (const std::string& one : config_.mqtt.urls) all += (all.empty() ? "" : ",") + redacted_url(one);
    return all;
  }

  void loop() {
    auto next =
        Clock::now() + (options_.live ? Clock::duration(line_interval) : Clock::duration(report_interval));
    while (!signals_.requested() && output_open_) {
      pollfd stop{signals_.event(), POLLIN, 0};
      ::poll(&stop, 1, static_cast<int>(std::chrono::milliseconds(frame_interval).count()));
      const auto now = Clock::now();
      if (const auto event = broker_.supervise(now)) log_.write(spdlog::level::warn, "broker: " + *event);
      tell_end_of_input();
      const TelemetryStats stats = telemetry_.stats();
      const Metrics metrics = client_.metrics();
      rates_.add(now, {stats.recorded, metrics.acknowledged, metrics.replayed});
      if (options_.live && screen_.is_terminal()) {
        output_open_ = screen_.draw(snapshot(stats, metrics));
      } else if (now >= next) {
        next = now + (options_.live ? Clock::duration(line_interval) : Clock::duration(report_interval));
        const std::string line = render_line(snapshot(stats, metrics));
        if (options_.live)
          output_open_ = screen_.print_line(line);
        else
          log_.write(spdlog::level::info, line);
      }
    }
  }

  StatusSnapshot snapshot(const TelemetryStats& stats, const Metrics& metrics) const {
    StatusSnapshot s;
    s.version = options_.version;
    s.url = url();
    watch_.fill(s);
    s.uptime = std::chrono::duration_cast<std::chrono::seconds>(Clock::now() - begin_);
    if (options_.loaded.needs_broker) s.broker = {.pid = broker_.pid(), .restarts = broker_.restarts()};
    s.telemetry = stats;
    s.client = metrics;
    if (has_spool())
      s.disk = {.folder = config_.mqtt.spool_dir,
                .bytes_max = config_.mqtt.spool_bytes,
                .sent_per_s = rates_.replayed_per_s()};
    s.outbox_bytes_max = config_.mqtt.outbox_bytes;
    if (host_) s.host = host_->stats();
    if (lines_) s.input = {.path = config_.source, .stats = lines_->stats()};
    if (queue_) s.work = queue_->status();
    s.records_per_s = rates_.records_per_s();
    s.batches_per_s = rates_.batches_per_s();
    s.events = log_.recent();
    return s;
  }

  bool has_spool() const { return !config_.mqtt.spool_dir.empty(); }

  int stop() {
    const bool connected = client_.connected();
    const bool patient = connected || has_spool();  // there is somewhere for the rest to go
    const StateChange last = client_.last_change();
    if (host_) host_->stop();
    if (lines_) lines_->stop();
    if (queue_) queue_->stop();
    telemetry_.stop(patient ? drain_patience : drain_patience_offline);
    const ShutdownReport left = client_.shutdown(patient ? shutdown_patience : drain_patience_offline);
    broker_.stop();
    const TelemetryStats stats = telemetry_.stats();
    const auto host = host_ ? host_->stats() : telemetry::HostSource::Stats{};
    const auto& period = host.period;
    std::string text = render_totals(stats) + "\n";
    if (period.count)
      text += fmt::format("sampling period p50 {}, p99.9 {}, max {}, target {}\n", show_duration(period.p50),
                          show_duration(period.p999), show_duration(period.max),
                          show_duration(std::chrono::round<std::chrono::nanoseconds>(
                              std::chrono::duration<double>(host.target_s))));
    if (stats.dropped.undelivered)
      text += fmt::format("{} records were lost with this process: neither acknowledged nor stored\n",
                          stats.dropped.undelivered);
    const Metrics metrics = client_.metrics();
    if (left.spooled)
      text +=
          fmt::format("{} messages wait in {} for the next start\n", left.spooled, config_.mqtt.spool_dir);
    if (metrics.dropped_spool)
      text += fmt::format("{} stored messages were dropped from {}: over its bound, too old or damaged\n",
                          metrics.dropped_spool, config_.mqtt.spool_dir);
    if (metrics.connects == 0) text += "the broker was never reached: " + describe(last) + "\n";
    log_.close();
    screen_.close();
    write_all(options_.live ? STDOUT_FILENO : STDERR_FILENO, text);
    const bool lost = stats.dropped.total() > stats.dropped.empty || metrics.dropped_spool > 0;
    return lost || metrics.connects == 0 ? exit_undelivered : exit_ok;
  }

  const AppOptions options_;
  const DaemonConfig& config_;
  BrokerChild& broker_;
  StopSignals& signals_;
  const Clock::time_point begin_ = Clock::now();
  Screen screen_;
  Log log_;
  ConnectionWatch watch_;
  Rates rates_;
  bool output_open_ = true;
  Client client_;
  Telemetry telemetry_;
  std::optional<telemetry::HostSource> host_;  // one of these two
  std::unique_ptr<telemetry::LineSource> lines_;
  std::optional<QueueKeeper> queue_;
  std::atomic<bool> input_ended_{false};
  bool end_told_ = false;
};

}  // namespace

int run_app(AppOptions options) {
  BrokerChild broker;
  // The second Ctrl-C: nothing is waited for, only what outlives the process is tidied up.
  std::filesystem::path broker_directory;
  std::atomic<bool> has_directory{false};
  StopSignals signals([&] {
    Screen::restore_terminal();
    if (has_directory.load(std::memory_order_acquire)) {
      if (const pid_t pid = broker.pid(); pid > 0) ::kill(pid, SIGKILL);  // it would write there once more
      std::error_code error;
      std::filesystem::remove_all(broker_directory, error);
    }
    complain("stopped at once; records that were neither acknowledged nor stored are lost");
    ::_exit(exit_killed);
  });
  if (options.loaded.needs_broker) {
    if (const auto started = broker.start(); !started) {
      complain(started.error().message);
      return exit_failed;
    }
    broker_directory = broker.directory();
    has_directory.store(true, std::memory_order_release);  // pairs with the acquire above
    options.loaded.config.mqtt.urls = {broker.url()};
  }
  try {
    return App(std::move(options), broker, signals).run();
  } catch (const spdlog::spdlog_ex& error) {
    complain(fmt::format("log.file: {}", error.what()));
    return exit_bad_config;
  } catch (const std::exception& error) {
    complain(error.what());
    return exit_failed;
  }
}

}  // namespace fulmar::daemon
