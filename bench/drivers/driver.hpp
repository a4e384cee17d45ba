#pragma once
// Driver: one MQTT client library as the benchmarks use it. Each driver sets its library up as its documentation
// recommends for throughput, with a network thread of the library's own. A library of another language is driven by a
// script in a process of its own, which runs the same scenarios (drivers/paho_python.py, drivers/mqttjs.mjs).
//
// Thread-safety: one thread calls; completions and messages may come from the library's threads.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fulmar/result.hpp"

namespace fulmar::bench {

struct DriverOptions {
  std::string host = "127.0.0.1";
  std::uint16_t port = 0;
  unsigned window = 0;  // QoS 1 and 2 in flight at most
  unsigned number = 0;  // part of the client identifier
  bool offline =
      false;  // reconnects by itself, at the shortest delay it has, and takes messages while disconnected
  std::size_t queue_messages = 0;  // bound of what waits; 0: more than is ever left with it
  bool drop_newest = false;        // ours: what does not fit is accepted and dropped, instead of refused
  bool lazy = false;               // ours: lazy wake-up, 1 ms
  bool shared_threads = false;     // ours: all clients of the process on one Runtime
};

class Driver {
 public:
  virtual ~Driver() = default;
  virtual Result<void> prepare(const DriverOptions& options) = 0;  // constructs the client
  virtual Result<void> start() = 0;                                // begins to connect
  virtual bool connected() = 0;
  // The call that is measured: hands the message to the library. False: the library refused it.
  virtual bool publish(std::string_view topic, std::string_view payload, unsigned qos) = 0;
  // How many messages have ended: handed to the operating system (QoS 0), acknowledged (QoS 1, 2).
  virtual std::uint64_t completed() = 0;
  virtual Result<void> subscribe(std::string_view filter, unsigned qos) = 0;
  virtual std::uint64_t received() = 0;  // messages that the handler, which does nothing else, was given
  virtual void disconnect() = 0;

  // prepare, start, and wait for CONNACK.
  Result<void> connect(const DriverOptions& options);
};

// A counter with one writer at a time: no locked addition.
class EventCount {
 public:
  void add() { count_.store(count_.load(std::memory_order_relaxed) + 1, std::memory_order_release); }
  std::uint64_t get() const { return count_.load(std::memory_order_acquire); }

 private:
  std::atomic<std::uint64_t> count_{0};
};

struct Library {
  std::string name;
  std::string version{};
  // Messages that the benchmark leaves with the library before it waits, found by trying: what suits the library best.
  std::uint64_t (*outstanding_max)(unsigned qos, unsigned window) = nullptr;
  // Messages that it takes in one burst at most.
  std::uint64_t (*burst_max)(unsigned qos, unsigned window) = nullptr;
  bool bounded_queue = false;  // its user can bound what waits (DriverOptions::queue_messages)
  std::unique_ptr<Driver> (*make)() = nullptr;  // one of the two: in this process,
  std::vector<std::string> command{};           // or a script
  std::string missing{};                        // neither, for this reason
};

Library fulmar_library();
Library mosquitto_library();
Library paho_c_library();
Library paho_cpp_library();
// Asks the scripts for their versions. `npm_folder`: where node_modules with MQTT.js is.
Library paho_python_library();
Library mqttjs_library(std::string_view npm_folder);

}  // namespace fulmar::bench
