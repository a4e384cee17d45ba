#include "messages.hpp"

#include <array>
#include <charconv>

namespace fulmar::simulation {

using mqtt::PropertyId;

std::string topic_of(Way way, std::uint64_t number, const Content& content) {
  std::string topic(1, static_cast<char>(way));
  if (content.shared_topic != 0) return topic += "/r" + std::to_string(content.shared_topic) + "/reading";
  topic += '/' + std::to_string(number) + '/';
  topic.append(content.topic_filler, 'x');
  return topic;
}

std::uint64_t number_of(Way way, std::string_view topic, BytesView payload) {
  if (topic.size() < 4 || topic[0] != static_cast<char>(way) || topic[1] != '/') return 0;
  std::uint64_t number = 0;
  if (topic[2] == 'r') {
    for (std::size_t i = 0; i < 8 && payload.size() >= 8; ++i)
      number = number << 8 | std::to_integer<unsigned>(payload[i]);
    return number;
  }
  const auto [end, error] = std::from_chars(topic.data() + 2, topic.data() + topic.size(), number);
  return error == std::errc() && end != topic.data() + topic.size() && *end == '/' ? number : 0;
}

namespace {

std::byte payload_byte(std::uint64_t number, std::size_t at) {
  return static_cast<std::byte>((number * 131 + at * 7 + (at >> 8)) & 0xff);
}

// The first 8 bytes are the number, most significant byte first, where there is room for it.
std::byte number_byte(std::uint64_t number, std::size_t at) {
  return static_cast<std::byte>(number >> (56 - 8 * at) & 0xff);
}

}  // namespace

void fill_payload(std::uint64_t number, std::span<std::byte> payload) {
  for (std::size_t i = 0; i < payload.size(); ++i) payload[i] = payload_byte(number, i);
  for (std::size_t i = 0; i < 8 && payload.size() >= 8; ++i) payload[i] = number_byte(number, i);
}

bool payload_is(std::uint64_t number, BytesView payload) {
  bool same = true;
  const std::size_t head = payload.size() >= 8 ? 8 : 0;
  for (std::size_t i = 0; i < head; ++i) same &= payload[i] == number_byte(number, i);
  for (std::size_t i = head; i < payload.size(); ++i) same &= payload[i] == payload_byte(number, i);
  return same;
}

BytesView message_properties() {
  static const auto encoded = [] {
    std::array<std::byte, 64> buffer{};
    mqtt::PropertyWriter writer(buffer);
    writer.add(PropertyId::content_type, "text/plain").add_user("unit", "mm");
    return std::vector<std::byte>(writer.encoded().begin(), writer.encoded().end());
  }();
  return encoded;
}

bool properties_are(bool with_properties, const mqtt::PropertiesView& properties) {
  std::size_t others = 0;
  for (const auto& property : properties) {
    if (property.id != PropertyId::message_expiry_interval && property.id != PropertyId::topic_alias &&
        property.id != PropertyId::subscription_identifier) {
      ++others;
    }
  }
  if (!with_properties) return others == 0;
  const auto user = properties.find(PropertyId::user_property);
  return others == 2 && properties.text(PropertyId::content_type) == "text/plain" && user &&
         user->name == "unit" && user->text == "mm";
}

}  // namespace fulmar::simulation
