// Reading items: what a document or a line says becomes items, or an error that says where and what to do.
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <unordered_map>
#include <utility>

#include "queue/item_files.hpp"
#include "queue/model.hpp"
#include "queue/yaml_node.hpp"

namespace fulmar::queue {
namespace {

using Kind = YamlNode::Kind;

constexpr std::size_t file_bytes_max = std::size_t{1} << 30;
constexpr std::size_t notes_max = 32;

// The sink's error, on its way through the parser.
struct SinkStopped {
  Error error;
};

[[noreturn]] void refuse(const YamlNode& at, std::string message) {
  throw Malformed{at.line, at.column, std::move(message)};
}

std::string in_quotes(std::string_view text) {
  std::string out = "\"";
  for (const char c : text.substr(0, 40)) out += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
  return out + (text.size() > 40 ? "...\"" : "\"");
}

bool is_null(const YamlNode& node) {
  return node.kind == Kind::null || (node.kind == Kind::scalar && meaning_of(node) == Meaning::null);
}

std::string text_of(std::string_view key, const YamlNode& node) {
  if (is_null(node)) return {};
  if (node.kind != Kind::scalar) refuse(node, std::string(key) + " has to be a text, not a list or a map");
  return node.text;
}

template <typename Number>
Number number_of(std::string_view key, const YamlNode& node, Number otherwise) {
  if (is_null(node)) return otherwise;
  Number value{};
  const char* end = node.text.data() + node.text.size();
  if (node.kind == Kind::scalar) {
    const auto [stop, error] = std::from_chars(node.text.data(), end, value);
    if (error == std::errc{} && stop == end) return value;
  }
  refuse(node, std::string(key) + " " + in_quotes(node.text) +
                   " is not a whole number of its range; write one, as in " + std::string(key) + ": 3");
}

bool flag_of(std::string_view key, const YamlNode& node) {
  if (is_null(node)) return false;
  if (node.kind == Kind::scalar && meaning_of(node) == Meaning::boolean)
    return node.text[0] == 't' || node.text[0] == 'T';
  refuse(node, std::string(key) + " has to be true or false, not " + in_quotes(node.text));
}

std::optional<double> decimal_of(const YamlNode& node) {
  if (node.kind != Kind::scalar || meaning_of(node) != Meaning::number) return std::nullopt;
  double value = 0;
  const char* end = node.text.data() + node.text.size();
  const auto [stop, error] = std::from_chars(node.text.data(), end, value);
  if (error != std::errc{} || stop != end || !std::isfinite(value)) return std::nullopt;
  return value;
}

std::optional<Duration> seconds_of(std::string_view key, const YamlNode& node) {
  if (is_null(node)) return std::nullopt;
  const auto value = decimal_of(node);
  if (!value || *value < 0 || *value > 1e10) {
    refuse(node, std::string(key) + " " + in_quotes(node.text) +
                     " is not a number of seconds; write one, as in " + std::string(key) + ": 60");
  }
  return Duration(std::llround(*value * 1e6));
}

// --- times ------------------------------------------------------------------------------------------------------------

bool has_offset(std::string_view text) {
  if (text.size() <= 10) return false;
  return text.substr(10).find_first_of("Zz+-") != std::string_view::npos;
}

// What the clock on the wall showed, in this process's time zone.
Time local_time(Time shown) {
  const auto second = std::chrono::floor<std::chrono::seconds>(shown);
  const time_t count = second.time_since_epoch().count();
  tm fields{};
  gmtime_r(&count, &fields);
  fields.tm_isdst = -1;
  return Time(std::chrono::seconds(::mktime(&fields))) + (shown - second);
}

// --- the version ------------------------------------------------------------------------------------------------------

// A later version of the format says its number in a line of its own. It is looked for in the text, since what else is there
// may be of a kind that is not known here.
constexpr std::uint32_t yaml_schema = 1;

void check_schema(std::string_view text) {
  constexpr std::string_view key = "fulmar_schema:";
  std::size_t at = 0;
  while (!text.substr(at).starts_with(key)) {
    at = text.find('\n', at);
    if (at++ == std::string_view::npos) return;
  }
  const auto value = text.substr(at + key.size());
  const auto digits = value.substr(std::min(value.find_first_not_of(' '), value.size()));
  std::uint32_t found = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), found);
  if (error == std::errc{} && found <= yaml_schema) return;
  throw Malformed{static_cast<std::uint32_t>(1 + std::ranges::count(text.substr(0, at), '\n')), 1,
                  "this was written by a newer Fulmar (schema " +
                      (error == std::errc{} ? std::to_string(found) : std::string("unknown")) +
                      ", known here is " + std::to_string(yaml_schema) +
                      "); nothing was changed: update this program",
                  Errc::incompatible};
}

