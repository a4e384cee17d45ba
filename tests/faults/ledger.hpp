#pragma once
// Ledger: which numbered messages were accepted and how often each arrived, for "lost 0, duplicates 0".
//
// A message's payload is its number in decimal. Thread-safety: every function from any thread.

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

namespace fulmar::test {

class Ledger {
 public:
  struct Balance {
    std::size_t lost = 0;        // accepted and never arrived
    std::size_t duplicates = 0;  // arrivals beyond the first
    std::size_t strangers = 0;   // arrived without having been accepted
    std::size_t overtaken = 0;   // first arrivals behind a greater number's first arrival
    std::string first_lost{};
    bool operator==(const Balance& other) const {
      return lost == other.lost && duplicates == other.duplicates && strangers == other.strangers &&
             overtaken == other.overtaken;
    }
  };

  // The next message to publish; call accepted() once publish() has said yes.
  std::string next() const;
  void accepted();
  std::size_t accepted_count() const;

  void arrived(std::string_view payload);
  std::size_t arrived_count() const;  // different messages
  // Until everything accepted so far has arrived; false when it has not within the time.
  bool wait_for_all(std::chrono::milliseconds timeout) const;

  Balance balance() const;
  std::size_t arrivals_of(std::size_t number) const;

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::size_t accepted_ = 0;
  std::size_t arrived_ = 0;
  std::size_t strangers_ = 0;
  std::size_t overtaken_ = 0;
  std::size_t newest_ = 0;  // one more than the greatest number that has arrived
  std::vector<std::uint32_t> arrivals_;
};

std::ostream& operator<<(std::ostream& out, const Ledger::Balance& balance);

}  // namespace fulmar::test
