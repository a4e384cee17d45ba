#pragma once
// Heard: a Transport's listener for tests, which keeps all that it is told and reads on; and the turns of its executor.
//
// Not thread-safe.

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <boost/asio/io_context.hpp>

#include "net/transport.hpp"

namespace fulmar::net {

struct Heard final : Transport::Listener {
  std::optional<std::string> opened, failed, lost;
  std::string received;
  std::size_t written = 0;
  int buffers_asked = 0;
  std::vector<char> buffer = std::vector<char>(4096);
  bool read_on = true;
  std::string unsent;  // what is left of a write
  std::function<void()> changed = [] {};
  Transport* transport = nullptr;

  void write(std::string bytes) {
    unsent = std::move(bytes);
    transport->write_some(boost::asio::buffer(unsent));
  }
  void on_open(const std::string& peer) override {
    opened = peer;
    changed();
  }
  void on_open_failed(const std::string& why) override {
    failed = why;
    changed();
  }
  boost::asio::mutable_buffer read_buffer() override {
    ++buffers_asked;
    return boost::asio::buffer(buffer);
  }
  void on_read(std::size_t size) override {
    received.append(buffer.data(), size);
    std::ranges::fill(buffer, '!');  // nothing may be left in it that a later read relies on
    if (read_on) transport->read();
    changed();
  }
  void on_written(std::size_t size) override {
    written += size;
    unsent.erase(0, size);
    if (!unsent.empty()) transport->write_some(boost::asio::buffer(unsent));
    changed();
  }
  void on_lost(const std::string& why) override {
    lost = why;
    changed();
  }
};

inline bool run_until(boost::asio::io_context& context, const std::function<bool()>& done,
                      std::chrono::milliseconds patience = std::chrono::seconds(10)) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (!done() && std::chrono::steady_clock::now() < deadline) {
    context.restart();
    context.run_one_for(std::chrono::milliseconds(20));
  }
  return done();
}

}  // namespace fulmar::net
