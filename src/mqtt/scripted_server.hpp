#pragma once
// ScriptedServer: the other end of a Session in tests. It moves bytes and virtual time, reads what the session sends with the
// server's side of the codec and keeps what the session tells.
//
// Not for the library itself.

#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fulmar/mqtt/codec.hpp"
#include "fulmar/mqtt/session.hpp"
#include "mqtt/wire_text.hpp"

namespace fulmar::mqtt {

// Properties in a buffer of their own.
class Properties {
 public:
  Properties& add(PropertyId id, std::uint32_t number) {
    writer_.add(id, number);
    return *this;
  }
  Properties& add(PropertyId id, std::string_view text) {
    writer_.add(id, text);
    return *this;
  }
  Properties& add_user(std::string_view name, std::string_view value) {
    writer_.add_user(name, value);
    return *this;
  }
  operator PropertiesView() const { return writer_.view(); }

 private:
  Bytes buffer_ = Bytes(512);
  PropertyWriter writer_{buffer_};
};

// A record in memory of its own.
class OwnedRecord {
 public:
  explicit OwnedRecord(const RecordParts& parts) : words_(RecordView::size_for(parts) / 8) {
    write_record(reinterpret_cast<std::byte*>(words_.data()), parts);
  }
  RecordView view() const { return RecordView(reinterpret_cast<const std::byte*>(words_.data())); }

 private:
  std::vector<std::uint64_t> words_;
};

// A configuration whose session outlives the connection.
inline SessionConfig persistent(ProtocolVersion version = ProtocolVersion::v5) {
  SessionConfig config;
  config.version = version;
  config.clean_start = false;
  config.session_expiry_s = 3600;
  return config;
}

inline OwnedRecord record_of(std::string_view payload, QoS qos) {
  RecordParts parts;
  parts.topic = "t";
  parts.payload = as_bytes(payload);
  parts.qos = qos;
  return OwnedRecord(parts);
}

class ScriptedServer {
 public:
  struct Message {
    std::string topic;
    std::string payload;
    std::uint16_t packet_id;
    QoS qos;
    bool retain;
    bool dup;
  };
  struct Close {
    Closing::By by;
    ReasonCode reason;
    DecodeError rule;
    std::string text;
    std::string server_reference;
  };
  struct Answer {
    std::uint64_t token;
    bool unsubscribe;
    std::vector<ReasonCode> codes;
  };

  explicit ScriptedServer(SessionConfig config = {}) : session(named(std::move(config))) {}

  // --- the link
  void open() {
    session.connection_opened(now);
    inbox_.clear();
    outbox_.clear();
    flush();
  }
  void close() {
    session.connection_closed(now);
    inbox_.clear();
    outbox_.clear();
    drain();
  }
  // open(), the CONNECT taken, and a CONNACK.
  void connect(bool session_present = false, PropertiesView properties = {}) {
    open();
    ASSERT_EQ(sent.size(), 1u);
    ASSERT_TRUE(std::holds_alternative<ConnectView>(next().view));
    send(ConnackView{session_present, 0, properties});
  }
  void reconnect(bool session_present, PropertiesView properties = {}) {
    close();
    sent.clear();
    connect(session_present, properties);
  }

  // --- what the server sends
  void send_bytes(const Bytes& data) {
    for (std::size_t at = 0; at < data.size();) {
      const std::size_t count = std::min(data.size() - at, read_size);
      inbox_.insert(inbox_.end(), data.begin() + static_cast<std::ptrdiff_t>(at),
                    data.begin() + static_cast<std::ptrdiff_t>(at + count));
      at += count;
      session.receive(inbox_, now);
      drain();
      if (!session_holds_input)
        inbox_.erase(inbox_.begin(), inbox_.end() - static_cast<std::ptrdiff_t>(session.unread()));
    }
    flush();
  }
  template <typename Packet>
  void send(const Packet& packet) {
    Bytes data(encoded_size(PacketView(packet), version()));
    ASSERT_EQ(encode(data, PacketView(packet), version()), data.size());
    send_bytes(data);
  }
  void ack(PacketType type, std::uint16_t id, ReasonCode reason = ReasonCode::success) {
    send(AckView{type, id, reason, {}});
  }
  void publish(std::string_view topic, std::string_view payload, QoS qos = QoS::at_most_once,
               std::uint16_t id = 0, bool dup = false, PropertiesView properties = {}) {
    send(PublishView{topic, as_bytes(payload), properties, id, qos, false, dup});
  }

  // --- what the session sends
  struct Sent {
    Bytes data;
    PacketView view;
  };
  // Takes all that the session wants to send; each packet is checked as a server would.
  void flush() {
    Bytes buffer(write_size);
    while (true) {
      const auto size = session.transmit(buffer, now);
      if (size == 0) break;
      outbox_.insert(outbox_.end(), buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(size));
    }
    drain();
    while (true) {
      Frame frame;
      const auto error = next_frame(outbox_, version(), no_packet_limit, frame);
      ASSERT_EQ(error, DecodeError::none) << to_string(error);
      if (frame.size == 0) break;
      auto& packet = *sent.emplace_back(std::make_unique<Sent>());
      packet.data.assign(outbox_.begin(), outbox_.begin() + static_cast<std::ptrdiff_t>(frame.size));
      ASSERT_EQ(next_frame(packet.data, version(), no_packet_limit, frame), DecodeError::none);
      const auto broken = decode(frame, version(), Sender::client, packet.view);
      ASSERT_EQ(broken, DecodeError::none) << to_string(broken) << ": " << hex(packet.data);
      outbox_.erase(outbox_.begin(), outbox_.begin() + static_cast<std::ptrdiff_t>(frame.size));
    }
  }
  // The oldest packet that was not looked at; it stays valid until the next call.
  const Sent& next() {
    if (sent.empty()) {
      ADD_FAILURE() << "the session has sent nothing";
      static const Sent nothing{{}, PingrespView{}};
      return nothing;
    }
    current_ = std::move(sent.front());
    sent.pop_front();
    return *current_;
  }
  template <typename Packet>
  Packet next_as() {
    const auto& packet = next();
    if (const auto* view = std::get_if<Packet>(&packet.view)) return *view;
    ADD_FAILURE() << "another packet: " << hex(packet.data);
    return Packet();
  }
  std::string next_hex() { return hex(next().data); }

