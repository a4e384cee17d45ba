#pragma once
// Connector: opens one socket to whichever of several addresses answers first (Happy Eyeballs, RFC 8305), or to a Unix
// socket.
//
// The families take turns, the one that the resolver put first beginning; the next address is tried when the former has
// failed or has not answered for `attempt_delay`, and goes on beside it. The first connection made wins, the others are
// closed. There is no time limit: whoever waits cancels.
//
// Not thread-safe: used on its executor. The handler runs on the executor, never within connect(), and not after cancel()
// or destruction. Sockets are close-on-exec from their creation; TCP_NODELAY is set.

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/ip/tcp.hpp>

#include "fulmar/result.hpp"

namespace fulmar::net {

class Connector {
 public:
  using Socket = boost::asio::generic::stream_protocol::socket;
  struct Connected {
    Socket socket;
    std::string peer;  // "127.0.0.1:1883", "[::1]:1883" or the path of the Unix socket
  };
  // An error names every address that was tried and why it failed.
  using Handler = std::function<void(Result<Connected>)>;

  static constexpr std::chrono::milliseconds attempt_delay{250};
  static constexpr std::size_t addresses_max = 32;  // of a name with more, the others are not tried

  explicit Connector(boost::asio::any_io_executor executor);
  ~Connector();
  Connector(const Connector&) = delete;
  Connector& operator=(const Connector&) = delete;

  // One connect() in the life of a Connector.
  void connect(std::vector<boost::asio::ip::tcp::endpoint> addresses, Handler handler);
  void connect(const std::string& socket_path, Handler handler);
  void cancel();

 private:
  struct Race;
  boost::asio::any_io_executor executor_;
  std::shared_ptr<Race> race_;  // shared with the operations under way
};

}  // namespace fulmar::net
