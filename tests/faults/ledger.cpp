#include "tests/faults/ledger.hpp"

#include <algorithm>
#include <charconv>

namespace fulmar::test {

std::string Ledger::next() const { return std::to_string(accepted_count()); }

void Ledger::accepted() {
  const std::lock_guard lock(mutex_);
  ++accepted_;
}

std::size_t Ledger::accepted_count() const {
  const std::lock_guard lock(mutex_);
  return accepted_;
}

void Ledger::arrived(std::string_view payload) {
  constexpr std::size_t number_max = 100'000'000;
  std::size_t number = number_max;
  const auto [end, error] = std::from_chars(payload.data(), payload.data() + payload.size(), number);
  {
    const std::lock_guard lock(mutex_);
    if (error != std::errc() || end != payload.data() + payload.size() || number >= number_max) {
      ++strangers_;
      return;
    }
    if (number >= arrivals_.size()) arrivals_.resize(std::max(number + 1, arrivals_.size() * 2));
    if (++arrivals_[number] > 1) return;
    ++arrived_;
    if (number < newest_) ++overtaken_;
    newest_ = std::max(newest_, number + 1);
  }
  changed_.notify_all();
}

std::size_t Ledger::arrived_count() const {
  const std::lock_guard lock(mutex_);
  return arrived_;
}

bool Ledger::wait_for_all(std::chrono::milliseconds timeout) const {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, timeout, [this] { return arrived_ >= accepted_; });
}

Ledger::Balance Ledger::balance() const {
  const std::lock_guard lock(mutex_);
  Balance balance;
  balance.strangers = strangers_;
  balance.overtaken = overtaken_;
  for (std::size_t number = 0; number < std::max(accepted_, arrivals_.size()); ++number) {
    const std::size_t times = number < arrivals_.size() ? arrivals_[number] : 0;
    if (number >= accepted_) {
      balance.strangers += times > 0;
    } else if (times == 0) {
      if (balance.lost++ == 0) balance.first_lost = std::to_string(number);
    } else {
      balance.duplicates += times - 1;
    }
  }
  return balance;
}

std::size_t Ledger::arrivals_of(std::size_t number) const {
  const std::lock_guard lock(mutex_);
  return number < arrivals_.size() ? arrivals_[number] : 0;
}

std::ostream& operator<<(std::ostream& out, const Ledger::Balance& balance) {
  out << "lost " << balance.lost << ", duplicates " << balance.duplicates << ", strangers "
      << balance.strangers << ", overtaken " << balance.overtaken;
  if (!balance.first_lost.empty()) out << " (first lost: " << balance.first_lost << ")";
  return out;
}

}  // namespace fulmar::test
