#include "client/subscription_requests.hpp"

#include <algorithm>
#include <cstdio>
#include <utility>

namespace fulmar {
namespace {

constexpr std::size_t filters_per_packet = 100;
// Fixed header, packet identifier, properties, and length and options of one filter take no more.
constexpr std::size_t overhead = 19;
// While offline: filters that are not wanted any more and that the server may still know. More are forgotten.
constexpr std::size_t unwanted_max = 10'000;

struct AnswerItem final : Dispatcher::Item {
  AnswerItem(HandlerTable& to, std::string what, std::uint64_t of, std::uint8_t with)
      : table(to), filter(std::move(what)), id(of), code(with) {}
  void run() override { table.answered(filter, id, code); }
  HandlerTable& table;
  std::string filter;
  std::uint64_t id;
  std::uint8_t code;
};

}  // namespace

void SubscriptionRequests::wait(Filters::value_type& filter) {
  if (connected_ && !std::exchange(filter.second.waits, true)) waiting_.push_back(&filter);
}

void SubscriptionRequests::want(std::string filter, const Terms& terms) {
  auto& one = *filters_.try_emplace(std::move(filter)).first;
  if (one.second.unsubscribe && !one.second.wanted) --unwanted_;
  one.second.terms = terms;
  one.second.wanted = true;
  one.second.answered = false;
  wait(one);
}

void SubscriptionRequests::forget(const std::string& filter) {
  const auto found = filters_.find(filter);
  if (found == filters_.end() || !std::exchange(found->second.wanted, false)) return;
  if (!connected_ && unwanted_ >= unwanted_max) {
    filters_.erase(found);
    return;
  }
  ++unwanted_;
  found->second.unsubscribe = true;
  wait(*found);
}

void SubscriptionRequests::link_lost() {
  connected_ = false;
  // What was asked and not answered is asked again, by what is wanted then.
  sent_.clear();
  waiting_.clear();
  for (auto& [filter, state] : filters_) state.waits = false;
}

void SubscriptionRequests::connected(bool session_present, std::uint32_t server_packet_max,
                                     bool identifiers_available) {
  connected_ = true;
  packet_max_ = server_packet_max;
  identifiers_available_ = identifiers_available;
  if (!session_present) {
    unwanted_ = 0;
    std::erase_if(filters_, [](const auto& filter) { return !filter.second.wanted; });
    for (auto& [filter, state] : filters_) state.answered = state.unsubscribe = false;
  }
  // In the order of the calls, as retained messages come in the order of the requests.
  std::vector<Filters::value_type*> open;
  for (auto& filter : filters_) {
    if (filter.second.unsubscribe || (filter.second.wanted && !filter.second.answered))
      open.push_back(&filter);
  }
  std::ranges::sort(open, {}, [](const auto* filter) { return filter->second.terms.id; });
  for (auto* filter : open) wait(*filter);
}

std::uint32_t SubscriptionRequests::identifier_of(const Filter& filter) const {
  return identifiers_available_ ? filter.terms.identifier : 0;
}

mqtt::SubscriptionRequest SubscriptionRequests::request_for(const Filters::value_type& filter) const {
  const auto& terms = filter.second.terms;
  mqtt::SubscriptionRequest request;
  request.filter = filter.first;
  request.qos = terms.qos;
  request.no_local = terms.no_local;
  request.retain_as_published = terms.retain_as_published;
  request.retain_handling = static_cast<mqtt::RetainHandling>(terms.retain_handling);
  return request;
}

// Why this server cannot take the filter; success when it can.
mqtt::ReasonCode SubscriptionRequests::refusal(const Filters::value_type& filter) const {
  if (filter.first.size() + overhead > packet_max_) return mqtt::ReasonCode::packet_too_large;
  return session_.subscription_refusal(request_for(filter), identifier_of(filter.second));
}

// As many of the next requests of one kind and identifier as fit into one packet; at least one.
std::size_t SubscriptionRequests::count_that_fits() const {
  const bool unsubscribe = waiting_.front()->second.unsubscribe;
  const auto identifier = identifier_of(waiting_.front()->second);
  std::size_t count = 0;
  std::size_t size = overhead;
  for (const auto* filter : waiting_) {
    size += filter->first.size() + 3;
    if (filter->second.unsubscribe != unsubscribe || count == filters_per_packet) break;
    if (!unsubscribe && (identifier_of(filter->second) != identifier || !filter->second.wanted)) break;
    if (count > 0 && size > packet_max_) break;
    if (count > 0 && !unsubscribe && refusal(*filter) != mqtt::ReasonCode::success) break;
    ++count;
  }
  return count;
}

void SubscriptionRequests::send() {
  while (!waiting_.empty()) {
    auto& next = *waiting_.front();
    if (!next.second.unsubscribe) {
      // What this server cannot take never reaches it; the answer is the one it would give.
      const auto reason = refusal(next);
      if (reason != mqtt::ReasonCode::success) {
        waiting_.pop_front();
        next.second.waits = false;
        tell({next.first, next.second.terms.id}, reason);
        continue;
      }
    }
    const auto count = count_that_fits();
    const bool taken = next.second.unsubscribe ? send_unsubscribe(count) : send_subscribe(count);
    if (!taken) return;  // no identifier is free: later
  }
}

bool SubscriptionRequests::send_unsubscribe(std::size_t count) {
  std::vector<std::string_view> filters;
  for (std::size_t i = 0; i < count; ++i) filters.push_back(waiting_[i]->first);
  if (!session_.unsubscribe(filters, ++last_token_)) return false;
  for (; count > 0; --count) {
    auto& filter = *waiting_.front();
    waiting_.pop_front();
    filter.second.waits = filter.second.unsubscribe = false;
    if (filter.second.wanted) {
      wait(filter);
    } else {
      --unwanted_;
      filters_.erase(filters_.find(filter.first));
    }
  }
  return true;
}

bool SubscriptionRequests::send_subscribe(std::size_t count) {
  std::vector<mqtt::SubscriptionRequest> requests;
  for (std::size_t i = 0; i < count; ++i) requests.push_back(request_for(*waiting_[i]));
  if (!session_.subscribe(requests, identifier_of(waiting_.front()->second), ++last_token_)) return false;
  auto& sent = sent_[last_token_];
  for (; count > 0; --count) {
    auto& filter = *waiting_.front();
    waiting_.pop_front();
    filter.second.waits = false;
    sent.push_back({filter.first, filter.second.terms.id});
  }
  return true;
}

void SubscriptionRequests::answered(const mqtt::SubscriptionAcknowledged& answer) {
  const auto request = sent_.extract(answer.token);
  if (request.empty() || answer.unsubscribe) return;
  const auto& asked = request.mapped();
  for (std::size_t i = 0; i < asked.size() && i < answer.codes.size(); ++i) tell(asked[i], answer.codes[i]);
}

void SubscriptionRequests::tell(const Asked& asked, mqtt::ReasonCode reason) {
  const auto found = filters_.find(asked.filter);
  // Unsubscribed or replaced in the meantime: the last request has an answer of its own.
  if (found == filters_.end() || !found->second.wanted || found->second.terms.id != asked.id) return;
  found->second.answered = true;
  const auto code = static_cast<std::uint8_t>(reason);
  if (code >= 0x80) {
    char hex[8];
    std::snprintf(hex, sizeof hex, "0x%02x", code);
    dispatcher_.log(LogLevel::warning, "subscribe",
                    "the server refused the filter \"" + asked.filter.substr(0, 64) +
                        "\": " + std::string(mqtt::to_string(reason)) + " (" + hex + ")");
  }
  dispatcher_.post(std::make_unique<AnswerItem>(dispatcher_.table(), asked.filter, asked.id, code));
}

}  // namespace fulmar
