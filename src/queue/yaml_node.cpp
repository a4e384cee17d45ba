#include "queue/yaml_node.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <istream>
#include <map>
#include <streambuf>
#include <unordered_set>
#include <utility>

#include <boost/json/basic_parser_impl.hpp>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

namespace fulmar::queue {
namespace {

using Kind = YamlNode::Kind;

// What anchors may be worth: the nodes and bytes that a document's aliases stand for.
constexpr std::size_t alias_nodes_max = 1'000'000;
constexpr std::size_t alias_bytes_max = std::size_t{64} << 20;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// --- bytes ------------------------------------------------------------------------------------------------------------

// The length of the character of UTF-8 that begins there; 0 when there is none.
std::size_t character_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0xC2 ? 2 : 0;
  if (length == 0 || first > 0xF4 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  const bool overlong = (first == 0xE0 && byte(1) < 0xA0) || (first == 0xF0 && byte(1) < 0x90);
  const bool outside = (first == 0xED && byte(1) > 0x9F) || (first == 0xF4 && byte(1) > 0x8F);
  return overlong || outside ? 0 : length;
}

// The parser takes some control characters for the end of the text, and would drop what is behind them.
void check_bytes(std::string_view text) {
  std::uint32_t line = 1;
  std::size_t line_start = 0;
  for (std::size_t at = 0; at < text.size();) {
    const auto c = static_cast<unsigned char>(text[at]);
    const auto column = static_cast<std::uint32_t>(at - line_start + 1);
    if (c == '\n') {
      ++line;
      line_start = at + 1;
    } else if ((c < 0x20 && c != '\t' && c != '\r') || c == 0x7f) {
      constexpr std::string_view hex = "0123456789ABCDEF";
      throw Malformed{line, column,
                      std::string("a control character (0x") + hex[c >> 4] + hex[c & 15] +
                          ") stands there; remove it, or write it as \\x" + hex[c >> 4] + hex[c & 15] +
                          " in double quotes"};
    }
    const auto length = character_length(text.substr(at));
    if (length == 0) throw Malformed{line, column, "the text is not UTF-8; save it in that encoding"};
    at += length;
  }
}

// yaml-cpp makes one byte, not UTF-8, of the escapes \N (next line, U+0085) and \_ (no-break space, U+00A0).
std::string in_utf8(const std::string& text) {
  std::string out;
  const std::string_view view = text;
  for (std::size_t at = 0; at < view.size();) {
    const auto length = character_length(view.substr(at));
    if (length == 0) out += '\xC2';
    out += view.substr(at, std::max<std::size_t>(length, 1));
    at += std::max<std::size_t>(length, 1);
  }
  return out;
}

class ViewBuffer final : public std::streambuf {
 public:
  explicit ViewBuffer(std::string_view text) {
    char* begin = const_cast<char*>(text.data());  // never written: there is no overflow()
    setg(begin, begin, begin + text.size());
  }
};

// --- from YAML --------------------------------------------------------------------------------------------------------

class Builder final : public YAML::EventHandler {
 public:
  Builder(const std::vector<std::string_view>& streamed, const std::function<void(YamlNode&&)>& element)
      : streamed_(streamed), element_(element) {}

  YamlNode take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    complete(node(mark, Kind::null, ""), anchor);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) refuse(mark, "the alias stands inside of what it refers to; write it out");
    alias_nodes_ += found->second.nodes;
    alias_bytes_ += found->second.bytes;
    if (alias_nodes_ > alias_nodes_max || alias_bytes_ > alias_bytes_max) {
      refuse(mark, "the aliases of this document stand for too much; write out what is meant");
    }
    if (open_.size() + found->second.depth > yaml_depth_max) too_deep(mark);
    if (!open_.empty()) open_.back().weight += found->second;
    place(YamlNode(found->second.node));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    auto scalar = node(mark, Kind::scalar, tag);
    scalar.text = in_utf8(value);
    scalar.quoted = tag == "!" || tag == "tag:yaml.org,2002:str";
    complete(std::move(scalar), anchor);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, Kind::sequence, tag, anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, Kind::map, tag, anchor);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Weight {
    std::size_t nodes = 0, bytes = 0, depth = 0;
    Weight& operator+=(const Weight& inner) {
      nodes += inner.nodes;
      bytes += inner.bytes;
      depth = std::max(depth, inner.depth + 1);
      return *this;
    }
  };
  struct Anchored : Weight {
    YamlNode node{};
  };
  struct Open {
    YamlNode node{};
    YAML::anchor_t anchor{};
    bool streamed = false;
    Weight weight{1, 0, 1};
    std::unordered_set<std::string> keys{};  // of a map that has many
  };

