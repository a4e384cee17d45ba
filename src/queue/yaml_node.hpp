#pragma once
// YamlNode: a piece of a YAML or JSON text, with where it stood; made from either, written as either. Numbers keep their
// digits and maps their order, so that what goes through comes out as it was.
//
// Scalars mean what YAML 1.2 says (core schema), where JSON can say it too: 007 is a text, .inf is an error. Written texts
// are plain where no reader of YAML 1.1 or 1.2 takes them for something else, and quoted where one might.
//
// Thread-safety: plain values and pure functions. Errors are exceptions (Malformed) within the room; item_files.hpp turns
// them into values.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "fulmar/result.hpp"

namespace fulmar::queue {

struct YamlNode {
  enum class Kind : std::uint8_t { null, scalar, sequence, map };

  Kind kind = Kind::null;
  bool quoted = false;               // of a scalar: a text, whatever it looks like
  std::uint32_t line = 0;            // from 1; 0 = nowhere
  std::uint32_t column = 0;          // from 1; 0 = not known
  std::string text{};                // of a scalar
  std::string tag{};                 // one of the user's own; empty = none
  std::vector<YamlNode> children{};  // of a sequence; of a map, key and value in turn

  const YamlNode* find(std::string_view key) const;  // in a map
};

struct Malformed {
  std::uint32_t line = 0, column = 0;
  std::string message{};
  Errc code = Errc::invalid_item;
};

inline constexpr std::size_t yaml_depth_max =
    80;  // of a whole document: 64 of a payload, and what is around it

// Reads one document; an empty text is `null`. When the top is a list, or a map with a list under one of `streamed`, each
// element of that list goes to `element` as soon as it is complete and the list is left empty.
// Throws Malformed, also for: duplicate keys, keys that are no scalars, control characters and bytes that are no UTF-8, more
// than one document, aliases that blow up, nesting beyond yaml_depth_max. What `element` throws comes through.
YamlNode parse_yaml(std::string_view text, const std::vector<std::string_view>& streamed = {},
                    const std::function<void(YamlNode&&)>& element = {});
// One value, and white space around it. Of keys that occur twice the last one counts. `line` is where it stands.
YamlNode parse_json(std::string_view text, std::uint32_t line = 1);

enum class JsonForm : std::uint8_t {
  spaced,
  compact
};  // {"a": 1, "b": 2}; compact is never longer than what was parsed
// Throws Malformed (.nan, a tag).
void append_json(std::string& out, const YamlNode& node, JsonForm form = JsonForm::spaced);
void append_json_string(std::string& out, std::string_view text);  // with its quotes
void append_yaml(std::string& out, const YamlNode& node);          // in flow style, on one line
void append_yaml_string(std::string& out, std::string_view text);  // plain or quoted, on one line

// What a plain scalar means.
enum class Meaning : std::uint8_t { null, boolean, number, text };
Meaning meaning_of(const YamlNode& scalar);

}  // namespace fulmar::queue
