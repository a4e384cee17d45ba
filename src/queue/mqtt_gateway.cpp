// QueueGateway: the dispatch thread puts messages into a list, one thread makes items of them, another one announces.
#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <boost/json.hpp>

#include "fulmar/queue_mqtt.hpp"
#include "queue/item_line.hpp"
#include "queue/service.hpp"

namespace fulmar {
namespace {

using namespace queue;
using namespace std::chrono_literals;
namespace json = boost::json;
using Steady = std::chrono::steady_clock;

constexpr std::size_t taken_at_once = 256;  // messages for one transaction
// When the store cannot take something now.
constexpr std::chrono::milliseconds pause_min = 50ms;
constexpr std::chrono::milliseconds pause_max = 5s;
// Announcements look this often for what nobody wakes them for.
constexpr std::chrono::nanoseconds look_at_least_every = 1s;

struct Received {
  OwnedMessage message;
  Acknowledgement acknowledgement;
};

// May the same be possible later?
bool is_passing(Errc code) {
  switch (code) {
    case Errc::queue_full:
    case Errc::timeout:
    case Errc::io_error:
    case Errc::connection_failed: return true;
    default: return false;
  }
}

// The items that a message describes: one object, or a list of them. Errors: invalid_item, payload_too_large.
Result<std::vector<NewItem>> items_of(std::string_view text) {
  const auto now = std::chrono::floor<Duration>(std::chrono::system_clock::now());
  const auto blank = text.find_first_not_of(" \t\r\n");
  std::vector<NewItem> items;
  if (blank == std::string_view::npos || text[blank] != '[') {
    auto item = item_of_line(text, {}, now);
    if (!item) return std::unexpected(std::move(item.error()));
    items.push_back(std::move(*item));
    return items;
  }
  if (!is_json(text)) return fulmar::fail(Errc::invalid_item, "the list is no JSON");
  for (const auto element : elements_of(text)) {
    auto item = item_of_line(element, {}, now);
    if (!item) {
      item.error().message =
          "item " + std::to_string(items.size() + 1) + " of the list: " + item.error().message;
      return std::unexpected(std::move(item.error()));
    }
    items.push_back(std::move(*item));
    if (auto ok = validate_batch(items.size()); !ok) return std::unexpected(std::move(ok.error()));
  }
  return items;
}

std::string answer_of(const Result<std::vector<Submitted>>& result) {
  json::object answer;
  answer["ok"] = result.has_value();
  if (result) {
    auto& items = answer["items"].emplace_array();
    for (const auto& item : *result) items.push_back({{"id", item.id}, {"created", item.created}});
  } else {
    answer["error"] = to_string(result.error().code);
    answer["message"] = result.error().message;
  }
  return json::serialize(answer);
}

}  // namespace

class QueueGateway::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(Client& client, const Queue& queue, QueueGatewayOptions options)
      : client_(client), queue_(queue.impl_), options_(std::move(options)) {}

  Result<void> start();
  void stop();
  QueueGatewayStats stats() const;

 private:
  void received(const Message& message);
  void submit();
  bool submit_some(std::vector<Received>& some);
  void finish(Received& received, const Result<std::vector<Submitted>>& result);
  bool retry_after(const Error& error);
  void announce();
  void tell(const Stats& stats);
  std::string topic(std::string_view last) const {
    return options_.prefix + "/" + queue_.name() + "/" + std::string(last);
  }
  void log(LogLevel level, const std::string& text) const {
    if (queue_.impl_->store().log) queue_.impl_->store().log(level, text);
  }

  Client& client_;
  Queue queue_;
  const QueueGatewayOptions options_;
  Subscription subscription_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool started_ = false;
  bool stopping_ = false;
  std::deque<Received> waiting_;
  std::size_t taken_ = 0;  // by submit(), without a commit yet
  QueueGatewayStats stats_{};
  std::chrono::milliseconds pause_ = pause_min;  // of submit() alone
  std::thread submitter_, announcer_;
};

// --- life -------------------------------------------------------------------------------------------------------------

