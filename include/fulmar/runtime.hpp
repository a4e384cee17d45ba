#pragma once
// Runtime: threads that many clients share. A client that is made without one has two threads of its own; a thousand
// clients on one Runtime have as many as it has.
//
// Each client lives on one I/O thread and one dispatch thread of the runtime, given out in turn. A handler that takes long
// holds up the handlers of the other clients on its dispatch thread, never their connections.
//
// Thread-safety: everything from any thread. The threads start with the first client that starts, and end when the Runtime
// and all its clients are gone.

#include <memory>

namespace fulmar {

class Runtime {
 public:
  struct Options {
    unsigned io_threads = 1;        // 1..256
    unsigned dispatch_threads = 1;  // 1..256
  };

  Runtime() : Runtime(Options{}) {}
  // Throws std::invalid_argument when a number is out of range.
  explicit Runtime(Options options);
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  class Impl;

 private:
  friend class Client;
  std::shared_ptr<Impl> impl_;
};

}  // namespace fulmar
