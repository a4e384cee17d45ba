// Paho C's file persistence, by its public interface: messages that are sent while there is no connection, each a file of
// its own, never synced. It cannot be read without a server: the suite `restart` does that.

#include <MQTTAsync.h>
#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "store.hpp"

namespace fulmar::bench {
namespace {

constexpr const char* kept_for = "tcp://127.0.0.1:1";  // part of the folder's name

Result<void> outcome(std::string_view call, int rc) {
  if (rc == MQTTASYNC_SUCCESS) return {};
  return fail(Errc::io_error, fmt::format("{}: {}", call, MQTTAsync_strerror(rc)));
}

// Reads what is in the directory.
Result<MQTTAsync> make_client(const std::filesystem::path& directory) {
  MQTTAsync_createOptions create = MQTTAsync_createOptions_initializer;
  create.maxBufferedMessages = 10'000'000;
  create.sendWhileDisconnected = 1;
  create.allowDisconnectedSendAtAnyTime = 1;
  std::string folder = directory.string();
  MQTTAsync client = nullptr;
  if (auto made =
          outcome("MQTTAsync_createWithOptions",
                  MQTTAsync_createWithOptions(&client, kept_for, "bench-paho-store",
                                              MQTTCLIENT_PERSISTENCE_DEFAULT, folder.data(), &create));
      !made) {
    return std::unexpected(made.error());
  }
  return client;
}

class PahoCStore final : public Store {
 public:
  PahoCStore() = default;
  PahoCStore(const PahoCStore&) = delete;
  PahoCStore& operator=(const PahoCStore&) = delete;
  ~PahoCStore() override {
    if (client_) MQTTAsync_destroy(&client_);
  }

  Result<void> open(const std::filesystem::path& directory) override {
    auto made = make_client(directory);
    if (!made) return std::unexpected(made.error());
    client_ = *made;
    return {};
  }

  Result<void> append(std::size_t count, Reach) override {
    for (std::size_t i = 0; i < count; ++i) {
      const StoredEntry entry = numbered_entry(appended_++);
      const int rc =
          MQTTAsync_send(client_, "bench/store", static_cast<int>(entry.size()), entry.data(), 1, 0, nullptr);
      if (auto sent = outcome("MQTTAsync_send", rc); !sent) return sent;
    }
    return {};
  }

  Result<void> sync() override { return fail(Errc::io_error, "Paho C does not sync"); }
  Result<std::size_t> drain(std::size_t, Reach) override {
    return fail(Errc::io_error, "Paho C drains to a server only");
  }

 private:
  MQTTAsync client_ = nullptr;
  std::uint64_t appended_ = 0;
};

Result<Replay> replay(const std::filesystem::path& folder, std::uint16_t port, const SinkPage& sink,
                      std::uint64_t count) {
  const auto before = sink.publishes_total();
  const auto begin = std::chrono::steady_clock::now();
  const auto seconds = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  auto client = make_client(folder);
  if (!client) return std::unexpected(client.error());
  std::string url = fmt::format("tcp://127.0.0.1:{}", port);
  std::array<char*, 1> urls{url.data()};
  MQTTAsync_connectOptions connect = MQTTAsync_connectOptions_initializer;
  connect.cleansession = 0;
  connect.maxInflight = 1'000;
  connect.serverURIcount = 1;
  connect.serverURIs = urls.data();
  if (auto started = outcome("MQTTAsync_connect", MQTTAsync_connect(*client, &connect)); !started) {
    return std::unexpected(started.error());
  }
  Replay result;
  for (std::uint64_t arrived = 0; arrived < count; arrived = sink.publishes_total() - before) {
    if (result.first_s == 0 && arrived != 0) result.first_s = seconds();
    if (seconds() > 60)
      return fail(Errc::timeout, fmt::format("{} of {} messages arrived in 60 s", arrived, count));
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  result.all_s = seconds();
  return result;
}

std::string version() {
  for (auto* info = MQTTAsync_getVersionInfo(); info != nullptr && info->name != nullptr; ++info) {
    if (std::string_view(info->name) == "Version") return info->value;
  }
  return "unknown";
}

}  // namespace

StoreKind paho_c_store() {
  return {.library = "paho-c files",
          .version = version(),
          .make = []() -> std::unique_ptr<Store> { return std::make_unique<PahoCStore>(); },
          .syncs = false,
          .drains = false,
          .replay = replay};
}

}  // namespace fulmar::bench