Result<void> QueueGateway::Impl::start() {
  const auto out_of_range = [](const char* name, auto value, const char* range) {
    return fulmar::fail(Errc::invalid_config,
                        std::string(name) + " is " + std::to_string(value) + "; allowed are " + range);
  };
  if (options_.announce_interval < 1ms || options_.announce_interval > 1h)
    return out_of_range("announce_interval", options_.announce_interval.count(), "1 ms to 1 h");
  if (options_.waiting_max < 1 || options_.waiting_max > 1'000'000)
    return out_of_range("waiting_max", options_.waiting_max, "1 to 1000000");
  if (options_.prefix.empty() || options_.prefix.find_first_of("+#") != std::string::npos) {
    return fulmar::fail(
        Errc::invalid_topic,
        "prefix is \"" + options_.prefix + "\"; it has to be the beginning of a topic, e.g. fulmar/queue");
  }
  {
    const std::lock_guard lock(mutex_);
    if (started_)
      return fulmar::fail(Errc::invalid_config, "the gateway was started before; make another one");
    started_ = true;
  }
  if (options_.accept) {
    auto subscribed = client_.subscribe(topic("submit"),
                                        [weak = weak_from_this()](const Message& message) {
                                          if (const auto self = weak.lock()) self->received(message);
                                        },
                                        {.qos = QoS::at_least_once, .manual_ack = true});
    if (!subscribed) return std::unexpected(std::move(subscribed.error()));
    subscription_ = std::move(*subscribed);
    submitter_ = std::thread([this] { submit(); });
  }
  if (options_.announce) announcer_ = std::thread([this] { announce(); });
  return {};
}

void QueueGateway::Impl::stop() {
  {
    const std::lock_guard lock(mutex_);
    if (!started_ || stopping_) return;
    stopping_ = true;
  }
  changed_.notify_all();
  // Not unsubscribed: a session that lives on collects what is handed in while we are away.
  subscription_.detach();
  queue_.impl_->store().repository->wake(queue_.name());
  if (submitter_.joinable()) submitter_.join();
  if (announcer_.joinable()) announcer_.join();
  const std::lock_guard lock(mutex_);
  for (const auto& received : waiting_) stats_.dropped += received.message->qos == QoS::at_most_once;
  waiting_.clear();
}

QueueGatewayStats QueueGateway::Impl::stats() const {
  const std::lock_guard lock(mutex_);
  auto stats = stats_;
  stats.waiting = waiting_.size() + taken_;
  return stats;
}

// --- in ---------------------------------------------------------------------------------------------------------------

// On the client's dispatch thread.
void QueueGateway::Impl::received(const Message& message) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
    ++stats_.messages;
    if (message.qos == QoS::at_most_once && waiting_.size() + taken_ >= options_.waiting_max) {
      ++stats_.dropped;
      return;
    }
    waiting_.push_back({message.copy(), message.acknowledgement()});
  }
  changed_.notify_all();
}

void QueueGateway::Impl::submit() {
  std::vector<Received> some;
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || !waiting_.empty(); });
    if (stopping_) return;
    while (!waiting_.empty() && some.size() < taken_at_once) {
      some.push_back(std::move(waiting_.front()));
      waiting_.pop_front();
    }
    taken_ = some.size();
    lock.unlock();
    const bool done = submit_some(some);
    lock.lock();
    taken_ = 0;
    if (!done) return;  // stopping
    some.clear();
  }
}

// All in one transaction when that can be, each message in its own otherwise. False: stop() came before they all were done.
bool QueueGateway::Impl::submit_some(std::vector<Received>& some) {
  struct Part {
    Received* received;
    std::vector<NewItem> items;
  };
  std::vector<Part> parts;
  std::vector<NewItem> all;
  for (auto& received : some) {
    auto items = items_of(received.message->text());
    if (!items) {
      finish(received, std::unexpected(std::move(items.error())));
    } else {
      all.insert(all.end(), items->begin(), items->end());
      parts.push_back({&received, std::move(*items)});
    }
  }
  if (parts.size() > 1 && validate_batch(all.size())) {
    if (const auto submitted = queue_.submit_batch(all)) {
      auto next = submitted->begin();
      for (auto& part : parts) {
        const auto end = next + static_cast<std::ptrdiff_t>(part.items.size());
        finish(*part.received, std::vector<Submitted>(next, end));
        next = end;
      }
      return true;
    }
  }
  for (auto& part : parts) {
    for (;;) {
      auto submitted = queue_.submit_batch(part.items);
      if (!submitted && is_passing(submitted.error().code)) {
        if (!retry_after(submitted.error())) return false;
        continue;
      }
      // A message that comes again after its commit finds its own item.
      if (!submitted && submitted.error().code == Errc::already_exists && part.items.size() == 1)
        submitted = std::vector<Submitted>{{part.items[0].id, false}};
      finish(*part.received, submitted);
      break;
    }
  }
  return true;
}

