#pragma once
// Session::Impl: the state of a session and its three sides: life cycle (session.cpp), what comes in
// (session_inbound.cpp) and what goes out (session_outbound.cpp); what stored messages need besides is in session_stored.cpp.

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "fulmar/mqtt/codec.hpp"
#include "fulmar/mqtt/session.hpp"
#include "mqtt/block_pool.hpp"
#include "mqtt/byte_queue.hpp"
#include "mqtt/growing_ring.hpp"
#include "mqtt/held_record.hpp"
#include "mqtt/in_flight.hpp"
#include "mqtt/outbound_aliases.hpp"
#include "mqtt/received_ids.hpp"

namespace fulmar::mqtt {

struct Session::Impl {
  // `at` is the index of a slot: the packet identifier but for stored messages.
  using Kind = InFlight::Kind;
  using Slot = InFlight::Slot;
  using Stage = ReceivedIds::Stage;

  // Records wait in front of the window: what it takes to fill it plus a batch, or this many bytes.
  static constexpr std::size_t batch = 256;
  static constexpr std::size_t pending_bytes_max = std::size_t{256} << 10;
  // More answers than this waiting for the transport: the server ignores flow control.
  static constexpr std::size_t control_bytes_max = std::size_t{1} << 20;
  static constexpr std::size_t idle_cache_max = std::size_t{16} << 10;

  explicit Impl(SessionConfig config);
  ~Impl();

  bool v5() const { return version == ProtocolVersion::v5; }
  // The send quota of this connection [MQTT-3.3.4-7, MQTT-4.9.0-1].
  std::uint32_t window() const { return std::min(limits.receive_maximum, max_inflight); }
  std::uint32_t free_window() const { return on_wire < window() ? window() - on_wire : 0; }
  bool may_take_id() const { return on_wire < window() && in_flight.has_free(); }
  bool may_take_id(QoS qos) const {
    return may_take_id() &&
           (qos != QoS::exactly_once || !adopted || clearing == 0 || is_cleared(in_flight.first_free()));
  }

  // --- life cycle
  void open(Instant now);
  void close();
  void send_connect();
  void resume();
  void requeue_in_flight();
  void give_up(std::uint16_t at);
  void forget_requests();
  void release_record(HeldRecord record);
  void put_back(HeldRecord record);
  // What a record counts against pending_bytes_max.
  static std::size_t cost(RecordView record) {
    return record.block_size() + (record.header().payload_by_reference ? record.header().payload_size : 0);
  }
  void take_all(void (*take)(void*, RecordView), void* context);
  void for_each_pending(void (*view)(void*, RecordView, std::optional<std::uint64_t>), void* context) const;
  std::optional<Instant> next_timeout() const;
  Instant dead_at() const;  // while ping_sent
  std::optional<Instant> look_at() const;
  void on_timeout(Instant now);
  void send_queue(std::size_t unconfirmed, Instant now);
  void trim();

  // --- out
  bool publish(RecordView record);
  std::size_t room() const;
  std::size_t transmit(std::span<std::byte> out, Instant now);
  bool has_sendable() const;
  bool may_send_publishes() const;
  // Where transmit() is in the caller's buffer, and at what time.
  struct Out {
    std::byte* at;
    std::byte* end;
    Instant now;
    std::size_t room() const { return static_cast<std::size_t>(end - at); }
  };
  void send_next(Out& out);
  std::uint16_t take_id(QoS qos);
  bool is_cleared(std::uint16_t id) const { return id < cleared.size() && cleared[id]; }
  void clear_id(std::uint16_t id);
  void end_abandoned(std::uint16_t at);
  void enter_flight(std::uint16_t at, HeldRecord record, Kind kind);
  void send_again(Out& out);
  std::uint16_t resend_from(std::uint16_t at) const;
  void send_publish(Out& out, const PublishHead& head, std::size_t head_size, HeldRecord record,
                    std::uint16_t at);
  void continue_split(Out& out);
  PublishHead head_of(const RecordHeader& header, RecordView record) const;
  std::size_t measure_with_alias(PublishHead& head, OutboundAliases::Use& alias) const;
  // Whole seconds that are left of a message's life, rounded up; 0 when it is over.
  static std::uint32_t life_left(const RecordHeader& header, Instant now);
  // Why this server cannot take the message; success when it can.
  ReasonCode refusal(const RecordHeader& header, std::size_t packet_size) const;
  void settle_pending(Outcome outcome, ReasonCode reason);
  void pop_pending();
  template <typename Packet>
  bool queue(const Packet& packet);
  void queue_ack(PacketType type, std::uint16_t id, ReasonCode reason = ReasonCode::success);
  template <typename Packet>
  bool queue_request(Packet packet, Kind kind, std::uint64_t token, std::size_t count);
  bool queue_auth(ReasonCode reason, BytesView data);
  void finish_disconnect();
  // What this connection can say of `reason`: nothing in 3.1.1; in 5.0 only what is listed for the packet.
  ReasonCode sendable(PacketType type, ReasonCode reason) const;

