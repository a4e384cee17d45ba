#pragma once
// Requests: request and response on top of publish and subscribe.
//
// Asking. All answers come on one response topic of this client's own, fulmar/response/{client_id}/{ULID}, subscribed at the
// first request and kept. In 5.0 a request carries it as Response Topic and an 8-byte number as Correlation Data [MQTT5 4.10];
// in 3.1.1 the request is an envelope, its `reply_to` the topic, and the answer an envelope whose `correlate` is its id.
// A request need not wait for the SUBACK: the subscription is handed to the client before the message, the client sends
// SUBSCRIBE first (also after a reconnect), and a server works off one connection's packets in their order.
//
// Answering. A responder's text goes to the request's response topic with its correlation data. Where there is none but an
// envelope with `reply_to`, the answer is an envelope with `correlate`: the responder's own, or its object as `data` of a new
// one of type "{request's type}.response".
//
// Invariants
//   1. Each request that was accepted is told exactly once, on the dispatch thread, and never under a lock: whoever takes it
//      out of `pending_` tells it [house invariant 6].
//   2. At most `pending_max` wait; answered, timed out or cancelled, nothing of a request is kept [house invariant 5].
//   3. One timer or, after requests with ever shorter deadlines, a few: never one per request.
//   4. A log line at the 1st, 2nd, 4th, 8th ... time that the same thing went wrong.
//
// Thread-safety: request, cancel and respond from any thread; end() and what the host calls on the dispatch thread. The
// mutexes are those of users' threads and the dispatch thread; the I/O thread takes none.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "client/envelope.hpp"
#include "fulmar/client.hpp"

namespace fulmar {

class Requests : public std::enable_shared_from_this<Requests> {
 public:
  using Instant = std::chrono::steady_clock::time_point;

  // What Requests needs of its client. Every function from any thread.
  struct Host {
    // As Client's. A subscription is sent before what is published after it.
    std::function<Result<MessageId>(std::string_view topic, BytesView payload, const PublishOptions&,
                                    DeliveryHandler)>
        publish;
    std::function<Result<Subscription>(std::string_view filter, MessageHandler, const SubscribeOptions&,
                                       Client::GrantedHandler)>
        subscribe;
    // Runs a function on the dispatch thread, not before the time has passed. May drop it once the client ends.
    std::function<void(std::chrono::milliseconds, std::move_only_function<void()>)> call_later;
    std::function<ProtocolVersion()> protocol;  // of the connection, or of the one to come
    std::function<bool()> on_dispatch_thread;
    std::function<void(LogLevel, std::string)> log;
    std::function<Instant()> now;
    std::function<WallTime()> wall_now;
  };

  struct Counts {
    std::uint64_t requests = 0;
    std::uint64_t timed_out = 0;
    std::uint64_t late = 0;            // answers to nothing that waits
    std::uint64_t handler_errors = 0;  // response handlers that threw
    std::uint64_t unanswerable = 0;  // requests without a valid response topic; their responder was not asked
    std::uint64_t answers_lost = 0;  // answers that could not be published
  };

  static constexpr std::size_t pending_max = 65'536;
  static constexpr std::chrono::hours timeout_max{24};

  // Use std::make_shared: what is given to the host holds weak pointers. `source` is that of envelopes.
  Requests(std::string_view client_id, std::string source, Host host);

  // The two forms of Client::request(). A request is not sent any more after its timeout (message expiry). With a reason code
  // "no matching subscribers" from the server it is told `refused` at once: nobody can answer.
  Result<OwnedMessage> request(std::string_view topic, BytesView payload, std::chrono::milliseconds timeout,
                               const RequestOptions& options);
  Result<RequestId> request(std::string_view topic, BytesView payload, std::chrono::milliseconds timeout,
                            const RequestOptions& options, ResponseHandler handler);
  bool cancel(RequestId id);
  // A responder's exception, and its error as a std::runtime_error, pass to the dispatcher like those of any handler: there
  // they are logged and counted, and the envelope does not count as handled.
  Result<Subscription> respond(std::string_view filter, Responder responder, const SubscribeOptions& options);

  // The client is about to be shut down (or, false, has been started again): a request that is dropped from now on is told
  // shutting_down instead of outbox_full. From any thread.
  void closing(bool yes) { closing_.store(yes, std::memory_order_relaxed); }
  // Tells all that wait shutting_down. On the dispatch thread, or once that has ended.
  void end();

  Counts counts() const;
  std::size_t waiting() const;
  const std::string& response_topic() const { return response_topic_; }

 private:
  struct Pending {
    ResponseHandler handler;
    Instant deadline;
    std::chrono::milliseconds timeout;
    std::string topic;
    std::string correlate;  // 3.1.1: id of its envelope
  };

  Result<void> subscribe(QoS qos);
  void granted(std::uint64_t subscription, std::uint8_t reason_code);
  Result<void> add(RequestId id, Pending pending);
  std::optional<Pending> take(RequestId id);
  std::optional<Pending> take_locked(RequestId id);
  std::optional<Pending> take_answered(const Message& message);
  void tell(Pending pending, Result<OwnedMessage> result);
  void tell_cancelled();
  void tell_all(const Error& error);

  void delivered(RequestId id, const Delivery& delivery);
  void answered(const Message& message);
  void arm(Instant deadline);
  void on_timer(Instant armed);
  std::unexpected<Error> timed_out(const Pending& pending);

  void answer(std::string_view filter, const Responder& responder, const Message& request);
  void answer_envelope(std::string_view filter, const Responder& responder, const Message& request);
  void send_answer(std::string_view topic, std::string_view payload, const PublishOptions& options);
  void unanswerable(const Message& request, std::string_view why);
  void log_some(std::uint64_t count, LogLevel level, const std::string& what);

  const Host host_;
  const std::string source_;
  const std::string response_topic_;

  std::atomic<RequestId> last_id_{0};
  std::atomic<bool> closing_{false};
  std::atomic<std::uint64_t> requests_{0}, timed_out_{0}, late_{0}, handler_errors_{0}, unanswerable_{0},
      answers_lost_{0};

  std::mutex
      subscribing_;  // held while the host is asked: nobody publishes before the subscription is on its way
  std::optional<QoS> subscribed_;
  std::uint64_t subscriptions_ = 0;  // how many there have been
  Subscription subscription_;

  mutable std::mutex mutex_;
  std::unordered_map<RequestId, Pending> pending_;
  std::unordered_map<std::string, RequestId> by_correlate_;
  std::set<std::pair<Instant, RequestId>> deadlines_;
  std::vector<Pending> cancelled_;  // to be told on the dispatch thread
  std::optional<Instant> armed_;    // the earliest timer

  EnvelopeReader reader_{JsonStyle::compact};  // dispatch thread
};

}  // namespace fulmar
