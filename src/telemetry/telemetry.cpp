#include "fulmar/telemetry.hpp"

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "fulmar/mqtt/topic.hpp"
#include "telemetry/batch.hpp"
#include "telemetry/client_figures.hpp"
#include "telemetry/pipeline.hpp"

namespace fulmar {
namespace {

using Clock = telemetry::Pipeline::Clock;

void check_range(std::vector<std::string>& problems, std::string_view field, std::uint64_t value,
                 std::uint64_t min, std::uint64_t max) {
  if (value < min || value > max)
    problems.push_back(std::string(field) + " = " + std::to_string(value) +
                       " is out of range: " + std::to_string(min) + " to " + std::to_string(max));
}

void check_topic(std::vector<std::string>& problems, std::string_view field, const std::string& topic) {
  if (topic.empty() || topic.size() > 65'535 ||
      topic.find_first_of(std::string_view("+#\0", 3)) != std::string::npos)
    problems.push_back(std::string(field) + " = \"" + topic +
                       "\" is no topic: 1 to 65535 bytes without +, # and NUL");
}

std::string all(const std::vector<std::string>& problems) {
  std::string text;
  for (const std::string& problem : problems) text.append(text.empty() ? "" : "\n").append(problem);
  return text;
}

}  // namespace

std::vector<std::string> TelemetryConfig::problems() const {
  std::vector<std::string> found;
  check_topic(found, "topic", topic);
  check_topic(found, "attributes_topic", attributes_topic);
  check_range(found, "qos", static_cast<std::uint64_t>(qos), 0, 1);
  check_range(found, "queue_capacity", queue_capacity, 2, std::uint64_t{1} << 24);
  if (queue_bytes != 0)
    check_range(found, "queue_bytes", queue_bytes, std::uint64_t{1} << 20, std::uint64_t{16} << 30);
  check_range(found, "batch_size", batch_size, 1, 10'000);
  check_range(found, "batch_bytes", batch_bytes, 1'000, std::uint64_t{16} << 20);
  if (batch_interval < std::chrono::milliseconds(10) || batch_interval > std::chrono::hours(1))
    found.push_back("batch_interval = " + std::to_string(batch_interval.count()) +
                    " ms is out of range: 10 ms to 1 h");
  if (wrapper_sequence && !batch_wrapper)
    found.push_back("wrapper_sequence needs batch_wrapper: the sequence is a part of the wrapper");
  if (!mqtt::is_valid_utf8(batch_property))
    found.push_back("batch_property is no name of a user property: it is not valid UTF-8");
  return found;
}

std::uint64_t PowerHistogram::count() const {
  return std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
}

std::uint64_t PowerHistogram::quantile(double share) const {
  const std::uint64_t all = count();
  if (all == 0) return 0;
  const double wanted = std::clamp(share, 0.0, 1.0) * static_cast<double>(all);
  std::uint64_t reached = 0;
  for (std::size_t bucket = 0; bucket < buckets; ++bucket) {
    reached += counts[bucket];
    if (reached > 0 && static_cast<double>(reached) >= wanted) return upper_end(bucket);
  }
  return upper_end(buckets - 1);
}

class Telemetry::Impl {
 public:
  Impl(Client& client, TelemetryConfig config) : client_(client), config_(std::move(config)) {
    if (const auto found = config_.problems(); !found.empty()) throw std::invalid_argument(all(found));
    pipeline_ = std::make_shared<telemetry::Pipeline>(
        [&client](std::string_view topic, BytesView payload, const PublishOptions& options,
                  DeliveryHandler handler) {
          return client.publish(topic, payload, options, std::move(handler));
        },
        config_);
  }

  TelemetryStats with_client_figures(TelemetryStats stats) const {
    telemetry::add_client_figures(stats, client_.metrics(), client_.state(), client_.spool_dir());
    return stats;
  }

  Client& client_;
  const TelemetryConfig config_;
  std::shared_ptr<telemetry::Pipeline> pipeline_;
};

Telemetry::Telemetry(Client& client, TelemetryConfig config)
    : impl_(std::make_unique<Impl>(client, std::move(config))) {}

Telemetry::~Telemetry() { stop(std::chrono::seconds(1)); }

bool Telemetry::record(const Measurement& measurement) {
  return impl_->pipeline_->record(measurement.ts_ms(), measurement.encoded());
}

Telemetry::Offer Telemetry::offer(const Measurement& measurement) {
  return impl_->pipeline_->offer(measurement.ts_ms(), measurement.encoded());
}

Result<MessageId> Telemetry::publish_attributes(const Measurement& attributes, DeliveryHandler handler) {
  std::string payload;
  Measurement scratch;
  telemetry::append_values_object(payload,
                                  telemetry::without_invalid_json({0, attributes.encoded()}, scratch));
  return impl_->client_.publish(impl_->config_.attributes_topic, as_bytes(payload),
                                {.qos = impl_->config_.qos}, std::move(handler));
}

void Telemetry::start() { impl_->pipeline_->start(); }

bool Telemetry::flush(std::chrono::milliseconds deadline) {
  return impl_->pipeline_->flush(Clock::now() + deadline);
}

TelemetryStats Telemetry::stop(std::chrono::milliseconds deadline) {
  return impl_->with_client_figures(impl_->pipeline_->stop(Clock::now() + deadline));
}

TelemetryStats Telemetry::stats() const { return impl_->with_client_figures(impl_->pipeline_->stats()); }

}  // namespace fulmar