  [[noreturn]] static void refuse(const YAML::Mark& mark, std::string message) {
    throw Malformed{static_cast<std::uint32_t>(mark.line + 1), static_cast<std::uint32_t>(mark.column + 1),
                    std::move(message)};
  }
  [[noreturn]] static void too_deep(const YAML::Mark& mark) {
    refuse(mark, "nested more than " + std::to_string(yaml_depth_max) + " levels deep; make it flatter");
  }

  static YamlNode node(const YAML::Mark& mark, Kind kind, const std::string& tag) {
    YamlNode made;
    made.kind = kind;
    made.line = static_cast<std::uint32_t>(mark.line + 1);
    made.column = static_cast<std::uint32_t>(mark.column + 1);
    if (tag.size() > 1 && !tag.starts_with("tag:yaml.org,2002:")) made.tag = tag;
    return made;
  }

  bool is_streamed() const {
    if (!element_) return false;
    if (open_.empty()) return true;
    const auto& top = open_.front().node;
    return open_.size() == 1 && top.kind == Kind::map && top.children.size() % 2 == 1 &&
           std::ranges::find(streamed_, top.children.back().text) != streamed_.end();
  }

  void open(const YAML::Mark& mark, Kind kind, const std::string& tag, YAML::anchor_t anchor) {
    if (open_.size() >= yaml_depth_max) too_deep(mark);
    check_key_place(mark);
    Open opened;
    opened.node = node(mark, kind, tag);
    opened.anchor = anchor;
    opened.streamed = kind == Kind::sequence && is_streamed();
    open_.push_back(std::move(opened));
  }

  void close() {
    Open closed = std::move(open_.back());
    open_.pop_back();
    if (!open_.empty()) open_.back().weight += closed.weight;
    if (closed.anchor) anchors_[closed.anchor] = Anchored{closed.weight, closed.node};
    place(std::move(closed.node));
  }

  void complete(YamlNode&& leaf, YAML::anchor_t anchor) {
    const Weight weight{1, leaf.text.size(), 1};
    if (!open_.empty()) open_.back().weight += weight;
    if (anchor) anchors_[anchor] = Anchored{weight, leaf};
    place(std::move(leaf));
  }

  // A container cannot be a key.
  void check_key_place(const YAML::Mark& mark) const {
    if (open_.empty()) return;
    const auto& parent = open_.back().node;
    if (parent.kind == Kind::map && parent.children.size() % 2 == 0)
      refuse(mark, "a key has to be a text, not a list or a map");
  }

  void place(YamlNode&& complete) {
    if (open_.empty()) {
      root_ = std::move(complete);
      return;
    }
    auto& parent = open_.back();
    if (parent.streamed) return element_(std::move(complete));
    if (parent.node.kind == Kind::map && parent.node.children.size() % 2 == 0) check_key(parent, complete);
    parent.node.children.push_back(std::move(complete));
  }

  static void check_key(Open& parent, YamlNode& key) {
    if (key.kind == Kind::null) {
      key.kind = Kind::scalar;  // `null:` and `~:` are names like others in JSON
      if (key.text.empty()) key.text = "null";
    }
    if (key.kind != Kind::scalar)
      throw Malformed{key.line, key.column, "a key has to be a text, not a list or a map"};
    const auto& children = parent.node.children;
    constexpr std::size_t few = 32;
    bool twice = false;
    if (children.size() < few) {
      for (std::size_t i = 0; i < children.size() && !twice; i += 2) twice = children[i].text == key.text;
    } else {
      if (parent.keys.empty()) {
        for (std::size_t i = 0; i < children.size(); i += 2) parent.keys.insert(children[i].text);
      }
      twice = !parent.keys.insert(key.text).second;
    }
    if (twice) {
      throw Malformed{
          key.line, key.column,
          "the key \"" + key.text.substr(0, 60) + "\" is there a second time; remove one of them"};
    }
  }

  const std::vector<std::string_view>& streamed_;
  const std::function<void(YamlNode&&)>& element_;
  std::vector<Open> open_{};
  std::map<YAML::anchor_t, Anchored> anchors_{};
  std::size_t alias_nodes_ = 0, alias_bytes_ = 0;
  YamlNode root_{};
};

