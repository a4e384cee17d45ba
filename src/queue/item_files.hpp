#pragma once
// Items as text: the YAML document that people read and edit, and JSON lines. For the yaml: store and for
// `fulmar queue export | import | migrate`.
//
// The YAML document is the established one: `name`, `items` with every key written and nulls explicit, `max_size`,
// `default_max_retries`. What that format does not know is written only where it says something: of an item `result`,
// `unique_key`, `depends_on`, `lease_owner`, `lease_until` and `lease`, of the document `paused`, `settings` and `queues`
// (further queues of the store, each as a document of its own). Of JSON lines each line is one item, with the same keys.
//
// Reading takes the older shapes too: a list on the top, `tasks:` or `queue:` instead of `items:`; CRITICAL, HIGH, MEDIUM,
// LOW; `in_progress`, `done`; `blockedBy`, `blocked_by`, `dependencies`; `task_id`; times without an offset or as seconds
// since 1970; items without an id or a time. Keys that nobody knows are kept. Two items of one id are an error.
//
// A later version of the format says `fulmar_schema: 2`, on a line of its own; this is 1, and does not say it.
//
// Errors: io_error and not_found (a file); incompatible (a newer version); invalid_item, with "NAME:LINE:COLUMN: what is wrong; what to do" (no column
// within a line of JSON that is well-formed). Bounds: those of Limits, and nesting of 64.
//
// Thread-safety: functions from any thread; an ItemWriter has one owner.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fulmar/queue_types.hpp"
#include "fulmar/result.hpp"

namespace fulmar::queue {

enum class ItemFormat : std::uint8_t { yaml, json_lines };

// By the end of the name: .yaml .yml; .jsonl .ndjson .json. Nothing for others.
std::optional<ItemFormat> format_of(const std::filesystem::path& path);
std::optional<ItemFormat> parse_item_format(
    std::string_view word);  // "yaml", "yml", "jsonl", "json-lines", "ndjson", "json"

// --- reading ----------------------------------------------------------------------------------------------------------

struct ReadOptions {
  std::optional<ItemFormat> format{};  // default: by the name, else by the first character: '{' is JSON lines
  bool local_times =
      false;  // times without an offset are local time, as older programs wrote them; default: UTC
  // Of items without created_at, and for the ids of those without one: the same text and time give the same ids.
  // Default: now.
  std::optional<Time> now{};
  // What nobody knows goes into the item's metadata (where that has no such key), so that a store keeps it. Else it is in
  // ItemText::unknown.
  bool unknown_into_metadata = true;
};

// An item with what the model does not have. `lease` ones only of what is processing.
struct ItemText {
  Item item{};
  std::uint64_t lease_token = 0;  // 0 = none
  std::string lease_request{};
  std::string unknown{};          // lines of YAML, as a document has them
  unsigned line = 0;              // where it was read, from 1; 0 = nowhere
  bool max_retries_given = true;  // else it is 3, and the document's default_max_retries may say otherwise
};

// What a document says besides its items.
struct DocumentHead {
  std::string name{};  // of the queue; empty = it does not say
  Settings settings{};
  bool paused = false;
  std::string unknown{};  // lines of YAML
  std::string comment{};  // lines of YAML, before everything
};

struct ReadSummary {
  DocumentHead head{};               // of JSON lines nothing
  std::vector<DocumentHead> more{};  // of further queues in the document
  std::uint64_t items = 0;
  std::uint64_t converted = 0;  // items that were in an older shape, or lacked an id or a time
  std::vector<std::string>
      notes{};  // what was converted, each kind once: "status in_progress is now processing"
};

// Gets each item once, in the order of the text; an error ends the reading and is its result. Item::queue is what the line
// of JSON says, or the further queue's name; empty = the document's own (ReadSummary::head).
using ItemSink = std::function<Result<void>(ItemText&&)>;

// `name` is what errors call the text. Nothing is kept of items handed on but their ids.
Result<ReadSummary> read_items(std::string_view text, std::string_view name, const ReadOptions& options,
                               const ItemSink& sink);
// "-" is standard input. A file is read whole, at most 1 GiB.
Result<ReadSummary> read_item_file(const std::filesystem::path& path, const ReadOptions& options,
                                   const ItemSink& sink);

// --- writing ----------------------------------------------------------------------------------------------------------

using TextSink = std::function<Result<void>(std::string_view)>;

// Writes one document, item by item: `for (...) write(item); finish();`. Items are handed on in pieces of 64 KiB.
class ItemWriter {
 public:
  // Of JSON lines the head is not written; their items say `queue`.
  ItemWriter(ItemFormat format, TextSink sink, DocumentHead head = {});
  Result<void> write(const Item& item);
  Result<void> write(const ItemText& item);
  Result<void> finish();  // an export without it is not a whole document
  std::uint64_t items() const { return items_; }

 private:
  Result<void> flush(std::size_t at_least);

  ItemFormat format_;
  TextSink sink_;
  DocumentHead head_;
  std::string text_;
  std::uint64_t items_ = 0;
};

// Calls `produce` with a writer into a file that is there whole or not at all: a temporary file in its directory, synced,
// renamed. "-" is standard output. Returns the number of items. already_exists, unless `replace`.
Result<std::uint64_t> write_item_file(const std::filesystem::path& path, ItemFormat format, bool replace,
                                      const DocumentHead& head,
                                      const std::function<Result<void>(ItemWriter&)>& produce);

// --- pieces, for the yaml: store -----------------------------------------------------------------------------------------

// One item as a document has it, from "- id:" to the end of its last line. Error: a payload, metadata or result is no JSON.
Result<std::string> item_as_yaml(const ItemText& item);
// What stands before and behind the items.
std::string yaml_before_items(const DocumentHead& head, bool has_items);
std::string yaml_after_items(const DocumentHead& head);

}  // namespace fulmar::queue
