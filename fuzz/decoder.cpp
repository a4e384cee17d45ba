// The decoder against any bytes: it accepts or names a rule, and every byte that a view gives can be read.
// Input: a Setting, where to cut the stream, the stream.

#include "fuzz_input.hpp"

namespace {

using namespace fulmar;
using namespace fulmar::mqtt;

volatile unsigned sink;

void touch(BytesView bytes) {
  for (const auto byte : bytes) sink = sink + static_cast<unsigned>(byte);
}
void touch(std::string_view text) { touch(as_bytes(text)); }
void touch(const PropertiesView& properties) {
  for (const auto& property : properties) {
    touch(property.text);
    touch(property.name);
    fuzz::require(kind_of(property.id) != PropertyKind::none, "an unknown property was accepted");
    fuzz::require(properties.find(property.id).has_value(), "a property that is there is not found");
  }
}

struct Touch {
  void operator()(const ConnectView& packet) {
    touch(packet.client_id);
    touch(packet.properties);
    if (packet.username) touch(*packet.username);
    if (packet.password) touch(*packet.password);
    if (!packet.will) return;
    touch(packet.will->topic);
    touch(packet.will->payload);
    touch(packet.will->properties);
  }
  void operator()(const PublishView& packet) {
    touch(packet.topic);
    touch(packet.payload);
    touch(packet.properties);
    fuzz::require((packet.packet_id != 0) == (packet.qos != QoS::at_most_once),
                  "identifier and QoS disagree");
  }
  void operator()(const SubscribeView& packet) {
    touch(packet.properties);
    std::size_t count = 0;
    for (const auto& request : packet.filters) {
      touch(request.filter);
      ++count;
    }
    fuzz::require(count == packet.filters.size() && count > 0, "the number of filters is wrong");
  }
  void operator()(const UnsubscribeView& packet) {
    touch(packet.properties);
    std::size_t count = 0;
    for (const auto filter : packet.filters) {
      touch(filter);
      ++count;
    }
    fuzz::require(count == packet.filters.size() && count > 0, "the number of filters is wrong");
  }
  void operator()(const SubackView& packet) {
    touch(packet.properties);
    touch(packet.codes);
  }
  void operator()(const PingreqView&) {}
  void operator()(const PingrespView&) {}
  template <typename Packet>
  void operator()(const Packet& packet) {
    touch(packet.properties);
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const fuzz::Setting setting(input.byte());
  const std::size_t cut = input.byte();
  auto stream = input.rest();
  while (!stream.empty()) {
    Frame frame;
    auto error = next_frame(stream, setting.version, setting.maximum_packet_size, frame);
    // Of fewer bytes it says the same, or that it needs more.
    Frame early;
    const auto early_error = next_frame(stream.first(std::min(cut, stream.size())), setting.version,
                                        setting.maximum_packet_size, early);
    if (early_error != DecodeError::none)
      fuzz::require(early_error == error, "a verdict changed with more bytes");
    if (early_error == DecodeError::none && early.size != 0)
      fuzz::require(early.size == frame.size, "a size changed");
    if (error == DecodeError::none) {
      if (frame.size == 0) {
        fuzz::require(frame.expected == 0 || frame.expected > stream.size(),
                      "a whole packet was not cut off");
        break;
      }
      fuzz::require(frame.size <= setting.maximum_packet_size, "a packet over the limit was accepted");
      PacketView view;
      error = decode(frame, setting.version, setting.sender, view);
      if (error == DecodeError::none) std::visit(Touch{}, view);
    }
    if (error != DecodeError::none) {
      fuzz::require(!to_string(error).empty() && !clause_of(error).empty(),
                    "a rule without a text or a clause");
      fuzz::require(static_cast<unsigned>(reason_for(error)) >= 0x80, "a rule without a reason code");
      break;
    }
    stream = stream.subspan(frame.size);
  }
  return 0;
}
