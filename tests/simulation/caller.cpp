#include <algorithm>
#include <array>

#include "allocation_meter.hpp"
#include "world.hpp"

namespace fulmar::simulation {

using mqtt::RecordParts;
using mqtt::RecordView;
using std::chrono::microseconds;
using std::chrono::milliseconds;

// --- the link -------------------------------------------------------------------------------------------------------

void World::open() {
  auto& connection = *connections_.emplace_back(std::make_unique<Connection>());
  connection.number = ++connections_made_;
  connection_ = &connection;
  journal_.note("client opens connection {}", connection.number);
  inbox_.clear();
  told_ = 0;
  held_ = false;
  gives_up_ = journal_.now + std::chrono::seconds(5);
  rules_->opened(journal_.now, session_->config());
  {
    const Metered metered;
    session_->connection_opened(journal_.now);
  }
  service();
}

void World::close() {
  if (connection_ == nullptr) return;
  drain();
  journal_.note("client closes connection {}", connection_->number);
  {
    const Metered metered;
    session_->connection_closed(journal_.now);
  }
  rules_->closed();
  connection_->client_end = false;
  if (!connection_->cut) {  // the rest of what was written arrives
    connection_->cut = true;
    connection_->server_sees = journal_.now + microseconds(random_.below(server_->habits.latency_us * 2 + 1));
  }
  connection_ = nullptr;
  held_ = false;
  blocked_until_ = journal_.now;
  inbox_.clear();
  told_ = 0;
  reopens_ = journal_.now + (calm_ ? milliseconds(1) : milliseconds(random_.pick({0, 1, 20, 500, 3'000})));
  // QoS 1 messages come again; an acknowledgement that is late must not do harm.
  std::erase_if(unacknowledged_, [this](const Unacknowledged& u) {
    return u.qos == QoS::at_least_once && !random_.chance(1'000);
  });
  drain();
}

void World::read(std::size_t most) {
  if (connection_ == nullptr || session_->should_close()) return;
  inbox_.erase(inbox_.begin(), inbox_.begin() + static_cast<std::ptrdiff_t>(told_));
  told_ = 0;
  const auto before = inbox_.size();
  const bool more = connection_->down.read(journal_.now, most, inbox_) != 0;
  if (inbox_.size() > before) rules_->received_bytes(journal_.now);
  if (more || !inbox_.empty()) {
    const Metered metered;
    session_->receive(inbox_, journal_.now);
  }
  service();
}

void World::drain() {
  while (!journal_.failed()) {
    Event event;
    bool more = false;
    {
      const Metered metered;
      more = session_->next_event(event);
    }
    const auto taken = inbox_.size() - session_->unread();
    if (taken < told_) return journal_.fail("unread() grows");
    static std::deque<Tag> nothing;
    rules_->told(BytesView(inbox_).subspan(told_, taken - told_), connection_ ? connection_->tags : nothing,
                 more ? &event : nullptr, journal_.now);
    told_ = taken;
    if (!more) return;
    handle(event);
  }
}

void World::service() {
  drain();
  while (connection_ != nullptr && !blocked() && !journal_.failed()) {
    std::array<std::byte, 65'536> buffer;
    const auto size =
        random_.pick<std::size_t>({random_.between(16, 40), random_.between(16, 1'500), 4'096, 65'536});
    std::size_t written = 0;
    {
      const Metered metered;
      written = session_->transmit(std::span(buffer).first(size), journal_.now);
    }
    if (written > size) return journal_.fail("transmit() says more than there is room for");
    if (written != 0) {
      rules_->sent(BytesView(buffer).first(written), journal_.now);
      connection_->up.write(BytesView(buffer).first(written),
                            journal_.now + microseconds(random_.below(server_->habits.latency_us + 1)));
      if (!calm_ && random_.chance(plan_.block)) {
        blocked_until_ = journal_.now + microseconds(random_.between(1, 300'000));
        journal_.note("the client's transport takes nothing more");
      }
    }
    drain();
    if (written == 0 && !session_->wants_transmit()) {
      rules_->at_rest(*session_, journal_.now);
      if (session_->should_close()) close();
      return;
    }
    if (written == 0)
      return journal_.fail("transmit() gives nothing, wants_transmit() says there is something");
  }
  if (connection_ != nullptr && session_->should_close() && !session_->wants_transmit()) close();
}

void World::handle(const Event& event) {
  if (const auto* connected = std::get_if<mqtt::Connected>(&event)) {
    journal_.note("connected, session present {}", connected->session_present);
    if (!connected->session_present) unacknowledged_.clear();
  } else if (const auto* received = std::get_if<mqtt::Received>(&event)) {
    const auto& message = received->message;
    journal_.note("received {} id {}, QoS {}", number_of(Way::in, message.topic, message.payload),
                  message.packet_id, static_cast<std::uint64_t>(message.qos));
    ++received_;
    if (message.qos != QoS::at_most_once) {
      unacknowledged_.push_back({message.packet_id, message.qos});
      if (random_.chance(plan_.acknowledge_at_once)) acknowledge(unacknowledged_.size() - 1);
    }
    if (!calm_ && random_.chance(plan_.hold)) hold(true);
  } else if (const auto* closing = std::get_if<mqtt::Closing>(&event)) {
    journal_.note("closing by {}, reason {}, rule {}", static_cast<std::uint64_t>(closing->by),
                  static_cast<std::uint64_t>(closing->reason), static_cast<std::uint64_t>(closing->rule));
  }
}

// --- the caller -----------------------------------------------------------------------------------------------------

Content World::content() {
  Content content;
  const auto roll = random_.below<unsigned>(plan_.qos[0] + plan_.qos[1] + plan_.qos[2]);
  content.qos = roll < plan_.qos[0]                  ? QoS::at_most_once
                : roll < plan_.qos[0] + plan_.qos[1] ? QoS::at_least_once
                                                     : QoS::exactly_once;
  content.retain = random_.chance(1'000);
  content.with_properties = random_.chance(3'000);
  content.payload_size = random_.below<std::uint32_t>(random_.pick({1u, 8u, 130u, 300u}));
  if (random_.chance(plan_.big)) {
    content.payload_size = random_.below<std::uint32_t>(random_.pick({4'000u, 20'000u, 20'000u, 300'000u}));
  }
  if (random_.chance(plan_.shared_topic)) {
    content.shared_topic = random_.between<std::uint32_t>(1, 12);
    content.payload_size = std::max(content.payload_size, 8u);
  } else if (random_.chance(500))
    content.topic_filler = random_.below<std::uint32_t>(200);
  return content;
}

void World::publish() {
  if (session_->counts().queued > plan_.queue_max) return;
  for (auto count = random_.between(1u, random_.pick({1u, 4u, 30u})); count > 0; --count) {
    const auto expiry =
        random_.chance(plan_.expiry) ? random_.between<std::uint32_t>(0, 30) : mqtt::no_expiry;
    if (!publish(content(), random_.chance(1'000), expiry)) break;
  }
  service();
}

bool World::publish(const Content& content, bool shared, std::uint32_t expiry_s) {
  const auto sequence = messages_.out.size();
  OutMessage message{.content = content, .expiry_s = expiry_s};
  message.accepted_ns =
      std::chrono::duration_cast<std::chrono::nanoseconds>(journal_.now.time_since_epoch()).count();
  std::vector<std::byte> payload;
  const auto topic = topic_of(Way::out, sequence, content);
  RecordParts parts;
  parts.topic = topic;
  if (content.with_properties) parts.properties = message_properties();
  if (shared) {
    parts.shared = new mqtt::SharedPayload;
    parts.shared->bytes = std::make_unique<std::byte[]>(content.payload_size);
    parts.shared->size = content.payload_size;
    parts.shared->account = &shared_bytes_;
    shared_bytes_ += content.payload_size;
    fill_payload(sequence, {parts.shared->bytes.get(), content.payload_size});
  } else {
    payload.resize(content.payload_size);
    fill_payload(sequence, payload);
    parts.payload = payload;
  }
  parts.qos = content.qos;
  parts.retain = content.retain;
  parts.expiry_s = expiry_s;
  parts.accepted_ns = message.accepted_ns;
  parts.sequence = sequence;
  parts.token = sequence * 3 + 1;
  std::vector<std::uint64_t> block(RecordView::size_for(parts) / 8);
  write_record(reinterpret_cast<std::byte*>(block.data()), parts);

  const bool room = session_->publish_room() > 0;
  bool accepted = false;
  {
    const Metered metered;
    accepted = session_->publish(RecordView(reinterpret_cast<const std::byte*>(block.data())));
  }
  if (accepted != room) journal_.fail("publish() and publish_room() disagree");
  if (!accepted) {
    if (parts.shared != nullptr) parts.shared->release();
    return false;
  }
  journal_.note("publish {}, QoS {}, {} bytes", sequence, static_cast<std::uint64_t>(content.qos),
                content.payload_size);
  messages_.out.push_back(message);
  rules_->published(sequence);
  return true;
}

void World::request() {
  const auto token = ++next_token_;
  const bool unsubscribe = random_.chance(4'000);
  const auto count = random_.between(1, 3);
  const std::string long_filter(random_.chance(1'000) ? 300 : 5, 'f');
  bool accepted = false;
  if (unsubscribe) {
    const std::vector<std::string_view> filters(count, long_filter);
    const Metered metered;
    accepted = session_->unsubscribe(filters, token);
  } else {
    const std::vector<mqtt::SubscriptionRequest> filters(count,
                                                         {.filter = long_filter, .qos = QoS::exactly_once});
    const Metered metered;
    accepted = session_->subscribe(filters, 0, token);
  }
  if (accepted) {
    rules_->requested(unsubscribe, token, count);
    journal_.note("request {}, {} filters", token, count);
  }
  service();
}

void World::acknowledge(std::size_t at) {
  const auto id = unacknowledged_[at].id;
  unacknowledged_.erase(unacknowledged_.begin() + static_cast<std::ptrdiff_t>(at));
  const auto reason =
      random_.chance(plan_.acknowledge_error) && !calm_ ? ReasonCode::quota_exceeded : ReasonCode::success;
  {
    const Metered metered;
    session_->acknowledge(id, reason);
  }
  rules_->acknowledged(id, reason);
}

void World::hold(bool on) {
  if (connection_ == nullptr || held_ == on) return;
  journal_.note(on ? "input is held" : "input is released");
  held_ = on;
  session_->hold_input(on, journal_.now);
  if (!on) rules_->input_released(journal_.now);
}

}  // namespace fulmar::simulation
