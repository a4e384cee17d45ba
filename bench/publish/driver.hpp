#pragma once
// Driver: one MQTT client library as bench_publish uses it. Each driver sets its library up as its
// documentation recommends for throughput, with a network thread of the library's own.
//
// Thread-safety: one thread calls; completions may come from the library's threads.

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "fulmar/result.hpp"

namespace fulmar::bench {

struct DriverOptions {
  std::uint16_t port = 0;  // on 127.0.0.1
  unsigned qos = 0;
  unsigned window = 0;  // QoS 1 and 2 in flight at most
};

class Driver {
 public:
  virtual ~Driver() = default;
  virtual Result<void> connect(const DriverOptions& options) = 0;  // waits for CONNACK
  // The call that is measured: hands the message to the library. False: the library refused it.
  virtual bool publish(std::string_view topic, std::string_view payload) = 0;
  // How many messages have ended: handed to the operating system (QoS 0), acknowledged (QoS 1).
  virtual std::uint64_t completed() = 0;
  virtual void disconnect() = 0;
};

struct Library {
  std::string_view name;
  std::string version;
  // Messages that the benchmark leaves with the library before it waits, found by trying: what suits the
  // library best.
  std::uint64_t (*outstanding_max)(unsigned qos, unsigned window);
  // Messages that it takes in one burst at most.
  std::uint64_t (*burst_max)(unsigned qos, unsigned window);
  std::unique_ptr<Driver> (*make)();  // nullptr: not built in, for the reason
  std::string missing;
};

Library fulmar_library();
Library mosquitto_library();
Library paho_library();

}  // namespace fulmar::bench
