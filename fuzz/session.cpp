// A session driven by op-codes: any order of the caller's calls, any bytes from a server and well-formed ones in any
// order; plain messages and those of a log. Whatever it sends is decoded as a server would; every record ends exactly once.
// Input: the version and limits, then op-codes with their operands.

#include "fulmar/mqtt/session.hpp"

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "fuzz_input.hpp"

namespace {

using namespace fulmar;
using namespace fulmar::mqtt;

class World {
 public:
  explicit World(fuzz::Input& input) : input_(input), session_(config(input)) {}

  void run() {
    for (int step = 0; step < 2'000 && !input_.empty(); ++step) {
      act();
      take_events();
    }
    session_.take_all([this](RecordView record) { end(record.header().sequence); });
    take_events();
    for (const auto& [sequence, ends] : ends_) fuzz::require(ends == 1, "a record did not end exactly once");
  }

 private:
  static SessionConfig config(fuzz::Input& input) {
    const auto bits = input.byte();
    SessionConfig config;
    config.client_id = "fuzz";
    config.version = bits & 1 ? ProtocolVersion::v5 : ProtocolVersion::v3_1_1;
    config.clean_start = bits & 2;
    config.session_expiry_s = bits & 4 ? 100 : 0;
    config.keepalive_s = bits & 8 ? 10 : 0;
    config.receive_maximum = bits & 16 ? 2 : 65'535;
    config.max_inflight = bits & 32 ? 3 : 1'000;
    config.maximum_packet_size = bits & 64 ? 100 : 1u << 20;
    config.topic_alias_maximum = bits & 128 ? 2 : 0;
    config.stored_ids = true;
    return config;
  }

  void act() {
    now_ += std::chrono::milliseconds(input_.byte());
    switch (input_.byte() % 16) {
      case 0:
        if (session_.state() == Session::State::closed) {
          sent_.clear();
          inbox_.clear();
          session_.connection_opened(now_);
        }
        break;
      case 1:
        session_.connection_closed(now_);
        inbox_.clear();
        sent_.clear();
        held_ = false;
        break;
      case 2: receive(input_.bytes(input_.byte())); break;
      case 3: receive_packet(ConnackView{(input_.byte() & 1) != 0, 0, {}}); break;
      case 4: receive_packet(AckView{PacketType::puback, id(), reason(), {}}); break;
      case 5: receive_packet(AckView{PacketType::pubrec, id(), reason(), {}}); break;
      case 6: receive_packet(AckView{PacketType::pubcomp, id(), ReasonCode::success, {}}); break;
      case 7: receive_packet(AckView{PacketType::pubrel, id(), ReasonCode::success, {}}); break;
      case 8: {
        PublishView message;
        message.topic = "from/server";
        message.payload = input_.bytes(input_.byte() % 32);
        message.qos = static_cast<QoS>(input_.byte() % 3);
        message.packet_id = message.qos == QoS::at_most_once ? std::uint16_t{0} : id();
        receive_packet(message);
        break;
      }
      case 9: {
        const std::byte code{static_cast<unsigned char>(input_.byte() % 3)};
        receive_packet(
            SubackView{input_.byte() & 1 ? PacketType::suback : PacketType::unsuback, id(), {}, {&code, 1}});
        break;
      }
      case 10: publish(); break;
      case 11: subscribe(); break;
      case 12:
        session_.acknowledge(id(), input_.byte() & 1 ? ReasonCode::success : ReasonCode::quota_exceeded);
        break;
      case 13:
        if (const auto due = session_.next_timeout()) {
          now_ = std::max(now_, *due);
          session_.on_timeout(now_);
        }
        break;
      case 14: control(); break;
      default: transmit(); break;
    }
  }

  void control() {
    switch (input_.byte() % 8) {
      case 0: session_.disconnect(); break;
      case 1: session_.forget_session(); break;
      case 4:
      case 5: release(position_ - input_.byte() % 8); break;
      case 6: compare_shown(); break;
      case 2:
        held_ = !held_;
        session_.hold_input(held_, now_);
        break;
      default: session_.take_all([this](RecordView record) { end(record.header().sequence); }); break;
    }
  }

  // Of the first plain messages, or of the last ones of the log.
  std::uint16_t id() {
    const auto byte = input_.byte();
    if (byte < 128) return static_cast<std::uint16_t>(byte % 8 + 1);
    return static_cast<std::uint16_t>(0x8000 + (position_ - byte % 8) % 0x4000);
  }
  ReasonCode reason() { return input_.byte() & 3 ? ReasonCode::success : ReasonCode::not_authorized; }

  template <typename Packet>
  void receive_packet(const Packet& packet) {
    std::byte buffer[512];
    receive({buffer, encode(buffer, packet, session_.config().version)});
  }

