#include "queue/repository.hpp"

#include <time.h>

#include "queue/postgres.hpp"
#include "queue/sqlite_files.hpp"
#include "queue/sqlite_repository.hpp"
#include "queue/yaml_repository.hpp"

namespace fulmar::queue {
namespace {

class SystemClock final : public Clock {
 public:
  Time now() const override { return Time(read(CLOCK_REALTIME)); }
  Duration uptime() const override { return read(CLOCK_BOOTTIME); }

 private:
  static Duration read(clockid_t clock) {
    timespec ts{};
    clock_gettime(clock, &ts);
    return std::chrono::seconds(ts.tv_sec) + Duration(ts.tv_nsec / 1000);
  }
};

}  // namespace

const Clock& system_clock() {
  static const SystemClock clock;
  return clock;
}

Result<std::unique_ptr<Repository>> open_repository(std::string_view url, const RepositoryOptions& options) {
  if (const auto path = path_of_sqlite_url(url)) return SqliteRepository::open(*path, options);
  if (url.starts_with("yaml:")) return open_yaml_repository(url, options);
  if (is_postgres_url(url)) return open_postgres(url, options);
  return fail(Errc::invalid_url,
              "queue URL \"" + std::string(url) +
                  "\": it has to begin with sqlite:, yaml: or postgresql://, as in sqlite:jobs.db");
}

}  // namespace fulmar::queue
