#include "client/envelope.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include <boost/json/basic_parser_impl.hpp>

#include "fulmar/mqtt/topic.hpp"

namespace fulmar {

namespace json = boost::json;

// What the parser calls. The members of the outermost object are fields; what lies in `data` is written again; the rest is
// looked at by the parser alone.
class EnvelopeReader::Handler {
 public:
  static constexpr std::size_t max_object_size = std::size_t(-1);
  static constexpr std::size_t max_array_size = std::size_t(-1);
  static constexpr std::size_t max_key_size = std::size_t(-1);
  static constexpr std::size_t max_string_size = std::size_t(-1);
  using Ec = json::error_code;
  using Text = json::string_view;

  explicit Handler(EnvelopeReader& reader) : to_(reader) {}

  bool on_document_begin(Ec&) { return true; }
  bool on_document_end(Ec& ec) {
    to_.has_correlate_ = seen(Field::correlate);
    to_.has_reply_to_ = seen(Field::reply_to);
    constexpr std::array needed{Field::id, Field::type, Field::data};
    for (const auto field : needed)
      if (!seen(field)) return wrong(field, "is missing", ec);
    return seen(Field::ts) || seen(Field::timestamp) || wrong(Field::ts, "is missing", ec);
  }

  bool on_object_begin(Ec& ec) {
    if (depth_ == 1) {
      if (field_ == Field::data) {
        in_data_ = true;
        to_.rewriter_.start(to_.envelope_.data, to_.style_);
      } else if (!other(ec)) {
        return false;
      }
    }
    ++depth_;
    if (in_data_) to_.rewriter_.begin_object();
    return true;
  }
  bool on_object_end(std::size_t, Ec&) {
    --depth_;
    if (in_data_) to_.rewriter_.end_object();
    if (depth_ == 1) in_data_ = false;
    return true;
  }
  bool on_array_begin(Ec& ec) {
    if (!other(ec)) return false;
    ++depth_;
    if (in_data_) to_.rewriter_.begin_array();
    return true;
  }
  bool on_array_end(std::size_t, Ec&) {
    --depth_;
    if (in_data_) to_.rewriter_.end_array();
    return true;
  }

  bool on_key_part(Text part, std::size_t, Ec&) { return keep(part); }
  bool on_key(Text last, std::size_t, Ec& ec) {
    const auto name = whole(last);
    if (in_data_) {
      is_sequence_ = depth_ == 2 && name == "seq";
      to_.rewriter_.key(name);
    } else if (depth_ == 1) {
      field_ = field_of(name);
      if (field_ != Field::unknown) {
        if (seen(field_)) return wrong(field_, "comes twice", ec);
        seen_ |= 1u << static_cast<unsigned>(field_);
      }
    }
    to_.pieces_.clear();
    return true;
  }

  bool on_string_part(Text part, std::size_t, Ec&) { return keep(part); }
  bool on_string(Text last, std::size_t, Ec& ec) {
    const bool good = string(whole(last), ec);
    to_.pieces_.clear();
    return good;
  }

  bool on_number_part(Text, Ec&) { return true; }  // not with all the text at hand
  bool on_int64(std::int64_t value, Text text, Ec& ec) { return integer(value, text, ec); }
  bool on_uint64(std::uint64_t value, Text text, Ec& ec) { return integer(value, text, ec); }
  bool on_double(double, Text text, Ec& ec) { return number({text.data(), text.size()}, ec); }
  bool on_bool(bool value, Ec& ec) {
    if (in_data_) to_.rewriter_.literal(value ? "true" : "false");
    return other(ec);
  }
  bool on_null(Ec& ec) {
    if (in_data_) to_.rewriter_.literal("null");
    if (depth_ == 1 && text_of(field_) && field_ != Field::id && field_ != Field::type) return true;
    return other(ec);
  }
  bool on_comment_part(Text, Ec&) { return true; }
  bool on_comment(Text, Ec&) { return true; }

