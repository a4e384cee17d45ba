#pragma once
// Small 5.0 packets around given properties, for each place where MQTT 5.0 has properties.

#include <span>

#include "fulmar/mqtt/properties.hpp"
#include "tests/conformance/codec_probe.hpp"

namespace fulmar::mqtt {

inline constexpr std::size_t property_place_count = 16;

struct PlacedPacket {
  Bytes wire;
  Sender sender;
};

// `properties` are encoded without their length.
inline PlacedPacket packet_around(PropertyPlace place, const Bytes& properties,
                                  Sender auth_sender = Sender::server) {
  using enum PropertyPlace;
  const auto p = variable_integer(static_cast<std::uint32_t>(properties.size())) + properties;
  const auto client = [](unsigned char first, const Bytes& body) {
    return PlacedPacket{framed(std::byte{first}, body), Sender::client};
  };
  const auto server = [](unsigned char first, const Bytes& body) {
    return PlacedPacket{framed(std::byte{first}, body), Sender::server};
  };
  switch (place) {
    case PropertyPlace::connect: return client(0x10, bytes("0004 'MQTT' 05 02 003c") + p + bytes("0001 'c'"));
    case will: return client(0x10, bytes("0004 'MQTT' 05 06 003c 00 0001 'c'") + p + bytes("0001 'w' 0000"));
    case connack: return server(0x20, bytes("00 00") + p);
    case publish_from_client: return client(0x30, bytes("0001 'a'") + p);
    case publish_from_server: return server(0x30, bytes("0001 'a'") + p);
    case puback: return server(0x40, bytes("0001 00") + p);
    case pubrec: return server(0x50, bytes("0001 00") + p);
    case pubrel: return server(0x62, bytes("0001 00") + p);
    case pubcomp: return server(0x70, bytes("0001 00") + p);
    case subscribe: return client(0x82, bytes("0001") + p + bytes("0001 'a' 00"));
    case suback: return server(0x90, bytes("0001") + p + bytes("00"));
    case unsubscribe: return client(0xa2, bytes("0001") + p + bytes("0001 'a'"));
    case unsuback: return server(0xb0, bytes("0001") + p + bytes("00"));
    case disconnect_from_client: return client(0xe0, bytes("00") + p);
    case disconnect_from_server: return server(0xe0, bytes("00") + p);
    case auth: return {framed(std::byte{0xf0}, bytes("18") + p), auth_sender};
  }
  return {};
}

}  // namespace fulmar::mqtt
