#include "tests/conformance/codec_probe.hpp"

#include <algorithm>

#include "tests/conformance/packet_text.hpp"

namespace fulmar::mqtt {
namespace {

// Puts properties together anew, one by one.
class Rebuilt {
 public:
  explicit Rebuilt(const PropertiesView& properties) : buffer_(properties.encoded().size() + 16) {
    PropertyWriter writer(buffer_);
    for (const auto& property : properties) {
      switch (kind_of(property.id)) {
        case PropertyKind::string_pair: writer.add_user(property.name, property.text); break;
        case PropertyKind::string:
        case PropertyKind::binary: writer.add(property.id, property.text); break;
        default: writer.add(property.id, property.number); break;
      }
    }
    if (writer.ok()) size_ = writer.size();
  }
  PropertiesView view() const { return PropertiesView(BytesView(buffer_).first(size_)); }

 private:
  Bytes buffer_;
  std::size_t size_ = 0;
};

template <typename Packet>
Bytes encode_with(const Packet& packet, ProtocolVersion version) {
  Bytes out(encoded_size(packet, version));
  out.resize(encode(out, packet, version));
  return out;
}

struct Builder {
  ProtocolVersion version;

  Bytes operator()(const ConnectView& view) const {
    auto packet = view;
    const Rebuilt properties(view.properties);
    const Rebuilt will(view.will ? view.will->properties : PropertiesView());
    packet.properties = properties.view();
    if (packet.will) packet.will->properties = will.view();
    Bytes out(encoded_size(packet));
    out.resize(encode(out, packet));
    return out;
  }
  Bytes operator()(const SubscribeView& view) const {
    std::vector<SubscriptionRequest> filters;
    for (const auto& item : view.filters) filters.push_back(item);
    const Rebuilt properties(view.properties);
    return encode_with(SubscribePacket{view.packet_id, properties.view(), filters}, version);
  }
  Bytes operator()(const UnsubscribeView& view) const {
    std::vector<std::string_view> filters;
    for (const auto item : view.filters) filters.push_back(item);
    const Rebuilt properties(view.properties);
    return encode_with(UnsubscribePacket{view.packet_id, properties.view(), filters}, version);
  }
  Bytes operator()(PingreqView) const { return encode_with(PacketView(PingreqView()), version); }
  Bytes operator()(PingrespView) const { return encode_with(PacketView(PingrespView()), version); }
  template <typename Packet>
  Bytes operator()(const Packet& view) const {
    auto packet = view;
    const Rebuilt properties(view.properties);
    packet.properties = properties.view();
    return encode_with(packet, version);
  }
};

}  // namespace

Decoded::Decoded(const Bytes& wire, ProtocolVersion given, Sender sender, std::uint32_t maximum)
    : bytes(std::make_unique<std::byte[]>(wire.size())), version(given) {
  std::ranges::copy(wire, bytes.get());
  error = next_frame({bytes.get(), wire.size()}, version, maximum, frame);
  if (error != DecodeError::none) return;
  needs_more = frame.size == 0;
  if (!needs_more) error = decode(frame, version, sender, view);
}

std::string Decoded::meaning() const { return render(view, version); }

Bytes encoded(const Decoded& packet) { return encode_with(packet.view, packet.version); }
Bytes rebuilt(const Decoded& packet) { return std::visit(Builder{packet.version}, packet.view); }

Bytes variable_integer(std::uint32_t value) {
  Bytes out;
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<std::byte>(0x80 | (value & 0x7f)));
  out.push_back(static_cast<std::byte>(value));
  return out;
}

Bytes framed(std::byte first, const Bytes& body) {
  return Bytes{first} + variable_integer(static_cast<std::uint32_t>(body.size())) + body;
}

Bytes string_field(std::string_view text) {
  Bytes out{static_cast<std::byte>(text.size() >> 8), static_cast<std::byte>(text.size())};
  for (const char c : text) out.push_back(static_cast<std::byte>(c));
  return out;
}

}  // namespace fulmar::mqtt
