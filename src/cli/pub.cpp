#include "cli/pub.hpp"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "cli/exit_code.hpp"
#include "cli/input.hpp"
#include "cli/link.hpp"

namespace fulmar::cli {
namespace {

using namespace std::chrono_literals;
using Source = PubOptions::Source;

constexpr auto goodbye_deadline = 1s;  // for DISCONNECT, when nothing is owed any more

// The shell that waits for us sees the signal, as if it had not been held back.
int end_by(int signal) {
  std::signal(signal, SIG_DFL);
  std::raise(signal);
  return 128 + signal;
}

class Publisher {
 public:
  Publisher(const PubOptions& options, Link& link, Events& events, const Report& report)
      : options_(options), link_(link), events_(events), report_(report) {}

  // Each returns an exit code when the command must end, else nothing.
  std::optional<int> wait_connected();
  std::optional<int> send_repeatedly(std::string_view payload);
  std::optional<int> send_lines();
  // What the deliveries say, when all has been sent.
  int result() const { return failed_.load() ? exit_failure : exit_success; }
  // The command ends; how the messages end that are still open is told already.
  void give_up() { given_up_.store(true); }

 private:
  std::optional<int> publish(std::string_view payload);
  std::optional<int> wait_settled();
  std::optional<int> pause(std::chrono::nanoseconds time);
  std::optional<int> trouble() const;
  void on_delivery(const Delivery& delivery);
  std::uint64_t open_messages() const { return published_ - settled_.load(); }

