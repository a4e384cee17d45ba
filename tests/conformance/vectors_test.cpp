// The packets of vectors/: read, written, cut, and with every length and every bit changed.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "tests/conformance/cases.hpp"
#include "tests/conformance/codec_probe.hpp"
#include "tests/conformance/packet_text.hpp"
#include "tests/conformance/vector_file.hpp"

namespace fulmar::mqtt {
namespace {

struct Case {
  const PacketVector& vector;
  ProtocolVersion version;
  Sender sender;

  bool valid() const { return vector.error == DecodeError::none; }
  std::string label() const {
    return vector.where + ' ' + vector.name + (version == ProtocolVersion::v5 ? " 5" : " 3.1.1") +
           (sender == Sender::client ? " client" : " server");
  }
  PacketType type() const { return static_cast<PacketType>(static_cast<unsigned>(vector.wire[0]) >> 4); }
  Bytes body() const {
    const auto& length = vector.lengths.at(0);
    return {vector.wire.begin() + static_cast<std::ptrdiff_t>(length.at + length.size), vector.wire.end()};
  }
};

void for_each(bool valid, const std::function<void(const Case&)>& visit) {
  for (const auto& vector : packet_vectors()) {
    if ((vector.error == DecodeError::none) != valid) continue;
    for (const auto version : vector.versions) {
      for (const auto sender : vector.senders) {
        const Case one{vector, version, sender};
        SCOPED_TRACE(one.label());
        visit(one);
      }
    }
  }
}

// A 5.0 packet whose end may be left out, so that several forms mean the same.
bool has_optional_end(const Case& one) {
  switch (one.type()) {
    case PacketType::puback:
    case PacketType::pubrec:
    case PacketType::pubrel:
    case PacketType::pubcomp:
    case PacketType::disconnect:
    case PacketType::auth: return one.version == ProtocolVersion::v5;
    default: return false;
  }
}

// Bytes that came about by changing a valid packet: they are refused, or they are a packet of their own, which the encoder
// gives back byte for byte (or in a shorter form, where MQTT has one) and which means something else.
void expect_refused_or_faithful(const Case& original, const Bytes& changed) {
  const Decoded decoded(changed, original.version, original.sender);
  if (!decoded.accepted()) return;
  const Bytes whole(changed.begin(), changed.begin() + static_cast<std::ptrdiff_t>(decoded.frame.size));
  const auto again = rebuilt(decoded);
  if (again == whole) {
    if (whole != original.vector.wire) {
      EXPECT_TRUE(decoded.meaning() != original.vector.meaning || has_optional_end(original)) << hex(whole);
    }
    return;
  }
  EXPECT_TRUE(has_optional_end(original))
      << "accepted, but not given back: " << hex(whole) << "\nas " << hex(again);
  EXPECT_LT(again.size(), whole.size());
  const Decoded second(again, original.version, original.sender);
  ASSERT_TRUE(second.accepted());
  EXPECT_EQ(second.meaning(), decoded.meaning());
}

TEST(Vectors, cover_every_packet_type_in_both_versions_valid_and_not) {
  for (const auto version : {ProtocolVersion::v3_1_1, ProtocolVersion::v5}) {
    for (unsigned type = 1; type <= (version == ProtocolVersion::v5 ? 15u : 14u); ++type) {
      for (const bool valid : {true, false}) {
        EXPECT_TRUE(std::ranges::any_of(packet_vectors(),
                                        [&](const PacketVector& v) {
                                          return static_cast<unsigned>(v.wire[0]) >> 4 == type &&
                                                 (v.error == DecodeError::none) == valid &&
                                                 std::ranges::count(v.versions, version) != 0;
                                        }))
            << type << ' ' << valid;
      }
    }
  }
}

TEST(Vectors, cover_every_rule_of_the_decoder) {
  for (auto error = DecodeError::packet_type_reserved; error < DecodeError::packet_unexpected;
       error = static_cast<DecodeError>(static_cast<int>(error) + 1)) {
    if (error == DecodeError::packet_too_large) continue;  // Limits.*
    EXPECT_TRUE(std::ranges::any_of(packet_vectors(), [&](const PacketVector& v) {
      return v.error == error;
    })) << name_of(error);
  }
}

TEST(Vectors, valid_packets_are_accepted_and_mean_what_they_say) {
  Cases cases("valid packets");
  for_each(true, [&](const Case& one) {
    const Decoded decoded(one.vector.wire, one.version, one.sender);
    ++cases;
    ASSERT_TRUE(decoded.accepted()) << (decoded.needs_more ? "needs more" : name_of(decoded.error));
    EXPECT_EQ(decoded.frame.size, one.vector.wire.size());
    EXPECT_EQ(decoded.meaning(), one.vector.meaning);
  });
}

TEST(Vectors, invalid_packets_are_refused_by_the_rule_that_they_break) {
  Cases cases("invalid packets");
  for_each(false, [&](const Case& one) {
    const Decoded decoded(one.vector.wire, one.version, one.sender);
    ++cases;
    EXPECT_FALSE(decoded.needs_more);
    EXPECT_EQ(name_of(decoded.error), name_of(one.vector.error));
    EXPECT_EQ(hex_byte(static_cast<unsigned>(reason_for(decoded.error))), hex_byte(one.vector.reason));
    EXPECT_FALSE(clause_of(decoded.error).empty());
  });
}

TEST(Vectors, valid_packets_are_written_as_they_were_read_or_in_their_shortest_form) {
  Cases cases("packets written again");
  for_each(true, [&](const Case& one) {
    const auto& expected = one.vector.shortest.empty() ? one.vector.wire : one.vector.shortest;
    const Decoded decoded(one.vector.wire, one.version, one.sender);
    ASSERT_TRUE(decoded.accepted());
    ++cases;
    EXPECT_EQ(hex(encoded(decoded)), hex(expected));
    EXPECT_EQ(hex(rebuilt(decoded)), hex(expected));
    EXPECT_EQ(encoded_size(decoded.view, one.version), expected.size());
    const Decoded again(expected, one.version, one.sender);
    ASSERT_TRUE(again.accepted());
    EXPECT_EQ(again.meaning(), one.vector.meaning);
    Bytes small(expected.size() - 1);
    EXPECT_EQ(encode(small, decoded.view, one.version), 0u);
  });
}

TEST(Vectors, a_packet_that_has_come_in_part_needs_more_and_is_not_judged_early) {
  Cases cases("parts of packets");
  for_each(true, [&](const Case& one) {
    const auto& wire = one.vector.wire;
    const auto head = 1 + one.vector.lengths.at(0).size;
    for (std::size_t size = 0; size < wire.size(); ++size) {
      const Decoded part(Bytes(wire.begin(), wire.begin() + static_cast<std::ptrdiff_t>(size)), one.version,
                         one.sender);
      ++cases;
      EXPECT_TRUE(part.needs_more) << size;
      EXPECT_EQ(part.error, DecodeError::none) << size;
      EXPECT_EQ(part.frame.expected, size >= head ? wire.size() : 0u) << size;
    }
    const Decoded more(wire + bytes("ff ff ff"), one.version, one.sender);
    EXPECT_TRUE(more.accepted());
    EXPECT_EQ(more.frame.size, wire.size());
  });
}

TEST(Vectors, an_invalid_packet_that_has_come_in_part_is_never_accepted) {
  Cases cases("parts of invalid packets");
  for_each(false, [&](const Case& one) {
    const auto& wire = one.vector.wire;
    for (std::size_t size = 0; size < wire.size(); ++size) {
      const Decoded part(Bytes(wire.begin(), wire.begin() + static_cast<std::ptrdiff_t>(size)), one.version,
                         one.sender);
      ++cases;
      EXPECT_FALSE(part.accepted()) << size;
      if (part.error != DecodeError::none) {
        EXPECT_EQ(part.error, one.vector.error) << size;
      }
    }
  });
}

// Where the body of a valid packet may end too, because what follows is optional or a list.
bool may_end_at(const Case& one, std::size_t size) {
  const Decoded whole(one.vector.wire, one.version, one.sender);
  const auto body_size = whole.frame.body.size();
  const bool v5 = one.version == ProtocolVersion::v5;
  if (const auto* publish = std::get_if<PublishView>(&whole.view))
    return size >= body_size - publish->payload.size();
  if (const auto* answer = std::get_if<SubackView>(&whole.view)) {
    return !answer->codes.empty() && size > body_size - answer->codes.size();
  }
  if (const auto* subscribe = std::get_if<SubscribeView>(&whole.view)) {
    std::size_t end = body_size - subscribe->filters.encoded().size();
    for (const auto& item : subscribe->filters) {
      end += 3 + item.filter.size();
      if (size == end) return true;
    }
    return false;
  }
  if (const auto* unsubscribe = std::get_if<UnsubscribeView>(&whole.view)) {
    std::size_t end = body_size - unsubscribe->filters.encoded().size();
    for (const auto filter : unsubscribe->filters) {
      end += 2 + filter.size();
      if (size == end) return true;
    }
    return false;
  }
  if (std::holds_alternative<AckView>(whole.view)) return v5 && (size == 2 || size == 3);
  if (std::holds_alternative<DisconnectView>(whole.view)) return v5 && size <= 1;
  if (std::holds_alternative<AuthView>(whole.view)) return size == 0 && one.sender == Sender::server;
  return false;
}

TEST(Vectors, a_body_that_is_cut_anywhere_is_refused_as_malformed) {
  Cases cases("cut bodies");
  for_each(true, [&](const Case& one) {
    const auto body = one.body();
    for (std::size_t size = 0; size < body.size(); ++size) {
      const Bytes part(body.begin(), body.begin() + static_cast<std::ptrdiff_t>(size));
      const Decoded decoded(framed(one.vector.wire[0], part), one.version, one.sender);
      ++cases;
      if (may_end_at(one, size)) {
        expect_refused_or_faithful(one, framed(one.vector.wire[0], part));
        EXPECT_TRUE(decoded.accepted()) << size << ' ' << name_of(decoded.error);
        continue;
      }
      std::vector<DecodeError> expected = {DecodeError::truncated, DecodeError::property_length_wrong,
                                           DecodeError::no_codes, DecodeError::no_filters};
      // An empty AUTH says success, which is not a client's to say.
      if (one.type() == PacketType::auth && size == 0) expected = {DecodeError::reason_code_unknown};
      EXPECT_TRUE(std::ranges::count(expected, decoded.error)) << size << ' ' << name_of(decoded.error);
    }
  });
}

TEST(Vectors, a_byte_too_many_is_refused_wherever_it_can_be_told) {
  Cases cases("bodies with a byte too many");
  for_each(true, [&](const Case& one) {
    for (const auto extra : {std::byte{0x00}, std::byte{0xff}}) {
      const auto longer = framed(one.vector.wire[0], one.body() + Bytes{extra});
      const Decoded decoded(longer, one.version, one.sender);
      ++cases;
      if (one.type() == PacketType::publish) {
        EXPECT_TRUE(decoded.accepted());  // it belongs to the payload
      } else if (extra == std::byte{0xff}) {
        EXPECT_FALSE(decoded.accepted());
      }
      expect_refused_or_faithful(one, longer);
    }
  });
}

TEST(Vectors, a_length_that_is_off_by_one_is_never_overlooked) {
  Cases cases("lengths off by one");
  for_each(true, [&](const Case& one) {
    for (std::size_t i = 0; i < one.vector.lengths.size(); ++i) {
      const auto& field = one.vector.lengths[i];
      const auto begin = one.vector.wire.begin() + static_cast<std::ptrdiff_t>(field.at);
      std::uint32_t value = 0;
      for (std::size_t k = 0; k < field.size; ++k) {
        const auto byte = static_cast<std::uint32_t>(begin[static_cast<std::ptrdiff_t>(k)]);
        value = field.variable ? value | (byte & 0x7f) << (7 * k) : value << 8 | byte;
      }
      for (const int step : {-1, 1, 127}) {
        if (step < 0 && value == 0) continue;
        const auto wrong = static_cast<std::uint32_t>(static_cast<std::int64_t>(value) + step);
        const Bytes number = field.variable
                                 ? variable_integer(wrong)
                                 : Bytes{static_cast<std::byte>(wrong >> 8), static_cast<std::byte>(wrong)};
        // The remaining length stays true to the bytes, unless it is the one that is wrong.
        const Bytes before(one.vector.wire.begin(), begin);
        const Bytes after(begin + static_cast<std::ptrdiff_t>(field.size), one.vector.wire.end());
        auto changed = before + number + after;
        if (i != 0) {
          const auto head = 1 + one.vector.lengths[0].size;
          changed =
              framed(changed[0], Bytes(changed.begin() + static_cast<std::ptrdiff_t>(head), changed.end()));
        }
        ++cases;
        SCOPED_TRACE("length at " + std::to_string(field.at) + " by " + std::to_string(step) + ": " +
                     hex(changed));
        const Decoded decoded(changed, one.version, one.sender);
        if (i == 0 && step > 0) {
          EXPECT_TRUE(decoded.needs_more);
        }
        if (i != 0 && step > 1 && one.type() != PacketType::publish) {
          EXPECT_FALSE(decoded.accepted());
        }
        expect_refused_or_faithful(one, changed);
      }
    }
  });
}

TEST(Vectors, a_length_that_is_not_minimal_is_refused_MQTT_1_5_5_1) {
  Cases cases("lengths that are not minimal");
  for_each(true, [&](const Case& one) {
    for (std::size_t i = 0; i < one.vector.lengths.size(); ++i) {
      const auto& field = one.vector.lengths[i];
      if (!field.variable) continue;
      for (std::size_t padding = 1; field.size + padding <= 5; ++padding) {
        auto changed = one.vector.wire;
        auto at = changed.begin() + static_cast<std::ptrdiff_t>(field.at + field.size);
        *(at - 1) |= std::byte{0x80};
        Bytes more(padding, std::byte{0x80});
        more.back() = std::byte{0};
        changed.insert(at, more.begin(), more.end());
        if (i != 0) {
          const auto head = 1 + one.vector.lengths[0].size;
          changed =
              framed(changed[0], Bytes(changed.begin() + static_cast<std::ptrdiff_t>(head), changed.end()));
        }
        const bool five = field.size + padding == 5;
        const auto expected =
            i == 0 ? (five ? DecodeError::length_over_four_bytes : DecodeError::length_not_minimal)
                   : (five ? DecodeError::integer_over_four_bytes : DecodeError::integer_not_minimal);
        const Decoded decoded(changed, one.version, one.sender);
        ++cases;
        EXPECT_EQ(name_of(decoded.error), name_of(expected)) << hex(changed);
      }
    }
  });
}

TEST(Vectors, every_flag_of_the_fixed_header_must_be_as_the_table_says_MQTT_2_2_2_1_MQTT_2_1_3_1) {
  Cases cases("fixed headers");
  for_each(true, [&](const Case& one) {
    const auto right = static_cast<unsigned>(one.vector.wire[0]) & 0x0f;
    for (unsigned flags = 0; flags < 16; ++flags) {
      if (flags == right) continue;
      auto changed = one.vector.wire;
      changed[0] = (changed[0] & std::byte{0xf0}) | static_cast<std::byte>(flags);
      const Decoded decoded(changed, one.version, one.sender);
      ++cases;
      if (one.type() != PacketType::publish) {
        EXPECT_EQ(name_of(decoded.error), "header_flags_reserved") << flags;
        // Refused at the first byte, without waiting for the rest.
        EXPECT_EQ(Decoded({changed[0]}, one.version, one.sender).error, DecodeError::header_flags_reserved);
      } else if ((flags & 6) == 6) {
        EXPECT_EQ(name_of(decoded.error), "qos_reserved") << flags;
      } else if (flags == 8 || flags == 9) {
        EXPECT_EQ(name_of(decoded.error), "dup_at_qos_0") << flags;
      } else {
        expect_refused_or_faithful(one, changed);
      }
    }
  });
}

TEST(Vectors, a_packet_with_any_bit_turned_is_refused_or_means_something_else) {
  Cases cases("turned bits");
  for_each(true, [&](const Case& one) {
    for (std::size_t bit = 0; bit < one.vector.wire.size() * 8; ++bit) {
      auto changed = one.vector.wire;
      changed[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
      ++cases;
      // Another packet type makes a packet that has nothing to do with this one.
      if ((changed[0] >> 4) != (one.vector.wire[0] >> 4)) continue;
      expect_refused_or_faithful(one, changed);
    }
  });
}

}  // namespace
}  // namespace fulmar::mqtt
