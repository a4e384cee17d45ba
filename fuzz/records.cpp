// The reader of JSON lines and CSV against any bytes: however they are cut the same comes out, every record is one that
// the sender can format, and memory stays within the longest line.
// Input: format, limit of a line, where to cut; then the text.

#include <string>
#include <vector>

#include "fuzz_input.hpp"
#include "telemetry/batch.hpp"
#include "telemetry/json_text.hpp"
#include "telemetry/record_reader.hpp"

namespace {

using namespace fulmar;
using namespace fulmar::telemetry;
using Found = RecordReader::Found;

std::vector<std::string> read(RecordFormat format, std::size_t line_max, std::string_view text,
                              std::size_t step) {
  RecordReader reader(format, line_max);
  std::vector<std::string> seen;
  Measurement record;
  BadLine bad;
  std::uint64_t last_line = 0;
  for (bool ended = false;;) {
    const Found found = reader.next(record, bad);
    if (found == Found::record) {
      std::string values;
      append_values_object(values, {record.ts_ms(), record.encoded()});
      fuzz::require(check_json(values) == JsonKind::value, "a record is no JSON");
      seen.push_back(std::to_string(record.ts_ms()) + values);
    } else if (found == Found::bad_line || found == Found::unusable) {
      fuzz::require(!bad.what.empty() && bad.line > last_line,
                    "a bad line without a reason or a number of its own");
      last_line = bad.line;
      seen.push_back(std::to_string(bad.line) + bad.what);
      if (found == Found::unusable) return seen;
    } else if (found == Found::nothing) {
      fuzz::require(ended && reader.buffered() == 0, "it stopped before the end");
      return seen;
    } else {
      fuzz::require(!ended, "it wants more behind the end");
      fuzz::require(reader.buffered() <= line_max + step, "more is kept than a line");
      ended = text.empty();
      if (ended) reader.end();
      reader.feed(text.substr(0, step));
      text.remove_prefix(std::min(step, text.size()));
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const auto format = static_cast<RecordFormat>(input.byte() % 3);
  const std::size_t line_max = input.byte() + std::size_t{1};
  const std::size_t step = input.byte() % 64 + std::size_t{1};
  const auto bytes = input.rest();
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  fuzz::require(read(format, line_max, text, step) == read(format, line_max, text, text.size() + 1),
                "the cut made a difference");
  return 0;
}