  void receive(BytesView bytes) {
    if (session_.state() == Session::State::closed || held_) return;
    inbox_.insert(inbox_.end(), bytes.begin(), bytes.end());
    session_.receive(inbox_, now_);
    take_events();
    fuzz::require(session_.unread() <= inbox_.size(), "more unread than was given");
    inbox_.erase(inbox_.begin(), inbox_.end() - static_cast<std::ptrdiff_t>(session_.unread()));
  }

  void publish() {
    const std::string topic(1 + input_.byte() % 4, 't');
    RecordParts parts;
    parts.topic = topic;
    parts.payload = input_.bytes(input_.byte());
    parts.qos = static_cast<QoS>(input_.byte() % 3);
    const auto bits = input_.byte();
    parts.retain = bits & 1;
    parts.sequence = ends_.size();
    if (input_.byte() % 4 == 0) {
      parts.expiry_s = input_.byte() % 4;
      parts.accepted_ns = now_.time_since_epoch().count();
    }
    std::vector<std::uint64_t> block(RecordView::size_for(parts) / 8);
    write_record(reinterpret_cast<std::byte*>(block.data()), parts);
    const RecordView record(reinterpret_cast<const std::byte*>(block.data()));
    const bool stored = bits & 2 && parts.qos == QoS::exactly_once;
    const auto how = static_cast<Resumed>(bits / 4 % 3);
    if (stored ? session_.publish_stored(record, position_ + 1, how) : session_.publish(record)) {
      ends_[parts.sequence] = 0;
      if (stored) ++position_;
    }
  }

  void release(std::uint64_t position) {
    const bool told = recorded_.contains(position);
    fuzz::require(!session_.release(position) || told, "released without a PUBREC");
    fuzz::require(!session_.release(position), "released twice");
  }

  // What is shown is what is taken.
  void compare_shown() {
    std::vector<std::uint64_t> shown;
    session_.for_each_pending([&](RecordView record, std::optional<std::uint64_t> position) {
      shown.push_back(record.header().sequence);
      fuzz::require(!position || *position <= position_, "an unknown position");
    });
    std::size_t next = 0;
    session_.take_all([&](RecordView record) {
      fuzz::require(next < shown.size() && shown[next] == record.header().sequence,
                    "another record is taken");
      ++next;
      end(record.header().sequence);
    });
    fuzz::require(next == shown.size(), "less was taken than shown");
  }

  void subscribe() {
    const SubscriptionRequest request{.filter = "a/#", .qos = static_cast<QoS>(input_.byte() % 3)};
    const std::string_view filter = "a/#";
    if (input_.byte() & 1) {
      session_.subscribe({&request, 1}, 0, 7);
    } else {
      session_.unsubscribe({&filter, 1}, 7);
    }
  }

  void end(std::uint64_t sequence) {
    const auto found = ends_.find(sequence);
    fuzz::require(found != ends_.end(), "a record ended that was never taken");
    ++found->second;
  }

  void take_events() {
    Event event;
    while (session_.next_event(event)) {
      if (const auto* completed = std::get_if<Completed>(&event)) end(completed->sequence);
      if (const auto* pubrec = std::get_if<PubrecReceived>(&event)) recorded_.insert(pubrec->position);
      if (const auto* received = std::get_if<Received>(&event)) {
        fuzz::require(!received->message.topic.empty(), "a message without a topic");
      }
    }
  }

  // What leaves is a sequence of packets that a server accepts.
  void transmit() {
    std::vector<std::byte> buffer(16 + input_.byte());
    for (int rounds = 0; rounds < 64; ++rounds) {
      const auto size = session_.transmit(buffer, now_);
      fuzz::require(size <= buffer.size(), "more was written than there is room for");
      if (size == 0) break;
      sent_.insert(sent_.end(), buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(size));
    }
    std::size_t at = 0;
    while (at < sent_.size()) {
      Frame frame;
      const auto error =
          next_frame(BytesView(sent_).subspan(at), session_.config().version, no_packet_limit, frame);
      fuzz::require(error == DecodeError::none, "a malformed packet was sent");
      if (frame.size == 0) break;
      PacketView view;
      fuzz::require(decode(frame, session_.config().version, Sender::client, view) == DecodeError::none,
                    "a packet was sent that a server must refuse");
      at += frame.size;
    }
    sent_.erase(sent_.begin(), sent_.begin() + static_cast<std::ptrdiff_t>(at));
  }

  fuzz::Input& input_;
  Session session_;
  Instant now_{std::chrono::hours(1)};
  std::vector<std::byte> inbox_;
  std::vector<std::byte> sent_;
  std::map<std::uint64_t, int> ends_;
  std::uint64_t position_ = 0x3ff0;   // of the last message of the log
  std::set<std::uint64_t> recorded_;  // positions whose PUBREC was told
  bool held_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  World(input).run();
  return 0;
}
