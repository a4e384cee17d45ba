#include "fulmar/mqtt/properties.hpp"

#include <array>

#include "mqtt/cursor.hpp"
#include "mqtt/wire_writer.hpp"

namespace fulmar::mqtt {
namespace {

using enum PropertyId;
using enum PropertyPlace;
using Kind = PropertyKind;

constexpr std::uint32_t at(auto... places) { return ((1u << static_cast<unsigned>(places)) | ... | 0u); }

constexpr std::uint32_t publishes = at(publish_from_client, publish_from_server);
constexpr std::uint32_t acknowledgements = at(puback, pubrec, pubrel, pubcomp, suback, unsuback);
constexpr std::uint32_t disconnects = at(disconnect_from_client, disconnect_from_server);
constexpr std::uint32_t everywhere = (1u << 16) - 1;

struct Definition {
  Kind kind = Kind::none;
  std::uint32_t places = 0;      // where it may stand [MQTT5 2.2.2.2]
  std::uint32_t other_side = 0;  // where it could stand if the other side had sent the packet
  std::uint32_t repeatable = 0;  // where it may stand more than once
  std::uint32_t min = 0;
  std::uint32_t max = 0xffffffff;
};

constexpr std::size_t definitions_size = 0x2b;

constexpr auto definitions = [] {
  std::array<Definition, definitions_size> table{};
  const auto define = [&table](PropertyId id, Definition definition) {
    table[static_cast<std::size_t>(id)] = definition;
  };
  define(payload_format_indicator, {Kind::byte, publishes | at(will), 0, 0, 0, 1});
  define(message_expiry_interval, {.kind = Kind::four_bytes, .places = publishes | at(will)});
  define(content_type, {.kind = Kind::string, .places = publishes | at(will)});
  define(response_topic, {.kind = Kind::string, .places = publishes | at(will)});
  define(correlation_data, {.kind = Kind::binary, .places = publishes | at(will)});
  define(subscription_identifier, {Kind::variable, at(publish_from_server, subscribe),
                                   at(publish_from_client), at(publish_from_server), 1, 0xffffffff});
  define(session_expiry_interval, {.kind = Kind::four_bytes,
                                   .places = at(PropertyPlace::connect, connack, disconnect_from_client),
                                   .other_side = at(disconnect_from_server)});
  define(assigned_client_identifier, {.kind = Kind::string, .places = at(connack)});
  define(server_keep_alive, {.kind = Kind::two_bytes, .places = at(connack)});
  define(authentication_method, {.kind = Kind::string, .places = at(PropertyPlace::connect, connack, auth)});
  define(authentication_data, {.kind = Kind::binary, .places = at(PropertyPlace::connect, connack, auth)});
  define(request_problem_information, {Kind::byte, at(PropertyPlace::connect), 0, 0, 0, 1});
  define(will_delay_interval, {.kind = Kind::four_bytes, .places = at(will)});
  define(request_response_information, {Kind::byte, at(PropertyPlace::connect), 0, 0, 0, 1});
  define(response_information, {.kind = Kind::string, .places = at(connack)});
  define(server_reference, {.kind = Kind::string,
                            .places = at(connack, disconnect_from_server),
                            .other_side = at(disconnect_from_client)});
  define(reason_string, {.kind = Kind::string, .places = acknowledgements | disconnects | at(connack, auth)});
  define(receive_maximum, {Kind::two_bytes, at(PropertyPlace::connect, connack), 0, 0, 1, 0xffff});
  define(topic_alias_maximum, {.kind = Kind::two_bytes, .places = at(PropertyPlace::connect, connack)});
  define(topic_alias, {Kind::two_bytes, publishes, 0, 0, 1, 0xffff});
  define(maximum_qos, {Kind::byte, at(connack), 0, 0, 0, 1});
  define(retain_available, {Kind::byte, at(connack), 0, 0, 0, 1});
  define(user_property, {.kind = Kind::string_pair, .places = everywhere, .repeatable = everywhere});
  define(maximum_packet_size, {Kind::four_bytes, at(PropertyPlace::connect, connack), 0, 0, 1, 0xffffffff});
  define(wildcard_subscription_available, {Kind::byte, at(connack), 0, 0, 0, 1});
  define(subscription_identifier_available, {Kind::byte, at(connack), 0, 0, 0, 1});
  define(shared_subscription_available, {Kind::byte, at(connack), 0, 0, 0, 1});
  return table;
}();

bool has(std::uint64_t present, PropertyId id) { return (present >> static_cast<unsigned>(id) & 1) != 0; }

// Reads the value of `definition` and checks what does not depend on the other properties.
DecodeError check_value(Cursor& cursor, PropertyId id, const Definition& definition) {
  std::uint32_t number = definition.min;
  unsigned traits = 0;
  switch (definition.kind) {
    case Kind::none: return DecodeError::property_unknown;
    case Kind::byte: number = cursor.u8(); break;
    case Kind::two_bytes: number = cursor.u16(); break;
    case Kind::four_bytes: number = cursor.u32(); break;
    case Kind::variable: number = cursor.variable(); break;
    case Kind::binary: cursor.binary(); break;
    case Kind::string_pair:
      cursor.string();
      cursor.string();
      break;
    case Kind::string: {
      const auto text = cursor.string(traits);
      if (id == response_topic && cursor.ok() && (text.empty() || traits & text_has_wildcard)) {
        return DecodeError::response_topic_invalid;
      }
    }
  }
  if (!cursor.ok()) return cursor.error;
  if (number < definition.min || number > definition.max) {
    return id == topic_alias ? DecodeError::topic_alias_zero : DecodeError::property_value_invalid;
  }
  return DecodeError::none;
}

}  // namespace

PropertyKind kind_of(PropertyId id) {
  const auto index = static_cast<std::size_t>(id);
  return index < definitions_size ? definitions[index].kind : PropertyKind::none;
}

DecodeError check_properties(BytesView encoded, PropertyPlace place, PropertiesView& view) {
  Cursor cursor(encoded);
  std::uint64_t present = 0;
  const std::uint32_t here = at(place);
  while (cursor.left() != 0) {
    // The identifier is a variable byte integer; all known ones have one byte.
    const std::uint32_t number = cursor.variable();
    if (!cursor.ok()) return cursor.error;
    if (number >= definitions_size) return DecodeError::property_unknown;
    const auto id = static_cast<PropertyId>(number);
    const auto& definition = definitions[number];
    if (definition.kind == Kind::none) return DecodeError::property_unknown;
    if ((definition.places & here) == 0) {
      return definition.other_side & here ? DecodeError::property_of_other_side
                                          : DecodeError::property_misplaced;
    }
    if (has(present, id) && (definition.repeatable & here) == 0) return DecodeError::property_repeated;
    present |= std::uint64_t{1} << number;
    if (const auto error = check_value(cursor, id, definition); error != DecodeError::none) return error;
  }
  if (has(present, authentication_data) && !has(present, authentication_method)) {
    return DecodeError::authentication_data_without_method;
  }
  view = PropertiesView(encoded, present);
  return DecodeError::none;
}

void PropertiesView::Iterator::read() {
  property_ = Property();
  property_.id = static_cast<PropertyId>(*at_);
  const std::byte* at = at_ + 1;
  const auto text = [&at] {
    const std::size_t size = load_u16(at);
    at += 2 + size;
    return std::string_view(reinterpret_cast<const char*>(at - size), size);
  };
  switch (kind_of(property_.id)) {
    case Kind::none: at = end_; break;  // cannot be: the properties were checked
    case Kind::byte: property_.number = static_cast<std::uint8_t>(*at++); break;
    case Kind::two_bytes:
      property_.number = load_u16(at);
      at += 2;
      break;
    case Kind::four_bytes:
      property_.number = load_u32(at);
      at += 4;
      break;
    case Kind::variable:
      at += load_variable(at, static_cast<std::size_t>(end_ - at), property_.number);
      break;
    case Kind::string_pair: property_.name = text(); [[fallthrough]];
    case Kind::string:
    case Kind::binary: property_.text = text(); break;
  }
  next_ = at;
}

std::optional<Property> PropertiesView::search(PropertyId id) const {
  for (const auto& property : *this) {
    if (property.id == id) return property;
  }
  return std::nullopt;
}

std::byte* PropertyWriter::reserve(std::size_t size) {
  if (!ok_ || size > out_.size() - size_) {
    ok_ = false;
    return nullptr;
  }
  std::byte* at = out_.data() + size_;
  size_ += size;
  return at;
}

PropertyWriter& PropertyWriter::add(PropertyId id, std::uint32_t number) {
  std::size_t size = 0;
  switch (kind_of(id)) {
    case Kind::byte: size = number <= 0xff ? 1 : 0; break;
    case Kind::two_bytes: size = number <= 0xffff ? 2 : 0; break;
    case Kind::four_bytes: size = 4; break;
    case Kind::variable: size = number <= 268'435'455 ? variable_size(number) : 0; break;
    default: break;
  }
  if (size == 0) ok_ = false;
  std::byte* at = reserve(1 + size);
  if (at == nullptr) return *this;
  at = put_u8(at, static_cast<std::uint8_t>(id));
  switch (kind_of(id)) {
    case Kind::byte: put_u8(at, static_cast<std::uint8_t>(number)); break;
    case Kind::two_bytes: put_u16(at, static_cast<std::uint16_t>(number)); break;
    case Kind::four_bytes: put_u32(at, number); break;
    default: put_variable(at, number); break;
  }
  return *this;
}

PropertyWriter& PropertyWriter::add(PropertyId id, std::string_view text) {
  const auto kind = kind_of(id);
  if ((kind != Kind::string && kind != Kind::binary) || text.size() > 0xffff) ok_ = false;
  std::byte* at = reserve(3 + text.size());
  if (at != nullptr) put_string(put_u8(at, static_cast<std::uint8_t>(id)), text);
  return *this;
}

PropertyWriter& PropertyWriter::add_user(std::string_view name, std::string_view value) {
  if (name.size() > 0xffff || value.size() > 0xffff) ok_ = false;
  std::byte* at = reserve(5 + name.size() + value.size());
  if (at != nullptr)
    put_string(put_string(put_u8(at, static_cast<std::uint8_t>(user_property)), name), value);
  return *this;
}

}  // namespace fulmar::mqtt
