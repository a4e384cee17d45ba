#include "client/outgoing_properties.hpp"

#include <string>

#include "fulmar/mqtt/topic.hpp"

namespace fulmar {
namespace {

constexpr std::size_t text_max = 65'535;
// More than any packet holds [MQTT5 1.5.5].
constexpr std::size_t properties_max = 268'435'455;

Result<void> check_text(std::string_view what, std::string_view text) {
  if (text.size() > text_max) {
    return fail(Errc::invalid_config,
                std::string(what) + " has " + std::to_string(text.size()) + " bytes; expected at most 65535");
  }
  if (!mqtt::is_valid_utf8(text)) {
    return fail(Errc::invalid_config, std::string(what) + " is not valid UTF-8");
  }
  return {};
}

}  // namespace

Result<void> OutgoingProperties::write(const PublishOptions& options) {
  using mqtt::PropertyId;
  std::size_t size = 2;
  if (auto good = check_text("content type", options.content_type); !good) return good;
  size += 3 + options.content_type.size();
  if (!options.response_topic.empty()) {
    if (const auto error = mqtt::check_topic_name(options.response_topic); error != mqtt::TopicError::none) {
      return fail(Errc::invalid_topic, "invalid response topic \"" +
                                           std::string(options.response_topic.substr(0, 64)) +
                                           "\": " + std::string(mqtt::to_string(error)));
    }
    size += 3 + options.response_topic.size();
  }
  if (options.correlation_data) {
    if (options.correlation_data->size() > text_max) {
      return fail(Errc::invalid_config, "correlation data has " +
                                            std::to_string(options.correlation_data->size()) +
                                            " bytes; expected at most 65535");
    }
    size += 3 + options.correlation_data->size();
  }
  for (const auto& user : options.user_properties) {
    if (auto good = check_text("the name of a user property", user.name); !good) return good;
    if (auto good = check_text("the value of user property \"" + std::string(user.name.substr(0, 64)) + "\"",
                               user.value);
        !good) {
      return good;
    }
    size += 5 + user.name.size() + user.value.size();
    if (size > properties_max)
      return fail(Errc::payload_too_large, "the user properties do not fit into a packet");
  }
  std::span<std::byte> out = inline_;
  if (size > inline_max) {
    larger_ = std::make_unique_for_overwrite<std::byte[]>(size);
    out = {larger_.get(), size};
  }
  mqtt::PropertyWriter writer(out);
  if (options.payload_is_utf8) writer.add(PropertyId::payload_format_indicator, 1u);
  if (!options.content_type.empty()) writer.add(PropertyId::content_type, options.content_type);
  if (!options.response_topic.empty()) writer.add(PropertyId::response_topic, options.response_topic);
  if (options.correlation_data) writer.add(PropertyId::correlation_data, as_text(*options.correlation_data));
  for (const auto& user : options.user_properties) writer.add_user(user.name, user.value);
  encoded_ = writer.encoded();
  return {};
}

}  // namespace fulmar