// --- items ------------------------------------------------------------------------------------------------------------

class Reader {
 public:
  Reader(std::string_view name, const ReadOptions& options, const ItemSink& sink)
      : name_(name), options_(options), sink_(sink) {
    using std::chrono::system_clock;
    now_ = options.now ? *options.now : std::chrono::floor<Duration>(system_clock::now());
  }

  Result<ReadSummary> yaml(std::string_view text) {
    return guarded([&] {
      check_schema(text);
      read_comment(text);
      const auto root =
          parse_yaml(text, {"items", "tasks", "queue"}, [&](YamlNode&& node) { item(node, {}); });
      if (root.kind == Kind::map) {
        document(root, summary_.head, true);
      } else if (root.kind == Kind::scalar && !is_null(root)) {
        refuse(root, "this is one text, not a queue; it has to look like \"name: tasks\" and \"items: []\"");
      }
    });
  }

  Result<ReadSummary> json_lines(std::string_view text) {
    return guarded([&] {
      if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
      for (std::uint32_t line = 1; !text.empty(); ++line) {
        const auto end = text.find('\n');
        const auto one = text.substr(0, end);
        text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
        if (one.find_first_not_of(" \t\r") == std::string_view::npos) continue;
        try {
          item(parse_json(one, line), {});
        } catch (Malformed& error) {
          if (error.message.starts_with("this is not JSON"))
            error.message += "; each line has to be one whole object";
          throw;
        }
      }
    });
  }

 private:
  template <typename Read>
  Result<ReadSummary> guarded(Read&& read) {
    try {
      read();
      return std::move(summary_);
    } catch (const Malformed& error) {
      std::string where(name_);
      if (error.line > 0) where += ":" + std::to_string(error.line);
      if (error.line > 0 && error.column > 0) where += ":" + std::to_string(error.column);
      return fail(error.code, where + ": " + error.message);
    } catch (SinkStopped& stopped) {
      return std::unexpected(std::move(stopped.error));
    }
  }

  void note(std::string text) {
    converted_ = true;
    auto& notes = summary_.notes;
    if (notes.size() < notes_max && std::ranges::find(notes, text) == notes.end())
      notes.push_back(std::move(text));
  }

  // Lines of comment before everything stay; others are lost with the rest of the form.
  void read_comment(std::string_view text) {
    if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
    while (text.starts_with('#') || text.starts_with('\n') || text.starts_with("\r\n")) {
      const auto end = text.find('\n');
      auto line = text.substr(0, end);
      text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
      while (line.ends_with('\r')) line.remove_suffix(1);
      if (line.contains('\r')) break;  // an end of a line too
      summary_.head.comment.append(line) += '\n';
    }
    if (summary_.head.comment.find('#') == std::string::npos) summary_.head.comment.clear();
  }

  std::optional<Time> time_of(std::string_view key, const YamlNode& node) {
    if (is_null(node)) return std::nullopt;
    if (const auto seconds = decimal_of(node)) {
      if (*seconds >= 1e8 && *seconds < 1e11) {
        note("times as seconds since 1970 are now written out");
        return Time(Duration(std::llround(*seconds * 1e6)));
      }
    } else if (node.kind == Kind::scalar) {
      if (const auto time = parse_time(node.text)) {
        if (has_offset(node.text)) return time;
        note(options_.local_times ? "times without an offset were read as local time"
                                  : "times without an offset were read as UTC");
        return options_.local_times ? local_time(*time) : *time;
      }
    }
    refuse(node, std::string(key) + " " + in_quotes(node.text) +
                     " is not a time; write it as '2026-02-06T10:00:00Z', or null");
  }

