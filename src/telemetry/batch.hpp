#pragma once
// BatchBuilder: the payload being built. Applies the field filter, checks nested JSON and keeps the byte bound.
//
// Not thread-safe: owned by the sender thread. Allocates only until its buffers have grown to a batch's size.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fulmar/telemetry.hpp"

namespace fulmar::telemetry {

class BatchBuilder {
 public:
  BatchBuilder(const TelemetryConfig& config, std::string run_id);

  enum class Added : std::uint8_t {
    yes,
    full,   // would exceed batch_size or batch_bytes: take the batch, then add again
    empty,  // the record has no value left; it is not part of any batch
  };
  // A single record over batch_bytes is taken into an empty batch.
  Added add(MeasurementView record);

  std::size_t count() const { return count_; }  // records
  bool complete() const { return count_ >= batch_size_; }
  std::size_t bytes() const { return payload_.size(); }

  // Closes the payload (once: a batch may be offered again); it is valid until reset(), and add() says `full` until then.
  // `number` goes into the wrapper with wrapper_sequence.
  std::string_view finish(std::uint64_t number);
  void reset();

  // Names of the filter that no record has had so far.
  std::vector<std::string_view> fields_never_seen() const;
  std::uint64_t invalid_values() const { return invalid_values_; }

 private:
  // The record without what the filter or the check of nested JSON leaves out; `scratch_` holds it when it differs.
  MeasurementView cleaned(MeasurementView record);
  bool wanted(std::string_view name);

  const std::shared_ptr<const BatchFormat> format_;
  const std::size_t batch_size_;
  const std::size_t batch_bytes_;
  const bool wrapper_;
  const bool wrapper_sequence_;
  const std::string run_id_;
  const std::size_t close_max_;  // bytes that finish() adds at most
  struct Field {
    std::string name;
    bool seen = false;
  };
  std::vector<Field> fields_;  // sorted by name

  std::string payload_;
  std::size_t count_ = 0;
  bool finished_ = false;
  Measurement scratch_;
  std::uint64_t invalid_values_ = 0;
};

// The record without nested JSON that is null or none; `scratch` holds it when it differs.
MeasurementView without_invalid_json(MeasurementView record, Measurement& scratch);

// {"name":value,...}
void append_values_object(std::string& out, MeasurementView record);

}  // namespace fulmar::telemetry
