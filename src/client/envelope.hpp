#pragma once
// Reading and writing envelopes without the copies that fulmar::Envelope makes: for publishing events, and for looking
// into every inbound message.
//
// Thread-safety: pure functions; EnvelopeReader by one thread at a time.

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "client/json_rewrite.hpp"
#include "fulmar/envelope.hpp"

namespace fulmar {

using WallTime = std::chrono::system_clock::time_point;
double seconds_of(WallTime time);  // since 1970, exact to the microsecond

// An envelope about to be written; as fulmar::Envelope.
struct EnvelopeParts {
  std::string_view id;
  std::string_view type;
  double ts = 0;
  std::string_view source;
  std::string_view data;
  std::string_view correlate{};
  std::string_view reply_to{};
};

// As Envelope::to_json().
Result<std::string> write_envelope(const EnvelopeParts& parts);

// `json`, an object with at least one member, with another one in front and otherwise as it is.
std::string with_member(std::string_view json, std::string_view name, std::string_view text);

// Reads envelopes one after another and keeps its memory.
class EnvelopeReader {
 public:
  explicit EnvelopeReader(JsonStyle data_style) : style_(data_style) {}

  // Is `json` an envelope? What does not begin like an object is turned down at the first byte.
  bool read(std::string_view json);

  // After read() said yes: valid until the next one.
  const Envelope& envelope() const { return envelope_; }
  Envelope& envelope() { return envelope_; }
  // data.seq where it is written as an integer of 64 bits.
  const std::optional<std::string>& sequence() const { return sequence_; }
  // Was the key there, whatever it held?
  bool has_correlate() const { return has_correlate_; }
  bool has_reply_to() const { return has_reply_to_; }
  // After read() said no.
  Error error() const;

 private:
  class Handler;
  friend class Handler;

  JsonStyle style_;
  JsonRewriter rewriter_;
  Envelope envelope_;
  std::optional<std::string> sequence_;
  bool has_correlate_ = false;
  bool has_reply_to_ = false;
  std::string pieces_;  // of a string or key that the parser gives in parts
  // What is wrong with which key, or, without a key, with the whole.
  std::string_view fault_;
  std::string_view fault_key_;
  std::string parser_fault_;
};

}  // namespace fulmar
