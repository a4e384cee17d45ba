#include "cli/sub.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "cli/exit_code.hpp"
#include "cli/format.hpp"
#include "cli/link.hpp"
#include "cli/output.hpp"
#include "fulmar/mqtt/topic.hpp"

namespace fulmar::cli {
namespace {

using namespace std::chrono_literals;

constexpr auto goodbye_deadline = 1s;   // for DISCONNECT
constexpr auto removal_deadline = 10s;  // for the answers to --remove-retained

class Subscriber {
 public:
  Subscriber(const SubOptions& options, Link& link, Events& events, const Report& report)
      : options_(options),
        link_(link),
        events_(events),
        report_(report),
        format_(make_format(options)),
        output_(STDOUT_FILENO, events),
        grants_(options.filters.size()) {}

  bool subscribe();
  // Prints until the end; the exit code.
  int run();
  void close();

 private:
  static Format make_format(const SubOptions& options);
  // --- dispatch thread
  void on_message(std::size_t filter, const Message& message);
  void on_granted(std::size_t filter, std::uint8_t reason_code);
  void finish();
  bool subscriptions_answered() const;  // both threads
  bool is_first_match(std::size_t filter, const Message& message) const;
  // --- main thread
  std::optional<int> ending();
  std::optional<int> write_out();
  std::optional<int> subscriptions_ending();
  void await_last_handler();

  const SubOptions& options_;
  Link& link_;
  Events& events_;
  const Report& report_;
  const Format format_;
  Output output_;
  std::optional<Events::Clock::time_point> until_;

  // --- dispatch thread
  std::string line_;
  std::uint64_t printed_ = 0;
  bool last_seen_ = false;

