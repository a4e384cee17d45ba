#pragma once
// The properties of MQTT 5.0 packets: a view that iterates over validated encoded bytes, their check and a writer.
// The property length in front belongs to the packet, not to the encoded properties.
//
// Thread-safety: plain values; views do not own.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <optional>
#include <span>
#include <string_view>

#include "fulmar/mqtt/decode_error.hpp"
#include "fulmar/mqtt/types.hpp"

namespace fulmar::mqtt {

// [MQTT5 1.5]
enum class PropertyKind : std::uint8_t {
  none,
  byte,
  two_bytes,
  four_bytes,
  variable,
  string,
  binary,
  string_pair
};

// How the value of `id` is encoded; `none` for identifiers that MQTT 5.0 does not know.
PropertyKind kind_of(PropertyId id);

// The packets that carry properties; PUBLISH and DISCONNECT allow other ones from a client than from a server.
enum class PropertyPlace : std::uint8_t {
  connect,
  will,
  connack,
  publish_from_client,
  publish_from_server,
  puback,
  pubrec,
  pubrel,
  pubcomp,
  subscribe,
  suback,
  unsubscribe,
  unsuback,
  disconnect_from_client,
  disconnect_from_server,
  auth,
};

struct Property {
  PropertyId id{};
  std::uint32_t number = 0;  // byte, two, four byte and variable byte integers
  std::string_view text;     // strings, binary data, the value of a user property
  std::string_view name;     // the name of a user property

  BytesView data() const { return as_bytes(text); }
};

// Iterates over properties that check_properties() has accepted; nothing is checked again.
class PropertiesView {
 public:
  PropertiesView() = default;
  // `encoded` is valid; `present` has bit N set for every identifier N in it (all bits: not known).
  explicit PropertiesView(BytesView encoded, std::uint64_t present = ~std::uint64_t{0})
      : encoded_(encoded), present_(encoded.empty() ? 0 : present) {}

  class Iterator {
   public:
    using iterator_category = std::forward_iterator_tag;
    using value_type = Property;
    using difference_type = std::ptrdiff_t;

    Iterator() = default;
    explicit Iterator(const std::byte* at, const std::byte* end) : at_(at), end_(end) {
      if (at_ != end_) read();
    }
    const Property& operator*() const { return property_; }
    const Property* operator->() const { return &property_; }
    Iterator& operator++() {
      at_ = next_;
      if (at_ != end_) read();
      return *this;
    }
    Iterator operator++(int) {
      auto old = *this;
      ++*this;
      return old;
    }
    bool operator==(std::default_sentinel_t) const { return at_ == end_; }
    bool operator==(const Iterator& other) const { return at_ == other.at_; }

   private:
    void read();

    const std::byte* at_ = nullptr;
    const std::byte* end_ = nullptr;
    const std::byte* next_ = nullptr;
    Property property_;
  };

  Iterator begin() const { return Iterator(encoded_.data(), encoded_.data() + encoded_.size()); }
  std::default_sentinel_t end() const { return {}; }

  BytesView encoded() const { return encoded_; }
  bool empty() const { return encoded_.empty(); }

  // The first property `id`. Absent ones cost nothing in a decoded packet.
  std::optional<Property> find(PropertyId id) const {
    if ((present_ >> static_cast<unsigned>(id) & 1) == 0) return std::nullopt;
    return search(id);
  }
  std::uint32_t number(PropertyId id, std::uint32_t otherwise) const {
    const auto property = find(id);
    return property ? property->number : otherwise;
  }
  std::string_view text(PropertyId id) const {
    const auto property = find(id);
    return property ? property->text : std::string_view();
  }

 private:
  std::optional<Property> search(PropertyId id) const;

  BytesView encoded_;
  std::uint64_t present_ = 0;
};

// Are these encoded properties what MQTT 5.0 allows at this place: known, permitted here, single ones once, values in
// range, strings UTF-8? On success `view` is made of them.
DecodeError check_properties(BytesView encoded, PropertyPlace place, PropertiesView& view);

// Writes properties into the caller's buffer. What does not fit is not written and ok() turns false for good.
class PropertyWriter {
 public:
  explicit PropertyWriter(std::span<std::byte> out) : out_(out) {}

  // byte, two, four byte and variable byte integers, by the kind of `id`
  PropertyWriter& add(PropertyId id, std::uint32_t number);
  // strings and binary data
  PropertyWriter& add(PropertyId id, std::string_view text);
  PropertyWriter& add_user(std::string_view name, std::string_view value);

  bool ok() const { return ok_; }
  std::size_t size() const { return size_; }
  BytesView encoded() const { return {out_.data(), size_}; }
  PropertiesView view() const { return PropertiesView(encoded()); }

 private:
  std::byte* reserve(std::size_t size);

  std::span<std::byte> out_;
  std::size_t size_ = 0;
  bool ok_ = true;
};

}  // namespace fulmar::mqtt