// False: stop() came.
bool QueueGateway::Impl::retry_after(const Error& error) {
  std::unique_lock lock(mutex_);
  ++stats_.retries;
  const bool first = pause_ == pause_min;
  const auto pause = std::exchange(pause_, std::min(pause_ * 2, pause_max));
  if (first) {
    lock.unlock();
    log(LogLevel::warning, "queue \"" + queue_.name() +
                               "\" cannot take what was handed in over MQTT, trying again: " + error.message);
    lock.lock();
  }
  return !changed_.wait_for(lock, pause, [&] { return stopping_; });
}

void QueueGateway::Impl::finish(Received& received, const Result<std::vector<Submitted>>& result) {
  const Message& message = *received.message;
  received.acknowledgement.acknowledge(static_cast<std::uint8_t>(
      result ? mqtt::ReasonCode::success : mqtt::ReasonCode::payload_format_invalid));
  if (!message.response_topic().empty()) {
    PublishOptions options{.qos = message.qos, .content_type = "application/json"};
    if (message.properties.find(mqtt::PropertyId::correlation_data))
      options.correlation_data = message.correlation_data();
    if (const auto sent = client_.publish(message.response_topic(), answer_of(result), options); !sent)
      log(LogLevel::warning,
          "cannot answer on \"" + std::string(message.response_topic()) + "\": " + sent.error().message);
  }
  if (!result)
    log(LogLevel::warning,
        "no item: a message on \"" + std::string(message.topic) + "\": " + result.error().message);
  pause_ = pause_min;
  const std::lock_guard lock(mutex_);
  if (!result) {
    ++stats_.refused;
  } else {
    stats_.items += static_cast<std::uint64_t>(std::ranges::count(*result, true, &Submitted::created));
  }
  --taken_;
}

// --- out --------------------------------------------------------------------------------------------------------------

// Work becomes claimable by a change, which wakes us, and by the clock: while something is scheduled we look ourselves.
void QueueGateway::Impl::announce() {
  auto& repository = *queue_.impl_->store().repository;
  std::optional<std::uint32_t> told;
  std::uint64_t claimable = 0, scheduled = 0;
  for (;;) {
    const auto word = repository.wake_word(queue_.name());  // before the look at stopping_: stop() wakes
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) return;
    }
    if (word == told) repository.wait(queue_.name(), word, look_at_least_every);
    const auto seen = repository.wake_word(queue_.name());
    if (seen == told && scheduled == 0) continue;
    if (const auto stats = queue_.stats()) {
      const auto was =
          std::exchange(claimable, stats->counts.pending - std::min(stats->counts.pending, stats->scheduled));
      scheduled = stats->scheduled;
      if (claimable > 0 && (seen != told || claimable > was)) tell(*stats);
      told = seen;
    }
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, options_.announce_interval, [&] { return stopping_; });
  }
}

void QueueGateway::Impl::tell(const Stats& stats) {
  const json::object text{{"queue", queue_.name()},
                          {"pending", stats.counts.pending},
                          {"scheduled", stats.scheduled},
                          {"processing", stats.counts.processing}};
  if (!client_.publish(topic("ready"), json::serialize(text))) return;
  const std::lock_guard lock(mutex_);
  ++stats_.announced;
}

// --- QueueGateway -----------------------------------------------------------------------------------------------------

QueueGateway::QueueGateway(Client& client, const Queue& queue, QueueGatewayOptions options)
    : impl_(std::make_shared<Impl>(client, queue, std::move(options))) {}
QueueGateway::~QueueGateway() { impl_->stop(); }
Result<void> QueueGateway::start() { return impl_->start(); }
void QueueGateway::stop() { impl_->stop(); }
QueueGatewayStats QueueGateway::stats() const { return impl_->stats(); }

}  // namespace fulmar