  // --- the session's caller
  std::uint64_t publish_record(std::string_view payload, QoS qos, std::string_view topic = "t") {
    RecordParts parts;
    parts.topic = topic;
    parts.payload = as_bytes(payload);
    parts.qos = qos;
    return publish_record(parts);
  }
  std::uint64_t publish_record(RecordParts parts) {
    parts.sequence = ++last_sequence;
    parts.token = 1000 + last_sequence;
    const OwnedRecord record(parts);
    EXPECT_TRUE(session.publish(record.view()));
    return last_sequence;
  }
  // A message of a log, with its position there as token.
  void publish_stored(std::string_view payload, std::uint64_t position, Resumed how = Resumed::fresh) {
    RecordParts parts;
    parts.topic = "t";
    parts.payload = as_bytes(payload);
    parts.qos = QoS::exactly_once;
    publish_stored(parts, position, how);
  }
  void publish_stored(RecordParts parts, std::uint64_t position, Resumed how) {
    parts.sequence = ++last_sequence;
    parts.token = position;
    const OwnedRecord record(parts);
    EXPECT_TRUE(session.publish_stored(record.view(), position, how));
  }
  void release(std::uint64_t position) {
    EXPECT_TRUE(session.release(position));
    flush();
  }
  void pass(std::chrono::milliseconds time) { now += time; }
  // Lets time pass up to the session's next timeout and fires it.
  void run_timeout() {
    const auto due = session.next_timeout();
    ASSERT_TRUE(due.has_value());
    now = std::max(now, *due);
    session.on_timeout(now);
    flush();
  }

  void drain() {
    Event event;
    while (session.next_event(event)) {
      if (const auto* connected_event = std::get_if<Connected>(&event)) connected.push_back(*connected_event);
      if (const auto* refused_event = std::get_if<Refused>(&event)) refused.push_back(*refused_event);
      if (const auto* completed_event = std::get_if<Completed>(&event)) completed.push_back(*completed_event);
      if (const auto* pubrec = std::get_if<PubrecReceived>(&event)) recorded.push_back(*pubrec);
      if (const auto* authentication = std::get_if<Authentication>(&event))
        challenges.push_back(*authentication);
      if (const auto* received = std::get_if<Received>(&event)) {
        const auto& m = received->message;
        messages.push_back(
            {std::string(m.topic), std::string(as_text(m.payload)), m.packet_id, m.qos, m.retain, m.dup});
        if (acknowledges) session.acknowledge(m.packet_id);
        if (hold_after != 0 && messages.size() == hold_after)
          session.hold_input(session_holds_input = true, now);
      }
      if (const auto* closing = std::get_if<Closing>(&event)) {
        closings.push_back({closing->by, closing->reason, closing->rule, std::string(closing->text),
                            std::string(closing->server_reference)});
      }
      if (const auto* answer = std::get_if<SubscriptionAcknowledged>(&event)) {
        answers.push_back({answer->token, answer->unsubscribe, {answer->codes.begin(), answer->codes.end()}});
      }
    }
  }

  ProtocolVersion version() const { return session.config().version; }

  Session session;
  Instant now{std::chrono::hours(1)};
  std::size_t read_size = 1 << 20;   // bytes that come at once
  std::size_t write_size = 1 << 16;  // of the transmit buffer
  bool acknowledges = false;         // every message at once
  std::size_t hold_after = 0;        // holds the input after so many messages
  bool session_holds_input = false;
  std::uint64_t last_sequence = 0;

  std::deque<std::unique_ptr<Sent>> sent;
  std::vector<Connected> connected;
  std::vector<Refused> refused;
  std::vector<Completed> completed;
  std::vector<PubrecReceived> recorded;
  std::vector<Message> messages;
  std::vector<Close> closings;
  std::vector<Answer> answers;
  std::vector<Authentication> challenges;

 private:
  static SessionConfig named(SessionConfig config) {
    if (config.client_id.empty()) config.client_id = "c";
    return config;
  }

  Bytes inbox_;
  Bytes outbox_;
  std::unique_ptr<Sent> current_;
};

// What the session has sent: payloads of PUBLISH ("dup:" in front with DUP), other packets in hexadecimal.
inline std::vector<std::string> payloads_of(ScriptedServer& server) {
  std::vector<std::string> payloads;
  while (!server.sent.empty()) {
    const auto& packet = server.next();
    if (const auto* publish = std::get_if<PublishView>(&packet.view)) {
      payloads.push_back((publish->dup ? "dup:" : "") + std::string(as_text(publish->payload)));
    } else {
      payloads.push_back(hex(packet.data));
    }
  }
  return payloads;
}

}  // namespace fulmar::mqtt