  // A JSON object, as text.
  static std::string object_of(std::string_view key, const YamlNode& node) {
    if (is_null(node)) return "{}";
    if (node.kind == Kind::scalar && is_json_object(node.text)) return node.text;
    if (node.kind != Kind::map) {
      refuse(node, std::string(key) + " has to be a map, as in " + std::string(key) + ": {name: value}");
    }
    return json_of(node, key == "payload" ? Limits::payload_bytes : Limits::metadata_bytes);
  }

  // With spaces, as people and most programs write it; without, where they would make it too large.
  static std::string json_of(const YamlNode& node, std::size_t bytes_max) {
    std::string text;
    append_json(text, node);
    if (text.size() <= bytes_max) return text;
    text.clear();
    append_json(text, node, JsonForm::compact);
    return text;
  }

  static void add_dependencies(std::string_view key, const YamlNode& node, std::vector<ItemId>& to) {
    const auto add = [&](const YamlNode& one) {
      auto id = text_of(key, one);
      if (id.empty()) refuse(one, std::string(key) + " names an empty id; remove it");
      if (std::ranges::find(to, id) == to.end()) to.push_back(std::move(id));
    };
    if (is_null(node)) return;
    if (node.kind == Kind::scalar) return add(node);
    if (node.kind == Kind::map)
      refuse(node, std::string(key) + " has to be a list of ids, as in " + std::string(key) + ": [a, b]");
    for (const auto& one : node.children) add(one);
  }

  void lease_of(const YamlNode& node, ItemText& text) {
    if (is_null(node)) return;
    if (node.kind != Kind::map) refuse(node, "lease has to be a map; remove it if it was written by hand");
    if (const auto* token = node.find("token"))
      text.lease_token = number_of<std::uint64_t>("token", *token, 0);
    if (const auto* request = node.find("request")) text.lease_request = text_of("request", *request);
  }

  Status status_of(const YamlNode& node) {
    const auto word = text_of("status", node);
    if (word.empty()) return Status::pending;
    const auto status = parse_status(word);
    if (!status) {
      refuse(node, "status " + in_quotes(word) +
                       " is none; it has to be pending, processing, completed, failed or cancelled");
    }
    if (word != to_string(*status)) note("status " + word + " is now " + std::string(to_string(*status)));
    return *status;
  }

  int priority_of(const YamlNode& node) {
    const auto word = text_of("priority", node);
    if (word.empty()) return 0;
    const auto priority = parse_priority(word);
    if (!priority) {
      refuse(node, "priority " + in_quotes(word) +
                       " is none; it has to be a whole number, higher first, or CRITICAL, HIGH, MEDIUM, LOW");
    }
    if ((word[0] < '0' || word[0] > '9') && word[0] != '-')
      note("priority " + word + " is now " + std::to_string(*priority));
    return *priority;
  }

  // True when the key was one that the model knows.
  bool known(const std::string& key, const YamlNode& value, ItemText& text, std::string& task_id) {
    Item& item = text.item;
    if (key == "id") return item.id = text_of(key, value), true;
    if (key == "task_id") return task_id = text_of(key, value), true;
    if (key == "queue") return item.queue = text_of(key, value), true;
    if (key == "payload") return item.payload = object_of(key, value), true;
    if (key == "metadata") return item.metadata = object_of(key, value), true;
    if (key == "status") return item.status = status_of(value), true;
    if (key == "priority") return item.priority = priority_of(value), true;
    if (key == "created_at") {
      if (const auto time = time_of(key, value)) item.created_at = *time;
      return true;
    }
    if (key == "scheduled_at") return item.scheduled_at = time_of(key, value), true;
    if (key == "started_at") return item.started_at = time_of(key, value), true;
    if (key == "completed_at") return item.completed_at = time_of(key, value), true;
    if (key == "lease_until") return item.lease_until = time_of(key, value), true;
    if (key == "lease_owner") return item.lease_owner = text_of(key, value), true;
    if (key == "lease") return lease_of(value, text), true;
    if (key == "retry_count") return item.retry_count = number_of<int>(key, value, 0), true;
    if (key == "max_retries") {
      text.max_retries_given = !is_null(value);
      return item.max_retries = number_of<int>(key, value, 3), true;
    }
    if (key == "error_message") return item.error_message = cut_error(text_of(key, value)), true;
    if (key == "unique_key") return item.unique_key = text_of(key, value), true;
    if (key == "type") {
      if (auto type = text_of(key, value); !type.empty()) item.type = std::move(type);
      return true;
    }
    if (key == "result") {
      if (!is_null(value)) item.result = json_of(value, Limits::result_bytes);
      return true;
    }
    if (key == "depends_on" || key == "blockedBy" || key == "blocked_by" || key == "dependencies") {
      if (key != "depends_on") note(key + " is now depends_on");
      return add_dependencies(key, value, item.depends_on), true;
    }
    return key == "waiting_for" || key == "dependency_failed";  // derived
  }

