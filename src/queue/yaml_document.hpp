#pragma once
// YamlDocument: a yaml: store's file as it was read: the items and queues, and of each item what only the text has.
//
// Thread-safety: a plain value; shared as const.

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "queue/item_files.hpp"
#include "queue/item_table.hpp"
#include "queue/yaml_file.hpp"

namespace fulmar::queue {

class YamlDocument {
 public:
  // `name` is what errors call it. `previous`, an earlier version, if there is one: of what a program wrote only the items
  // that are not in it are parsed. Errors: damaged, with line and column.
  static Result<YamlDocument> parse(const YamlFile::Content& content, const std::string& name,
                                    const YamlDocument* previous = nullptr);
  // The same with the items and queues of `table`: what did not change keeps its text. Errors: invalid_item, when something
  // would not be read back as it is.
  Result<YamlDocument> with(ItemTable table) const;

  const ItemTable& table() const { return table_; }
  const FileVersion& version() const { return version_; }
  void set_version(const FileVersion& version) { version_ = version; }
  const std::string& default_queue() const { return heads_.front().name; }
  std::string text() const;

 private:
  struct Piece {
    std::string text{};     // of the item in the document; empty = not made yet
    std::string unknown{};  // of it, what the model does not know
  };
  using Pieces = std::map<ItemId, Piece, std::less<>>;

  struct Entry {
    TableItem item{};  // without its order
    Piece piece{};
    bool max_retries_given = true;
  };

  static std::optional<YamlDocument> parse_pieces(const YamlFile::Content& content,
                                                  const YamlDocument* previous);
  static Result<YamlDocument> parse_whole(const YamlFile::Content& content, const std::string& name);
  static Entry entry_of(ItemText&& text);
  bool set_heads(ReadSummary&& read);  // false: two of one name
  void fill(std::vector<Entry>&& entries);
  Result<std::string> piece_for(const TableItem& item, const std::string& unknown, bool is_new) const;

  FileVersion version_{};
  std::vector<DocumentHead> heads_{DocumentHead{.name = "default"}};  // the first one is the document's own
  ItemTable table_{};
  Pieces pieces_{};
};

}  // namespace fulmar::queue
