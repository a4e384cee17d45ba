#pragma once
// For programs that use Boost.Asio: publish and request with a completion token (callback, use_future, use_awaitable,
// deferred, ...), and handlers on an executor of Asio's. The rest of Fulmar does not show Asio.
//
// The completion runs on the handler's associated executor; without one, on the client's dispatch thread. Each operation
// completes exactly once. Cancellation slots are honoured by async_request only: an accepted message is not called back.

#include <atomic>
#include <memory>
#include <utility>

#include <boost/asio/any_completion_handler.hpp>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>

#include "fulmar/client.hpp"

namespace fulmar {

// For SubscribeOptions::executor. Keeps `executor`'s context running while handlers wait in it.
inline Executor executor_of(boost::asio::any_io_executor executor) {
  return [executor](std::move_only_function<void()> function) {
    boost::asio::post(executor, std::move(function));
  };
}

namespace detail {

// Holds a completion handler and the work of its executor until the operation completes or turns out not to begin.
template <typename Handler, typename Value>
struct Completion {
  explicit Completion(Handler h)
      : handler(std::move(h)),
        work(boost::asio::make_work_guard(handler)),
        slot(boost::asio::get_associated_cancellation_slot(handler)) {}

  Handler handler;
  boost::asio::executor_work_guard<boost::asio::associated_executor_t<Handler>> work;
  boost::asio::associated_cancellation_slot_t<Handler> slot;

  static auto bound(std::shared_ptr<Completion> self, Result<Value> result) {
    return [self = std::move(self), result = std::move(result)]() mutable {
      if (self->slot.is_connected()) self->slot.clear();
      auto handler = std::move(self->handler);
      self.reset();  // its memory is free for what the handler starts
      std::move(handler)(std::move(result));
    };
  }
  // On the dispatch thread.
  static void complete(std::shared_ptr<Completion> self, Result<Value> result) {
    auto executor = self->work.get_executor();
    boost::asio::dispatch(executor, bound(std::move(self), std::move(result)));
  }
  // In the initiating function, which must not run the handler itself.
  static void fail(std::shared_ptr<Completion> self, Error error) {
    auto executor = self->work.get_executor();
    boost::asio::post(executor, bound(std::move(self), std::unexpected(std::move(error))));
  }
};

}  // namespace detail

// Completes with Result<Delivery>: how the message ended, or why it was not accepted (then a handler without an associated
// executor runs on Asio's system executor). With a token that starts later (deferred, use_awaitable) the views must be
// valid until then; `co_await async_publish(...)` in one expression is.
template <typename Token>
auto async_publish(Client& client, std::string_view topic, BytesView payload, const PublishOptions& options,
                   Token&& token) {
  return boost::asio::async_initiate<Token, void(Result<Delivery>)>(
      [&client](auto handler, std::string_view to, BytesView what, const PublishOptions& how) {
        using Pending = detail::Completion<decltype(handler), Delivery>;
        auto pending = std::make_shared<Pending>(std::move(handler));
        auto accepted = client.publish(
            to, what, how, [pending](const Delivery& delivery) { Pending::complete(pending, delivery); });
        if (!accepted) Pending::fail(std::move(pending), std::move(accepted.error()));
      },
      token, topic, payload, options);
}

// Completes with Result<OwnedMessage>: the answer, or why there is none. Cancellation of any type gives Errc::cancelled.
// `client` must outlive the operation.
template <typename Token>
auto async_request(Client& client, std::string_view topic, BytesView payload,
                   std::chrono::milliseconds timeout, const RequestOptions& options, Token&& token) {
  return boost::asio::async_initiate<Token, void(Result<OwnedMessage>)>(
      [&client](auto handler, std::string_view to, BytesView what, std::chrono::milliseconds within,
                const RequestOptions& how) {
        using Pending = detail::Completion<decltype(handler), OwnedMessage>;
        auto pending = std::make_shared<Pending>(std::move(handler));
        const auto id = std::make_shared<std::atomic<RequestId>>(0);
        if (pending->slot.is_connected()) {
          pending->slot.assign([&client, id](boost::asio::cancellation_type) {
            if (const auto which = id->load()) client.cancel_request(which);
          });
        }
        auto started = client.request(to, what, within, how, [pending](Result<OwnedMessage> answer) {
          Pending::complete(pending, std::move(answer));
        });
        if (started) {
          id->store(*started);
        } else {
          Pending::fail(std::move(pending), std::move(started.error()));
        }
      },
      token, topic, payload, timeout, options);
}

}  // namespace fulmar