  void item(const YamlNode& node, const std::string& queue) {
    if (node.kind != Kind::map) {
      refuse(node, "an item has to be a map of keys and values, as in \"- id: a1\" and \"  payload: {}\"");
    }
    converted_ = false;
    ItemText text;
    text.line = node.line;
    text.max_retries_given = false;
    text.item.created_at = Time::min();
    std::string task_id;
    std::vector<const YamlNode*> unknown;
    bool has_payload = false;
    for (std::size_t i = 0; i + 1 < node.children.size(); i += 2) {
      const auto& key = node.children[i].text;
      if (key == "payload") has_payload = !is_null(node.children[i + 1]);
      if (!known(key, node.children[i + 1], text, task_id)) unknown.push_back(&node.children[i]);
    }
    if (!queue.empty()) text.item.queue = queue;
    complete(node, text, task_id, has_payload);
    keep_unknown(unknown, text);
    if (auto valid = validate(text.item); !valid) refuse(node, valid.error().message);
    const auto [first, is_new] = seen_.emplace(text.item.id, node.line);
    if (!is_new) {
      refuse(node, "the id " + in_quotes(text.item.id) + " is there a second time (first in line " +
                       std::to_string(first->second) + "); give this item another one, or remove its id");
    }
    ++summary_.items;
    summary_.converted += converted_;
    if (auto taken = sink_(std::move(text)); !taken) throw SinkStopped{std::move(taken.error())};
  }

  // What an item that was written by hand, or by an older program, leaves out.
  void complete(const YamlNode& node, ItemText& text, const std::string& task_id, bool has_payload) {
    Item& item = text.item;
    const auto position = Duration(static_cast<std::int64_t>(summary_.items));
    if (!task_id.empty()) {
      if (item.id.empty()) item.id = task_id;
      if (!has_payload) {
        item.payload = R"({"task_id": )";
        append_json_string(item.payload, task_id);
        item.payload += '}';
      }
      note("task_id is now the id or in the payload");
    }
    if (item.created_at == Time::min()) {
      item.created_at = now_ + position;
      note("items without created_at are from now");
    }
    if (item.id.empty()) {
      std::string content;
      append_yaml(content, node);
      std::uint64_t hash = 0xcbf29ce484222325;
      for (const char c : content) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
      item.id = id_text(id_number_at(now_ + position, hash >> 20));
      note("items without an id have a new one");
    }
    if (item.status != Status::processing) {  // a lease is only of what is processing
      item.lease_owner.clear();
      item.lease_until.reset();
      text.lease_token = 0;
      text.lease_request.clear();
    }
  }