 private:
  enum class Field : std::uint8_t { unknown, id, type, ts, timestamp, source, data, correlate, reply_to };
  static constexpr std::array<std::string_view, 9> names{
      "", "id", "type", "ts", "timestamp", "source", "data", "correlate", "reply_to"};

  static Field field_of(std::string_view name) {
    for (std::size_t i = 1; i < names.size(); ++i)
      if (names[i] == name) return static_cast<Field>(i);
    return Field::unknown;
  }
  bool seen(Field field) const { return (seen_ >> static_cast<unsigned>(field) & 1) != 0; }

  std::string* text_of(Field field) {
    switch (field) {
      case Field::id: return &to_.envelope_.id;
      case Field::type: return &to_.envelope_.type;
      case Field::source: return &to_.envelope_.source;
      case Field::correlate: return &to_.envelope_.correlate;
      case Field::reply_to: return &to_.envelope_.reply_to;
      default: return nullptr;
    }
  }

  bool keep(Text part) {
    to_.pieces_.append(part.data(), part.size());
    return true;
  }
  std::string_view whole(Text last) {
    if (to_.pieces_.empty()) return {last.data(), last.size()};
    keep(last);
    return to_.pieces_;
  }

  bool string(std::string_view text, Ec& ec) {
    if (in_data_) to_.rewriter_.string(text);
    if (depth_ != 1) return other(ec);
    auto* const into = text_of(field_);
    if (!into) return other(ec);
    if (text.contains('\0')) return wrong(field_, "contains U+0000", ec);
    if (text.empty() && (field_ == Field::id || field_ == Field::type)) return wrong(field_, "is empty", ec);
    into->assign(text);
    return true;
  }

  template <typename Integer>
  bool integer(Integer value, Text text, Ec& ec) {
    if (in_data_ && depth_ == 2 && is_sequence_) to_.sequence_ = std::to_string(value);
    return number({text.data(), text.size()}, ec);
  }

  bool number(std::string_view text, Ec& ec) {
    if (in_data_) to_.rewriter_.number(text);
    if (depth_ != 1 || (field_ != Field::ts && field_ != Field::timestamp)) return other(ec);
    if (field_ == Field::timestamp && seen(Field::ts)) return true;
    // The parser's own conversion may be off by a unit in the last place.
    if (std::from_chars(text.data(), text.data() + text.size(), to_.envelope_.ts).ec != std::errc{})
      return wrong(field_, "is out of range", ec);
    return true;
  }

  // A value of a kind that no known key takes, or that the key has no place for.
  bool other(Ec& ec) {
    is_sequence_ = false;
    if (depth_ != 1 || field_ == Field::unknown) return true;
    switch (field_) {
      case Field::ts:
      case Field::timestamp: return wrong(field_, "is not a number", ec);
      case Field::data: return wrong(field_, "is not an object", ec);
      default: return wrong(field_, "is not a string", ec);
    }
  }

  bool wrong(Field field, std::string_view what, Ec& ec) {
    to_.fault_key_ = names[static_cast<std::size_t>(field)];
    to_.fault_ = what;
    ec = json::error::syntax;
    return false;
  }

