#pragma once
// OutgoingProperties: the MQTT 5.0 properties of a PublishOptions, checked and encoded; without the message expiry, which the
// record keeps apart.
//
// Not thread-safe: lives on the publisher's stack. Allocates only above `inline_max` bytes.

#include <array>
#include <cstddef>
#include <memory>

#include "fulmar/message.hpp"

namespace fulmar {

class OutgoingProperties {
 public:
  static constexpr std::size_t inline_max = 512;

  static bool any(const PublishOptions& options) {
    return options.payload_is_utf8 || !options.content_type.empty() || !options.response_topic.empty() ||
           options.correlation_data || !options.user_properties.empty();
  }

  // Errors: invalid_topic, invalid_config (not UTF-8, over 65535 bytes, or too many), naming the property.
  Result<void> write(const PublishOptions& options);
  BytesView encoded() const { return encoded_; }

 private:
  std::array<std::byte, inline_max> inline_;
  std::unique_ptr<std::byte[]> larger_;
  BytesView encoded_;
};

}  // namespace fulmar
