#include "cli/spool_message.hpp"

#include <openssl/evp.h>

#include <boost/json.hpp>

#include "cli/format.hpp"
#include "cli/message_json.hpp"
#include "client/stored_message.hpp"
#include "fulmar/mqtt/properties.hpp"
#include "fulmar/mqtt/topic.hpp"

namespace fulmar::cli {
namespace {

namespace json = boost::json;

WallTime wall_time(std::int64_t ms) {
  auto seconds = ms / 1'000;
  auto rest = ms % 1'000;
  if (rest < 0) {
    --seconds;
    rest += 1'000;
  }
  return {.seconds = seconds, .nanoseconds = static_cast<std::int32_t>(rest * 1'000'000)};
}

std::string base64(std::string_view bytes) {
  std::string text((bytes.size() + 2) / 3 * 4 + 1, '\0');  // and EVP_EncodeBlock's NUL
  const int size =
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                      reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
  text.resize(static_cast<std::size_t>(size));
  return text;
}

// Under `name`, or as base64 under `name_in_base64`: JSON is text.
void add_bytes(json::object& to, std::string_view bytes, std::string_view name,
               std::string_view name_in_base64) {
  if (mqtt::is_valid_utf8(bytes)) {
    to[name] = bytes;
  } else {
    to[name_in_base64] = base64(bytes);
  }
}

json::object properties_of(const mqtt::PropertiesView& view) {
  using mqtt::PropertyId;
  json::object all;
  json::array user;
  for (const auto& property : view) {
    switch (property.id) {
      case PropertyId::payload_format_indicator: all["payload-format-indicator"] = property.number; break;
      case PropertyId::content_type: all["content-type"] = property.text; break;
      case PropertyId::response_topic: all["response-topic"] = property.text; break;
      case PropertyId::correlation_data:
        add_bytes(all, property.text, "correlation-data", "correlation-data-base64");
        break;
      case PropertyId::user_property:
        user.push_back(json::object{{"name", property.name}, {"value", property.text}});
        break;
      default: break;  // none that the client stores
    }
  }
  if (!user.empty()) all["user-properties"] = std::move(user);
  return all;
}

}  // namespace

bool append_stored_message(const spool::Entry& entry, bool acknowledged, std::string& out) {
  // With a steady clock that reads the same as the wall clock, and a moment after all others, accepted_ns is wall time.
  const std::chrono::system_clock::time_point last{std::chrono::hours(24 * 365 * 200)};
  const mqtt::Instant same{std::chrono::duration_cast<mqtt::Instant::duration>(last.time_since_epoch())};
  const auto message = read_stored_message(entry.bytes, same, last);
  mqtt::PropertiesView properties;
  if (!message || !mqtt::is_valid_utf8(message->topic) ||
      mqtt::check_properties(message->properties, mqtt::PropertyPlace::publish_from_client, properties) !=
          mqtt::DecodeError::none) {
    return false;
  }
  json::object line;
  line["tst"] = json_time(wall_time(entry.stored_ms));
  line["topic"] = message->topic;
  line["qos"] = static_cast<int>(message->qos);
  line["retain"] = message->retain ? 1 : 0;
  line["payloadlen"] = message->payload.size();
  if (message->payload.empty()) {
    line["payload"] = nullptr;
  } else {
    add_bytes(line, as_text(message->payload), "payload", "payload_base64");
  }
  if (!properties.empty()) line["properties"] = properties_of(properties);
  if (message->expiry_s != mqtt::no_expiry) {
    line["expires"] =
        json_time(wall_time(message->accepted_ns / 1'000'000 + std::int64_t{message->expiry_s} * 1'000));
  }
  line["sequence"] = entry.sequence;
  line["acknowledged"] = acknowledged;
  line["released"] = entry.released;
  out.append(json::serialize(line)).append("\n");
  return true;
}

}  // namespace fulmar::cli
