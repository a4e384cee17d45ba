#include "cli/queue_store.hpp"

#include <algorithm>
#include <filesystem>

#include "cli/exit_code.hpp"
#include "cli/report.hpp"

namespace fulmar::cli {

Result<Queue> open_queue(const QueueCommandOptions& options, QueueUse use, const std::string& url) {
  if (use == QueueUse::fill && options.url_is_default) {
    // A failure is told by open(), which names the file.
    std::error_code ignored;
    std::filesystem::create_directories(std::filesystem::path(url.substr(url.find(':') + 1)).parent_path(),
                                        ignored);
  }
  const Report report(options.quiet);
  return Queue::open(url, {.name = options.name,
                           .create = use == QueueUse::fill,
                           .read_only = use == QueueUse::look,
                           .settings = {},
                           .durability = options.durability,
                           .lock_timeout = options.lock_timeout,
                           .set_damaged_aside = true,
                           .allow_network_file_system = false,
                           .log = [report](LogLevel level, std::string_view text) {
                             level == LogLevel::info ? report.plain(text) : report.warning(text);
                           }});
}

Result<Queue> open_queue(const QueueCommandOptions& options, QueueUse use) {
  std::error_code ignored;
  if (options.url_is_default && use != QueueUse::fill &&
      !std::filesystem::exists(options.url.substr(options.url.find(':') + 1), ignored)) {
    return fail(Errc::not_found,
                "there is no " + options.url +
                    " yet: 'fulmar queue add' makes it; another store is named by --queue or "
                    "FULMAR_QUEUE");
  }
  return open_queue(options, use, options.url);
}

std::string shown_url(std::string_view url) {
  const auto authority = url.find("://");
  if (authority == std::string_view::npos) return std::string(url);
  const auto at = url.substr(0, url.find('/', authority + 3)).rfind('@');
  const auto colon = url.find(':', authority + 3);
  if (at == std::string_view::npos || colon == std::string_view::npos || colon > at) return std::string(url);
  return std::string(url.substr(0, colon)) + ":***" + std::string(url.substr(at));
}

int exit_code_of(Errc code) {
  switch (code) {
    case Errc::not_found: return exit_not_found;
    case Errc::illegal_transition: return exit_illegal_transition;
    case Errc::lease_lost: return exit_lease_lost;
    case Errc::queue_full: return exit_queue_full;
    case Errc::already_exists: return exit_already_exists;
    case Errc::invalid_item:
    case Errc::payload_too_large: return exit_invalid_item;
    case Errc::io_error:
    case Errc::timeout:
    case Errc::connection_failed:
    case Errc::connection_refused: return exit_store_failed;
    case Errc::incompatible: return exit_incompatible;
    case Errc::damaged: return exit_store_damaged;
    default: return exit_failure;
  }
}

int failed(const Error& error) {
  Report(false).error(error.message);
  return exit_code_of(error.code);
}

int failed(std::span<const queue::Refusal> refusals) {
  constexpr std::size_t told_max = 20;
  for (const auto& refusal : refusals.first(std::min(refusals.size(), told_max)))
    Report(false).error(refusal.error.message);
  if (refusals.size() > told_max)
    Report(false).error("and " + std::to_string(refusals.size() - told_max) + " more");
  return refusals.empty() ? exit_success : exit_code_of(refusals.front().error.code);
}

}  // namespace fulmar::cli
