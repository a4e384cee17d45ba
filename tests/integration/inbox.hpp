#pragma once
// Inbox: collects what a client's handlers are given, for a test to wait for and look at.
//
// Thread-safety: every function from any thread.

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "fulmar/client.hpp"
#include "tests/support/eventually.hpp"

namespace fulmar::test {

// A handle: copies share what was collected, so a handler that runs late never meets a dead one.
template <typename Item>
class Collected {
 public:
  void add(Item item) const {
    {
      const std::lock_guard lock(state_->mutex);
      state_->items.push_back(std::move(item));
    }
    state_->changed.notify_all();
  }
  // Waits until there are at least `count`; false when there are not within the time.
  bool wait_for(std::size_t count, std::chrono::milliseconds timeout = std::chrono::seconds(20)) const {
    std::unique_lock lock(state_->mutex);
    return state_->changed.wait_for(lock, timeout, [&] { return state_->items.size() >= count; });
  }
  std::vector<Item> items() const {
    const std::lock_guard lock(state_->mutex);
    return state_->items;
  }
  std::size_t size() const {
    const std::lock_guard lock(state_->mutex);
    return state_->items.size();
  }

 protected:
  Collected collected() const { return *this; }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<Item> items;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

struct Letter {
  std::string topic;
  std::string text;
  QoS qos = QoS::at_most_once;
  bool retain = false;
  bool dup = false;
};

// A subscription's handler and its SUBACKs.
class Inbox : public Collected<Letter> {
 public:
  MessageHandler handler() {
    return [letters = collected()](const Message& message) {
      letters.add({std::string(message.topic), std::string(message.text()), message.qos, message.retain,
                   message.dup});
    };
  }
  Client::GrantedHandler granted() {
    return [grants = grants_](std::uint8_t code) { grants.add(code); };
  }
  const Collected<std::uint8_t>& grants() const { return grants_; }

 private:
  Collected<std::uint8_t> grants_;
};

// The outcomes of messages.
class Outcomes : public Collected<Delivery> {
 public:
  DeliveryHandler handler() {
    return [outcomes = collected()](const Delivery& delivery) { outcomes.add(delivery); };
  }
  std::size_t count(Delivery::Outcome outcome) const {
    const auto all = items();
    return static_cast<std::size_t>(std::count_if(
        all.begin(), all.end(), [&](const Delivery& delivery) { return delivery.outcome == outcome; }));
  }
};

// Reconnects fast, so that tests are.
inline ClientConfig config_for(const std::string& url, const std::string& client_id,
                               ProtocolVersion protocol = ProtocolVersion::v5) {
  ClientConfig config;
  config.urls = {url};
  config.client_id = client_id;
  config.protocol = protocol;
  config.reconnect_min_delay = std::chrono::milliseconds(100);
  config.reconnect_max_delay = std::chrono::milliseconds(200);
  return config;
}

}  // namespace fulmar::test