  // --- in
  void receive(BytesView bytes, Instant now);
  bool next_event(Event& event);
  bool handle(const Frame& frame, Event& event);
  bool handle_connack(const Frame& frame, Event& event);
  bool handle_publish(const Frame& frame, Event& event);
  bool handle_ack(const Frame& frame, Event& event);
  bool handle_pubrel(const Frame& frame, Event& event);
  bool handle_suback(const Frame& frame, Event& event);
  bool handle_disconnect(const Frame& frame, Event& event);
  bool handle_auth(const Frame& frame, Event& event);
  bool refuse(const ConnackView& connack, ProtocolVersion spoken, Event& event);
  void adopt_limits(const PropertiesView& properties);
  DecodeError resolve_alias(PublishView& message);
  DecodeError admit(const PublishView& message, bool& deliver);
  void complete(std::uint16_t at, Slot& slot, Outcome outcome, ReasonCode reason, Event& event);
  void acknowledge(std::uint16_t id, ReasonCode reason);
  void send_handled();
  bool breaks_problem_information(const PropertiesView& properties) const;
  bool violate(DecodeError rule, Event& event);

  // --- stored messages
  bool publish_stored(RecordView record, std::uint64_t position, Resumed how);
  bool may_send_stored(HeldRecord record) const;
  void send_next_stored(Out& out);
  void send_pubrel(Out& out, std::uint16_t at);
  bool wait_for_release(std::uint16_t at, Slot& slot, Event& event);
  bool release(std::uint64_t position);
  void send_releases();
  void complete_stored(std::uint16_t at, Slot& slot, ReasonCode reason, Event& event);

  // --- configuration and what was agreed for this connection
  SessionConfig config;
  ProtocolVersion version;
  std::uint16_t max_inflight = 0;
  std::uint16_t receive_maximum = 0;
  std::uint16_t topic_alias_maximum = 0;
  std::uint32_t maximum_packet_size = 0;
  bool problem_information = true;
  ServerLimits limits;
  std::string assigned_client_id;

  // --- life cycle
  State state = State::closed;
  bool ending = false;        // nothing more is queued; should_close() once the rest has left
  bool abrupt = false;        // nothing more is sent; should_close() at once
  bool connack_seen = false;  // on this connection
  bool sent_clean_start = false;
  bool has_session = false;        // the server may hold a session that this object knows
  bool wants_clean_start = false;  // by forget_session() and after a session that is not ours
  // Whose turn it is in an authentication: the server's while connecting or doing it again, else the caller's.
  enum class Auth : std::uint8_t { idle, connecting, challenged, again, challenged_again } auth = Auth::idle;
  std::string authentication_method;  // as sent in CONNECT
  Instant last_sent{};
  Instant last_received{};
  std::optional<Instant> ping_sent;  // PINGREQ without bytes since
  // The way of that PINGREQ through the transport's send queue, where the caller tells of it; in bytes of this connection.
  struct Way {
    std::uint64_t transmitted = 0;
    std::uint64_t confirmed = 0;
    std::uint64_t ping_end = 0;    // transmitted when PINGREQ had left the session, 0 = it has not
    std::optional<Instant> told;   // by the last send_queue(); empty: never
    std::optional<Instant> moved;  // the last time that told of a queue that had moved, with PINGREQ in it
    bool ping_arrived = false;
  } way;

  // --- out
  BlockPool pool;
  GrowingRing<HeldRecord> pending;  // records not transmitted yet, oldest first
  std::size_t pending_bytes = 0;
  InFlight in_flight;
  OutboundAliases aliases_out;
  std::uint32_t on_wire = 0;  // messages that count against the send quota
  std::uint16_t resend = 0;   // the next in-flight message that has to be sent again, 0 = none
  std::uint32_t release_number = 0;
  GrowingRing<std::uint16_t> releases;  // recorded, in the order of their PUBRECs [MQTT-4.6.0-4]
  ByteQueue control;                    // encoded packets other than PUBLISH
  struct Split {                        // a PUBLISH that is spread over several buffers
    HeldRecord record{};                // none = no split
    std::uint16_t slot = 0;             // 0: QoS 0, the record is the split's own
    std::size_t head_done = 0;
    std::size_t payload_done = 0;
  } split;
  std::vector<std::byte> split_head;            // its head when that did not fit
  std::optional<ReasonCode> disconnect_reason;  // waits for what was queued before it
  std::size_t before_disconnect = 0;            // records of `pending` that go first

  // A session that a former process left at the server, which may hold identifiers of QoS 2 from then: a new message under
  // one of them would pass for the old one and be lost. Each is cleared by a PUBREL and its PUBCOMP before its first use.
  bool adopted = false;
  std::vector<bool> cleared;  // by identifier
  std::size_t cleared_count = 0;
  std::size_t clearing = 0;  // wait for their PUBCOMP; they are in in_flight.abandoned

  // --- in
  BytesView input;
  std::size_t unread = 0;
  std::size_t expected = 0;
  bool held = false;
  GrowingRing<Completed> completions;  // made outside of next_event()
  std::optional<Closing> closing;      // the same
  std::vector<ReasonCode> codes;
  std::vector<std::string> aliases;  // inbound; [alias - 1], empty = not mapped
  ReceivedIds received;
  GrowingRing<std::uint16_t> arrivals;  // identifiers in the order in which they will be acknowledged
  std::uint32_t unacknowledged = 0;     // counted against our receive maximum

  Counts totals;
};

}  // namespace fulmar::mqtt