// --- from JSON --------------------------------------------------------------------------------------------------------

// Takes the parser's events.
struct JsonBuilder {
  static constexpr std::size_t max_object_size = static_cast<std::size_t>(-1);
  static constexpr std::size_t max_array_size = static_cast<std::size_t>(-1);
  static constexpr std::size_t max_key_size = static_cast<std::size_t>(-1);
  static constexpr std::size_t max_string_size = static_cast<std::size_t>(-1);
  using Code = boost::json::error_code;
  using View = boost::json::string_view;

  std::uint32_t line = 1;
  std::vector<YamlNode> open{};
  std::string part{};
  YamlNode root{};

  bool on_document_begin(Code&) { return true; }
  bool on_document_end(Code&) { return true; }
  bool on_object_begin(Code&) { return begin(Kind::map); }
  bool on_object_end(std::size_t, Code&) {
    keep_last_of_each_key(open.back());
    return end();
  }
  bool on_array_begin(Code&) { return begin(Kind::sequence); }
  bool on_array_end(std::size_t, Code&) { return end(); }
  bool on_key_part(View text, std::size_t, Code&) { return more(text); }
  bool on_key(View text, std::size_t, Code&) { return scalar(text, true); }
  bool on_string_part(View text, std::size_t, Code&) { return more(text); }
  bool on_string(View text, std::size_t, Code&) { return scalar(text, true); }
  bool on_number_part(View text, Code&) { return more(text); }
  bool on_int64(std::int64_t, View text, Code&) { return scalar(text, false); }
  bool on_uint64(std::uint64_t, View text, Code&) { return scalar(text, false); }
  bool on_double(double, View text, Code&) { return scalar(text, false); }
  bool on_bool(bool value, Code&) { return scalar(value ? "true" : "false", false); }
  bool on_null(Code&) { return place(node(Kind::null)); }
  bool on_comment_part(View, Code&) { return true; }
  bool on_comment(View, Code&) { return true; }

 private:
  YamlNode node(Kind kind) const {
    YamlNode made;
    made.kind = kind;
    made.line = line;
    return made;
  }
  bool more(View text) {
    part.append(text.data(), text.size());
    return true;
  }
  bool scalar(View text, bool quoted) {
    auto made = node(Kind::scalar);
    made.text = std::exchange(part, {});
    made.text.append(text.data(), text.size());
    made.quoted = quoted;
    return place(std::move(made));
  }
  bool begin(Kind kind) {
    open.push_back(node(kind));
    return true;
  }
  bool end() {
    auto closed = std::move(open.back());
    open.pop_back();
    return place(std::move(closed));
  }
  bool place(YamlNode&& complete) {
    (open.empty() ? root : open.back().children.emplace_back()) = std::move(complete);
    return true;
  }
  static void keep_last_of_each_key(YamlNode& map) {
    auto& children = map.children;
    std::unordered_set<std::string_view> seen;
    std::vector<bool> keep(children.size() / 2);
    for (std::size_t i = children.size() / 2; i-- > 0;) keep[i] = seen.insert(children[2 * i].text).second;
    if (seen.size() == keep.size()) return;
    std::vector<YamlNode> kept;
    for (std::size_t i = 0; i < keep.size(); ++i) {
      if (!keep[i]) continue;
      kept.push_back(std::move(children[2 * i]));
      kept.push_back(std::move(children[2 * i + 1]));
    }
    children = std::move(kept);
  }
};

// --- what scalars mean ------------------------------------------------------------------------------------------------

bool take_digits(std::string_view& text) {
  const auto end = std::ranges::find_if_not(text, is_digit) - text.begin();
  text.remove_prefix(static_cast<std::size_t>(end));
  return end > 0;
}

// [-+]?(.digits | digits[.digits*])([eE][-+]?digits)?, without leading zeros, which are those of texts.
bool is_decimal(std::string_view text) {
  if (text.starts_with('-') || text.starts_with('+')) text.remove_prefix(1);
  if (text.size() > 1 && text[0] == '0' && is_digit(text[1])) return false;
  const bool whole = take_digits(text);
  bool fraction = false;
  if (text.starts_with('.')) {
    text.remove_prefix(1);
    fraction = take_digits(text);
  }
  if (!whole && !fraction) return false;
  if (text.starts_with('e') || text.starts_with('E')) {
    text.remove_prefix(1);
    if (text.starts_with('-') || text.starts_with('+')) text.remove_prefix(1);
    if (!take_digits(text)) return false;
  }
  return text.empty();
}

