#pragma once
// Sheet: what a command prints on stdout, collected and written whole. A reader that has gone (`| head -1`) is no failure.
// Not thread-safe.

#include <string>

namespace fulmar::cli {

class Sheet {
 public:
  static constexpr std::size_t flush_bytes = std::size_t{256} << 10;

  Sheet();  // from now on a closed pipe is an error of write()
  std::string& text() { return text_; }
  void line(const std::string& one) { text_.append(one).append("\n"); }
  // False: nothing more can be written.
  bool flush();
  // The same, once enough has come together.
  bool flush_when_large() { return text_.size() < flush_bytes ? error_ == 0 : flush(); }
  bool reader_is_gone() const;
  // Writes the rest; `code`, unless that failed.
  int end(int code);

 private:
  std::string text_;
  int error_ = 0;
};

}  // namespace fulmar::cli
