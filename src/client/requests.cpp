#include "client/requests.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <future>
#include <stdexcept>

#include "fulmar/mqtt/topic.hpp"

namespace fulmar {

using std::chrono::milliseconds;

namespace {

std::string quoted(std::string_view topic) {
  constexpr std::size_t shown_max = 100;
  return "\"" + std::string(topic.substr(0, shown_max)) + (topic.size() > shown_max ? "...\"" : "\"");
}

// An identifier may hold what a topic name must not, and nearly fill it.
std::string topic_for(std::string_view client_id) {
  constexpr std::size_t part_max = 1'000;
  std::string part;
  for (const char c : client_id) part += c == '+' || c == '#' || c == '\0' ? '-' : c;
  if (part.size() > part_max) {
    part.resize(part_max);
    while ((static_cast<unsigned char>(part.back()) & 0xc0) == 0x80) part.pop_back();
    if (static_cast<unsigned char>(part.back()) >= 0xc0) part.pop_back();
  }
  return "fulmar/response/" + part + "/" + new_ulid();
}

using Correlation = std::array<std::byte, 8>;

Correlation correlation_of(RequestId id) {
  Correlation bytes{};
  for (std::size_t i = bytes.size(); i-- > 0; id >>= 8) bytes[i] = static_cast<std::byte>(id & 0xff);
  return bytes;
}

std::optional<RequestId> id_of(BytesView correlation) {
  if (correlation.size() != sizeof(RequestId)) return std::nullopt;
  RequestId id = 0;
  for (const auto byte : correlation) id = id << 8 | std::to_integer<RequestId>(byte);
  return id;
}

Error shut_down() {
  return {Errc::shutting_down, "the client was shut down before the answer came", std::nullopt};
}

void add(std::atomic<std::uint64_t>& counter) { counter.fetch_add(1, std::memory_order_relaxed); }

}  // namespace

Requests::Requests(std::string_view client_id, std::string source, Host host)
    : host_(std::move(host)), source_(std::move(source)), response_topic_(topic_for(client_id)) {}

// --- asking ----------------------------------------------------------------------------------------------------------

Result<OwnedMessage> Requests::request(std::string_view topic, BytesView payload, milliseconds timeout,
                                       const RequestOptions& options) {
  if (host_.on_dispatch_thread()) {
    return fail(Errc::cancelled, "request() to " + quoted(topic) +
                                     " would wait within a handler, on the thread that brings the answer; "
                                     "use the form with a handler");
  }
  auto promise = std::make_shared<std::promise<Result<OwnedMessage>>>();
  auto future = promise->get_future();
  const auto id = request(topic, payload, timeout, options,
                          [promise](Result<OwnedMessage> answer) { promise->set_value(std::move(answer)); });
  if (!id) return std::unexpected(id.error());
  // The dispatch thread tells of the timeout too, unless it is held up by somebody's handler.
  if (future.wait_for(timeout) != std::future_status::ready) {
    if (const auto pending = take(*id)) return timed_out(*pending);
  }
  return future.get();
}

Result<RequestId> Requests::request(std::string_view topic, BytesView payload, milliseconds timeout,
                                    const RequestOptions& options, ResponseHandler handler) {
  if (!handler) return fail(Errc::invalid_config, "the response handler for " + quoted(topic) + " is empty");
  if (timeout < milliseconds(1) || timeout > timeout_max) {
    return fail(Errc::invalid_config, "the timeout of the request to " + quoted(topic) + " is " +
                                          std::to_string(timeout.count()) + " ms; expected 1 ms to 24 h");
  }
  const RequestId id = last_id_.fetch_add(1, std::memory_order_relaxed) + 1;
  Pending pending{std::move(handler), host_.now() + timeout, timeout, std::string(topic), {}};
  PublishOptions publish{.qos = options.qos};
  publish.message_expiry = std::chrono::ceil<std::chrono::seconds>(timeout);
  publish.content_type = options.content_type;

  const auto correlation = correlation_of(id);
  std::string envelope;
  if (host_.protocol() == ProtocolVersion::v5) {
    publish.response_topic = response_topic_;
    publish.correlation_data = BytesView(correlation);
  } else {
    EnvelopeReader reader(JsonStyle::compact);
    if (!reader.read(as_text(payload))) {
      auto error = reader.error();
      error.message = "a request by MQTT 3.1.1 has to be an envelope: " + error.message;
      return std::unexpected(std::move(error));
    }
    if (reader.has_reply_to())
      return fail(Errc::invalid_envelope,
                  "the envelope of a request has `reply_to`, which is filled in here; leave it out");
    pending.correlate = reader.envelope().id;
    envelope = with_member(as_text(payload), "reply_to", response_topic_);
    payload = as_bytes(envelope);
  }

  if (const auto subscribed = subscribe(options.qos); !subscribed) return std::unexpected(subscribed.error());
  const auto deadline = pending.deadline;
  if (const auto added = add(id, std::move(pending)); !added) return std::unexpected(added.error());
  arm(deadline);
  const auto accepted =
      host_.publish(topic, payload, publish, [self = weak_from_this(), id](const Delivery& delivery) {
        if (const auto requests = self.lock()) requests->delivered(id, delivery);
      });
  // When it cannot be taken back it has been told: by end(), in between.
  if (!accepted && take(id)) return std::unexpected(accepted.error());
  fulmar::add(requests_);
  return id;
}

bool Requests::cancel(RequestId id) {
  {
    const std::lock_guard lock(mutex_);
    auto pending = take_locked(id);
    if (!pending) return false;
    cancelled_.push_back(std::move(*pending));
  }
  host_.call_later(milliseconds(0), [self = weak_from_this()] {
    if (const auto requests = self.lock()) requests->tell_cancelled();
  });
  return true;
}

void Requests::end() {
  tell_cancelled();
  tell_all(shut_down());
}

Result<void> Requests::subscribe(QoS qos) {
  const std::lock_guard lock(subscribing_);
  if (subscribed_ && *subscribed_ >= qos) return {};
  const auto number = ++subscriptions_;
  auto subscription = host_.subscribe(
      response_topic_,
      [self = weak_from_this()](const Message& message) {
        if (const auto requests = self.lock()) requests->answered(message);
      },
      {.qos = qos},
      [self = weak_from_this(), number](std::uint8_t reason_code) {
        if (const auto requests = self.lock()) requests->granted(number, reason_code);
      });
  if (!subscription) return std::unexpected(subscription.error());
  subscription_.detach();  // the one before: replaced by this, which has the same filter
  subscription_ = std::move(*subscription);
  subscribed_ = qos;
  return {};
}

void Requests::granted(std::uint64_t subscription, std::uint8_t reason_code) {
  if (reason_code < 0x80) return;
  {
    const std::lock_guard lock(subscribing_);
    if (subscription != subscriptions_) return;
    subscribed_.reset();  // the next request asks again
  }
  tell_all(
      {Errc::refused,
       "the server does not let this client subscribe to " + quoted(response_topic_) + ", where answers come",
       reason_code});
}

Result<void> Requests::add(RequestId id, Pending pending) {
  const std::lock_guard lock(mutex_);
  if (pending_.size() + cancelled_.size() >= pending_max) {
    return fail(Errc::outbox_full, std::to_string(pending_max) +
                                       " requests wait for their answers already; " +
                                       "wait for some of them, or use shorter timeouts");
  }
  if (!pending.correlate.empty() && !by_correlate_.try_emplace(pending.correlate, id).second) {
    return fail(Errc::invalid_envelope,
                "a request with the id " + quoted(pending.correlate) +
                    " waits for its answer already; give each envelope an id of its own");
  }
  deadlines_.emplace(pending.deadline, id);
  pending_.emplace(id, std::move(pending));
  return {};
}

std::optional<Requests::Pending> Requests::take(RequestId id) {
  const std::lock_guard lock(mutex_);
  return take_locked(id);
}

std::optional<Requests::Pending> Requests::take_locked(RequestId id) {
  const auto found = pending_.find(id);
  if (found == pending_.end()) return std::nullopt;
  auto pending = std::move(found->second);
  pending_.erase(found);
  deadlines_.erase({pending.deadline, id});
  if (!pending.correlate.empty()) by_correlate_.erase(pending.correlate);
  return pending;
}

std::optional<Requests::Pending> Requests::take_answered(const Message& message) {
  if (const auto id = id_of(message.correlation_data())) {
    const std::lock_guard lock(mutex_);
    // A number in 5.0 belongs to a request in 5.0.
    const auto found = pending_.find(*id);
    if (found != pending_.end() && found->second.correlate.empty()) return take_locked(*id);
  }
  if (!reader_.read(message.text()) || reader_.envelope().correlate.empty()) return std::nullopt;
  const std::lock_guard lock(mutex_);
  const auto found = by_correlate_.find(reader_.envelope().correlate);
  return found == by_correlate_.end() ? std::nullopt : take_locked(found->second);
}

void Requests::tell(Pending pending, Result<OwnedMessage> result) {
  std::string what;
  try {
    pending.handler(std::move(result));
    return;
  } catch (const std::exception& error) {
    what = error.what();
  } catch (...) {
    what = "an exception that is not a std::exception";
  }
  fulmar::add(handler_errors_);
  log_some(handler_errors_.load(std::memory_order_relaxed), LogLevel::error,
           "the response handler of a request to " + quoted(pending.topic) + " threw: " + what);
}

void Requests::tell_cancelled() {
  std::vector<Pending> some;
  {
    const std::lock_guard lock(mutex_);
    some.swap(cancelled_);
  }
  for (auto& pending : some) {
    auto error = fail(Errc::cancelled, "the request to " + quoted(pending.topic) + " was cancelled");
    tell(std::move(pending), std::move(error));
  }
}

// Those that wait now: a handler may ask again at once.
void Requests::tell_all(const Error& error) {
  std::vector<RequestId> ids;
  {
    const std::lock_guard lock(mutex_);
    ids.reserve(pending_.size());
    for (const auto& each : pending_) ids.push_back(each.first);
  }
  std::ranges::sort(ids);
  for (const auto id : ids)
    if (auto pending = take(id)) tell(std::move(*pending), std::unexpected(error));
}

void Requests::delivered(RequestId id, const Delivery& delivery) {
  constexpr auto nobody = static_cast<std::uint8_t>(mqtt::ReasonCode::no_matching_subscribers);
  const auto error = [&](const Pending& pending) -> Error {
    const std::string request = "the request to " + quoted(pending.topic) + " ";
    switch (delivery.outcome) {
      case Delivery::Outcome::sent:
      case Delivery::Outcome::acknowledged:
        return {Errc::refused, request + "reached nobody: the server has no subscription that matches",
                nobody};
      case Delivery::Outcome::refused: {
        const auto code = static_cast<mqtt::ReasonCode>(delivery.reason_code);
        const bool said = delivery.reason_code >= 0x80;
        return {Errc::refused,
                request + "was refused: " +
                    std::string(said ? mqtt::to_string(code) : "this server cannot take it"),
                delivery.reason_code};
      }
      case Delivery::Outcome::expired:
        return {Errc::timeout,
                request + "could not be sent within its " + std::to_string(pending.timeout.count()) + " ms",
                {}};
      case Delivery::Outcome::stored:
      case Delivery::Outcome::dropped: break;
    }
    if (closing_.load(std::memory_order_relaxed)) return shut_down();
    return {Errc::outbox_full,
            request + "was dropped: the outbox is full, or QoS 0 is not kept while offline",
            {}};
  };
  const bool reached_server =
      delivery.outcome == Delivery::Outcome::sent || delivery.outcome == Delivery::Outcome::acknowledged;
  if (reached_server && delivery.reason_code != nobody) return;
  if (delivery.outcome == Delivery::Outcome::stored) return;  // it may still be answered in time
  auto pending = take(id);
  if (!pending) return;
  if (delivery.outcome == Delivery::Outcome::expired) fulmar::add(timed_out_);
  auto why = error(*pending);
  tell(std::move(*pending), std::unexpected(std::move(why)));
}

void Requests::answered(const Message& message) {
  if (auto pending = take_answered(message)) return tell(std::move(*pending), OwnedMessage(message));
  fulmar::add(late_);
  log_some(late_.load(std::memory_order_relaxed), LogLevel::info,
           "an answer came that no request waits for (any more)");
}

void Requests::arm(Instant deadline) {
  {
    const std::lock_guard lock(mutex_);
    if (armed_ && *armed_ <= deadline) return;
    armed_ = deadline;
  }
  const auto left = std::max(deadline - host_.now(), Instant::duration::zero());
  host_.call_later(std::chrono::ceil<milliseconds>(left), [self = weak_from_this(), deadline] {
    if (const auto requests = self.lock()) requests->on_timer(deadline);
  });
}

void Requests::on_timer(Instant armed) {
  {
    const std::lock_guard lock(mutex_);
    if (armed_ == armed) armed_.reset();
  }
  const auto now = host_.now();
  std::optional<Instant> next;
  for (;;) {
    std::optional<Pending> pending;
    {
      const std::lock_guard lock(mutex_);
      if (deadlines_.empty()) break;
      if (deadlines_.begin()->first > now) {
        next = deadlines_.begin()->first;
        break;
      }
      pending = take_locked(deadlines_.begin()->second);
    }
    auto why = timed_out(*pending);
    tell(std::move(*pending), std::move(why));
  }
  if (next) arm(*next);
}

std::unexpected<Error> Requests::timed_out(const Pending& pending) {
  fulmar::add(timed_out_);
  return fail(Errc::timeout, "no answer to the request to " + quoted(pending.topic) + " within " +
                                 std::to_string(pending.timeout.count()) + " ms");
}

// --- answering -------------------------------------------------------------------------------------------------------

Result<Subscription> Requests::respond(std::string_view filter, Responder responder,
                                       const SubscribeOptions& options) {
  if (!responder) return fail(Errc::invalid_config, "the responder for " + quoted(filter) + " is empty");
  return host_.subscribe(filter,
                         [self = weak_from_this(), name = std::string(filter),
                          responder = std::move(responder)](const Message& request) {
                           if (const auto requests = self.lock()) requests->answer(name, responder, request);
                         },
                         options, {});
}

void Requests::answer(std::string_view filter, const Responder& responder, const Message& request) {
  const auto topic = request.response_topic();
  if (topic.empty()) return answer_envelope(filter, responder, request);
  if (const auto error = mqtt::check_topic_name(topic); error != mqtt::TopicError::none)
    return unanswerable(request, "its response topic is invalid: " + std::string(mqtt::to_string(error)));
  const auto text = responder(request);
  if (!text)
    throw std::runtime_error("the responder for " + quoted(filter) + " failed: " + text.error().message);
  PublishOptions options{.qos = request.qos};
  if (request.properties.find(mqtt::PropertyId::correlation_data))
    options.correlation_data = request.correlation_data();
  send_answer(topic, *text, options);
}

void Requests::answer_envelope(std::string_view filter, const Responder& responder, const Message& request) {
  EnvelopeReader asked(JsonStyle::compact);
  if (!asked.read(request.text()) || asked.envelope().reply_to.empty())
    return unanswerable(request, "it has neither a response topic nor an envelope with `reply_to`");
  const auto& envelope = asked.envelope();
  if (const auto error = mqtt::check_topic_name(envelope.reply_to); error != mqtt::TopicError::none)
    return unanswerable(request, "its `reply_to` is invalid: " + std::string(mqtt::to_string(error)));
  const auto text = responder(request);
  const std::string who = "the responder for " + quoted(filter);
  if (!text) throw std::runtime_error(who + " failed: " + text.error().message);

  const PublishOptions options{.qos = request.qos};
  EnvelopeReader answer(JsonStyle::compact);
  if (answer.read(*text)) {
    if (!answer.has_correlate())
      return send_answer(envelope.reply_to, with_member(*text, "correlate", envelope.id), options);
    if (answer.envelope().correlate != envelope.id)
      throw std::runtime_error(who + " gave an envelope with a `correlate` of its own; leave it out");
    return send_answer(envelope.reply_to, *text, options);
  }
  const auto id = new_ulid();
  const auto type = envelope.type + ".response";
  const auto written = write_envelope({.id = id,
                                       .type = type,
                                       .ts = seconds_of(host_.wall_now()),
                                       .source = source_,
                                       .data = *text,
                                       .correlate = envelope.id});
  if (!written) {
    throw std::runtime_error(
        who + " has to answer an envelope by an envelope or a JSON object: " + written.error().message);
  }
  send_answer(envelope.reply_to, *written, options);
}

void Requests::send_answer(std::string_view topic, std::string_view payload, const PublishOptions& options) {
  const auto lost = [](Requests& requests, std::string_view where, std::string_view why) {
    fulmar::add(requests.answers_lost_);
    requests.log_some(requests.answers_lost_.load(std::memory_order_relaxed), LogLevel::warning,
                      "an answer to " + quoted(where) + " was lost: " + std::string(why));
  };
  const auto accepted =
      host_.publish(topic, as_bytes(payload), options,
                    [self = weak_from_this(), name = std::string(topic), lost](const Delivery& delivery) {
                      if (delivery.outcome == Delivery::Outcome::sent ||
                          delivery.outcome == Delivery::Outcome::acknowledged)
                        return;
                      if (const auto requests = self.lock())
                        lost(*requests, name, to_string(delivery.outcome));
                    });
  if (!accepted) lost(*this, topic, accepted.error().message);
}

void Requests::unanswerable(const Message& request, std::string_view why) {
  fulmar::add(unanswerable_);
  log_some(unanswerable_.load(std::memory_order_relaxed), LogLevel::warning,
           "a request to " + quoted(request.topic) + " cannot be answered: " + std::string(why));
}

// --- counting --------------------------------------------------------------------------------------------------------

void Requests::log_some(std::uint64_t count, LogLevel level, const std::string& what) {
  if (!std::has_single_bit(count)) return;
  host_.log(level, count == 1 ? what : what + " (" + std::to_string(count) + " times so far)");
}

Requests::Counts Requests::counts() const {
  const auto get = [](const std::atomic<std::uint64_t>& counter) {
    return counter.load(std::memory_order_relaxed);
  };
  return {get(requests_),       get(timed_out_),    get(late_),
          get(handler_errors_), get(unanswerable_), get(answers_lost_)};
}

std::size_t Requests::waiting() const {
  const std::lock_guard lock(mutex_);
  return pending_.size();
}

}  // namespace fulmar
