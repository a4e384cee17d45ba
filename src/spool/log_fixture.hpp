#pragma once
// What the tests of Log share: a log on a simulated disk, entries whose bytes follow from their number.

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "spool/log.hpp"
#include "spool/simulated_file_system.hpp"

namespace fulmar::spool::test {

using Operation = SimulatedFileSystem::Operation;

inline Bytes bytes_of(std::string_view text) { return std::as_bytes(std::span(text.data(), text.size())); }
inline std::string text_of(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The entry that a test appends as `number`: reproducible, of about `size` bytes.
inline std::string body(std::uint64_t number, std::size_t size = 100) {
  std::uint64_t state = number + 1;
  const auto random = [&] { return state = state * 6364136223846793005u + 1442695040888963407u; };
  std::string text = std::to_string(number) + ":";
  std::size_t at = text.size();
  text.resize(at + size / 2 + (random() >> 33) % (size / 2 + 1));
  for (; at < text.size(); ++at) text[at] = static_cast<char>(random() >> 56);
  return text;
}
inline std::string body(int number, std::size_t size = 100) {
  return body(static_cast<std::uint64_t>(number), size);
}

struct World {
  explicit World(std::uint64_t seed = 1, std::uint64_t bytes_max = 1 << 20) : files(seed) {
    options.directory = "/spool";
    options.bytes_max = bytes_max;
  }

  bool open() {
    log.reset();
    auto opened = Log::open(files, options, now_ms,
                            [this](Level, std::string_view text) { events += text, events += '\n'; });
    if (!opened) {
      error = opened.error().message;
      return false;
    }
    log = std::move(*opened);
    return true;
  }
  void crash() {
    files.crash();
    log.reset();  // its files do nothing any more
  }
  void kill() {
    files.kill();
    log.reset();
  }

  std::expected<Sequence, Refusal> append(std::string_view text, std::int64_t expires_ms = 0) {
    const Bytes parts[] = {bytes_of(text.substr(0, text.size() / 3)), bytes_of(text.substr(text.size() / 3))};
    return log->append({now_ms, expires_ms, parts});
  }

  // What is to be read until nothing comes; with `acknowledge`, all of it.
  std::map<Sequence, std::string> drain(bool acknowledge = false) {
    std::map<Sequence, std::string> all;
    ReadBatch batch;
    Sequence last = 0;
    while (log->read(batch, now_ms) && !batch.empty()) {
      for (const auto& entry : batch.entries()) {
        if (entry.sequence <= last) ordered = false;
        last = entry.sequence;
        all[entry.sequence] = text_of(entry.bytes);
        if (acknowledge) log->acknowledge(entry.sequence);
      }
    }
    return all;
  }

  std::vector<std::string> names() const { return files.names("/spool"); }
  std::size_t files_ending(std::string_view end) const {
    std::size_t count = 0;
    for (const auto& name : names()) count += name.ends_with(end);
    return count;
  }

  SimulatedFileSystem files;
  Options options;
  std::int64_t now_ms = 1'000'000;
  std::unique_ptr<Log> log;
  std::string error, events;
  bool ordered = true;
};

}  // namespace fulmar::spool::test
