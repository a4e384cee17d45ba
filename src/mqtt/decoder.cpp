#include <array>

#include "fulmar/mqtt/codec.hpp"
#include "fulmar/mqtt/topic.hpp"
#include "mqtt/cursor.hpp"

namespace fulmar::mqtt {
namespace {

constexpr auto good = DecodeError::none;

// --- reason codes [MQTT5 2.4] ---------------------------------------------------------------------------------------

class CodeSet {
 public:
  template <typename... Codes>
  explicit constexpr CodeSet(Codes... codes) {
    ((words_[static_cast<unsigned>(codes) / 64] |= std::uint64_t{1} << (static_cast<unsigned>(codes) % 64)),
     ...);
  }
  constexpr bool has(std::uint8_t code) const { return (words_[code / 64] >> (code % 64) & 1) != 0; }

 private:
  std::array<std::uint64_t, 4> words_{};
};

constexpr CodeSet connack_codes(0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c,
                                0x90, 0x95, 0x97, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9f);
constexpr CodeSet connack_codes_3_1_1(0, 1, 2, 3, 4, 5);
constexpr CodeSet puback_codes(0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99);  // and PUBREC
constexpr CodeSet pubrel_codes(0x00, 0x92);                                            // and PUBCOMP
constexpr CodeSet suback_codes(0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2);
constexpr CodeSet suback_codes_3_1_1(0x00, 0x01, 0x02, 0x80);
constexpr CodeSet unsuback_codes(0x00, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91);
constexpr CodeSet disconnect_codes_of_client(0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96,
                                             0x97, 0x98, 0x99);
constexpr CodeSet disconnect_codes_of_server(0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8d, 0x8e, 0x8f,
                                             0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0x9b, 0x9c,
                                             0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2);
constexpr CodeSet auth_codes_of_client(0x18, 0x19);
constexpr CodeSet auth_codes_of_server(0x00, 0x18);

ReasonCode read_code(Cursor& cursor, const CodeSet& codes) {
  const auto code = cursor.u8();
  if (cursor.ok() && !codes.has(code)) cursor.fail(DecodeError::reason_code_unknown);
  return static_cast<ReasonCode>(code);
}

// --- pieces of several packets --------------------------------------------------------------------------------------

void read_properties(Cursor& cursor, PropertyPlace place, PropertiesView& view) {
  view = PropertiesView();
  const std::uint32_t size = cursor.variable();
  if (size == 0) return;
  if (cursor.left() < size) {
    cursor.fail(DecodeError::property_length_wrong);
    return;
  }
  const auto error = check_properties(cursor.bytes(size), place, view);
  if (error != good) cursor.fail(error);
}

std::string_view read_topic(Cursor& cursor) {
  unsigned traits = 0;
  const auto topic = cursor.string(traits);
  if (traits & text_has_wildcard) cursor.fail(DecodeError::topic_contains_wildcard);
  return topic;
}

std::string_view read_filter(Cursor& cursor) {
  const auto filter = cursor.string();
  if (cursor.ok() && check_topic_filter(filter) != TopicError::none) cursor.fail(DecodeError::filter_invalid);
  return filter;
}

PropertyPlace place_of(PacketType type) {
  switch (type) {
    case PacketType::puback: return PropertyPlace::puback;
    case PacketType::pubrec: return PropertyPlace::pubrec;
    case PacketType::pubrel: return PropertyPlace::pubrel;
    case PacketType::pubcomp: return PropertyPlace::pubcomp;
    case PacketType::suback: return PropertyPlace::suback;
    default: return PropertyPlace::unsuback;
  }
}

void read_will(Cursor& cursor, ProtocolVersion version, unsigned flags, ConnectView& view) {
  auto& will = view.will.emplace();
  will.qos = static_cast<QoS>(flags >> 3 & 3);
  will.retain = (flags & 0x20) != 0;
  if (version == ProtocolVersion::v5) read_properties(cursor, PropertyPlace::will, will.properties);
  will.topic = read_topic(cursor);
  if (cursor.ok() && will.topic.empty()) cursor.fail(DecodeError::topic_empty);
  will.payload = cursor.binary();
}

DecodeError check_connect_flags(unsigned flags, ProtocolVersion version) {
  if (flags & 0x01) return DecodeError::connect_flags_reserved;
  if ((flags & 0x04) == 0 && (flags & 0x38) != 0) return DecodeError::will_flags_without_will;
  if ((flags & 0x18) == 0x18) return DecodeError::will_qos_reserved;
  if (version == ProtocolVersion::v3_1_1 && (flags & 0xc0) == 0x40)
    return DecodeError::password_without_username;
  return good;
}

}  // namespace

bool is_listed(PacketType type, Sender sender, ReasonCode code) {
  const bool client = sender == Sender::client;
  const CodeSet* codes = nullptr;
  switch (type) {
    case PacketType::puback:
    case PacketType::pubrec: codes = &puback_codes; break;
    case PacketType::pubrel:
    case PacketType::pubcomp: codes = &pubrel_codes; break;
    case PacketType::suback: codes = &suback_codes; break;
    case PacketType::unsuback: codes = &unsuback_codes; break;
    case PacketType::disconnect:
      codes = client ? &disconnect_codes_of_client : &disconnect_codes_of_server;
      break;
    case PacketType::auth: codes = client ? &auth_codes_of_client : &auth_codes_of_server; break;
    default: return false;
  }
  return codes->has(static_cast<std::uint8_t>(code));
}

// --- framing --------------------------------------------------------------------------------------------------------

DecodeError next_frame(BytesView bytes, ProtocolVersion version, std::uint32_t maximum_packet_size,
                       Frame& frame) {
  frame.size = 0;
  frame.expected = 0;
  if (bytes.empty()) return good;
  const auto first = static_cast<std::uint8_t>(bytes[0]);
  const auto type = static_cast<PacketType>(first >> 4);
  const unsigned flags = first & 0x0f;
  if (type == PacketType::publish) {
    if ((flags & 0x06) == 0x06) return DecodeError::qos_reserved;
    if ((flags & 0x0e) == 0x08) return DecodeError::dup_at_qos_0;
  } else {
    if (first < 0x10 || (type == PacketType::auth && version != ProtocolVersion::v5)) {
      return DecodeError::packet_type_reserved;
    }
    const bool two =
        type == PacketType::pubrel || type == PacketType::subscribe || type == PacketType::unsubscribe;
    if (flags != (two ? 0x02u : 0u)) return DecodeError::header_flags_reserved;
  }
  std::uint32_t length = 0;
  const int length_size = load_variable(bytes.data() + 1, bytes.size() - 1, length);
  if (length_size <= 0) {
    return length_size == 0    ? good
           : length_size == -1 ? DecodeError::length_over_four_bytes
                               : DecodeError::length_not_minimal;
  }
  const std::size_t head = 1 + static_cast<std::size_t>(length_size);
  const std::size_t size = head + length;
  if (size > maximum_packet_size) return DecodeError::packet_too_large;
  frame.expected = size;
  if (bytes.size() < size) return good;
  frame.type = type;
  frame.flags = static_cast<std::uint8_t>(flags);
  frame.body = bytes.subspan(head, length);
  frame.size = size;
  return good;
}

// --- packets --------------------------------------------------------------------------------------------------------

DecodeError decode(const Frame& frame, ConnectView& view) {
  Cursor cursor(frame.body);
  const auto name = cursor.string();
  if (cursor.ok() && name != "MQTT") return DecodeError::protocol_name_unknown;
  const auto version = cursor.u8();
  if (cursor.ok() && version != 4 && version != 5) return DecodeError::protocol_version_unknown;
  view.version = static_cast<ProtocolVersion>(version);
  const unsigned flags = cursor.u8();
  if (const auto error = check_connect_flags(flags, view.version); cursor.ok() && error != good) return error;
  view.clean_start = (flags & 0x02) != 0;
  view.keepalive_s = cursor.u16();
  view.properties = PropertiesView();
  if (view.version == ProtocolVersion::v5) read_properties(cursor, PropertyPlace::connect, view.properties);
  view.client_id = cursor.string();
  if (cursor.ok() && view.version == ProtocolVersion::v3_1_1 && view.client_id.empty() && !view.clean_start) {
    return DecodeError::client_id_empty;
  }
  view.will.reset();
  view.username.reset();
  view.password.reset();
  if (flags & 0x04) read_will(cursor, view.version, flags, view);
  if (flags & 0x80) view.username = cursor.string();
  if (flags & 0x40) view.password = cursor.binary();
  return cursor.finish();
}

DecodeError decode(const Frame& frame, ProtocolVersion version, ConnackView& view) {
  Cursor cursor(frame.body);
  const bool v5 = version == ProtocolVersion::v5;
  const auto flags = cursor.u8();
  if (flags & 0xfe) return DecodeError::connack_flags_reserved;
  view.session_present = flags != 0;
  view.code = static_cast<std::uint8_t>(read_code(cursor, v5 ? connack_codes : connack_codes_3_1_1));
  view.properties = PropertiesView();
  if (v5) {
    if (view.session_present && view.code != 0) cursor.fail(DecodeError::session_present_on_refusal);
    read_properties(cursor, PropertyPlace::connack, view.properties);
  }
  return cursor.finish();
}

DecodeError decode(const Frame& frame, ProtocolVersion version, Sender sender, PublishView& view) {
  Cursor cursor(frame.body);
  view.qos = static_cast<QoS>(frame.flags >> 1 & 3);
  view.retain = (frame.flags & 1) != 0;
  view.dup = (frame.flags & 8) != 0;
  view.topic = read_topic(cursor);
  view.packet_id = view.qos == QoS::at_most_once ? std::uint16_t{0} : cursor.packet_id();
  view.properties = PropertiesView();
  if (version == ProtocolVersion::v5) {
    read_properties(
        cursor,
        sender == Sender::client ? PropertyPlace::publish_from_client : PropertyPlace::publish_from_server,
        view.properties);
  }
  if (!cursor.ok()) return cursor.error;
  if (view.topic.empty() && !view.properties.find(PropertyId::topic_alias)) return DecodeError::topic_empty;
  view.payload = cursor.rest();
  return good;
}

DecodeError decode(const Frame& frame, ProtocolVersion version, AckView& view) {
  Cursor cursor(frame.body);
  view.type = frame.type;
  view.packet_id = cursor.packet_id();
  view.reason = ReasonCode::success;
  view.properties = PropertiesView();
  // Reason code and property length may be left out from the end [MQTT5 3.4.2.1, 3.4.2.2.1].
  if (version == ProtocolVersion::v5 && cursor.left() > 0) {
    const bool received = frame.type == PacketType::puback || frame.type == PacketType::pubrec;
    view.reason = read_code(cursor, received ? puback_codes : pubrel_codes);
    if (cursor.left() > 0) read_properties(cursor, place_of(frame.type), view.properties);
  }
  return cursor.finish();
}

namespace {

void read_subscription(Cursor& cursor, ProtocolVersion version) {
  const auto filter = read_filter(cursor);
  const unsigned options = cursor.u8();
  if (!cursor.ok()) return;
  const bool v5 = version == ProtocolVersion::v5;
  if (options & (v5 ? 0xc0u : 0xfcu)) {
    cursor.fail(DecodeError::subscription_options_reserved);
  } else if ((options & 0x03) == 0x03) {
    cursor.fail(DecodeError::subscription_qos_reserved);
  } else if ((options & 0x30) == 0x30) {
    cursor.fail(DecodeError::retain_handling_reserved);
  } else if ((options & 0x04) && filter.starts_with("$share/")) {
    cursor.fail(DecodeError::no_local_on_shared);
  }
}

// The filters of SUBSCRIBE and UNSUBSCRIBE: at least one, up to the end.
template <typename Item, typename Read>
DecodeError read_filters(Cursor& cursor, FiltersView<Item>& filters, Read read) {
  const auto* const begin = cursor.at();
  const std::size_t size = cursor.left();
  if (cursor.ok() && size == 0) return DecodeError::no_filters;
  std::size_t count = 0;
  for (; cursor.left() > 0; ++count) read(cursor);
  filters = FiltersView<Item>(BytesView(begin, size), count);
  return cursor.finish();
}

}  // namespace

DecodeError decode(const Frame& frame, ProtocolVersion version, SubscribeView& view) {
  Cursor cursor(frame.body);
  view.packet_id = cursor.packet_id();
  view.properties = PropertiesView();
  if (version == ProtocolVersion::v5) read_properties(cursor, PropertyPlace::subscribe, view.properties);
  return read_filters(cursor, view.filters, [version](Cursor& c) { read_subscription(c, version); });
}

DecodeError decode(const Frame& frame, ProtocolVersion version, UnsubscribeView& view) {
  Cursor cursor(frame.body);
  view.packet_id = cursor.packet_id();
  view.properties = PropertiesView();
  if (version == ProtocolVersion::v5) read_properties(cursor, PropertyPlace::unsubscribe, view.properties);
  return read_filters(cursor, view.filters, [](Cursor& c) { read_filter(c); });
}

DecodeError decode(const Frame& frame, ProtocolVersion version, SubackView& view) {
  Cursor cursor(frame.body);
  const bool v5 = version == ProtocolVersion::v5;
  const bool suback = frame.type == PacketType::suback;
  view.type = frame.type;
  view.packet_id = cursor.packet_id();
  view.properties = PropertiesView();
  view.codes = {};
  if (v5) read_properties(cursor, place_of(frame.type), view.properties);
  if (!v5 && !suback) return cursor.finish();
  if (!cursor.ok()) return cursor.error;
  view.codes = cursor.rest();
  if (view.codes.empty()) return DecodeError::no_codes;
  const auto& codes = !v5 ? suback_codes_3_1_1 : suback ? suback_codes : unsuback_codes;
  for (const auto code : view.codes) {
    if (!codes.has(static_cast<std::uint8_t>(code))) return DecodeError::reason_code_unknown;
  }
  return good;
}

DecodeError decode(const Frame& frame, ProtocolVersion version, Sender sender, DisconnectView& view) {
  Cursor cursor(frame.body);
  view = DisconnectView();
  const bool client = sender == Sender::client;
  // Reason code and property length may be left out from the end [MQTT5 3.14.2.1, 3.14.2.2.1].
  if (version == ProtocolVersion::v5 && cursor.left() > 0) {
    view.reason = read_code(cursor, client ? disconnect_codes_of_client : disconnect_codes_of_server);
    if (cursor.left() > 0) {
      read_properties(cursor,
                      client ? PropertyPlace::disconnect_from_client : PropertyPlace::disconnect_from_server,
                      view.properties);
    }
  }
  return cursor.finish();
}

DecodeError decode(const Frame& frame, ProtocolVersion, Sender sender, AuthView& view) {
  Cursor cursor(frame.body);
  view = AuthView();
  // Only both together may be left out, and only for success [MQTT5 3.15.2.1].
  if (cursor.left() == 0) {
    return sender == Sender::server ? good : DecodeError::reason_code_unknown;
  }
  view.reason = read_code(cursor, sender == Sender::client ? auth_codes_of_client : auth_codes_of_server);
  read_properties(cursor, PropertyPlace::auth, view.properties);
  return cursor.finish();
}

DecodeError decode(const Frame& frame, ProtocolVersion version, Sender sender, PacketView& view) {
  switch (frame.type) {
    case PacketType::connect: return decode(frame, view.emplace<ConnectView>());
    case PacketType::connack: return decode(frame, version, view.emplace<ConnackView>());
    case PacketType::publish: return decode(frame, version, sender, view.emplace<PublishView>());
    case PacketType::puback:
    case PacketType::pubrec:
    case PacketType::pubrel:
    case PacketType::pubcomp: return decode(frame, version, view.emplace<AckView>());
    case PacketType::subscribe: return decode(frame, version, view.emplace<SubscribeView>());
    case PacketType::unsubscribe: return decode(frame, version, view.emplace<UnsubscribeView>());
    case PacketType::suback:
    case PacketType::unsuback: return decode(frame, version, view.emplace<SubackView>());
    case PacketType::pingreq:
      view.emplace<PingreqView>();
      return frame.body.empty() ? good : DecodeError::trailing_bytes;
    case PacketType::pingresp:
      view.emplace<PingrespView>();
      return frame.body.empty() ? good : DecodeError::trailing_bytes;
    case PacketType::disconnect: return decode(frame, version, sender, view.emplace<DisconnectView>());
    case PacketType::auth: return decode(frame, version, sender, view.emplace<AuthView>());
  }
  return DecodeError::packet_type_reserved;
}

// --- views over decoded filters -------------------------------------------------------------------------------------

template <>
void FiltersView<std::string_view>::Iterator::read() {
  const std::size_t size = load_u16(rest_.data());
  item_ = as_text(rest_.subspan(2, size));
  size_ = 2 + size;
}

template <>
void FiltersView<SubscriptionRequest>::Iterator::read() {
  const std::size_t size = load_u16(rest_.data());
  const auto options = static_cast<unsigned>(rest_[2 + size]);
  item_.filter = as_text(rest_.subspan(2, size));
  item_.qos = static_cast<QoS>(options & 3);
  item_.no_local = (options & 4) != 0;
  item_.retain_as_published = (options & 8) != 0;
  item_.retain_handling = static_cast<RetainHandling>(options >> 4 & 3);
  size_ = 3 + size;
}

}  // namespace fulmar::mqtt
