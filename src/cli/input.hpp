#pragma once
// What `fulmar pub` sends: whole files, or the lines of a stream.
// Thread-safety: one owner.

#include <cstddef>
#include <string>
#include <string_view>

#include "fulmar/result.hpp"

namespace fulmar::cli {

// The largest payload that fits into an MQTT packet with a topic of any length [MQTT5 2.1.4].
inline constexpr std::size_t payload_max = 268'435'455 - 65'535 - 64;

// Errc::io_error with the path, the reason and what to do; Errc::payload_too_large.
Result<std::string> read_file(const std::string& path);
// To the end of stdin; an empty one is an error.
Result<std::string> read_stdin();

// Splits a byte stream at '\n'. Bytes are taken as they are: '\r' and '\0' belong to the line.
class LineSplitter {
 public:
  // Calls each(std::string_view) for every line that `bytes` completes.
  template <typename Each>
  void feed(std::string_view bytes, Each&& each) {
    for (auto end = bytes.find('\n'); end != std::string_view::npos; end = bytes.find('\n')) {
      if (begun_.empty()) {
        each(bytes.substr(0, end));
      } else {
        begun_.append(bytes.substr(0, end));
        each(std::string_view(begun_));
        begun_.clear();
      }
      bytes.remove_prefix(end + 1);
    }
    begun_ += bytes;
  }
  // The last line when the stream did not end with '\n', else empty.
  std::string_view rest() const { return begun_; }

 private:
  std::string begun_;
};

}  // namespace fulmar::cli
