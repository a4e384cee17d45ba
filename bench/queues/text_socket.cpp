#include "text_socket.hpp"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace fulmar::bench {

Result<TextSocket> TextSocket::connect(const std::string& path) {
  TextSocket socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return fail(Errc::io_error, fmt::format("{}: too long for a socket", path));
  std::memcpy(address.sun_path, path.data(), path.size());
  const timeval patience{.tv_sec = 60, .tv_usec = 0};
  ::setsockopt(socket.fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (::connect(socket.fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return fail(Errc::connection_failed, fmt::format("{}: {}", path, std::strerror(errno)));
  return socket;
}

TextSocket::~TextSocket() {
  if (fd_ >= 0) ::close(fd_);
}

TextSocket::TextSocket(TextSocket&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), buffer_(std::move(other.buffer_)), begin_(other.begin_) {}

Result<void> TextSocket::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const auto sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return fail(Errc::io_error, fmt::format("send: {}", std::strerror(errno)));
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
  return {};
}

Result<void> TextSocket::more() {
  if (begin_ == buffer_.size()) {
    buffer_.clear();
    begin_ = 0;
  } else if (begin_ > (std::size_t{64} << 10)) {
    buffer_.erase(0, begin_);
    begin_ = 0;
  }
  constexpr std::size_t step = std::size_t{64} << 10;
  const auto had = buffer_.size();
  ssize_t received = 0;
  buffer_.resize_and_overwrite(had + step, [&](char* bytes, std::size_t) {
    do {
      received = ::recv(fd_, bytes + had, step, 0);
    } while (received < 0 && errno == EINTR);
    return had + static_cast<std::size_t>(received > 0 ? received : 0);
  });
  if (received > 0) return {};
  return fail(Errc::io_error, received == 0 ? "the server closed the connection"
                                            : fmt::format("recv: {}", std::strerror(errno)));
}

Result<std::string_view> TextSocket::line() {
  for (;;) {
    if (const auto end = buffer_.find("\r\n", begin_); end != buffer_.npos) {
      const auto found = std::string_view(buffer_).substr(begin_, end - begin_);
      begin_ = end + 2;
      return found;
    }
    if (auto got = more(); !got) return std::unexpected(got.error());
  }
}

Result<std::string_view> TextSocket::body(std::size_t size) {
  while (buffer_.size() - begin_ < size + 2) {
    if (auto got = more(); !got) return std::unexpected(got.error());
  }
  const auto found = std::string_view(buffer_).substr(begin_, size);
  begin_ += size + 2;
  return found;
}

}  // namespace fulmar::bench