  void keep_unknown(const std::vector<const YamlNode*>& keys, ItemText& text) {
    if (keys.empty()) return;
    if (!options_.unknown_into_metadata) {
      for (const auto* key : keys) append_line(text.unknown, "  ", key[0], key[1]);
      return;
    }
    auto metadata = parse_json(text.item.metadata);
    for (const auto* key : keys) {
      if (metadata.find(key->text)) continue;
      YamlNode value = key[1];
      try {
        std::string ignored;
        append_json(ignored, value);
      } catch (const Malformed&) {  // what JSON cannot say stays as the text that it was
        std::string as_text;
        append_yaml(as_text, key[1]);
        value = {};
        value.kind = Kind::scalar;
        value.quoted = true;
        value.text = std::move(as_text);
      }
      metadata.children.push_back(*key);
      metadata.children.push_back(std::move(value));
      note(key->text.substr(0, 60) + " is now in the metadata");
    }
    text.item.metadata = json_of(metadata, Limits::metadata_bytes);
  }

  static void append_line(std::string& out, std::string_view indent, const YamlNode& key,
                          const YamlNode& value) {
    const bool is_long = key.text.size() > 200;
    out.append(indent) += is_long ? "? " : "";
    append_yaml_string(out, key.text);
    if (is_long) (out += '\n').append(indent);
    out += ": ";
    append_yaml(out, value);
    out += '\n';
  }

  // --- documents

  void document(const YamlNode& map, DocumentHead& head, bool is_first) {
    std::optional<YamlNode> items;
    for (std::size_t i = 0; i + 1 < map.children.size(); i += 2) {
      const auto& key = map.children[i];
      const auto& value = map.children[i + 1];
      const auto& word = key.text;
      if (word == "items" || word == "tasks" || (word == "queue" && value.kind != Kind::scalar)) {
        if (word != "items") note_document(word + ": is now items:");
        if (value.kind != Kind::sequence && !is_null(value))
          refuse(value, word + " has to be a list; [] is an empty one");
        if (!is_first) items = value;
      } else if (word == "name" || word == "queue") {
        head.name = text_of(word, value);
        if (head.name.empty()) continue;
        if (auto ok = validate_queue_name(head.name); !ok) refuse(value, ok.error().message);
      } else if (word == "max_size") {
        if (!is_null(value)) head.settings.max_size = number_of<std::uint64_t>(word, value, 0);
      } else if (word == "default_max_retries") {
        head.settings.default_max_retries = number_of<int>(word, value, 3);
      } else if (word == "paused") {
        head.paused = flag_of(word, value);
      } else if (word == "settings") {
        read_settings(value, head.settings);
      } else if (word == "queues" && is_first) {
        if (value.kind != Kind::sequence) refuse(value, "queues has to be a list of queues");
        further_queues(value);
      } else {
        append_line(head.unknown, "", key, value);
      }
    }
    if (auto ok = validate(head.settings); !ok) refuse(map, ok.error().message);
    if (!items) return;
    for (const auto& one : items->children) item(one, head.name);
  }

  void note_document(std::string text) {
    note(std::move(text));
    ++summary_.converted;
  }

  void further_queues(const YamlNode& list) {
    for (const auto& one : list.children) {
      if (one.kind != Kind::map) refuse(one, "a queue has to be a map with name and items");
      DocumentHead head;
      const auto* name = one.find("name");
      if (!name || text_of("name", *name).empty()) refuse(one, "a further queue has to say its name");
      head.name = text_of("name", *name);
      const auto same = [&](const DocumentHead& other) { return other.name == head.name; };
      if (std::ranges::any_of(summary_.more, same)) {
        refuse(*name,
               "the queue " + in_quotes(head.name) + " is there a second time; put its items into one list");
      }
      summary_.more.push_back(head);
      document(one, summary_.more.back(), false);
    }
  }

