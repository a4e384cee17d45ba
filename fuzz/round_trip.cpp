// What the decoder accepts, the encoder writes with the same meaning in the shortest form, and that form is stable.
// Input: a Setting, one packet.

#include <vector>

#include "fuzz_input.hpp"

namespace {

using namespace fulmar;
using namespace fulmar::mqtt;

std::vector<std::byte> encoded(const PacketView& view, ProtocolVersion version) {
  const auto size = encoded_size(view, version);
  fuzz::require(size != 0, "an accepted packet cannot be encoded");
  std::vector<std::byte> out(size);
  fuzz::require(encode(out, view, version) == size, "encoded_size() and encode() disagree");
  std::vector<std::byte> small(size - 1);
  fuzz::require(encode(small, view, version) == 0, "a packet was written into too little room");
  return out;
}

PacketView decoded(BytesView bytes, const fuzz::Setting& setting) {
  Frame frame;
  PacketView view;
  fuzz::require(next_frame(bytes, setting.version, no_packet_limit, frame) == DecodeError::none &&
                    frame.size == bytes.size() &&
                    decode(frame, setting.version, setting.sender, view) == DecodeError::none,
                "an encoded packet is not accepted");
  return view;
}

bool same(BytesView a, BytesView b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const fuzz::Setting setting(input.byte());
  const auto bytes = input.rest();
  Frame frame;
  PacketView view;
  if (next_frame(bytes, setting.version, no_packet_limit, frame) != DecodeError::none || frame.size == 0)
    return 0;
  if (decode(frame, setting.version, setting.sender, view) != DecodeError::none) return 0;

  const auto once = encoded(view, setting.version);
  fuzz::require(once.size() <= frame.size, "the encoder's form is longer than what came");
  const auto again = decoded(once, setting);
  fuzz::require(view.index() == again.index(), "the packet's type changed");
  if (const auto* before = std::get_if<PublishView>(&view)) {
    const auto& after = std::get<PublishView>(again);
    fuzz::require(before->topic == after.topic && same(before->payload, after.payload) &&
                      same(before->properties.encoded(), after.properties.encoded()) &&
                      before->packet_id == after.packet_id && before->qos == after.qos &&
                      before->retain == after.retain && before->dup == after.dup,
                  "a PUBLISH changed its meaning");
  }
  if (const auto* before = std::get_if<AckView>(&view)) {
    const auto& after = std::get<AckView>(again);
    fuzz::require(before->type == after.type && before->packet_id == after.packet_id &&
                      before->reason == after.reason &&
                      same(before->properties.encoded(), after.properties.encoded()),
                  "an acknowledgement changed its meaning");
  }
  fuzz::require(encoded(again, setting.version) == once, "the encoder's form is not stable");
  return 0;
}
