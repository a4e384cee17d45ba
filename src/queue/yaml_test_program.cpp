// A program for the tests of the yaml: store, to be stopped and traced, alone or beside others:
//   submit URL ID         hands in one item
//   work URL WORKER       claims and completes until nothing is left; writes the ids to standard output
//   hold PATH             holds the lock of a queue's file until it is ended; writes "held" when it has it
#include <unistd.h>

#include <cstdio>
#include <string>

#include "queue/yaml_file.hpp"
#include "queue/yaml_repository.hpp"

namespace {

using namespace fulmar;
using namespace fulmar::queue;

int say(const Error& error) {
  std::printf("%s\n", error.message.c_str());
  return 1;
}

int submit(Repository& store, const std::string& id) {
  NewItem item;
  item.id = id;
  const auto done = store.transact(Access::write, Durability::commit, [&](Operations& op) {
    return op.submit(store.default_queue(), {&item, 1});
  });
  return done ? 0 : say(done.error());
}

int work(Repository& store, const std::string& worker) {
  ClaimRequest request;
  request.worker = worker;
  while (true) {
    const auto claimed = store.transact(Access::write, Durability::none, [&](Operations& op) {
      return op.claim(store.default_queue(), request);
    });
    if (!claimed) return say(claimed.error());
    if (claimed->leases.empty()) return 0;
    const Completion completion{claimed->leases[0].key(), {}};
    const auto completed = store.transact(Access::write, Durability::none,
                                          [&](Operations& op) { return op.complete({&completion, 1}); });
    if (!completed) return say(completed.error());
    if (completed->empty()) std::printf("done %s\n", completion.lease.id.c_str());
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const std::string verb = argv[1];
  if (verb == "hold") {
    const auto file = YamlFile::at(argv[2]);
    if (!file) return say(file.error());
    const auto lock = file->lock(std::chrono::seconds(5));
    if (!lock) return say(lock.error());
    std::printf("held\n");
    std::fflush(stdout);
    while (true) ::pause();
  }
  const auto store = open_yaml_repository(argv[2], {});
  if (!store) return say(store.error());
  if (argc != 4) return 2;
  return verb == "submit" ? submit(**store, argv[3]) : work(**store, argv[3]);
}
