#pragma once
// TextSocket: a Unix stream socket whose other end speaks in lines and counted bytes, as Redis and beanstalkd do.
// Not thread-safe.

#include <string>
#include <string_view>

#include "fulmar/result.hpp"

namespace fulmar::bench {

class TextSocket {
 public:
  static Result<TextSocket> connect(const std::string& path);
  ~TextSocket();
  TextSocket(TextSocket&& other) noexcept;
  TextSocket& operator=(TextSocket&&) = delete;

  Result<void> send(std::string_view bytes);
  // Both views hold until the next call. Errors: the other end is gone, or says nothing for a minute.
  Result<std::string_view> line();  // without its CR LF
  Result<std::string_view> body(
      std::size_t size);  // and the CR LF behind it, which is not part of the result

 private:
  explicit TextSocket(int fd) : fd_(fd) {}
  Result<void> more();

  int fd_;
  std::string buffer_;
  std::size_t begin_ = 0;  // of what was not read
};

}  // namespace fulmar::bench
