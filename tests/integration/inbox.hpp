#pragma once
// Inbox: collects what a client's handlers are given, for a test to wait for and look at.
//
// Thread-safety: every function from any thread.

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "fulmar/client.hpp"

namespace fulmar::test {

template <typename Item>
class Collected {
 public:
  void add(Item item) {
    {
      const std::lock_guard lock(mutex_);
      items_.push_back(std::move(item));
    }
    changed_.notify_all();
  }
  // Waits until there are at least `count`; false when there are not within the time.
  bool wait_for(std::size_t count, std::chrono::milliseconds timeout = std::chrono::seconds(20)) const {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, timeout, [&] { return items_.size() >= count; });
  }
  std::vector<Item> items() const {
    const std::lock_guard lock(mutex_);
    return items_;
  }
  std::size_t size() const {
    const std::lock_guard lock(mutex_);
    return items_.size();
  }

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::vector<Item> items_;
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
    return [this](const Message& message) {
      add({std::string(message.topic), std::string(message.text()), message.qos, message.retain,
           message.dup});
    };
  }
  Client::GrantedHandler granted() {
    return [this](std::uint8_t code) { grants_.add(code); };
  }
  const Collected<std::uint8_t>& grants() const { return grants_; }

 private:
  Collected<std::uint8_t> grants_;
};

// The outcomes of messages.
class Outcomes : public Collected<Delivery> {
 public:
  DeliveryHandler handler() {
    return [this](const Delivery& delivery) { add(delivery); };
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
