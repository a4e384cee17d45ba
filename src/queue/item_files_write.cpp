// Writing items: as the established document, or as lines of JSON.
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "queue/item_files.hpp"
#include "queue/model.hpp"
#include "queue/yaml_node.hpp"
#include "queue/yaml_replace.hpp"

namespace fulmar::queue {
namespace {

constexpr std::size_t piece_bytes = std::size_t{64} << 10;

// The lines of an item or a document, `key: value` each.
class YamlLines {
 public:
  YamlLines(std::string& out, std::string_view indent) : out_(out), indent_(indent) {}

  void text(std::string_view key, std::string_view value) {
    begin(key);
    append_yaml_string(out_, value);
    out_ += '\n';
  }
  void text_or_null(std::string_view key, std::string_view value) {
    value.empty() ? word(key, "null") : text(key, value);
  }
  // A number, true, null: as it is.
  void word(std::string_view key, std::string_view value) {
    begin(key);
    out_.append(value) += '\n';
  }
  void time(std::string_view key, const std::optional<Time>& time) {
    word(key, time ? "'" + format_time(*time) + "'" : "null");
  }
  void json(std::string_view key, std::string_view value) {
    begin(key);
    append_yaml(out_, parse_json(value));
    out_ += '\n';
  }
  void seconds(std::string_view key, const std::optional<Duration>& period) {
    if (!period) return word(key, "null");
    char number[40];
    int length = std::snprintf(number, sizeof number, "%lld.%06lld",
                               static_cast<long long>(period->count() / 1'000'000),
                               static_cast<long long>(period->count() % 1'000'000));
    while (number[length - 1] == '0') --length;
    if (number[length - 1] == '.') --length;
    word(key, {number, static_cast<std::size_t>(length)});
  }

 private:
  void begin(std::string_view key) { out_.append(indent_).append(key).append(": "); }

