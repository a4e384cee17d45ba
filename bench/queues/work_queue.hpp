#pragma once
// WorkQueue: a process's connection to a queue that processes share, as the suite `queue` measures it: ours, and what others
// would use for it, each in the way that is fastest and does not lose an item whose worker dies.
//
// An item is a JSON object of at least 48 bytes that begins with its number. What is claimed is given back to the caller,
// who looks at the numbers: nothing may be missing, doubled or changed.
//
// Thread-safety: a WorkQueue belongs to one thread of the process that connected it; it does not survive fork().

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fulmar/result.hpp"
#include "server.hpp"

namespace fulmar::bench {

// {"n":"000000000017","x":"xxxx..."}, `bytes` long. Numbers: 0 .. 10^12 - 1.
std::string numbered_item(std::uint64_t number, std::size_t bytes);
// Errors: it is not an item of that length.
Result<std::uint64_t> number_of_item(std::string_view item, std::size_t bytes);

enum class Safety : std::uint8_t {
  synced,      // put() and complete() return when it is on the medium: it survives power loss
  not_synced,  // it survives the end of any process, and power loss but for the latest
};

class WorkQueue {
 public:
  virtual ~WorkQueue() = default;
  // In one go, as the queue does it best: one transaction, or one pipeline.
  virtual Result<void> put(std::span<const std::string> items) = 0;
  virtual Result<void> put_for_tomorrow(std::span<const std::string> items) = 0;
  // Takes up to `items_max` that nobody else gets meanwhile, in one go; they replace those that items() had. Does not wait.
  virtual Result<void> claim(std::size_t items_max) = 0;
  // One item, as soon as there is one; none when there was none for that long. Does not poll.
  virtual Result<void> wait_claim(std::chrono::milliseconds at_most) = 0;
  virtual Result<void> complete() = 0;  // all of items(), in one go
  const std::vector<std::string>& items() const { return items_; }

 protected:
  std::vector<std::string> items_;
};

struct QueueKind {
  std::string library;
  std::string missing{};               // why it is not there
  std::string (*version)() = nullptr;  // asks the program, where there is one
  // In the parent: a server whose files are in `folder`. Ours has none, only an address.
  Result<Server> (*start)(const std::filesystem::path& folder, Safety safety) = nullptr;
  // Where starting takes long: an empty queue in the server that runs, instead of the former one; returns its address.
  // nullptr: a server is started for each measurement.
  Result<std::string> (*renew)(const Server& server) = nullptr;
  // In the process that works. `woken`: somebody will be in wait_claim(), so put() has to wake them.
  Result<std::unique_ptr<WorkQueue>> (*connect)(const std::string& address, Safety safety,
                                                bool woken) = nullptr;
  bool schedules = true;       // put_for_tomorrow() works
  bool notices_death = false;  // gives back what a dead worker had without anybody's doing
  std::string note{};          // what it is and is not
};

QueueKind own_queue();
QueueKind own_postgres_queue();  // our queue in the rival's server
QueueKind own_yaml_queue();
QueueKind beanstalkd_queue();
QueueKind redis_queue();
QueueKind postgres_queue();
// Those that are compared, in the order of the tables.
std::vector<QueueKind> queue_kinds();

}  // namespace fulmar::bench
