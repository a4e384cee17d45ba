#pragma once
// Waiting for what other threads or processes bring about.

#include <chrono>
#include <thread>

namespace fulmar::test {

// Whether `condition` holds, at once or before the time is over; asks every two milliseconds.
template <typename Condition>
bool eventually(Condition&& condition, std::chrono::milliseconds timeout = std::chrono::seconds(30)) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= deadline) return condition();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

}  // namespace fulmar::test