// 0x1F, 0o17
bool is_based(std::string_view text) {
  if (text.size() < 3 || text[0] != '0') return false;
  const auto digits = text.substr(2);
  if (text[1] == 'x') return digits.find_first_not_of("0123456789abcdefABCDEF") == std::string_view::npos;
  return text[1] == 'o' && digits.find_first_not_of("01234567") == std::string_view::npos;
}

bool is_one_of(std::string_view text, std::initializer_list<std::string_view> words) {
  return std::ranges::find(words, text) != words.end();
}

bool is_infinite(std::string_view text) {
  if (text.starts_with('-') || text.starts_with('+')) text.remove_prefix(1);
  return is_one_of(text, {".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN"});
}

// A number as JSON writes it.
void append_json_number(std::string& out, const YamlNode& node) {
  std::string_view text = node.text;
  if (is_based(text)) {
    std::uint64_t value = 0;
    const auto [end, error] =
        std::from_chars(text.data() + 2, text.data() + text.size(), value, text[1] == 'x' ? 16 : 8);
    if (error != std::errc{}) {
      throw Malformed{node.line, node.column,
                      "the number " + node.text.substr(0, 40) + " is too large; put it in quotes"};
    }
    out += std::to_string(value);
    return;
  }
  if (text.starts_with('+')) text.remove_prefix(1);
  if (text.starts_with('-')) {
    out += '-';
    text.remove_prefix(1);
  }
  if (const auto e = text.find_first_of("eE");
      e != std::string_view::npos) {  // 1.0e+5 is 1e5: see append_yaml_number()
    auto digits = text.substr(0, e);
    auto exponent = text.substr(e + 1);
    if (exponent.starts_with('+')) exponent.remove_prefix(1);
    if (digits.ends_with(".0")) digits.remove_suffix(2);
    if (digits.ends_with('.')) digits.remove_suffix(1);
    if (digits.starts_with('.') || digits.empty()) out += '0';
    out.append(digits).append("e").append(exponent);
    return;
  }
  if (text.starts_with('.')) out += '0';
  const auto point = text.find('.');
  const bool bare =
      point != std::string_view::npos && (point + 1 == text.size() || !is_digit(text[point + 1]));
  if (!bare) {
    out += text;
  } else {  // 5. and 5.e3
    out += text.substr(0, point + 1);
    out += '0';
    out += text.substr(point + 1);
  }
}

// Readers of YAML 1.1 take a number with an exponent for a text, unless it has a point and its exponent a sign.
void append_yaml_number(std::string& out, std::string_view text) {
  const auto e = is_based(text) || is_infinite(text) ? std::string_view::npos : text.find_first_of("eE");
  out += text.substr(0, e);
  if (e == std::string_view::npos) return;
  if (!text.contains('.')) out += ".0";
  out += 'e';
  if (is_digit(text[e + 1])) out += '+';
  out += text.substr(e + 1);
}

// --- writing texts ----------------------------------------------------------------------------------------------------

// May some reader of YAML take this text, when it is plain, for something else than itself?
bool needs_quotes(std::string_view text) {
  if (text.empty() || text.size() > 200) return true;
  const auto plain_first = [](unsigned char c) {
    return is_digit(static_cast<char>(c)) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           c == '/' || c >= 0x80;
  };
  if (!plain_first(static_cast<unsigned char>(text[0])) || text.back() == ' ') return true;
  for (std::size_t i = 1; i < text.size(); ++i) {
    const char c = text[i];
    if (!plain_first(static_cast<unsigned char>(c)) && !std::string_view(".@+- ").contains(c)) return true;
  }
  if (is_digit(text[0])) {  // numbers and dates, of any reader
    if (text.find_first_not_of("0123456789eE.+-_") == std::string_view::npos) return true;
    if (text[0] == '0' && text.size() > 1 && std::string_view("xXoObB").contains(text[1])) return true;
    if (text.size() >= 10 && text[4] == '-') return true;
  }
  if (text.size() > 5) return false;
  std::string word(text);
  std::ranges::transform(word, word.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return is_one_of(word, {"null", "true", "false", "yes", "no", "on", "off", "y", "n"});
}

// A text that stood there plain, that some readers take for something else (a date, `yes`), and that may stand plain again.
bool was_plain(const YamlNode& scalar) {
  const std::string_view text = scalar.text;
  if (scalar.quoted || text.empty() || text.size() > 200 || text.back() == ' ' || text.back() == ':')
    return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool word = is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!word && (i == 0 || !std::string_view("_.+-: ").contains(c))) return false;
    if (c == ':' && text[i + 1] == ' ') return false;
  }
  return true;
}