  const PubOptions& options_;
  Link& link_;
  Events& events_;
  const Report& report_;
  std::uint64_t published_ = 0;
  // Written by the dispatch thread. The main thread sets ring_ before it looks at settled_ and waits.
  std::atomic<std::uint64_t> settled_{0};
  std::atomic<bool> failed_{false};
  std::atomic<bool> ring_{false};
  std::atomic<bool> given_up_{false};
};

std::optional<int> Publisher::trouble() const {
  if (events_.signal()) return 128 + *events_.signal();
  const auto status = link_.status();
  if (status.failure) {
    report_.error(status.failure->reason);
    return status.failure->exit_code;
  }
  // Lines go on after a reconnect, as a stream should; a single message that may be lost is told at once.
  if (status.losses > 0 && options_.source != Source::stdin_lines && open_messages() > 0) {
    report_.error("the connection was lost before the message was acknowledged: " + status.last_loss);
    return exit_connection_lost;
  }
  return std::nullopt;
}

std::optional<int> Publisher::wait_connected() {
  for (;;) {
    if (const auto code = trouble()) return code;
    if (link_.status().ever_connected) return std::nullopt;
    events_.wait();
  }
}

void Publisher::on_delivery(const Delivery& delivery) {
  if (given_up_.load()) return;
  const auto reason = mqtt::to_string(static_cast<mqtt::ReasonCode>(delivery.reason_code));
  switch (delivery.outcome) {
    case Delivery::Outcome::sent:
    case Delivery::Outcome::acknowledged: break;
    case Delivery::Outcome::refused: {
      // A server's own refusal of one message is a warning, as with mosquitto_pub; a message that cannot be
      // sent to this server at all is a failure.
      const auto code = static_cast<mqtt::ReasonCode>(delivery.reason_code);
      if (code == mqtt::ReasonCode::packet_too_large || code == mqtt::ReasonCode::qos_not_supported ||
          code == mqtt::ReasonCode::retain_not_supported) {
        failed_.store(true);
        report_.error("the server does not take the message for '" + options_.topic +
                      "': " + std::string(reason));
      } else {
        report_.warning("the server refused the message for '" + options_.topic +
                        "': " + std::string(reason));
      }
      break;
    }
    case Delivery::Outcome::stored: break;
    case Delivery::Outcome::expired:
    case Delivery::Outcome::dropped:
      failed_.store(true);
      report_.error("the message for '" + options_.topic +
                    "' was not sent: " + std::string(to_string(delivery.outcome)));
      break;
  }
  settled_.fetch_add(1);
  if (ring_.load()) events_.ring();
}

std::optional<int> Publisher::publish(std::string_view payload) {
  const PublishOptions options{.qos = options_.common.qos, .retain = options_.retain, .message_expiry = {}};
  for (;;) {
    const auto settled = settled_.load();
    const auto accepted = link_.client().publish(options_.topic, as_bytes(payload), options,
                                                 [this](const Delivery& delivery) { on_delivery(delivery); });
    if (accepted) {
      ++published_;
      return std::nullopt;
    }
    if (accepted.error().code != Errc::outbox_full || open_messages() == 0) {
      report_.error(accepted.error().message);
      return exit_failure;
    }
    // Full: the reader of our lines waits until some message has ended.
    ring_.store(true);
    std::optional<int> code;
    while (!code && settled_.load() == settled) {
      code = trouble();
      if (!code && settled_.load() == settled) events_.wait();
    }
    ring_.store(false);
    if (code) return code;
  }
}

std::optional<int> Publisher::wait_settled() {
  ring_.store(true);
  std::optional<int> code;
  while (open_messages() > 0 && !(code = trouble())) events_.wait();
  ring_.store(false);
  return code;
}

std::optional<int> Publisher::pause(std::chrono::nanoseconds time) {
  const auto until = Events::Clock::now() + time;
  while (Events::Clock::now() < until) {
    if (const auto code = trouble()) return code;
    events_.wait({}, until);
  }
  return std::nullopt;
}

std::optional<int> Publisher::send_repeatedly(std::string_view payload) {
  for (std::uint32_t sent = 0; sent < options_.repeat; ++sent) {
    std::optional<int> code;
    if (sent > 0 && options_.repeat_delay > 0ns) code = pause(options_.repeat_delay);
    if (!code) code = publish(payload);
    if (!code) code = wait_settled();
    if (code) return code;
  }
  return std::nullopt;
}

std::optional<int> Publisher::send_lines() {
  LineSplitter lines;
  std::string buffer(std::size_t{64} << 10, '\0');
  std::optional<int> code;
  while (!code) {
    code = trouble();
    if (code) break;
    if (!events_.wait({.fd = STDIN_FILENO, .events = POLLIN})) continue;
    const auto size = read(STDIN_FILENO, buffer.data(), buffer.size());
    if (size < 0) {
      if (errno == EINTR || errno == EAGAIN) continue;
      report_.error(std::string("cannot read stdin: ") + std::strerror(errno));
      return exit_failure;
    }
    if (size == 0) {
      if (!lines.rest().empty()) code = publish(lines.rest());
      if (!code) code = wait_settled();
      return code;
    }
    lines.feed({buffer.data(), static_cast<std::size_t>(size)}, [&](std::string_view line) {
      if (!code) code = publish(line);
    });
    if (lines.rest().size() > payload_max) {
      report_.error("a line of stdin is larger than a message may be (" + std::to_string(payload_max) +
                    " bytes)");
      return exit_failure;
    }
  }
  return code;
}

Result<std::string> load_payload(const PubOptions& options) {
  switch (options.source) {
    case Source::message: return options.text;
    case Source::file: return read_file(options.text);
    case Source::stdin_whole: return read_stdin();
    default:  // null; lines come later
      return std::string();
  }
}

}  // namespace

int run_pub(const PubOptions& options) {
  const Report report(options.common.quiet);
  const auto payload = load_payload(options);
  if (!payload) {
    report.error(payload.error().message);
    return exit_failure;
  }

  Events events;
  auto config = client_config(options.common, random_client_id(), getpid());
  config.overflow = Overflow::reject;
  config.outbox_bytes = std::max(config.outbox_bytes, payload->size() + (std::size_t{1} << 20));
  const auto link = open_link(Command::pub, std::move(config), options.common, events);
  if (!link) return exit_failure;

  Publisher publisher(options, *link, events, report);
  link->start();
  auto code = publisher.wait_connected();
  if (!code)
    code =
        options.source == Source::stdin_lines ? publisher.send_lines() : publisher.send_repeatedly(*payload);
  if (code) publisher.give_up();
  link->close(code ? 0ms : std::chrono::milliseconds(goodbye_deadline));
  if (events.signal()) return end_by(*events.signal());
  return code.value_or(publisher.result());
}

}  // namespace fulmar::cli