  std::string& out_;
  std::string_view indent_;
};

void append_item_yaml(std::string& out, const ItemText& text) {
  const Item& item = text.item;
  out += "- id: ";
  append_yaml_string(out, item.id);
  out += '\n';
  YamlLines lines(out, "  ");
  lines.text("type", item.type);
  lines.json("payload", item.payload);
  lines.word("status", to_string(item.status));
  lines.time("created_at", item.created_at);
  lines.word("priority", std::to_string(item.priority));
  lines.time("scheduled_at", item.scheduled_at);
  lines.time("started_at", item.started_at);
  lines.time("completed_at", item.completed_at);
  lines.word("retry_count", std::to_string(item.retry_count));
  lines.word("max_retries", std::to_string(item.max_retries));
  lines.text_or_null("error_message", item.error_message);
  lines.json("metadata", item.metadata);
  if (!item.result.empty()) lines.json("result", item.result);
  if (!item.unique_key.empty()) lines.text("unique_key", item.unique_key);
  if (!item.depends_on.empty()) {
    out += "  depends_on: [";
    for (std::size_t i = 0; i < item.depends_on.size(); ++i) {
      if (i > 0) out += ", ";
      append_yaml_string(out, item.depends_on[i]);
    }
    out += "]\n";
  }
  if (!item.lease_owner.empty()) lines.text("lease_owner", item.lease_owner);
  if (item.lease_until) lines.time("lease_until", item.lease_until);
  if (text.lease_token != 0) {
    out += "  lease: {token: " + std::to_string(text.lease_token);
    if (!text.lease_request.empty()) append_yaml_string(out += ", request: ", text.lease_request);
    out += "}\n";
  }
  out += text.unknown;
}

// JSON on one line, as a line of JSON needs it.
void append_one_line(std::string& out, std::string_view json) {
  if (json.find_first_of("\r\n") == std::string_view::npos) {
    out += json;
  } else {
    append_json(out, parse_json(json));
  }
}

void append_item_json(std::string& out, const ItemText& text, const std::string& queue) {
  const Item& item = text.item;
  const auto key = [&](std::string_view name) {
    (out += name == "id" ? "{\"" : ",\"").append(name) += "\":";
  };
  const auto put_text = [&](std::string_view name, std::string_view value) {
    key(name);
    append_json_string(out, value);
  };
  const auto put_text_or_null = [&](std::string_view name, std::string_view value) {
    key(name);
    value.empty() ? static_cast<void>(out += "null") : append_json_string(out, value);
  };
  const auto put_time = [&](std::string_view name, const std::optional<Time>& time) {
    put_text_or_null(name, time ? format_time(*time) : std::string());
  };
  const auto put_json = [&](std::string_view name, std::string_view json) {
    key(name);
    json.empty() ? static_cast<void>(out += "null") : append_one_line(out, json);
  };
  put_text("id", item.id);
  put_text_or_null("queue", item.queue.empty() ? queue : item.queue);
  put_text("type", item.type);
  put_json("payload", item.payload);
  put_text("status", to_string(item.status));
  put_time("created_at", item.created_at);
  key("priority");
  out += std::to_string(item.priority);
  put_time("scheduled_at", item.scheduled_at);
  put_time("started_at", item.started_at);
  put_time("completed_at", item.completed_at);
  key("retry_count");
  out += std::to_string(item.retry_count);
  key("max_retries");
  out += std::to_string(item.max_retries);
  put_text_or_null("error_message", item.error_message);
  put_json("metadata", item.metadata);
  put_json("result", item.result);
  put_text_or_null("unique_key", item.unique_key);
  key("depends_on");
  out += '[';
  for (std::size_t i = 0; i < item.depends_on.size(); ++i) {
    if (i > 0) out += ',';
    append_json_string(out, item.depends_on[i]);
  }
  out += ']';
  put_text_or_null("lease_owner", item.lease_owner);
  put_time("lease_until", item.lease_until);
  out += "}\n";
}

// The one thing that can be wrong with an item that is to be written.
Result<void> guarded(const Item& item, const std::function<void()>& append) {
  try {
    append();
    return {};
  } catch (const Malformed& error) {
    return fail(Errc::invalid_item,
                "item " + item.id + ": its payload, metadata or result: " + error.message);
  }
}

Result<void> to_standard_output(std::string_view text) {
  while (!text.empty()) {
    const auto count = ::write(STDOUT_FILENO, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail(Errc::io_error, std::string("standard output: ") + std::strerror(errno));
    text.remove_prefix(static_cast<std::size_t>(count));
  }
  return {};
}

}  // namespace

Result<std::string> item_as_yaml(const ItemText& item) {
  std::string out;
  if (auto ok = guarded(item.item, [&] { append_item_yaml(out, item); }); !ok)
    return std::unexpected(std::move(ok.error()));
  return out;
}

std::string yaml_before_items(const DocumentHead& head, bool has_items) {
  std::string out = head.comment;
  YamlLines(out, "").text("name", head.name.empty() ? "default" : head.name);
  out += has_items ? "items:\n" : "items: []\n";
  return out;
}

std::string yaml_after_items(const DocumentHead& head) {
  std::string out;
  YamlLines lines(out, "");
  const Settings& settings = head.settings;
  lines.word("max_size", settings.max_size ? std::to_string(*settings.max_size) : "null");
  lines.word("default_max_retries", std::to_string(settings.default_max_retries));
  if (head.paused) lines.word("paused", "true");
  Settings usual;
  usual.max_size = settings.max_size;
  usual.default_max_retries = settings.default_max_retries;
  if (settings != usual) {
    out += "settings:\n";
    YamlLines inner(out, "  ");
    inner.seconds("lease_s", settings.lease);
    inner.seconds("backoff_min_s", settings.backoff_min);
    inner.seconds("backoff_max_s", settings.backoff_max);
    inner.seconds("keep_completed_s", settings.keep_completed);
    inner.seconds("keep_failed_s", settings.keep_failed);
    inner.word("keep_finished_max",
               settings.keep_finished_max ? std::to_string(*settings.keep_finished_max) : "null");
    inner.word("durability", to_string(settings.durability));
    inner.seconds("sync_interval_s", settings.sync_interval);
    inner.word("durable_claim", settings.durable_claim ? "true" : "false");
  }
  return out += head.unknown;
}

ItemWriter::ItemWriter(ItemFormat format, TextSink sink, DocumentHead head)
    : format_(format), sink_(std::move(sink)), head_(std::move(head)) {}

Result<void> ItemWriter::write(const Item& item) {
  ItemText text;
  text.item = item;
  return write(text);
}

Result<void> ItemWriter::write(const ItemText& item) {
  const auto before = text_.size();
  if (format_ == ItemFormat::yaml && items_ == 0) text_ += yaml_before_items(head_, true);
  auto appended = guarded(item.item, [&] {
    format_ == ItemFormat::yaml ? append_item_yaml(text_, item) : append_item_json(text_, item, head_.name);
  });
  if (!appended) {
    text_.resize(before);
    return appended;
  }
  ++items_;
  return flush(piece_bytes);
}

Result<void> ItemWriter::finish() {
  if (format_ == ItemFormat::yaml) {
    if (items_ == 0) text_ += yaml_before_items(head_, false);
    text_ += yaml_after_items(head_);
  }
  return flush(0);
}

Result<void> ItemWriter::flush(std::size_t at_least) {
  if (text_.size() < at_least) return {};
  auto written = sink_(text_);
  text_.clear();
  return written;
}

Result<std::uint64_t> write_item_file(const std::filesystem::path& path, ItemFormat format, bool replace,
                                      const DocumentHead& head,
                                      const std::function<Result<void>(ItemWriter&)>& produce) {
  const auto produced = [&](TextSink sink) -> Result<std::uint64_t> {
    ItemWriter writer(format, std::move(sink), head);
    if (auto ok = produce(writer); !ok) return std::unexpected(std::move(ok.error()));
    if (auto ok = writer.finish(); !ok) return std::unexpected(std::move(ok.error()));
    return writer.items();
  };
  if (path == "-") return produced(to_standard_output);
  std::error_code ignored;
  if (!replace && std::filesystem::exists(path, ignored))
    return fail(Errc::already_exists,
                path.string() + " exists; give another name, or ask for it to be replaced");
  auto file = FileReplacement::begin(path);
  if (!file) return std::unexpected(std::move(file.error()));
  auto items = produced([&](std::string_view text) { return file->write(text); });
  if (!items) return items;
  if (auto ok = file->commit({.replace = replace}); !ok) return std::unexpected(std::move(ok.error()));
  return items;
}

}  // namespace fulmar::queue
