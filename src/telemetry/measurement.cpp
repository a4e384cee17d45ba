#include <cmath>
#include <cstring>
#include <limits>

#include "fulmar/telemetry.hpp"

namespace fulmar {
namespace {

// An entry: kind (1) | name size (2) | value size (4) | name | value, native byte order: it never leaves the process.
constexpr std::size_t entry_head = 7;

using Kind = MeasurementValue::Kind;

std::uint8_t code(Kind kind) { return static_cast<std::uint8_t>(kind); }

void write_entry(std::byte* at, std::string_view name, std::uint8_t kind, const void* data,
                 std::size_t size) {
  const auto name_size = static_cast<std::uint16_t>(name.size());
  const auto value_size = static_cast<std::uint32_t>(size);
  std::memcpy(at, &kind, 1);
  std::memcpy(at + 1, &name_size, 2);
  std::memcpy(at + 3, &value_size, 4);
  if (name_size) std::memcpy(at + entry_head, name.data(), name.size());
  if (size) std::memcpy(at + entry_head + name.size(), data, size);
}

template <typename T>
T read(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

}  // namespace

void Measurement::append(std::string_view name, std::uint8_t kind, const void* data, std::size_t size) {
  if (name.size() > std::numeric_limits<std::uint16_t>::max() ||
      size > std::numeric_limits<std::uint32_t>::max())
    return;
  const std::size_t need = entry_head + name.size() + size;
  if (spill_.empty() && need <= inline_.size() - size_) {
    write_entry(inline_.data() + size_, name, kind, data, size);
    size_ += need;
    return;
  }
  if (spill_.empty()) spill_.assign(inline_.data(), inline_.data() + size_);
  const std::size_t used = spill_.size();
  spill_.resize(used + need);
  write_entry(spill_.data() + used, name, kind, data, size);
}

Measurement& Measurement::add(std::string_view name, double value) {
  if (std::isfinite(value)) append(name, code(Kind::number), &value, sizeof value);
  return *this;
}

Measurement& Measurement::add(std::string_view name, std::int64_t value) {
  append(name, code(Kind::integer), &value, sizeof value);
  return *this;
}

Measurement& Measurement::add(std::string_view name, bool value) {
  append(name, code(Kind::boolean), &value, sizeof value);
  return *this;
}

Measurement& Measurement::add(std::string_view name, std::string_view text) {
  append(name, code(Kind::text), text.data(), text.size());
  return *this;
}

Measurement& Measurement::add_json(std::string_view name, std::string_view json) {
  append(name, code(Kind::json), json.data(), json.size());
  return *this;
}

void Measurement::clear(std::int64_t ts_ms) {
  ts_ms_ = ts_ms;
  size_ = 0;
  spill_.clear();
}

std::optional<MeasurementValue> MeasurementView::next() {
  if (rest_.size() < entry_head) return std::nullopt;
  const std::byte* at = rest_.data();
  const std::size_t name_size = read<std::uint16_t>(at + 1);
  const std::size_t value_size = read<std::uint32_t>(at + 3);
  MeasurementValue value;
  value.kind = static_cast<Kind>(read<std::uint8_t>(at));
  value.name = {reinterpret_cast<const char*>(at + entry_head), name_size};
  const std::byte* data = at + entry_head + name_size;
  switch (value.kind) {
    case Kind::integer: value.integer = read<std::int64_t>(data); break;
    case Kind::number: value.number = read<double>(data); break;
    case Kind::boolean: value.boolean = read<bool>(data); break;
    case Kind::text:
    case Kind::json: value.text = {reinterpret_cast<const char*>(data), value_size}; break;
  }
  rest_ = rest_.subspan(entry_head + name_size + value_size);
  return value;
}

}  // namespace fulmar
