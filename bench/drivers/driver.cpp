#include "driver.hpp"

#include <fmt/format.h>

#include <thread>

#include "harness.hpp"

namespace fulmar::bench {
namespace {

// A script is there when it says its version.
Library script(std::string name, std::vector<std::string> command) {
  Library library{.name = std::move(name)};
  const Parameters ask = Parameters().set("scenario", "version");
  const auto version = run_child(command, ask.arguments(), std::chrono::seconds(20));
  if (version && !version->note.empty()) {
    library.version = version->note;
    library.command = std::move(command);
  } else {
    library.missing = version ? "it does not say its version" : version.error().message;
  }
  return library;
}

}  // namespace

Result<void> Driver::connect(const DriverOptions& options) {
  if (auto prepared = prepare(options); !prepared) return prepared;
  if (auto started = start(); !started) return started;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!connected()) {
    if (std::chrono::steady_clock::now() > deadline) {
      return fail(Errc::connection_failed, "no CONNACK from the sink within 10 s");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return {};
}

Library paho_python_library() {
  auto library = script("paho-python", {"/usr/bin/python3", FULMAR_BENCH_DRIVERS "/paho_python.py"});
  library.bounded_queue = true;
  return library;
}

Library mqttjs_library(std::string_view npm_folder) {
  return script("mqtt.js", {"node", "--no-warnings", FULMAR_BENCH_DRIVERS "/mqttjs.mjs",
                            fmt::format("npm={}", npm_folder)});
}

}  // namespace fulmar::bench
