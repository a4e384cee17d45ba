#include "work_queue.hpp"

namespace fulmar::bench {

std::vector<QueueKind> queue_kinds() {
  return {own_queue(), own_postgres_queue(), beanstalkd_queue(), redis_queue(), postgres_queue()};
}

}  // namespace fulmar::bench