  std::atomic<bool> finished_{false};  // set on the dispatch thread, after the last append
  std::atomic<std::uint64_t> handled_at_end_{0};
  enum class Grant : std::uint8_t { none, granted, refused };
  std::vector<std::atomic<Grant>> grants_;  // by filter; written on the dispatch thread
};

Format Subscriber::make_format(const SubOptions& options) {
  // Parsing the options has compiled the text once already.
  if (options.format) return Format::compile(*options.format, options.pretty).value_or(Format::payload());
  return options.verbose ? Format::verbose() : Format::payload();
}

bool Subscriber::subscribe() {
  const SubscribeOptions wanted{
      .qos = options_.common.qos, .no_local = false, .retain_as_published = options_.retain_as_published};
  for (std::size_t i = 0; i < options_.filters.size(); ++i) {
    auto subscription = link_.client().subscribe(
        options_.filters[i], [this, i](const Message& message) { on_message(i, message); }, wanted,
        [this, i](std::uint8_t reason_code) { on_granted(i, reason_code); });
    if (!subscription) {
      report_.error(subscription.error().message);
      return false;
    }
    subscription->detach();
  }
  return true;
}

// A message is printed once for each time it is received, however many of our filters it matches. A copy that names one
// subscription reaches that one's handler only.
bool Subscriber::is_first_match(std::size_t filter, const Message& message) const {
  int named = 0;
  for (const auto& property : message.properties)
    named += property.id == mqtt::PropertyId::subscription_identifier;
  if (named == 1) return true;
  const auto matches_topic = [&](const std::string& other) { return mqtt::matches(other, message.topic); };
  return std::none_of(options_.filters.begin(),
                      options_.filters.begin() + static_cast<std::ptrdiff_t>(filter), matches_topic);
}

void Subscriber::on_message(std::size_t filter, const Message& message) {
  if (last_seen_) {
    // Not to be printed, hence not to be acknowledged: the server keeps it for the session's next connection.
    // A message is acknowledged when its handler returns, so this one waits until the goodbye has been said.
    link_.client().wait_for(ConnectionState::disconnected, 2 * std::chrono::milliseconds(goodbye_deadline));
    return;
  }
  if (!is_first_match(filter, message)) return;
  if (options_.retained_only && !message.retain) return finish();
  if (std::ranges::any_of(options_.filter_outs,
                          [&](const auto& out) { return mqtt::matches(out, message.topic); })) {
    return;
  }
  if (options_.remove_retained && message.retain && !message.payload.empty()) {
    const PublishOptions removal{.qos = QoS::at_least_once, .retain = true, .message_expiry = {}};
    if (const auto accepted = link_.client().publish(message.topic, BytesView{}, removal); !accepted) {
      report_.error(accepted.error().message);
    }
  }
  if (options_.skip_retained && message.retain) return;

  line_.clear();
  const auto time = format_.needs_time() ? WallTime::now() : WallTime{};
  if (!format_.render(message, time, options_.end_of_line, line_)) {
    report_.error("message payload is not valid JSON on topic '" + std::string(message.topic) + "'");
  }
  if (!line_.empty()) output_.append(line_);
  if (++printed_ == options_.count) finish();
}

void Subscriber::finish() {
  last_seen_ = true;
  // Only this thread counts messages as handled: this one will be the next.
  handled_at_end_.store(link_.client().metrics().handled + 1);
  finished_.store(true);
  events_.ring();
}

void Subscriber::on_granted(std::size_t filter, std::uint8_t reason_code) {
  const bool refused = reason_code >= 0x80;
  if (refused) {
    const auto why = mqtt::to_string(static_cast<mqtt::ReasonCode>(reason_code));
    report_.warning("the server refused the subscription to '" + options_.filters[filter] +
                    "': " + std::string(why));
  }
  grants_[filter].store(refused ? Grant::refused : Grant::granted);
  // With -E no message is wanted, even when it came together with the last SUBACK.
  if (options_.exit_when_subscribed && subscriptions_answered()) last_seen_ = true;
  events_.ring();
}

bool Subscriber::subscriptions_answered() const {
  return std::ranges::none_of(grants_, [](const auto& grant) { return grant.load() == Grant::none; });
}

std::optional<int> Subscriber::subscriptions_ending() {
  if (!subscriptions_answered()) return std::nullopt;
  if (std::ranges::all_of(grants_, [](const auto& grant) { return grant.load() == Grant::refused; })) {
    report_.plain("All subscription requests were denied.");
    return exit_success;
  }
  return options_.exit_when_subscribed ? std::optional<int>(exit_success) : std::nullopt;
}

std::optional<int> Subscriber::write_out() {
  switch (output_.write_all()) {
    case Output::Result::written:
    case Output::Result::signal:  // ending() sees it
      return std::nullopt;
    case Output::Result::closed_by_reader: return exit_success;  // as with `| head -1`: nobody wants more
    case Output::Result::failed:
      report_.error(std::string("cannot write to stdout: ") + std::strerror(output_.error()));
      return exit_failure;
  }
  return std::nullopt;
}

std::optional<int> Subscriber::ending() {
  if (events_.signal()) return exit_success;
  if (const auto status = link_.status(); status.failure) {
    report_.error(status.failure->reason);
    return status.failure->exit_code;
  }
  if (finished_.load()) {
    // All was appended before the flag was set.
    return write_out().value_or(exit_success);
  }
  if (const auto code = subscriptions_ending()) return code;
  if (until_ && Events::Clock::now() >= *until_) {
    report_.plain("Timed out");
    return exit_timed_out;
  }
  return std::nullopt;
}

int Subscriber::run() {
  if (options_.timeout > 0s) until_ = Events::Clock::now() + options_.timeout;
  link_.start();
  for (;;) {
    if (const auto code = write_out()) return *code;
    if (const auto code = ending()) return *code;
    events_.wait({}, until_);
  }
}

// The goodbye must not overtake the acknowledgement of the last message, which a handler gives by returning.
void Subscriber::await_last_handler() {
  const auto until = Events::Clock::now() + goodbye_deadline;
  while (link_.client().metrics().handled < handled_at_end_.load() && Events::Clock::now() < until) {
    std::this_thread::yield();
  }
}

void Subscriber::close() {
  await_last_handler();
  if (options_.remove_retained && link_.status().connected && !events_.signal())
    link_.client().flush(removal_deadline);
  output_.close();
  link_.close(goodbye_deadline);
}

}  // namespace

int run_sub(const SubOptions& options) {
  const Report report(options.common.quiet);
  Events events;
  const auto link = open_link(Command::sub, client_config(options.common, random_client_id(), getpid()),
                              options.common, events);
  if (!link) return exit_failure;
  Subscriber subscriber(options, *link, events, report);
  if (!subscriber.subscribe()) return exit_failure;
  const int code = subscriber.run();
  subscriber.close();
  return code;
}

}  // namespace fulmar::cli
