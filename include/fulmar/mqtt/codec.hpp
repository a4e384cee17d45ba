#pragma once
// The codec of MQTT 3.1.1 and 5.0, both directions, for every packet type.
//
// Decoding: next_frame() cuts a byte stream into packets; decode() makes a view of one. It allocates nothing, accepts
// exactly what the standard allows and names the rule that was broken otherwise.
// Encoding: encode() writes a whole packet into the caller's buffer. It trusts its caller: topics, strings and properties
// are valid (check_topic_name(), is_valid_utf8(), check_properties()).
//
// Thread-safety: pure functions.

#include <cstddef>
#include <cstdint>
#include <span>

#include "fulmar/mqtt/packet.hpp"
#include "fulmar/mqtt/record.hpp"
#include "fulmar/mqtt/types.hpp"

namespace fulmar::mqtt {

inline constexpr std::uint32_t variable_integer_max = 268'435'455;  // [MQTT5 1.5.5]
inline constexpr std::uint32_t no_packet_limit = 0xffffffff;
inline constexpr std::size_t fixed_header_size_max = 5;

// Who sent the packets: some codes and properties are one side's only.
enum class Sender : std::uint8_t { client, server };

// One packet of the stream, its body not yet looked at.
struct Frame {
  PacketType type{};
  std::uint8_t flags = 0;
  BytesView body;            // variable header and payload
  std::size_t size = 0;      // of the whole packet; 0: more bytes are needed
  std::size_t expected = 0;  // of the whole packet as soon as its header is there, else 0
};

// Cuts the first packet off `bytes`. Flags, length and size limit are checked as soon as they are there, so that a bad
// header is refused without waiting for its body [MQTT-2.1.3-1, MQTT-1.5.5-1, MQTT-3.1.2-24].
DecodeError next_frame(BytesView bytes, ProtocolVersion version, std::uint32_t maximum_packet_size,
                       Frame& frame);

// --- decoding one packet --------------------------------------------------------------------------------------------
// `frame` is of that type; the content of `view` is unspecified after an error. CONNECT brings its own version.

DecodeError decode(const Frame& frame, ConnectView& view);
DecodeError decode(const Frame& frame, ProtocolVersion version, ConnackView& view);
DecodeError decode(const Frame& frame, ProtocolVersion version, Sender sender, PublishView& view);
DecodeError decode(const Frame& frame, ProtocolVersion version, AckView& view);
DecodeError decode(const Frame& frame, ProtocolVersion version, SubscribeView& view);
DecodeError decode(const Frame& frame, ProtocolVersion version, SubackView& view);
DecodeError decode(const Frame& frame, ProtocolVersion version, UnsubscribeView& view);
DecodeError decode(const Frame& frame, ProtocolVersion version, Sender sender, DisconnectView& view);
DecodeError decode(const Frame& frame, ProtocolVersion version, Sender sender, AuthView& view);
DecodeError decode(const Frame& frame, ProtocolVersion version, Sender sender, PacketView& view);  // any type

// May this 5.0 packet of this side carry that reason code [MQTT5 2.4]? For acknowledgements, DISCONNECT and AUTH.
bool is_listed(PacketType type, Sender sender, ReasonCode code);

// --- encoding -------------------------------------------------------------------------------------------------------
// The size of the whole packet, 0 when it cannot be encoded because it is longer than MQTT allows.
std::size_t encoded_size(const ConnectView& packet);
std::size_t encoded_size(const ConnackView& packet, ProtocolVersion version);
std::size_t encoded_size(const PublishView& packet, ProtocolVersion version);
std::size_t encoded_size(const AckView& packet, ProtocolVersion version);
std::size_t encoded_size(const SubscribePacket& packet, ProtocolVersion version);
std::size_t encoded_size(const SubscribeView& packet, ProtocolVersion version);
std::size_t encoded_size(const SubackView& packet, ProtocolVersion version);
std::size_t encoded_size(const UnsubscribePacket& packet, ProtocolVersion version);
std::size_t encoded_size(const UnsubscribeView& packet, ProtocolVersion version);
std::size_t encoded_size(const DisconnectView& packet, ProtocolVersion version);
std::size_t encoded_size(const AuthView& packet, ProtocolVersion version);
std::size_t encoded_size(const PacketView& packet, ProtocolVersion version);

// Writes the packet to the beginning of `out` and returns its size; 0 when it does not fit or cannot be encoded.
// The shortest form is used: a 5.0 acknowledgement with reason success and no properties has two bytes of body.
std::size_t encode(std::span<std::byte> out, const ConnectView& packet);
std::size_t encode(std::span<std::byte> out, const ConnackView& packet, ProtocolVersion version);
std::size_t encode(std::span<std::byte> out, const PublishView& packet, ProtocolVersion version);
std::size_t encode(std::span<std::byte> out, const AckView& packet, ProtocolVersion version);
std::size_t encode(std::span<std::byte> out, const SubscribePacket& packet, ProtocolVersion version);
std::size_t encode(std::span<std::byte> out, const SubscribeView& packet, ProtocolVersion version);
std::size_t encode(std::span<std::byte> out, const SubackView& packet, ProtocolVersion version);
std::size_t encode(std::span<std::byte> out, const UnsubscribePacket& packet, ProtocolVersion version);
std::size_t encode(std::span<std::byte> out, const UnsubscribeView& packet, ProtocolVersion version);
std::size_t encode(std::span<std::byte> out, const DisconnectView& packet, ProtocolVersion version);
std::size_t encode(std::span<std::byte> out, const AuthView& packet, ProtocolVersion version);
std::size_t encode(std::span<std::byte> out, PingreqView, ProtocolVersion version = ProtocolVersion::v5);
std::size_t encode(std::span<std::byte> out, PingrespView, ProtocolVersion version = ProtocolVersion::v5);
std::size_t encode(std::span<std::byte> out, const PacketView& packet, ProtocolVersion version);

// A PUBLISH without its payload: for payloads that are sent from where they are. The expiry and the alias stand apart
// from the other properties because they are decided at transmit time.
struct PublishHead {
  std::string_view topic;
  BytesView properties;  // encoded, without message expiry interval and topic alias
  std::size_t payload_size = 0;
  std::uint32_t expiry_s = no_expiry;
  std::uint16_t topic_alias = 0;  // 0 = none
  std::uint16_t packet_id = 0;
  QoS qos = QoS::at_most_once;
  bool retain = false;
  bool dup = false;

  // Filled by measure().
  std::uint32_t remaining_length = 0;
  std::uint32_t properties_length = 0;
};

// Fills in the lengths; returns the size of the head, 0 when the packet would be longer than MQTT allows.
std::size_t measure(PublishHead& head, ProtocolVersion version);
// Writes a measured head to `out`, which has room for it; returns the end.
std::byte* write(std::byte* out, const PublishHead& head, ProtocolVersion version);

}  // namespace fulmar::mqtt
