#include "client/inbound_acknowledgements.hpp"

namespace fulmar {

Acknowledgement::Acknowledgement() = default;
Acknowledgement::Acknowledgement(Acknowledgement&&) noexcept = default;
Acknowledgement& Acknowledgement::operator=(Acknowledgement&&) noexcept = default;
Acknowledgement::Acknowledgement(std::unique_ptr<State> state) : state_(std::move(state)) {}
Acknowledgement::~Acknowledgement() = default;

void Acknowledgement::acknowledge(std::uint8_t reason_code) {
  if (!state_) return;
  state_->reason = reason_code;
  const auto mailbox = state_->mailbox;
  mailbox->post(std::move(state_));
}

InboundAcknowledgements::Entry* InboundAcknowledgements::find(std::uint64_t number) {
  std::size_t low = 0;
  std::size_t high = entries_.size();
  while (low < high) {
    const auto middle = low + (high - low) / 2;
    if (entries_[middle].number < number) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < entries_.size() && entries_[low].number == number ? &entries_[low] : nullptr;
}

void InboundAcknowledgements::connected(bool session_present) {
  if (!session_present) return clear();
  mqtt::GrowingRing<Entry> kept;
  std::size_t next = 0;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (entries_[i].qos != QoS::exactly_once) continue;  // comes again, and is acknowledged then
    if (i < next_) ++next;
    kept.push_back(entries_[i]);
  }
  entries_ = std::move(kept);
  next_ = next;
}

void InboundAcknowledgements::clear() {
  entries_.clear();
  next_ = 0;
}

}  // namespace fulmar
