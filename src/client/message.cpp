#include "fulmar/message.hpp"

#include <cstring>
#include <utility>

namespace fulmar {

std::optional<std::string_view> Message::user_property(std::string_view name) const {
  for (const auto& property : properties) {
    if (property.id == mqtt::PropertyId::user_property && property.name == name) return property.text;
  }
  return std::nullopt;
}

std::optional<std::chrono::seconds> Message::message_expiry() const {
  const auto found = properties.find(mqtt::PropertyId::message_expiry_interval);
  if (!found) return std::nullopt;
  return std::chrono::seconds(found->number);
}

Acknowledgement Message::acknowledgement() const {
  if (!acknowledgement_) return {};
  return std::move(*acknowledgement_);
}

OwnedMessage Message::copy() const { return OwnedMessage(*this); }

// The captures come first, aligned as they must be; then topic, properties and payload.
OwnedMessage::OwnedMessage(const Message& message) : message_(message) {
  using Capture = std::string_view;
  const auto captures = message.captures();
  const auto properties = message.properties.encoded();
  const std::size_t views = captures.empty() ? 0 : captures.size_bytes() + alignof(Capture) - 1;
  std::size_t text = 0;
  for (const auto capture : captures) text += capture.size();
  const std::size_t size = views + text + message.topic.size() + properties.size() + message.payload.size();
  message_.acknowledgement_ = nullptr;
  const auto bytes = std::make_shared_for_overwrite<std::byte[]>(size);
  std::byte* at = bytes.get() + views;
  const auto put = [&at](const void* from, std::size_t count) {
    if (count != 0) std::memcpy(at, from, count);
    return std::exchange(at, at + count);
  };
  const auto put_text = [&](std::string_view from) {
    const auto* const begin = put(from.data(), from.size());
    return std::string_view(reinterpret_cast<const char*>(begin), from.size());
  };
  message_.topic = put_text(message.topic);
  message_.properties =
      mqtt::PropertiesView(BytesView(put(properties.data(), properties.size()), properties.size()));
  message_.payload = BytesView(put(message.payload.data(), message.payload.size()), message.payload.size());
  if (!captures.empty()) {
    void* room = bytes.get();
    std::size_t left = views;
    auto* const copies =
        static_cast<Capture*>(std::align(alignof(Capture), captures.size_bytes(), room, left));
    for (std::size_t i = 0; i < captures.size(); ++i) new (copies + i) Capture(put_text(captures[i]));
    message_.captures_ = {copies, captures.size()};
  }
  bytes_ = bytes;
}

}  // namespace fulmar