// Has to be written as an escape: control characters, line ends of Unicode, the byte order mark.
bool needs_escapes(std::string_view text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c < 0x20 || c == 0x7f) return true;
    if (c < 0xC2) continue;
    const auto rest = text.substr(i);
    if (c == 0xC2 && rest.size() > 1 && static_cast<unsigned char>(rest[1]) < 0xA0) return true;
    if (rest.starts_with("\xE2\x80\xA8") || rest.starts_with("\xE2\x80\xA9") ||
        rest.starts_with("\xEF\xBB\xBF") || rest.starts_with("\xEF\xBF\xBE") ||
        rest.starts_with("\xEF\xBF\xBF")) {
      return true;
    }
  }
  return false;
}

// As JSON, which YAML's double quotes understand; `all`: with the escapes that only YAML asks for.
void append_quoted(std::string& out, std::string_view text, bool all) {
  constexpr std::string_view hex = "0123456789abcdef";
  const auto escape = [&](unsigned code) {
    out += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) out += hex[code >> shift & 15];
  };
  out += '"';
  for (std::size_t i = 0; i < text.size();) {
    const char c = text[i];
    const auto byte = static_cast<unsigned char>(c);
    const auto length = std::max<std::size_t>(character_length(text.substr(i)), 1);
    const auto character = text.substr(i, length);
    i += length;
    if (c == '"' || c == '\\') {
      (out += '\\') += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\b') {
      out += "\\b";
    } else if (c == '\f') {
      out += "\\f";
    } else if (byte < 0x20 || (all && byte == 0x7f)) {
      escape(byte);
    } else if (all && length > 1 && needs_escapes(character)) {
      const auto low = [&](std::size_t at) { return static_cast<unsigned>(character[at]) & 0x3F; };
      escape(length == 2 ? (byte & 0x1Fu) << 6 | low(1) : (byte & 0x0Fu) << 12 | low(1) << 6 | low(2));
    } else {
      out += character;
    }
  }
  out += '"';
}

constexpr std::size_t simple_key_max = 500;  // bytes; YAML's own bound is 1024 characters

}  // namespace

const YamlNode* YamlNode::find(std::string_view key) const {
  for (std::size_t i = 0; i + 1 < children.size(); i += 2) {
    if (children[i].text == key) return &children[i + 1];
  }
  return nullptr;
}

YamlNode parse_yaml(std::string_view text, const std::vector<std::string_view>& streamed,
                    const std::function<void(YamlNode&&)>& element) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  check_bytes(text);
  ViewBuffer buffer(text);
  std::istream stream(&buffer);
  try {
    YAML::Parser parser(stream);
    Builder builder(streamed, element);
    parser.HandleNextDocument(builder);
    YamlNode root = builder.take();
    const std::vector<std::string_view> nowhere;
    const std::function<void(YamlNode&&)> nobody;
    Builder further(nowhere, nobody);
    // What belongs to nothing is an empty document to the parser, again and again at the same place.
    auto line = root.line, column = root.column;
    while (parser.HandleNextDocument(further)) {
      const auto more = further.take();
      if (more.kind != Kind::null) {
        throw Malformed{more.line, more.column,
                        "a second document begins there; put each into a file of its own"};
      }
      if (more.line == line && more.column == column)
        throw Malformed{line, column, "this is not YAML: what stands there belongs to nothing"};
      line = more.line;
      column = more.column;
    }
    return root;
  } catch (const YAML::Exception& error) {
    throw Malformed{static_cast<std::uint32_t>(error.mark.line + 1),
                    static_cast<std::uint32_t>(error.mark.column + 1), "this is not YAML: " + error.msg};
  }
}

