#include "telemetry/batch.hpp"

#include <algorithm>

#include "telemetry/json_text.hpp"

namespace fulmar::telemetry {
namespace {

using Kind = MeasurementValue::Kind;

constexpr std::string_view wrapper_open = "{\"items\":";
constexpr std::string_view wrapper_middle = ",\"count\":";
constexpr std::string_view wrapper_run = ",\"run\":";
constexpr std::string_view wrapper_batch = ",\"batch\":";
constexpr std::size_t digits_max = 20;

class ThingsBoard final : public BatchFormat {
 public:
  ThingsBoard() : BatchFormat({"[", ",", "]"}) {}
  void append(std::string& payload, MeasurementView record) const override {
    payload += "{\"ts\":";
    append_json_number(payload, record.ts_ms());
    payload += ",\"values\":";
    append_values_object(payload, record);
    payload += '}';
  }
};

void copy_value(Measurement& to, const MeasurementValue& value) {
  switch (value.kind) {
    case Kind::integer: to.add(value.name, value.integer); break;
    case Kind::number: to.add(value.name, value.number); break;
    case Kind::boolean: to.add(value.name, value.boolean); break;
    case Kind::text: to.add(value.name, value.text); break;
    case Kind::json: to.add_json(value.name, value.text); break;
  }
}

bool has_nested_json(MeasurementView record) {
  while (const auto value = record.next())
    if (value->kind == Kind::json) return true;
  return false;
}

}  // namespace

void append_values_object(std::string& out, MeasurementView record) {
  char before = '{';
  while (const auto value = record.next()) {
    out += before;
    before = ',';
    append_json_string(out, value->name);
    out += ':';
    switch (value->kind) {
      case Kind::integer: append_json_number(out, value->integer); break;
      case Kind::number: append_json_number(out, value->number); break;
      case Kind::boolean: out += value->boolean ? "true" : "false"; break;
      case Kind::text: append_json_string(out, value->text); break;
      case Kind::json: out += value->text; break;
    }
  }
  if (before == '{') out += '{';
  out += '}';
}

MeasurementView without_invalid_json(MeasurementView record, Measurement& scratch) {
  if (!has_nested_json(record)) return record;
  scratch.clear(record.ts_ms());
  while (const auto value = record.next())
    if (value->kind != Kind::json || check_json(value->text) == JsonKind::value) copy_value(scratch, *value);
  return {scratch.ts_ms(), scratch.encoded()};
}

BatchBuilder::BatchBuilder(const TelemetryConfig& config, std::string run_id)
    : format_(config.format ? config.format : thingsboard_format()),
      batch_size_(config.batch_size),
      batch_bytes_(config.batch_bytes),
      wrapper_(config.batch_wrapper),
      wrapper_sequence_(config.batch_wrapper && config.wrapper_sequence),
      run_id_(std::move(run_id)),
      close_max_(format_->framing().close.size() + (wrapper_ ? wrapper_middle.size() + digits_max + 1 : 0) +
                 (wrapper_sequence_
                      ? wrapper_run.size() + run_id_.size() + 2 + wrapper_batch.size() + digits_max
                      : 0)) {
  for (const std::string& name : config.fields) fields_.push_back({.name = name});
  std::ranges::sort(fields_, {}, &Field::name);
  payload_.reserve(batch_bytes_ + batch_bytes_ / 8);
}

bool BatchBuilder::wanted(std::string_view name) {
  const auto at =
      std::ranges::lower_bound(fields_, name, {}, [](const Field& f) { return std::string_view(f.name); });
  if (at == fields_.end() || at->name != name) return false;
  at->seen = true;
  return true;
}

MeasurementView BatchBuilder::cleaned(MeasurementView record) {
  if (fields_.empty() && !has_nested_json(record)) return record;
  scratch_.clear(record.ts_ms());
  while (const auto value = record.next()) {
    if (!fields_.empty() && !wanted(value->name)) continue;
    if (value->kind == Kind::json) {
      const JsonKind kind = check_json(value->text);
      if (kind == JsonKind::invalid) ++invalid_values_;
      if (kind != JsonKind::value) continue;
    }
    copy_value(scratch_, *value);
  }
  return {scratch_.ts_ms(), scratch_.encoded()};
}

BatchBuilder::Added BatchBuilder::add(MeasurementView record) {
  if (finished_ || count_ >= batch_size_) return Added::full;
  const std::uint64_t invalid_before = invalid_values_;
  const MeasurementView values = cleaned(record);
  if (MeasurementView probe = values; !probe.next()) return Added::empty;

  const std::size_t before = payload_.size();
  if (count_ == 0 && wrapper_) payload_ += wrapper_open;
  payload_ += count_ == 0 ? format_->framing().open : format_->framing().separator;
  format_->append(payload_, values);
  if (payload_.size() + close_max_ > batch_bytes_ && count_ > 0) {
    payload_.resize(before);
    invalid_values_ = invalid_before;  // the record comes again
    return Added::full;
  }
  ++count_;
  return Added::yes;
}

std::string_view BatchBuilder::finish(std::uint64_t number) {
  if (finished_) return payload_;
  finished_ = true;
  payload_ += format_->framing().close;
  if (wrapper_) {
    payload_ += wrapper_middle;
    append_json_number(payload_, static_cast<std::int64_t>(count_));
    if (wrapper_sequence_) {
      payload_ += wrapper_run;
      append_json_string(payload_, run_id_);
      payload_ += wrapper_batch;
      append_json_number(payload_, static_cast<std::int64_t>(number));
    }
    payload_ += '}';
  }
  return payload_;
}

void BatchBuilder::reset() {
  payload_.clear();
  count_ = 0;
  finished_ = false;
}

std::vector<std::string_view> BatchBuilder::fields_never_seen() const {
  std::vector<std::string_view> names;
  for (const Field& field : fields_)
    if (!field.seen) names.push_back(field.name);
  return names;
}

}  // namespace fulmar::telemetry

namespace fulmar {

std::shared_ptr<const BatchFormat> thingsboard_format() {
  return std::make_shared<const telemetry::ThingsBoard>();
}

}  // namespace fulmar