  static void read_settings(const YamlNode& map, Settings& settings) {
    if (is_null(map)) return;
    if (map.kind != Kind::map) refuse(map, "settings has to be a map, as in settings: {lease_s: 60}");
    for (std::size_t i = 0; i + 1 < map.children.size(); i += 2) {
      const auto& key = map.children[i].text;
      const auto& value = map.children[i + 1];
      const auto period = [&](Duration& to) {
        if (const auto given = seconds_of(key, value)) to = *given;
      };
      if (key == "lease_s") {
        period(settings.lease);
      } else if (key == "backoff_min_s") {
        period(settings.backoff_min);
      } else if (key == "backoff_max_s") {
        period(settings.backoff_max);
      } else if (key == "sync_interval_s") {
        period(settings.sync_interval);
      } else if (key == "keep_completed_s") {
        settings.keep_completed = seconds_of(key, value);
      } else if (key == "keep_failed_s") {
        settings.keep_failed = seconds_of(key, value);
      } else if (key == "keep_finished_max") {
        settings.keep_finished_max.reset();
        if (!is_null(value)) settings.keep_finished_max = number_of<std::uint64_t>(key, value, 0);
      } else if (key == "durable_claim") {
        settings.durable_claim = flag_of(key, value);
      } else if (key == "durability") {
        const auto level = parse_durability(text_of(key, value));
        if (!level)
          refuse(value, "durability has to be commit, interval or none, not " + in_quotes(value.text));
        settings.durability = *level;
      } else {
        refuse(map.children[i],
               "settings has no " + in_quotes(key) +
                   "; there are lease_s, backoff_min_s, backoff_max_s, keep_completed_s, keep_failed_s, "
                   "keep_finished_max, durability, sync_interval_s and durable_claim");
      }
    }
  }

  std::string_view name_;
  const ReadOptions& options_;
  const ItemSink& sink_;
  Time now_{};
  ReadSummary summary_{};
  std::unordered_map<std::string, std::uint32_t> seen_{};  // ids, and their lines
  bool converted_ = false;                                 // the item at hand
};

}  // namespace

std::optional<ItemFormat> format_of(const std::filesystem::path& path) {
  const auto extension = path.extension();
  if (extension == ".yaml" || extension == ".yml") return ItemFormat::yaml;
  if (extension == ".jsonl" || extension == ".ndjson" || extension == ".json") return ItemFormat::json_lines;
  return std::nullopt;
}

std::optional<ItemFormat> parse_item_format(std::string_view word) {
  if (word == "yaml" || word == "yml") return ItemFormat::yaml;
  for (const auto* other : {"jsonl", "json-lines", "json_lines", "ndjson", "json"}) {
    if (word == other) return ItemFormat::json_lines;
  }
  return std::nullopt;
}

Result<ReadSummary> read_items(std::string_view text, std::string_view name, const ReadOptions& options,
                               const ItemSink& sink) {
  auto format = options.format;
  if (!format) format = format_of(std::filesystem::path(name));
  const auto first = text.find_first_not_of(" \t\r\n");
  const char begin = first == std::string_view::npos ? '\0' : text[first];
  if (!format) format = begin == '{' ? ItemFormat::json_lines : ItemFormat::yaml;
  Reader reader(name, options, sink);
  // A list of JSON is YAML too.
  return *format == ItemFormat::json_lines && begin != '[' ? reader.json_lines(text) : reader.yaml(text);
}

Result<ReadSummary> read_item_file(const std::filesystem::path& path, const ReadOptions& options,
                                   const ItemSink& sink) {
  const bool standard_input = path == "-";
  std::ifstream file;
  if (!standard_input) {
    file.open(path, std::ios::binary);
    if (!file) {
      const int error = errno;
      return fail(error == ENOENT ? Errc::not_found : Errc::io_error,
                  path.string() + ": cannot open it: " + std::strerror(error));
    }
  }
  std::string text;
  constexpr std::size_t piece = std::size_t{256} << 10;
  for (std::size_t got = piece; got > 0;) {
    if (text.size() > file_bytes_max)
      return fail(Errc::payload_too_large, path.string() + " has more than 1 GiB; split it");
    const auto size = text.size();
    text.resize(size + piece);
    if (standard_input) {
      const auto count = ::read(STDIN_FILENO, text.data() + size, piece);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return fail(Errc::io_error, std::string("standard input: ") + std::strerror(errno));
      got = static_cast<std::size_t>(count);
    } else {
      file.read(text.data() + size, static_cast<std::streamsize>(piece));
      got = static_cast<std::size_t>(file.gcount());
      if (file.bad()) return fail(Errc::io_error, path.string() + ": cannot read it; is it a directory?");
    }
    text.resize(size + got);
  }
  return read_items(text, standard_input ? "standard input" : path.string(), options, sink);
}

}  // namespace fulmar::queue