YamlNode parse_json(std::string_view text, std::uint32_t line) {
  boost::json::parse_options options;
  options.max_depth = yaml_depth_max;
  boost::json::basic_parser<JsonBuilder> parser(options);
  parser.handler().line = line;
  boost::json::error_code error;
  const auto used = parser.write_some(false, text.data(), text.size(), error);
  const auto rest = text.substr(used).find_first_not_of(" \t\r\n");
  if (error || rest != std::string_view::npos) {
    const auto column = static_cast<std::uint32_t>(used + (error ? 0 : rest) + 1);
    throw Malformed{line, column,
                    "this is not JSON: " + (error ? error.message() : "there is more behind it")};
  }
  return std::move(parser.handler().root);
}

Meaning meaning_of(const YamlNode& scalar) {
  if (scalar.kind == Kind::null) return Meaning::null;
  if (scalar.quoted) return Meaning::text;
  const std::string_view text = scalar.text;
  if (text.empty() || is_one_of(text, {"~", "null", "Null", "NULL"})) return Meaning::null;
  if (is_one_of(text, {"true", "True", "TRUE", "false", "False", "FALSE"})) return Meaning::boolean;
  if (is_decimal(text) || is_based(text) || is_infinite(text)) return Meaning::number;
  return Meaning::text;
}

void append_json_string(std::string& out, std::string_view text) { append_quoted(out, text, false); }

void append_json(std::string& out, const YamlNode& node, JsonForm form) {
  const bool spaces = form == JsonForm::spaced;
  if (!node.tag.empty()) {
    throw Malformed{
        node.line, node.column,
        "a value with the tag \"" + node.tag.substr(0, 60) + "\" says nothing in JSON; remove the tag"};
  }
  const auto& children = node.children;
  switch (node.kind) {
    case Kind::sequence:
      out += '[';
      for (std::size_t i = 0; i < children.size(); ++i) {
        if (i > 0) out += spaces ? ", " : ",";
        append_json(out, children[i], form);
      }
      out += ']';
      return;
    case Kind::map:
      out += '{';
      for (std::size_t i = 0; i + 1 < children.size(); i += 2) {
        if (i > 0) out += spaces ? ", " : ",";
        append_json_string(out, children[i].text);
        out += spaces ? ": " : ":";
        append_json(out, children[i + 1], form);
      }
      out += '}';
      return;
    case Kind::null:
    case Kind::scalar: break;
  }
  switch (meaning_of(node)) {
    case Meaning::null: out += "null"; return;
    case Meaning::boolean: out += node.text[0] == 't' || node.text[0] == 'T' ? "true" : "false"; return;
    case Meaning::text: append_json_string(out, node.text); return;
    case Meaning::number: break;
  }
  if (is_infinite(node.text)) {
    throw Malformed{node.line, node.column,
                    node.text + " is a number that JSON does not have; put it in quotes or leave it out"};
  }
  append_json_number(out, node);
}

void append_yaml_string(std::string& out, std::string_view text) {
  if (needs_escapes(text)) return append_quoted(out, text, true);
  if (!needs_quotes(text)) {
    out += text;
    return;
  }
  out += '\'';
  for (const char c : text) {
    out += c;
    if (c == '\'') out += c;
  }
  out += '\'';
}

void append_yaml(std::string& out, const YamlNode& node) {
  if (!node.tag.empty()) {
    if (node.tag.starts_with("!")) {
      out += node.tag;
    } else {
      ((out += "!<") += node.tag) += '>';
    }
    out += ' ';
  }
  const auto& children = node.children;
  switch (node.kind) {
    case Kind::null: out += "null"; return;
    case Kind::scalar:
      if (meaning_of(node) == Meaning::text && !was_plain(node)) {
        append_yaml_string(out, node.text);
      } else if (meaning_of(node) == Meaning::number) {
        append_yaml_number(out, node.text);
      } else {
        out += node.text.empty() ? "null" : node.text;
      }
      return;
    case Kind::sequence:
      out += '[';
      for (std::size_t i = 0; i < children.size(); ++i) {
        if (i > 0) out += ", ";
        append_yaml(out, children[i]);
      }
      out += ']';
      return;
    case Kind::map: break;
  }
  out += '{';
  for (std::size_t i = 0; i + 1 < children.size(); i += 2) {
    if (i > 0) out += ", ";
    if (children[i].text.size() > simple_key_max) out += "? ";
    append_yaml_string(out, children[i].text);
    out += ": ";
    append_yaml(out, children[i + 1]);
  }
  out += '}';
}

}  // namespace fulmar::queue