  EnvelopeReader& to_;
  Field field_ = Field::unknown;  // of the outermost object's member
  unsigned seen_ = 0;
  std::size_t depth_ = 0;
  bool in_data_ = false;
  bool is_sequence_ = false;  // the value that comes is data.seq
};

bool EnvelopeReader::read(std::string_view text) {
  fault_ = fault_key_ = {};
  parser_fault_.clear();
  if (const auto first = text.find_first_not_of(" \t\r\n");
      first == std::string_view::npos || text[first] != '{') {
    fault_ = "it is not a JSON object";
    return false;
  }
  if (text.size() > Envelope::size_max) {
    fault_ = "it has more than 16777216 bytes";
    return false;
  }
  for (auto* const field : {&envelope_.id, &envelope_.type, &envelope_.source, &envelope_.data,
                            &envelope_.correlate, &envelope_.reply_to, &pieces_}) {
    field->clear();
  }
  envelope_.ts = 0;
  sequence_.reset();
  json::parse_options options;
  options.max_depth = Envelope::depth_max;
  json::basic_parser<Handler> parser(options, *this);
  json::error_code ec;
  const auto used = parser.write_some(false, text.data(), text.size(), ec);
  if (!ec && used != text.size()) ec = json::error::extra_data;
  if (ec && fault_.empty()) parser_fault_ = ec.message();
  return !ec;
}

Error EnvelopeReader::error() const {
  std::string text = "not an envelope: ";
  if (!parser_fault_.empty()) {
    text += "it is not valid JSON of at most 64 levels: " + parser_fault_;
  } else {
    if (!fault_key_.empty()) text += "\"" + std::string(fault_key_) + "\" ";
    text += fault_;
  }
  return {Errc::invalid_envelope, std::move(text), std::nullopt};
}

double seconds_of(WallTime time) {
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(time.time_since_epoch());
  return static_cast<double>(us.count()) / 1e6;
}

Result<std::string> write_envelope(const EnvelopeParts& parts) {
  const auto bad = [](std::string_view field, std::string_view what) {
    return fail(Errc::invalid_envelope,
                "cannot write an envelope: `" + std::string(field) + "` " + std::string(what));
  };
  if (parts.id.empty()) return bad("id", "is empty");
  if (parts.type.empty()) return bad("type", "is empty");
  if (!std::isfinite(parts.ts)) return bad("ts", "is not a finite number of seconds");
  const std::array<std::pair<std::string_view, std::string_view>, 5> texts{{{"id", parts.id},
                                                                            {"type", parts.type},
                                                                            {"source", parts.source},
                                                                            {"correlate", parts.correlate},
                                                                            {"reply_to", parts.reply_to}}};
  std::size_t size = parts.data.size() + 100;
  for (const auto& [name, text] : texts) {
    if (!mqtt::is_valid_utf8(text)) return bad(name, "is not valid UTF-8 without U+0000");
    size += text.size();
  }
  std::string out;
  out.reserve(size);
  out += "{\"id\":";
  append_json_text(out, parts.id);
  out += ",\"type\":";
  append_json_text(out, parts.type);
  out += ",\"ts\":";
  append_json_seconds(out, parts.ts);
  out += ",\"source\":";
  append_json_text(out, parts.source);
  out += ",\"data\":";
  if (const auto wrong = rewrite_json_object(parts.data, JsonStyle::compact, Envelope::depth_max - 1, out))
    return bad("data", *wrong);
  if (!parts.correlate.empty()) {
    out += ",\"correlate\":";
    append_json_text(out, parts.correlate);
  }
  if (!parts.reply_to.empty()) {
    out += ",\"reply_to\":";
    append_json_text(out, parts.reply_to);
  }
  out += '}';
  if (out.size() > Envelope::size_max) {
    return fail(Errc::invalid_envelope, "cannot write an envelope: it has " + std::to_string(out.size()) +
                                            " bytes; at most " + std::to_string(Envelope::size_max) +
                                            " may be");
  }
  return out;
}

std::string with_member(std::string_view json, std::string_view name, std::string_view text) {
  const auto inside = json.find('{') + 1;
  std::string out;
  out.reserve(json.size() + name.size() + text.size() + 8);
  out += json.substr(0, inside);
  append_json_text(out, name);
  out += ':';
  append_json_text(out, text);
  out += ',';
  out += json.substr(inside);
  return out;
}

Result<Envelope> Envelope::parse(std::string_view text) {
  EnvelopeReader reader(JsonStyle::compact);
  if (!reader.read(text)) return std::unexpected(reader.error());
  return std::move(reader.envelope());
}

Result<std::string> Envelope::to_json() const {
  return write_envelope({id, type, ts, source, data, correlate, reply_to});
}

}  // namespace fulmar
