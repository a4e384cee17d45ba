#include <type_traits>

#include "fulmar/mqtt/codec.hpp"
#include "mqtt/wire_writer.hpp"

namespace fulmar::mqtt {
namespace {

constexpr bool is_v5(ProtocolVersion version) { return version == ProtocolVersion::v5; }

constexpr std::byte first_byte(PacketType type, unsigned flags = 0) {
  return static_cast<std::byte>(static_cast<unsigned>(type) << 4 | flags);
}

// The whole packet for a body of `size` bytes; 0 when no remaining length can say so.
constexpr std::size_t packet_size(std::size_t body) {
  return body > variable_integer_max ? 0 : 1 + variable_size(static_cast<std::uint32_t>(body)) + body;
}

std::size_t string_size(std::string_view text) { return 2 + text.size(); }

// Properties with their length in front; nothing in 3.1.1.
std::size_t properties_size(const PropertiesView& properties, ProtocolVersion version) {
  if (!is_v5(version)) return 0;
  const auto size = properties.encoded().size();
  return size > variable_integer_max ? size : variable_size(static_cast<std::uint32_t>(size)) + size;
}
std::byte* put_properties_of(std::byte* at, const PropertiesView& properties, ProtocolVersion version) {
  return is_v5(version) ? put_properties(at, properties.encoded()) : at;
}

// Fixed header and then `body` in the caller's buffer.
template <typename Body>
std::size_t encode_packet(std::span<std::byte> out, std::byte first, std::size_t body_size, Body body) {
  const std::size_t size = packet_size(body_size);
  if (size == 0 || size > out.size()) return 0;
  out[0] = first;
  body(put_variable(out.data() + 1, static_cast<std::uint32_t>(body_size)));
  return size;
}

// --- sizes of the bodies --------------------------------------------------------------------------------------------

std::size_t body_size(const ConnectView& packet) {
  std::size_t size = 10 + properties_size(packet.properties, packet.version) + string_size(packet.client_id);
  if (packet.will) {
    size += properties_size(packet.will->properties, packet.version) + string_size(packet.will->topic) + 2 +
            packet.will->payload.size();
  }
  if (packet.username) size += string_size(*packet.username);
  if (packet.password) size += 2 + packet.password->size();
  return size;
}

std::size_t body_size(const ConnackView& packet, ProtocolVersion version) {
  return 2 + properties_size(packet.properties, version);
}

std::size_t body_size(const AckView& packet, ProtocolVersion version) {
  if (!is_v5(version)) return 2;
  if (!packet.properties.empty()) return 3 + properties_size(packet.properties, version);
  return packet.reason == ReasonCode::success ? 2 : 3;
}

std::size_t filters_size(std::span<const SubscriptionRequest> filters) {
  std::size_t size = 0;
  for (const auto& item : filters) size += string_size(item.filter) + 1;
  return size;
}
std::size_t filters_size(std::span<const std::string_view> filters) {
  std::size_t size = 0;
  for (const auto filter : filters) size += string_size(filter);
  return size;
}
template <typename Item>
std::size_t filters_size(const FiltersView<Item>& filters) {
  return filters.encoded().size();
}
template <typename Packet>
  requires requires(const Packet& packet) { packet.filters; }
std::size_t body_size(const Packet& packet, ProtocolVersion version) {
  return 2 + properties_size(packet.properties, version) + filters_size(packet.filters);
}

std::size_t body_size(const SubackView& packet, ProtocolVersion version) {
  return 2 + properties_size(packet.properties, version) + packet.codes.size();
}

std::size_t body_size(const DisconnectView& packet, ProtocolVersion version) {
  if (!is_v5(version)) return 0;
  if (!packet.properties.empty()) return 1 + properties_size(packet.properties, version);
  return packet.reason == ReasonCode::success ? 0 : 1;
}

std::size_t body_size(const AuthView& packet, ProtocolVersion version) {
  if (packet.reason == ReasonCode::success && packet.properties.empty()) return 0;
  return 1 + properties_size(packet.properties, version);
}

PublishHead head_of(const PublishView& packet) {
  PublishHead head;
  head.topic = packet.topic;
  head.properties = packet.properties.encoded();
  head.payload_size = packet.payload.size();
  head.packet_id = packet.packet_id;
  head.qos = packet.qos;
  head.retain = packet.retain;
  head.dup = packet.dup;
  return head;
}

// --- filters --------------------------------------------------------------------------------------------------------

void put_filters(std::byte* at, std::span<const SubscriptionRequest> filters, ProtocolVersion version) {
  for (const auto& item : filters) {
    at = put_string(at, item.filter);
    unsigned options = static_cast<unsigned>(item.qos);
    if (is_v5(version)) {
      options |= (item.no_local ? 4u : 0u) | (item.retain_as_published ? 8u : 0u) |
                 static_cast<unsigned>(item.retain_handling) << 4;
    }
    at = put_u8(at, static_cast<std::uint8_t>(options));
  }
}
void put_filters(std::byte* at, std::span<const std::string_view> filters, ProtocolVersion) {
  for (const auto filter : filters) at = put_string(at, filter);
}
template <typename Item>
void put_filters(std::byte* at, const FiltersView<Item>& filters, ProtocolVersion) {
  put_bytes(at, filters.encoded());
}

template <typename Packet>
std::size_t encode_filters(std::span<std::byte> out, PacketType type, const Packet& packet,
                           ProtocolVersion version) {
  return encode_packet(out, first_byte(type, 2), body_size(packet, version), [&](std::byte* at) {
    at = put_u16(at, packet.packet_id);
    at = put_properties_of(at, packet.properties, version);
    put_filters(at, packet.filters, version);
  });
}

}  // namespace

// --- sizes ----------------------------------------------------------------------------------------------------------

std::size_t encoded_size(const ConnectView& packet) { return packet_size(body_size(packet)); }
std::size_t encoded_size(const ConnackView& packet, ProtocolVersion version) {
  return packet_size(body_size(packet, version));
}
std::size_t encoded_size(const PublishView& packet, ProtocolVersion version) {
  auto head = head_of(packet);
  const auto size = measure(head, version);
  return size == 0 ? 0 : size + packet.payload.size();
}
std::size_t encoded_size(const AckView& packet, ProtocolVersion version) {
  return packet_size(body_size(packet, version));
}
std::size_t encoded_size(const SubscribePacket& packet, ProtocolVersion version) {
  return packet_size(body_size(packet, version));
}
std::size_t encoded_size(const SubscribeView& packet, ProtocolVersion version) {
  return packet_size(body_size(packet, version));
}
std::size_t encoded_size(const SubackView& packet, ProtocolVersion version) {
  return packet_size(body_size(packet, version));
}
std::size_t encoded_size(const UnsubscribePacket& packet, ProtocolVersion version) {
  return packet_size(body_size(packet, version));
}
std::size_t encoded_size(const UnsubscribeView& packet, ProtocolVersion version) {
  return packet_size(body_size(packet, version));
}
std::size_t encoded_size(const DisconnectView& packet, ProtocolVersion version) {
  return packet_size(body_size(packet, version));
}
std::size_t encoded_size(const AuthView& packet, ProtocolVersion version) {
  return packet_size(body_size(packet, version));
}
std::size_t encoded_size(const PacketView& packet, ProtocolVersion version) {
  const auto size = [version](const auto& p) -> std::size_t {
    using Packet = std::decay_t<decltype(p)>;
    if constexpr (std::is_same_v<Packet, ConnectView>) {
      return encoded_size(p);
    } else if constexpr (std::is_empty_v<Packet>) {
      return 2;  // PINGREQ, PINGRESP
    } else {
      return encoded_size(p, version);
    }
  };
  return std::visit(size, packet);
}

// --- packets --------------------------------------------------------------------------------------------------------

std::size_t encode(std::span<std::byte> out, const ConnectView& packet) {
  return encode_packet(out, first_byte(PacketType::connect), body_size(packet), [&](std::byte* at) {
    unsigned flags = packet.clean_start ? 0x02u : 0u;
    if (packet.will) {
      flags |= 0x04u | static_cast<unsigned>(packet.will->qos) << 3 | (packet.will->retain ? 0x20u : 0u);
    }
    if (packet.password) flags |= 0x40u;
    if (packet.username) flags |= 0x80u;
    at = put_string(at, "MQTT");
    at = put_u8(at, static_cast<std::uint8_t>(packet.version));
    at = put_u8(at, static_cast<std::uint8_t>(flags));
    at = put_u16(at, packet.keepalive_s);
    at = put_properties_of(at, packet.properties, packet.version);
    at = put_string(at, packet.client_id);
    if (packet.will) {
      at = put_properties_of(at, packet.will->properties, packet.version);
      at = put_string(at, packet.will->topic);
      at = put_binary(at, packet.will->payload);
    }
    if (packet.username) at = put_string(at, *packet.username);
    if (packet.password) put_binary(at, *packet.password);
  });
}

std::size_t encode(std::span<std::byte> out, const ConnackView& packet, ProtocolVersion version) {
  return encode_packet(out, first_byte(PacketType::connack), body_size(packet, version), [&](std::byte* at) {
    at = put_u8(at, packet.session_present);
    at = put_u8(at, packet.code);
    put_properties_of(at, packet.properties, version);
  });
}

std::size_t encode(std::span<std::byte> out, const PublishView& packet, ProtocolVersion version) {
  auto head = head_of(packet);
  const std::size_t size = measure(head, version);
  if (size == 0 || size + packet.payload.size() > out.size()) return 0;
  put_bytes(write(out.data(), head, version), packet.payload);
  return size + packet.payload.size();
}

std::size_t encode(std::span<std::byte> out, const AckView& packet, ProtocolVersion version) {
  const auto size = body_size(packet, version);
  const auto first = first_byte(packet.type, packet.type == PacketType::pubrel ? 2 : 0);
  return encode_packet(out, first, size, [&](std::byte* at) {
    at = put_u16(at, packet.packet_id);
    if (size > 2) at = put_u8(at, static_cast<std::uint8_t>(packet.reason));
    if (size > 3) put_properties(at, packet.properties.encoded());
  });
}

std::size_t encode(std::span<std::byte> out, const SubscribePacket& packet, ProtocolVersion version) {
  return encode_filters(out, PacketType::subscribe, packet, version);
}
std::size_t encode(std::span<std::byte> out, const SubscribeView& packet, ProtocolVersion version) {
  return encode_filters(out, PacketType::subscribe, packet, version);
}
std::size_t encode(std::span<std::byte> out, const UnsubscribePacket& packet, ProtocolVersion version) {
  return encode_filters(out, PacketType::unsubscribe, packet, version);
}
std::size_t encode(std::span<std::byte> out, const UnsubscribeView& packet, ProtocolVersion version) {
  return encode_filters(out, PacketType::unsubscribe, packet, version);
}

std::size_t encode(std::span<std::byte> out, const SubackView& packet, ProtocolVersion version) {
  return encode_packet(out, first_byte(packet.type), body_size(packet, version), [&](std::byte* at) {
    at = put_u16(at, packet.packet_id);
    at = put_properties_of(at, packet.properties, version);
    put_bytes(at, packet.codes);
  });
}

std::size_t encode(std::span<std::byte> out, const DisconnectView& packet, ProtocolVersion version) {
  const auto size = body_size(packet, version);
  return encode_packet(out, first_byte(PacketType::disconnect), size, [&](std::byte* at) {
    if (size > 0) at = put_u8(at, static_cast<std::uint8_t>(packet.reason));
    if (size > 1) put_properties(at, packet.properties.encoded());
  });
}

std::size_t encode(std::span<std::byte> out, const AuthView& packet, ProtocolVersion version) {
  const auto size = body_size(packet, version);
  return encode_packet(out, first_byte(PacketType::auth), size, [&](std::byte* at) {
    if (size == 0) return;
    at = put_u8(at, static_cast<std::uint8_t>(packet.reason));
    put_properties_of(at, packet.properties, version);
  });
}

std::size_t encode(std::span<std::byte> out, PingreqView, ProtocolVersion) {
  return encode_packet(out, first_byte(PacketType::pingreq), 0, [](std::byte*) {});
}
std::size_t encode(std::span<std::byte> out, PingrespView, ProtocolVersion) {
  return encode_packet(out, first_byte(PacketType::pingresp), 0, [](std::byte*) {});
}

std::size_t encode(std::span<std::byte> out, const PacketView& packet, ProtocolVersion version) {
  const auto write_to = [out, version](const auto& p) -> std::size_t {
    if constexpr (std::is_same_v<std::decay_t<decltype(p)>, ConnectView>) {
      return encode(out, p);
    } else {
      return encode(out, p, version);
    }
  };
  return std::visit(write_to, packet);
}

// --- PUBLISH --------------------------------------------------------------------------------------------------------

std::size_t measure(PublishHead& head, ProtocolVersion version) {
  std::size_t body = 2 + head.topic.size() + head.payload_size;
  if (head.qos != QoS::at_most_once) body += 2;
  if (is_v5(version)) {
    std::size_t properties = head.properties.size();
    if (head.expiry_s != no_expiry) properties += 5;
    if (head.topic_alias != 0) properties += 3;
    if (properties > variable_integer_max) return 0;
    head.properties_length = static_cast<std::uint32_t>(properties);
    body += variable_size(head.properties_length) + properties;
  }
  if (body > variable_integer_max) return 0;
  head.remaining_length = static_cast<std::uint32_t>(body);
  return 1 + variable_size(head.remaining_length) + body - head.payload_size;
}

std::byte* write(std::byte* out, const PublishHead& head, ProtocolVersion version) {
  const unsigned flags =
      (head.dup ? 8u : 0u) | static_cast<unsigned>(head.qos) << 1 | (head.retain ? 1u : 0u);
  out = put_u8(out, static_cast<std::uint8_t>(first_byte(PacketType::publish, flags)));
  out = put_variable(out, head.remaining_length);
  out = put_string(out, head.topic);
  if (head.qos != QoS::at_most_once) out = put_u16(out, head.packet_id);
  if (!is_v5(version)) return out;
  out = put_variable(out, head.properties_length);
  if (head.expiry_s != no_expiry) {
    out = put_u32(put_u8(out, static_cast<std::uint8_t>(PropertyId::message_expiry_interval)), head.expiry_s);
  }
  if (head.topic_alias != 0) {
    out = put_u16(put_u8(out, static_cast<std::uint8_t>(PropertyId::topic_alias)), head.topic_alias);
  }
  return put_bytes(out, head.properties);
}

}  // namespace fulmar::mqtt
