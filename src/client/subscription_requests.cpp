#include "client/subscription_requests.hpp"

#include <algorithm>
#include <cstdio>
#include <utility>

namespace fulmar {
namespace {

constexpr std::size_t filters_per_packet = 100;
// Fixed header, packet identifier, properties, and length and options of one filter take no more.
constexpr std::size_t overhead = 19;

struct GrantedItem final : Dispatcher::Item {
  GrantedItem(std::shared_ptr<Client::GrantedHandler> to, std::uint8_t with)
      : handler(std::move(to)), code(with) {}
  void run() override { (*handler)(code); }
  std::shared_ptr<Client::GrantedHandler> handler;
  std::uint8_t code;
};

}  // namespace

void SubscriptionRequests::want(std::string filter, const SubscribeOptions& options,
                                Client::GrantedHandler granted) {
  auto& wanted = wanted_[filter];
  wanted.options = options;
  wanted.granted = granted ? std::make_shared<Client::GrantedHandler>(std::move(granted)) : nullptr;
  wanted.answered = false;
  if (connected_) waiting_.push_back({false, std::move(filter)});
}

void SubscriptionRequests::forget(const std::string& filter) {
  if (wanted_.erase(filter) != 0) waiting_.push_back({true, filter});
}

void SubscriptionRequests::link_lost() {
  connected_ = false;
  // What was asked and not answered is asked again, by what is wanted then.
  sent_.clear();
  std::erase_if(waiting_, [](const Request& request) { return !request.unsubscribe; });
}

void SubscriptionRequests::connected(bool session_present, std::uint32_t server_packet_max) {
  connected_ = true;
  packet_max_ = server_packet_max;
  if (!session_present) waiting_.clear();
  for (auto& [filter, wanted] : wanted_) {
    if (!session_present) wanted.answered = false;
    if (!wanted.answered) waiting_.push_back({false, filter});
  }
}

mqtt::SubscriptionRequest SubscriptionRequests::request_for(std::string_view filter) const {
  mqtt::SubscriptionRequest request;
  request.filter = filter;
  if (const auto wanted = wanted_.find(filter); wanted != wanted_.end()) {
    request.qos = wanted->second.options.qos;
    request.no_local = wanted->second.options.no_local;
    request.retain_as_published = wanted->second.options.retain_as_published;
  }
  return request;
}

// Why this server cannot take the filter; success when it can.
mqtt::ReasonCode SubscriptionRequests::refusal(const std::string& filter) const {
  if (filter.size() + overhead > packet_max_) return mqtt::ReasonCode::packet_too_large;
  return session_.subscription_refusal(request_for(filter), 0);
}

// As many of the next requests of one kind as fit into one packet; at least one.
std::size_t SubscriptionRequests::count_that_fits() const {
  const bool unsubscribe = waiting_.front().unsubscribe;
  std::size_t count = 0;
  std::size_t size = overhead;
  for (const auto& request : waiting_) {
    size += request.filter.size() + 3;
    if (request.unsubscribe != unsubscribe || count == filters_per_packet) break;
    if (count > 0 && size > packet_max_) break;
    if (count > 0 && !unsubscribe && refusal(request.filter) != mqtt::ReasonCode::success) break;
    ++count;
  }
  return count;
}

void SubscriptionRequests::send() {
  while (!waiting_.empty()) {
    const bool unsubscribe = waiting_.front().unsubscribe;
    if (!unsubscribe) {
      // What this server cannot take never reaches it; the answer is the one it would give.
      if (const auto reason = refusal(waiting_.front().filter); reason != mqtt::ReasonCode::success) {
        tell(waiting_.front().filter, reason);
        waiting_.pop_front();
        continue;
      }
    }
    const auto count = static_cast<std::ptrdiff_t>(count_that_fits());
    const std::uint64_t token = ++last_token_;
    bool taken = false;
    if (unsubscribe) {
      std::vector<std::string_view> filters;
      std::for_each_n(waiting_.begin(), count, [&](const Request& one) { filters.push_back(one.filter); });
      taken = session_.unsubscribe(filters, token);
    } else {
      std::vector<mqtt::SubscriptionRequest> requests;
      std::for_each_n(waiting_.begin(), count,
                      [&](const Request& one) { requests.push_back(request_for(one.filter)); });
      taken = session_.subscribe(requests, 0, token);
    }
    if (!taken) return;  // no identifier is free: later
    auto& sent = sent_[token];
    std::for_each_n(waiting_.begin(), count, [&](Request& one) { sent.push_back(std::move(one.filter)); });
    waiting_.erase(waiting_.begin(), waiting_.begin() + count);
  }
}

void SubscriptionRequests::answered(const mqtt::SubscriptionAcknowledged& answer) {
  const auto request = sent_.extract(answer.token);
  if (request.empty() || answer.unsubscribe) return;
  const auto& filters = request.mapped();
  for (std::size_t i = 0; i < filters.size() && i < answer.codes.size(); ++i)
    tell(filters[i], answer.codes[i]);
}

void SubscriptionRequests::tell(const std::string& filter, mqtt::ReasonCode reason) {
  const auto wanted = wanted_.find(filter);
  if (wanted == wanted_.end()) return;  // unsubscribed in the meantime
  wanted->second.answered = true;
  const auto code = static_cast<std::uint8_t>(reason);
  if (code >= 0x80) {
    char hex[8];
    std::snprintf(hex, sizeof hex, "0x%02x", code);
    dispatcher_.log(LogLevel::warning, "subscribe",
                    "the server refused the filter \"" + filter.substr(0, 64) +
                        "\": " + std::string(mqtt::to_string(reason)) + " (" + hex + ")");
  }
  if (wanted->second.granted) dispatcher_.post(std::make_unique<GrantedItem>(wanted->second.granted, code));
}

}  // namespace fulmar
